"""LocalWorkers: batches made by threads of this process or by processes of its own, and made again after a fault."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator

from detfeed.batches.loader import BatchLoader
from detfeed.errors import WorkerError
from detfeed.feeding.jobs import MAX_DEATHS, Job, Key, Made, Workers, pickled_task, timed_load
from detfeed.processes.process import AnswerNotSent, Process, ProcessDied

# Without being asked for anything, after which workers end. A start delays the epoch after a long validation by 1.5 to
# 2 s (two cores of an AMD EPYC, with albumentations): at most a twentieth of the time then.
IDLE_SECONDS = 30.0
START_SECONDS = 120.0  # for a process to start, unless `timeout` is longer: imports from a network's disk take a minute
CLOSE_SECONDS = 0.5  # that `close` waits for what workers are doing
EXIT_SECONDS = 5.0  # that the end of the program waits for it; a batch rarely takes longer


class LocalWorkers(Workers):
    """Threads of this process, or processes with a thread each that waits for them.

    They start with the first plan, end when there was none for `IDLE_SECONDS`, and start again with the next one.

    Args:
        loader: makes the batches.
        count: number of workers.
        processes: whether they are processes.
        timeout: seconds that a batch may take, from when its worker is ready.

    Raises:
        TypeError: the loader can't be pickled.
        ValueError: this system has no processes of this kind.
    """

    def __init__(self, loader: BatchLoader, count: int, *, processes: bool, timeout: float) -> None:
        if processes and os.name != "posix":
            raise ValueError("Expected Linux or macOS for worker processes. Use threads: use_multiprocessing=False.")
        self._state = _State(loader, pickled_task(loader) if processes else None, count, timeout)
        self.notes = self._state.notes
        # The threads refer to the state and not to this object, so that they end when nobody refers to it any more.
        self._finalize = weakref.finalize(self, self._state.close)

    @property
    def busy(self) -> float:  # type: ignore[override]
        return self._state.busy

    def plan(self, jobs: list[Job]) -> None:
        self._state.plan(jobs)

    def seconds_left(self) -> float:
        return self._state.seconds_left()

    def expire(self) -> None:
        self._state.expire()

    def close(self) -> None:
        self._finalize()
        _join([thread for thread in _threads() if thread.state is self._state], CLOSE_SECONDS)


@dataclasses.dataclass(eq=False)
class _Worker:
    """A thread that makes batches, or has its process make them.

    Attributes:
        place: from 0 to the number of workers.
        process: its process, if it is to have one.
        starting: since when it waits for its process to be ready, by `time.monotonic`; None if it does not.
        job: the job that it has begun.
        dismissed: whether it is to end: it was late, could not be started, or nobody asked for anything.
    """

    place: int
    process: Process | None = None
    starting: float | None = None
    job: Job | None = None
    dismissed: bool = False

    @property
    def idle(self) -> bool:
        return self.job is None or self.job.result.done()


class _State:
    """What the threads of LocalWorkers share."""

    def __init__(self, loader: BatchLoader, pickled: bytes | None, count: int, timeout: float) -> None:
        self.loader = loader
        self.pickled = pickled
        self.kind = "thread" if pickled is None else "process"
        self.count = count
        self.timeout = timeout
        # A reentrant lock: a garbage collection may call close() while this very thread holds it. It is taken as itself
        # and not as that of the condition, which does it in Python code: an interrupt there would leave it taken.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.queue: list[Job] = []
        self.workers: dict[int, _Worker] = {}  # by place
        self.notes: list[str] = []
        self.untold: list[str] = []  # notes that wait for a batch: without one, an error tells it
        self.told: set[str] = set()
        self.asked = 0.0  # when there was a plan, by `time.monotonic`
        self.busy = 0.0
        self.closed = False
        self.pid = os.getpid()

    def plan(self, jobs: list[Job]) -> None:
        with self.lock:
            self.asked = time.monotonic()
            self.queue = [job for job in jobs if job.started is None and not job.result.done()]
            if self.closed:  # at the end of the program
                self._fail_queue(None)
            idle = sum(worker.idle for worker in self.workers.values())
            for place in range(self.count):
                if place not in self.workers and idle < len(self.queue):
                    self._start(place)
                    idle += 1
            self.changed.notify_all()

    def _start(self, place: int) -> None:
        """Start a worker, which takes this place."""
        worker = _Worker(place)
        try:
            self.workers[place] = worker
            _Thread(self, worker).start()
        except Exception as error:
            self._lose(worker, f"Could not start a worker {self.kind}", error)
        except BaseException:
            self._dismiss(worker)
            raise

    def work(self, worker: _Worker) -> None:
        """The thread of a worker: do one job after the other. Whatever ends it, its job ends too."""
        try:
            with contextlib.nullcontext() if self.kind == "process" else _one_thread_of_cv2():
                self._start_process(worker)
                while (job := self._take_job(worker)) is not None:
                    self._do(worker, job)
                    del job
                    self._start_process(worker)  # if it died
        except BaseException as error:
            self._lose(worker, f"A worker {self.kind} failed", error)
        finally:
            if worker.process is not None and not worker.process.ended:
                worker.process.kill()
                worker.process.end()

    def _start_process(self, worker: _Worker) -> None:
        """See to it that a worker has a process that is ready, if it is to have one."""
        deaths = 0
        while self.pickled is not None and worker.process is None and not self._is_over(worker):
            worker.starting = time.monotonic()
            process: Process | None = None
            try:
                process = Process(self.pickled)
                with self.lock:
                    worker.process = process
                    if self._is_over(worker):
                        process.kill()
                process.load()
            except Exception as error:
                deaths += 1
                worker.process = None
                if process is not None and not process.ended:
                    process.kill()
                    process.end()
                with self.lock:
                    if self._is_over(worker):
                        return
                    if isinstance(error, ProcessDied) and deaths < MAX_DEATHS:
                        self.notes.append(f"A worker process {error} while it started. It is started again.")
                    elif isinstance(error, ProcessDied):
                        self._lose(worker, f"Could not start a worker process: {deaths} died of it, the last", error)
                    else:
                        self._lose(worker, "Could not start a worker process", error)
            finally:
                worker.starting = None

    def _take_job(self, worker: _Worker) -> Job | None:
        """Wait for a job; None if the worker is to end."""
        with self.lock:
            while not self.queue and not self._is_over(worker):
                left = self.asked + IDLE_SECONDS - time.monotonic()
                if left <= 0:
                    self._dismiss(worker)
                else:
                    self.changed.wait(left)
            if self._is_over(worker):
                return None
            job = worker.job = self.queue[0]
            job.begin()
            del self.queue[0]
            return job

    def _do(self, worker: _Worker, job: Job) -> None:
        try:
            made, seconds, refused = self._make(worker, job.key)
        except BaseException as error:
            self._note_failure(worker, job, error)
        else:
            # The result is set outside of the lock, so that the thread that waits for it goes on at once.
            if self._has_done(worker, seconds, refused):
                job.finish(made)
                worker.job = None

    def _make(self, worker: _Worker, key: Key) -> tuple[Made, float, str]:
        """A batch, the seconds it took, and why it did not come through shared memory (empty if it did)."""
        if worker.process is None:
            return *timed_load(self.loader, key), ""
        answer = worker.process.call(*key)
        return (answer.arrays, answer.extra), answer.seconds, answer.refused

    def _has_done(self, worker: _Worker, seconds: float, refused: str) -> bool:
        """Note that a worker has made a batch; False if the batch is not wanted from it any more."""
        with self.lock:
            if self._is_over(worker):
                return False
            self.busy += seconds
            if refused:
                self.untold.append(
                    f"Could not get {refused}. Batches are copied from the worker processes through a socket, which is "
                    "slower; give the container more memory, or use smaller or fewer batches."
                )
            self._tell()
            return True

    def _tell(self) -> None:
        """Tell what was found out, of each kind once."""
        for note in self.untold:
            kind = note[:20]
            if kind not in self.told:
                self.told.add(kind)
                self.notes.append(note)
        self.untold.clear()

    def _note_failure(self, worker: _Worker, job: Job, error: BaseException) -> None:
        """Have a job whose worker has died done again; other errors are its result."""
        with self.lock:
            if self._is_over(worker):
                return
            if worker.process is not None and worker.process.ended:
                worker.process = None
            if isinstance(error, ProcessDied):
                worker.job = None
                self._repeat(job, job.note_death(str(error)))
                return
        if isinstance(error, AnswerNotSent):
            failure = WorkerError(
                f"{job.name.capitalize()} can't be sent from its worker process: {error}. {job.images}"
            )
            failure.__cause__ = error
            error = failure
        job.fail(error)
        worker.job = None

    def _repeat(self, job: Job, note: str | None) -> None:
        """Have a job done again, before all others, and tell the user; unless there is no note."""
        if note is None:
            return
        self.notes.append(note)
        job.started = None
        self.queue.insert(0, job)
        self.changed.notify_all()

    def _is_over(self, worker: _Worker) -> bool:
        return self.closed or worker.dismissed

    def _dismiss(self, worker: _Worker) -> None:
        """Let a worker end as soon as it comes back from what it does, if ever; its place is free."""
        worker.dismissed = True
        if self.workers.get(worker.place) is worker:
            del self.workers[worker.place]

    def _lose(self, worker: _Worker, what: str, error: BaseException) -> None:
        """Do without a worker that failed by itself. Its job fails with it, and without any worker all jobs do."""
        failure = WorkerError(f"{what}: {str(error) or type(error).__name__}")
        failure.__cause__ = error
        with self.lock:
            job = None if self._is_over(worker) else worker.job
            self._dismiss(worker)
            if self.workers:
                self.untold.append(f"{failure}. The batches are made by fewer workers.")
            else:
                self.untold.clear()
                self._fail_queue(failure)
        if job is not None:
            job.fail(failure)

    def _fail_queue(self, error: WorkerError | None) -> None:
        for job in self.queue:
            job.cancel() if error is None else job.fail(error)
        self.queue = []

    def seconds_left(self) -> float:
        with self.lock:
            # Not later than in a second, since a worker that is not yet at work may begin meanwhile.
            return min([1.0, *(self._seconds_left(worker) for worker in self.workers.values())])

    def _seconds_left(self, worker: _Worker) -> float:
        """Seconds until a worker is late."""
        if worker.starting is not None:
            return max(worker.starting + max(self.timeout, START_SECONDS) - time.monotonic(), 0)
        return self.timeout if worker.job is None or worker.idle else worker.job.seconds_left(self.timeout)

    def expire(self) -> None:
        with self.lock:
            for worker in [worker for worker in self.workers.values() if self._seconds_left(worker) <= 0]:
                if worker.process is not None:
                    worker.process.kill()
                if worker.job is None or worker.starting is not None:
                    error = TimeoutError(f"it was not ready within {max(self.timeout, START_SECONDS):g} s")
                    self._lose(worker, "Could not start a worker process", error)
                    continue
                self._dismiss(worker)
                note = worker.job.note_timeout(
                    f"took longer than {self.timeout:g} s",
                    then="Its worker was replaced; the batch is made again.",
                    advice="Look for a file or a target function that hangs, or give a longer timeout.",
                )
                self._repeat(worker.job, note)
                self._start(worker.place)

    def close(self) -> None:
        if os.getpid() != self.pid:
            return  # in a fork, which neither has the threads nor owns the processes
        with self.lock:
            self.closed = True
            workers = list(self.workers.values())
            for worker in workers:
                if worker.process is not None:
                    worker.process.kill()
            self._fail_queue(None)
            self.changed.notify_all()
        for worker in workers:
            if worker.job is not None:
                worker.job.cancel()


class _Thread(threading.Thread):
    """The thread of a worker. The program can end without it: a target function may hang."""

    def __init__(self, state: _State, worker: _Worker) -> None:
        super().__init__(name=f"detfeed worker {state.kind} {worker.place}", daemon=True)
        self.state = state
        self._worker = worker

    def run(self) -> None:
        self.state.work(self._worker)


def _threads() -> list[_Thread]:
    """All living threads of workers."""
    return [thread for thread in threading.enumerate() if isinstance(thread, _Thread)]


def _join(threads: Iterable[threading.Thread], seconds: float) -> None:
    """Wait for threads to end, for a limited time in all."""
    end = time.monotonic() + seconds
    for thread in threads:
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(max(end - time.monotonic(), 0))


@atexit.register
def _end_threads() -> None:
    """Before the interpreter ends, end the threads.

    It ends a thread that comes back to it afterwards by unwinding its stack. In C++ code that must not throw, as cv2's
    when it takes the interpreter's lock again, that aborts the program.
    """
    for thread in _threads():
        thread.state.close()
    _join(_threads(), EXIT_SECONDS)
    if _threads():
        _stop_instead_of_aborting()


def _stop_instead_of_aborting() -> None:
    """Let a thread that C++ would abort the program for stand still; the end of the program ends it, too."""
    with contextlib.suppress(OSError, AttributeError):  # of another C++ library
        set_terminate = ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE
        set_terminate(ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p))


_threads_of_cv2 = 0  # that it had before there was any of ours
_our_threads = 0
_cv2_lock = threading.Lock()


@contextlib.contextmanager
def _one_thread_of_cv2() -> Iterator[None]:
    """Let cv2 use one thread in each of ours, as long as there are any. (It has one number for a process.)"""
    global _our_threads, _threads_of_cv2
    import cv2

    with _cv2_lock:
        if _our_threads == 0:
            _threads_of_cv2 = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _our_threads += 1
    try:
        yield
    finally:
        with _cv2_lock:
            _our_threads -= 1
            if _our_threads == 0:
                cv2.setNumThreads(_threads_of_cv2)
