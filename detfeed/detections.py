"""Detections: what a model finds in the images of a sequence, in pixels of the image files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.backend import keras
from detfeed.batches.loader import BatchLoader
from detfeed.boxes import Boxes
from detfeed.sequence import DetectionSequence

Detect = Callable[[Any, Any], tuple[Any, Any, Any]]


class Detections(NamedTuple):
    """Detections of all images, in the order of the sequence's annotations; what `average_precision` takes.

    Attributes:
        boxes: per image, float32 (R, 4), xyxy pixels of the image as it is stored in the file, clipped to it.
        scores: per image, float32 (R,).
        class_ids: per image, int32 (R,).
    """

    boxes: list[Boxes]
    scores: list[NDArray[np.float32]]
    class_ids: list[NDArray[np.int32]]


def predict_detections(model: Any, sequence: DetectionSequence, detect: Detect, *, verbose: bool = True) -> Detections:
    """What a model finds in every image of a sequence.

    The place of the sequence, its `epoch` and `cursor`, stays.

    Args:
        model: given to `detect`.
        sequence: feeds each of its images once, as it is in its file; its order does not matter.
        detect: function of the model and x of a batch, B images. It returns three things of B entries, arrays or lists:
            boxes (R, 4) in xyxy pixels of the canvas, scores (R,) and class ids (R,). Rows with a class id below 0 are
            padding. For a model that predicts them: `lambda model, x: itemgetter("boxes", "confidence", "labels")(
            model.predict_on_batch(x))`.
        verbose: show progress.

    Raises:
        ValueError: the sequence augments, replaces images, leaves some out or repeats them; or `detect` returns
            something else.
    """
    loader, epoch = sequence.loader, sequence.epoch
    check_whole(loader, epoch)
    keys = [(epoch, index) for index in range(loader.num_batches)]
    found: dict[int, tuple[Boxes, NDArray[np.float32], NDArray[np.int32]]] = {}
    bar = keras.utils.Progbar(len(keys), verbose=int(verbose), unit_name="batch")
    for place, key in enumerate(keys):
        x = sequence.feed.get(key, (keys[later] for later in range(place + 1, len(keys))))[0]
        positions = loader.batches(epoch)[place].tolist()
        for position, one in zip(positions, _split(detect(model, x), len(positions)), strict=True):
            found[position] = _to_file(loader, epoch, position, *one)
        bar.update(place + 1)
    boxes, scores, class_ids = zip(*(found[position] for position in range(len(found))), strict=True)
    return Detections(list(boxes), list(scores), list(class_ids))


def check_whole(loader: BatchLoader, epoch: int) -> None:
    """Raise ValueError unless an epoch has each image once, and as it is in its file."""
    advice = "Make a sequence for scoring, of the same annotations, resize and batch_size, without"
    if loader.stage(epoch).augments:
        raise ValueError(
            "Expected a sequence that does not augment, so that boxes can be mapped back to the image files. Received: "
            f"one with augment. {advice} augment."
        )
    if loader.on_error != "raise":
        raise ValueError(
            "Expected a sequence that feeds the images it plans to. Received: one that feeds others in their place, "
            f"with {loader.on_error}. {advice} on_error."
        )
    fed = np.concatenate(loader.batches(epoch))
    if len(fed) != len(loader.annotations) or len(np.unique(fed)) != len(fed):
        raise ValueError(
            f"Expected a sequence that feeds each of its {len(loader.annotations)} images once. Received: one that "
            f"feeds {len(np.unique(fed))} of them, {len(fed)} times in all. {advice} drop_last, shard and sampler; "
            "annotations.select(...) chooses images."
        )


def _split(answer: Any, num_images: int) -> list[tuple[Any, Any, Any]]:
    """What `detect` returned, image by image."""
    if not isinstance(answer, tuple | list) or len(answer) != 3 or any(len(part) != num_images for part in answer):
        received = type(answer).__name__
        if isinstance(answer, tuple | list):
            received = f"{len(answer)} things of {[len(part) for part in answer]} entries"
        raise ValueError(
            f"Expected detect to return boxes, scores and class ids, each of {num_images} entries for a batch of "
            f"{num_images} images. Received: {received}"
        )
    parts = [part if isinstance(part, tuple | list) else keras.ops.convert_to_numpy(part) for part in answer]
    return [tuple(keras.ops.convert_to_numpy(part[row]) for part in parts) for row in range(num_images)]


def _to_file(
    loader: BatchLoader, epoch: int, position: int, boxes: NDArray[Any], scores: NDArray[Any], class_ids: NDArray[Any]
) -> tuple[Boxes, NDArray[np.float32], NDArray[np.int32]]:
    """The detections of one image without padding, in pixels of its file."""
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    count = len(boxes)
    with np.errstate(invalid="ignore"):  # of NaN, which is then no whole number
        whole = class_ids.astype(np.int32)
    if (
        boxes.shape != (count, 4)
        or scores.shape != (count,)
        or class_ids.shape != (count,)
        or (whole != class_ids).any()
    ):
        raise ValueError(
            "Expected detect to return boxes (R, 4), scores (R,) and class ids (R,), whole numbers, for each image. "
            f"Received: {boxes.shape}, {scores.shape} and {class_ids.dtype} {class_ids.shape} for "
            f"{loader.annotations.paths[position]}"
        )
    there = whole >= 0
    boxes = loader.to_file(position, boxes[there].astype(np.float32), epoch=epoch)
    return boxes, scores[there].astype(np.float32), whole[there]
