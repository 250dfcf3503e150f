"""Masks: COCO's run-length encoding, and how much of a box a mask covers.

Runs alternate between outside and inside, column by column, and begin outside. A filled mask is uint8 (H, W), 0 to 255
for the share of a pixel that belongs to it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Runs = NDArray[np.int32]


def parse_runs(counts: str | list[int]) -> Runs:
    """Run lengths from a file, where they are a list or COCO's compressed string.

    Returns:
        int32 (K,); the first run is outside.

    Raises:
        ValueError: the string breaks off or holds other characters, or a length is negative.

    Source: rleFrString in pycocotools' maskApi.c: numbers in base 32 with a continuation bit; from the fourth on, each
        is a difference from the number two before it.
    """
    runs: list[int] = []
    if isinstance(counts, str):
        value = shift = 0
        for character in counts:
            bits = ord(character) - 48
            if not 0 <= bits < 64:
                raise ValueError(f"expected characters from '0' to 'o', got {character!r}")
            if shift > 35:
                raise ValueError("expected run lengths from 0 to 2147483647, got one of more digits")
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                if bits & 16:
                    value -= 1 << shift
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
        if shift:
            raise ValueError("expected a whole string, got one that breaks off")
    else:
        runs = counts
    try:
        # Takes 0.6 of the time of np.array (200 runs, numpy 2.4).
        lengths = np.frombuffer(struct.pack(f"{len(runs)}i", *runs), np.int32)
    except struct.error:
        lengths = np.full(1, -1, np.int32)
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"expected run lengths from 0 to 2147483647, got {min(runs)} to {max(runs)}")
    return lengths


def fill_mask(runs: Runs, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask that runs describe, uint8 (H, W), 0 outside and 255 inside; runs must add up to H times W."""
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, runs).reshape(image_hw[::-1]).T)


class MaskSums(NamedTuple):
    """The summed-area table of a mask, over the rectangle that holds all of its pixels above 0.

    Attributes:
        sums: (h + 1, w + 1), the sum of the pixels above and left of each corner, as whole numbers of 1 / 255 pixel;
            int32, or float64 where 32 bits do not hold them.
        box: float64 (4,), the rectangle, xyxy pixels of the mask; one pixel if the mask has none above 0.
    """

    sums: NDArray[Any]
    box: Floats


def sum_mask(mask: NDArray[np.uint8]) -> MaskSums:
    """The summed-area table of a mask, uint8 (H, W)."""
    x, y, width, height = cv2.boundingRect(mask)
    part = mask[y : y + max(height, 1), x : x + max(width, 1)]
    # Two cumsums of numpy take 13 times as long (800 x 1200, numpy 2.4, cv2 4.14).
    sums: Any = cv2.integral(part, sdepth=cv2.CV_32S if 255 * part.size < 2**31 else cv2.CV_64F)
    return MaskSums(sums, np.array([x, y, x + part.shape[1], y + part.shape[0]], np.float64))


def covered_grid(sums: MaskSums, x: tuple[Floats, Floats], y: tuple[Floats, Floats]) -> Floats:
    """The area that a mask covers of each box of a grid, in square pixels; exact for corners between pixels.

    Args:
        sums: the answer of `sum_mask`.
        x: left and right edges of the C columns of boxes, float64 (C,) each, in pixels; they may lie outside.
        y: upper and lower edges of the R rows, float64 (R,) each.

    Returns:
        float64 (R, C).
    """
    table = sums.sums
    (x0, x1), (y0, y1) = (
        [_place(edges - sums.box[axis], table.shape[1 - axis]) for edges in pair] for axis, pair in enumerate((x, y))
    )
    # Rows first, since a row lies in one piece in memory: 2.6 times as fast (800 x 1200, 100 x 150 boxes, numpy 2.4).
    lower, upper = (place.between(lambda at: table.take(at, 0), spread=(-1, 1)) for place in (y1, y0))
    rows = lower - upper
    right, left = (place.between(lambda at: rows.take(at, 1)) for place in (x1, x0))
    covered: Floats = (right - left) / 255
    return covered


def covered_boxes(sums: MaskSums, boxes: NDArray[np.floating]) -> Floats:
    """The area that a mask covers of each box, (N, 4) xyxy, in square pixels; float64 (N,), to the bit as in a grid."""
    table = sums.sums
    (x0, x1), (y0, y1) = (
        [_place(boxes[:, side] - sums.box[axis], table.shape[1 - axis]) for side in (axis, axis + 2)] for axis in (0, 1)
    )

    def columns(x: NDArray[np.int64]) -> NDArray[Any]:
        lower, upper = (place.between(lambda y: table[y, x]) for place in (y1, y0))
        return lower - upper

    right, left = (place.between(columns) for place in (x1, x0))
    covered: Floats = (right - left) / 255
    return covered


class _Place(NamedTuple):
    """Places between corners of pixels: the corners before and after each, and the share of the way between them."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    share: Floats

    def between(
        self, values: Callable[[NDArray[np.int64]], NDArray[Any]], *, spread: tuple[int, ...] = (-1,)
    ) -> NDArray[Any]:
        """Sums at the places, from those at corners; exact, since sums are linear within a pixel.

        Args:
            values: a function of corners.
            spread: shape of the places in which `values` answers.
        """
        before = values(self.before)
        if not self.share.any():  # on corners, as are all anchors of whole pixels
            return before
        share = self.share.reshape(spread)
        interpolated: Floats = before * (1 - share) + values(self.after) * share
        return interpolated


def _place(place: NDArray[np.floating], corners: int) -> _Place:
    inside = np.clip(np.asarray(place, np.float64), 0, corners - 1)
    before = inside.astype(np.int64)
    return _Place(before, np.minimum(before + 1, corners - 1), inside - before)
