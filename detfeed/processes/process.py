"""Process: a fresh interpreter that runs one task again and again, and ends when its parent does.

It has nothing to do with detection: a task is any object with a `run` method that can be pickled, see `Task`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple, Protocol

from detfeed.processes.slots import Allocate, Parts, Reader, Writer

_HEADER = struct.Struct("!Q")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from detfeed.processes.process import main; "
    "main(*sys.argv[2:])"
)


class Task(Protocol):
    """What a process runs: it is sent once, pickled, and then run with the arguments of each call."""

    def run(self, allocate: Allocate, /, *arguments: Any) -> tuple[Parts, Any]:
        """Answer one call.

        Args:
            allocate: makes an array of a shape and a dtype, in shared memory where it fits; not cleared.
            arguments: those of `Process.call`.

        Returns:
            A tuple of dicts of arrays, and anything else that can be pickled. Arrays from `allocate` reach the parent
            without a copy; others are pickled.
        """
        raise NotImplementedError


class Answer(NamedTuple):
    """What a call of a process returns.

    Attributes:
        arrays: as the task returned them.
        extra: what the task returned besides.
        seconds: how long the task ran.
        refused: why there was no shared memory for the arrays; empty if there was.
    """

    arrays: Parts
    extra: Any
    seconds: float
    refused: str


class ProcessDied(Exception):
    """The process ended before it answered; the message says how."""


class ProcessTraceback(Exception):
    """Where in a process an exception was raised: the cause of that exception."""

    def __str__(self) -> str:
        return f"\n\nin a worker process:\n{self.args[0]}"


class Process:
    """A process that runs a task, seen from its parent; it answers one call at a time.

    It is a fresh interpreter and no fork, since TensorFlow's threads do not survive a fork. It does not run the main
    module again.

    Args:
        task: a `Task`, pickled.

    Raises:
        OSError: the process can't be started.
    """

    def __init__(self, task: bytes) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as failed:
            failed.callback(self._socket.close)
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _START,
                    json.dumps([str(path) for path in sys.path]),
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C interrupts the parent alone, which then ends its processes.
                process_group=0,
                env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONUNBUFFERED": "1"},
            )
            failed.pop_all()
        self._reader = Reader()
        self._unsent = task

    def call(self, *arguments: Any) -> Answer:
        """Run the task with these arguments, which are pickled, and wait for its answer.

        Raises:
            ProcessDied: the process ended first.
            Exception: raised by the task, or while it was unpickled; its cause is a `ProcessTraceback`.
        """
        try:
            if self._unsent:
                _send(self._socket, self._unsent)
                self._unsent = b""
            _send(self._socket, pickle.dumps((arguments, self._reader.take_released())))
            data, fd = _receive(self._socket)
        except (EOFError, OSError):
            raise ProcessDied(self.end()) from None
        reply = pickle.loads(data)
        if isinstance(reply, _Failure):
            raise reply.error from ProcessTraceback(reply.traceback)
        parcel, *details = reply
        return Answer(self._reader.unpack(parcel, fd), *details)

    def end(self) -> str:
        """End the process at once.

        Returns:
            How it ended, if it had ended by itself.
        """
        try:
            # Its socket closes a moment before it can be waited for.
            code = self._popen.wait(0.5)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        self._socket.close()
        if code is None:
            return "closed its connection"
        if code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        return f"ended with status {code}"

    def kill(self) -> None:
        """Kill the process, from any thread; a `call` that waits for it raises."""
        self._popen.kill()
        self._popen.wait()


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _send(connection: socket.socket, data: bytes, fd: int | None = None) -> None:
    header = _HEADER.pack(len(data))
    if fd is None:
        connection.sendall(header)
    else:
        socket.send_fds(connection, [header], [fd])
    connection.sendall(data)


def _receive(connection: socket.socket) -> tuple[bytearray, int | None]:
    """A message and the file descriptor that came with it.

    Raises:
        EOFError: the other side is gone.
    """
    header, fds, _, _ = socket.recv_fds(connection, _HEADER.size, 1)
    header += _receive_exactly(connection, _HEADER.size - len(header))
    return _receive_exactly(connection, _HEADER.unpack(header)[0]), fds[0] if fds else None


def _receive_exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if received == 0:
            raise EOFError
        view = view[received:]
    return data


# From here on: the other side, in the process.


class _Failure(NamedTuple):
    """An exception on its way to the parent, and its traceback as text."""

    error: BaseException
    traceback: str


def main(fd: str, parent: str) -> None:
    """Run the task that comes through a socket until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(fd))
    threading.Thread(target=_end_with_parent, args=(connection, int(parent)), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        _serve(connection)
    os._exit(0)  # at once: there is nothing to tidy up


def _serve(connection: socket.socket) -> None:
    task = _unpickle(_receive(connection)[0])
    writer = Writer()
    while True:
        arguments, released = pickle.loads(_receive(connection)[0])
        writer.release(released)
        reply, fd = _reply(task, writer, arguments)
        _send(connection, pickle.dumps(reply, pickle.HIGHEST_PROTOCOL), fd)
        if fd is not None:
            os.close(fd)


def _unpickle(pickled: bytearray) -> Task | _Failure:
    """The task; if it can't be unpickled, the failure that answers every call."""
    try:
        task: Task = pickle.loads(pickled)
    except BaseException as error:
        return _failure(error)
    return task


def _reply(task: Task | _Failure, writer: Writer, arguments: tuple[Any, ...]) -> tuple[Any, int | None]:
    """The reply to a call: a parcel and the rest of an `Answer`, or a failure; and a file descriptor to go with it."""
    if isinstance(task, _Failure):
        return task, None
    start = time.perf_counter()
    try:
        arrays, extra = task.run(writer.allocate, *arguments)
        parcel, fd = writer.pack(arrays)
    except BaseException as error:
        writer.abandon()
        return _failure(error), None
    return (parcel, extra, time.perf_counter() - start, writer.refused), fd


def _failure(error: BaseException) -> _Failure:
    """A failure that can be pickled: an exception that can't be is replaced by its text."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _Failure(error, text)


def _end_with_parent(connection: socket.socket, parent: int) -> None:
    # When the parent ends, the connection closes, even in the midst of a call. If a fork of the parent still holds the
    # connection open, this process has another parent all the same.
    closed = select.poll()
    closed.register(connection, 0)  # POLLHUP and POLLERR are always reported
    while os.getppid() == parent and not closed.poll(1000):
        pass
    os._exit(0)
