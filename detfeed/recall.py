"""Recall: the share of objects that proposals find, computed by COCO's own code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.average_precision import AREA_RANGES, evaluate, gather, mean
from detfeed.boxes import Boxes

MAX_PROPOSALS = (100, 300, 1000)


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
        ValueError: lists of other lengths, arrays of other shapes, numbers that are not finite, or boxes with x1 < x0
            or y1 < y0.

    Source: pycocotools' COCOeval; one class for all is what it makes of useCats = 0.
    """
    found = gather(annotations, boxes, scores)
    evaluated = evaluate(annotations, found, max_detections=MAX_PROPOSALS, by_class=False)
    recall = evaluated["recall"][:, 0]  # (IoU thresholds, area ranges, numbers of proposals)
    result = {}
    for area, name in enumerate(AREA_RANGES):
        for number, most in enumerate(MAX_PROPOSALS):
            suffix = "" if name == "all" else f"_{name}"
            result[f"AR@{most}{suffix}"] = mean(recall[:, area, number])
    for number, most in enumerate(MAX_PROPOSALS):
        result[f"recall@{most}"] = mean(recall[:1, 0, number])
    return result
