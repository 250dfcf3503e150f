"""Mosaic: the other images of an albumentations Mosaic, and the visible shares of its boxes.

A Mosaic scales each image to a cell, may cut parts off, and returns no measure of the cut. So the visible share of a
box is set to the inverse of its scaled area before, and multiplied by its remaining area after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from albumentations.core.bbox_utils import denormalize_bboxes
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.images.resizing import Image


class Other(NamedTuple):
    """Another image of a Mosaic.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: float32 (N, 4) with area, xyxy pixels inside the image; N may be 0.
        rows: int64 (N,), numbers of the boxes in `Augmented.rows`; different from the rows of the first image.
    """

    image: Image
    boxes: Boxes
    rows: NDArray[np.int64]


class Cells(NamedTuple):
    """The settings of a Mosaic: the size of its cells, how images are fitted in, and how many others it takes."""

    cell_hw: tuple[int, int]
    fit_mode: str
    metadata_key: str
    num_others: int

    def areas(self, boxes: NDArray[np.floating], image_hw: tuple[int, int]) -> NDArray[np.float64]:
        """Areas of an image's boxes, in its pixels, after it is scaled to a cell and before it is cut; float64 (N,)."""
        ratios = [cell / side for cell, side in zip(self.cell_hw, image_hw, strict=True)]
        scale = max(ratios) if self.fit_mode == "cover" else min(ratios)
        areas: NDArray[np.float64] = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1, dtype=np.float64) * scale**2
        return areas


class Metadata(Sequence[dict[str, Any]]):
    """Other images in the form that a Mosaic takes; the visible share of each box is the inverse of its area."""

    def __init__(self, others: Sequence[Other], cells: Cells) -> None:
        self._others = others
        self._cells = cells

    def __len__(self) -> int:
        return len(self._others)

    def __getitem__(self, index: Any) -> Any:
        image, boxes, rows = self._others[index]
        inverse = 1 / self._cells.areas(boxes, image.shape[:2])
        return {"image": image, "bboxes": np.column_stack([boxes.astype(np.float64), rows, inverse])}


def tiled(
    cells: Cells, data: NDArray[np.floating], *, processed_cells: dict[Any, dict[str, Any]], **parameters: Any
) -> NDArray[np.floating]:
    """Boxes of a Mosaic, visible by the share of their scaled area that their cell leaves; float (M, 6)."""
    height, width = parameters["target_shape"][:2]
    parts = [cell["bboxes"] for cell in processed_cells.values() if len(cell["bboxes"])]
    if not parts:
        return data[:0]
    boxes = np.concatenate(parts).astype(np.float64)
    # Boxes of the first image carry a share, and their area is known here; those of the others carry its inverse.
    first: dict[float, float] = {}
    if len(data):
        image_hw = tuple(parameters["shape"][:2])
        first = dict(zip(data[:, 4], cells.areas(denormalize_bboxes(data, image_hw), image_hw), strict=True))
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) * height * width
    boxes[:, 5] *= areas / [first.get(row, 1.0) for row in boxes[:, 4]]
    boxes[:, 5] = np.minimum(boxes[:, 5], 1)
    return boxes
