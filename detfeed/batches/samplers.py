"""Samplers: how often each image comes in an epoch.

A sampler is a function of `Annotations` that returns float64 (P,): how often each of P images appears in an epoch on
average. 1 is once, 0 never, 2.3 twice and, in three of ten epochs, once more. The images of each epoch are drawn from
these weights, so that all epochs have the same number of batches. Any such function will do; samplers combine by
multiplying their weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations

ImageWeights = NDArray[np.float64]
Sampler = Callable[[Annotations], ImageWeights]


@dataclasses.dataclass(frozen=True)
class RepeatFactor:
    """Images of rare classes come more often; every image comes at least once.

    With f(c) the share of images that have an object of class c, a class is repeated r(c) = max(1, sqrt(threshold /
    f(c))) times, and an image as often as the class of its objects that is repeated most. An image without objects
    comes once.

    Args:
        threshold: share of images below which a class is rare.

    Source: Gupta, Dollár and Girshick 2019 (LVIS), appendix B; detectron2's RepeatFactorTrainingSampler, which rounds
        each image on its own.
    """

    threshold: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"Expected threshold to be above 0 and at most 1. Received: {self.threshold}")

    def __call__(self, annotations: Annotations) -> ImageWeights:
        positions, class_ids = _shown(annotations)
        shares = np.bincount(class_ids, minlength=len(annotations.class_names)) / max(len(annotations), 1)
        weights = np.ones(len(annotations))
        np.maximum.at(weights, positions, np.sqrt(self.threshold / shares[class_ids]))
        return weights


@dataclasses.dataclass(frozen=True)
class ClassBalanced:
    """All classes come equally often: a class is drawn, then one of the images that have an object of it.

    An image comes sum(1 / n(c)) / C times the length of the epoch, over its classes c, with n(c) images that have class
    c, and C classes that some image has. Images without objects never come.

    Args:
        num_images: length of an epoch. None: as many as there are images.

    Source: Shen, Lin and Huang 2016 (Relay Backpropagation), section 3.2, class-aware sampling.
    """

    num_images: int | None = None

    def __post_init__(self) -> None:
        _check_length(self.num_images)

    def __call__(self, annotations: Annotations) -> ImageWeights:
        positions, class_ids = _shown(annotations)
        if len(positions) == 0:
            return np.zeros(len(annotations))
        images_of = np.bincount(class_ids)
        total = len(annotations) if self.num_images is None else self.num_images
        weights = np.zeros(len(annotations))
        np.add.at(weights, positions, total / np.count_nonzero(images_of) / images_of[class_ids])
        return weights


@dataclasses.dataclass(frozen=True)
class Mix:
    """Several sets in given shares, in a table that `concat` made of them.

    `BatchLoader(concat([a, b]), ..., sampler=Mix((len(a), len(b)), (3, 1)))` feeds three images of a for each of b.
    Within a set, all images come equally often.

    Args:
        sizes: images of each set, in the order of `concat`.
        shares: how much of an epoch each set has, relative to the others; 0 leaves a set out.
        num_images: length of an epoch. None: as many as there are images.
    """

    sizes: Sequence[int]
    shares: Sequence[float]
    num_images: int | None = None

    def __post_init__(self) -> None:
        _check_length(self.num_images)
        if len(self.sizes) != len(self.shares) or not self.sizes or min(self.sizes) < 0:
            raise ValueError(f"Expected a size and a share for each set. Received: {self.sizes} and {self.shares}")
        if min(self.shares) < 0 or not 0 < sum(self.shares) < np.inf:
            raise ValueError(f"Expected shares that are not negative, and not all 0. Received: {self.shares}")
        empty = [place for place, size in enumerate(self.sizes) if size == 0 and self.shares[place] > 0]
        if empty:
            raise ValueError(f"Expected images in each set that has a share. Received: none in set {empty[0]}")

    def __call__(self, annotations: Annotations) -> ImageWeights:
        if sum(self.sizes) != len(annotations):
            raise ValueError(
                f"Expected sizes of sets that add up to the {len(annotations)} images there are. Received: {self.sizes}"
            )
        total = len(annotations) if self.num_images is None else self.num_images
        sizes, shares = np.array(self.sizes), np.array(self.shares, np.float64)
        return np.repeat(total * shares / shares.sum() / np.maximum(sizes, 1), sizes)


@dataclasses.dataclass(frozen=True)
class LimitEmpty:
    """Few or none of the images without objects appear, others in each epoch.

    All other images come once. Ignored boxes are no objects.

    Args:
        max_share: share of an epoch that images without objects have, rounded to whole images canvas by canvas, and up
            to one; more where a canvas has no others, if shards or `drop_last` need more of it.
    """

    max_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"Expected max_share to be a share from 0 to 1. Received: {self.max_share}")

    def __call__(self, annotations: Annotations) -> ImageWeights:
        empty = np.ones(len(annotations), bool)
        empty[_shown(annotations)[0]] = False
        weights = np.ones(len(annotations))
        if empty.any() and self.max_share < 1:
            allowed = self.max_share / (1 - self.max_share) * np.count_nonzero(~empty)
            weights[empty] = min(1.0, allowed / np.count_nonzero(empty))
        return weights


def _shown(annotations: Annotations) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which image has an object of which class: positions and class ids, int64 (K,) and int32 (K,), each pair once."""
    objects = ~annotations.ignore
    class_ids = annotations.class_ids[objects].astype(np.int64)
    pairs = np.unique(np.stack([annotations.positions[objects], class_ids], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1].astype(np.int32)


def _check_length(num_images: int | None) -> None:
    if num_images is not None and num_images < 1:
        raise ValueError(f"Expected num_images to be at least 1, or None. Received: {num_images}")
