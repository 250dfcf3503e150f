"""COCO results: detections as the JSON file that COCO's tools and servers take, written and read."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from detfeed.annotations import Annotations
from detfeed.average_precision import DetectionColumns, gather
from detfeed.errors import AnnotationError
from detfeed.readers.json_files import decode_json
from detfeed.readers.proposals import read_proposals
from detfeed.writing import replace_file


# `read_proposals` decodes and checks the other fields.
class _Place(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int


def read_results(path: str | os.PathLike[str], annotations: Annotations) -> DetectionColumns:
    """Read a COCO results file of detections; the opposite of `write_results`, but boxes and scores become float32.

    Args:
        path: the file.
        annotations: the images and classes that it speaks of. Images without detections are ordinary.

    Raises:
        AnnotationError: the file is missing or no such file, or has an image or a category that is not in
            `annotations`; the message names the first, and its place in the file.
        ValueError: see `average_precision`.
    """
    source = os.fspath(path)
    proposals = read_proposals(source, annotations, missing="allow")
    places = decode_json(source, list[_Place], "a COCO results JSON file")
    class_of = {number: class_id for class_id, number in enumerate(annotations.category_ids.tolist())}
    for number, place in enumerate(places):
        if place.category_id not in class_of:
            raise AnnotationError(
                f"{source}: expected the category_id of a class in {annotations.source} (such as "
                f"{next(iter(class_of), None)}), got {place.category_id} - at `[{number}].category_id`"
            )
    # `read_proposals` sorts by image and keeps the order within one.
    position_of = {image_id: position for position, image_id in enumerate(annotations.image_ids.tolist())}
    order = np.argsort([position_of[place.image_id] for place in places], kind="stable").astype(np.int64)
    class_ids = np.array([class_of[place.category_id] for place in places], np.int64)[order]
    spans = [proposals.rows(position) for position in range(len(annotations))]
    return gather(
        annotations,
        [proposals.boxes[span] for span in spans],
        [proposals.scores[span] for span in spans],
        [class_ids[span] for span in spans],
    )


def write_results(
    path: str | os.PathLike[str],
    annotations: Annotations,
    boxes: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    class_ids: Sequence[ArrayLike],
) -> None:
    """Write detections as a COCO results file, with the image ids and category ids of the annotation file.

    Boxes and scores are written exactly: `pycocotools` makes of the file what `average_precision` returns.

    Args:
        path: the file; one that exists is replaced, once the new one is whole.
        annotations, boxes, scores, class_ids: as of `average_precision`.

    Raises:
        ValueError: see `average_precision`; or two classes have the same category id.
        OSError: the file can't be written.
    """
    found = gather(annotations, boxes, scores, class_ids)
    category_ids = annotations.category_ids
    if len(set(category_ids.tolist())) < len(category_ids):
        raise ValueError(f"Expected each category id once. Received: {category_ids.tolist()}")
    columns = (
        annotations.image_ids[found.positions].tolist(),
        category_ids[found.class_ids].tolist(),
        found.boxes_xywh.tolist(),
        found.scores.tolist(),
    )
    names = ("image_id", "category_id", "bbox", "score")
    results = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    replace_file(path, msgspec.json.encode(results))
