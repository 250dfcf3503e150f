"""Proposals: boxes in which a second stage looks for objects, in columns that are aligned with Annotations."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.errors import AnnotationError

_COLUMNS = ("image_ids", "boxes", "scores", "offsets")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Proposals:
    """Boxes that may hold an object, in columns: P images with R proposals in all.

    The proposals of the image in row `position` are rows offsets[position] to offsets[position + 1] of boxes and
    scores. Arrays are made read-only.

    Attributes:
        image_ids: int64 or str (P,), the annotation file's ids of the images, each once.
        boxes: float32 (R, 4), xyxy pixels of the image as it is stored in the file; R may be 0.
        scores: float32 (R,), higher is better.
        offsets: int64 (P + 1,), from 0 to R.
        source: the file this was read from, for messages.

    Raises:
        AnnotationError: columns that do not fit together, boxes or scores that are not finite, boxes that have x1 < x0
            or y1 < y0, repeated image ids.
    """

    image_ids: NDArray[np.generic]
    boxes: Boxes
    scores: NDArray[np.float32]
    offsets: NDArray[np.int64]
    source: str = "proposals"

    def __post_init__(self) -> None:
        images, count = len(self.image_ids), len(self.boxes)
        expected: dict[str, tuple[tuple[int, ...], type]] = {
            "boxes": ((count, 4), np.float32),
            "scores": ((count,), np.float32),
            "offsets": ((images + 1,), np.int64),
        }
        for name, (shape, dtype) in expected.items():
            column = getattr(self, name)
            if column.shape != shape or column.dtype != dtype:
                raise AnnotationError(
                    f"{self.source}: expected `{name}` to be {np.dtype(dtype).name} {shape}, "
                    f"got {column.dtype.name} {column.shape}"
                )
            column.setflags(write=False)
        self.image_ids.setflags(write=False)
        if self.offsets[0] != 0 or self.offsets[-1] != count or (np.diff(self.offsets) < 0).any():
            raise AnnotationError(f"{self.source}: expected `offsets` to rise from 0 to {count}, got {self.offsets}")
        ids, counts = np.unique(self.image_ids, return_counts=True)
        if len(ids) != images:
            twice, count = ids[counts > 1][0].item(), counts[counts > 1][0]
            raise AnnotationError(f"{self.source}: expected each image id once, got {twice!r} {count} times")
        for good, what in (
            (np.isfinite(self.boxes).all(axis=1), "finite box corners"),
            (np.isfinite(self.scores), "finite scores"),
            ((self.boxes[:, 2:] >= self.boxes[:, :2]).all(axis=1), "x0 <= x1 and y0 <= y1"),
        ):
            if not good.all():
                row = int(np.argmin(good))
                position = int(np.searchsorted(self.offsets, row, side="right")) - 1
                raise AnnotationError(
                    f"{self.source}: expected {what}, got box {self.boxes[row].tolist()} of score {self.scores[row]} - "
                    f"at proposal {row - self.offsets[position]} of image {self.image_ids[position].item()!r}"
                )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"Proposals({len(self)} images, {len(self.boxes)} boxes, from {self.source!r})"

    def rows(self, position: int) -> slice:
        """Rows of boxes and scores that belong to the image at `position`."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file for `read_proposals`; numpy appends `.npz` to a name without it."""
        np.savez(path, **{name: getattr(self, name) for name in _COLUMNS})
