"""Workers: threads, processes or somebody's executor that make batches, and make them again where one fails."""

from __future__ import annotations

import abc
import dataclasses
import os
import pickle
import threading
import time
import uuid
import weakref
from collections.abc import Iterable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

from detfeed.batches.ledger import Replacement
from detfeed.batches.loader import Batch, BatchLoader
from detfeed.errors import DetfeedError, WorkerError
from detfeed.processes.process import WorkerDied, WorkerProcess

Made = tuple[Batch, list[Replacement]]  # a batch, and what it has in place of unreadable images
Key = tuple[int, int]  # epoch and index of a batch

MAX_DEATHS = 3
MAX_TIMEOUTS = 2


@dataclasses.dataclass(eq=False)
class Job:
    """A batch that somebody waits for, or will.

    Attributes:
        key: epoch and index.
        result: the batch, when it is there.
        deaths, timeouts: how often it was tried in vain.
        started: when a worker began with it, by `time.monotonic`; None while it waits for one.
    """

    key: Key
    result: Future[Made] = dataclasses.field(default_factory=Future)
    deaths: int = 0
    timeouts: int = 0
    started: float | None = None


class Workers(abc.ABC):
    """What makes batches.

    Attributes:
        busy: seconds that they spent on batches, all together.
        notes: what the user should be told; each is said once.
    """

    busy: float
    notes: list[str]

    @abc.abstractmethod
    def plan(self, jobs: list[Job]) -> None:
        """Do these jobs, the most urgent first; those of earlier plans that were not begun are dropped."""

    @abc.abstractmethod
    def seconds_left(self) -> float:
        """Until `expire` should be called, at the earliest."""

    @abc.abstractmethod
    def expire(self) -> None:
        """Give up what has taken too long: try it again, or let it fail."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the workers at once."""


class LocalWorkers(Workers):
    """Threads of this process, or processes with a thread each that waits for them.

    Args:
        loader: makes the batches.
        count: how many.
        processes: whether to use processes.
        timeout: seconds that a batch may take.

    Raises:
        TypeError: the loader can't be sent to a process.
        ValueError: there are no processes of this kind on this system.
    """

    def __init__(self, loader: BatchLoader, count: int, *, processes: bool, timeout: float) -> None:
        if processes and os.name != "posix":
            raise ValueError("Expected Linux or macOS for worker processes. Use threads: use_multiprocessing=False.")
        self._state = _State(loader, pickled_loader(loader) if processes else None, timeout)
        if not processes:
            _one_thread_each(+1)
        self.notes = self._state.notes
        # The threads hold the state and not this, so that they end when nobody has this any more.
        self._finalize = weakref.finalize(self, self._state.close)
        for place in range(count):
            self._state.start(place)

    @property
    def busy(self) -> float:  # type: ignore[override]
        return self._state.busy

    def plan(self, jobs: list[Job]) -> None:
        with self._state.changed:
            self._state.queue = [job for job in jobs if job.started is None]
            self._state.changed.notify_all()

    def seconds_left(self) -> float:
        return self._state.seconds_left()

    def expire(self) -> None:
        self._state.expire()

    def close(self) -> None:
        self._finalize()


_thread_pools = 0
_cv2_threads = 0


def _one_thread_each(change: int) -> None:
    """Let cv2 use one thread in each of ours, as long as there are any. Its number holds for the whole process."""
    global _thread_pools, _cv2_threads
    import cv2

    if _thread_pools == 0:
        _cv2_threads = cv2.getNumThreads()
    _thread_pools += change
    cv2.setNumThreads(1 if _thread_pools else _cv2_threads)


