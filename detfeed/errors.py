"""Exceptions of detfeed, and how their messages show what stands in a file.

Each exception takes one message and nothing else, so that it survives pickling on its way out of a worker process.
"""

import itertools
from collections.abc import Iterable


class DetfeedError(Exception):
    """Base of all errors that detfeed raises on purpose."""


class AnnotationError(DetfeedError, ValueError):
    """A file or table of annotations or proposals is not what it should be; gives file, place, expected and got."""


class MissingImageError(AnnotationError):
    """An annotation, or a file of them, has no image that goes with it."""


class RepeatedImageError(AnnotationError):
    """A list of images names one again."""


class ImageError(DetfeedError, ValueError):
    """An image file is missing, unreadable, or not of the annotated size."""


class SampleError(DetfeedError, RuntimeError):
    """Something failed while a sample of a batch was made; the message names image, position, epoch and batch."""


class WorkerError(DetfeedError, RuntimeError):
    """Workers died of a batch, or hung, again and again; the message names its images."""


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
