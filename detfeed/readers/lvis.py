"""LVIS: its JSON files to Annotations, with the classes that each image was annotated for."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.images.decoding import Exif
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.coco import Crowds, read_draft
from detfeed.readers.coco_entries import CocoFile, ImageEntry, KeypointFile
from detfeed.readers.coco_images import Images
from detfeed.readers.ignored_classes import warn_of_ignored
from detfeed.readers.problems import OnProblem, Problems
from detfeed.readers.table import to_annotations


class _ImageEntry(ImageEntry, kw_only=True, gc=False):
    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.file_name = self.file_name or "/".join(self.coco_url.rsplit("/", 2)[-2:])


class _LvisFile(CocoFile, gc=False):
    images: list[_ImageEntry]  # type: ignore[assignment]


class _LvisKeypointFile(KeypointFile, gc=False):
    images: list[_ImageEntry]  # type: ignore[assignment]


def read_lvis(
    json: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    *,
    masks: bool = False,
    keypoints: bool = False,
    crowds: Crowds = "ignore",
    exif: Exif = "auto",
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read an LVIS file, such as lvis_v1_train.json.

    The table is that of `read_coco` with `neg_classes` and `not_exhaustive_classes`, which give the classes that each
    image was annotated for.

    Args:
        json: the file.
        image_dir: folder that holds COCO's train2017 and val2017, or its URL: an image without `file_name` has the
            last two parts of its `coco_url` as path in it.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        masks, keypoints, crowds, exif, on_problem: as for `read_coco`.

    Raises:
        As `read_coco`.

    Source: Gupta et al. 2019, and the lvis-api's file format.
    """
    source, problems = os.fspath(json), Problems(on_problem)
    images, draft = read_draft(
        source,
        os.fspath(image_dir),
        _LvisKeypointFile if keypoints else _LvisFile,
        "an LVIS JSON file",
        problems,
        masks=masks,
        crowds=crowds,
        exif=exif,
    )
    class_of = {category_id: row for row, category_id in enumerate(draft.category_ids.tolist())}
    pairs = {
        "neg_classes": _pairs(images, class_of, source, "neg_category_ids", problems),
        "not_exhaustive_classes": _pairs(images, class_of, source, "not_exhaustive_category_ids", problems),
    }
    problems.stop()
    table = to_annotations(dataclasses.replace(draft, pairs=pairs), invalid=invalid)
    if crowds == "ignore":
        warn_of_ignored(table)
    return table


def _pairs(images: Images, class_of: dict[int, int], source: str, field: str, problems: Problems) -> NDArray[np.int32]:
    """Pairs of position and class id from a field of the images, int32 (K, 2)."""
    pairs = []
    for position, image in enumerate(images.entries):
        for category_id in getattr(image, field):
            if category_id in class_of:
                pairs.append((position, class_of[category_id]))
            elif position not in images.left_out:
                problems.add(source, AnnotationError(
                    f"{source}: expected the id of a category in the file, got {category_id} - at "
                    f"`images[{images.places[position]}].{field}` (image_id {image.id!r})"
                ))  # fmt: skip
                images.left_out.add(position)
    return np.array(pairs, np.int32).reshape(-1, 2)
