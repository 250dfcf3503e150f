"""Draft: a table as a reader found it, its boxes in any order and not yet checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.keypoints import Keypoints
from detfeed.mask_columns import NO_MASKS, MaskColumns
from detfeed.masks import Runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """P images, N boxes and C classes, which `to_annotations` makes a table of.

    Attributes:
        source: the file or folder that was read, for messages.
        paths: P paths of image files.
        image_ids: int64 or str (P,), each once.
        image_hw: int64 (P, 2), height and width in pixels; any numbers for images in `left_out`.
        boxes: float64 (N, 4), xyxy pixels, not NaN; N may be 0. float32 once they are corrected.
        positions: int64 (N,), row of each box's image; -1: the box has no image and is left out.
        class_ids: int32 (N,), row of `class_names`; anything for boxes that are left out.
        ignore: bool (N,), whether a box is an ignore region.
        class_names: C names.
        category_ids: int64 (C,), the file's own numbers of the classes.
        where: gives the place of a box in the file, for messages, from its number in `file_rows`.
        file_rows: int64 (N,), each box's number among those of the file. None: 0 to N - 1.
        annotation_ids: int64 (N,), the file's own ids of the boxes. None: their numbers in `file_rows`, from 1.
        ignore_reasons: uint8 (N,), why boxes are ignored, where they are; see `IgnoreReason`. None: they are MARKED.
        areas: float64 (N,), square pixels; NaN or negative: the box's. None: the boxes'.
        masks: by row of `boxes`, the masks of those that have one.
        keypoints: of the boxes, or None.
        pairs: further columns of `Annotations` by name: int32 (K, 2), pairs of position and class id.
        left_out: positions of images to leave out, with their boxes and pairs.
    """

    source: str
    paths: Sequence[str]
    image_ids: NDArray[np.generic]
    image_hw: NDArray[np.int64]
    boxes: NDArray[np.floating]
    positions: NDArray[np.int64]
    class_ids: NDArray[np.int32]
    ignore: NDArray[np.bool_]
    class_names: Sequence[str]
    category_ids: NDArray[np.int64]
    where: Callable[[int], str]
    file_rows: NDArray[np.int64] | None = None
    annotation_ids: NDArray[np.int64] | None = None
    ignore_reasons: NDArray[np.uint8] | None = None
    areas: NDArray[np.float64] | None = None
    masks: Mapping[int, Runs] = dataclasses.field(default_factory=lambda: NO_MASKS)
    keypoints: Keypoints | None = None
    pairs: Mapping[str, NDArray[np.int32]] = dataclasses.field(default_factory=dict)
    left_out: Collection[int] = ()

    def without_left_out(self) -> Draft:
        """The draft without the images in `left_out`; their boxes get position -1."""
        if not self.left_out:
            return self
        kept = np.ones(len(self.paths), bool)
        kept[list(self.left_out)] = False
        moved_to = np.where(kept, np.cumsum(kept) - 1, -1)
        pairs = {}
        for name, column in self.pairs.items():
            column = column[kept[column[:, 0]]]
            pairs[name] = np.stack([moved_to[column[:, 0]], column[:, 1]], axis=1).astype(np.int32)
        return dataclasses.replace(
            self,
            paths=[path for path, stays in zip(self.paths, kept.tolist(), strict=True) if stays],
            image_ids=self.image_ids[kept],
            image_hw=self.image_hw[kept],
            positions=np.where(self.positions >= 0, moved_to[self.positions], -1),
            pairs=pairs,
            left_out=(),
        )

    def by_image(self) -> Draft:
        """The draft with its boxes sorted by image, those of one image in their order, and without those of none."""
        order = np.argsort(self.positions, kind="stable")
        if self.positions.min(initial=0) < 0:
            order = order[self.positions[order] >= 0]
        return self.take(order)

    def take(self, rows: NDArray[np.int64]) -> Draft:
        """The draft with the boxes in some rows, each at most once, in that order."""
        return dataclasses.replace(
            self,
            boxes=self.boxes[rows],
            positions=self.positions[rows],
            class_ids=self.class_ids[rows],
            ignore=self.ignore[rows],
            file_rows=rows if self.file_rows is None else self.file_rows[rows],
            annotation_ids=None if self.annotation_ids is None else self.annotation_ids[rows],
            ignore_reasons=None if self.ignore_reasons is None else self.ignore_reasons[rows],
            areas=None if self.areas is None else self.areas[rows],
            masks=MaskColumns.of(self.masks).take(rows, len(self.boxes)),
            keypoints=None if self.keypoints is None else self.keypoints.take(rows),
        )
