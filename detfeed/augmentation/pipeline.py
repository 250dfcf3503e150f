"""Augment: an albumentations pipeline that is seeded per sample and keeps boxes, classes and flags together.

Only this and `recipes` import albumentations.
"""

from __future__ import annotations

import copy
import functools
import math
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import albumentations
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError
from albumentations.augmentations.dropout.transforms import BaseDropout
from albumentations.augmentations.geometric.distortion import BaseDistortion
from albumentations.augmentations.geometric.functional import bboxes_grid_shuffle
from albumentations.core.bbox_utils import BboxProcessor, denormalize_bboxes, normalize_bboxes
from numpy.typing import NDArray

from detfeed.boxes import EMPTY, Boxes
from detfeed.images.resizing import Image


class Augmented(NamedTuple):
    """What is left after augmentation.

    Attributes:
        image: uint8 (H', W', 3).
        boxes: float32 (M, 4), xyxy pixels, clipped to the image; boxes wholly outside are gone. A box that is partly
            hidden ends where it is seen to end; one that is wholly hidden stays where it is, with visible 0.
        rows: int64 (M,), the row that each box had before. Where tiles are shuffled, a box may become several.
        visible: float64 (M,), the share of each box's area that is inside the image and not hidden, of that which was
            before.
        proposals: float32 (Q, 4), clipped likewise.
        masks: uint8 (K, H', W'), as many as before.
    """

    image: Image
    boxes: Boxes
    rows: NDArray[np.int64]
    visible: NDArray[np.float64]
    proposals: Boxes
    masks: NDArray[np.uint8]


class Other(NamedTuple):
    """Another image of a Mosaic.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: float32 (N, 4), as of the first.
        rows: int64 (N,), what to call the boxes in `Augmented.rows`; beyond the first image's rows.
    """

    image: Image
    boxes: Boxes
    rows: NDArray[np.int64]


class NotAnImageError(ValueError):
    """A pipeline returned something that is not a uint8 image with three channels."""


class UnseededError(ValueError):
    """A pipeline does something else when it is called again with the same seed."""


