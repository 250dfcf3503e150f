"""AnchorGrid: the anchors of a detector, on one level or several."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.errors import expect, expect_each


@dataclasses.dataclass(frozen=True)
class AnchorGrid:
    """Anchors centred on the cells of one or more feature maps.

    A feature map of stride s has ceil(input / s) cells a side, whatever the input size (as convolutions that pad do),
    and s itself is the step between anchors: never input // feature, which drifts on sizes that s does not divide.
    Anchors are ordered by level, row, column, then by the order of `cell_sizes_wh`.

    Args:
        strides: for each level the step in pixels, finest level first.
        cell_sizes_wh: for each level the width and height in pixels of each anchor of a cell, in order.
        offset: place of the first centre as a share of the stride, usually 0 or 0.5.
        rounding: round the corners of the cell at the origin to whole pixels (half to even), as torchvision does.

    Raises:
        TypeError: a stride is no whole number, or a size no pair of numbers.
        ValueError: levels disagree, or a stride or size is not positive.
    """

    strides: tuple[int, ...]
    cell_sizes_wh: tuple[tuple[tuple[float, float], ...], ...]
    offset: float = 0.0
    rounding: bool = False

    def __post_init__(self) -> None:
        expect_each(Integral, "a tuple of whole numbers, one a level", strides=self.strides)
        # Tuples of plain numbers whatever was given: a grid is a key of caches.
        object.__setattr__(self, "strides", tuple(int(stride) for stride in self.strides))
        object.__setattr__(self, "cell_sizes_wh", _to_tuples(self.cell_sizes_wh))
        if not self.strides or len(self.strides) != len(self.cell_sizes_wh):
            raise ValueError(
                f"AnchorGrid expects sizes for each level. Received: {len(self.strides)} strides and sizes for "
                f"{len(self.cell_sizes_wh)} levels."
            )
        if min(self.strides) <= 0:
            raise ValueError(f"AnchorGrid expects positive strides. Received: {self.strides}")
        for level, sizes in enumerate(self.cell_sizes_wh):
            if not sizes or min(min(size) for size in sizes) <= 0:
                raise ValueError(f"AnchorGrid expects positive sizes on level {level}. Received: {sizes}")
            corners = self.cell_anchors(level)
            if (corners[:, :2] >= corners[:, 2:]).any():
                raise ValueError(
                    f"AnchorGrid expects sizes that rounding leaves above 0 on level {level}. Received: {sizes}"
                )

    @classmethod
    def fpn(
        cls,
        *,
        sizes: tuple[float | tuple[float, ...], ...] = (32, 64, 128, 256, 512),
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        strides: tuple[int, ...] = (4, 8, 16, 32, 64),
        offset: float = 0.0,
        rounding: bool = True,
    ) -> AnchorGrid:
        """Several levels, each with one size or a tuple of sizes; by default torchvision's FPN anchors.

        Args:
            sizes: for each level the square root of an anchor's area in pixels, or a tuple of such.
            ratios: height / width.
            strides: for each level the pixels of a cell.
            offset, rounding: see the class. With offset 0 anchors are centred like the receptive fields of
                keras.applications' ResNet50, whose convolutions pad on both sides.

        Within a cell the order is ratio-major, size-minor. Agrees with torchvision's AnchorGenerator.
        """
        expect_each((Real, Collection), "for each level a number of pixels, or a tuple of such", sizes=sizes)
        expect_each(Real, "a tuple of numbers", ratios=ratios)
        levels = [tuple(size) if isinstance(size, Collection) else (float(size),) for size in sizes]
        expect_each(Real, "for each level a number of pixels, or a tuple of such", sizes=sum(levels, ()))
        cells = tuple(_shapes_by_ratio(level, ratios) for level in levels)
        return cls(strides=strides, cell_sizes_wh=cells, offset=offset, rounding=rounding)

    @classmethod
    def c4(
        cls,
        *,
        sizes: tuple[float, ...] = (32, 64, 128, 256, 512),
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        stride: int = 16,
        offset: float = 0.0,
        rounding: bool = True,
    ) -> AnchorGrid:
        """One level with all sizes; by default torchvision's anchors on a single feature map (see `fpn`)."""
        expect_each(Real, "a tuple of numbers of pixels", sizes=sizes)
        expect(Integral, "a whole number", stride=stride)
        return cls.fpn(sizes=(tuple(sizes),), ratios=ratios, strides=(stride,), offset=offset, rounding=rounding)

    @classmethod
    def detectron2_fpn(cls, *, offset: float = 0.0) -> AnchorGrid:
        """detectron2's FPN anchors: sizes 32 to 512 on strides 4 to 64, not rounded, size-major within a cell."""
        cells = tuple(_shapes_by_size((size,), (0.5, 1.0, 2.0)) for size in (32, 64, 128, 256, 512))
        return cls(strides=(4, 8, 16, 32, 64), cell_sizes_wh=cells, offset=offset)

    @classmethod
    def detectron2_c4(cls, *, offset: float = 0.0) -> AnchorGrid:
        """detectron2's C4 anchors: sizes 32 to 512 on stride 16, not rounded, size-major within a cell."""
        cells = (_shapes_by_size((32, 64, 128, 256, 512), (0.5, 1.0, 2.0)),)
        return cls(strides=(16,), cell_sizes_wh=cells, offset=offset)

    @classmethod
    def keras_retinanet(cls) -> AnchorGrid:
        """keras-retinanet's anchors: levels 3 to 7, three scales an octave, centred in the cells, ratio-major."""
        cells = []
        for size in (32, 64, 128, 256, 512):
            sides = [size * 2 ** (step / 3) for step in range(3)]
            shapes = [(math.sqrt(side * side / ratio), ratio) for ratio in (0.5, 1.0, 2.0) for side in sides]
            cells.append(tuple((width, width * ratio) for width, ratio in shapes))
        return cls(strides=(8, 16, 32, 64, 128), cell_sizes_wh=tuple(cells), offset=0.5)

    @property
    def num_levels(self) -> int:
        """L, one or more."""
        return len(self.strides)

    @property
    def num_cell_anchors(self) -> tuple[int, ...]:
        """Anchors per cell, one number a level."""
        return tuple(len(sizes) for sizes in self.cell_sizes_wh)

    def feature_hw(self, input_hw: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level's feature map: ceil(input / stride). No other code computes them."""
        height, width = (int(side) for side in input_hw)
        return tuple((-(-height // stride), -(-width // stride)) for stride in self.strides)

    def num_anchors(self, input_hw: tuple[int, int]) -> int:
        """A, the number of anchors on an input of that size."""
        return sum(self.num_anchors_per_level(input_hw))

    def num_anchors_per_level(self, input_hw: tuple[int, int]) -> tuple[int, ...]:
        """Anchors of each level on an input of that size."""
        cells = self.feature_hw(input_hw)
        return tuple(rows * columns * k for (rows, columns), k in zip(cells, self.num_cell_anchors, strict=True))

    def cell_anchors(self, level: int) -> NDArray[np.float64]:
        """Anchors of the cell in row 0, column 0 of a level, offset included; float64 (K, 4)."""
        half = np.array(self.cell_sizes_wh[level]) / 2
        corners = np.concatenate([-half, half], axis=1)
        if self.rounding:
            corners = np.round(corners)
        return corners + self.offset * self.strides[level]

    def anchors(self, input_hw: tuple[int, int]) -> Boxes:
        """All anchors on an input of that size (height, width) in pixels; float32 (A, 4), read-only, cached."""
        height, width = (int(side) for side in input_hw)
        return _place(self, height, width)


def _to_tuples(cell_sizes_wh: Collection[Collection[Collection[float]]]) -> tuple[tuple[tuple[float, float], ...], ...]:
    noun = "for each level a (width, height) in pixels of each anchor of a cell"
    expect_each(Collection, noun, cell_sizes_wh=cell_sizes_wh)
    for level in cell_sizes_wh:
        expect_each(Collection, noun, cell_sizes_wh=level)
        for size in level:
            expect_each(Real, noun, cell_sizes_wh=size)
            if len(size) != 2:
                raise ValueError(f"Expected cell_sizes_wh to be {noun}. Received: {size}")
    return tuple(tuple((float(width), float(height)) for width, height in level) for level in cell_sizes_wh)


def _shapes_by_ratio(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Anchor shapes, ratio-major; in float32 step by step like torchvision, since corners are rounded after."""
    heights = np.sqrt(np.array(ratios, np.float32))
    widths = np.float32(1) / heights
    side = np.array(sizes, np.float32)
    return tuple((float(w * s), float(h * s)) for w, h in zip(widths, heights, strict=True) for s in side)


def _shapes_by_size(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Anchor shapes, size-major, computed in float64 and rounded to float32."""
    widths = [(math.sqrt(size**2 / ratio), ratio) for size in sizes for ratio in ratios]
    return tuple((float(np.float32(width)), float(np.float32(ratio * width))) for width, ratio in widths)


@functools.lru_cache(maxsize=16)
def _place(grid: AnchorGrid, height: int, width: int) -> Boxes:
    levels = []
    for level, (rows, columns) in enumerate(grid.feature_hw((height, width))):
        stride = grid.strides[level]
        shifts = np.empty((rows, columns, 1, 4))
        shifts[..., 0::2] = stride * np.arange(columns)[None, :, None, None]
        shifts[..., 1::2] = stride * np.arange(rows)[:, None, None, None]
        # One rounding, at the end: corners are the float32 nearest to the exact ones.
        levels.append((shifts + grid.cell_anchors(level)).astype(np.float32).reshape(-1, 4))
    anchors = np.concatenate(levels)
    anchors.setflags(write=False)
    return anchors
