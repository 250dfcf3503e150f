"""Callbacks for Keras's fit: resume an interrupted run, see whether the feed keeps up, score what a model finds."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Self

from detfeed.average_precision import average_precision
from detfeed.backend import keras
from detfeed.detections import Detect, Detections, check_whole, predict_detections
from detfeed.processes.process import cores
from detfeed.sequence import DetectionSequence


class SequenceCallback(keras.callbacks.Callback):
    """A callback that holds a sequence. Its deep copies share the sequence, whose workers can't be copied."""

    sequence: DetectionSequence

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = self.__class__.__new__(self.__class__)
        memo[id(self.sequence)] = self.sequence
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class ResumeFeed(SequenceCallback):
    """Resume a restored run with exactly the batches that its model was not trained on.

    Put it after the callback that restores the model: `fit(sequence, shuffle=False, callbacks=[
    keras.callbacks.BackupAndRestore(folder, save_freq=100, double_checkpoint=True), ResumeFeed(sequence)])`. It takes
    the place from the optimizer's own count of steps, which is saved with the weights, so that the two always agree.
    (Float16 loss scaling skips some steps and does not count them: as many batches are fed again.)

    Keras ends the resumed epoch early, since it is shorter, and warns that it ran out of data. Keras's own shuffle must
    be off: its order is not saved anywhere.

    Args:
        sequence: the sequence that fit is fed, of the same data set and arguments as before.
    """

    def __init__(self, sequence: DetectionSequence) -> None:
        super().__init__()
        self.sequence = _checked(sequence)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        steps = int(self.model.optimizer.iterations)
        epoch, batch = divmod(steps, self.sequence.loader.num_batches)
        self.sequence.seek(epoch, batch)
        self._left = len(self.sequence)
        # BackupAndRestore sets this, too, but from a note that counts from 0 again after each restoration.
        self.model._initial_epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        # Keras has counted the batches of the epoch before on_train_begin, and asks for a whole epoch. In a graph of
        # TensorFlow, a step without a batch fails, but counts as a step of the optimizer and draws random numbers.
        if batch >= self._left:
            raise StopIteration

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._left = self.sequence.loader.num_batches


class FeedMonitor(SequenceCallback):
    """Measure whether the model waits for its data, and print it after each epoch.

    A step waits from the moment its batch is asked for, or the step before it ends if that is later, until the batch is
    handed to Keras. The first step of a fit does not count, since Keras compiles the model in it.

    Args:
        sequence: the sequence that fit is fed.
        verbose: print a line after each epoch.

    Attributes:
        history: a dict for each epoch. images_per_second; waiting, the share of the time in which the model had no
            batch; busy, the share of the time in which workers made batches, in the mean over them (None without
            workers, or with an executor's); and advice, a sentence.
    """

    def __init__(self, sequence: DetectionSequence, *, verbose: bool = True) -> None:
        super().__init__()
        self.sequence = _checked(sequence)
        self.verbose = verbose
        self.history: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        # From here on batches are handed out in the order of the steps: Keras's looks at the first ones are over.
        self._handed: deque[tuple[float, float, int]] = deque()
        self.sequence.feed.on_handed = self._handed.append
        self._compiled = False
        self._line = ""

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._print()
        self._begin()

    def _begin(self) -> None:
        self._start = self._ready = time.perf_counter()
        self._busy = self.sequence.feed.busy
        self._waited = 0.0
        self._images = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        # With `steps_per_execution`, Keras calls this once for several steps.
        asked, handed, images = self._handed.popleft() if self._handed else (0.0, 0.0, 0)
        if not self._compiled:
            self._compiled = True
            self._begin()
            return
        self._waited += max(handed - max(asked, self._ready), 0.0)
        self._images += images
        self._ready = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        # Up to the last step, since a validation may have followed it.
        seconds = self._ready - self._start
        if not seconds:
            return
        feed = self.sequence.feed
        waiting = min(self._waited / seconds, 1.0)
        workers = 0 if feed.executor is not None else feed.num_workers
        busy = min((feed.busy - self._busy) / seconds / workers, 1.0) if feed.in_background and workers else None
        measured = {
            "images_per_second": self._images / seconds,
            "waiting": waiting,
            "busy": busy,
            "advice": advise(waiting, busy, workers, cores(), processes=feed.use_multiprocessing),
        }
        self.history.append(measured)
        share = "" if busy is None else f", workers {busy:.0%} busy"
        self._line = (
            f"feed: {measured['images_per_second']:.1f} images/s, waiting for data {waiting:.0%} of the time{share}. "
            f"{measured['advice']}"
        )

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._print()
        self.sequence.feed.on_handed = None

    def _print(self) -> None:
        # Not at the end of the epoch: Keras ends the line of its progress bar after that.
        if self.verbose and self._line:
            print(self._line, flush=True)
        self._line = ""


