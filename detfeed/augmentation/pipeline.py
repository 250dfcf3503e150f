"""Pipeline: an albumentations transform, seeded for each sample, that moves all boxes and masks with the image.

Importing albumentations takes a second, so modules outside this folder import this one where they first use it.
"""

from __future__ import annotations

import copy
import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import albumentations
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError
from numpy.typing import NDArray

from detfeed.augmentation.box_rules import BOX_RULES, VisibleShares, unmoved
from detfeed.augmentation.keypoint_rows import KEYPOINT_RULES, from_rows, to_rows
from detfeed.augmentation.mosaic import Cells, Metadata, Other, tiled
from detfeed.augmentation.moves import M, draw_from, moves_of
from detfeed.boxes import EMPTY, Boxes
from detfeed.images.resizing import Image
from detfeed.keypoints import Keypoints


class Augmented(NamedTuple):
    """An image after augmentation, with everything that lies on it.

    Attributes:
        image: uint8 (H', W', 3).
        boxes: float32 (M, 4), xyxy pixels, clipped to the image. Boxes outside the image are gone. A box that is partly
            hidden ends where its visible part ends; a box that is wholly hidden keeps its place, with visible 0.
        rows: int64 (M,), the row of each box before. A row comes several times where shuffled tiles cut its box.
        visible: float64 (M,), the share of each box's area before that is now inside the image and not hidden.
        proposals: float32 (Q, 4), clipped likewise.
        masks: uint8 (K, H', W'), as many as before.
        keypoints: of the boxes before, or None; those outside of the image are not visible.
    """

    image: Image
    boxes: Boxes
    rows: NDArray[np.int64]
    visible: NDArray[np.float64]
    proposals: Boxes
    masks: NDArray[np.uint8]
    keypoints: Keypoints | None = None


class NotAnImageError(ValueError):
    """A pipeline returned something other than a uint8 image with three channels."""


class UnseededError(ValueError):
    """A pipeline returned two different images for the same seed."""


