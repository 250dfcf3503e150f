"""Worker: a process that makes batches. Knows no Keras; ends when its parent does, however that comes about."""

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
from typing import TYPE_CHECKING, Any

from detfeed.processes.slots import Reader, Writer

if TYPE_CHECKING:
    from detfeed.batches.ledger import Replacement
    from detfeed.feeding.workers import Made

_HEADER = struct.Struct("!Q")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from detfeed.processes.process import main; "
    "main(*sys.argv[2:])"
)


class WorkerDied(Exception):
    """The process ended before it had answered; the message says how."""


class WorkerTraceback(Exception):
    """Where in a worker process an exception came from: the cause of that exception."""

    def __str__(self) -> str:
        return f"\n\nin a worker process:\n{self.args[0]}"


class WorkerProcess:
    """A process of its own that makes batches one at a time, seen from its parent.

    It is a fresh interpreter and no fork, which TensorFlow's threads would not survive, and does not run the main
    module again.

    Args:
        pickled: a BatchLoader, or what has a `load` like it, pickled.
    """

    def __init__(self, pickled: bytes) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as failed:
            failed.callback(self._socket.close)
            self.process = subprocess.Popen(
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
                # A Ctrl-C is meant for the parent, which then ends its workers.
                process_group=0,
                env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONUNBUFFERED": "1"},
            )
            failed.pop_all()
        self._reader = Reader()
        self._send_loader = pickled

    def load(self, epoch: int, index: int) -> tuple[Made, float, str]:
        """One batch, as `BatchLoader.load` makes it.

        Returns:
            The batch, what it has in place of unreadable images, seconds that it took the worker, and why it did not
            come through shared memory (empty if it did).

        Raises:
            WorkerDied: the process ended first.
            Exception: what `BatchLoader.load` raised, with the worker's traceback as its cause.
        """
        try:
            if self._send_loader:
                _send(self._socket, self._send_loader)
                self._send_loader = b""
            _send(self._socket, pickle.dumps((epoch, index, self._reader.take_released())))
            data, fd = _receive(self._socket)
        except (EOFError, OSError):
            raise WorkerDied(self.end()) from None
        answer, *details = pickle.loads(data)
        if answer == "batch":
            parcel, replaced, seconds, refused = details
            return (self._reader.unpack(parcel, fd), replaced), seconds, refused
        error, text = details
        raise error from WorkerTraceback(text)

    def end(self) -> str:
        """End the process at once; says how it ended, if it had by itself."""
        try:
            # Its socket closes a moment before it can be waited for.
            code = self.process.wait(0.5)
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
        """End the process at once, from any thread; a `load` that waits for it raises."""
        self.process.kill()
        self.process.wait()


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


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(fd: str, parent: str) -> None:
    """The process: make batches until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(fd))
    threading.Thread(target=_end_with_parent, args=(connection, int(parent)), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        _serve(connection)
    os._exit(0)  # at once: nothing here needs to be put in order


def _serve(connection: socket.socket) -> None:
    import cv2

    cv2.setNumThreads(0)
    loader: Any = None
    failure: Any = None
    data, _ = _receive(connection)
    try:
        loader = pickle.loads(data)
    except BaseException as error:
        failure = _failure(error)
    del data
    writer = Writer()
    while True:
        epoch, index, released = pickle.loads(_receive(connection)[0])
        writer.release(released)
        start = time.perf_counter()
        message, slot_fd = failure, None
        if failure is None:
            try:
                replaced: list[Replacement] = []
                parcel, slot_fd = writer.pack(loader.load(epoch, index, writer.allocate, replaced.append))
                message = ("batch", parcel, replaced, time.perf_counter() - start, writer.refused)
            except BaseException as error:
                writer.abandon()
                message = _failure(error)
        _send(connection, pickle.dumps(message, pickle.HIGHEST_PROTOCOL), slot_fd)
        if slot_fd is not None:
            os.close(slot_fd)


def _failure(error: BaseException) -> tuple[str, BaseException, str]:
    """An exception as it is sent; one that can't be pickled goes as its text."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return "error", error, text


def _end_with_parent(connection: socket.socket, parent: int) -> None:
    # The end of the parent closes the connection, even in the midst of a batch, unless a fork of the parent still holds
    # it; then the changed parent tells.
    closed = select.poll()
    closed.register(connection, 0)  # POLLHUP and POLLERR are always told
    while os.getppid() == parent and not closed.poll(1000):
        pass
    os._exit(0)
