"""Slots: pieces of shared memory in which arrays travel from the process that makes them to the one that asks.

A slot is an anonymous file, so there is nothing to clean up, whoever dies how, and nothing of it is in /dev/shm, which
many containers limit to 64 MB. Its pages are reserved before anything is written: where there is no room, the writer
gets an error and not a SIGBUS.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Parts = tuple[Any, ...]  # of dicts of arrays by name, or bare arrays
Allocate = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]  # makes an array of a shape and a dtype, not cleared

ALIGNMENT = 64  # bytes; TensorFlow and JAX take only memory aligned to this without a copy
GRAIN = 1 << 20  # bytes; slots are a multiple of this, so that parcels of nearly the same size can use the same slot


class Place(NamedTuple):
    """Where an array lies in a slot."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Parcel(NamedTuple):
    """Arrays on their way.

    Attributes:
        parts: dicts or bare arrays, with a `Place` for every array that lies in the slot; other arrays as they are.
        slot: number of the slot; None if there is none.
        given_up: numbers of slots that the writer does not use any more.
    """

    parts: Parts
    slot: int | None
    given_up: list[int]


class Returned(NamedTuple):
    """Slots on their way back to their writer.

    Attributes:
        free: numbers of slots that nobody holds.
        shared: numbers of slots that were held while this process was forked. The child may still look at their
            arrays, so that they are never written to again; the child has them for itself.
    """

    free: list[int]
    shared: list[int]


@dataclasses.dataclass
class _Slot:
    number: int
    memory: memoryview
    fd: int | None  # until the reader has it


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _map(fd: int, size: int) -> memoryview:
    """Map a file as shared memory, for as long as anything refers to it; the descriptor can be closed.

    Python's own mmap keeps a descriptor open, and a thousand held parcels would exceed a process's limit on them.

    Raises:
        OSError: it can't be mapped.
    """
    address = _libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        memory = (ctypes.c_ubyte * size).from_address(address)
        unmap = weakref.finalize(memory, _libc().munmap, address, size)
    except BaseException:
        _libc().munmap(address, size)
        raise
    unmap.atexit = False
    return memoryview(memory)


