"""Process: a fresh interpreter that runs one task again and again, and ends when its parent does.

It has nothing to do with detection: a task is any object with a `run` method that can be pickled, see `Task`.
"""

from __future__ import annotations

import contextlib
import errno
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

_HEADER = struct.Struct("!QQ")  # key and bytes of a message
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
    """The process ended, or had to be ended, before its answer was here; the message says how."""


class AnswerNotSent(Exception):
    """An answer holds what can't be sent from a process, and would not come again either; the message says why."""


class ProcessTraceback(Exception):
    """Where in a process an exception was raised: the cause of that exception."""

    def __str__(self) -> str:
        return f"\n\nin a worker process:\n{self.args[0]}"


class Process:
    """A process that runs a task, seen from its parent; it answers one call at a time.

    It is a fresh interpreter and no fork, since TensorFlow's threads do not survive a fork. It does not run the main
    module again. What its task starts (subprocesses, forks) ends with it.

    Args:
        task: a `Task`, pickled.

    Raises:
        OSError, ValueError, TypeError, MemoryError: the process can't be started.
    """

    def __init__(self, task: bytes) -> None:
        _reap()
        if not sys.executable:
            # Where Python is embedded, or was started in an odd way.
            raise ValueError(f"Expected sys.executable to be the path of Python. Received: {sys.executable!r}")
        self._reader = Reader()
        self._task = task
        self._loaded = False
        self._calls = 0
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

    def load(self) -> None:
        """Wait until the process runs and has its task; the first `call` does so, too.

        Raises:
            ProcessDied: it ended first.
        """
        if not self._loaded:
            try:
                _send(self._socket, 0, self._task)
                self._receive([])
            except BaseException as error:
                raise ProcessDied(self._end_after(error)) from None
            self._loaded = True
            self._task = b""

    def call(self, *arguments: Any) -> Answer:
        """Run the task with these arguments, which are pickled, and wait for its answer.

        Raises:
            ProcessDied: the process ended first. Whatever failed on the way of the answer (no memory, no descriptor, an
                interrupt of this thread) has ended it, since what is left in the connection would be taken for the next
                answer.
            AnswerNotSent: the answer can't be pickled there or unpickled here.
            Exception: raised by the task, or while it was unpickled; its cause is a `ProcessTraceback`.
        """
        self.load()
        self._calls += 1
        fds: list[int] = []
        try:
            _send(self._socket, self._calls, pickle.dumps((arguments, self._reader.take_released())))
            reply = _unpickle_answer(self._receive(fds))
            if not isinstance(reply, _Failure):
                parcel, *details = reply
                return Answer(self._reader.unpack(parcel, fds[0] if fds else None), *details)
        except AnswerNotSent:
            self.kill()
            self.end()
            raise
        except BaseException as error:
            raise ProcessDied(self._end_after(error)) from None
        finally:
            for fd in fds:
                os.close(fd)
        raise reply.exception() from ProcessTraceback(reply.traceback)

    def _receive(self, fds: list[int]) -> bytearray:
        """The answer to the latest call."""
        key, data = _receive(self._socket, fds)
        if key != self._calls:
            raise ValueError(f"it is that of call {key} and not of call {self._calls}")
        return data

    def _end_after(self, error: BaseException) -> str:
        """End the process after a failure to reach it or to receive its answer; returns how it ended."""
        if isinstance(error, ConnectionError):
            return self.end()
        self.kill()
        self.end()
        return f"was ended because its answer could not be received ({_say(error)})"

    def end(self) -> str:
        """End the process at once; to be called by the thread that calls it.

        Returns:
            How it ended, if it had ended by itself.
        """
        # Its socket closes a moment before it can be waited for.
        code = self._wait(0.5)
        self.kill()
        if code is None and self._wait(0.5) is None:
            _abandoned.append(self._popen)
        self._socket.close()
        self._reader.close()
        if code is None:
            return "closed its connection"
        if code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        return f"ended with status {code}"

    @property
    def ended(self) -> bool:
        """Whether `end` was called, by a failed `call` among others."""
        return self._socket.fileno() < 0

    def _wait(self, seconds: float) -> int | None:
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill the process and what it has started, from any thread, and wait for nothing.

        A `call` that waits for it raises, even if the process can't die: in a frozen container, or while it waits for a
        disk, not even SIGKILL ends it.
        """
        if self.ended:
            return  # its number may be another process's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


_abandoned: list[subprocess.Popen[bytes]] = []  # killed, but not dead when they were last looked at


def _reap() -> None:
    _abandoned[:] = [popen for popen in list(_abandoned) if popen.poll() is None]


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _send(connection: socket.socket, key: int, data: bytes, fd: int | None = None) -> None:
    header = _HEADER.pack(key, len(data))
    if fd is None:
        connection.sendall(header)
    else:
        socket.send_fds(connection, [header], [fd])
    connection.sendall(data)


def _receive(connection: socket.socket, fds: list[int]) -> tuple[int, bytearray]:
    """Key and data of a message; descriptors that come with it are added to a list, also if the rest does not come.

    Raises:
        ConnectionError: the other side is gone.
        OSError: this process has too many open files for a descriptor.
    """
    header, received, flags, _ = socket.recv_fds(connection, _HEADER.size, 1)
    fds += received
    if flags & socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    header += _receive_exactly(connection, _HEADER.size - len(header))
    key, size = _HEADER.unpack(header)
    return key, _receive_exactly(connection, size)


def _receive_exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if received == 0:
            raise ConnectionResetError
        view = view[received:]
    return data


def _unpickle_answer(data: bytearray) -> Any:
    try:
        return pickle.loads(data)
    except (MemoryError, EOFError, pickle.UnpicklingError):
        raise  # not the fault of what was sent
    except Exception as error:
        raise AnswerNotSent(f"it can't be unpickled here: {_say(error)}") from error


def _say(error: BaseException) -> str:
    """Type and text of an exception, whose text may be empty or fail."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Failure(NamedTuple):
    """An exception on its way to the parent: pickled, as a text, and its traceback as text.

    Not all can be unpickled, so that this is pickled on its own.
    """

    pickled: bytes
    text: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> _Failure:
        text = "".join(traceback.format_exception(error))
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except BaseException:
            pickled = b""
        return cls(pickled, _say(error), text)

    def exception(self) -> BaseException:
        """The exception; a RuntimeError of its text where it can't be pickled or unpickled."""
        try:
            error = pickle.loads(self.pickled)
        except Exception:
            error = None
        return error if isinstance(error, BaseException) else RuntimeError(self.text)