class _State:
    """What the threads of LocalWorkers share."""

    def __init__(self, loader: BatchLoader, pickled: bytes | None, timeout: float) -> None:
        self.loader = loader
        self.pickled = pickled
        self.timeout = timeout
        # A reentrant lock: a garbage collection may call close() while this very thread holds it.
        self.changed = threading.Condition()
        self.queue: list[Job] = []
        self.running: dict[int, Job] = {}  # by place
        self.threads: dict[int, threading.Thread] = {}  # by place; one that was given up is not here
        self.processes: dict[int, WorkerProcess] = {}  # by place
        self.notes: list[str] = []
        self.refused = False
        self.busy = 0.0
        self.closed = False
        self.pid = os.getpid()

    def start(self, place: int) -> None:
        """Start the thread of a place, with a process if there are to be some."""
        kind = "thread" if self.pickled is None else "process"
        thread = threading.Thread(target=self._serve, args=(place,), name=f"detfeed worker {kind} {place}", daemon=True)
        self.threads[place] = thread
        thread.start()

    def _serve(self, place: int) -> None:
        """The thread of a place: does jobs until the place is somebody else's, or all is closed."""
        me = threading.current_thread()
        process: WorkerProcess | None = None

        def over() -> bool:
            return self.closed or self.threads.get(place) is not me

        try:
            while True:
                with self.changed:
                    if over():
                        return
                    # A process is started before there is anything to do, and anew after a death.
                    process, failure = self._started(place, process)
                    self.changed.wait_for(lambda: self.queue or over())
                    if over():
                        return
                    if failure is not None:
                        process, failure = self._started(place, process)
                    job = self.queue.pop(0)
                    job.started = time.monotonic()
                    self.running[place] = job
                made: Made | None = None
                error: BaseException | None = None
                seconds, refused = 0.0, ""
                try:
                    if failure is not None:
                        raise WorkerError(f"Could not start a worker process: {failure}") from failure
                    if process is None:
                        made, seconds = timed_load(self.loader, job.key)
                    else:
                        made, seconds, refused = process.load(*job.key)
                except BaseException as raised:
                    error = raised
                with self.changed:
                    if over():
                        return  # given up; somebody else does the job
                    del self.running[place]
                    self.busy += seconds
                    if refused and not self.refused:
                        self.refused = True
                        self.notes.append(
                            f"Could not get {refused}. Batches are copied from the worker processes through a socket, "
                            "which is slower; give the container more memory, or use smaller or fewer batches."
                        )
                    if isinstance(error, WorkerDied):
                        process = None
                        self._bury(job, error)
                        continue
                # Outside of the lock: whoever waits goes on at once.
                if error is not None:
                    job.result.set_exception(error)
                else:
                    job.result.set_result(made)  # type: ignore[arg-type]
                # Or this thread would hold the batch until the next one is there.
                del job, made, error
        finally:
            if process is not None:
                process.end()

    def _started(self, place: int, process: WorkerProcess | None) -> tuple[WorkerProcess | None, OSError | None]:
        """The process of a place, started if there is to be one and is none; and why it could not be."""
        if self.pickled is not None and process is None:
            try:
                process = self.processes[place] = WorkerProcess(self.pickled)
            except OSError as error:
                return None, error
        return process, None

    def _bury(self, job: Job, death: WorkerDied) -> None:
        """Do a job again whose worker died, unless too many did."""
        epoch, index = job.key
        died = f"A worker process {death}"
        job.deaths += 1
        if job.deaths >= MAX_DEATHS:
            job.result.set_exception(
                WorkerError(
                    f"{died} while it made batch {index} of epoch {epoch}, the last of {job.deaths} that died of it. "
                    f"{_images(self.loader, job.key)} Look for a damaged file there, or for too little memory."
                )
            )
            return
        self.notes.append(
            f"{died} while it made batch {index} of epoch {epoch}. It was replaced; the batch is made again."
        )
        self._again(job)

    def _again(self, job: Job) -> None:
        job.started = None
        self.queue.insert(0, job)
        self.changed.notify_all()

    def seconds_left(self) -> float:
        with self.changed:
            return _seconds_left(self.running.values(), self.timeout)

    def expire(self) -> None:
        with self.changed:
            for place, job in list(self.running.items()):
                if _seconds_left([job], self.timeout) > 0:
                    continue
                del self.running[place]
                # The thread sees that it is not the place's any more and ends, now or whenever it comes back.
                self.threads.pop(place)
                process = self.processes.pop(place, None)
                if process is not None:
                    process.kill()
                epoch, index = job.key
                job.timeouts += 1
                if job.timeouts >= MAX_TIMEOUTS:
                    job.result.set_exception(
                        WorkerError(
                            f"Batch {index} of epoch {epoch} took longer than {self.timeout:g} s, {job.timeouts} "
                            f"times. {_images(self.loader, job.key)} Look for a file or a target function that hangs, "
                            "or give a longer timeout."
                        )
                    )
                else:
                    self.notes.append(
                        f"Batch {index} of epoch {epoch} took longer than {self.timeout:g} s. Its worker was replaced; "
                        "the batch is made again."
                    )
                    self._again(job)
                self.start(place)

    def close(self) -> None:
        if os.getpid() != self.pid:
            return  # in a fork, which neither has the threads nor owns the processes
        with self.changed:
            if self.closed:
                return
            self.closed = True
            jobs = [*self.queue, *self.running.values()]
            self.queue = []
            self.changed.notify_all()
            processes = list(self.processes.values())
        if self.pickled is None:
            _one_thread_each(-1)
        for process in processes:
            process.kill()
        for job in jobs:
            if not job.result.done():
                job.result.set_exception(CancelledError())


def _seconds_left(jobs: Iterable[Job], timeout: float) -> float:
    """Until the first of the jobs that were begun has taken too long."""
    started = [job.started for job in jobs if job.started is not None]
    return max(min(started) + timeout - time.monotonic(), 0) if started else timeout


