"""Box rules: how boxes follow the transforms whose boxes albumentations 2.0.8 gets wrong.

A rule takes and returns the array that albumentations hands from transform to transform, float (N, 6): a box's corners
as shares of the image's sides, its row in the sample, and its visible share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import albumentations
import numpy as np
from albumentations.augmentations.dropout.transforms import BaseDropout
from albumentations.augmentations.geometric.distortion import BaseDistortion
from albumentations.augmentations.geometric.functional import bboxes_grid_shuffle
from albumentations.core.bbox_utils import BboxProcessor, denormalize_bboxes, normalize_bboxes
from numpy.typing import NDArray


class VisibleShares(BboxProcessor):
    """Clips boxes as albumentations does, and multiplies their visible shares by the share that is left of each."""

    def filter(self, data: NDArray[np.floating], shape: Any) -> NDArray[np.floating]:
        if len(data):
            before = np.prod(data[:, 2:4] - data[:, :2], axis=1)
            inside = np.clip(data[:, :4], 0, 1)
            after = np.prod(inside[:, 2:] - inside[:, :2], axis=1)
            data = data.copy()
            data[:, 5] *= np.divide(after, before, out=np.zeros_like(after), where=before > 0)
            # A box outside gets no area. albumentations would drop it only the next time that it filters.
            data = data[after * shape["height"] * shape["width"] >= 1e-7]
        return super().filter(data, shape)


def _box_rule(rule: Callable[..., NDArray[np.floating]]) -> Callable[..., NDArray[np.floating]]:
    """Turn a function of boxes in pixels into one of boxes as shares of the image's sides."""

    @functools.wraps(rule)
    def apply(data: NDArray[np.floating], **parameters: Any) -> NDArray[np.floating]:
        image_hw = tuple(parameters["shape"][:2])
        if len(data) == 0:
            return data
        moved = rule(denormalize_bboxes(data, image_hw), image_hw, **parameters)
        return normalize_bboxes(moved, image_hw)

    return apply


def _touched(data: NDArray[np.floating], image_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Boxes around the whole pixels that boxes touch, int64 (N, 4); at least one pixel each.

    Corners were shares of the image's sides and are off by their rounding, so 0.001 pixels do not count.
    """
    first = np.minimum(np.floor(data[:, :2] + 1e-3), np.array(image_hw[::-1]) - 1)
    return np.concatenate([first, np.maximum(np.ceil(data[:, 2:4] - 1e-3), first + 1)], axis=1).astype(np.int64)


@_box_rule
def _seen_beside_holes(
    data: NDArray[np.floating], image_hw: tuple[int, int], *, holes: NDArray[np.integer], **_: Any
) -> NDArray[np.floating]:
    """Boxes end where their visible part ends; a box that is wholly hidden keeps its place.

    albumentations drops hidden boxes, moves all others to whole pixels, and divides by zero at narrow ones.
    """
    hidden = np.zeros(image_hw, bool)
    for x0, y0, x1, y1 in np.asarray(holes, int).reshape(-1, 4):
        hidden[y0:y1, x0:x1] = True
    data = data.copy()
    for box, (left, top, right, bottom) in zip(data, _touched(data, image_hw).tolist(), strict=True):
        seen = ~hidden[top:bottom, left:right]
        rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
        if len(rows):
            box[:2] = np.maximum(box[:2], [left + columns[0], top + rows[0]])
            box[2:4] = np.minimum(box[2:4], [left + columns[-1] + 1, top + rows[-1] + 1])
        box[5] *= seen.mean()
    return data


@_box_rule
def _where_pixels_come_from(
    data: NDArray[np.floating],
    image_hw: tuple[int, int],
    *,
    map_x: NDArray[np.floating],
    map_y: NDArray[np.floating],
    **_: Any,
) -> NDArray[np.floating]:
    """Boxes around the pixels that come from inside them.

    albumentations leaves a box in its old place if the object is moved out of the image.
    """
    kept = []
    x, y = map_x + 0.5, map_y + 0.5
    for box in data:
        # A narrow box may lie between the centres of pixels; then half a pixel around it counts as well.
        for margin in (0.0, 0.5):
            inside = (x >= box[0] - margin) & (x < box[2] + margin) & (y >= box[1] - margin) & (y < box[3] + margin)
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            if len(rows):
                break
        else:
            continue
        corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        share = 1.0
        if min(corners[:2]) == 0 or corners[2] == image_hw[1] or corners[3] == image_hw[0]:
            # The box touches the edge, so part of it may be outside; only its smaller area shows that.
            area = (corners[2] - corners[0]) * (corners[3] - corners[1])
            share = min(1.0, area / np.prod(box[2:4] - box[:2]))
        kept.append([*corners, box[4], box[5] * share])
    return np.array(kept, data.dtype).reshape(-1, data.shape[1])


@_box_rule
def _pieces(
    data: NDArray[np.floating], image_hw: tuple[int, int], *, tiles: NDArray[np.integer], mapping: Any, **_: Any
) -> NDArray[np.floating]:
    """Boxes of the pieces of objects; the visible share of a piece is its share of the object's area."""
    rows: NDArray[Any] = np.column_stack([_touched(data, image_hw), data[:, 4:]])
    moved = bboxes_grid_shuffle(rows, tiles, mapping, image_hw, 0, 0)
    whole = dict(zip(rows[:, 4].tolist(), np.prod(rows[:, 2:4] - rows[:, :2], axis=1).tolist(), strict=True))
    for box in moved:
        box[5] *= min(1.0, np.prod(box[2:4] - box[:2]) / whole[box[4]])
    return moved


def unmoved(data: NDArray[np.floating], **_: Any) -> NDArray[np.floating]:
    """Boxes stay. albumentations shrinks them to the remaining pixels, or mixes the boxes of several objects."""
    return data


BOX_RULES: dict[Any, Callable[..., NDArray[np.floating]]] = {
    BaseDropout: _seen_beside_holes,
    BaseDistortion: _where_pixels_come_from,
    albumentations.RandomGridShuffle: _pieces,
    albumentations.PixelDropout: unmoved,
    albumentations.Morphological: unmoved,
}