class Augmentation:
    """Any albumentations transform, made a pure function of image, boxes and generator.

    albumentations 2.0.8 returns wrong boxes for some transforms; their boxes are computed by `BOX_RULES` instead.

    Args:
        transform: an albumentations transform, a Compose without box parameters, or a list of transforms; with at most
            one Mosaic.

    Attributes:
        num_others: number of other images that a call needs for a Mosaic.

    Raises:
        TypeError: something else.
        ValueError: a Compose with box parameters of its own; a transform that needs more than images and boxes, or that
            moves pixels but not boxes; several Mosaics; a pipeline that returns different images for the same seed, or
            that returns no uint8 image.
    """

    def __init__(self, transform: Any) -> None:
        _check_transform(transform)
        self._compose = _composed(transform)
        self._moves = moves_of(self._compose)
        self._cells = _mend_boxes(self._compose)
        self._local = threading.local()
        self._try_out()
        # Once more with every transform done, however rarely it is: a fault of it shows now. Errors of other kinds do
        # not count, since parts that are never done together may fail together.
        certain = copy.deepcopy(self)
        _make_certain(certain._compose)
        certain._try_out(fails=False)

    @property
    def num_others(self) -> int:
        return 0 if self._cells is None else self._cells.num_others

    def moved(self, scene: M, rng: np.random.Generator) -> M | None:
        """The scene as a call leaves its image, boxes, masks and proposals, if the pipeline has flips and crops alone.

        Boxes differ by what albumentations' shares of sides are off, some 1e-5 pixels. None: it has other transforms.
        """
        return None if self._moves is None else self._moves(scene, draw_from(rng))

    def __call__(
        self,
        image: Image,
        boxes: Boxes,
        rng: np.random.Generator,
        *,
        proposals: Boxes = EMPTY,
        masks: Sequence[NDArray[np.uint8]] = (),
        others: Sequence[Other] = (),
        keypoints: Keypoints | None = None,
    ) -> Augmented:
        """Augment one image.

        Args:
            image: uint8 (H, W, 3).
            boxes: float32 (N, 4) with area, xyxy pixels inside the image; N may be 0.
            rng: the sample's generator.
            proposals: float32 (R, 4), more boxes that follow the image. Transforms that choose a place by the boxes,
                such as a crop that keeps them, do not see these.
            masks: uint8 (H, W) each, which follow the image as well; none if the pipeline has a Mosaic.
            others: `num_others` images for a Mosaic, read only if the Mosaic is done.
            keypoints: of the boxes, which follow the image as well; None if the pipeline has a Mosaic.

        Raises:
            NotAnImageError: the pipeline returned something other than a uint8 image with three channels.
        """
        compose = self._of_this_thread()
        # Not set_random_seed, which gives every transform its own generator with the same seed: a flip and a blur with
        # p=0.5 each would always be done together or not at all.
        compose.set_random_state(rng, draw_from(rng))
        optional: dict[str, Any] = {"masks": list(masks)} if len(masks) else {}
        if keypoints is not None:
            optional["keypoints"] = to_rows(keypoints, _image_hw(image))
        if self._cells is not None:
            optional[self._cells.metadata_key] = Metadata(others, self._cells)
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
            keypoints and from_rows(keypoints, result["keypoints"], _image_hw(image)),
        )

    def _try_out(self, *, fails: bool = True) -> None:
        """Augment a picture twice for each of some seeds: a small one, or a large one if the small one is too small.

        Args:
            fails: raise the pipeline's own errors as well, unless the size of the picture may be their cause.

        Raises:
            UnseededError: two answers for one seed differ.
            NotAnImageError: as `__call__`.
        """
        for cell, seeds in ((24, 8), (500, 1)):
            pixels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4, 1) * 20, np.ones((cell, cell, 3), np.uint8))
            boxes = np.array([[24, 24, 48, 48], [55, 8, 90, 40]], np.float32) * np.float32(cell / 24)
            others = [Other(pixels, boxes, np.arange(2, 4))] * self.num_others
            try:
                for seed in range(seeds):
                    self._call_twice(pixels, boxes, others, seed)
                return
            except (NotAnImageError, UnseededError):
                raise
            except (ValueError, CropSizeError):
                continue
            except Exception:
                if fails and cell > 24:
                    raise

    def check_fits(self, image_hw: NDArray[np.integer], name: Callable[[int], str]) -> None:
        """Try every transform on a picture of the least height, and on one of the least width, of some images.

        Args:
            image_hw: integers (P, 2), heights and widths; P at least 1.
            name: returns the name of an image by its row.

        Raises:
            ValueError: a transform does not take a picture that small, as a crop that is larger.
        """
        certain = copy.deepcopy(self)
        _make_certain(certain._compose)
        # Of the least side, and of these images of the least other side.
        weighed = image_hw.astype(np.int64) @ np.array([[1, 2**32], [2**32, 1]])
        for position in dict.fromkeys(weighed.argmin(axis=0).tolist()):
            height, width = image_hw[position].tolist()
            error = certain._fail_at(height, width)
            # If a larger one works, the size is the cause.
            if error is not None and certain._fail_at(max(2000, height), max(2000, width)) is None:
                raise ValueError(
                    f"Expected augment to take every image, {name(position)} of height {height} and width {width} "
                    f"too. Received: {_failed_part(error)}, which raises {type(error).__name__}: {error}"
                ) from error

    def _fail_at(self, height: int, width: int) -> Exception | None:
        """The error that a picture of some size leads to, if any."""
        boxes = np.array([[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]], np.float32)
        pixels = np.zeros((height, width, 3), np.uint8)
        others = [Other(pixels, boxes, np.arange(1, 2))] * self.num_others
        # Of several parts, a OneOf or SomeOf tries others with each seed.
        chooses = any(hasattr(part, "transforms_ps") for part in _parts(self._compose))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for seed in range(8 if chooses else 1):
                try:
                    self(pixels, boxes, np.random.default_rng(seed), others=others)
                except Exception as error:
                    return error
        return None

    def _call_twice(self, pixels: Image, boxes: Boxes, others: Sequence[Other], seed: int) -> None:
        """Raises UnseededError: the two answers differ."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers: list[Any] = [
                self(pixels.copy(), boxes, np.random.default_rng(seed), others=others) for _ in range(2)
            ]
        if not all(np.array_equal(one, other) for one, other in zip(*answers, strict=True)):
            raise UnseededError(
                "Expected augment to do the same again from the same seed. Received one that does not: transforms of "
                "your own must draw from self.py_random or self.random_generator, not from random or np.random."
            )

    def _of_this_thread(self) -> albumentations.Compose:
        # A Compose holds its random state, so threads can't share one.
        compose = getattr(self._local, "compose", None)
        if compose is None:
            compose = self._local.compose = copy.deepcopy(self._compose)
        return compose

    def __getstate__(self) -> dict[str, Any]:
        return {"_compose": self._compose, "_cells": self._cells, "_moves": self._moves}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()


def _check_transform(transform: Any) -> None:
    """Raises TypeError: not a transform. Raises ValueError: a part of it can't be used."""
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


