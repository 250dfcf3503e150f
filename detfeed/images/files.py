"""Files: the bytes of image files, on this machine or, as URLs, wherever fsspec can read."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import DetfeedError, ImageError

# The most that cv2 can address, and about the size of the largest picture that is read, at 16 bits with alpha.
MAX_BYTES = 2**31 - 1

AnyPath = str | os.PathLike[str]


def is_url(path: AnyPath) -> bool:
    """Whether a path is a URL, such as s3://bucket/image.jpg, which fsspec reads."""
    return "://" in os.fspath(path)


def open_regular(path: AnyPath) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: the file is missing or unreadable, or no regular one: a pipe would be waited for, a device has no end.
        ValueError: no file can have this path, such as one with a null character.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("a folder, pipe or device")
    return open(path, "rb")


def open_file(path: AnyPath) -> BinaryIO:
    """Open a file for reading.

    Raises:
        ImageError: it is missing, unreadable, or no regular file.
        DetfeedError: it is a URL, and the library that reads such ones is not installed.
    """
    name = os.fspath(path)
    try:
        if is_url(name):
            return _open_url(name)
        return open_regular(name)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def read_bytes(path: AnyPath) -> NDArray[np.uint8]:
    """The content of a file, uint8 (bytes,).

    Raises:
        ImageError: as `open_file`; or the file has more than `MAX_BYTES`.
    """
    name = os.fspath(path)
    with open_file(name) as file:
        try:
            size = file.seek(0, os.SEEK_END)
            if size > MAX_BYTES:
                raise ImageError(f"{name}: expected an image of at most {MAX_BYTES} bytes, got {size}")
            file.seek(0)
            return np.frombuffer(file.read(), np.uint8)
        except ImageError:
            raise
        except failures(name) as error:
            raise _unreadable(name, error) from error


def _open_url(url: str) -> BinaryIO:
    """Open a URL.

    Raises:
        DetfeedError: fsspec or its library for such URLs is not installed; that is no fault of an image.
        ImageError: the file can't be opened.
    """
    try:
        import fsspec
    except ImportError as error:
        raise DetfeedError(f"{url}: expected a path; URLs need fsspec: pip install 'detfeed[remote]'") from error
    if "::" in url:
        raise DetfeedError(f"{url}: expected one URL, got several; unpack the archive, or mount it")
    try:
        filesystem = fsspec.filesystem(url.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise DetfeedError(f"{url}: expected a URL that fsspec can read, got: {error}") from error
    try:
        return filesystem.open(url, "rb")  # type: ignore[no-any-return]
    except Exception as error:
        raise _unreadable(url, error) from error


def failures(name: str) -> tuple[type[Exception], ...]:
    """The errors of reading an open file: any for a URL, since fsspec's libraries have their own; else OSError."""
    return (Exception,) if is_url(name) else (OSError,)


def _unreadable(name: str, error: Exception) -> ImageError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError(f"{name}: expected an image file, got {reason}")
