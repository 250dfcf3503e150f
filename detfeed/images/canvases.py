"""Canvases: the size at which each image is fed, and the canvas that it is placed on."""

from __future__ import annotations

import dataclasses
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import expect, expect_each


@dataclasses.dataclass(frozen=True)
class ShortSide:
    """Resize so that the shorter side has `size` pixels, or fewer if the longer side would exceed `max_side`.

    Images keep their aspect ratio and are placed on a few canvases, padded right and bottom with zeros. The canvases'
    sides are multiples of `multiple`; they are chosen to hold every image of the data set with little padding.

    Args:
        size: shorter side in pixels after resizing.
        max_side: upper limit of the longer side in pixels. None: no limit.
        multiple: divides the sides of all canvases; the largest stride of a model that upsamples its features.
        max_canvases: the most canvases. Fewer mean more padding, more mean more shapes to compile for.

    Raises:
        TypeError: an argument is no whole number.
        ValueError: an argument is below 1, or `max_side` below `size`.
    """

    size: int
    max_side: int | None = None
    multiple: int = 32
    max_canvases: int = 6

    def __post_init__(self) -> None:
        expect(Integral, "a whole number", size=self.size, multiple=self.multiple, max_canvases=self.max_canvases)
        expect(Integral | None, "a whole number or None", max_side=self.max_side)
        if self.size < 1 or self.multiple < 1 or self.max_canvases < 1:
            raise ValueError(f"Expected size, multiple and max_canvases of at least 1. Received: {self}")
        if self.max_side is not None and self.max_side < self.size:
            raise ValueError(f"Expected max_side to be at least size. Received: {self}")

    def resized_hw(self, image_hw: NDArray[np.integer]) -> NDArray[np.int64]:
        """Heights and widths after resizing, int64 (P, 2), of images of sizes (P, 2); at least 1 pixel."""
        sides = np.asarray(image_hw, np.float64)
        scale = self.size / sides.min(axis=1)
        if self.max_side is not None:
            scale = np.minimum(scale, self.max_side / sides.max(axis=1))
        return np.maximum(np.rint(sides * scale[:, None]), 1).astype(np.int64)

    def padded_hw(self, image_hw: NDArray[np.integer]) -> NDArray[np.int64]:
        """Heights and widths of the smallest canvas for each image; int64 (P, 2)."""
        return -(-self.resized_hw(image_hw) // self.multiple) * self.multiple

    def canvases(
        self, image_hw: NDArray[np.integer], *, at_least: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The canvases of a data set, and the canvas of each image.

        Args:
            image_hw: integers (P, 2), heights and widths of the images.
            at_least: the fewest images of a canvas, if there is more than one canvas. Where batches that are not full
                are dropped, the images of a rarer canvas would never be fed.

        Returns:
            int64 (K, 2), heights and widths of the canvases, K <= max_canvases; and int64 (P,), each image's canvas.
        """
        return _few_canvases(self.padded_hw(image_hw), self.max_canvases, at_least)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Resize to fit into one canvas, keeping the aspect ratio, padded right and bottom with zeros.

    Args:
        input_hw: height and width of the canvas in pixels.

    Raises:
        TypeError: `input_hw` is no tuple of whole numbers.
        ValueError: it has not two sides, or one is below 1.
    """

    input_hw: tuple[int, int]

    def __post_init__(self) -> None:
        expect_each(Integral, "(height, width) in whole pixels", input_hw=self.input_hw)
        if len(self.input_hw) != 2 or min(self.input_hw) < 1:
            raise ValueError(f"Expected input_hw to be (height, width), each at least 1. Received: {self.input_hw}")
        # A tuple of plain numbers whatever was given, so that equal canvases are equal.
        object.__setattr__(self, "input_hw", tuple(int(side) for side in self.input_hw))

    def resized_hw(self, image_hw: NDArray[np.integer]) -> NDArray[np.int64]:
        """Heights and widths after resizing, int64 (P, 2), of images of sizes (P, 2); at least 1 pixel."""
        sides = np.asarray(image_hw, np.float64)
        scale = (np.asarray(self.input_hw) / sides).min(axis=1)
        return np.clip(np.rint(sides * scale[:, None]), 1, self.input_hw).astype(np.int64)

    def padded_hw(self, image_hw: NDArray[np.integer]) -> NDArray[np.int64]:
        """Height and width of the canvas for each image; int64 (P, 2)."""
        return np.tile(np.array(self.input_hw, np.int64), (len(image_hw), 1))

    def canvases(
        self, image_hw: NDArray[np.integer], *, at_least: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The one canvas, int64 (1, 2), and zeros, int64 (P,)."""
        return np.array([self.input_hw], np.int64), np.zeros(len(image_hw), np.int64)


Resize = ShortSide | Fixed


def _few_canvases(sizes: NDArray[np.int64], most: int, at_least: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Merge sizes (P, 2) into canvases, each time the two whose union adds the fewest pixels.

    Ends when there are at most `most` canvases, each has at least `at_least` images, and two of them are told apart.
    """
    canvases, members, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    target = np.arange(len(canvases))
    alive = list(range(len(canvases)))
    while len(alive) > 1:
        small = counts[alive] < at_least
        if len(alive) <= most and not small.any() and told_apart(canvases[alive]).any():
            break
        live, images = canvases[alive], counts[alive]
        pixels = live.prod(axis=1) * images
        union = np.maximum(live[:, None], live[None]).prod(axis=2)
        added = union * (images[:, None] + images[None]) - pixels[:, None] - pixels[None]
        barred = np.eye(len(alive), dtype=bool)
        if small.any():
            barred |= ~(small[:, None] | small[None])
        added[barred] = np.iinfo(added.dtype).max
        kept, gone = sorted(alive[i] for i in np.unravel_index(added.argmin(), added.shape))
        canvases[kept] = np.maximum(canvases[kept], canvases[gone])
        counts[kept] += counts[gone]
        target[target == gone] = kept
        alive.remove(gone)
    # A merged canvas can have the size of another one; the two are one canvas.
    unique, place = np.unique(canvases[alive], axis=0, return_inverse=True)
    return unique, place.reshape(-1)[np.searchsorted(alive, target)][members.reshape(-1)]


def resized_hw_on(resize: Resize, image_hw: tuple[int, int], input_hw: tuple[int, int]) -> tuple[int, int]:
    """The size of an image on its canvas: that of `resize`, or smaller to fit the canvas.

    Augmentation can change an image's shape after its canvas was chosen. The image is shrunk then, never cut.

    Returns:
        Height and width in pixels, each at least 1 and at most the canvas's.
    """
    height, width = resize.resized_hw(np.array([image_hw]))[0].tolist()
    shrink = min(1.0, input_hw[0] / height, input_hw[1] / width)
    if shrink < 1.0:
        height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    return height, width


def told_apart(canvases: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs of canvases show all that varies between canvases; bool (K, K).

    Keras on TensorFlow learns shapes from batches 0 and 1 alone: a side in which these two agree is fixed for good,
    and a later batch with another side fails. So they must differ in height if heights vary at all, likewise in
    width, and in area (which the number of anchors follows but for rounding).

    Args:
        canvases: int64 (K, 2), heights and widths. With one canvas nothing varies, and it is a pair with itself.
    """
    sides = np.concatenate([canvases, canvases.prod(axis=1, keepdims=True)], axis=1)
    varies = (sides != sides[:1]).any(axis=0)
    return ((sides[:, None] != sides[None]) | ~varies).all(axis=2)


def fed_wh(
    boxes: NDArray[np.float32], offsets: NDArray[np.int64], image_hw: NDArray[np.int32], resize: Resize
) -> NDArray[np.float64]:
    """Width and height of each box at the size at which it is fed without augmentation; float64 (N, 2), in pixels.

    Args:
        boxes, offsets, image_hw: columns of `Annotations`.
        resize: as given to the loader.
    """
    scale_hw = resize.resized_hw(image_hw) / image_hw if len(image_hw) else np.ones((0, 2))
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    return sides * np.repeat(scale_hw[:, ::-1], np.diff(offsets), axis=0)
