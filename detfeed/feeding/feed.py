"""Feed: hands out the batches of a loader in any order, and has workers make the next ones ahead."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import islice
from numbers import Integral, Real

from detfeed.batches.ledger import Ledger, Replace, Replacement
from detfeed.batches.loader import Batch, BatchLoader
from detfeed.batches.notes import Note, UnclearOrientation
from detfeed.errors import expect
from detfeed.feeding.executor import ExecutorWorkers
from detfeed.feeding.jobs import Job, Key, Made, Workers, timed_load
from detfeed.feeding.workers import LocalWorkers
from detfeed.processes.memory import Limit, tightest_limit
from detfeed.readers.notes import users_level

MEMORY_SHARE = 0.25  # of the memory that is left, for batches made ahead


class Feed:
    """Hands out the batches of a loader, which the asking thread makes, or workers ahead of it.

    The batches are the same bits whoever makes them, in whatever order (on one kind of processor, see
    docs/conventions.md). Workers start when a batch is asked for that they have not made ahead. They end with `close`,
    with this object, and after a while in which nobody asks or at once with `rest`; what they have made ahead is kept
    then, and they start again unseen.

    Args:
        loader: makes the batches.
        workers, use_multiprocessing, ...: see `FeedArguments`.

    Attributes:
        ahead: how many batches are made ahead at most; fewer than `max_queue_size` where memory is limited.
        ledger: counts the unreadable images that were replaced, if the loader's `on_error` is a `Replace`.
        on_handed: called after each batch with the times at which it was asked for and handed out, by
            `time.perf_counter`, and the number of its images.

    Raises:
        ValueError, TypeError: an argument is out of range, or of another type.
    """

    def __init__(
        self,
        loader: BatchLoader,
        *,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        timeout: float = 300.0,
        executor: Executor | None = None,
    ) -> None:
        _check(workers, max_queue_size, timeout, executor)
        self.loader = loader
        self.num_workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.timeout = timeout
        self.executor = executor
        self.ahead = max(max_queue_size, workers)
        on_error = loader.on_error
        self.ledger = Ledger(on_error if isinstance(on_error, Replace) else Replace(), loader.num_images)
        self.on_handed: Callable[[tuple[float, float, int]], None] | None = None
        self._told_orientation = False
        self._batch_bytes = 0  # of the largest batch known
        self._limit: Limit | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._workers: Workers | None = None
        self._ahead: dict[Key, Job] = {}  # jobs that nobody has asked for yet
        self._asked: dict[int, Job] = {}  # the job that a thread waits for, by the thread's number

    @property
    def in_background(self) -> bool:
        """Whether batches are made by others than the asking thread."""
        return self.executor is not None or self.num_workers > (0 if self.use_multiprocessing else 1)

    @property
    def busy(self) -> float:
        """Seconds that workers have spent on batches, all together."""
        return 0.0 if self._workers is None else self._workers.busy

    def get(self, key: Key, upcoming: Iterable[Key] = ()) -> Batch:
        """A batch.

        Args:
            key: its epoch and index.
            upcoming: the keys that will probably be asked for after it, in order. A wrong guess costs time and nothing
                else.

        Raises:
            SampleError: a sample of it could not be made.
            WorkerError: workers died of it or hung, again and again, or could not be started.
            ImageError: too many images could not be read, see `Replace`.
        """
        asked = time.perf_counter()
        if self.in_background:
            self._fit_into_memory(self.loader.image_bytes)
        batch, notes = self._get(key, upcoming) if self.in_background else timed_load(self.loader, key)[0]
        if self.in_background:
            self._fit_into_memory(_count_bytes(batch))
        if notes:
            self._note(notes)
        if self.on_handed is not None:
            self.on_handed((asked, time.perf_counter(), _count_images(batch)))
        return batch

    def _note(self, notes: list[Note]) -> None:
        """Count the images that were replaced, and warn of the first whose orientation is unclear."""
        self.ledger.note([note for note in notes if isinstance(note, Replacement)])
        unclear = next((note for note in notes if isinstance(note, UnclearOrientation)), None)
        with self._lock:
            told, self._told_orientation = self._told_orientation, self._told_orientation or unclear is not None
        if unclear is not None and not told:
            warnings.warn(f"{unclear.sentence}; further ones are not told", stacklevel=users_level())

    def _fit_into_memory(self, batch_bytes: int) -> None:
        """Make fewer batches ahead if those of this size would take more than a share of the memory there is left."""
        if batch_bytes <= self._batch_bytes:
            return
        if not self._batch_bytes:
            self._limit = tightest_limit()  # before there is anything ahead
        self._batch_bytes = batch_bytes
        if self._limit is None:
            return
        affordable = max(1, int(self._limit.left * MEMORY_SHARE) // batch_bytes)
        if affordable < self.ahead:
            limit, told, self.ahead = self._limit, self.ahead, affordable
            warnings.warn(
                f"{affordable} instead of {told} batches are made ahead: one takes {batch_bytes / 1e6:.1f} MB, and of "
                f"the {limit.total / 1e6:.0f} MB that {limit.name} allows, {limit.left / 1e6:.0f} MB were left, of "
                f"which they get {MEMORY_SHARE:.0%}. Allow more memory, or use a smaller batch_size or resize",
                stacklevel=4,
            )

    def _get(self, key: Key, upcoming: Iterable[Key]) -> Made:
        if os.getpid() != self._pid:
            self._reset()  # a fork has none of the threads: it gets workers of its own
        workers = None
        try:
            job, workers = self._ask(key, upcoming)
            while not job.result.done():
                job.result.wait(workers.seconds_left())
                if not job.result.done():
                    workers.expire()
            return job.result.get()
        finally:
            for note in self._leave(workers):
                warnings.warn(note, stacklevel=4)

    def _ask(self, key: Key, upcoming: Iterable[Key]) -> tuple[Job, Workers]:
        """Plan the job of a batch and of those expected after it."""
        asking = threading.get_ident()
        with self._lock:
            # First of all: a garbage collection, in this thread too, may call `rest`, which spares workers in demand.
            job = self._asked[asking] = self._expect(key)
            self._ahead.pop(key, None)
            if self._workers is None:
                self._workers = self._start()
            # Drop jobs made ahead that are no longer expected.
            self._ahead = {later: self._expect(later) for later in islice(upcoming, self.ahead)}
            self._workers.plan([*self._asked.values(), *self._ahead.values()])
            return job, self._workers

    def _expect(self, key: Key) -> Job:
        """The job that makes a batch ahead; a new one where there is none, or where workers could not begin with it."""
        job = self._ahead.get(key)
        return Job(self.loader, key) if job is None or job.missed else job

    def _leave(self, workers: Workers | None) -> list[str]:
        """Note that this thread does not wait any more; returns what is to be told."""
        with self._lock:
            self._asked.pop(threading.get_ident(), None)
            notes = []
            while workers is not None and workers.notes:
                notes.append(workers.notes.pop(0))
            return notes

    def _start(self) -> Workers:
        if self.executor is not None:
            return ExecutorWorkers(self.loader, self.executor, timeout=self.timeout)
        return LocalWorkers(self.loader, self.num_workers, processes=self.use_multiprocessing, timeout=self.timeout)

    def rest(self) -> None:
        """End the workers if nobody waits for a batch. What they have made ahead is kept.

        It may be called in a garbage collection: it waits for no thread that may wait for the collecting one.
        """
        if os.getpid() != self._pid or not self._lock.acquire(blocking=False):
            return
        try:
            workers = None if self._asked else self._workers
            if workers is not None:
                self._workers = None
        finally:
            self._lock.release()
        if workers is not None:
            workers.close()

    def close(self) -> None:
        """End the workers now; the next batch asked for starts new ones.

        A thread inside a target function can't be ended. It is waited for half a second at most, and ends when it comes
        back.
        """
        if os.getpid() != self._pid:
            return self._reset()
        with self._lock:
            workers, self._workers, self._ahead = self._workers, None, {}
        if workers is not None:
            workers.close()


def _check(workers: int, max_queue_size: int, timeout: float, executor: Executor | None) -> None:
    expect(Integral, "a whole number", workers=workers, max_queue_size=max_queue_size)
    expect(Real, "a number of seconds", timeout=timeout)
    expect(Executor | None, "a concurrent.futures.Executor or None", executor=executor)
    if workers < 0:
        raise ValueError(f"Expected workers to be at least 0. Received: {workers}")
    for name, number in (("max_queue_size", max_queue_size), ("timeout", timeout)):
        if not number > 0:
            raise ValueError(f"Expected {name} to be above 0. Received: {number}")


def _count_images(batch: Batch) -> int:
    """Images in a batch: the length of any array of x."""
    x = batch[0]
    return len(next(iter(x.values())) if isinstance(x, dict) else x)


def _count_bytes(batch: Batch) -> int:
    """Bytes that the arrays of a batch take."""
    arrays = [array for part in batch for array in (part.values() if isinstance(part, dict) else [part])]
    return sum(array.nbytes for array in arrays)