def _images(loader: BatchLoader, key: Key) -> str:
    epoch, index = key
    paths = [loader.annotations.paths[position] for position in loader.batches(epoch)[index].tolist()]
    return f"Its images: {', '.join(paths)}."


def pickled_loader(loader: BatchLoader) -> bytes:
    """A loader as it is sent to processes; functions of the main module and of notebooks go along whole.

    Raises:
        TypeError: it can't be pickled.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(loader)
    except Exception as error:
        raise TypeError(
            f"Expected targets and augment that can be pickled, to send them to worker processes. Received some that "
            f"can't: {type(error).__name__}: {error}. Leave out what is open or running (files, locks, models), or use "
            "threads: use_multiprocessing=False."
        ) from error


class ExecutorWorkers(Workers):
    """Somebody's `concurrent.futures.Executor`, here or on other machines.

    The loader goes along once for each of the executor's processes: whoever does not have it says so, and gets the
    job again together with the loader.

    Args:
        loader: makes the batches.
        executor: where; stays open.
        timeout: seconds that a batch may take from being given to the executor.
    """

    def __init__(self, loader: BatchLoader, executor: Executor, *, timeout: float) -> None:
        self.busy = 0.0
        self.notes = []
        self.timeout = timeout
        self._loader = loader
        self._executor = executor
        self._pickled = pickled_loader(loader)
        self._token = uuid.uuid4().hex
        self._open: dict[Job, Future[Any]] = {}
        self._lock = threading.RLock()

    def plan(self, jobs: list[Job]) -> None:
        with self._lock:
            # What was begun and is not wanted any more is left to itself.
            for job in self._open.keys() - set(jobs):
                self._open.pop(job).cancel()
            for job in jobs:
                if job not in self._open and not job.result.done():
                    self._submit(job)

    def _submit(self, job: Job, pickled: bytes | None = None) -> None:
        job.started = time.monotonic()
        inner = self._open[job] = self._executor.submit(load_batch, self._token, job.key, pickled)
        inner.add_done_callback(lambda inner: self._done(job, inner))

    def _done(self, job: Job, inner: Future[Any]) -> None:
        with self._lock:
            if self._open.get(job) is not inner:
                return  # given up
            del self._open[job]
            try:
                answer = inner.result()
                if answer is None:
                    self._submit(job, self._pickled)
                    return
            except DetfeedError as error:
                job.result.set_exception(error)
                return
            except BaseException as error:
                epoch, index = job.key
                failure = WorkerError(
                    f"The executor failed at batch {index} of epoch {epoch}: {type(error).__name__}: {error}. "
                    f"{_images(self._loader, job.key)}"
                )
                failure.__cause__ = error
                job.result.set_exception(failure)
                return
            made, seconds = answer
            self.busy += seconds
        job.result.set_result(made)

    def seconds_left(self) -> float:
        with self._lock:
            return _seconds_left(self._open, self.timeout)

    def expire(self) -> None:
        with self._lock:
            for job in [job for job in self._open if _seconds_left([job], self.timeout) <= 0]:
                self._open.pop(job).cancel()
                epoch, index = job.key
                job.timeouts += 1
                if job.timeouts >= MAX_TIMEOUTS:
                    job.result.set_exception(
                        WorkerError(
                            f"Batch {index} of epoch {epoch} did not come from {self._executor!r} within "
                            f"{self.timeout:g} s, {job.timeouts} times. {_images(self._loader, job.key)}"
                        )
                    )
                else:
                    self.notes.append(
                        f"Batch {index} of epoch {epoch} did not come from the executor within {self.timeout:g} s. It "
                        "is asked for again."
                    )
                    self._submit(job, self._pickled)

    def close(self) -> None:
        with self._lock:
            jobs, self._open = self._open, {}
        for job, inner in jobs.items():
            inner.cancel()
            if not job.result.done():
                job.result.set_exception(CancelledError())


_loaders: dict[str, BatchLoader] = {}
_MAX_LOADERS = 4  # a training and a validation set, and their predecessors


def timed_load(loader: BatchLoader, key: Key) -> tuple[Made, float]:
    """A batch, what it has in place of unreadable images, and the seconds it took."""
    start = time.perf_counter()
    replaced: list[Replacement] = []
    batch = loader.load(*key, report=replaced.append)
    return (batch, replaced), time.perf_counter() - start


def load_batch(token: str, key: Key, pickled: bytes | None) -> tuple[Made, float] | None:
    """Run by an executor: a batch as `timed_load` makes it; None if this process does not know the loader yet."""
    if pickled is not None and token not in _loaders:
        import cv2

        cv2.setNumThreads(0)
        while len(_loaders) >= _MAX_LOADERS:
            del _loaders[next(iter(_loaders))]
        _loaders[token] = pickle.loads(pickled)
    if token not in _loaders:
        return None
    return timed_load(_loaders[token], key)
