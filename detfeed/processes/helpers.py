"""Helpers: processes that do some of many jobs, while this process does the others.

They are for work that ends, such as reading a data set. What they fail at, this process does itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from detfeed.processes.process import Process, Task, cores

MOST_PROCESSES = 4  # with this one
MOST_AT_ONCE = 8  # jobs that a helper is asked for in one call

_T = TypeVar("_T")


def helper_count(size: int, per_process: int) -> int:
    """How many helpers earn their start, which takes a third of a second each.

    Args:
        size: of the work, in any unit.
        per_process: the size for which one more process is started.
    """
    return max(0, min(cores(), MOST_PROCESSES, size // per_process) - 1)


class Helpers(contextlib.ExitStack):
    """Processes that wait for jobs; a context, at whose end they end.

    Where no process can be started (no memory, no more processes allowed, a system other than Linux and macOS) there
    are fewer or none, and `share` gives the same.
    """

    def __init__(self, task: Task, count: int) -> None:
        """Start processes.

        Args:
            task: answers a call of some jobs with a dict of arrays for each.
            count: how many; 0 or fewer for none.
        """
        super().__init__()
        self._processes: list[Process] = []
        if count > 0 and os.name == "posix":
            with contextlib.suppress(Exception):
                pickled = pickle.dumps(task)
                for _ in range(count):
                    process = Process(pickled)
                    self._processes.append(process)
                    self.callback(process.end)
                    self.callback(process.kill)  # first

    def share(
        self, jobs: Sequence[Any], do: Callable[[int], _T], receive: Callable[[Mapping[str, Any]], _T]
    ) -> Iterator[_T]:
        """The results of all jobs in turn; to be called once.

        This process does them from the first on, the helpers from the last on. It does again what they are still at
        when it gets there, so that nobody waits for a slow process.

        Args:
            jobs: what the helpers' task is run with.
            do: does a job, by its number, in this process.
            receive: makes a result of the arrays of a helper's answer.
        """
        done: list[Mapping[str, Any] | None] = [None] * len(jobs)
        waiting = deque(range(len(jobs)))
        for process in self._processes:
            thread = threading.Thread(
                target=_help, args=(process, jobs, waiting, done), name="detfeed helper", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads allowed: go without
                break
            self.callback(thread.join)
            self.callback(process.kill)  # first
        for number in range(len(jobs)):
            with contextlib.suppress(IndexError):  # the helpers have taken all that are left
                waiting.popleft()
            arrays, done[number] = done[number], None
            yield do(number) if arrays is None else receive(arrays)


def _help(process: Process, jobs: Sequence[Any], waiting: deque[int], done: list[Mapping[str, Any] | None]) -> None:
    """The thread of a helper: let it do jobs from the last on until all are taken, or it fails."""
    with contextlib.suppress(Exception):  # IndexError: all are taken. After any other, they are done by this process.
        while True:
            # Several in a call: a call waits for the interpreter lock, which this process holds. Fewer towards the end.
            numbers = [waiting.pop() for _ in range(max(1, min(len(waiting) // 8, MOST_AT_ONCE)))]
            answer = process.call(*(jobs[number] for number in numbers))
            for number, arrays in zip(numbers, answer.arrays, strict=True):
                done[number] = arrays
