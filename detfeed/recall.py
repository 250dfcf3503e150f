"""Recall: the share of objects that proposals find, computed by COCO's own code."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.boxes import Boxes

MAX_PROPOSALS = (100, 300, 1000)
AREA_RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def proposal_recall(
    annotations: Annotations, boxes: Sequence[Boxes], scores: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Class-agnostic average recall of proposals.

    Args:
        annotations: the objects of P images. Ignored boxes count neither as found nor as missed.
        boxes: for each image, in the order of `annotations`, float32 (R, 4), xyxy pixels of the image; R may be 0.
        scores: for each image float32 (R,); the proposals with the highest scores count.

    Returns:
        `AR@100`, `AR@300`, `AR@1000`: recall averaged over IoU 0.50 to 0.95, for that many proposals an image; the same
        with `_small`, `_medium`, `_large` (areas up to 32², up to 96², above); `recall@100`, `recall@300`,
        `recall@1000`: recall at IoU 0.5. NaN if there is no object to find.

    Raises:
        ValueError: boxes and scores are not those of P images.

    Source: pycocotools' COCOeval with useCats = 0.
    """
    if not len(boxes) == len(scores) == len(annotations):
        raise ValueError(
            f"Expected boxes and scores for each of {len(annotations)} images. Received: {len(boxes)}, {len(scores)}"
        )
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for position in range(len(annotations)):
        rows = annotations.rows(position)
        ignored = annotations.ignore[rows].astype(int)
        truth += _entries(position, annotations.boxes[rows], area=annotations.areas[rows], iscrowd=ignored)
        proposals, areas = boxes[position], geometry.area(boxes[position])
        none = np.zeros(len(proposals), int)
        found += _entries(position, proposals, area=areas, iscrowd=none, score=scores[position])
    recall = _evaluate(len(annotations), truth, found)
    result = {}
    for area, name in enumerate(AREA_RANGES):
        for number, most in enumerate(MAX_PROPOSALS):
            suffix = "" if name == "all" else f"_{name}"
            result[f"AR@{most}{suffix}"] = _mean(recall[:, area, number])
    for number, most in enumerate(MAX_PROPOSALS):
        result[f"recall@{most}"] = _mean(recall[:1, 0, number])
    return result


def _entries(position: int, boxes: Boxes, **columns: NDArray[Any]) -> list[dict[str, Any]]:
    """Boxes of an image and their further columns as annotations of a COCO file."""
    rows = zip(geometry.to_xywh(boxes).tolist(), *(column.tolist() for column in columns.values()), strict=True)
    return [
        {"image_id": position, "category_id": 1, "bbox": box, **dict(zip(columns, values, strict=True))}
        for box, *values in rows
    ]


def _evaluate(num_images: int, truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Recall of COCO annotations by COCOeval, float64 (IoU thresholds, area ranges, numbers of proposals)."""
    # Imported here, since nothing else in detfeed needs pycocotools.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for entries in (truth, found):
            images = [{"id": position} for position in range(num_images)]
            numbered = [{"id": number, **entry} for number, entry in enumerate(entries, start=1)]
            side: Any = COCO()  # its types want fields that it does not read
            side.dataset = {"images": images, "categories": [{"id": 1}], "annotations": numbered}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iouType="bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(MAX_PROPOSALS)
        evaluation.params.areaRng = [list(limits) for limits in AREA_RANGES.values()]
        evaluation.params.areaRngLbl = list(AREA_RANGES)
        evaluation.evaluate()
        evaluation.accumulate()
    recall: NDArray[np.float64] = evaluation.eval["recall"][:, 0]
    return recall


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of recalls, NaN where there is no object, for which COCOeval writes -1."""
    return float(values.mean()) if (values >= 0).all() else float("nan")
