"""Sequences: the Keras face of a BatchLoader and its Feed."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.backend import keras
from detfeed.batches.loader import Batch, BatchLoader, TargetFunction
from detfeed.errors import expect
from detfeed.feeding.arguments import (
    AnchorArguments,
    AnchorSequenceArguments,
    BatchArguments,
    FeedArguments,
    RoiArguments,
    RoiSequenceArguments,
    SequenceArguments,
)
from detfeed.feeding.feed import Feed
from detfeed.feeding.jobs import timed_load
from detfeed.feeding.lookahead import Lookahead
from detfeed.feeding.passes import Passes, count_replicas
from detfeed.proposals import Proposals
from detfeed.readers.coco import CocoArguments, read_coco
from detfeed.readers.voc import VocArguments, read_voc
from detfeed.targets.anchor_targets import AnchorTargets, Form
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.padded_boxes import OF_FASTER_RCNN, PaddedBoxes
from detfeed.targets.roi_targets import RoiTargets


class DetectionSequence(keras.utils.PyDataset):
    """Batches of images with the targets that a function of yours makes of each sample.

    `sequence[index]` is `(x, y)` or `(x, y, sample_weight)`, as `BatchLoader.load` returns it. It depends on
    `(seed, epoch, index)` alone, whatever makes it and in whatever order batches are asked for.

    Each pass is an epoch: `epoch` moves on by one when `fit` has trained on all batches of it, and with each loop over
    the sequence. `evaluate` and `predict` are fed the epoch where the sequence stands and leave it there, so that
    `positions` names the images of their batches before and after. `fit(initial_epoch=n)` begins with epoch n.

    Workers are the sequence's own and not Keras's. They start with the first batch, live across epochs, and make
    batches ahead. They end with `close`, with the sequence, or with the process.

    What is fed can't be changed once a sequence is made; `schedule` says what changes in which epoch.

    Args:
        annotations: the data set.
        targets: function of a `Sample`; see `BatchLoader`.
        proposals: of the images of `annotations`, for `Sample.proposals`, as `read_proposals` reads them.
        batch_size, resize, workers, ...: see `SequenceArguments`.

    Raises:
        ValueError: see `BatchLoader`; or, on TensorFlow, a `schedule` with canvases that it would refuse.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        targets: TargetFunction,
        proposals: Proposals | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> None:
        of_feed, of_loader = _apart(arguments, FeedArguments)
        self.loader = BatchLoader(annotations, targets, proposals=proposals, **of_loader)
        if keras.backend.backend() == "tensorflow":
            self.loader.check_learnable()
        self.feed = Feed(self.loader, **of_feed)
        # Keras must not start workers on top. Those of Keras 3.15.1 lose batches on JAX and torch, too: what they had
        # ready after fit's first look at the data is fed as the start of the first epoch.
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=self.feed.ahead)
        self._lookahead = Lookahead()
        self._passes = Passes(by_threads=keras.backend.backend() == "tensorflow", on_over=self.feed.rest)
        self._looped = False  # whether a loop over this sequence was begun and left
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
        self._looped = False
        self._passes.restart()

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
        replicas = count_replicas()
        if replicas > 1:
            self.loader.check_divisible(replicas)
        return len(self)

    def __len__(self) -> int:
        return self.loader.num_batches - self._first

    def __getitem__(self, index: int) -> Batch:
        if sys._getframe(1).f_globals.get("__name__", "").startswith("grain."):
            warnings.warn(
                "grain asks for one epoch of this sequence again and again: grain.MapDataset.source(sequence) does not "
                "tell it which epoch it is in. Use sequence.to_grain()",
                stacklevel=2,
            )
        if self._passes.ask(index, len(self)):
            self.seek(self._epoch + 1)
        self._passes.note(index)
        return self._get(self._checked(index))

    def _get(self, index: int) -> Batch:
        epoch, first, count = self._epoch, self._first, len(self)
        guesses = self._lookahead.after(index, count, self.loader.num_batches) if self.feed.in_background else ()
        # An evaluation is followed by another one, of the same epoch.
        step = 0 if self._passes.evaluating else 1
        upcoming = ((epoch + step, i) if later else (epoch, first + i) for later, i in guesses)
        batch = self.feed.get((epoch, first + index), upcoming)
        self._cursor = (epoch, first + index + 1) if index + 1 < count else (epoch + 1, 0)
        return batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this epoch, in order; each loop is an epoch of its own, also after one that was left early.

        See `stream` for one loop over all epochs.
        """
        if self._looped:
            self.seek(self._epoch + 1)
        self._looped = True
        for index in range(len(self)):
            yield self._get(index)
        self.seek(self._epoch + 1)

    def stream(self, epochs: int | None = None) -> Iterator[Batch]:
        """Batches in order from the cursor on, epoch after epoch, for loops and for `fit(stream, steps_per_epoch=...)`.

        Args:
            epochs: the epoch to stop before, counted from 0, so that a sequence that goes on stops where one that was
                not interrupted does. None: never.
        """
        self.seek(*self._cursor)
        while epochs is None or self._epoch < epochs:
            for index in range(len(self)):
                yield self._get(index)
            self.seek(self._epoch + 1)

    def to_tf_data(self) -> Any:
        """This sequence as a `tf.data.Dataset`: each pass over it is one epoch, in order, from the cursor on.

        A pass that was left early is fed again, as the one by which Keras builds a model. The number of batches is
        known to TensorFlow, unless the first pass begins in mid-epoch.

        Raises:
            ImportError: TensorFlow is not installed.
            ValueError: a `schedule` with canvases that TensorFlow would refuse.
        """
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            raise ImportError(
                "to_tf_data needs TensorFlow. Install with: pip install 'detfeed[tensorflow]'", name="tensorflow"
            ) from error

        self.loader.check_learnable()
        # What is replaced in these is told when they are fed.
        samples = [timed_load(self.loader, (0, index))[0][0] for index in range(min(2, self.loader.num_batches))]

        def spec(*arrays: NDArray[Any]) -> Any:
            shapes = [array.shape for array in arrays]
            alike = [sides[0] if len(set(sides)) == 1 else None for sides in zip(*shapes, strict=True)]
            return tf.TensorSpec([None, *alike[1:]], arrays[0].dtype)

        def one_epoch() -> Iterator[Batch]:
            for index in range(len(self)):
                yield self._get(index)
            self.seek(self._epoch + 1)

        self.seek(*self._cursor)
        dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=tf.nest.map_structure(spec, *samples))
        if self._first == 0:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(self.loader.num_batches))
        return dataset

    def to_grain(self, epochs: int | None = None) -> Any:
        """The batches of epoch 0, 1, 2, ... as one `grain.IterDataset`, made by this sequence's workers.

        For `fit(sequence.to_grain(), steps_per_epoch=sequence.num_batches, epochs=..., shuffle=False)`: Keras then
        keeps one iterator for all epochs. grain's own checkpoints (`iterator.get_state()`) hold how many batches were
        handed out, of all epochs together, and go on with exactly the next one. `epoch` and `cursor` of this sequence
        stay. The dataset can be mapped and filtered, but not sent to grain's worker processes.

        Args:
            epochs: the epoch to stop before, counted from 0. None: it has no end.

        Raises:
            ImportError: grain is not installed.
            ValueError: epochs below 1.
        """
        try:
            from detfeed.feeding.grain_batches import grain_batches
        except ModuleNotFoundError as error:
            if error.name != "grain":
                raise
            raise ImportError(
                "to_grain needs grain. Install with: pip install 'detfeed[grain]'", name="grain"
            ) from error
        return grain_batches(self.feed, epochs)

    def positions(self, index: int) -> NDArray[np.int64]:
        """Rows in `annotations` of the images of a batch of this epoch, int64 (B,), as planned.

        With `on_error=Replace()`, others may be fed in place of those that can't be read; the ledger lists them.
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
        initial_epoch = self._passes.begin()
        if initial_epoch > self._epoch:
            self.seek(initial_epoch)

    def on_epoch_end(self) -> None:
        """Called by Keras."""
        if self._passes.end(len(self)):
            self.seek(self._epoch + 1)

    def __setattr__(self, name: str, value: Any) -> None:
        # A subclass may have attributes of its own, of any name but this one.
        fed = {"loader"} if type(self).__module__ != __name__ else _FED
        if name in fed and "feed" in vars(self):
            raise AttributeError(
                f"Expected a sequence that feeds what it was made for. Received: a new {name}. Make another one, or "
                "let schedule={epoch: {...}} change arguments from an epoch on"
            )
        super().__setattr__(name, value)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("on_epoch_begin", "on_epoch_end"):
            if name in vars(cls):
                setattr(cls, name, _with_own(name, vars(cls)[name]))

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
        targets: "sampled", `(x, y)` with at most 256 anchors an image, or "dense", `(x, y, sample_weight)` with all of
            them, for Keras's stock losses; see `targets.AnchorTargets`.
        boxes: whether x also has the true boxes, float32 (B, M, 4), xyxy pixels, their class_ids int32 (B, M) and
            whether each is an ignored one, ignore bool (B, M): joint training of a Faster R-CNN takes them. True: M is
            the most boxes that any image of the data set has. A number: M, for a Mosaic, which joins images.
        batch_size, resize, workers, positive_iou, ...: see `SequenceArguments` and `AnchorTargets`.
    """

    def __init__(
        self,
        annotations: Annotations,
        anchors: AnchorGrid,
        *,
        targets: Form = "sampled",
        boxes: bool | int = False,
        **arguments: Unpack[AnchorSequenceArguments],
    ) -> None:
        matching, rest = _apart(arguments, AnchorArguments)
        padded = _padded_boxes(annotations, boxes)
        super().__init__(annotations, targets=AnchorTargets(anchors, form=targets, boxes=padded, **matching), **rest)
        self.anchors = anchors

    @classmethod
    def from_coco(
        cls,
        json: str | os.PathLike[str],
        image_dir: str | os.PathLike[str],
        anchors: AnchorGrid,
        *,
        targets: Form = "sampled",
        boxes: bool | int = False,
        **arguments: Unpack[_FromCocoArguments],
    ) -> Self:
        """A sequence over a COCO file; keywords of `read_coco` go to it, and `exif` to both.

        `AnchorTargetSequence(read_coco(json, image_dir), anchors, ...)`.
        """
        reading, rest = _apart(arguments, CocoArguments)
        if "exif" in reading:
            rest["exif"] = reading["exif"]
        return cls(read_coco(json, image_dir, **reading), anchors, targets=targets, boxes=boxes, **rest)

    @classmethod
    def from_voc(
        cls,
        root: str | os.PathLike[str],
        split: str | None,
        anchors: AnchorGrid,
        *,
        targets: Form = "sampled",
        boxes: bool | int = False,
        **arguments: Unpack[_FromVocArguments],
    ) -> Self:
        """A sequence over a VOC folder; keywords of `read_voc` go to it.

        `AnchorTargetSequence(read_voc(root, split), anchors, ...)`.
        """
        reading, rest = _apart(arguments, VocArguments)
        return cls(read_voc(root, split, **reading), anchors, targets=targets, boxes=boxes, **rest)


class RoiTargetSequence(DetectionSequence):
    """Batches of images with RoIs drawn from given proposals, for the second stage of Faster R-CNN.

    x has rois beside image and image_hw, and y roi_class_ids and roi_deltas; see `RoiTargets`. Proposals follow the
    augmentation as boxes do.

    Args:
        annotations: the data set.
        proposals: of its images, from `read_proposals(path, annotations)`.
        batch_size, resize, workers, num_samples, ...: see `SequenceArguments` and `RoiTargets`.
    """

    def __init__(
        self, annotations: Annotations, proposals: Proposals, **arguments: Unpack[RoiSequenceArguments]
    ) -> None:
        sampling, rest = _apart(arguments, RoiArguments)
        super().__init__(annotations, targets=RoiTargets(**sampling), proposals=proposals, **rest)

    @property
    def proposals(self) -> Proposals | None:
        return self.loader.proposals


_FED = frozenset({"loader", "targets", *BatchArguments.__annotations__})


class _FromCocoArguments(AnchorSequenceArguments, CocoArguments):
    pass


class _FromVocArguments(AnchorSequenceArguments, VocArguments):
    pass


def _with_own(name: str, override: Callable[[Any], None]) -> Callable[[Any], None]:
    """A subclass's method together with that of `DetectionSequence`, which most tutorials leave out in theirs."""

    @functools.wraps(override)
    def both(self: DetectionSequence) -> None:
        getattr(DetectionSequence, name)(self)
        override(self)

    return both


def _padded_boxes(annotations: Annotations, boxes: bool | int) -> PaddedBoxes | None:
    """What x gets of the true boxes, by the argument `boxes` of an AnchorTargetSequence."""
    if boxes is False:
        return None
    if boxes is True:
        return PaddedBoxes.for_annotations(annotations, names=OF_FASTER_RCNN)
    expect(Integral, "True, False or a number of boxes", boxes=boxes)
    return PaddedBoxes(boxes, names=OF_FASTER_RCNN)


def _apart(arguments: Mapping[str, Any], form: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords that a TypedDict names, and the rest, which whoever gets them checks."""
    named = form.__annotations__.keys()
    return (
        {name: value for name, value in arguments.items() if name in named},
        {name: value for name, value in arguments.items() if name not in named},
    )
