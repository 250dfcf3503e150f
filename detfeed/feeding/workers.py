"""LocalWorkers: batches made by threads of this process or by processes of its own, and made again after a fault."""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref

from detfeed.batches.loader import BatchLoader
from detfeed.errors import WorkerError
from detfeed.feeding.jobs import Job, Key, Made, Workers, pickled_task, seconds_left, timed_load
from detfeed.processes.process import Process, ProcessDied


class LocalWorkers(Workers):
    """Threads of this process, or processes with a thread each that waits for them.

    Args:
        loader: makes the batches.
        count: number of workers.
        processes: whether they are processes.
        timeout: seconds that a batch may take.

    Raises:
        TypeError: the loader can't be pickled.
        ValueError: this system has no processes of this kind.
    """

    def __init__(self, loader: BatchLoader, count: int, *, processes: bool, timeout: float) -> None:
        if processes and os.name != "posix":
            raise ValueError("Expected Linux or macOS for worker processes. Use threads: use_multiprocessing=False.")
        self._state = _State(loader, pickled_task(loader) if processes else None, timeout)
        if not processes:
            _one_thread_each(+1)
        self.notes = self._state.notes
        # The threads refer to the state and not to this object, so that they end when nobody refers to it any more.
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
    """Let cv2 use one thread in each of our threads, as long as there are any. (It has one number for a process.)"""
    global _thread_pools, _cv2_threads
    import cv2

    if _thread_pools == 0:
        _cv2_threads = cv2.getNumThreads()
    _thread_pools += change
    cv2.setNumThreads(1 if _thread_pools else _cv2_threads)


@dataclasses.dataclass(eq=False)
class _Worker:
    """A thread that makes batches, or has its process make them.

    Attributes:
        process: its process, if it is to have one and it could be started.
        unstarted: why it could not be started.
        job: the job that it has begun.
        dismissed: whether it was late with a job, and another worker has its place.
    """

    process: Process | None = None
    unstarted: OSError | None = None
    job: Job | None = None
    dismissed: bool = False


class _State:
    """What the threads of LocalWorkers share."""

    def __init__(self, loader: BatchLoader, pickled: bytes | None, timeout: float) -> None:
        self.loader = loader
        self.pickled = pickled
        self.timeout = timeout
        # A reentrant lock: a garbage collection may call close() while this very thread holds it.
        self.changed = threading.Condition()
        self.queue: list[Job] = []
        self.workers: dict[int, _Worker] = {}  # by place
        self.notes: list[str] = []
        self.refused = False
        self.busy = 0.0
        self.closed = False
        self.pid = os.getpid()

    def start(self, place: int) -> None:
        """Start a worker, which takes this place."""
        worker = self.workers[place] = _Worker()
        kind = "thread" if self.pickled is None else "process"
        name = f"detfeed worker {kind} {place}"
        threading.Thread(target=self._work, args=(worker,), name=name, daemon=True).start()

    def _work(self, worker: _Worker) -> None:
        """The thread of a worker: do one job after the other."""
        try:
            while (job := self._take_job(worker)) is not None:
                try:
                    made, seconds, refused = self._make(worker, job.key)
                except BaseException as error:
                    if self._has_failed(worker, job, error):
                        job.result.set_exception(error)
                else:
                    # Outside of the lock, so that the thread that waits for it goes on at once.
                    if self._has_done(worker, seconds, refused):
                        job.result.set_result(made)
                    del made  # or this thread would hold the batch until it has the next
                del job
        finally:
            if worker.process is not None:
                worker.process.end()

    def _take_job(self, worker: _Worker) -> Job | None:
        """Wait for a job; None if the worker is to end."""
        with self.changed:
            # Started before there is anything to do, since that takes a while; and anew after a death.
            self._start_process(worker)
            self.changed.wait_for(lambda: self.queue or self._is_over(worker))
            if self._is_over(worker):
                return None
            self._start_process(worker)  # again, if it could not be started before
            job = worker.job = self.queue.pop(0)
            job.begin()
            return job

    def _start_process(self, worker: _Worker) -> None:
        if self.pickled is None or worker.process is not None or self._is_over(worker):
            return
        try:
            worker.process = Process(self.pickled)
        except OSError as error:
            worker.unstarted = error

    def _is_over(self, worker: _Worker) -> bool:
        return self.closed or worker.dismissed

    def _make(self, worker: _Worker, key: Key) -> tuple[Made, float, str]:
        """A batch, the seconds it took, and why it did not come through shared memory (empty if it did)."""
        if self.pickled is None:
            return *timed_load(self.loader, key), ""
        if worker.process is None:
            raise WorkerError(f"Could not start a worker process: {worker.unstarted}") from worker.unstarted
        answer = worker.process.call(*key)
        return (answer.arrays, answer.extra), answer.seconds, answer.refused

    def _has_done(self, worker: _Worker, seconds: float, refused: str) -> bool:
        """Note that a worker has made a batch; False if the batch is not wanted from it any more."""
        with self.changed:
            if self._is_over(worker):
                return False
            worker.job = None
            self.busy += seconds
            if refused and not self.refused:
                self.refused = True
                self.notes.append(
                    f"Could not get {refused}. Batches are copied from the worker processes through a socket, which is "
                    "slower; give the container more memory, or use smaller or fewer batches."
                )
            return True

    def _has_failed(self, worker: _Worker, job: Job, error: BaseException) -> bool:
        """Note that a worker has failed at a job; False if another worker does the job."""
        with self.changed:
            if self._is_over(worker):
                return False
            worker.job = None
            if not isinstance(error, ProcessDied):
                return True
            worker.process = None
            self._repeat(job, job.note_death(str(error)))
            return False

    def _repeat(self, job: Job, note: str | None) -> None:
        """Have a job done again, before all others, and tell the user; unless there is no note."""
        if note is None:
            return
        self.notes.append(note)
        job.started = None
        self.queue.insert(0, job)
        self.changed.notify_all()

    def _begun(self) -> list[Job]:
        return [worker.job for worker in self.workers.values() if worker.job is not None]

    def seconds_left(self) -> float:
        with self.changed:
            return seconds_left(self._begun(), self.timeout)

    def expire(self) -> None:
        with self.changed:
            for place, worker in list(self.workers.items()):
                if worker.job is None or worker.job.seconds_left(self.timeout) > 0:
                    continue
                # Its thread ends as soon as it comes back from the job, if ever.
                worker.dismissed = True
                if worker.process is not None:
                    worker.process.kill()
                note = worker.job.note_timeout(
                    f"took longer than {self.timeout:g} s",
                    then="Its worker was replaced; the batch is made again.",
                    advice="Look for a file or a target function that hangs, or give a longer timeout.",
                )
                self._repeat(worker.job, note)
                self.start(place)

    def close(self) -> None:
        if os.getpid() != self.pid:
            return  # in a fork, which neither has the threads nor owns the processes
        with self.changed:
            if self.closed:
                return
            self.closed = True
            jobs = [*self.queue, *self._begun()]
            self.queue = []
            self.changed.notify_all()
            processes = [worker.process for worker in self.workers.values() if worker.process is not None]
        if self.pickled is None:
            _one_thread_each(-1)
        for process in processes:
            process.kill()
        for job in jobs:
            job.cancel()
