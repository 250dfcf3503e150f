"""Painted objects: rectangles of three colours on grey pictures, found again in the pixels after any move.

The tests and `bench_boxes.py` judge boxes by them: an object's box is where its colour is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed import Annotations

Boxes = NDArray[np.float32]
Image = NDArray[np.uint8]

COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)
GREY = 128
# An object seen with fewer pixels a side is not judged: interpolation shows or hides a rim of one.
LEAST_SIDE = 3


def draw_boxes(image_hw: tuple[int, int], rng: np.random.Generator) -> Boxes:
    """A box for each colour, float32 (3, 4) of whole pixels, with sides of 16 and more, 4 pixels or more apart."""
    height, width = image_hw
    while True:
        corners = np.sort(rng.integers(0, [width + 1, height + 1], (3, 2, 2)), axis=1)
        boxes = corners.reshape(3, 4)
        near = boxes + np.array([-4, -4, 4, 4])
        apart = [
            (near[i, :2] >= boxes[j, 2:]).any() or (near[i, 2:] <= boxes[j, :2]).any()
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        if all(apart) and (boxes[:, 2:] - boxes[:, :2]).min() >= 16:
            return boxes.astype(np.float32)


def paint(boxes: Boxes, image_hw: tuple[int, int]) -> Image:
    """The picture of boxes of whole pixels; uint8 (H, W, 3) RGB."""
    image = np.full((*image_hw, 3), GREY, np.uint8)
    for colour, (x0, y0, x1, y1) in zip(COLOURS, boxes.astype(int), strict=True):
        image[y0:y1, x0:x1] = colour
    return image


def painted_table(folder: Path, sizes_hw: Sequence[tuple[int, int]], rng: np.random.Generator) -> Annotations:
    """A data set of painted pictures of some sizes, written as PNG files; an object's class is its colour."""
    paths, boxes = [], []
    for number, image_hw in enumerate(sizes_hw):
        boxes.append(draw_boxes(image_hw, rng))
        paths.append(str(folder / f"{number}.png"))
        cv2.imwrite(paths[-1], paint(boxes[-1], image_hw)[..., ::-1])
    count = len(paths)
    every = np.concatenate(boxes)
    return Annotations(
        paths=tuple(paths),
        image_ids=np.arange(count),
        image_hw=np.array(sizes_hw, np.int32),
        boxes=every,
        class_ids=np.tile(np.arange(3, dtype=np.int32), count),
        ignore=np.zeros(3 * count, bool),
        areas=(every[:, 2:] - every[:, :2]).prod(axis=1),
        offsets=np.arange(0, 3 * count + 1, 3),
        class_names=("red", "green", "blue"),
        category_ids=np.arange(3),
    )


def find(image: NDArray[np.integer] | NDArray[np.floating], colour: int) -> NDArray[np.float64] | None:
    """Where a colour is seen, as a box; None where it is nowhere.

    A pixel has the colour if its channel leads both others by half of the most that it leads in this picture, so that
    changes of colour and blended rims move no edge by more than half a pixel.
    """
    pixels = np.asarray(image, np.float32)
    lead = pixels[..., colour] - np.delete(pixels, colour, axis=2).max(axis=2)
    most = lead.max(initial=0)
    if most < 40:
        return None
    rows, columns = np.nonzero(lead > most / 2)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)


def deviations(image: NDArray[np.integer] | NDArray[np.floating], boxes: Boxes, *, turns: bool) -> NDArray[np.float64]:
    """By how many pixels each colour's box is off; float64 (3,).

    Args:
        image: (H, W, 3) RGB, 0 to 255.
        boxes: (3, 4), xyxy pixels, by colour; without area where there is no box. They are clipped to the image.
        turns: rectangles do not stay upright. Then the box of a rectangle's corners, clipped to the image, may be
            larger than what the image's edge leaves of it: an object cut by the edge need only lie in its box.

    Returns:
        inf for a lost object, which is seen and has no box; -inf for an invented one, which has a box and is not
        seen; NaN where there is neither, or too little to judge; else the largest distance of a box's edge.
    """
    height, width = image.shape[:2]
    limits = np.array([width, height] * 2)
    found = np.full(3, np.nan)
    for colour, box in enumerate(np.clip(boxes, 0, limits)):
        side = (box[2:] - box[:2]).min()
        seen = find(image, colour)
        if seen is None:
            found[colour] = -np.inf if side > LEAST_SIDE else np.nan
        elif (seen[2:] - seen[:2]).min() < LEAST_SIDE:
            continue
        elif side <= 0:
            found[colour] = np.inf
        else:
            outside = np.concatenate([box[:2] - seen[:2], seen[2:] - box[2:]])
            cut = (seen[:2] <= 1).any() or (seen[2:] >= limits[2:] - 1).any()
            found[colour] = max(0, outside.max()) if turns and cut else np.abs(outside).max()
    return found
