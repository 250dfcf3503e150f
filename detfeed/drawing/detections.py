"""Detections: what a detector finds in an image beside the truth, as a tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.drawing import text
from detfeed.drawing.marks import (
    BLUE,
    DARK,
    GREY,
    PAPER,
    PURPLE,
    RED,
    SIDE,
    YELLOW,
    Colour,
    Image,
    canvas,
    draw_boxes,
    hatch_boxes,
    zoom_to,
)
from detfeed.drawing.sheets import GAP, Key, Tile
from detfeed.drawing.text import counted

DETECTION_KEYS = (
    Key("thick", YELLOW, "left: object that is found"),
    Key("thick", RED, "object that is not"),
    Key("hatch", PURPLE, "ignored region"),
    Key("thick", BLUE, "right: detection of an object"),
    Key("box", GREY, "wrong detection: no such object is there"),
)
TAG_SIZE, TAG_HEIGHT = 13, 18


def draw_detections(
    image: Image,
    boxes: Boxes,
    scores: NDArray[np.float32],
    names: Sequence[str],
    *,
    side: int = SIDE,
) -> Image:
    """Draw detections with their classes and scores.

    Args:
        image: uint8 (H, W, 3).
        boxes, scores: float32 (R, 4), xyxy pixels of `image`, and float32 (R,); R may be 0.
        names: R names of classes.
        side: longest side of the picture in pixels; a smaller image is enlarged by a whole number.
    """
    zoom = zoom_to(image.shape[:2], side)
    picture = canvas(image, image.shape[:2], zoom)
    _draw_named(
        picture, boxes, [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)], BLUE, zoom, 2
    )
    return picture


def compare_detections(
    image: Image,
    boxes: Boxes,
    labels: Sequence[str],
    right: NDArray[np.bool_],
    *,
    truth: tuple[Boxes, Sequence[str], NDArray[np.bool_]],
    found: NDArray[np.bool_],
    side: int = SIDE,
) -> Tile:
    """Draw the objects of an image, and beside them the detections.

    Args:
        image: uint8 (H, W, 3).
        boxes: float32 (R, 4), xyxy pixels of `image`, the detections; R may be 0.
        labels: R texts beside them.
        right: bool (R,), whether each is right, or neither right nor wrong.
        truth: boxes float32 (N, 4), N names of classes and ignore flags, bool (N,).
        found: bool (N,), whether each box of the truth is found; see `judge` of detfeed.report.
        side: longest side of one of the two pictures; a smaller image is enlarged by a whole number.
    """
    true_boxes, true_names, ignored = truth
    zoom = zoom_to(image.shape[:2], side)
    left = canvas(image, image.shape[:2], zoom)
    beside = left.copy()
    hatch_boxes(left, true_boxes[ignored], PURPLE, zoom=zoom)
    missed = ~ignored & ~found
    for chosen, colour in ((~ignored & found, YELLOW), (missed, RED)):
        rows = np.flatnonzero(chosen).tolist()
        _draw_named(left, true_boxes[rows], [true_names[row] for row in rows], colour, zoom, 2)
    for chosen, colour, thickness in ((~right, GREY, 1), (right, BLUE, 2)):
        rows = np.flatnonzero(chosen).tolist()
        _draw_named(beside, boxes[rows], [labels[row] for row in rows], colour, zoom, thickness)
    objects = int((~ignored).sum())
    return Tile(
        np.concatenate([left, np.full((len(left), GAP, 3), PAPER, np.uint8), beside], axis=1),
        (
            f"{objects - int(missed.sum())} of {counted(objects, 'object')} found; "
            f"{counted(int((~right).sum()), 'wrong detection')}",
        ),
        alert=bool(missed.any()),
    )


def _draw_named(image: Image, boxes: Boxes, labels: Sequence[str], colour: Colour, zoom: float, thickness: int) -> None:
    """Draw boxes with a label each: above the box, or inside it where the image ends."""
    draw_boxes(image, boxes, colour, zoom=zoom, thickness=thickness)
    for (x0, y0), label in zip(np.rint(boxes[:, :2] * zoom).astype(int).tolist(), labels, strict=True):
        width = text.width_of(label, size=TAG_SIZE) + 4
        left = max(0, min(x0, image.shape[1] - width))
        top = y0 - TAG_HEIGHT if y0 >= TAG_HEIGHT else y0
        image[top : top + TAG_HEIGHT, left : left + width] = DARK
        text.write(image, label, left + 2, top, colour, size=TAG_SIZE)
