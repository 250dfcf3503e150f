"""Joint matching: the objects of many images on one canvas matched at once, for statistics of a whole data set.

The rules are those of `match_objects`, and so are the functions. Only the states of all anchors are never laid out: an
image costs a quarter of the time.

Letters in shapes: Q images, N boxes, S anchor shapes, P positives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.targets.anchor_shapes import AnchorShapes, Floats, Ints, shapes_of
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.matching import (
    Floats32,
    allowed_cells,
    best_found,
    best_of_all,
    best_of_shapes,
    distinct,
    find_overlaps,
)

_MOST_PAIRS = 20_000  # of a box and an anchor shape at once: a megabyte for each of some ten arrays


class JointMatches(NamedTuple):
    """The answer of `match_jointly`.

    Attributes:
        highest: float32 (N,), the highest IoU of each box with an anchor; 0 if it overlaps none.
        shape: int64 (N,), the anchor shape that has it, the first among equals.
        image: int64 (P,), the image of each positive anchor, ascending.
        anchor: int64 (P,), its index on the canvas.
        match: int64 (P,), the row of its box.
        iou: float32 (P,), its IoU with that box.
        num_negative: int64 (Q,), anchors of each image that are neither positive nor ignored.
    """

    highest: Floats32
    shape: Ints
    image: Ints
    anchor: Ints
    match: Ints
    iou: Floats32
    num_negative: Ints


def match_jointly(
    targets: AnchorTargets,
    boxes: Boxes,
    image: NDArray[np.integer],
    *,
    input_hw: tuple[int, int],
    image_hw: NDArray[np.integer],
) -> JointMatches:
    """Match the objects of images that are fed on one canvas; ignore regions are not looked at.

    Args:
        targets: the grid and the rules.
        boxes: float32 (N, 4), xyxy pixels of the canvas, the objects' alone, each with area and inside its image.
        image: (N,), the row in `image_hw` of each box's image, ascending.
        input_hw: height and width of the canvas in pixels.
        image_hw: (Q, 2), heights and widths in pixels of the images in the corner of the canvas.
    """
    shapes = shapes_of(targets.anchors, int(input_hw[0]), int(input_hw[1]))
    allowed, size_of = _allowed(targets, shapes, input_hw, image_hw)
    num_negative = np.maximum(allowed[1] - allowed[0] + 1, 0).prod(axis=0).sum(axis=1)[size_of]  # [Q], all at first
    corners = boxes.astype(np.float64)
    parts = []
    for rows in _chunks(image, max(1, _MOST_PAIRS // len(shapes.area))):
        allowed_here = allowed[:, :, size_of[image[rows]]]
        part, taken = _match(targets, shapes, corners[rows], image[rows], allowed_here, input_hw)
        num_negative -= np.bincount(taken, minlength=len(image_hw))
        parts.append(part._replace(match=part.match + rows.start))
    highest, shape, of_image, anchor, match, iou = (
        np.concatenate([part[place] for part in parts]) for place in range(len(_Part._fields))
    )
    return JointMatches(highest, shape, of_image, anchor, match, iou, num_negative)


class _Part(NamedTuple):
    """The columns of `JointMatches` but the last, for some of the boxes; `match` counts from the first of these."""

    highest: Floats32
    shape: Ints
    image: Ints
    anchor: Ints
    match: Ints
    iou: Floats32


def highest_ious(
    targets: AnchorTargets,
    boxes: Boxes,
    image: NDArray[np.integer],
    *,
    input_hw: tuple[int, int],
    image_hw: NDArray[np.integer],
) -> Floats32:
    """The highest IoU of each box with the anchors of each shape, float32 (N, S).

    Args:
        targets, boxes, image, input_hw, image_hw: see `match_jointly`.
    """
    shapes = shapes_of(targets.anchors, int(input_hw[0]), int(input_hw[1]))
    allowed, size_of = _allowed(targets, shapes, input_hw, image_hw)
    ious = np.empty((len(boxes), len(shapes.area)), np.float32)
    step = max(1, _MOST_PAIRS // len(shapes.area))
    for first in range(0, len(boxes), step):
        rows = slice(first, first + step)
        ious[rows] = best_of_shapes(shapes, allowed[:, :, size_of[image[rows]]], boxes[rows].astype(np.float64)).iou
    return ious


def _allowed(
    targets: AnchorTargets, shapes: AnchorShapes, input_hw: tuple[int, int], image_hw: NDArray[np.integer]
) -> tuple[Ints, Ints]:
    """What `allowed_cells` says of the U sizes of images, int64 (2, 2, U, S); and the size of each image, (Q,)."""
    sizes, size_of = np.unique(image_hw, axis=0, return_inverse=True)
    cells = [allowed_cells(shapes, input_hw, (height, width), targets.straddle) for height, width in sizes.tolist()]
    return np.stack(cells, axis=2), size_of.reshape(-1)


def _chunks(image: NDArray[np.integer], most: int) -> Iterator[slice]:
    """Rows of boxes, at most so many unless one image has more; those of an image stay together. One slice at least."""
    first = 0
    while True:
        last = first + most
        if last < len(image):
            last = int(np.searchsorted(image, image[last]))  # where the image begins that would be cut
            if last <= first:
                last = int(np.searchsorted(image, image[first], side="right"))
        yield slice(first, min(last, len(image)))
        first = last
        if first >= len(image):
            return


def _match(
    targets: AnchorTargets,
    shapes: AnchorShapes,
    boxes: Floats,
    image: NDArray[np.integer],
    allowed: Ints,
    input_hw: tuple[int, int],
) -> tuple[_Part, Ints]:
    """The matches of some boxes, and the image of each anchor that is no negative because of them.

    The steps are those of `match_objects`, with anchors that are told apart by image.

    Args:
        allowed: int64 (2, 2, N, S), see `find_overlaps`.
    """
    best = best_of_shapes(shapes, allowed, boxes)
    found = find_overlaps(shapes, allowed, boxes, best, targets.negative_iou, targets.low_quality)
    anchor = image[found.box] * shapes.num_anchors + found.anchor  # [M]
    enough = found.iou >= np.float32(targets.negative_iou)
    good = found.iou >= np.float32(targets.positive_iou)
    if targets.low_quality:
        good |= found.iou >= found.highest[found.box]
    positive = distinct(anchor[good])  # [P]
    of_image, index = np.divmod(positive, shapes.num_anchors)
    match, iou = best_found(found, anchor, enough, positive)
    rest = np.flatnonzero(match < 0)
    for number in np.unique(of_image[rest]).tolist():
        own = rest[slice(*np.searchsorted(of_image[rest], [number, number + 1]))]
        first, last = np.searchsorted(image, [number, number + 1]).tolist()
        row, iou[own] = best_of_all(targets.anchors.anchors(input_hw)[index[own]], boxes[first:last])
        match[own] = first + row
    taken = distinct(anchor[enough | good]) // shapes.num_anchors
    return _Part(found.highest, best.iou.argmax(axis=1), of_image, index, match, iou), taken
