"""Texts: annotation files of lines, fields and numbers, with errors that have an address."""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

from detfeed.errors import AnnotationError, shorten
from detfeed.images.files import open_regular
from detfeed.readers.paths import leads_nowhere

# Bytes of one image's annotations: more than any need, and few enough that their tree of elements fits into memory.
MOST_OF_IMAGE = 2**24
# Bytes of a list of images; a list of OpenImages' would have 100 MB.
MOST_OF_LIST = 2**28
# Bytes of a CSV file, which is read row by row; OpenImages' boxes have 2.3 GB.
_MOST_ROWS = 2**33
# Characters of one row.
_MOST_ROW = 2**20
# What tools write, in lower case, where they know nothing.
_UNKNOWN = ("", "unspecified", "none", "null")

_T = TypeVar("_T")


def open_file(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> BinaryIO:
    """Open an annotation file for reading.

    Args:
        path: the file.
        noun: what it is expected to be.
        most: bytes that it may have.

    Raises:
        AnnotationError: it is missing, unreadable, too large, or no regular file. Its cause is the OSError or
            ValueError of `open_regular`, if there was one.
    """
    source = os.fspath(path)
    try:
        file = open_regular(source)
    except (OSError, ValueError) as error:
        raise _unreadable(source, noun, error) from error
    size = os.fstat(file.fileno()).st_size
    if size > most:
        file.close()
        raise AnnotationError(f"{source}: expected {noun}, got one of {size} bytes, more than {most}")
    return file


def read_bytes(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> bytes:
    """The content of a file, which is opened by `open_file`."""
    with open_file(path, noun, most) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(os.fspath(path), noun, error) from error


def read_text(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> str:
    """The text of a file, its lines ended by "\\n"; as `read_bytes`, and a byte that is not UTF-8 is an error."""
    data = read_bytes(path, noun, most)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        check_utf8(data, os.fspath(path), noun)
        raise
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | os.PathLike[str], noun: str, most: int = MOST_OF_IMAGE) -> list[str]:
    """The lines of a file, blank ones too; as `read_text`.

    A line ends where editors end it. `str.splitlines` also cuts at U+2028, U+0085 and form feeds, which names may have.
    """
    return read_text(path, noun, most).split("\n")


def read_lines_if_any(path: str | os.PathLike[str], noun: str) -> list[str] | None:
    """As `read_lines`; None if there is no such file. A link that leads nowhere is an error."""
    try:
        return read_lines(path, noun)
    except AnnotationError as error:
        if not isinstance(error.__cause__, FileNotFoundError) or leads_nowhere(os.fspath(path)):
            raise
        return None


def read_rows(path: str | os.PathLike[str], noun: str) -> Iterator[tuple[int, list[str]]]:
    """Line number, counted from 1, and fields of each row of a CSV file that is not empty; as `read_text`.

    Commas separate fields, or semicolons or tabs where the first line has more of them. A quoted field may not span
    lines; an unclosed quote would otherwise swallow the rows after it.
    """
    source = os.fspath(path)
    taken = 0
    line = 1  # where the row begins
    delimiter = _delimiter(source, noun)
    # newline="" keeps the ends of lines as they are, for the parser.
    with io.TextIOWrapper(open_file(source, noun, _MOST_ROWS), encoding="utf-8-sig", newline="") as file:

        def pieces() -> Iterator[str]:
            nonlocal taken
            while piece := file.readline(_MOST_ROW):
                taken += len(piece)
                if taken >= _MOST_ROW:
                    raise csv.Error(f"a row of over {_MOST_ROW} characters")
                yield piece

        rows = csv.reader(pieces(), delimiter=delimiter, strict=True)
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
            # The error counts bytes from the start of a piece of the file, and gives no line.
            with open_file(source, noun, _MOST_ROWS) as again:
                for number, data in enumerate(again, start=1):
                    check_utf8(data, source, noun, number)
            raise
        except OSError as error:
            raise _unreadable(source, noun, error) from error


def _delimiter(source: str, noun: str) -> str:
    """What separates the fields of a CSV file's first line."""
    with open_file(source, noun, _MOST_ROWS) as file:
        try:
            start = file.readline(_MOST_ROW)
        except OSError as error:
            raise _unreadable(source, noun, error) from error
    return max(",;\t", key=lambda one: start.count(one.encode()))


def parse_lines(lines: Iterable[str], source: str, parse: Callable[[int, list[str]], _T]) -> list[_T]:
    """Parse each line that is not blank.

    Args:
        lines: of a file, from its first on.
        source: the file.
        parse: gets a line's number, counted from 1, and its fields, which white space separates. It may raise a
            ValueError.

    Raises:
        AnnotationError: `parse` raised a ValueError; the message gives file and line.
    """
    parsed = []
    for line, text in enumerate(lines, start=1):
        fields = text.split()
        if fields:
            try:
                parsed.append(parse(line, fields))
            except ValueError as error:
                raise AnnotationError(f"{source}: {error} - at line {line}") from None
    return parsed


def check_utf8(data: bytes, source: str, noun: str, line: int = 1) -> None:
    """Raise an error about the first byte that is not UTF-8.

    Args:
        data: content of the file, from a line on.
        source: the file.
        noun: what it is expected to be.
        line: the line's number.

    Raises:
        AnnotationError: there is such a byte; the message gives its line and the text around it.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        around = data[max(0, error.start - 40) : error.start + 20].decode(errors="replace")
        line += data.count(b"\n", 0, error.start)
        raise AnnotationError(
            f"{source}: expected {noun} in UTF-8, got the byte 0x{data[error.start]:02x} in {around!r} - at line "
            f"{line}; {_other_encoding(data, error.start)}save it as UTF-8"
        ) from None


def _other_encoding(data: bytes, at: int) -> str:
    """What a text may be in of which the byte at a place is not UTF-8, for a message."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it begins as UTF-16 does; "
    line = data[data.rfind(b"\n", 0, at) + 1 :].partition(b"\n")[0]
    # A Chinese letter has two such bytes; one alone, between letters of ASCII, is one of Western Europe's.
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", line)]
    name, encoding = ("GBK", "gbk") if sum(length % 2 for length in runs) <= len(runs) / 2 else ("Latin-1", "cp1252")
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return ""
    letters = next((word for word in text.split() if any(char.isalpha() and not char.isascii() for char in word)), None)
    return f"as {name} it is {shorten(letters)}; " if letters else ""


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        to_number(text)
    except ValueError:
        return False
    return True


def is_unknown(text: str | None) -> bool:
    """Whether a text is missing, or what tools write where they know nothing."""
    return text is None or text.strip().lower() in _UNKNOWN


def to_number(text: str) -> float:
    """The finite number that a text is.

    Raises:
        ValueError: it is none.
    """
    try:
        number = math.nan if "_" in text else float(text)  # Python takes 1_0 for 10
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number, got {shorten(text.strip())}")
    return number


def _unreadable(source: str, noun: str, error: Exception) -> AnnotationError:
    return AnnotationError(f"{source}: expected {noun}, got {getattr(error, 'strerror', None) or error}")
