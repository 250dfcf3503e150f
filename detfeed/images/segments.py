"""Segments of a JPEG, chunks of a PNG or WebP: one walk over each kind of file, and where the picture ends.

The walks yield (kind, offset of the content, length of the content). They take no more than MAX_PARTS steps, so that no
file keeps a reader busy, and they trust no length: the content may reach beyond the end of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# A PNG of 2**28 pixels has some 100,000 chunks.
MAX_PARTS = 2**18

# Markers of JPEG: the end of the image, and the start of a scan.
EOI, SOS = 0xD9, 0xDA

ReadAt = Callable[[int, int], bytes]  # (offset, count) -> the bytes there, fewer at the end of the file
FindMarker = Callable[[int], int]  # offset -> that of the first marker from there on, -1 if there is none

# Markers without content, and a fill byte before a marker.
_ALONE = frozenset([0x01, *range(0xD0, 0xD9), 0xFF])
_SEGMENT = struct.Struct(">BBH")
_CHUNK = struct.Struct(">I4s")


class DamagedError(ValueError):
    """The parts of a file make no sense. The caller adds the name of the file."""


def bytes_of(data: NDArray[np.uint8]) -> ReadAt:
    """Read from the content of a file, uint8 (bytes,)."""
    return lambda at, count: data[at : at + count].tobytes()


def markers_of(data: NDArray[np.uint8]) -> FindMarker:
    """Find the markers of a JPEG, uint8 (bytes,), beyond a scan or whatever else is in the way."""
    marks: NDArray[np.int64] | None = None

    def find(at: int) -> int:
        nonlocal marks
        if marks is None:
            marks = at + np.flatnonzero(data[at:-1] == 0xFF)
            kinds = data[marks + 1]
            # Inside a scan FF 00 is a plain FF, and FF D0 to FF D7 are restarts. FF FF is a fill byte.
            marks = marks[(kinds >= 0xC0) & (kinds & 0xF8 != 0xD0) & (kinds != 0xFF)]
        place = int(np.searchsorted(marks, at))
        return int(marks[place]) if place < len(marks) else -1

    return find


def jpeg_segments(read: ReadAt, *, find: FindMarker | None = None) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG with their markers, up to the end of the image.

    Args:
        read: the file.
        find: how to get to a marker that does not follow the segment before it. None: such a marker is an error, and
            the caller must stop at the first scan.

    Raises:
        DamagedError: there are more than MAX_PARTS; or, without `find`, no marker where one must be.
    """
    at = 2
    for _ in range(MAX_PARTS):
        head = read(at, 4)
        fill, kind, length = _SEGMENT.unpack(head if len(head) == 4 else head.ljust(4, b"\0"))
        if fill != 0xFF or kind == 0:
            if find is None:
                raise DamagedError(f"no marker at byte {at}")
            at = find(at)
            if at < 0:
                return
        elif kind in _ALONE:
            at += 1 if kind == 0xFF else 2
        elif kind == EOI:
            yield kind, at + 2, 0
            return
        else:
            length = max(length, 2)  # with its own two bytes
            yield kind, at + 4, length - 2
            at += 2 + length
    raise DamagedError("too many segments")


def png_chunks(read: ReadAt) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG with their names, up to IEND or the end of the file; a checksum of 4 bytes follows each.

    Raises:
        DamagedError: there are more than MAX_PARTS.
    """
    at = 8
    for _ in range(MAX_PARTS):
        head = read(at, 8)
        if len(head) < 8:
            return
        length, kind = _CHUNK.unpack(head)
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length
    raise DamagedError("too many chunks")


def webp_chunks(read: ReadAt) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a WebP with their names, up to the end of the file.

    Raises:
        DamagedError: there are more than MAX_PARTS.
    """
    at = 12
    for _ in range(MAX_PARTS):
        head = read(at, 8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], at + 8, length
        at += 8 + length + length % 2
    raise DamagedError("too many chunks")


def picture_end(data: NDArray[np.uint8], format: str) -> int:
    """The number of bytes up to the end of the picture, in a file that decodes.

    Some cameras put a second picture or a film behind the first.

    Args:
        data: uint8 (bytes,).
        format: a name as in `Header.format`. Of a BMP, GIF, TIFF or PPM all bytes count.
    """
    end = len(data)
    if format == "webp":
        end = 8 + int.from_bytes(data[4:8].tobytes(), "little")
    elif format == "png":
        for _, at, length in png_chunks(bytes_of(data)):
            end = at + length + 4
    elif format == "jpeg":
        for kind, at, _ in jpeg_segments(bytes_of(data), find=markers_of(data)):
            if kind == EOI:
                end = at
    return min(end, len(data))
