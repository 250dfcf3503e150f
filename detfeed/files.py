"""Files: the bytes of image files, on this machine or, as URLs, wherever fsspec can read."""

from __future__ import annotations

import os
import stat
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import ImageError

# What cv2 can address, and more than any picture takes that is not refused for its size.
MAX_BYTES = 2**31 - 1

AnyPath = str | os.PathLike[str]


def is_url(path: AnyPath) -> bool:
    """Whether a path is a URL, such as s3://bucket/image.jpg, which fsspec reads."""
    return "://" in os.fspath(path)


def open_file(path: AnyPath) -> BinaryIO:
    """Open a file for reading.

    Raises:
        ImageError: it is missing or unreadable, or no regular file: a pipe would be waited for, a device has no end.
    """
    name = os.fspath(path)
    try:
        if is_url(name):
            return _filesystem(name).open(name, "rb")
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise ImageError(f"{name}: expected an image file, got a folder or device")
        return open(name, "rb")
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
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
        except OSError as error:
            raise _unreadable(name, error) from error


def _filesystem(url: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise ImageError(f"{url}: expected a path; URLs need fsspec: pip install 'detfeed[remote]'") from error
    try:
        return fsspec.filesystem(url.partition("://")[0])
    except ImportError as error:  # of a library for this kind of URL
        raise ImageError(f"{url}: {error}") from error


def _unreadable(name: str, error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError(f"{name}: expected an image file, got {reason}")
