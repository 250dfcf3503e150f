"""Matching: which anchors show an object, which show background, and which neither."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.anchors import AnchorGrid
from detfeed.boxes import Boxes

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class AnchorMatches(NamedTuple):
    """What `match_anchors` decided.

    Attributes:
        states: int8 (A,), POSITIVE 1, NEGATIVE 0 or IGNORED -1.
        positive: int64 (P,), indices of the positive anchors, ascending.
        match: int64 (P,), for each of them the row of its box in `boxes`.
    """

    states: NDArray[np.int8]
    positive: NDArray[np.int64]
    match: NDArray[np.int64]


def match_anchors(
    grid: AnchorGrid,
    boxes: Boxes,
    *,
    input_hw: tuple[int, int],
    image_hw: tuple[int, int] | None = None,
    ignore: NDArray[np.bool_] | None = None,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    low_quality: bool = True,
    ignore_ioa: float = 0.5,
    straddle: float | None = None,
) -> AnchorMatches:
    """Decide for every anchor whether it shows an object, and which one.

    An anchor is positive when its best IoU is at least `positive_iou`, or (with `low_quality`) when no anchor has a
    higher IoU with some box, ties included, as long as that IoU is above 0. It is negative when its IoU with every box
    is below `negative_iou`, and ignored otherwise. A positive anchor's box is the one of its highest IoU, the first
    among equals, also when another box made it positive. Ignore regions turn negatives to ignored, never positives.

    Args:
        grid: the anchors.
        boxes: float32 (N, 4), xyxy pixels of the input; N may be 0. Boxes are clipped to the image first; one without
            area after that matches nothing.
        input_hw: height and width of the input (the canvas) in pixels.
        image_hw: height and width of the true image in the input's top left corner; anchors centred outside it are
            ignored and take no part in matching. None: the image fills the input, and every anchor takes part.
        ignore: bool (N,), True for boxes that are ignore regions rather than objects. None: no box is.
        positive_iou, negative_iou: the thresholds, negative_iou <= positive_iou.
        low_quality: whether the best anchors of a box are positive whatever their IoU.
        ignore_ioa: an anchor of which an ignore region covers at least this share is ignored.
        straddle: pixels by which an anchor may reach out of the true image before it is ignored. None: any number.

    Returns:
        AnchorMatches.

    Source: Ren et al. 2015, section 3.1.2. Agrees with torchvision's Matcher wherever every box overlaps some anchor;
        there, a box at IoU 0 with every anchor makes every anchor positive, here it makes none.
    """
    anchors = grid.anchors(input_hw)
    outside = _outside(anchors, image_hw, straddle, input_hw)
    clipped = geometry.clip(boxes, input_hw if image_hw is None else image_hw)
    regions = np.zeros(len(boxes), bool) if ignore is None else ignore
    objects = np.flatnonzero(~regions & (geometry.area(clipped) > 0))

    states = np.zeros(len(anchors), np.int8)
    best = np.zeros(len(anchors), np.float32)
    match = np.zeros(len(anchors), np.int64)
    if len(objects):
        overlaps = geometry.iou(anchors, clipped[objects])
        overlaps[outside] = 0
        best = overlaps.max(axis=1)
        match = objects[overlaps.argmax(axis=1)]
        states[best >= negative_iou] = IGNORED
        states[best >= positive_iou] = POSITIVE
        if low_quality:
            highest = overlaps.max(axis=0)
            states[((overlaps == highest) & (highest > 0)).any(axis=1)] = POSITIVE
    if regions.any():
        covered = geometry.ioa(anchors, clipped[regions]).max(axis=1)
        states[(covered >= ignore_ioa) & (states == NEGATIVE)] = IGNORED
    states[outside] = IGNORED
    positive = np.flatnonzero(states == POSITIVE)
    return AnchorMatches(states, positive, match[positive])


def _outside(
    anchors: Boxes, image_hw: tuple[int, int] | None, straddle: float | None, input_hw: tuple[int, int]
) -> NDArray[np.bool_]:
    """Anchors that take no part: centred in the padding, or reaching out too far; bool (A,)."""
    outside = np.zeros(len(anchors), bool)
    if image_hw is not None:
        height, width = image_hw
        outside |= (anchors[:, 0] + anchors[:, 2] >= 2 * width) | (anchors[:, 1] + anchors[:, 3] >= 2 * height)
    if straddle is not None:
        height, width = input_hw if image_hw is None else image_hw
        limit = np.array([width + straddle, height + straddle], np.float32)
        outside |= (anchors[:, :2] < -straddle).any(axis=1) | (anchors[:, 2:] > limit).any(axis=1)
    return outside


def sample_anchors(
    matches: AnchorMatches,
    rng: np.random.Generator,
    *,
    num_samples: int = 256,
    positive_fraction: float = 0.5,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the anchors that a loss is computed on, uniformly and without replacement.

    Args:
        matches: of one image.
        rng: the sample's generator.
        num_samples: how many in all; fewer where fewer are there.
        positive_fraction: at most this share of them is positive; negatives fill up.

    Returns:
        int64 (P,), places in `matches.positive` of the positives drawn, and int64 (Q,), anchor indices of the
        negatives drawn; P + Q <= num_samples.

    Source: Ren et al. 2015, section 3.1.3.
    """
    positives = np.arange(len(matches.positive))
    most = int(num_samples * positive_fraction)
    if len(positives) > most:
        positives = np.sort(rng.choice(positives, most, replace=False))
    negatives = np.flatnonzero(matches.states == NEGATIVE)
    wanted = num_samples - len(positives)
    if len(negatives) > wanted:
        negatives = np.sort(rng.choice(negatives, wanted, replace=False))
    return positives, negatives
