"""Proposals: boxes in which a second stage looks for objects, in columns that are aligned with Annotations."""

from __future__ import annotations

import dataclasses
import os
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.columns import ImageColumns

_COLUMNS = ("image_ids", "boxes", "scores", "offsets")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Proposals(ImageColumns):
    """Boxes that may hold an object, in columns: P images with R proposals in all.

    The proposals of the image in row `position` are rows offsets[position] to offsets[position + 1] of boxes and
    scores. Arrays are made read-only. A proposal may reach out of its image, whose size the table does not hold:
    `Sample.proposals` are clipped.

    Attributes:
        image_ids: int64 or str (P,), the annotation file's ids of the images, each once.
        boxes: float32 (R, 4), xyxy pixels of the image as it is stored in the file; R may be 0.
        scores: float32 (R,), higher is better.
        offsets: int64 (P + 1,), from 0 to R.
        source: the file that this was read from, for messages.

    Raises:
        AnnotationError: columns that do not fit together, boxes or scores that are not finite, boxes that have x1 < x0
            or y1 < y0, repeated image ids.
    """

    image_ids: NDArray[np.generic]
    boxes: Boxes
    scores: NDArray[np.float32]
    offsets: NDArray[np.int64]
    source: str = "proposals"
    _noun: ClassVar[str] = "proposal"

    def __post_init__(self) -> None:
        images, count = len(self.image_ids), len(self.boxes)
        self._check_columns(
            {
                "boxes": ((count, 4), np.float32),
                "scores": ((count,), np.float32),
                "offsets": ((images + 1,), np.int64),
            }
        )
        self._check_rows(
            (
                (np.isfinite(self.boxes), "finite box corners"),
                (np.isfinite(self.scores), "finite scores"),
                (self.boxes[:, 2:] >= self.boxes[:, :2], "x0 <= x1 and y0 <= y1"),
            )
        )

    def _describe(self, row: int) -> str:
        return f"{super()._describe(row)} of score {self.scores[row]}"

    def __repr__(self) -> str:
        return f"Proposals({len(self)} images, {len(self.boxes)} boxes, from {self.source!r})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file for `read_proposals`; numpy appends `.npz` to a name without it."""
        np.savez(path, **{name: getattr(self, name) for name in _COLUMNS})
