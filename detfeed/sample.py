"""Sample: one image with its boxes, on its way from file to batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import IgnoreReason
from detfeed.boxes import EMPTY, Boxes
from detfeed.masks import LazyMasks

# Imported where it is used: worker processes draw nothing.
if TYPE_CHECKING:
    from detfeed.drawing.picture import Truth

Arrays = dict[str, NDArray[Any]]  # by name: what a target function returns, and a part of a batch

# What an attribute `uses_masks` of a target function says: it looks at all masks, at those of crowds alone, or at none.
UsesMasks = bool | Literal["crowds"]

_BY_BOX = (IgnoreReason.HIDDEN, IgnoreReason.SMALL)  # regions that count by their box though they have a mask
_SHOWN_BOXES = 20  # in a notebook's table


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and what is known about it, as a target function gets it.

    Attributes:
        image: uint8 (H, W, 3) RGB, at its true size, without padding.
        boxes: float32 (N, 4), xyxy pixels, inside `image`; N may be 0.
        class_ids: int32 (N,), contiguous from 0.
        ignore: bool (N,), True for regions in which nothing is to be learned: crowds, difficult objects, and objects
            that an augmentation left barely visible, or that are fed too small.
        image_id: the annotation file's id of the image.
        position: row of the image in its Annotations.
        input_hw: height and width in pixels of the canvas that the batch places the image on, top left.
        rng: generator of this sample in this epoch; the only randomness a target function should use.
        proposals: float32 (R, 4), xyxy pixels, inside `image` and with area; R is 0 where there are none.
        masks: by row of `boxes`, the masks of boxes that have one (COCO's crowds, or all objects where a reader was
            asked for `masks`): uint8 (H, W), 0 to 255 for the share of a pixel that belongs to it. Each is drawn when
            it is looked at, unless an augmentation needed it before.
        rows: int64 (N,), the row of each box in its Annotations: `annotations.areas[sample.rows]` are the areas in the
            file. A row comes several times where shuffled tiles cut an object. None: -1 for each.
        ignore_reasons: uint8 (N,), why each box is ignored; see `IgnoreReason`. None: MARKED where it is.
        keypoints: float32 (N, K, 3), x, y and visibility of the boxes' keypoints; see `Keypoints`. K is 0 without any.
        num_lost: objects that are not in `boxes`: without area in the image, or lost to an augmentation.
    """

    image: NDArray[np.uint8]
    boxes: Boxes
    class_ids: NDArray[np.int32]
    ignore: NDArray[np.bool_]
    image_id: int | str
    position: int
    input_hw: tuple[int, int]
    rng: np.random.Generator
    proposals: Boxes = dataclasses.field(default_factory=lambda: EMPTY)
    masks: Mapping[int, NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    num_lost: int = 0
    rows: NDArray[np.int64] = None  # type: ignore[assignment]
    ignore_reasons: NDArray[np.uint8] = None  # type: ignore[assignment]
    keypoints: NDArray[np.float32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", np.full(len(self.boxes), -1))
        if self.keypoints is None:
            object.__setattr__(self, "keypoints", np.zeros((len(self.boxes), 0, 3), np.float32))
        if self.ignore_reasons is None:
            object.__setattr__(self, "ignore_reasons", self.ignore.astype(np.uint8))  # MARKED is 1

    @property
    def region_masks(self) -> dict[int, NDArray[np.uint8]]:
        """Of `masks`, those of boxes that are ignored in the file, as crowds are: they count instead of their boxes."""
        return {
            row: self.masks[row] for row in self.masks if self.ignore[row] and self.ignore_reasons[row] not in _BY_BOX
        }

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def _repr_html_(self) -> str:
        """What a notebook shows: the image with its boxes on its canvas, and the first of them in a table."""
        from detfeed.drawing import html
        from detfeed.drawing.marks import zoom_to
        from detfeed.drawing.picture import Picture

        truth = truth_of(self)
        picture = Picture(self.image, self.input_hw, truth, title=f"image {self.image_id!r}")
        rows = [
            (row, truth.labels[row], *(round(edge, 1) for edge in self.boxes[row].tolist()), int(self.rows[row]))
            for row in range(min(len(self.boxes), _SHOWN_BOXES))
        ]
        more = len(self.boxes) - len(rows)
        return "".join(
            (
                html.paragraph(
                    f"Sample(image {self.image_id!r} of {self.image_hw} on a canvas of {self.input_hw}, "
                    f"position {self.position}, {len(self.boxes)} boxes, {len(self.proposals)} proposals)"
                ),
                html.picture(picture.tile(zoom_to(self.input_hw, 640)).image, "the image and its boxes"),
                html.table(
                    ("box", f"class{f' (and {more} boxes more)' * (more > 0)}", "x0", "y0", "x1", "y1", "row"), rows
                ),
            )
        )


def truth_of(sample: Sample, class_names: Sequence[str] = ()) -> Truth:
    """What is true of a sample, as it is now; a target function may change its arrays."""
    from detfeed.drawing.picture import Truth

    class_ids: list[int] = sample.class_ids.tolist()
    names = [class_names[each] if each < len(class_names) else f"class {each}" for each in class_ids]
    reasons = [IgnoreReason(reason).name.lower().replace("_", " ") for reason in sample.ignore_reasons.tolist()]
    return Truth(
        boxes=sample.boxes.copy(),
        ignore=sample.ignore.copy(),
        class_ids=sample.class_ids.copy(),
        labels=[
            f"{name}: ignored, {reason}" if ignored else name
            for name, reason, ignored in zip(names, reasons, sample.ignore, strict=True)
        ],
        masks=LazyMasks(
            {
                row: partial(sample.masks.__getitem__, row)
                for row in sample.masks
                if sample.ignore_reasons[row] not in _BY_BOX
            }
        ),
        keypoints=sample.keypoints.copy(),
        num_lost=sample.num_lost,
    )