class ScoreDetections(SequenceCallback):
    """Score what a model finds in validation images, and put the figures into the logs of the epoch.

    The logs get `val_AP`, `val_AP50` and all other figures of `average_precision` but those of single classes. To use
    them, `ModelCheckpoint(..., monitor="val_AP", mode="max")` and `EarlyStopping` stand after this callback in the list
    of callbacks. The first epoch that is fit is scored, so that a mistake in `detect` shows early; then every
    `every`-th after it, and the last. An epoch between them has the figures of the last one scored, since callbacks
    expect a figure after each epoch.

    Args:
        sequence: the validation images, not augmented, each once; see `predict_detections`.
        detect: function of the model and x of a batch that returns boxes, scores and class ids; see
            `predict_detections`.
        every: epochs from one scoring to the next.
        score: function of annotations, boxes, scores and class ids that returns figures by name:
            `average_precision`, `voc_average_precision`, `partial(average_precision, engine="faster-coco-eval")`.
        verbose: show progress. None: if `fit` does.

    Attributes:
        scores: all figures of the last scoring, those of single classes too.
        detections: what was scored then, for `write_results`. None before the first scoring.

    Raises:
        ValueError: `every` below 1, or a sequence that can't be scored.
        TypeError: `sequence` is none.
    """

    def __init__(
        self,
        sequence: DetectionSequence,
        detect: Detect,
        *,
        every: int = 1,
        score: Callable[..., Mapping[str, float]] = average_precision,
        verbose: bool | None = None,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"Expected every to be at least 1. Received: {every}")
        self.sequence = _checked(sequence)
        check_whole(sequence.loader, sequence.epoch)  # before an epoch is spent
        self.detect = detect
        self.every = every
        self.score = score
        self.verbose = verbose
        self.scores: dict[str, float] = {}
        self.detections: Detections | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._next = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if epoch >= self._next or epoch + 1 == self.params.get("epochs"):
            self._next = epoch + self.every
            verbose = bool(self.params.get("verbose")) if self.verbose is None else self.verbose
            if verbose:
                print(flush=True)  # below Keras's own progress bar, whose line is not ended yet
            self.detections = predict_detections(self.model, self.sequence, self.detect, verbose=verbose)
            self.scores = dict(self.score(self.sequence.annotations, *self.detections))
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in self.scores.items() if "/" not in name})


def _checked(sequence: DetectionSequence) -> DetectionSequence:
    if not isinstance(sequence, DetectionSequence):
        raise TypeError(f"Expected sequence to be a DetectionSequence. Received: {sequence!r}")
    return sequence


def advise(waiting: float, busy: float | None, workers: int, num_cores: int, *, processes: bool) -> str:
    """One sentence on what to change.

    Args:
        waiting: share of the time in which the model had no batch.
        busy: share of the time in which workers made batches, in the mean over them; None if unknown.
        workers: number of workers; 0 with an executor.
        num_cores: CPU cores that this process may use.
        processes: whether the workers are processes.
    """
    if waiting < 0.05:
        if busy is not None and workers > 1 and busy * workers < (workers - 1) * 0.8:
            enough = max(1, round(busy * workers / 0.8 + 0.5))
            return f"The model sets the pace; {enough} {'worker' if enough == 1 else 'workers'} would do."
        return "The model sets the pace; the feed keeps up."
    if busy is None and workers == 0:
        return "The executor does not keep up: give it more workers."
    if busy is None:
        return f"The model waits while its own thread makes the batches: use workers=2 or more (of {num_cores} cores)."
    if busy < 0.7:
        if not processes:
            return "Threads stand in each other's way: use use_multiprocessing=True."
        return "Workers idle while the model waits: use fit(shuffle=False), or a larger max_queue_size."
    if workers < num_cores:
        return f"The feed does not keep up: use more workers, up to {num_cores} here."
    return "The feed does not keep up and all cores are at work: use smaller images, or an executor on other machines."
