"""Texts: annotation files of lines, of fields and of numbers, with errors that have an address."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator

from detfeed.errors import AnnotationError
from detfeed.paths import shorten


def read_text(path: str | os.PathLike[str], noun: str) -> str:
    """The text of a file in UTF-8.

    Args:
        path: the file.
        noun: what it is expected to be.

    Raises:
        AnnotationError: the file is missing or not in UTF-8.
    """
    source = os.fspath(path)
    try:
        with open(source, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{source}: expected {noun} in UTF-8, got {error}") from None
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{source}: expected {noun}, got {getattr(error, 'strerror', None) or error}") from None


def read_rows(path: str | os.PathLike[str], noun: str) -> Iterator[tuple[int, list[str]]]:
    """Line number, counted from 1, and fields of each line of a CSV file that is not empty; as `read_text`."""
    source = os.fspath(path)
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            try:
                for row in rows:
                    if row:
                        yield rows.line_num, row
            except csv.Error as error:
                raise AnnotationError(f"{source}: expected {noun}, got {error} - at line {rows.line_num}") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{source}: expected {noun} in UTF-8, got {error}") from None
    except OSError as error:
        raise AnnotationError(f"{source}: expected {noun}, got {error.strerror or error}") from None


def to_number(text: str, source: str, where: str) -> float:
    """The finite number that a text says.

    Raises:
        AnnotationError: it says none; the message gives source and place.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationError(f"{source}: expected a number, got {shorten(text.strip())} - at `{where}`")
    return number
