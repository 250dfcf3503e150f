"""Outlines: the mask of an object as one polygon, as YOLO's files have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed.mask_columns import MaskColumns

Polygon = NDArray[np.float32]


def outline(masks: MaskColumns, row: int, image_hw: tuple[int, int]) -> Polygon:
    """The mask of a box as one polygon that covers the same pixels.

    A polygon that lies in the image stays as it is. Several that share no pixel are joined by lines that are gone along
    twice, there and back. Of others and of runs, it is the outline of the pixels, a quarter of a pixel inside of them.

    Args:
        masks: the masks of a table.
        row: the box, which has a mask.
        image_hw: height and width in pixels of its image.

    Returns:
        float32 (K, 2), x and y in pixels; K is 0 if the mask covers no pixel.
    """
    rings: Sequence[Polygon] = masks.polygons(row)
    if rings and all(((ring >= 0) & (ring <= image_hw[::-1])).all() for ring in rings):
        joined = _joined(rings)
        if len(rings) == 1 or (_filled(joined, image_hw) == masks.fill(row, image_hw)).all():
            return joined
    # With 2 x 2 pixels for each, an outline through the middle of pixels is a polygon that no other one touches.
    fine = cv2.resize(masks.fill(row, image_hw), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    found: Any = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    return _joined([(ring.reshape(-1, 2) + np.float32(0.5)) / 2 for ring in found])


def _joined(rings: Sequence[Polygon]) -> Polygon:
    """One polygon of several: each is gone round, and from the last one back along the lines that led there."""
    if len(rings) < 2:
        return rings[0] if rings else np.zeros((0, 2), np.float32)
    there = [part for ring in rings for part in (ring, ring[:1])]
    return np.concatenate([*there, *(ring[:1] for ring in rings[-2::-1])])


def _filled(polygon: Polygon, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    count = np.array([len(polygon)])
    columns = MaskColumns.made(
        np.array([0]), points=polygon, point_counts=count, polygon_counts=np.array([1]), sizes_hw=np.array([image_hw])
    )
    return columns.fill(0, image_hw)
