"""Sequences: what Keras's fit, evaluate and predict take. Thin: `loader` does the work."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import NDArray

from detfeed.anchors import AnchorGrid
from detfeed.annotations import Annotations
from detfeed.coco import read_coco
from detfeed.decoding import Exif
from detfeed.feed import Feed
from detfeed.images import Resize
from detfeed.loader import Batch, BatchLoader, OnError, TargetFunction
from detfeed.lookahead import Lookahead
from detfeed.proposals import Proposals
from detfeed.samplers import Sampler
from detfeed.targets import AnchorTargets, Form, RoiTargets
from detfeed.voc import read_voc
from detfeed.workers import timed_load


class DetectionSequence(keras.utils.PyDataset):
    """Batches of images with the targets that a function of yours makes of each sample.

    `sequence[index]` is `(x, y)` or `(x, y, sample_weight)`, see `loader.BatchLoader.load`; it depends on
    `(seed, epoch, index)` alone, whatever makes it and in whatever order it is asked for. In `fit`, and in a loop over
    the sequence or its `stream`, `epoch` moves on by one whenever all batches were fed.

    Workers are the sequence's own and not Keras's, which is told of one worker: they start with the first batch, live
    across epochs, and make batches ahead of whoever asks. They end with `close`, with the sequence, or with the
    process.

    Args:
        annotations: the data set.
        targets: function of a `Sample`; returns a dict of arrays, or a tuple of such dicts (see `targets`).
        batch_size: images in a batch. Batches hold images of one canvas; the last of each canvas may have fewer
            images, and never made-up ones.
        resize: `ShortSide` or `Fixed`.
        augment: an albumentations transform, a Compose without box parameters, a list of transforms, or the name of one
            of `recipes`: "flip", "ssd", "lsj" or "multiscale".
        shuffle: draw the order of samples and batches anew for each epoch. (Keras's own `fit(shuffle=True)`, its
            default, shuffles the batches once more.)
        seed: of all that is random.
        drop_last: leave out batches that are not full.
        sampler: how often each image comes in an epoch, see `samplers`; None: once.
        min_visibility: an object of which an augmentation leaves less than this share becomes an ignore region.
        min_size: so does one with a side of less than this many pixels, as it is fed.
        exif, reduce: how images are decoded; see `loader.BatchLoader`.
        on_error: what to do about an image that can't be read: "raise", or "replace" it by another one of its canvas
            (of any, if it is alone there), drawn from seed, epoch and position. The first replacement is warned of.
        max_replaced: the share of the data set's images that may turn out unreadable before that is an error; a single
            one always may, unless it is 0.
        ledger: a file that gets a line of JSON for each replacement; see `ledger.Ledger`. `feed.ledger` counts them.
        proposals: of the images of `annotations`, for `Sample.proposals`; see `proposals.read_proposals`.
        shard: (index, count), the share of this process where several train together; see `loader.BatchLoader`.
        workers: threads or processes that make batches. Up to 1 thread is the asking one itself.
        use_multiprocessing: processes instead of threads.
        max_queue_size: how many batches are made ahead at most.
        timeout: seconds that a batch may take its worker before that is replaced.
        executor: a `concurrent.futures.Executor` that makes the batches instead, here or on other machines.

    Raises:
        ValueError: see `loader.BatchLoader`.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        targets: TargetFunction,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        sampler: Sampler | None = None,
        min_visibility: float = 0.25,
        min_size: float = 1.0,
        exif: Exif = "auto",
        reduce: bool | None = None,
        on_error: OnError = "raise",
        max_replaced: float = 0.01,
        ledger: str | os.PathLike[str] | None = None,
        proposals: Proposals | None = None,
        shard: tuple[int, int] = (0, 1),
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        timeout: float = 300.0,
        executor: Executor | None = None,
    ) -> None:
        # Keras must not start workers on top. Those of Keras 3.15.1 lose batches on JAX and torch, too: what they had
        # ready after fit's first look at the data is fed as the start of the first epoch.
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=max_queue_size)
        self.loader = BatchLoader(
            annotations,
            targets,
            batch_size=batch_size,
            resize=resize,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            sampler=sampler,
            min_visibility=min_visibility,
            min_size=min_size,
            exif=exif,
            reduce=reduce,
            on_error=on_error,
            proposals=proposals,
            shard=shard,
        )
        self.feed = Feed(
            self.loader,
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            ahead=max_queue_size,
            timeout=timeout,
            executor=executor,
            ledger=ledger,
            max_replaced=max_replaced,
        )
        self._lookahead = Lookahead()
        self._within_epoch = False
        self._asked: set[int] = set()
        self.seek(0)

    @property
    def annotations(self) -> Annotations:
        """The data set."""
        return self.loader.annotations

    @property
    def epoch(self) -> int:
        """The epoch that `sequence[index]` is of; setting it begins that epoch."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.seek(epoch)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Go to a place, without making what comes before it.

        The rest of that epoch is then all there is of it: `len(sequence)` is shorter by `batch`, and `sequence[0]` is
        the epoch's batch number `batch`. The epoch after it is whole again. See `ResumeFeed` for a `fit` that goes on.

        Raises:
            ValueError: there is no such epoch or batch.
        """
        if epoch < 0 or not 0 <= batch < self.loader.num_batches:
            raise ValueError(
                f"Expected an epoch of at least 0 and a batch from 0 to {self.loader.num_batches - 1}. "
                f"Received: epoch={epoch}, batch={batch}"
            )
        self._epoch = epoch
        self._first = batch
        self._cursor = (epoch, batch)
        self._asked.clear()

    @property
    def cursor(self) -> tuple[int, int]:
        """Epoch and batch that follow the last batch handed out: what to `seek` to, to go on there.

        In `fit`, batches are handed out before they are trained on: there, count the steps of the optimizer, as
        `ResumeFeed` does.
        """
        return self._cursor

    @property
    def num_batches(self) -> int:
        """Batches in this epoch."""
        self._lookahead.note_length_asked()
        return len(self)

    def __len__(self) -> int:
        return self.loader.num_batches - self._first

    def __getitem__(self, index: int) -> Batch:
        index = self._checked(index)
        # Kept before the last batch is noted as asked for, which lets another thread move the epoch on.
        epoch, first, count = self._epoch, self._first, len(self)
        # Looks at batches before an epoch, which Keras takes from the main thread, don't count.
        if self._within_epoch or threading.current_thread() is not threading.main_thread():
            self._asked.add(index)
        guesses = self._lookahead.after(index, count, self.loader.num_batches) if self.feed.in_background else ()
        upcoming = ((epoch + later, i if later else first + i) for later, i in guesses)
        batch = self.feed.get((epoch, first + index), upcoming)
        self._cursor = (epoch, first + index + 1) if index + 1 < count else (epoch + 1, 0)
        return batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this epoch in order; `epoch` stays. See `stream` for a loop over epochs."""
        for index in range(len(self)):
            yield self[index]

    def stream(self, epochs: int | None = None) -> Iterator[Batch]:
        """Batches in order from the cursor on, epoch after epoch, for loops and for `fit(stream, steps_per_epoch=...)`.

        Args:
            epochs: the epoch to stop before, counted from 0, so that a sequence that goes on stops where one that was
                not interrupted does. None: never.
        """
        self.seek(*self._cursor)
        while epochs is None or self._epoch < epochs:
            yield from self
            self.seek(self._epoch + 1)

    def to_tf_data(self) -> Any:
        """This sequence as a `tf.data.Dataset`: each pass over it is one epoch, in order, from the cursor on.

        Raises:
            ImportError: TensorFlow is not installed.
        """
        import tensorflow as tf

        # What is replaced in these is told when they are fed.
        samples = [timed_load(self.loader, (0, index))[0][0] for index in range(min(2, self.loader.num_batches))]

        def spec(*arrays: NDArray[Any]) -> Any:
            shapes = [array.shape for array in arrays]
            alike = [sides[0] if len(set(sides)) == 1 else None for sides in zip(*shapes, strict=True)]
            return tf.TensorSpec([None, *alike[1:]], arrays[0].dtype)

        def one_epoch() -> Iterator[Batch]:
            yield from self.stream(self._cursor[0] + 1)

        return tf.data.Dataset.from_generator(one_epoch, output_signature=tf.nest.map_structure(spec, *samples))

    def positions(self, index: int) -> NDArray[np.int64]:
        """Rows in `annotations` of the images of a batch of this epoch, int64 (B,), as planned.

        With `on_error="replace"`, others may be fed in place of those that can't be read: the ledger says which.
        """
        return self.loader.batches(self._epoch)[self._first + self._checked(index)]

    def close(self) -> None:
        """End the workers now; the next batch asked for starts them anew."""
        self.feed.close()

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Expected a batch from 0 to {len(self) - 1}. Received: {index}")
        return index % len(self)

    def on_epoch_begin(self) -> None:
        """Called by Keras."""
        self._within_epoch = True

    def on_epoch_end(self) -> None:
        """Called by Keras; moves `epoch` on."""
        # Keras also calls this before the first epoch, after a look at one batch or none, and in the midst of an epoch
        # if there is a `steps_per_epoch`: what counts is that every batch was asked for.
        complete = len(self._asked) == len(self)
        if self._within_epoch and complete:
            self.seek(self._epoch + 1)
        elif not self._within_epoch:
            self._asked.clear()
        self._within_epoch = False

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "A sequence has workers and can't be pickled or copied. Make one from the same arguments, which feeds the "
            "same batches, or send its `loader`."
        )


class AnchorTargetSequence(DetectionSequence):
    """Batches of images with anchor targets, for a region proposal network.

    Args:
        annotations: the data set.
        anchors: the grid that the model predicts on.
        batch_size, resize, augment, shuffle, seed, drop_last, sampler, min_visibility, min_size, exif, reduce,
            on_error, max_replaced, ledger, shard, workers, use_multiprocessing, max_queue_size, timeout, executor: see
            `DetectionSequence`.
        targets: "sampled", `(x, y)` with at most 256 anchors an image, or "dense", `(x, y, sample_weight)` with all of
            them, for Keras's stock losses; see `targets.AnchorTargets`.
        matching: further arguments of `targets.AnchorTargets`, such as positive_iou or num_samples.
    """

    def __init__(
        self,
        annotations: Annotations,
        anchors: AnchorGrid,
        *,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        targets: Form = "sampled",
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        sampler: Sampler | None = None,
        min_visibility: float = 0.25,
        min_size: float = 1.0,
        exif: Exif = "auto",
        reduce: bool | None = None,
        on_error: OnError = "raise",
        max_replaced: float = 0.01,
        ledger: str | os.PathLike[str] | None = None,
        shard: tuple[int, int] = (0, 1),
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        timeout: float = 300.0,
        executor: Executor | None = None,
        **matching: Any,
    ) -> None:
        super().__init__(
            annotations,
            targets=AnchorTargets(anchors, form=targets, **matching),
            batch_size=batch_size,
            resize=resize,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            sampler=sampler,
            min_visibility=min_visibility,
            min_size=min_size,
            exif=exif,
            reduce=reduce,
            on_error=on_error,
            max_replaced=max_replaced,
            ledger=ledger,
            shard=shard,
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
            timeout=timeout,
            executor=executor,
        )
        self.anchors = anchors

    @classmethod
    def from_coco(
        cls,
        json: str | os.PathLike[str],
        image_dir: str | os.PathLike[str],
        anchors: AnchorGrid,
        **arguments: Any,
    ) -> Self:
        """A sequence over a COCO file: `AnchorTargetSequence(read_coco(json, image_dir), anchors, ...)`."""
        return cls(read_coco(json, image_dir), anchors, **arguments)

    @classmethod
    def from_voc(cls, root: str | os.PathLike[str], split: str | None, anchors: AnchorGrid, **arguments: Any) -> Self:
        """A sequence over a VOC folder: `AnchorTargetSequence(read_voc(root, split), anchors, ...)`."""
        return cls(read_voc(root, split), anchors, **arguments)


class RoiTargetSequence(DetectionSequence):
    """Batches of images with RoIs drawn from given proposals, for the second stage of Faster R-CNN.

    x has rois beside image and image_hw, and y roi_class_ids and roi_deltas; see `targets.RoiTargets`. Proposals follow
    the augmentation as boxes do.

    Args:
        annotations: the data set.
        proposals: of its images, from `read_proposals(path, annotations)`.
        batch_size, resize, augment, shuffle, seed, drop_last, sampler, min_visibility, min_size, exif, reduce,
            on_error, max_replaced, ledger, shard, workers, use_multiprocessing, max_queue_size, timeout, executor: see
            `DetectionSequence`.
        sampling: arguments of `targets.RoiTargets`, such as num_samples or num_classes.
    """

    def __init__(
        self,
        annotations: Annotations,
        proposals: Proposals,
        *,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        sampler: Sampler | None = None,
        min_visibility: float = 0.25,
        min_size: float = 1.0,
        exif: Exif = "auto",
        reduce: bool | None = None,
        on_error: OnError = "raise",
        max_replaced: float = 0.01,
        ledger: str | os.PathLike[str] | None = None,
        shard: tuple[int, int] = (0, 1),
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        timeout: float = 300.0,
        executor: Executor | None = None,
        **sampling: Any,
    ) -> None:
        super().__init__(
            annotations,
            targets=RoiTargets(**sampling),
            batch_size=batch_size,
            resize=resize,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            sampler=sampler,
            min_visibility=min_visibility,
            min_size=min_size,
            exif=exif,
            reduce=reduce,
            on_error=on_error,
            max_replaced=max_replaced,
            ledger=ledger,
            proposals=proposals,
            shard=shard,
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
            timeout=timeout,
            executor=executor,
        )

    @property
    def proposals(self) -> Proposals | None:
        return self.loader.proposals
