"""Passes: which of Keras's calls belong to which epoch. The one place that depends on how Keras (3.15) makes them.

Keras asks a sequence for batches by index and does not say for what. TensorFlow's threads ask ahead of what is used, by
how much depends on timing. So what is fed must not follow from what was asked for, but from what Keras uses:

- Training moves the epoch on when all of its batches were used; with `steps_per_epoch` that takes several of Keras's
  epochs, or a part of one. The next `fit` begins the next epoch, unless Keras ended none of its own in this one.
- `evaluate` and `predict` are fed the epoch where the sequence stands, from its start, and leave it there.
- `fit(initial_epoch=n)` moves the sequence on to epoch n.

Keras keeps each sequence that it was given for as long as the program runs, but not the model. So the end of the model
tells that nobody will ask any more.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any


class Passes:
    """Follows the calls of Keras to one sequence.

    Args:
        by_threads: whether Keras asks for what it uses from threads, as it does on TensorFlow; what it asks for in the
            main thread are looks at shapes then.
        on_over: called when the model that asked last is gone, from any thread, in a garbage collection.
    """

    def __init__(self, *, by_threads: bool, on_over: Callable[[], object]) -> None:
        self._by_threads = by_threads
        self._on_over = on_over
        self._model: weakref.ref[Any] | None = None  # the one that asked last
        self.evaluating = False  # whether Keras iterates to evaluate or to predict
        self._within = False  # whether an epoch of Keras's is under way
        self._fits = False  # whether a fit has begun, and none of its epochs
        self.restart()

    def restart(self) -> None:
        """The sequence was moved to another place: nothing of the epoch there was used."""
        self._asked: set[int] = set()
        self._used = False  # whether Keras ended an epoch of its own in this one
        self._over = False  # whether the next batch belongs to another iteration of Keras

    def begin(self) -> int:
        """Keras begins an epoch of its own; returns the number that `fit` was asked to begin with."""
        frame = _find("fit", "evaluate", "predict")
        self.evaluating = frame is not None and frame.f_code.co_name != "fit"
        self._within = True
        fits, self._fits = self._fits, False
        if frame is None or not (fits or self.evaluating):
            return 0
        # Once in a fit: `f_locals` keeps what the names stand for now until it is asked for again. In each epoch, this
        # would hold the iterator of the last one, whose end would stop the next one for half a second.
        names = frame.f_locals
        self._model = weakref.ref(names["self"], lambda _: self._on_over())
        return 0 if self.evaluating else int(names.get("initial_epoch", 0))

    def end(self, count: int) -> bool:
        """Keras ends an epoch of its own, or will iterate anew; returns whether all `count` batches were used."""
        within, self._within = self._within, False
        if self.evaluating or _find("evaluate", "predict"):
            return False
        if _find("reset"):
            # Before the first epoch of a fit, and after a look at a batch that the model is built by.
            self._over = self._fits = True
            return False
        self._used = self._used or within
        return within and len(self._asked) == count

    def ask(self, index: int, count: int) -> bool:
        """A batch is asked for; returns whether it is the first of the next epoch."""
        if not self._within or not self._trains():
            return False
        if self._over and not self._used:
            self._asked.clear()
        new = (self._over and self._used) or index in self._asked or len(self._asked) == count
        self._over = False
        return new

    def note(self, index: int) -> None:
        """A batch was asked for: by Keras, if it has begun an epoch. Its threads go on between two of its epochs."""
        if (self._within or self._used) and self._trains():
            self._asked.add(index)

    def _trains(self) -> bool:
        looks = self._by_threads and threading.current_thread() is threading.main_thread()
        return not (self.evaluating or looks)


def count_replicas() -> int:
    """Among how many replicas Keras, which asks for the number of batches now, will divide the batches of a pass.

    1 for `predict`, which takes any. Only TensorFlow's `tf.distribute` divides batches; Keras makes its iterator with
    the strategy.
    """
    frame = _find("__init__")
    while frame is not None and "distribute_strategy" not in frame.f_code.co_varnames:
        frame = frame.f_back if frame.f_code.co_name == "__init__" else None
    if frame is None or _find("predict"):
        return 1
    return int(frame.f_locals["distribute_strategy"].num_replicas_in_sync)


def _find(*names: str) -> FrameType | None:
    """The innermost running function of Keras that has one of some names."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name in names and frame.f_globals.get("__name__", "").startswith("keras."):
            return frame
        frame = frame.f_back
    return None
