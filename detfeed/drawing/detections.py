"""Detections: what a detector finds in an image beside the truth, as a tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
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
    Key("box", GREY, "detection of none"),
)
TAG_SIZE, TAG_HEIGHT = 13, 18


def draw_detections(
    image: Image,
    boxes: Boxes,
    scores: NDArray[np.float32],
    names: Sequence[str],
    *,
    min_score: float = 0.0,
    side: int = SIDE,
) -> Image:
    """Draw detections with their classes and scores.

    Args:
        image: uint8 (H, W, 3).
        boxes, scores: float32 (R, 4), xyxy pixels of `image`, and float32 (R,); R may be 0.
        names: R names of classes.
        min_score: detections with a lower score are left out.
        side: longest side of the picture in pixels; a smaller image is enlarged by a whole number.
    """
    zoom = zoom_to(image.shape[:2], side)
    picture = canvas(image, image.shape[:2], zoom)
    rows = _best_first(scores, min_score)
    _draw_named(picture, boxes[rows], [f"{names[row]} {scores[row]:.2f}" for row in rows], BLUE, zoom, 2)
    return picture


def compare_detections(
    image: Image,
    boxes: Boxes,
    scores: NDArray[np.float32],
    names: Sequence[str],
    *,
    truth: tuple[Boxes, Sequence[str], NDArray[np.bool_]],
    min_score: float = 0.3,
    min_iou: float = 0.5,
    side: int = SIDE,
) -> Tile:
    """Draw the objects of an image, and beside them the detections.

    The best detection whose IoU with an object of its class is at least `min_iou` finds it. Detections on ignored
    regions of their class are right, too.

    Args:
        image, boxes, scores, names, side: see `draw_detections`.
        truth: boxes float32 (N, 4), N names of classes and ignore flags, bool (N,).
        min_score: detections with a lower score are left out, as if the detector had not made them.
    """
    true_boxes, true_names, ignored = truth
    rows = _best_first(scores, min_score)
    ious = geometry.iou(boxes, true_boxes)
    found = np.zeros(len(true_boxes), bool)
    right = []
    for row in rows:
        same = np.array([name == names[row] for name in true_names], bool)
        free = same & (ious[row] >= min_iou) & (ignored | ~found)
        if free.any():
            found[np.argmax(np.where(free, ious[row] - ignored, -2))] = True  # an object rather than a region
            right.append(row)
    zoom = zoom_to(image.shape[:2], side)
    left = canvas(image, image.shape[:2], zoom)
    beside = left.copy()
    hatch_boxes(left, true_boxes[ignored], PURPLE, zoom=zoom)
    for chosen, colour in ((~ignored & found, YELLOW), (~ignored & ~found, RED)):
        places = np.flatnonzero(chosen).tolist()
        _draw_named(left, true_boxes[places], [true_names[place] for place in places], colour, zoom, 2)
    wrong = [row for row in rows if row not in right]
    for drawn, colour, thickness in ((wrong, GREY, 1), (right, BLUE, 2)):
        labels = [f"{names[row]} {scores[row]:.2f}" for row in drawn]
        _draw_named(beside, boxes[drawn], labels, colour, zoom, thickness)
    objects, missed = int((~ignored).sum()), int((~ignored & ~found).sum())
    return Tile(
        np.concatenate([left, np.full((len(left), GAP, 3), PAPER, np.uint8), beside], axis=1),
        (
            f"{objects - missed} of {counted(objects, 'object')} found; "
            f"{counted(len(wrong), 'detection')} of none; scores from {min_score:g}",
        ),
        alert=bool(missed),
    )


def _best_first(scores: NDArray[np.float32], min_score: float) -> list[int]:
    return [row for row in np.argsort(-scores, kind="stable").tolist() if scores[row] >= min_score]


def _draw_named(image: Image, boxes: Boxes, labels: Sequence[str], colour: Colour, zoom: float, thickness: int) -> None:
    """Draw boxes with a label each: above the box, or inside it where the image ends."""
    draw_boxes(image, boxes, colour, zoom=zoom, thickness=thickness)
    for (x0, y0), label in zip(np.rint(boxes[:, :2] * zoom).astype(int).tolist(), labels, strict=True):
        width = text.width_of(label, size=TAG_SIZE) + 4
        left = max(0, min(x0, image.shape[1] - width))
        top = y0 - TAG_HEIGHT if y0 >= TAG_HEIGHT else y0
        image[top : top + TAG_HEIGHT, left : left + width] = DARK
        text.write(image, label, left + 2, top, colour, size=TAG_SIZE)
