"""LVIS: its JSON files to Annotations, with what each image was annotated for."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.readers import coco
from detfeed.readers.table import Invalid, OnProblem, to_annotations


class _Image(coco.Image, kw_only=True, gc=False):
    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.file_name = self.file_name or "/".join(self.coco_url.rsplit("/", 2)[-2:])


class _File(coco.File, gc=False):
    images: list[_Image]  # type: ignore[assignment]


def read_lvis(
    json: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    *,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read an LVIS file, such as lvis_v1_train.json.

    As `read_coco`; besides, `neg_classes` and `not_exhaustive_classes` say which classes an image was annotated for.

    Args:
        json: the file.
        image_dir: folder that holds COCO's train2017 and val2017: an image without `file_name` is the one that the
            last two parts of its `coco_url` name. Images are not opened.
        invalid: what to do about bad boxes; see `policies`.
        on_problem: as `read_coco`.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.

    Source: Gupta et al. 2019, and the lvis-api's file format.
    """
    source = os.fspath(json)
    content, columns = coco.read_columns(source, os.fspath(image_dir), _File, "an LVIS JSON file", on_problem)
    class_of = {category_id: row for row, category_id in enumerate(columns["category_ids"].tolist())}
    return to_annotations(
        **columns,
        invalid=invalid,
        neg_classes=_pairs(content, class_of, source, "neg_category_ids"),
        not_exhaustive_classes=_pairs(content, class_of, source, "not_exhaustive_category_ids"),
    )


def _pairs(content: _File, class_of: dict[int, int], source: str, field: str) -> NDArray[np.int32]:
    pairs = []
    for position, image in enumerate(content.images):
        for category_id in getattr(image, field):
            if category_id not in class_of:
                raise AnnotationError(
                    f"{source}: expected the id of a category in the file, got {category_id} - at "
                    f"`images[{position}].{field}` (image_id {image.id!r})"
                )
            pairs.append((position, class_of[category_id]))
    return np.array(pairs, np.int32).reshape(-1, 2)
