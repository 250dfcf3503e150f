"""Feed: hands out the batches of a loader, in whatever order, and has the next ones made meanwhile."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import islice

from detfeed.batches.ledger import Ledger, Replace
from detfeed.batches.loader import Batch, BatchLoader
from detfeed.feeding.workers import ExecutorWorkers, Job, Key, LocalWorkers, Made, Workers, timed_load


class Feed:
    """Batches of a loader, made by the asking thread or ahead of it by workers.

    Whatever makes them, and in whatever order, the batches are the same bits. Workers start with the first batch asked
    for, live until `close`, and end with this object.

    Args:
        loader: makes the batches.
        workers, ...: see `FeedArguments`.

    Attributes:
        ledger: counts the images that could not be read and were replaced, as the loader's `on_error` says.
        on_handed: called after each batch with when it was asked for and when it was handed out, by
            `time.perf_counter`, and the number of its images.
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
        if workers < 0:
            raise ValueError(f"Expected workers to be at least 0. Received: {workers}")
        for name, number in (("max_queue_size", max_queue_size), ("timeout", timeout)):
            if number <= 0:
                raise ValueError(f"Expected {name} to be above 0. Received: {number}")
        self.loader = loader
        self.num_workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.timeout = timeout
        self.executor = executor
        self.ahead = max(max_queue_size, workers)
        on_error = loader.on_error
        self.ledger = Ledger(on_error if isinstance(on_error, Replace) else Replace(), loader.num_images)
        self.on_handed: Callable[[tuple[float, float, int]], None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._workers: Workers | None = None
        self._jobs: dict[Key, Job] = {}  # made ahead
        self._asked: list[Job] = []  # that somebody waits for

    @property
    def in_background(self) -> bool:
        """Whether anybody but the asking thread makes the batches."""
        return self.executor is not None or self.num_workers > (0 if self.use_multiprocessing else 1)

    @property
    def busy(self) -> float:
        """Seconds that workers have spent on batches, all together."""
        return 0.0 if self._workers is None else self._workers.busy

    def get(self, key: Key, upcoming: Iterable[Key] = ()) -> Batch:
        """A batch.

        Args:
            key: its epoch and index.
            upcoming: which will be asked for after it, most likely. A wrong guess costs time and nothing else.

        Raises:
            SampleError: a sample of it could not be made.
            WorkerError: workers died of it or hung, again and again.
            ImageError: too many images could not be read, see `ledger.Ledger`.
        """
        asked = time.perf_counter()
        batch, replaced = self._get(key, upcoming) if self.in_background else timed_load(self.loader, key)[0]
        self.ledger.note(replaced)
        if self.on_handed is not None:
            self.on_handed((asked, time.perf_counter(), _count_images(batch)))
        return batch

    def _get(self, key: Key, upcoming: Iterable[Key]) -> Made:
        if os.getpid() != self._pid:
            self._reset()  # a fork, which has none of the threads: it gets workers of its own
        with self._lock:
            if self._workers is None:
                self._workers = self._start()
            workers = self._workers
            job = self._jobs.pop(key, None) or Job(key)
            self._asked.append(job)
            # Of what was made ahead, what is not expected any more is dropped.
            self._jobs = {key: self._jobs.get(key) or Job(key) for key in islice(upcoming, self.ahead)}
            workers.plan([*self._asked, *self._jobs.values()])
        try:
            while not job.result.done():
                try:
                    job.result.exception(workers.seconds_left())
                except TimeoutError:
                    workers.expire()
            return job.result.result()
        finally:
            with self._lock:
                self._asked.remove(job)
                notes, workers.notes[:] = list(workers.notes), []
            for note in notes:
                warnings.warn(note, stacklevel=4)

    def _start(self) -> Workers:
        if self.executor is not None:
            return ExecutorWorkers(self.loader, self.executor, timeout=self.timeout)
        return LocalWorkers(self.loader, self.num_workers, processes=self.use_multiprocessing, timeout=self.timeout)

    def close(self) -> None:
        """End the workers; the next batch asked for starts new ones."""
        with self._lock:
            workers, self._workers, self._jobs = self._workers, None, {}
        if workers is not None:
            workers.close()


def _count_images(batch: Batch) -> int:
    """Images in a batch: the length of any array of x."""
    x = batch[0]
    return len(next(iter(x.values())) if isinstance(x, dict) else x)
