"""Columns: tables whose rows belong to images, and the checks and look-ups that such tables share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.errors import AnnotationError


class ImageColumns:
    """P images and N rows, those of an image side by side: what `Annotations` and `Proposals` have in common.

    Arrays are made read-only. Columns instead of objects, since they reach a worker process in milliseconds and
    megabytes at COCO's size.

    Attributes:
        image_ids: int64 or str (P,), the annotation file's own ids of the images, each once.
        boxes: float32 (N, 4), xyxy pixels of the image as it is stored in the file; N may be 0.
        offsets: int64 (P + 1,), from 0 to N: the rows of the image at `position` are offsets[position] to
            offsets[position + 1].
        source: the file or folder that the table was read from, for messages.
    """

    image_ids: NDArray[np.generic]
    boxes: Boxes
    offsets: NDArray[np.int64]
    source: str
    _noun: ClassVar[str] = "box"  # what a row is called in messages

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, position: int) -> slice:
        """The rows of the image at `position`."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def image_id(self, position: int) -> int | str:
        """The file's id of the image at `position`, as a plain Python value."""
        return self.image_ids[position].item()  # type: ignore[no-any-return]

    @property
    def positions(self) -> NDArray[np.int64]:
        """For each row the position of its image, int64 (N,); made anew at each call."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def positions_of(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """For some rows (K,) the positions of their images, int64 (K,)."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def position_of(self, row: int) -> int:
        """The position of the image that a row belongs to."""
        return int(self.positions_of(np.array([row]))[0])

    def place_of(self, row: int) -> str:
        """Where a row is, for messages: its number within its image, and the image."""
        position = self.position_of(row)
        return f"{self._noun} {row - self.offsets[position]} of {self._name_image(position)}"

    def _name_image(self, position: int) -> str:
        return f"image {self.image_id(position)!r}"

    def _check_columns(self, expected: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]) -> None:
        """Check shapes, dtypes, offsets and image ids, and make the arrays read-only.

        Args:
            expected: shape and dtype by the name of a column.

        Raises:
            AnnotationError: columns that do not fit together, or an image id that stands twice.
        """
        for name, (shape, dtype) in expected.items():
            column = getattr(self, name)
            if column.shape != shape or column.dtype != dtype:
                raise AnnotationError(
                    f"{self.source}: expected `{name}` to be {np.dtype(dtype).name} {shape}, "
                    f"got {column.dtype.name} {column.shape}"
                )
            column.setflags(write=False)
        count = len(self.boxes)
        if self.offsets[0] != 0 or self.offsets[-1] != count or (np.diff(self.offsets) < 0).any():
            raise AnnotationError(f"{self.source}: expected `offsets` to rise from 0 to {count}, got {self.offsets}")
        self.image_ids.setflags(write=False)
        ids, counts = np.unique(self.image_ids, return_counts=True)
        if len(ids) != len(self.image_ids):
            twice = int(np.argmax(counts > 1))
            raise AnnotationError(
                f"{self.source}: expected each image id once, got {counts[twice]} images with id "
                f"{ids[twice].item()!r} - first at {self._name_image(int(np.argmax(self.image_ids == ids[twice])))}"
            )

    def _check_rows(self, checks: Iterable[tuple[NDArray[np.bool_], str]]) -> None:
        """Raise an error with an address about the first row that fails a check.

        Args:
            checks: bool (N,) or (N, K), True where a row is good, and what is expected of it.

        Raises:
            AnnotationError: a row fails.
        """
        for good, what in checks:
            if not good.all():
                row = int(np.argwhere(~good)[0, 0])
                raise AnnotationError(
                    f"{self.source}: expected {what}, got {self._describe(row)} - at {self.place_of(row)}"
                )

    def _describe(self, row: int) -> str:
        return f"box {self.boxes[row].tolist()}"
