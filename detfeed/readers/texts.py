"""Texts: annotation files of lines, of fields and of numbers, with errors that have an address."""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from detfeed.errors import AnnotationError, shorten
from detfeed.readers.paths import leads_nowhere

# More than the annotations of an image take, and what of a tree of elements fits into memory.
MOST_OF_IMAGE = 2**24
# More than a list of images takes; OpenImages would make one of 100 MB.
MOST_OF_LIST = 2**28
# OpenImages has 2.3 GB of boxes, which are read row by row.
_MOST_ROWS = 2**33
_MOST_ROW = 2**20


def open_file(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> BinaryIO:
    """Open an annotation file for reading.

    Args:
        path: the file.
        noun: what it is expected to be.
        most: bytes that it may have.

    Raises:
        AnnotationError: it is missing, unreadable or too large, or no regular file: a pipe would be waited for, a
            device has no end. Its cause is the OSError, if there was one.
    """
    source = os.fspath(path)
    try:
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("a folder, pipe or device")
        if status.st_size > most:
            raise OSError(f"one of {status.st_size} bytes, more than {most}")
        return open(source, "rb")
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise _unreadable(source, noun, error) from error


def read_bytes(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> bytes:
    """The content of a file; as `open_file`."""
    with open_file(path, noun, most) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(os.fspath(path), noun, error) from error


def read_text(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> str:
    """The text of a file in UTF-8, its lines ended by "\\n"; as `open_file`, and it is an error if not in UTF-8."""
    data = read_bytes(path, noun, most)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        check_utf8(data, os.fspath(path), noun)
        raise
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> list[str]:
    """The lines of a file, blank ones as well; as `read_text`.

    Ends of lines are those of editors: not U+2028, U+0085 or form feeds, at which str.splitlines cuts names.
    """
    return read_text(path, noun, most).split("\n")


def read_lines_if_any(path: str | os.PathLike[str], noun: str) -> list[str] | None:
    """As `read_lines`; None where there is no such file, which a link that leads nowhere does not count as."""
    try:
        return read_lines(path, noun)
    except AnnotationError as error:
        if not isinstance(error.__cause__, FileNotFoundError) or leads_nowhere(os.fspath(path)):
            raise
        return None


def read_rows(path: str | os.PathLike[str], noun: str) -> Iterator[tuple[int, list[str]]]:
    """Line number, counted from 1, and fields of each row of a CSV file that is not empty; as `read_text`.

    A row ends with its line: one that goes on is of a quote that is not closed, and would swallow other rows.
    """
    source = os.fspath(path)
    taken = 0
    line = 1  # where the row begins
    # newline="" leaves ends of lines within quotes to the parser, which keeps them as they are.
    with io.TextIOWrapper(open_file(source, noun, _MOST_ROWS), encoding="utf-8-sig", newline="") as file:

        def pieces() -> Iterator[str]:
            nonlocal taken
            while piece := file.readline(_MOST_ROW):
                taken += len(piece)
                if taken >= _MOST_ROW:
                    raise csv.Error(f"a row of over {_MOST_ROW} characters")
                yield piece

        rows = csv.reader(pieces(), strict=True)
        try:
            for row in rows:
                if rows.line_num > line:
                    raise csv.Error(f"a row that ends at line {rows.line_num}")
                if row:
                    yield line, row
                taken = 0
                line += 1
        except csv.Error as error:
            unclosed = rows.line_num > line or "unexpected end" in str(error)
            hint = "; is a quote not closed?" if unclosed else ""
            raise AnnotationError(f"{source}: expected {noun}, got {error} - at line {line}{hint}") from None
        except UnicodeDecodeError:
            # It counts bytes of a piece of the file, and no lines.
            with open_file(source, noun, _MOST_ROWS) as again:
                for number, data in enumerate(again, start=1):
                    check_utf8(data, source, noun, number)
            raise
        except OSError as error:
            raise _unreadable(source, noun, error) from error


def check_utf8(data: bytes, source: str, noun: str, line: int = 1) -> None:
    """Raise an error about the first byte that is not UTF-8.

    Args:
        data: content of the file, from a line on.
        source: the file.
        noun: what it is expected to be.
        line: the line's number.

    Raises:
        AnnotationError: there is such a byte; the message names its line, and what stands there.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        around = data[max(0, error.start - 40) : error.start + 20].decode(errors="replace")
        line += data.count(b"\n", 0, error.start)
        raise AnnotationError(
            f"{source}: expected {noun} in UTF-8, got the byte 0x{data[error.start]:02x} in {around!r} - at line "
            f"{line}; save it as UTF-8"
        ) from None


def to_number(text: str, source: str, where: str) -> float:
    """The finite number that a text says.

    Raises:
        AnnotationError: it says none; the message gives source and place.
    """
    try:
        number = math.nan if "_" in text else float(text)  # Python takes 1_0 for 10
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationError(f"{source}: expected a number, got {shorten(text.strip())} - at `{where}`")
    return number


def _unreadable(source: str, noun: str, error: Exception) -> AnnotationError:
    return AnnotationError(f"{source}: expected {noun}, got {getattr(error, 'strerror', None) or error}")
