"""Anchor shapes: the anchors of a grid on an input, shape by shape; those of one shape lie on a grid of their own."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.targets.anchors import AnchorGrid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class AnchorShapes(NamedTuple):
    """The S anchor shapes of a grid on an input, level by level; x before y where there are two."""

    low: Floats  # [2, S], corners of the anchor in row 0, column 0
    high: Floats  # [2, S]
    size: Floats  # [2, S]
    area: Floats  # [S]
    step: Floats  # [S], pixels from one anchor to the next, the same in x and y
    cells: Ints  # [2, S], columns and rows
    first: Ints  # [S], index of the anchor in row 0, column 0
    number: Ints  # [S], the shape's place among those of its level
    stride: Ints  # [2, S], what one column and one row add to that index
    num_anchors: int

    def anchor(self, shape: Ints | int, x: Ints, y: Ints) -> Ints:
        """Indices of the anchors of a shape, or of one shape each, in columns x and rows y."""
        return self.first[shape] + x * self.stride[0, shape] + y * self.stride[1, shape]

    def edges(self, shape: Ints | int, cells: Ints, *, axis: int) -> tuple[Floats, Floats]:
        """The two edges in x (axis 0) or y (axis 1) of anchors of a shape, or of one shape each, in columns or rows."""
        shift = self.step[shape] * cells
        return self.low[axis, shape] + shift, self.high[axis, shape] + shift

    def places(self, anchor: Ints) -> tuple[Ints, Ints, Ints]:
        """Shapes, columns and rows of anchors: what `anchor` makes their indices of."""
        near = np.searchsorted(self.first, anchor, side="right") - 1  # a shape of the anchor's level
        lowest = near - self.number[near]  # the first shape of that level
        cell, number = np.divmod(anchor - self.first[lowest], self.stride[0, near])
        y, x = np.divmod(cell, self.cells[0, near])
        return lowest + number, x, y

    def plane(self, values: NDArray[np.int8], shape: int) -> NDArray[np.int8]:
        """Of one value for each anchor those of a shape, as a view of them, (rows, columns)."""
        columns, rows = self.cells[:, shape].tolist()
        across, down = self.stride[:, shape].tolist()
        return np.ndarray((rows, columns), np.int8, values, int(self.first[shape]), (down, across))


@functools.lru_cache(maxsize=64)
def shapes_of(grid: AnchorGrid, height: int, width: int) -> AnchorShapes:
    """The anchor shapes of a grid on an input of that size in pixels; cached."""
    cells = [grid.cell_anchors(level) for level in range(grid.num_levels)]
    level = np.repeat(np.arange(grid.num_levels), grid.num_cell_anchors)  # [S]
    corners = np.concatenate(cells).T  # [4, S]
    low, high = corners[:2], corners[2:]
    features = np.array(grid.feature_hw((height, width)))  # [L, 2]
    per_level = np.array(grid.num_anchors_per_level((height, width)))  # [L]
    k = np.array(grid.num_cell_anchors)[level]  # [S], anchors a cell
    number = np.concatenate([np.arange(len(c)) for c in cells])  # [S]
    return AnchorShapes(
        low=low,
        high=high,
        size=high - low,
        area=np.prod(high - low, axis=0),
        step=np.array(grid.strides, np.float64)[level],
        cells=features[level].T[::-1],
        first=(np.cumsum(per_level) - per_level)[level] + number,
        number=number,
        stride=np.stack([k, k * features[level, 1]]),
        num_anchors=int(per_level.sum()),
    )


def shared_length(
    most: Floats | float, anchor_low: Floats, anchor_high: Floats, low: Floats | float, high: Floats | float
) -> Floats:
    """Pixels that two intervals share, at most `most`, the length of the shorter one; negative for a gap between them.

    Where one interval holds the other, `most` is exact; a difference of corners would be off by their rounding.
    """
    return np.minimum(most, np.minimum(anchor_high - low, high - anchor_low))