class Augmentation:
    """Any albumentations transform, made a pure function of image, boxes and generator.

    Of transforms whose boxes albumentations 2.0.8 gets wrong, the boxes are made here, see `_BOX_RULES`.

    Args:
        transform: an albumentations transform, a Compose without box parameters, or a list of transforms; at most one
            Mosaic is among them.

    Attributes:
        num_others: how many other images a call needs, for a Mosaic.

    Raises:
        TypeError: something else.
        ValueError: a Compose with box parameters of its own; a transform that needs more than images and boxes, or that
            moves pixels and not boxes; several Mosaics; a pipeline that does not do the same again from the same seed,
            or that returns no uint8 image.
    """

    def __init__(self, transform: Any) -> None:
        kinds = (albumentations.BasicTransform, albumentations.BaseCompose)
        parts = transform if isinstance(transform, list | tuple) else [transform]
        if not all(isinstance(part, kinds) for part in parts):
            raise TypeError(
                "Expected augment to be an albumentations transform, a Compose or a list of transforms. "
                f"Received: {transform!r} (of type {type(transform).__name__})"
            )
        for part in parts:
            for inner in _parts(part):
                _check_part(inner)
        # A copy, since Compose takes its transforms over: their random state and their settings.
        transform = copy.deepcopy(transform)
        if isinstance(transform, list | tuple):
            transform = albumentations.Compose(list(transform))
        # Rows and visible shares travel as further columns: label fields would have to fit boxes and proposals alike.
        parameters = albumentations.BboxParams(
            format="pascal_voc", label_fields=None, clip=True, filter_invalid_bboxes=True
        )
        with warnings.catch_warnings():
            # Of boxes that no transform moves: pipelines that only change colours are fine.
            warnings.filterwarnings("ignore", message="Got processor for bboxes", category=UserWarning)
            self._compose = albumentations.Compose(
                [transform], bbox_params=parameters, additional_targets={"proposals": "bboxes"}
            )
        self._compose.processors["bboxes"].__class__ = _VisibleShares
        for inner in _parts(self._compose):
            for kind, rule in _BOX_RULES.items():
                if isinstance(inner, kind):
                    inner._key2func.update(bboxes=rule, proposals=rule)
        mosaics = [inner for inner in _parts(self._compose) if isinstance(inner, albumentations.Mosaic)]
        if len(mosaics) > 1:
            raise ValueError(f"Expected augment to have at most one Mosaic. Received: {len(mosaics)}")
        self._cells: _Cells | None = None
        for mosaic in mosaics:
            self._cells = _Cells(mosaic.cell_shape, mosaic.fit_mode, mosaic.metadata_key, math.prod(mosaic.grid_yx) - 1)
            mosaic._key2func.update(bboxes=functools.partial(_tiled, self._cells), proposals=_unmoved)
        self._local = threading.local()
        self._try_out()
        certain = copy.deepcopy(self)
        for inner in _parts(certain._compose):
            inner.p = float(inner.p > 0)
            if any(shares := getattr(inner, "transforms_ps", ())):  # of a OneOf
                possible = [share > 0 for share in shares]
                inner.transforms_ps = [share / sum(possible) for share in possible]
        # So what is done rarely is seen as well; but parts may fail together that are never done together.
        certain._try_out(fails=False)

    @property
    def num_others(self) -> int:
        return 0 if self._cells is None else self._cells.num_others

    def __call__(
        self,
        image: Image,
        boxes: Boxes,
        rng: np.random.Generator,
        *,
        proposals: Boxes = EMPTY,
        masks: Sequence[NDArray[np.uint8]] = (),
        others: Sequence[Other] = (),
    ) -> Augmented:
        """Augment one image.

        Args:
            image: uint8 (H, W, 3).
            boxes: float32 (N, 4) with area, xyxy pixels inside the image; N may be 0.
            rng: the sample's generator.
            proposals: float32 (R, 4), further boxes that follow the image. Transforms that look at boxes, such as a
                crop that keeps them, do not look at these.
            masks: uint8 (H, W) each, which follow the image too; none where there is a Mosaic.
            others: `num_others` images for a Mosaic, looked at only where it is done.

        Raises:
            NotAnImageError: the pipeline returned something that is not a uint8 image with three channels.
        """
        compose = self._of_this_thread()
        # Not set_random_seed: it gives every transform a generator of its own with the same seed, so that a flip
        # and a blur with p=0.5 each are always both done or both left out.
        compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        optional: dict[str, Any] = {"masks": list(masks)} if len(masks) else {}
        if self._cells is not None:
            optional[self._cells.metadata_key] = _Metadata(others, self._cells)
        result = compose(image=image, bboxes=_with_columns(boxes), proposals=_with_columns(proposals), **optional)
        image = result["image"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise NotAnImageError(
                f"Expected augment to return uint8 (H, W, 3). Received: {image.dtype} {image.shape}; "
                + ("keep three channels." if image.dtype == np.uint8 else "normalisation belongs into the model.")
            )
        return Augmented(
            np.ascontiguousarray(image),
            *_apart(result["bboxes"]),
            _apart(result["proposals"])[0],
            np.array(result.get("masks", ()), np.uint8).reshape(-1, *image.shape[:2]),
        )

    def _try_out(self, *, fails: bool = True) -> None:
        """Do a small picture twice for each of some seeds, or a large one if the small one is too small.

        Args:
            fails: whether to raise what the pipeline raises, unless it may be about a picture that is too small.

        Raises:
            ValueError: it came out differently.
        """
        for cell, seeds in ((24, 8), (500, 1)):
            pixels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4, 1) * 20, np.ones((cell, cell, 3), np.uint8))
            boxes = np.array([[24, 24, 48, 48], [55, 8, 90, 40]], np.float32) * np.float32(cell / 24)
            others = [Other(pixels, boxes, np.arange(2, 4))] * self.num_others
            try:
                for seed in range(seeds):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        answers: list[Any] = [
                            self(pixels.copy(), boxes, np.random.default_rng(seed), others=others) for _ in range(2)
                        ]
                    if not all(np.array_equal(one, other) for one, other in zip(*answers, strict=True)):
                        raise UnseededError(
                            "Expected augment to do the same again from the same seed. Received one that does not: "
                            "transforms of your own must draw from self.py_random or self.random_generator, not from "
                            "random or np.random."
                        )
                return
            except (NotAnImageError, UnseededError):
                raise
            except (ValueError, CropSizeError):
                continue
            except Exception:
                if fails and cell > 24:
                    raise

    def _of_this_thread(self) -> albumentations.Compose:
        # A Compose holds its random state, so threads can't share one.
        compose = getattr(self._local, "compose", None)
        if compose is None:
            compose = self._local.compose = copy.deepcopy(self._compose)
        return compose

    def __getstate__(self) -> dict[str, Any]:
        return {"_compose": self._compose, "_cells": self._cells}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()


