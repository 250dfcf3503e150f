"""Ledger: images that could not be read, and the ones fed in their place."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detfeed.errors import ImageError
from detfeed.readers.notes import users_level
from detfeed.writing import append_lines


@dataclasses.dataclass(frozen=True)
class Replace:
    """Feed another image in place of one that can't be read: `on_error=Replace()`.

    The other one is of the same canvas (of any, if the image is alone there) and drawn from seed, epoch and position.
    A batch is then a function of the image files, too. The first replacement is warned of.

    Args:
        max_share: the share of the data set's images that may turn out unreadable before that is an error; a single
            one always may, unless it is 0.
        ledger: a file that gets a line of JSON for each replacement: epoch, batch, position, path, image_id, error,
            replacement_path and replacement_id. What is in it stays, so that a run that is resumed goes on with it; a
            batch that such a run makes again has its lines again. None: replacements are only counted.

    Raises:
        ValueError: max_share is no share.
    """

    max_share: float = 0.01
    ledger: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"Expected max_share to be a share from 0 to 1. Received: {self.max_share}")


class Replacement(NamedTuple):
    """An image that could not be read, and the one that was fed in its place."""

    epoch: int
    batch: int
    position: int
    path: str
    image_id: int | str
    error: str
    replacement_path: str
    replacement_id: int | str

    @property
    def sentence(self) -> str:
        """For a warning."""
        return f"{self.path} could not be read, and {self.replacement_path} is fed in its place: {self.reason}"

    @property
    def reason(self) -> str:
        """The error without the path that it begins with."""
        return self.error.removeprefix(f"{self.path}: ")


class Ledger:
    """Counts replacements, writes them down, and ends a feed that has too many of them.

    Args:
        replace: how many there may be, and the file to write.
        num_images: that may be fed, by this process or another.

    Attributes:
        unreadable: positions of images that could not be read so far.
        count: how often one was replaced.

    Raises:
        OSError: there can't be a file at `replace.ledger`, or what is there is no regular file.
    """

    def __init__(self, replace: Replace, num_images: int) -> None:
        self.path = None if replace.ledger is None else Path(replace.ledger)
        if self.path is not None:
            append_lines(self.path, "")  # an error now, not after hours
        self.limit = max(1, math.floor(replace.max_share * num_images + 1e-9)) if replace.max_share else 0
        self.num_images = num_images
        self.unreadable: set[int] = set()
        self.count = 0
        self._noted: set[tuple[int, int, int]] = set()
        self._lock = threading.Lock()

    def note(self, replacements: Sequence[Replacement]) -> None:
        """Note the replacements of a batch that is handed out. A batch that is handed out again counts once.

        Raises:
            ImageError: too many images can't be read.
        """
        if not replacements:
            return
        with self._lock:
            new = [r for r in replacements if (r.epoch, r.batch, r.position) not in self._noted]
            if self.path is not None and new:
                append_lines(self.path, "".join(json.dumps(r._asdict()) + "\n" for r in new))
            self._noted.update((r.epoch, r.batch, r.position) for r in new)
            first = self.count == 0
            self.count += len(new)
            self.unreadable.update(r.position for r in new)
        where = f"All are listed in {self.path}." if self.path else "Replace(ledger=path) lists them all in a file."
        if len(self.unreadable) > self.limit:
            raise ImageError(
                f"{len(self.unreadable)} of {self.num_images} images could not be read, more than the {self.limit} "
                f"that max_share allows; the last is {replacements[-1].path}: {replacements[-1].reason}. {where}"
            )
        if first:
            warnings.warn(
                f"{replacements[0].sentence}. Further ones are only counted. {where}", stacklevel=users_level()
            )
