"""Plan: which images make up which batch of an epoch, and on which canvas. A function of arguments, seed and epoch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.batches.ordering import batch_positions, draw_positions
from detfeed.batches.samplers import ImageWeights, Sampler
from detfeed.images.canvases import Resize


class PlannedEpoch(NamedTuple):
    """An epoch as it is planned: for each batch its positions, and how often each came before, int64 (B,) both."""

    positions: list[NDArray[np.int64]]
    repeats: list[NDArray[np.int64]]


class Plan:
    """Plans the epochs of a data set.

    Args:
        annotations: the data set.
        batch_size, ...: see `BatchArguments`.
        like: a plan for another size. If the same images come, those that share a canvas there share one here, so that
            the batches are the same.

    Attributes:
        canvases: int64 (K, 2), heights and widths.
        canvas_ids: int64 (P,), the canvas of each image.
        comes: bool (P,), whether an image ever comes, which is up to the sampler.
        num_batches: in every epoch.

    Raises:
        ValueError: no images or fewer than shards, a shard that does not exist, a `sampler` that returns no weights,
            or no batch that is full.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        batch_size: int,
        resize: Resize,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        shard: tuple[int, int],
        sampler: Sampler | None,
        like: Plan | None = None,
    ) -> None:
        shard_index, num_shards = shard
        if len(annotations) == 0:
            raise ValueError(f"Expected annotations with at least one image. Received: {annotations}")
        if not 0 <= shard_index < num_shards:
            raise ValueError(f"Expected a shard (index, count) with 0 <= index < count. Received: {shard}")
        self._weights = None if sampler is None else _weigh(sampler, annotations)
        self.comes = np.ones(len(annotations), bool) if self._weights is None else self._weights > 0
        fed = np.count_nonzero(self.comes) if self._weights is None else max(self._weights.sum(), self.comes.sum())
        if fed < num_shards:
            raise ValueError(f"Expected at least one image for each of {num_shards} shards. Received: {annotations}")
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._drop_last = drop_last
        self._shard = (shard_index, num_shards)
        # Each canvas has an image for each shard, or a whole batch.
        self._at_least = num_shards * (batch_size if drop_last else 1)
        image_hw = annotations.image_hw
        self.canvases: NDArray[np.int64]
        self.canvas_ids: NDArray[np.int64]
        if like is not None and np.array_equal(like.comes, self.comes):
            self.canvas_ids = like.canvas_ids
            self.canvases = _canvases_of(self.canvas_ids[self.comes], resize.padded_hw(image_hw[self.comes]))
        else:
            self.canvases, self.canvas_ids = _assign_canvases(resize, image_hw, self.comes, self._at_least)
        self._epochs: dict[int, PlannedEpoch] = {}
        self.num_batches = len(self.epoch(0).positions)
        if self.num_batches == 0:
            raise ValueError(
                f"Expected at least one full batch with drop_last=True. Received: {len(annotations)} images, "
                f"batch_size {batch_size} and {num_shards} shard(s)"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epochs": {}}

    def canvas_hw(self, position: int) -> tuple[int, int]:
        """Height and width of the canvas that an image is placed on, in pixels."""
        height, width = self.canvases[self.canvas_ids[position]].tolist()
        return height, width

    def epoch(self, epoch: int) -> PlannedEpoch:
        """The batches of an epoch."""
        epochs = self._epochs
        planned = epochs.get(epoch)
        if planned is None:
            planned = self._plan(epoch)
            # load() asks for every batch of an epoch, and at its end for some of the next; threads share this.
            self._epochs = {**{e: epochs[e] for e in epochs if abs(e - epoch) == 1}, epoch: planned}
        return planned

    def _plan(self, epoch: int) -> PlannedEpoch:
        positions = np.arange(len(self.canvas_ids))
        repeats = np.zeros(len(positions), np.int64)
        if self._weights is not None:
            positions, repeats = draw_positions(
                self._weights, self.canvas_ids, epoch=epoch, seed=self._seed, at_least=self._at_least
            )
        batches = batch_positions(
            self.canvas_ids[positions],
            self.canvases,
            batch_size=self._batch_size,
            epoch=epoch,
            seed=self._seed,
            shuffle=self._shuffle,
            drop_last=self._drop_last,
            shard=self._shard,
        )
        return PlannedEpoch([positions[batch] for batch in batches], [repeats[batch] for batch in batches])


def _weigh(sampler: Sampler, annotations: Annotations) -> ImageWeights:
    weights = np.asarray(sampler(annotations), np.float64)
    if weights.shape != (len(annotations),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"Expected sampler to return {len(annotations)} numbers, finite and not negative, one for each image. "
            f"Received: {weights.shape} {weights} from {sampler}"
        )
    if not weights.any():
        raise ValueError(
            f"Expected sampler to give at least one image a weight above 0. Received: all {len(weights)} weights are "
            f"0, from {sampler}"
        )
    return weights


def _assign_canvases(
    resize: Resize, image_hw: NDArray[np.int32], comes: NDArray[np.bool_], at_least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Canvases for the images that come, as `Resize.canvases` returns them; others get the nearest of these."""
    canvases, ids = resize.canvases(image_hw[comes], at_least=at_least)
    canvas_ids = np.zeros(len(image_hw), np.int64)
    canvas_ids[comes] = ids
    if not comes.all():
        sides = resize.resized_hw(image_hw[~comes])
        canvas_ids[~comes] = np.abs(canvases - sides[:, None]).sum(axis=2).argmin(axis=1)
    return canvases, canvas_ids


def _canvases_of(canvas_ids: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest canvases, int64 (K, 2), that hold images of sizes (P, 2), grouped by ids (P,) from 0 to K - 1."""
    canvases = np.zeros((canvas_ids.max() + 1, 2), np.int64)
    np.maximum.at(canvases, canvas_ids, sizes)
    return canvases
