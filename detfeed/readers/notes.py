"""Notes: what a reader found written in another way than its format says, and read nevertheless."""

from __future__ import annotations

import sys
import warnings


class Notes:
    """What was read although it is written in another way; each kind becomes one warning."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}  # by kind: place of the first, and how many

    def add(self, kind: str, place: str) -> None:
        """Note one finding.

        Args:
            kind: what was found and how it was read, such as "polygons are read as the boxes around them".
            place: where.
        """
        first, count = self._found.get(kind, (place, 0))
        self._found[kind] = first, count + 1

    def warn(self, source: str) -> None:
        """Issue a UserWarning for each kind, with the number of findings and the place of the first.

        Args:
            source: the file or folder that was read.
        """
        for kind, (place, count) in self._found.items():
            where = f"at {place}{f', the first of {count}' if count > 1 else ''}"
            warnings.warn(f"{source}: {kind} - {where}", stacklevel=users_level())


def users_level() -> int:
    """The `stacklevel` with which a warning of the calling function points at the line that called detfeed."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "detfeed":
        level, frame = level + 1, frame.f_back
    return level
