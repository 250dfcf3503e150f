"""Inspection: what is wrong with an image file, and which images look alike."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed.errors import ImageError
from detfeed.images.decoding import MAX_PIXELS, decode_image
from detfeed.images.files import is_url, read_bytes
from detfeed.images.headers import Header, read_header
from detfeed.images.segments import picture_end

# Images are alike if at most this many of the 64 bits of their difference hashes differ (other images of COCO, VOC and
# of blood cells have 10 and more, the same ones compressed, scaled or cut by 2 % nearly always fewer than 9) ...
MAX_DISTANCE = 8
# ... and if their thumbnails, brought to one brightness, differ by at most this many grey levels in the mean: of plain
# pictures the bits say little.
MAX_DIFFERENCE = 8.0
_THUMBNAIL = 16  # pixels a side
_AT_ONCE = 2**20  # numbers of the table of distances and of thumbnails, which nobody could hold as a whole
_PIXELS_AT_ONCE = 2**26  # decoded by all threads together: a file of some kilobytes may hold a picture of a gigabyte


class Inspected(NamedTuple):
    """What an image file is like.

    Attributes:
        problem: kind of what keeps it from being fed: "missing-image", "unreadable-image", "damaged-image",
            "too-large"; or "".
        message: the error that it is read with, or "".
        header: None if it has none that can be read.
        trailing: bytes after the end of the picture.
        digest: of the file's content; empty if only its header was read.
        hash: difference hash of the picture, 64 bits: of each pixel of 8 x 8 whether its right neighbour is brighter.
        thumbnail: the picture in 16 x 16 grey pixels, row by row; empty if it was not decoded.
    """

    problem: str
    message: str
    header: Header | None
    trailing: int = 0
    digest: bytes = b""
    hash: int = 0
    thumbnail: bytes = b""


def inspect_image(path: str, *, fast: bool = False) -> Inspected:
    """Look at an image file; never raises for what is wrong with it.

    Threads that call it decode some pictures at once, of `_PIXELS_AT_ONCE` pixels in all, and a larger one alone.

    Args:
        path: the file, or a URL.
        fast: read its header only. Else it is decoded, a JPEG at a reduced scale, which shows damage all the same.

    Raises:
        DetfeedError: it is a URL, and the library that reads such ones is not installed.
    """
    try:
        data = None if fast else read_bytes(path)
    except ImageError as error:
        return Inspected(_unread(path, error), str(error), None)
    header = None
    problem = "damaged-image"
    try:
        header = read_header(path) if data is None else read_header(data, name=path)
        pixels = header.height * header.width
        if pixels > MAX_PIXELS:
            problem = "too-large"
            raise ImageError(f"{path}: expected at most {MAX_PIXELS} pixels, got {header.height} x {header.width}")
        if data is None:
            return Inspected("", "", header)
        with _in_flight.hold(pixels):
            image = decode_image(data, name=path, exif="ignore", at_least_hw=(8 * _THUMBNAIL, 8 * _THUMBNAIL))
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
            thumbnail = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
            del image, grey
    except ImageError as error:
        return Inspected(_unread(path, error) if header is None else problem, str(error), header)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return Inspected(
        "",
        "",
        header,
        trailing=len(data) - picture_end(data, header.format),
        digest=hashlib.blake2b(data.tobytes(), digest_size=16).digest(),
        hash=int.from_bytes(bits.tobytes(), "big"),
        thumbnail=thumbnail.tobytes(),
    )


def _unread(path: str, error: ImageError) -> str:
    """The kind of problem of a file of which not even the header was read."""
    reason = error.__cause__
    if isinstance(reason, PermissionError):
        return "unreadable-image"
    if isinstance(reason, FileNotFoundError) or not (is_url(path) or os.path.isfile(path)):
        return "missing-image"
    return "unreadable-image" if isinstance(reason, OSError) else "damaged-image"


class _InFlight:
    """What threads hold together, of which there is only so much."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._turn = threading.Lock()  # whoever wants much would wait forever behind those who want little
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait until there are so many, and have them meanwhile; who wants more than there are has all."""
        count = min(count, self._most)
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._left >= count)
            self._left -= count
        try:
            yield
        finally:
            with self._freed:
                self._left += count
                self._freed.notify_all()


_in_flight = _InFlight(_PIXELS_AT_ONCE)


def first_alike(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each picture the first one before it that looks like it, or -1.

    Compares all pairs, some rows at a time, fewer the more pictures there are.

    Args:
        hashes: uint64 (P,), as `Inspected.hash`.
        thumbnails: uint8 (P, K).

    Returns:
        int64 (P,), each less than its own place.
    """
    first = np.full(len(hashes), -1)
    step = max(1, _AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        rows = hashes[start : start + step]
        close = np.bitwise_count(rows[:, None] ^ hashes[None, : start + len(rows)]) <= MAX_DISTANCE
        close &= np.arange(start + len(rows)) < np.arange(start, start + len(rows))[:, None]
        for row in np.flatnonzero(close.any(axis=1)).tolist():
            first[start + row] = _first_like(thumbnails, start + row, np.flatnonzero(close[row]))
    return first


def _first_like(thumbnails: NDArray[np.uint8], row: int, candidates: NDArray[np.int64]) -> int:
    """The first of the candidates, rows in order, whose thumbnail is like that of `row`; or -1."""
    step = max(1, _AT_ONCE // max(1, thumbnails.shape[1]))
    for start in range(0, len(candidates), step):
        chosen = candidates[start : start + step]
        difference = thumbnails[chosen].astype(np.float32) - thumbnails[row]
        difference -= difference.mean(axis=1, keepdims=True)
        alike = chosen[np.abs(difference).mean(axis=1) <= MAX_DIFFERENCE]
        if len(alike):
            return int(alike[0])
    return -1