def _reserve(size: int) -> tuple[int, memoryview]:
    """File descriptor and mapping of `size` bytes of anonymous shared memory, all of them reserved.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("detfeed")
    else:
        # macOS. The temporary file has no name any more.
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.truncate(fd, size)
        return fd, _map(fd, size)
    except BaseException:
        os.close(fd)
        raise


class Writer:
    """The slots of the process that sends: `allocate` the arrays of one parcel, `pack` and send it, then the next.

    Each parcel ends with `note_sent` or with `abandon`. A slot that the reader still holds is never written to; if no
    slot is free, one more is made.

    Attributes:
        refused: why there was no shared memory for the latest parcel; empty if there was.
    """

    def __init__(self) -> None:
        self.refused = ""
        self._free: list[_Slot] = []
        self._lent: dict[int, _Slot] = {}
        self._given_up: list[int] = []
        self._made = 0
        self._besides = GRAIN // 2  # bytes, the most that any parcel needed after its first array
        self._begin()

    def _begin(self) -> None:
        self._slot: _Slot | None = None
        self._first: int | None = None  # bytes of the parcel's first array
        self._used = 0  # bytes of all its arrays, whether or not they are in the slot
        self._placed: dict[int, tuple[NDArray[Any], Place]] = {}

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of the parcel, in its slot if there is room, not cleared."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self._first is None:
            self._first = size
            self._take(size + self._besides)
        start = _round_up(self._used, ALIGNMENT)
        self._used = start + size
        if self._slot is None or size == 0 or dtype.hasobject or self._used > len(self._slot.memory):
            return np.empty(shape, dtype)
        array = np.frombuffer(self._slot.memory, np.uint8, size, start).view(dtype).reshape(shape)
        self._placed[id(array)] = (array, Place(start, shape, dtype))
        return array

    def pack(self, parts: Parts) -> tuple[Parcel, int | None]:
        """The parcel; arrays that are not in its slot travel inside it.

        Returns:
            The parcel, and the slot's file descriptor if the reader does not have it yet.
        """
        placed = tuple(
            _each(part, lambda array: self._placed[id(array)][1] if id(array) in self._placed else array)
            for part in parts
        )
        slot = self._slot
        if slot is None:
            return Parcel(placed, None, self._given_up), None
        return Parcel(placed, slot.number, self._given_up), slot.fd

    def note_sent(self) -> None:
        """Note that the parcel was sent, or that there was none: the reader has its slot."""
        # Arrays that did not fit this time will fit into later slots.
        self._besides = max(self._besides, self._used - (self._first or 0))
        self._given_up = []
        slot = self._slot
        if slot is not None:
            self._lent[slot.number] = slot
            if slot.fd is not None:
                os.close(slot.fd)
                slot.fd = None
        self._begin()

    def abandon(self) -> None:
        """Forget the arrays of a parcel that could not be finished."""
        if self._slot is not None:
            self._free.append(self._slot)
        self._begin()

    def release(self, returned: Returned) -> None:
        """Take back the slots that the reader does not hold any more."""
        self._free += [self._lent.pop(number) for number in returned.free]
        for number in returned.shared:
            del self._lent[number]

    def _take(self, size: int) -> None:
        """Take the smallest free slot of at least `size` bytes, or make one."""
        fitting = [slot for slot in self._free if len(slot.memory) >= size]
        self.refused = ""
        if fitting:
            # Among equals the slot given back last: parts of it may still be in the CPU's caches.
            self._slot = min(reversed(fitting), key=lambda slot: len(slot.memory))
            self._free.remove(self._slot)
            return
        if self._free:
            # All are too small. One is given up, so that there are never more slots than parcels under way.
            smallest = min(self._free, key=lambda slot: len(slot.memory))
            self._free.remove(smallest)
            if smallest.fd is None:
                self._given_up.append(smallest.number)
            else:
                os.close(smallest.fd)
        size = _round_up(size, GRAIN)
        try:
            fd, memory = _reserve(size)
        except OSError as error:
            self.refused = f"{size >> 20} MiB of shared memory: {error.strerror}"
            return
        self._slot = _Slot(self._made, memory, fd)
        self._made += 1


class Reader:
    """The same slots in the process that receives: it gets the arrays without a copy.

    A slot goes back to its writer when the last array in it is gone.
    """

    def __init__(self) -> None:
        self._memories: dict[int, memoryview] = {}
        # Filled by the thread that drops the last array, in the midst of anything: append takes no lock.
        self._released: deque[tuple[int, int]] = deque()  # slots, and the number of forks when they were lent

    def unpack(self, parcel: Parcel, fd: int | None) -> Parts:
        """The arrays of a parcel; `fd` is the descriptor that came with it, which is not needed any more after this."""
        for number in parcel.given_up:
            del self._memories[number]
        if parcel.slot is None:
            return parcel.parts
        if fd is not None:
            self._memories[parcel.slot] = _map(fd, os.fstat(fd).st_size)
        # This one array is the base of all in the slot, so it lives as long as any of them.
        root = np.frombuffer(self._memories[parcel.slot], np.uint8)
        weakref.finalize(root, self._released.append, (parcel.slot, _forks)).atexit = False
        return tuple(
            _each(part, lambda array: _view(root, array) if isinstance(array, Place) else array)
            for part in parcel.parts
        )

    def take_released(self) -> Returned:
        """The slots whose arrays are all gone, each once."""
        returned = Returned([], [])
        while self._released:
            number, forks = self._released.popleft()
            if forks == _forks:
                returned.free.append(number)
            else:
                del self._memories[number]
                returned.shared.append(number)
        return returned

    def close(self) -> None:
        """Let go of the memory; arrays that are still there keep theirs."""
        self._memories.clear()


_forks = 0


def _note_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    # Before and after: arrays that another thread gets meanwhile may or may not be in the child.
    os.register_at_fork(before=_note_fork, after_in_parent=_note_fork)


def _each(part: Any, function: Callable[[Any], Any]) -> Any:
    """What a function makes of each array of a dict, or of a bare array."""
    return {name: function(array) for name, array in part.items()} if isinstance(part, dict) else function(part)


def _view(root: NDArray[np.uint8], place: Place) -> NDArray[Any]:
    size = int(np.prod(place.shape, dtype=np.int64)) * place.dtype.itemsize
    return root[place.start : place.start + size].view(place.dtype).reshape(place.shape)
