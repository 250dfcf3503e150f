"""Keypoint rows: keypoints as albumentations moves them, and how they follow the transforms that it gets wrong.

albumentations takes points as numbers of pixels, in which the centre of the first pixel is at 0, and knows nothing of
left and right. Whether a pipeline mirrors the image shows in small triangles that travel with the points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations
import numpy as np
from albumentations.augmentations.dropout.transforms import BaseDropout
from albumentations.augmentations.geometric.distortion import BaseDistortion
from numpy.typing import NDArray

from detfeed.keypoints import Keypoints

# Triangles in a row and in a column of the image, and the share of its sides that they have. Several, since tiles that
# are shuffled tear some of them apart.
_TRIANGLES, _SIDE = 5, 0.04


def to_rows(keypoints: Keypoints, image_hw: tuple[int, int]) -> NDArray[np.float64]:
    """The labelled keypoints and the corners of triangles, float64 (M, 3): x, y and a number.

    The number is that of the keypoint among all, or is negative for a corner.
    """
    points = keypoints.points.reshape(-1, 3)
    labelled = np.flatnonzero(points[:, 2] > 0)
    rows: NDArray[Any] = np.column_stack([points[labelled, :2].astype(np.float64) - 0.5, labelled])
    places = (np.arange(_TRIANGLES) + 0.5) / _TRIANGLES
    corners = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 1, 2)
    corners = (corners + _SIDE * np.array([[0, 0], [1, 0], [0, 1]])) * image_hw[::-1]
    ends: NDArray[Any] = np.column_stack([corners.reshape(-1, 2), -1.0 - np.arange(3 * _TRIANGLES**2)])
    return np.concatenate([rows, ends])


def from_rows(keypoints: Keypoints, rows: NDArray[np.floating], image_hw: tuple[int, int]) -> Keypoints:
    """The keypoints where a pipeline left their rows, in an image of some height and width."""
    number = rows[:, 2].astype(np.int64)
    corners = np.full((3 * _TRIANGLES**2, 2), np.nan)
    corners[-1 - number[number < 0]] = rows[number < 0, :2]
    a, b, c = corners.reshape(-1, 3, 2).transpose(1, 0, 2)
    turns = np.sign((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    points = np.zeros_like(keypoints.points)
    flat = points.reshape(-1, 3)
    kept = rows[number >= 0]
    places = number[number >= 0]
    flat[places, :2] = kept[:, :2] + 0.5
    flat[places, 2] = keypoints.points.reshape(-1, 3)[places, 2]
    if np.nansum(turns) < 0:
        points = points[:, keypoints.flips]
    return Keypoints(points, keypoints.names, keypoints.flips).inside(image_hw)


def _unmoved(data: NDArray[np.floating], **_: Any) -> NDArray[np.floating]:
    """Points stay. albumentations drops those that a hole hides."""
    return data


def _where_pixels_come_from(
    data: NDArray[np.floating], *, map_x: NDArray[np.floating], map_y: NDArray[np.floating], **_: Any
) -> NDArray[np.floating]:
    """Points lie at the pixel that comes from nearest to them, moved on by what it misses them by.

    albumentations adds the displacement at the old place, which is off by pixels where it changes.
    """
    moved = data.copy()
    height, width = map_x.shape[:2]
    for point in moved:
        x, y = point[:2]
        away = (map_x - x) ** 2 + (map_y - y) ** 2
        row, column = np.unravel_index(np.argmin(away), away.shape)
        if away[row, column] > 2:  # further than a pixel's diagonal: nothing of the image comes from there
            point[:2] = -1e6
            continue
        point[0], point[1] = column, row
        if not (0 < row < height - 1 and 0 < column < width - 1):
            point[:2] += np.clip([x - map_x[row, column], y - map_y[row, column]], -1, 1)
    return moved


KEYPOINT_RULES: dict[Any, Callable[..., NDArray[np.floating]]] = {
    BaseDropout: _unmoved,
    BaseDistortion: _where_pixels_come_from,
    albumentations.PixelDropout: _unmoved,
    albumentations.Morphological: _unmoved,
}
