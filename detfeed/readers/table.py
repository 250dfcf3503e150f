"""Table: the last step of every reader, from a draft to Annotations."""

from __future__ import annotations

import warnings
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import MAX_SIDE, Annotations
from detfeed.errors import AnnotationError
from detfeed.readers.bad_boxes import Invalid, correct_boxes
from detfeed.readers.draft import Draft
from detfeed.readers.notes import users_level


def to_annotations(draft: Draft, *, invalid: Invalid, shares: bool = False) -> Annotations:
    """Build the table of a draft, with its bad boxes treated by the policy `invalid`.

    Args:
        draft: the images and boxes.
        invalid: the policy; see `BadBoxesWarning`.
        shares: the file gives shares of the image's width and height, of which the draft has made pixels.

    Raises:
        AnnotationError: a bad box and invalid="raise", an image larger than `MAX_SIDE`, or columns that `Annotations`
            refuses.
        ValueError: unknown `invalid`.
    """
    if invalid not in get_args(Invalid):
        raise ValueError(f"Expected invalid to be one of {get_args(Invalid)}. Received: {invalid!r}")
    draft = draft.without_left_out().by_image()
    _check_sizes(draft)
    if not shares:
        _warn_of_shares(draft)
    draft = correct_boxes(draft, invalid)
    boxes = draft.boxes.astype(np.float32, copy=False)
    # `by_image` has given each box its number in the file.
    ids = draft.file_rows + 1 if draft.annotation_ids is None and draft.file_rows is not None else draft.annotation_ids
    return Annotations(
        paths=tuple(draft.paths),
        image_ids=draft.image_ids,
        image_hw=draft.image_hw.astype(np.int32),
        boxes=boxes,
        class_ids=draft.class_ids,
        ignore=draft.ignore,
        areas=_areas(boxes, draft.areas),
        offsets=np.searchsorted(draft.positions, np.arange(len(draft.paths) + 1)).astype(np.int64),
        class_names=tuple(draft.class_names),
        category_ids=draft.category_ids,
        masks=draft.masks,
        keypoints=draft.keypoints,
        annotation_ids=ids,  # type: ignore[arg-type]
        ignore_reasons=draft.ignore_reasons,  # type: ignore[arg-type]
        source=draft.source,
        **draft.pairs,
    )


def _check_sizes(draft: Draft) -> None:
    large = np.flatnonzero((draft.image_hw > MAX_SIDE).any(axis=1))
    if len(large):
        raise AnnotationError(
            f"{draft.source}: expected images of at most {MAX_SIDE} pixels a side, got height and width "
            f"{draft.image_hw[large[0]].tolist()} - at {draft.paths[large[0]]}"
        )


def _warn_of_shares(draft: Draft) -> None:
    if len(draft.boxes) and draft.boxes.max() <= 1 and draft.image_hw.min() > 2:
        warnings.warn(
            f"{draft.source}: all boxes end at the first pixel, as if they were shares of the image's width and "
            f"height; pixels are expected, got {draft.boxes[0].tolist()} - at "
            f"{draft.where(0 if draft.file_rows is None else int(draft.file_rows[0]))}",
            stacklevel=users_level(),
        )


def _areas(boxes: geometry.Boxes, stated: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """The stated areas, and those of the boxes where the stated ones are missing, negative or beyond float32."""
    areas = geometry.area(boxes)
    if stated is not None:
        with np.errstate(over="ignore"):
            given = stated.astype(np.float32)
        np.copyto(areas, given, where=(given >= 0) & np.isfinite(given))
    return areas
