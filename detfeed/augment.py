"""Augment: an albumentations pipeline that is seeded per sample and keeps boxes, classes and flags together.

The only module that imports albumentations.
"""

from __future__ import annotations

import copy
import random
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import albumentations
import numpy as np
from albumentations.core.bbox_utils import BboxProcessor
from numpy.typing import NDArray

from detfeed.boxes import EMPTY, Boxes
from detfeed.images import Image


class Augmented(NamedTuple):
    """What is left after augmentation.

    Attributes:
        image: uint8 (H', W', 3).
        boxes: float32 (M, 4), xyxy pixels, clipped to the image; boxes wholly outside are gone.
        rows: int64 (M,), the row that each box had before.
        visible: float64 (M,), the share of each box's area that is inside the image, of that which was before.
        proposals: float32 (Q, 4), clipped likewise.
        masks: uint8 (K, H', W'), as many as before.
    """

    image: Image
    boxes: Boxes
    rows: NDArray[np.int64]
    visible: NDArray[np.float64]
    proposals: Boxes
    masks: NDArray[np.uint8]


class Augmentation:
    """Any albumentations transform, made a pure function of image, boxes and generator.

    Args:
        transform: an albumentations transform, a Compose without box parameters, or a list of transforms.

    Raises:
        TypeError: something else.
        ValueError: a Compose with box parameters of its own.
    """

    def __init__(self, transform: Any) -> None:
        kinds = (albumentations.BasicTransform, albumentations.BaseCompose)
        if isinstance(transform, list | tuple) and all(isinstance(item, kinds) for item in transform):
            transform = albumentations.Compose(list(transform))
        if not isinstance(transform, kinds):
            raise TypeError(
                "Expected augment to be an albumentations transform, a Compose or a list of transforms. "
                f"Received: {transform!r} (of type {type(transform).__name__})"
            )
        if getattr(transform, "processors", None):
            raise ValueError(
                f"Expected augment to be a Compose without bbox_params. Received one with "
                f"{sorted(transform.processors)}; detfeed adds the box parameters itself: write "
                "Compose([...]) without them."
            )
        # Rows and visible shares travel as further columns: label fields would have to fit boxes and proposals alike.
        parameters = albumentations.BboxParams(
            format="pascal_voc", label_fields=None, clip=True, filter_invalid_bboxes=True
        )
        with warnings.catch_warnings():
            # Of boxes that no transform moves: pipelines that only change colours are fine.
            warnings.filterwarnings("ignore", message="Got processor for bboxes", category=UserWarning)
            # A copy, since Compose takes its transforms over: their random state and their settings.
            self._compose = albumentations.Compose(
                [copy.deepcopy(transform)], bbox_params=parameters, additional_targets={"proposals": "bboxes"}
            )
        self._compose.processors["bboxes"].__class__ = _VisibleShares
        self._local = threading.local()

    def __call__(
        self,
        image: Image,
        boxes: Boxes,
        rng: np.random.Generator,
        *,
        proposals: Boxes = EMPTY,
        masks: Sequence[NDArray[np.uint8]] = (),
    ) -> Augmented:
        """Augment one image.

        Args:
            image: uint8 (H, W, 3).
            boxes: float32 (N, 4) with area, xyxy pixels inside the image; N may be 0.
            rng: the sample's generator.
            proposals: float32 (R, 4), further boxes that follow the image. Transforms that look at boxes, such as a
                crop that keeps them, do not look at these.
            masks: uint8 (H, W) each, which follow the image too.

        Raises:
            ValueError: the pipeline returned something that is not an uint8 image with three channels.
        """
        compose = self._of_this_thread()
        # Not set_random_seed: it gives every transform a generator of its own with the same seed, so that a flip
        # and a blur with p=0.5 each are always both done or both left out.
        compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        optional = {"masks": list(masks)} if len(masks) else {}
        result = compose(image=image, bboxes=_with_columns(boxes), proposals=_with_columns(proposals), **optional)
        image = result["image"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"Expected augment to return uint8 (H, W, 3). Received: {image.dtype} {image.shape}; "
                "leave out normalisation, it belongs into the model."
            )
        return Augmented(
            np.ascontiguousarray(image),
            *_apart(result["bboxes"]),
            _apart(result["proposals"])[0],
            np.array(result.get("masks", ()), np.uint8).reshape(-1, *image.shape[:2]),
        )

    def _of_this_thread(self) -> albumentations.Compose:
        # A Compose holds its random state, so threads can't share one.
        compose = getattr(self._local, "compose", None)
        if compose is None:
            compose = self._local.compose = copy.deepcopy(self._compose)
        return compose

    def __getstate__(self) -> albumentations.Compose:
        return self._compose

    def __setstate__(self, compose: albumentations.Compose) -> None:
        self._compose = compose
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
        return super().filter(data, shape)


def _with_columns(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes with their row and their visible share, as columns 4 and 5."""
    return np.column_stack([boxes.astype(np.float64), np.arange(len(boxes)), np.ones(len(boxes))])


def _apart(data: NDArray[np.floating]) -> tuple[Boxes, NDArray[np.int64], NDArray[np.float64]]:
    """Boxes, their rows and visible shares; albumentations drops the columns where no boxes are left."""
    if len(data) == 0:
        return EMPTY, np.zeros(0, np.int64), np.zeros(0)
    return data[:, :4].astype(np.float32), data[:, 4].astype(np.int64), data[:, 5].astype(np.float64)
