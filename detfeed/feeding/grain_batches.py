"""Batches of a feed for Google's grain. Imported on first use: grain is an extra."""

from __future__ import annotations

import sys
from typing import Any

import grain

from detfeed.batches.loader import Batch
from detfeed.feeding.feed import Feed


class GrainBatches(grain.MapDataset):
    """The batches of all epochs in one row: entry `epoch * num_batches + index` is batch `index` of `epoch`.

    Args:
        feed: hands them out, and makes those that follow ahead.
        epochs: how many there are. None: no end.
    """

    def __init__(self, feed: Feed, epochs: int | None) -> None:
        super().__init__()
        if epochs is not None and epochs < 1:
            raise ValueError(f"Expected epochs to be at least 1, or None. Received: {epochs}")
        self._feed = feed
        self._length = sys.maxsize if epochs is None else epochs * feed.loader.num_batches

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Batch | Any:
        if isinstance(index, slice):
            return self.slice(index)
        count = self._feed.loader.num_batches
        following = range(index + 1, self._length)
        return self._feed.get(divmod(index, count), (divmod(later, count) for later in following))

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "These batches have workers of their own and can't be sent to worker processes of grain. Leave out "
            "mp_prefetch, and give the sequence workers=... and use_multiprocessing=True"
        )


def grain_batches(feed: Feed, epochs: int | None) -> Any:
    """A `grain.IterDataset` of the batches of a feed, without grain's own threads; see `DetectionSequence.to_grain`."""
    # grain's default is 16 threads and 500 elements ahead: 13 GB of batches of 8 images of 800 x 1344.
    return GrainBatches(feed, epochs).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