class _VisibleShares(BboxProcessor):
    """Notes, where albumentations cuts boxes off at the image's edge, which share of each is left."""

    def filter(self, data: NDArray[np.floating], shape: Any) -> NDArray[np.floating]:
        if len(data):
            before = np.prod(data[:, 2:4] - data[:, :2], axis=1)
            inside = np.clip(data[:, :4], 0, 1)
            after = np.prod(inside[:, 2:] - inside[:, :2], axis=1)
            data = data.copy()
            data[:, 5] *= np.divide(after, before, out=np.zeros_like(after), where=before > 0)
            # What is outside becomes a box without area, which albumentations drops only when it looks again.
            data = data[after * shape["height"] * shape["width"] >= 1e-7]
        return super().filter(data, shape)


def _parts(transform: Any) -> Iterator[Any]:
    """A transform and all that it is composed of."""
    yield transform
    if isinstance(transform, albumentations.BaseCompose):
        for part in transform.transforms:
            yield from _parts(part)


def _check_part(part: Any) -> None:
    """Raises ValueError: a part of a pipeline can't be used."""
    name = type(part).__name__
    if isinstance(part, albumentations.BaseCompose):
        if getattr(part, "processors", None):
            raise ValueError(
                f"Expected augment to be a Compose without bbox_params. Received one with {sorted(part.processors)}; "
                "detfeed adds the box parameters itself: write Compose([...]) without them."
            )
        return
    needed = set(part.targets_as_params) - {"image", "bboxes"}
    if isinstance(part, albumentations.Mosaic):
        needed.clear()
    if needed or isinstance(part, albumentations.ConstrainedCoarseDropout | albumentations.CropNonEmptyMaskIfExists):
        raise ValueError(
            f"Expected augment to need nothing but an image and its boxes. Received {name}, which needs "
            f"{sorted(needed) or 'masks or labels'}: leave it out."
        )
    if (
        getattr(part, "apply_to_bboxes", None)
        and type(part).apply_to_bboxes is albumentations.DualTransform.apply_to_bboxes
    ):
        raise ValueError(
            f"Expected augment to move boxes with their pixels. Received {name}, which knows no boxes: leave it out."
        )


def _box_rule(
    rule: Callable[..., NDArray[np.floating]],
) -> Callable[..., NDArray[np.floating]]:
    """A function of boxes in pixels of the image as one for albumentations, which has them as shares of its sides."""

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

    Corners have been shares of the image's sides and are a little off.
    """
    first = np.minimum(np.floor(data[:, :2] + 1e-3), np.array(image_hw[::-1]) - 1)
    return np.concatenate([first, np.maximum(np.ceil(data[:, 2:4] - 1e-3), first + 1)], axis=1).astype(np.int64)


@_box_rule
def _seen_beside_holes(
    data: NDArray[np.floating], image_hw: tuple[int, int], *, holes: NDArray[np.integer], **_: Any
) -> NDArray[np.floating]:
    """Boxes end where they are seen to end.

    albumentations drops boxes that are covered, moves all others to whole pixels, and divides by zero at narrow ones.
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
    """Boxes around the pixels that come from within them.

    albumentations leaves a box that is moved out of the image in its old place.
    """
    kept = []
    x, y = map_x + 0.5, map_y + 0.5
    for box in data:
        # Between pixels' centres there is room for a narrow box, which then is looked for a little around it.
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
            # Part of it may be outside now, of which nothing else tells.
            area = (corners[2] - corners[0]) * (corners[3] - corners[1])
            share = min(1.0, area / np.prod(box[2:4] - box[:2]))
        kept.append([*corners, box[4], box[5] * share])
    return np.array(kept, data.dtype).reshape(-1, data.shape[1])


