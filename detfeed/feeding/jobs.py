"""Jobs: batches that workers make, what happens to a job whose worker dies or is late, and the task of a process."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import pickle
import threading
import time
from collections.abc import Iterable
from concurrent.futures import CancelledError
from typing import Any

from numpy.typing import NDArray

from detfeed.batches.loader import Batch, BatchLoader
from detfeed.batches.notes import Note
from detfeed.errors import SampleError, WorkerError
from detfeed.processes.slots import Allocate

Key = tuple[int, int]  # epoch and index of a batch
Made = tuple[Batch, list[Note]]  # a batch, and what is to be told of it

MAX_DEATHS = 3
MAX_TIMEOUTS = 2


class Result:
    """A batch or an error, which one thread waits for and others set; the first that is set counts.

    It does the work of a `concurrent.futures.Future`, whose lock both sides take, in Python code: an interrupt (Ctrl-C)
    of the waiting thread inside of it leaves the lock taken, and the worker that sets the result then waits for ever.
    """

    def __init__(self) -> None:
        self._set: list[tuple[Made | None, BaseException | None]] = []
        self._waiting: list[threading.Lock] = []  # each taken by a thread that waits until it is released

    def done(self) -> bool:
        return bool(self._set)

    def is_cancelled(self) -> bool:
        return self.done() and isinstance(self._set[0][1], CancelledError)

    def wait(self, seconds: float) -> None:
        """Wait until it is set, for a limited time."""
        turn = threading.Lock()
        turn.acquire()
        self._waiting.append(turn)
        if not self._set:
            turn.acquire(timeout=seconds)
        with contextlib.suppress(ValueError):
            self._waiting.remove(turn)

    def get(self) -> Made:
        """The batch, once it is set; raises the error, if it is one."""
        made, error = self._set[0]
        try:
            if error is not None:
                raise error
            assert made is not None
            return made
        finally:
            del error  # whose traceback refers to this frame

    def set(self, made: Made | None, error: BaseException | None = None) -> None:
        self._set.append((made, error))
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.pop().release()


@dataclasses.dataclass(eq=False)
class Job:
    """A batch that is asked for, or will be.

    Attributes:
        loader: makes the batch.
        key: epoch and index of the batch.
        result: the batch, once it is made, or an error. Two threads may set it, one of which closes the workers.
        deaths, timeouts: how often a worker died of it or was late.
        started: when a worker began with it, by `time.monotonic`; None while it waits for a worker.
    """

    loader: BatchLoader
    key: Key
    result: Result = dataclasses.field(default_factory=Result)
    deaths: int = 0
    timeouts: int = 0
    started: float | None = None

    @property
    def name(self) -> str:
        """For messages."""
        epoch, index = self.key
        return f"batch {index} of epoch {epoch}"

    @property
    def images(self) -> str:
        """A sentence that names the images of the batch."""
        epoch, index = self.key
        paths = self.loader.annotations.paths
        return f"Its images: {', '.join(paths[position] for position in self.loader.batches(epoch)[index].tolist())}."

    @property
    def missed(self) -> bool:
        """Whether it has failed in a way that says nothing of its batch: no worker began with it, or all were ended."""
        return self.result.done() and (self.started is None or self.result.is_cancelled())

    def begin(self) -> None:
        """Note that a worker begins with it now."""
        self.started = time.monotonic()

    def seconds_left(self, timeout: float) -> float:
        """Seconds until it is late; `timeout` if no worker has begun with it."""
        return timeout if self.started is None else max(self.started + timeout - time.monotonic(), 0)

    def note_death(self, how: str) -> str | None:
        """Count a worker that died of it.

        Returns:
            A note for the user if the job is to be done again; None if it has failed for good.
        """
        self.deaths += 1
        if self.deaths < MAX_DEATHS:
            return f"A worker process {how} while it made {self.name}. It was replaced; the batch is made again."
        self.fail(
            WorkerError(
                f"A worker process {how} while it made {self.name}, the last of {self.deaths} that died of it. "
                f"{self.images} Look for a damaged file there, or for too little memory."
            )
        )
        return None

    def note_timeout(self, late: str, *, then: str, advice: str = "") -> str | None:
        """Count a worker that was late with it.

        Args:
            late: what the worker did, for both messages.
            then: what is done about it, for the note.
            advice: what the user can do about it, for the error.

        Returns:
            As `note_death`.
        """
        self.timeouts += 1
        if self.timeouts < MAX_TIMEOUTS:
            return f"{self.name.capitalize()} {late}. {then}"
        self.fail(
            WorkerError(f"{self.name.capitalize()} {late}, {self.timeouts} times. {self.images} {advice}".rstrip())
        )
        return None

    def fail(self, error: BaseException) -> None:
        """Let its result be an error, if it has none yet. One that would end the program becomes a WorkerError."""
        if not isinstance(error, Exception):
            failure = WorkerError(f"{type(error).__name__}: {error} ended a worker at {self.name}. {self.images}")
            failure.__cause__ = error
            error = failure
        self.result.set(None, error)

    def finish(self, made: Made) -> None:
        """Let its result be a batch, if it has none yet."""
        self.result.set(made)

    def cancel(self) -> None:
        """Let its result be an error, if it has none yet."""
        self.fail(CancelledError())


def seconds_left(jobs: Iterable[Job], timeout: float) -> float:
    """Seconds until the first of the jobs is late; `timeout` if there are none."""
    return min((job.seconds_left(timeout) for job in jobs), default=timeout)


class Workers(abc.ABC):
    """The makers of batches.

    Attributes:
        busy: seconds that they spent on batches, all together.
        notes: warnings for the user; the feed issues them and empties the list.
    """

    busy: float
    notes: list[str]

    @abc.abstractmethod
    def plan(self, jobs: list[Job]) -> None:
        """Do these jobs, the most urgent first. Jobs of earlier plans that no worker has begun are dropped."""

    @abc.abstractmethod
    def seconds_left(self) -> float:
        """Seconds until `expire` is to be called, at the earliest."""

    @abc.abstractmethod
    def expire(self) -> None:
        """Take jobs from workers that are late with them: each is done again, or fails."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the workers at once."""


