"""COCO results: detections as the JSON file that COCO's tools and servers take."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
from numpy.typing import ArrayLike

from detfeed.annotations import Annotations
from detfeed.average_precision import gather
from detfeed.writing import replace_file


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