@_box_rule
def _pieces(
    data: NDArray[np.floating], image_hw: tuple[int, int], *, tiles: NDArray[np.integer], mapping: Any, **_: Any
) -> NDArray[np.floating]:
    """Boxes of the pieces of objects, each visible by the share of the object that it is."""
    data = np.column_stack([_touched(data, image_hw), data[:, 4:]])
    moved = bboxes_grid_shuffle(data, tiles, mapping, image_hw, 0, 0)
    whole = dict(zip(data[:, 4].tolist(), np.prod(data[:, 2:4] - data[:, :2], axis=1).tolist(), strict=True))
    for box in moved:
        box[5] *= min(1.0, np.prod(box[2:4] - box[:2]) / whole[box[4]])
    return moved


def _unmoved(data: NDArray[np.floating], **_: Any) -> NDArray[np.floating]:
    """Boxes stay. albumentations cuts them to the pixels left over, or mixes those of several objects."""
    return data


_BOX_RULES: dict[Any, Callable[..., NDArray[np.floating]]] = {
    BaseDropout: _seen_beside_holes,
    BaseDistortion: _where_pixels_come_from,
    albumentations.RandomGridShuffle: _pieces,
    albumentations.PixelDropout: _unmoved,
    albumentations.Morphological: _unmoved,
}


class _Cells(NamedTuple):
    """Of a Mosaic: what it makes of an image."""

    cell_hw: tuple[int, int]
    fit_mode: str
    metadata_key: str
    num_others: int

    def areas(self, boxes: NDArray[np.floating], image_hw: tuple[int, int]) -> NDArray[np.float64]:
        """Areas that boxes, in pixels of an image, have as the image is scaled to a cell, if nothing is cut off."""
        ratios = [cell / side for cell, side in zip(self.cell_hw, image_hw, strict=True)]
        scale = max(ratios) if self.fit_mode == "cover" else min(ratios)
        areas: NDArray[np.float64] = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1, dtype=np.float64) * scale**2
        return areas


class _Metadata(Sequence[dict[str, Any]]):
    """Other images as a Mosaic takes them; their boxes bear the inverse of their area as their visible share."""

    def __init__(self, others: Sequence[Other], cells: _Cells) -> None:
        self._others = others
        self._cells = cells

    def __len__(self) -> int:
        return len(self._others)

    def __getitem__(self, index: Any) -> Any:
        image, boxes, rows = self._others[index]
        inverse = 1 / self._cells.areas(boxes, image.shape[:2])
        return {"image": image, "bboxes": np.column_stack([boxes.astype(np.float64), rows, inverse])}


def _tiled(
    cells: _Cells, data: NDArray[np.floating], *, processed_cells: dict[Any, dict[str, Any]], **parameters: Any
) -> NDArray[np.floating]:
    """Boxes of a Mosaic, visible by the share of their area that is left of them in their cells."""
    height, width = parameters["target_shape"][:2]
    parts = [cell["bboxes"] for cell in processed_cells.values() if len(cell["bboxes"])]
    if not parts:
        return data[:0]
    tiled = np.concatenate(parts).astype(np.float64)
    first: dict[float, float] = {}
    if len(data):
        image_hw = tuple(parameters["shape"][:2])
        first = dict(zip(data[:, 4], cells.areas(denormalize_bboxes(data, image_hw), image_hw), strict=True))
    areas = np.prod(tiled[:, 2:4] - tiled[:, :2], axis=1) * height * width
    tiled[:, 5] *= areas / [first.get(row, 1.0) for row in tiled[:, 4]]
    tiled[:, 5] = np.minimum(tiled[:, 5], 1)
    return tiled


def _with_columns(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes with their row and their visible share, as columns 4 and 5."""
    return np.column_stack([boxes.astype(np.float64), np.arange(len(boxes)), np.ones(len(boxes))])


def _apart(data: NDArray[np.floating]) -> tuple[Boxes, NDArray[np.int64], NDArray[np.float64]]:
    """Boxes, their rows and visible shares; albumentations drops the columns where no boxes are left."""
    if len(data) == 0:
        return EMPTY, np.zeros(0, np.int64), np.zeros(0)
    return data[:, :4].astype(np.float32), data[:, 4].astype(np.int64), data[:, 5].astype(np.float64)
