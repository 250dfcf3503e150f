"""Speed: how long each stage of the feed takes for an image, measured on some of a data set's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detfeed.batches.loader import BatchLoader
from detfeed.images.decoding import decode_image
from detfeed.images.files import read_bytes


class Stage(NamedTuple):
    """A stage of the feed.

    Attributes:
        name: what is done.
        milliseconds: for an image, the median of those measured; at least 0.
    """

    name: str
    milliseconds: float


def time_stages(
    loader: BatchLoader, plain: BatchLoader, targets: Callable[[Any], Any], positions: Sequence[int]
) -> list[Stage]:
    """Time the stages of the feed on one thread, image by image.

    Reading, decoding and targets are timed as they are. What else a sample takes is the time of the whole sample
    without augmentation beyond reading and decoding; augmenting is what a sample with it takes more.

    Args:
        loader: of the data set.
        plain: the same one, if it augments, without that and with `reduce=False`, as augmented images are read. Else
            `loader` itself.
        targets: of a sample.
        positions: which images, at least one. The first is done once before, so that nothing is timed that a process
            does only once.
    """
    columns: dict[str, list[float]] = {}

    def timed(stage: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        start = time.perf_counter()
        answer = function(*arguments, **keywords)
        columns.setdefault(stage, []).append(1000 * (time.perf_counter() - start))
        return answer

    for position in [positions[0], *positions]:
        height, width = loader.annotations.image_hw[position].tolist()
        enough = plain.placed_hw(position) if plain is loader else None
        data = timed("read", read_bytes, loader.annotations.paths[position])
        timed("decode", decode_image, data, annotated_hw=(height, width), at_least_hw=enough)
        timed("plain", plain.load_sample, 0, position)
        sample = timed("whole", loader.load_sample, 0, position)
        timed("targets", targets, sample)
    medians = {name: statistics.median(times[1:]) for name, times in columns.items()}
    stages = [
        Stage("read the file", medians["read"]),
        Stage("decode", medians["decode"]),
        Stage("resize and place", max(medians["plain"] - medians["read"] - medians["decode"], 0.0)),
        Stage("targets", medians["targets"]),
    ]
    if plain is not loader:
        stages.insert(3, Stage("augment", max(medians["whole"] - medians["plain"], 0.0)))
    return stages
