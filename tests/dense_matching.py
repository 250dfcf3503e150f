"""The simple way to match anchors, by the IoU of each with each box: what `match_anchors` must agree with."""

import numpy as np

from detfeed import boxes as geometry
from detfeed.targets.matches import IGNORED, NEGATIVE, POSITIVE, AnchorMatches


def match_densely(
    grid,
    boxes,
    *,
    input_hw,
    image_hw=None,
    ignore=None,
    positive_iou=0.7,
    negative_iou=0.3,
    low_quality=True,
    ignore_ioa=0.5,
    straddle=None,
    dtype=np.float32,
):
    """As `detfeed.match_anchors`, for boxes inside the image; overlaps are computed from corners in `dtype`."""
    anchors = grid.anchors(input_hw).astype(dtype)
    outside = anchors_outside(anchors, input_hw, image_hw, straddle)
    boxes = boxes.astype(dtype)
    regions = np.zeros(len(boxes), bool) if ignore is None else ignore
    objects = np.flatnonzero(~regions & (geometry.area(boxes) > 0))

    states = np.zeros(len(anchors), np.int8)
    match = np.zeros(len(anchors), np.int64)
    best = np.zeros(len(anchors), dtype)
    if len(objects):
        overlaps = geometry.iou(anchors, boxes[objects])
        overlaps[outside] = 0
        best = overlaps.max(axis=1)
        match = objects[overlaps.argmax(axis=1)]
        states[best >= negative_iou] = IGNORED
        states[best >= positive_iou] = POSITIVE
        if low_quality:
            highest = overlaps.max(axis=0)
            states[((overlaps == highest) & (highest > 0)).any(axis=1)] = POSITIVE
    if regions.any():
        covered = geometry.ioa(anchors, boxes[regions]).max(axis=1)
        states[(covered >= ignore_ioa) & (states == NEGATIVE)] = IGNORED
    states[outside] = IGNORED
    positive = np.flatnonzero(states == POSITIVE)
    return AnchorMatches(states, positive, match[positive], best[positive].astype(np.float32))


def anchors_outside(anchors, input_hw, image_hw, straddle):
    """Anchors that take no part: centred in the padding, or reaching out too far; bool (A,)."""
    outside = np.zeros(len(anchors), bool)
    if image_hw is not None:
        # Rounded, since the centre of rounded corners can lie beside an edge that the anchor is centred on.
        centre = np.round((anchors[:, :2].astype(np.float64) + anchors[:, 2:]) / 2, 3)
        outside |= (centre >= np.array(image_hw[::-1])).any(axis=1)
    if straddle is not None:
        height, width = input_hw if image_hw is None else image_hw
        limit = np.array([width + straddle, height + straddle])
        corners = np.round(anchors, 3)
        outside |= (corners[:, :2] < -straddle).any(axis=1) | (corners[:, 2:] > limit).any(axis=1)
    return outside


def differences(grid, boxes, ours, theirs, *, tolerance=1e-6, **rules):
    """Anchors on which two answers differ without an overlap that close to another one or to a threshold.

    Returns:
        A list of (anchor, what differs).
    """
    rules = {"positive_iou": 0.7, "negative_iou": 0.3, "ignore_ioa": 0.5, "image_hw": None, "ignore": None, **rules}
    anchors = grid.anchors(rules["input_hw"]).astype(np.float64)
    boxes = boxes.astype(np.float64)
    regions = np.zeros(len(boxes), bool) if rules["ignore"] is None else rules["ignore"]
    overlaps = geometry.iou(anchors, boxes)
    overlaps[:, regions] = 0
    outside = anchors_outside(anchors, rules["input_hw"], rules["image_hw"], rules.get("straddle"))
    covered = geometry.ioa(anchors, boxes)[:, regions]
    highest = np.where(outside[:, None], 0, overlaps).max(axis=0, initial=0)

    def close(a, b):
        return np.abs(a - b) <= tolerance

    found = []
    for anchor in np.flatnonzero(ours.states != theirs.states):
        excused = (
            close(overlaps[anchor], rules["positive_iou"]).any()
            or close(overlaps[anchor], rules["negative_iou"]).any()
            or close(covered[anchor], rules["ignore_ioa"]).any()
            or (close(overlaps[anchor], highest) & (overlaps[anchor] > 0)).any()
        )
        if not excused:
            found.append((int(anchor), f"states {ours.states[anchor]} and {theirs.states[anchor]}"))
    for anchor in np.intersect1d(ours.positive, theirs.positive):
        pair = [int(m.match[np.searchsorted(m.positive, anchor)]) for m in (ours, theirs)]
        if pair[0] != pair[1] and not close(*overlaps[anchor, pair]):
            found.append((int(anchor), f"boxes {pair}"))
    return found
