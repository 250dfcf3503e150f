"""ExecutorWorkers: batches made by a `concurrent.futures.Executor` of the user's, here or on other machines."""

from __future__ import annotations

import pickle
import threading
import uuid
from concurrent.futures import Executor, Future
from typing import Any

from detfeed.batches.loader import BatchLoader
from detfeed.errors import DetfeedError, WorkerError
from detfeed.feeding.jobs import Job, Key, Made, Workers, pickled_task, seconds_left, timed_load


class ExecutorWorkers(Workers):
    """The workers of an executor.

    The loader is sent to each executor process once: a process that lacks it answers None, and the job is submitted
    again with the loader attached.

    Args:
        loader: makes the batches.
        executor: where; it is not shut down.
        timeout: seconds that a batch may take from its submission.

    Raises:
        TypeError: the loader can't be pickled.
    """

    def __init__(self, loader: BatchLoader, executor: Executor, *, timeout: float) -> None:
        self.busy = 0.0
        self.notes = []
        self.timeout = timeout
        self._executor = executor
        self._pickled = pickled_task(loader)
        self._token = uuid.uuid4().hex
        self._open: dict[Job, Future[Any]] = {}
        self._lock = threading.RLock()

    def plan(self, jobs: list[Job]) -> None:
        with self._lock:
            # A job that runs already can't be cancelled; its answer is ignored.
            for job in self._open.keys() - set(jobs):
                self._open.pop(job).cancel()
            for job in jobs:
                if job not in self._open and not job.result.done():
                    self._submit(job)

    def _submit(self, job: Job, pickled: bytes | None = None) -> None:
        job.begin()
        try:
            inner = self._executor.submit(load_batch, self._token, job.key, pickled)
        except Exception as error:  # it is shut down, or broken
            job.fail(_failure(job, error))
            return
        self._open[job] = inner
        inner.add_done_callback(lambda inner: self._done(job, inner))

    def _done(self, job: Job, inner: Future[Any]) -> None:
        with self._lock:
            if self._open.get(job) is not inner:
                return  # no longer wanted, or submitted again
            del self._open[job]
            try:
                answer = inner.result()
                if answer is None:
                    self._submit(job, self._pickled)
                    return
            except BaseException as error:
                job.fail(error if isinstance(error, DetfeedError) else _failure(job, error))
                return
            made, seconds = answer
            self.busy += seconds
        job.finish(made)

    def seconds_left(self) -> float:
        with self._lock:
            return seconds_left(self._open, self.timeout)

    def expire(self) -> None:
        with self._lock:
            for job in [job for job in self._open if job.seconds_left(self.timeout) <= 0]:
                self._open.pop(job).cancel()
                note = job.note_timeout(
                    f"did not come from the executor within {self.timeout:g} s", then="It is asked for again."
                )
                if note:
                    self.notes.append(note)
                    self._submit(job, self._pickled)

    def close(self) -> None:
        with self._lock:
            jobs, self._open = self._open, {}
        for job, inner in jobs.items():
            inner.cancel()
            job.cancel()


def _failure(job: Job, error: BaseException) -> WorkerError:
    failure = WorkerError(f"The executor failed at {job.name}: {type(error).__name__}: {error}. {job.images}")
    failure.__cause__ = error
    return failure


# The rest runs in the executor's processes.

_loaders: dict[str, BatchLoader] = {}
_MAX_LOADERS = 4  # a training and a validation set, and their predecessors


def load_batch(token: str, key: Key, pickled: bytes | None) -> tuple[Made, float] | None:
    """Make a batch in an executor.

    Args:
        token: names the loader.
        key: epoch and index of the batch.
        pickled: a task as `pickled_task` makes it; its loader is kept for later calls.

    Returns:
        As `timed_load`; None if this process does not have the loader.
    """
    if pickled is not None and token not in _loaders:
        while len(_loaders) >= _MAX_LOADERS:
            del _loaders[next(iter(_loaders))]
        _loaders[token] = pickle.loads(pickled).loader
    if token not in _loaders:
        return None
    return timed_load(_loaders[token], key)
