"""Regions: which anchors lie on ignore regions, such as crowds.

Which of a few anchors do is found out for each; which of all do, in the windows of the grid that lie on a region.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.masks import MaskSums, covered_boxes, covered_grid, sum_mask
from detfeed.targets.anchor_shapes import AnchorShapes, Floats, Ints, shapes_of, shared_length
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.matches import IGNORED, NEGATIVE


class _Region(NamedTuple):
    """One ignore region.

    Attributes:
        box: float64 (4,), xyxy pixels; around the mask if there is one.
        sums: of its mask, or None.
        first, last: int64 (2, S), the columns and rows of the window in which anchors of each shape may lie on it.
    """

    box: Floats
    sums: MaskSums | None
    first: Ints
    last: Ints

    def share(self, axis: int, size: Floats | float, edges: tuple[Floats, Floats]) -> Floats:
        """Pixels of the box that anchors of some size share with it in x (axis 0) or y (axis 1), by their edges."""
        low, high = float(self.box[axis]), float(self.box[axis + 2])
        return np.maximum(shared_length(np.minimum(size, high - low), *edges, low, high), 0)


class Regions:
    """The ignore regions of an image, on a grid of anchors.

    Args:
        grid: the anchors.
        boxes: float32 (N, 4), xyxy pixels of the input, inside the image; N may be 0.
        ignore: bool (N,), True for boxes that are ignore regions.
        input_hw: height and width of the input (the canvas) in pixels.
        masks: by row of `boxes`, the masks of ignore regions: uint8 (H, W) at the size of the true image, 0 to 255 for
            the share of a pixel that belongs to the region. A mask counts instead of its box.
        ignore_ioa: an anchor lies on a region that covers at least this share of it.
    """

    def __init__(
        self,
        grid: AnchorGrid,
        boxes: Boxes,
        ignore: NDArray[np.bool_],
        *,
        input_hw: tuple[int, int],
        masks: Mapping[int, NDArray[np.uint8]] | None = None,
        ignore_ioa: float = 0.5,
    ) -> None:
        self._shapes = shapes_of(grid, int(input_hw[0]), int(input_hw[1]))
        # A share that float32 rounds to the threshold reaches it.
        threshold = np.float32(ignore_ioa)
        least = (float(threshold) + float(np.nextafter(threshold, np.float32(0)))) / 2
        self._least = least * self._shapes.area  # [S], pixels
        # An anchor that is covered by some share is so by at least that share in x, and in y.
        needed = least * (1 - 1e-6) * self._shapes.size  # [2, S]
        self._regions: list[_Region] = []
        for row in np.flatnonzero(ignore).tolist():
            sums = sum_mask(masks[row]) if masks is not None and row in masks else None
            box = boxes[row].astype(np.float64) if sums is None else sums.box
            self._regions.append(_Region(box, sums, *_window(self._shapes, box, needed)))

    @property
    def most(self) -> int:
        """A number that those anchors do not exceed that lie on the regions."""
        return sum(
            int(np.prod(np.maximum(region.last - region.first + 1, 0), axis=0).sum()) for region in self._regions
        )

    def holds(self, anchor: Ints) -> NDArray[np.bool_]:
        """Whether a region covers enough of each anchor, given by their indices (M,); bool (M,)."""
        held = np.zeros(len(anchor), bool)
        if not self._regions:
            return held
        shape, *cells = self._shapes.places(anchor)
        least, size = self._least[shape], self._shapes.size[:, shape]
        edges = [self._shapes.edges(shape, cell, axis=axis) for axis, cell in enumerate(cells)]
        for region in self._regions:
            shared_x, shared_y = (region.share(axis, size[axis], edges[axis]) for axis in (0, 1))
            shared = shared_y * shared_x
            if region.sums is None:
                held |= shared >= least
                continue
            # No mask covers more than the box around it.
            near = np.flatnonzero(shared >= least * (1 - 1e-6))
            corners = np.stack([edges[0][0], edges[1][0], edges[0][1], edges[1][1]], axis=1)[near]
            held[near] |= covered_boxes(region.sums, corners) >= least[near]
        return held

    def hide(self, states: NDArray[np.int8]) -> None:
        """Set to IGNORED those negatives, in the states of all anchors int8 (A,), of which a region covers enough."""
        for region in self._regions:
            for shape in range(len(self._shapes.area)):
                (first_x, first_y), (last_x, last_y) = region.first[:, shape], region.last[:, shape]
                if first_x > last_x or first_y > last_y:
                    continue
                edges_x = self._shapes.edges(shape, np.arange(first_x, last_x + 1), axis=0)
                edges_y = self._shapes.edges(shape, np.arange(first_y, last_y + 1), axis=1)
                if region.sums is not None:
                    covered = covered_grid(region.sums, edges_x, edges_y)  # [Y, X]
                else:
                    size_x, size_y = self._shapes.size[:, shape].tolist()
                    covered = np.outer(region.share(1, size_y, edges_y), region.share(0, size_x, edges_x))  # [Y, X]
                window = self._shapes.plane(states, shape)[first_y : last_y + 1, first_x : last_x + 1]
                window[(covered >= self._least[shape]) & (window == NEGATIVE)] = IGNORED


def _window(shapes: AnchorShapes, box: Floats, needed: Floats) -> tuple[Ints, Ints]:
    """First and last columns and rows in which anchors overlap a box by at least `needed` pixels; int64 (2, S) each."""
    low, high = box[:2, None], box[2:, None]
    first = np.ceil((low + needed - shapes.high) / shapes.step - 1e-6)
    last = np.floor((high - needed - shapes.low) / shapes.step + 1e-6)
    return np.maximum(first, 0).astype(np.int64), np.minimum(last, shapes.cells - 1).astype(np.int64)
