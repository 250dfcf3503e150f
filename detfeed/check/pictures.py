"""Pictures: what is wrong with an image file, and which images look alike."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed.errors import ImageError
from detfeed.images.decoding import MAX_PIXELS, UnsupportedPixels, decode_image, used_bits
from detfeed.images.files import is_url, read_bytes
from detfeed.images.headers import Header, read_header
from detfeed.images.segments import picture_end
from detfeed.processes.process import cores
from detfeed.readers.many_files import read_files

OnProgress = Callable[[int, int], None]  # (images done, images in all)

# Images look alike if at most this many of the 64 bits of their difference hashes differ. (Different images of COCO,
# VOC and of blood cells differ in at least 10 bits; an image and a copy that is compressed, scaled or cropped by 2 %
# nearly always differ in fewer than 9.)
MAX_DISTANCE = 8
# Their thumbnails, shifted to the same brightness, must also differ by at most this many grey levels on average: the
# hashes of plain images say little.
MAX_DIFFERENCE = 8.0
_THUMBNAIL = 16  # pixels a side
_AT_ONCE = 2**20  # entries of distances or thumbnails that are held at once; all pairs would not fit into memory
_PIXELS_AT_ONCE = 2**26  # decoded by all threads together: a file of some kilobytes can decode to a gigabyte


class Inspected(NamedTuple):
    """The result of inspecting an image file.

    Attributes:
        problem: kind of the problem that prevents feeding it: "missing-image", "unreadable-image", "damaged-image",
            "unsupported-image" or "too-large"; "" if there is none.
        message: the error of reading it, or "".
        header: its header; None if that can't be read.
        bits: of a 16-bit image, the bits that its largest value takes, if these are fewer than 16; else None.
        trailing: number of bytes after the end of the image.
        digest: digest of the file's content; empty if only the header was read.
        hash: difference hash, 64 bits: for each of 8 x 8 pixels, whether its right neighbour is brighter.
        thumbnail: the image in 16 x 16 grey pixels, row by row; empty if the image was not decoded.
    """

    problem: str
    message: str
    header: Header | None
    bits: int | None = None
    trailing: int = 0
    digest: bytes = b""
    hash: int = 0
    thumbnail: bytes = b""


def inspect_image(path: str, *, fast: bool = False) -> Inspected:
    """Inspect an image file. Problems of the file are returned, not raised.

    Several threads may call it. Together they decode up to `_PIXELS_AT_ONCE` pixels at once, and a larger image alone.

    Args:
        path: the file, or its URL.
        fast: read only the header. Else the image is decoded; a JPEG at a reduced scale, which finds the same damage.

    Raises:
        DetfeedError: path is a URL, and the library that reads it is not installed.
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
            dark = header.format in ("png", "tiff") and image.max() < 128
            del image, grey
        bits = used_bits(data) if dark else None
    except ImageError as error:
        if isinstance(error.__cause__, UnsupportedPixels):
            problem = "unsupported-image"
        return Inspected(_unread(path, error) if header is None else problem, str(error), header)
    edges = np.packbits(small[:, 1:] > small[:, :-1])
    return Inspected(
        "",
        "",
        header,
        bits=bits,
        trailing=len(data) - picture_end(data, header.format),
        digest=hashlib.blake2b(data.tobytes(), digest_size=16).digest(),
        hash=int.from_bytes(edges.tobytes(), "big"),
        thumbnail=thumbnail.tobytes(),
    )


def _unread(path: str, error: ImageError) -> str:
    """The kind of problem of a file whose header can't be read."""
    reason = error.__cause__
    if isinstance(reason, PermissionError):
        return "unreadable-image"
    if isinstance(reason, FileNotFoundError) or not (is_url(path) or os.path.isfile(path)):
        return "missing-image"
    return "unreadable-image" if isinstance(reason, OSError) else "damaged-image"


class _InFlight:
    """A limited amount that threads share."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._turn = threading.Lock()  # threads queue here: a large request would else starve behind small ones
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait until `count` is free, and hold it inside the with block. More than the limit is cut to the limit."""
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


