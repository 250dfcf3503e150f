"""Augment: an albumentations pipeline that is seeded per sample and keeps boxes, classes and flags together.

The only module that imports albumentations.
"""

from __future__ import annotations

import copy
import random
import threading
import warnings
from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import EMPTY, Boxes
from detfeed.images import Image


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
        # Rows travel as a fifth column, since a label field would have to fit boxes and proposals alike.
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
        self._local = threading.local()

    def __call__(
        self, image: Image, boxes: Boxes, rng: np.random.Generator, proposals: Boxes = EMPTY
    ) -> tuple[Image, Boxes, NDArray[np.int64], Boxes]:
        """Augment one image.

        Args:
            image: uint8 (H, W, 3).
            boxes: float32 (N, 4) with area, xyxy pixels inside the image; N may be 0.
            rng: the sample's generator.
            proposals: float32 (R, 4), further boxes that follow the image. Transforms that look at boxes, such as a
                crop that keeps them, do not look at these.

        Returns:
            The new image, uint8 (H', W', 3); the boxes that are left, float32 (M, 4), clipped to it; int64 (M,), the
            row in `boxes` that each comes from; and the proposals that are left, float32 (Q, 4), clipped likewise.

        Raises:
            ValueError: the pipeline returned something that is not an uint8 image with three channels.
        """
        compose = self._of_this_thread()
        # Not set_random_seed: it gives every transform a generator of its own with the same seed, so that a flip
        # and a blur with p=0.5 each are always both done or both left out.
        compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        result = compose(image=image, bboxes=_numbered(boxes), proposals=_numbered(proposals))
        image = result["image"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"Expected augment to return uint8 (H, W, 3). Received: {image.dtype} {image.shape}; "
                "leave out normalisation, it belongs into the model."
            )
        boxes, rows = _apart(result["bboxes"])
        return np.ascontiguousarray(image), boxes, rows, _apart(result["proposals"])[0]

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


def _numbered(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes with their row as a fifth column."""
    return np.column_stack([boxes.astype(np.float64), np.arange(len(boxes))])


def _apart(numbered: NDArray[np.floating]) -> tuple[Boxes, NDArray[np.int64]]:
    """Boxes and the rows they come from; albumentations drops the fifth column of no boxes at all."""
    if len(numbered) == 0:
        return EMPTY, np.zeros(0, np.int64)
    return numbered[:, :4].astype(np.float32), numbered[:, 4].astype(np.int64)
