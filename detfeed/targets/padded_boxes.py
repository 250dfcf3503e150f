"""Padded boxes: the objects of a sample as they are, for a detector that matches them to its predictions itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.boxes import Boxes
from detfeed.sample import Arrays, Sample

if TYPE_CHECKING:
    from detfeed.drawing.picture import Picture

BoxForm = Literal[
    "xyxy",
    "yxyx",
    "xywh",
    "center_xywh",
    "center_yxhw",
    "rel_xyxy",
    "rel_yxyx",
    "rel_xywh",
    "rel_center_xywh",
]
Names = Mapping[str, Literal["boxes", "class_ids", "mask", "ignore"]]

OF_KERAS_HUB: Names = {"boxes": "boxes", "labels": "class_ids"}
OF_FASTER_RCNN: Names = {"boxes": "boxes", "class_ids": "class_ids", "ignore": "ignore"}
_CONTENTS = ("boxes", "class_ids", "mask", "ignore")


class PaddedBoxes:
    """Targets of a detector that makes its own matches: boxes and class ids, padded to one number for all images.

    Args:
        num_boxes: M, the places for boxes. An image with more boxes is an error; nothing is cut off.
            `for_annotations` takes the number from a data set.
        form: of the boxes, by Keras's names: "xyxy", "yxyx", "xywh", "center_xywh" or "center_yxhw" in pixels of the
            canvas; "rel_xyxy", "rel_yxyx", "rel_xywh" or "rel_center_xywh" in shares of the canvas's width and height.
            The canvas is what the model gets, image and padding together.
        names: what y is to hold: for each name that the model wants, one of "boxes", "class_ids", "mask" and "ignore".
            Ignored boxes are left out, unless "ignore" is among them. The default is that of keras-hub; a model with a
            mask takes `{"boxes": "boxes", "classes": "class_ids", "mask": "mask"}`.
        padding: what stands in unused places of boxes and class ids. keras-hub looks for -1.

    Raises:
        ValueError: num_boxes below 1, an unknown form or content, or names without boxes.
    """

    uses_masks = False

    def __init__(
        self, num_boxes: int, *, form: BoxForm = "xyxy", names: Names = OF_KERAS_HUB, padding: float = -1.0
    ) -> None:
        if num_boxes < 1:
            raise ValueError(f"Expected num_boxes to be at least 1. Received: {num_boxes}")
        if form not in get_args(BoxForm):
            raise ValueError(f"Expected form to be one of {get_args(BoxForm)}. Received: {form!r}")
        if "boxes" not in names.values() or set(names.values()) - set(_CONTENTS):
            raise ValueError(
                f'Expected names to be a dict of some of {_CONTENTS}, "boxes" among them, by the names that y is to '
                f"have. Received: {names!r}"
            )
        self.num_boxes = num_boxes
        self.form: BoxForm = form
        self.names = dict(names)
        self.padding = padding

    @classmethod
    def for_annotations(
        cls,
        annotations: Annotations,
        *,
        num_images: int = 1,
        form: BoxForm = "xyxy",
        names: Names = OF_KERAS_HUB,
        padding: float = -1.0,
    ) -> Self:
        """With places for the boxes of any image of a data set.

        Args:
            annotations: the data set.
            num_images: how many of its images may come together in one sample: 4 with a Mosaic of 2 x 2.
            form, names, padding: see `PaddedBoxes`.
        """
        counted = np.ones(len(annotations.boxes), bool) if "ignore" in names.values() else ~annotations.ignore
        counts = np.bincount(annotations.positions[counted], minlength=1)
        return cls(max(num_images * int(counts.max()), 1), form=form, names=names, padding=padding)

    def __call__(self, sample: Sample) -> Arrays:
        """The boxes of one sample, in its order of them, then unused places.

        Returns:
            y: under the names asked for, boxes float32 (M, 4), class_ids int32 (M,), mask bool (M,), True where there
            is a box, and ignore bool (M,), True where the box is an ignored one.

        Raises:
            ValueError: the sample has more than M boxes; the message says how many, and of which image.
        """
        rows = np.arange(len(sample.boxes)) if "ignore" in self.names.values() else np.flatnonzero(~sample.ignore)
        if len(rows) > self.num_boxes:
            raise ValueError(
                f"expected at most {self.num_boxes} boxes, got {len(rows)} - at image {sample.image_id!r}; "
                f"PaddedBoxes({len(rows)}, ...) has places for them, PaddedBoxes.for_annotations(annotations) for "
                "those of any image, and with num_images=4 for those of a Mosaic"
            )
        unused = (0, self.num_boxes - len(rows))
        boxes = convert(sample.boxes[rows], self.form, sample.input_hw)
        arrays: Arrays = {
            "boxes": np.pad(boxes, (unused, (0, 0)), constant_values=self.padding),
            "class_ids": np.pad(sample.class_ids[rows], unused, constant_values=int(self.padding)),
            "mask": np.arange(self.num_boxes) < len(rows),
            "ignore": np.pad(sample.ignore[rows], unused),
        }
        return {name: arrays[content] for name, content in self.names.items()}

    def show(self, picture: Picture, x: Arrays, y: Arrays) -> None:
        """Draw the targets of one image, decoded from its arrays; `detfeed.show` calls it."""
        arrays = {content: y[name] for name, content in self.names.items()}
        used = arrays["mask"] if "mask" in arrays else (arrays["boxes"] != self.padding).any(axis=1)
        learned = used & ~arrays["ignore"] if "ignore" in arrays else used
        boxes = revert(arrays["boxes"][learned], self.form, picture.input_hw)
        picture.positives(boxes, class_ids=arrays["class_ids"][learned] if "class_ids" in arrays else None)
        picture.note(f"{int(used.sum())} of {len(used)} places used")


def convert(boxes: Boxes, form: BoxForm, input_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes in another form, float32 (N, 4).

    Args:
        boxes: float32 (N, 4), xyxy pixels of the canvas; N may be 0.
        form: see `PaddedBoxes`.
        input_hw: height and width of the canvas in pixels, for relative forms.

    Source: agrees with Keras's `keras.utils.bounding_boxes.convert_format`.
    """
    kind = form.removeprefix("rel_")
    if kind != form:
        height, width = input_hw
        boxes = (boxes / [width, height, width, height]).astype(np.float32)
    if kind in ("xywh", "center_xywh", "center_yxhw"):
        boxes = geometry.to_xywh(boxes)
    if kind.startswith("center"):
        boxes[:, :2] += boxes[:, 2:] / 2
    if kind in ("yxyx", "center_yxhw"):
        boxes = boxes[:, [1, 0, 3, 2]]
    return boxes


def revert(boxes: NDArray[np.float32], form: BoxForm, input_hw: tuple[int, int]) -> Boxes:
    """Boxes as they were before `convert`, but for rounding; float32 (N, 4) xyxy pixels of the canvas."""
    kind = form.removeprefix("rel_")
    if kind in ("yxyx", "center_yxhw"):
        boxes = boxes[:, [1, 0, 3, 2]]
    low, high = boxes[:, :2], boxes[:, 2:]
    half = high * np.float32(0.5)
    if kind.startswith("center"):
        low, high = low - half, low + half
    elif kind == "xywh":
        high = low + high
    height, width = input_hw if kind != form else (1, 1)
    return (np.concatenate([low, high], axis=1) * np.array([width, height, width, height])).astype(np.float32)