def inspect_images(
    paths: Sequence[str], *, fast: bool = False, workers: int | None = None, on_progress: OnProgress | None = None
) -> list[Inspected]:
    """Inspect image files: in threads, since decoding releases the GIL; headers alone without, which is faster.

    Args:
        paths: the files.
        fast: as in `inspect_image`.
        workers: number of threads. None: the number of cores.
        on_progress: called with the number of images done and of all images.

    Raises:
        ValueError: workers is below 1.
        DetfeedError: as `inspect_image`.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"Expected workers to be at least 1. Received: {workers}")
    inspected: list[Inspected] = []
    with contextlib.ExitStack() as stack:
        images: Iterator[Inspected]
        if fast and not any(map(is_url, paths)):
            reads = stack.enter_context(read_files(partial(inspect_image, fast=True), paths))
            images = (read() for read in reads)
        else:
            executor = stack.enter_context(ThreadPoolExecutor(workers or cores()))
            stack.callback(executor.shutdown, cancel_futures=True)  # a Ctrl-C does not wait for the remaining images
            images = executor.map(lambda path: inspect_image(path, fast=fast), paths)
        for image in images:
            inspected.append(image)
            if on_progress is not None:
                on_progress(len(inspected), len(paths))
    return inspected


def first_alike(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find for each image the first image before it that looks like it.

    All pairs are compared, in blocks of rows; with more images a block has fewer rows.

    Args:
        hashes: uint64 (P,), each an `Inspected.hash`.
        thumbnails: uint8 (P, K), each an `Inspected.thumbnail`.

    Returns:
        int64 (P,), the position of the earlier image, or -1 if there is none.
    """
    first = np.full(len(hashes), -1)
    for row, candidates in _close(hashes):
        first[row] = _first_like(thumbnails, row, candidates)
    return first


def group_alike(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Group images that look alike, each with all that look like one of its group.

    Args:
        hashes, thumbnails: as in `first_alike`.

    Returns:
        int64 (P,), numbers of the groups.
    """
    rows = np.concatenate([hashes[:, None].view(np.uint8), thumbnails], axis=1)
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)  # frames of a camera that stands are equal
    of_unique = np.ascontiguousarray(unique[:, :8]).view(np.uint64)[:, 0]
    small = unique[:, 8:]
    groups = np.arange(len(unique))
    for row, candidates in _close(of_unique):
        others = candidates[groups[candidates] != groups[row]]
        alike = np.concatenate([*_alike(small, row, others), others[:0]])
        if len(alike):
            groups[np.isin(groups, groups[alike])] = groups[row]
    return groups[inverse.reshape(-1)]


def look_like(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], others: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which images look like one of some others.

    Args:
        hashes, thumbnails: as in `first_alike`.
        others: bool (P,), which are the others.

    Returns:
        bool (P,); False for the others themselves.
    """
    found = np.zeros(len(hashes), bool)
    places = np.flatnonzero(others)
    for row in np.flatnonzero(~others).tolist():
        candidates = places[np.bitwise_count(hashes[row] ^ hashes[places]) <= MAX_DISTANCE]
        found[row] = _first_like(thumbnails, row, candidates) >= 0
    return found


def _close(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each row with a hash that is close to one before it, and those rows, in ascending order."""
    step = max(1, _AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        rows = hashes[start : start + step]
        close = np.bitwise_count(rows[:, None] ^ hashes[None, : start + len(rows)]) <= MAX_DISTANCE
        close &= np.arange(start + len(rows)) < np.arange(start, start + len(rows))[:, None]
        for row in np.flatnonzero(close.any(axis=1)).tolist():
            yield start + row, np.flatnonzero(close[row])


def _first_like(thumbnails: NDArray[np.uint8], row: int, candidates: NDArray[np.int64]) -> int:
    """The first candidate whose thumbnail looks like that of `row`, or -1. Candidates are in ascending order."""
    return next((int(alike[0]) for alike in _alike(thumbnails, row, candidates)), -1)


def _alike(thumbnails: NDArray[np.uint8], row: int, candidates: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The candidates whose thumbnails look like that of `row`, some at a time; none of them is empty."""
    step = max(1, _AT_ONCE // max(1, thumbnails.shape[1]))
    for start in range(0, len(candidates), step):
        chosen = candidates[start : start + step]
        difference = thumbnails[chosen].astype(np.float32) - thumbnails[row]
        difference -= difference.mean(axis=1, keepdims=True)
        alike = chosen[np.abs(difference).mean(axis=1) <= MAX_DIFFERENCE]
        if len(alike):
            yield alike