def _composed(transform: Any) -> albumentations.Compose:
    """A Compose of a copy of the transform: a Compose changes the random state and the settings of its parts."""
    transform = copy.deepcopy(transform)
    if isinstance(transform, list | tuple):
        transform = albumentations.Compose(list(transform))
    # No label fields: boxes and proposals would have to share them. Rows and visible shares travel as columns instead.
    parameters = albumentations.BboxParams(
        format="pascal_voc", label_fields=None, clip=True, filter_invalid_bboxes=True
    )
    points = albumentations.KeypointParams(format="xy", label_fields=None, remove_invisible=False)
    with warnings.catch_warnings():
        # albumentations warns if no transform moves boxes. A pipeline may well change colours alone.
        warnings.filterwarnings("ignore", message="Got processor for (bboxes|keypoints)", category=UserWarning)
        return albumentations.Compose(
            [transform], bbox_params=parameters, keypoint_params=points, additional_targets={"proposals": "bboxes"}
        )


def _mend_boxes(compose: albumentations.Compose) -> Cells | None:
    """Replace what albumentations does to boxes where that is wrong.

    Returns:
        The cells of the Mosaic; None without one.

    Raises:
        ValueError: several Mosaics.
    """
    compose.processors["bboxes"].__class__ = VisibleShares
    mosaics = []
    for part in _parts(compose):
        for kind, rule in BOX_RULES.items():
            if isinstance(part, kind):
                part._key2func.update(bboxes=rule, proposals=rule)
        for kind, keypoint_rule in KEYPOINT_RULES.items():
            if isinstance(part, kind):
                part._key2func.update(keypoints=keypoint_rule)
        if isinstance(part, albumentations.Mosaic):
            mosaics.append(part)
    if len(mosaics) > 1:
        raise ValueError(f"Expected augment to have at most one Mosaic. Received: {len(mosaics)}")
    if not mosaics:
        return None
    mosaic = mosaics[0]
    cells = Cells(mosaic.cell_shape, mosaic.fit_mode, mosaic.metadata_key, math.prod(mosaic.grid_yx) - 1)
    mosaic._key2func.update(bboxes=functools.partial(tiled, cells), proposals=unmoved)
    return cells


def _make_certain(compose: albumentations.Compose) -> None:
    """Let every transform that may be done be done always; a OneOf chooses evenly."""
    for part in _parts(compose):
        part.p = float(part.p > 0)
        if any(shares := getattr(part, "transforms_ps", ())):  # of a OneOf
            possible = [share > 0 for share in shares]
            part.transforms_ps = [share / sum(possible) for share in possible]


def _parts(transform: Any) -> Iterator[Any]:
    """A transform and, if it is a Compose, everything inside it."""
    yield transform
    if isinstance(transform, albumentations.BaseCompose):
        for part in transform.transforms:
            yield from _parts(part)


def _failed_part(error: Exception) -> str:
    """The transform that an error was raised in."""
    failed, trace = "a transform", error.__traceback__
    while trace is not None:
        part = trace.tb_frame.f_locals.get("self")
        failed = repr(part) if isinstance(part, albumentations.BasicTransform) else failed
        trace = trace.tb_next
    return failed


def _check_part(part: Any) -> None:
    """Raises ValueError: the part of a pipeline can't be used."""
    name = type(part).__name__
    if getattr(part, "seed", None) is not None:
        raise ValueError(
            "Expected augment without a seed of its own, since each sample's follows from seed, epoch and position. "
            f"Received: {name} with seed {part.seed}; leave it out, and give seed={part.seed} to the sequence or loader"
        )
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
            f"Expected augment to move boxes with their pixels. Received {name}, which moves no boxes: leave it out."
        )


def _image_hw(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _with_columns(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes with their row and their visible share as columns 4 and 5; float64 (N, 6)."""
    return np.column_stack([boxes.astype(np.float64), np.arange(len(boxes), dtype=np.float64), np.ones(len(boxes))])


def _apart(data: NDArray[np.floating]) -> tuple[Boxes, NDArray[np.int64], NDArray[np.float64]]:
    """Boxes, their rows and their visible shares; albumentations drops the columns where no boxes are left."""
    if len(data) == 0:
        return EMPTY, np.zeros(0, np.int64), np.zeros(0)
    return data[:, :4].astype(np.float32), data[:, 4].astype(np.int64), data[:, 5].astype(np.float64)