# From here on: the other side, in the process.


def main(fd: str, parent: str) -> None:
    """Run the task that comes through a socket until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(fd))
    # A fork that the task makes would hold the connection open, and hide from the parent that this process is gone.
    os.register_at_fork(after_in_child=connection.close)
    threading.Thread(target=_end_with_parent, args=(connection, int(parent)), daemon=True).start()
    try:
        _serve(connection)
    except ConnectionError:
        _end()
    except BaseException:
        # What is left in the connection is of no use: the parent sees that this process is gone.
        traceback.print_exc()
        os._exit(1)


def _serve(connection: socket.socket) -> None:
    task = _unpickle_task(_receive(connection, [])[1])
    writer = Writer()
    _send(connection, 0, b"")
    while True:
        key, data = _receive(connection, [])
        arguments, returned = pickle.loads(data)
        writer.release(returned)
        reply, fd = _reply(task, writer, arguments)
        _send(connection, key, reply, fd)
        writer.note_sent()


def _unpickle_task(pickled: bytearray) -> Task | _Failure:
    """The task; if it can't be unpickled, the failure that answers every call."""
    try:
        task: Task = pickle.loads(pickled)
    except BaseException as error:
        return _Failure.of(error)
    return task


def _reply(task: Task | _Failure, writer: Writer, arguments: tuple[Any, ...]) -> tuple[bytes, int | None]:
    """The reply to a call, pickled: a parcel and the rest of an `Answer`, or a failure; and its file descriptor."""
    if isinstance(task, _Failure):
        return pickle.dumps(task), None
    start = time.perf_counter()
    try:
        arrays, extra = task.run(writer.allocate, *arguments)
        seconds = time.perf_counter() - start
        parcel, fd = writer.pack(arrays)
        return _pickle_answer((parcel, extra, seconds, writer.refused)), fd
    except BaseException as error:
        writer.abandon()
        return pickle.dumps(_Failure.of(error)), None


def _pickle_answer(answer: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise AnswerNotSent(f"it can't be pickled: {_say(error)}") from error


def _end_with_parent(connection: socket.socket, parent: int) -> None:
    # When the parent ends, the connection closes, even in the midst of a call. If a fork of the parent still holds the
    # connection open, this process has another parent all the same.
    closed = select.poll()
    closed.register(connection, 0)  # POLLHUP and POLLERR are always reported
    while os.getppid() == parent and not closed.poll(1000):
        pass
    _end()


def _end() -> None:
    """End this process at once, and what its task has started: there is nothing to tidy up."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
