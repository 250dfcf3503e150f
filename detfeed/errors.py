"""Exceptions of detfeed, checks of the types of arguments, and how messages show what stands in a file.

Each exception takes one message and nothing else, so that it survives pickling on its way out of a worker process.
"""

import itertools
from collections.abc import Collection, Iterable
from typing import Any


class DetfeedError(Exception):
    """Base of all errors that detfeed raises on purpose."""


class AnnotationError(DetfeedError, ValueError):
    """A file or table of annotations or proposals is not what it should be; gives file, place, expected and got."""


class EntryError(AnnotationError):
    """An entry of a file can't be read; it alone is left out, and its image stays."""


class MissingImageError(AnnotationError):
    """An annotation, or a file of them, has no image that goes with it."""


class RepeatedImageError(AnnotationError):
    """A list of images names one again."""


class ImageError(DetfeedError, ValueError):
    """An image file is missing, unreadable, or not of the annotated size."""


class SampleError(DetfeedError, RuntimeError):
    """Something failed while a sample of a batch was made; the message names image, position, epoch and batch."""


class DownloadError(DetfeedError, RuntimeError):
    """Weights of a backbone could not be downloaded."""


class WorkerError(DetfeedError, RuntimeError):
    """Workers died of a batch, or hung, again and again; the message names its images."""


def expect(kind: Any, noun: str, **arguments: object) -> None:
    """Check the types of arguments.

    Args:
        kind: types as isinstance takes them; `numbers.Integral` and `numbers.Real` take numpy's numbers too. A bool is
            no number, and a str no collection.
        noun: the type in words, for the message: "a whole number".
        arguments: by name.

    Raises:
        TypeError: an argument is of another type.
    """
    for name, value in arguments.items():
        if not _is_of(kind, value):
            raise TypeError(f"Expected {name} to be {noun}. Received: {value!r}")


def expect_each(kind: Any, noun: str, **arguments: Any) -> None:
    """Check that arguments are tuples, lists or arrays whose entries are of a type; see `expect`.

    Raises:
        TypeError: an argument is no collection, or an entry is of another type.
    """
    for name, values in arguments.items():
        if not _is_of(Collection, values) or not all(_is_of(kind, value) for value in values):
            raise TypeError(f"Expected {name} to be {noun}. Received: {values!r}")


def _is_of(kind: Any, value: object) -> bool:
    return isinstance(value, kind) and (kind in (bool, str) or not isinstance(value, bool | str))


def shorten(text: str) -> str:
    """Text in quotes for a message, its middle left out if it is long."""
    return repr(text) if len(text) <= 80 else repr(f"{text[:40]}...{text[-37:]}")


def among(known: Iterable[object]) -> str:
    """Known names or numbers for a message, of many the first."""
    shown = [repr(one) for one in itertools.islice(known, 21)]
    return f"[{', '.join(shown[:20])}{', ...' if len(shown) > 20 else ''}]"


def any_of(names: Iterable[str]) -> str:
    """Names as alternatives for a message: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