class BatchTask:
    """A loader on its way to other processes: the task of a `Process`."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def __setstate__(self, state: dict[str, Any]) -> None:
        import cv2

        # One thread: the other cores are for the other processes.
        cv2.setNumThreads(0)
        self.__dict__.update(state)

    def run(self, allocate: Allocate, epoch: int, index: int) -> Made:
        """Make a batch.

        Raises:
            SampleError: a target can't be pickled; or as `BatchLoader.load`.
        """
        notes: list[Note] = []
        batch = self.loader.load(epoch, index, allocate, notes.append)
        for part in batch:
            for name, array in part.items() if isinstance(part, dict) else ():
                if array.dtype.hasobject:
                    self._check_objects(name, array, epoch, index)
        return batch, notes

    def _check_objects(self, name: str, array: NDArray[Any], epoch: int, index: int) -> None:
        """Numbers can always be sent; among objects there may be one that can't, for which its target answers."""
        for position, row in zip(self.loader.batches(epoch)[index].tolist(), array, strict=True):
            try:
                pickle.dumps(row, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                raise SampleError(
                    f"{self.loader.annotations.paths[position]} (position {position}, epoch {epoch}, batch {index}): "
                    f"{type(error).__name__}: {error}. Expected targets that can be pickled, to send them from worker "
                    f"processes; {name!r} can't. Return numbers, or use threads: use_multiprocessing=False."
                ) from error


def pickled_task(loader: BatchLoader) -> bytes:
    """A `BatchTask` as it is sent to processes, with the code of functions of the main module and of notebooks.

    Raises:
        TypeError: the loader can't be pickled.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(BatchTask(loader))
    except Exception as error:
        raise TypeError(
            f"Expected targets and augment that can be pickled, to send them to worker processes. Received some that "
            f"can't: {type(error).__name__}: {error}. Leave out what is open or running (files, locks, models), or use "
            "threads: use_multiprocessing=False."
        ) from error


def timed_load(loader: BatchLoader, key: Key) -> tuple[Made, float]:
    """Make a batch here.

    Returns:
        The batch with its notes, and the seconds it took.
    """
    start = time.perf_counter()
    notes: list[Note] = []
    batch = loader.load(*key, report=notes.append)
    return (batch, notes), time.perf_counter() - start
