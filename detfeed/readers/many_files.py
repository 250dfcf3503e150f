"""Many files: each small, read one by one, by several processes if there are many."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from detfeed.processes.helpers import Helpers, helper_count
from detfeed.processes.slots import Allocate, Parts

FILES_A_PROCESS = 5000  # for so many one more process is started: more than a second of reading for each
_AT_ONCE = 50  # files in a job; 10 ms or more

_J = TypeVar("_J")
_T = TypeVar("_T")


@contextlib.contextmanager
def read_files(read: Callable[[_J], _T], files: Sequence[_J]) -> Iterator[Iterator[Callable[[], _T]]]:
    """For each file in turn, a function without arguments that gives what `read` gives, or raises what it raises.

    A context, at whose end the processes end: an error that somebody keeps would else keep them, too.

    Args:
        read: reads a file and nothing else; is pickled, and gives what can be pickled and is not None.
        files: the argument of `read` for each file.
    """
    jobs = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    with Helpers(_Reading(read), helper_count(len(files), FILES_A_PROCESS)) as helpers:
        shares = helpers.share(jobs, lambda number: [None] * len(jobs[number]), _unpickled)
        yield (
            partial(read, file) if one is None else partial(_same, one)
            for job, found in zip(jobs, shares, strict=True)
            for file, one in zip(job, found, strict=True)
        )


@dataclasses.dataclass
class _Reading(Generic[_J, _T]):
    """The task of the processes that help to read files."""

    read: Callable[[_J], _T]

    def run(self, allocate: Allocate, *jobs: Sequence[_J]) -> tuple[Parts, None]:
        """Read the files of several jobs."""
        pickled = (pickle.dumps([self._read_or_leave(file) for file in files]) for files in jobs)
        return tuple({"pickled": np.frombuffer(one, np.uint8)} for one in pickled), None

    def _read_or_leave(self, file: _J) -> _T | None:
        """None if it fails: it is read again where the error is reported, since not all can be pickled whole."""
        try:
            return self.read(file)
        except Exception:
            return None


def _unpickled(arrays: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = pickle.loads(arrays["pickled"])
    return found


def _same(value: _T) -> _T:
    return value
