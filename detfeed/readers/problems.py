"""Problems: how a reader reports a file, an entry or an image that it can't read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from detfeed.annotations import MAX_SIDE
from detfeed.errors import DetfeedError, ImageError, RepeatedImageError, shorten
from detfeed.images.headers import read_header

OnProblem = Callable[[str, DetfeedError], None]  # (path of the file or image, error)


class StatedSize(NamedTuple):
    """Height and width of an image as a file of annotations states them, in pixels, and the place in the file."""

    hw: tuple[int, int]
    where: str


class Problems:
    """Errors of data that is read to its end before the first error is raised."""

    def __init__(self, on_problem: OnProblem | None) -> None:
        self._on_problem = on_problem
        self._first: DetfeedError | None = None
        self._count = 0

    def add(self, path: str, error: DetfeedError) -> None:
        """Hand an error to `on_problem`; without one, keep the first and count the others."""
        if self._on_problem is not None:
            self._on_problem(path, error)
            return
        self._first = self._first or error
        self._count += 1

    def stop(self) -> None:
        """Raise the first error that `on_problem` did not get, and say how many more there are."""
        if self._first is not None:
            others = self._count - 1
            more = f"; and {others} more; detfeed check lists them all" if others else ""
            raise type(self._first)(f"{self._first}{more}") from self._first.__cause__


def tell_repeated(
    seen: dict[str, tuple[str, str]], image_id: str, file: str, where: str, on_problem: OnProblem
) -> bool:
    """Check whether lists have named an image before; if so, hand a `RepeatedImageError` to `on_problem`.

    Args:
        seen: file and place at which each image was named first; a new image is added.
        image_id: of the image.
        file, where: the list, and the place in it.
        on_problem: gets the error.

    Returns:
        Whether the image was named before.
    """
    if image_id not in seen:
        seen[image_id] = file, where
        return False
    first_file, first = seen[image_id]
    if first_file != file:
        first = f"{first} of {first_file}"
    error = RepeatedImageError(
        f"{file}: expected each image once, got {shorten(image_id)} again - at {where}, first at {first}; remove it; a "
        "`sampler` feeds images more often"
    )
    on_problem(file, error)
    return True


def read_hw(
    path: str,
    on_problem: OnProblem,
    near: Callable[[str], Sequence[str]] | None = None,
    stated: StatedSize | None = None,
) -> tuple[int, int] | None:
    """Read an image's height and width from its header, with its EXIF orientation applied.

    Args:
        path: of the image.
        on_problem: gets the ImageError of an image that is missing, of an unknown format, larger than `MAX_SIDE`, or of
            another size than the stated one.
        near: gives the images that may be meant by a path where nothing is, for the message.
        stated: the size that a file of annotations states. It is the picture's, as it is stored or as EXIF turns it.

    Returns:
        Height and width in pixels, the stated ones if there are such; None if `on_problem` got an error.
    """
    try:
        header = read_header(path)
        height, width = header.oriented_hw
        if stated is not None:
            if stated.hw not in (header.oriented_hw, header.stored_hw):
                raise ImageError(
                    f"{path}: expected height {stated.hw[0]} and width {stated.hw[1]}, as {stated.where} states, got "
                    f"{height} and {width}; its boxes are of another picture, or the stated size is wrong: correct it"
                )
            height, width = stated.hw
        if max(height, width) > MAX_SIDE:
            raise ImageError(f"{path}: expected at most {MAX_SIDE} pixels a side, got height {height}, width {width}")
        return height, width
    except ImageError as error:
        if os.sep == "/" and "\\" in path and isinstance(error.__cause__, FileNotFoundError):
            error = ImageError(f'{error}; its name has a "\\", which separates no folders here: write "/" instead')
        if near is not None and isinstance(error.__cause__, FileNotFoundError) and (there := near(path)):
            error = ImageError(f"{error}; there is {' and '.join(map(shorten, there[:3]))}: correct the name")
        on_problem(path, error)
        return None


def hw_if_read(image: tuple[str, StatedSize | None]) -> tuple[int, int] | None:
    """What `read_hw` gives for a path and a stated size, for processes that help; its problems are not reported."""
    path, stated = image
    return read_hw(path, lambda *_: None, stated=stated)
