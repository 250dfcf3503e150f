"""Annotations: what a data set says about its images, as one immutable table of columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.errors import AnnotationError
from detfeed.masks import Runs


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Annotations:
    """Images and their boxes in columns: P images, N boxes, C classes.

    The boxes of the image in row `position` are rows offsets[position] to offsets[position + 1] of the box columns.
    Arrays are made read-only. Columns instead of objects, since they reach a worker process in milliseconds and
    megabytes at COCO's size.

    Attributes:
        paths: P paths of image files.
        image_ids: int64 or str (P,), the annotation file's own ids, each once.
        image_hw: int32 (P, 2), height and width in pixels as annotated.
        boxes: float32 (N, 4), xyxy pixels of the image as it is stored in the file.
        class_ids: int32 (N,), 0-based and contiguous; row of `class_names`.
        ignore: bool (N,), True for COCO's `iscrowd` and `ignore` and for VOC's `difficult`.
        areas: float32 (N,), square pixels of the object (of its mask where the file says so, else of its box).
        offsets: int64 (P + 1,), from 0 to N.
        class_names: C names.
        category_ids: int64 (C,), the file's own numbers of the classes.
        masks: by row of the box columns, the RLE masks of those boxes that have one (COCO's crowds): int32 (K,) run
            lengths, see `masks`, that add up to the image's pixels.
        source: the file or folder this was read from, for messages.

    Raises:
        AnnotationError: columns that do not fit together, boxes that are not finite or have x1 < x0 or y1 < y0,
            class ids out of range, image ids that stand twice, sizes below 1, masks of other sizes than their images.
    """

    paths: tuple[str, ...]
    image_ids: NDArray[np.generic]
    image_hw: NDArray[np.int32]
    boxes: Boxes
    class_ids: NDArray[np.int32]
    ignore: NDArray[np.bool_]
    areas: NDArray[np.float32]
    offsets: NDArray[np.int64]
    class_names: tuple[str, ...]
    category_ids: NDArray[np.int64]
    masks: Mapping[int, Runs] = dataclasses.field(default_factory=dict)
    source: str = "annotations"

    def __post_init__(self) -> None:
        images, count, classes = len(self.paths), len(self.boxes), len(self.class_names)
        expected: dict[str, tuple[tuple[int, ...], type]] = {
            "image_hw": ((images, 2), np.int32),
            "boxes": ((count, 4), np.float32),
            "class_ids": ((count,), np.int32),
            "ignore": ((count,), np.bool_),
            "areas": ((count,), np.float32),
            "offsets": ((images + 1,), np.int64),
            "category_ids": ((classes,), np.int64),
        }
        for name, (shape, dtype) in expected.items():
            column = getattr(self, name)
            if column.shape != shape or column.dtype != dtype:
                raise AnnotationError(
                    f"{self.source}: expected `{name}` to be {np.dtype(dtype).name} {shape}, "
                    f"got {column.dtype.name} {column.shape}"
                )
            column.setflags(write=False)
        if self.image_ids.shape != (images,):
            raise AnnotationError(f"{self.source}: expected {images} image ids, got {self.image_ids.shape}")
        self.image_ids.setflags(write=False)
        if self.offsets[0] != 0 or self.offsets[-1] != count or (np.diff(self.offsets) < 0).any():
            raise AnnotationError(f"{self.source}: expected `offsets` to rise from 0 to {count}, got {self.offsets}")
        self._check_images()
        self._check_boxes()

    def _check_images(self) -> None:
        ids, first, counts = np.unique(self.image_ids, return_index=True, return_counts=True)
        if len(ids) != len(self.image_ids):
            twice = first[counts > 1][0]
            raise AnnotationError(
                f"{self.source}: expected each image id once, got {counts.max()} images with id "
                f"{self.image_ids[twice]} - first at {self.paths[twice]}"
            )
        small = np.flatnonzero((self.image_hw < 1).any(axis=1))
        if len(small):
            position = small[0]
            height, width = self.image_hw[position]
            raise AnnotationError(
                f"{self.source}: expected sizes of at least 1 pixel, got height {height}, width {width} - "
                f"at image {self.image_ids[position]} ({self.paths[position]})"
            )

    def _check_boxes(self) -> None:
        finite = np.isfinite(self.boxes).all(axis=1)
        ordered = (self.boxes[:, 2:] >= self.boxes[:, :2]).all(axis=1)
        for good, what in (
            (finite, "finite box corners"),
            (ordered, "x0 <= x1 and y0 <= y1"),
            ((self.class_ids >= 0) & (self.class_ids < len(self.class_names)), "a known class"),
        ):
            if not good.all():
                row = int(np.argmin(good))
                position = self._position(row)
                raise AnnotationError(
                    f"{self.source}: expected {what}, got box {self.boxes[row].tolist()} of class "
                    f"{self.class_ids[row]} - at box {row - self.offsets[position]} of image "
                    f"{self.image_ids[position]} ({self.paths[position]})"
                )

        for row, runs in self.masks.items():
            if not 0 <= row < len(self.boxes):
                raise AnnotationError(f"{self.source}: expected masks of boxes 0 to {len(self.boxes) - 1}, got {row}")
            position = self._position(row)
            if runs.sum(dtype=np.int64) != self.image_hw[position].prod(dtype=np.int64):
                raise AnnotationError(
                    f"{self.source}: expected a mask of {self.image_hw[position].tolist()} pixels, got runs over "
                    f"{runs.sum(dtype=np.int64)} - at box {row - self.offsets[position]} of image "
                    f"{self.image_ids[position]} ({self.paths[position]})"
                )

    def _position(self, row: int) -> int:
        """Row of the image that a row of the box columns belongs to."""
        return int(np.searchsorted(self.offsets, row, side="right")) - 1

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return (
            f"Annotations({len(self)} images, {len(self.boxes)} boxes of which {int(self.ignore.sum())} ignored, "
            f"{len(self.class_names)} classes, from {self.source!r})"
        )

    def rows(self, position: int) -> slice:
        """Rows of the box columns that belong to the image at `position`."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def image_id(self, position: int) -> int | str:
        """The file's id of the image at `position`, as a plain Python value."""
        return self.image_ids[position].item()
