"""Ledger: which images could not be read, and what was fed in their place."""

from __future__ import annotations

import json
import math
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detfeed.errors import ImageError


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
        path: a file that gets a line of JSON for each image that could not be read, each time that it was to be fed:
            epoch, batch, position, path, image_id, error, replacement_path and replacement_id. What is in it stays,
            so that a run that is resumed goes on with it; a batch that such a run does again has its lines again.
            None: they are only counted.
        max_replaced: the share of the images that may turn out unreadable; unless it is 0, a single one always may.
        num_images: that may be fed, by this process or another.

    Attributes:
        unreadable: positions of images that could not be read so far.
        count: how often one was replaced.

    Raises:
        ValueError: max_replaced is no share.
        OSError: there can't be a file at `path`.
    """

    def __init__(self, path: str | os.PathLike[str] | None, max_replaced: float, num_images: int) -> None:
        if not 0 <= max_replaced <= 1:
            raise ValueError(f"Expected max_replaced to be a share from 0 to 1. Received: {max_replaced}")
        self.path = None if path is None else Path(path)
        if self.path is not None:
            self.path.open("a").close()  # said now, and not after hours
        self.limit = max(1, math.floor(max_replaced * num_images + 1e-9)) if max_replaced else 0
        self.num_images = num_images
        self.unreadable: set[int] = set()
        self.count = 0
        self._noted: set[tuple[int, int, int]] = set()
        self._lock = threading.Lock()

    def note(self, replacements: Sequence[Replacement]) -> None:
        """Of a batch that is handed out. One that is handed out again is not counted again.

        Raises:
            ImageError: too many images can't be read.
        """
        if not replacements:
            return
        with self._lock:
            new = [r for r in replacements if (r.epoch, r.batch, r.position) not in self._noted]
            if self.path is not None and new:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(r._asdict()) + "\n" for r in new))
            self._noted.update((r.epoch, r.batch, r.position) for r in new)
            first = self.count == 0
            self.count += len(new)
            self.unreadable.update(r.position for r in new)
        where = f"All are listed in {self.path}." if self.path else "ledger=path lists them all in a file."
        if len(self.unreadable) > self.limit:
            raise ImageError(
                f"{len(self.unreadable)} of {self.num_images} images could not be read, more than the {self.limit} "
                f"that max_replaced allows; the last is {replacements[-1].path}: {replacements[-1].reason}. {where}"
            )
        if first:
            warnings.warn(f"{replacements[0].sentence}. Further ones are only counted. {where}", stacklevel=4)
