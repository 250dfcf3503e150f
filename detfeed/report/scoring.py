"""Scoring: which detections of a run are right, by class and by image."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.average_precision import MAX_DETECTIONS, DetectionColumns, Engine, evaluate, mean

MIN_IOU = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """Detections held against the truth. R detections, N boxes.

    All detections of an image, best first, take the object of their class with the highest IoU of at least 0.5 that no
    better one has taken; those with an ignored object, or half inside an ignore region, count neither way. Then the
    others with a score of at least `threshold`, best first, take what is left of any class.

    Attributes:
        threshold: the score at which F1 of all classes together is highest.
        objects: int64 (R,), the row of the object that each detection takes; -1 for none.
        right: bool (R,), whether that is of its class.
        neutral: bool (R,), whether it counts neither way.
        shown: bool (R,), whether its score reaches the threshold.
        f1: at the threshold.
    """

    threshold: float
    objects: NDArray[np.int64]
    right: NDArray[np.bool_]
    neutral: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    f1: float

    def found(self, num_boxes: int) -> NDArray[np.bool_]:
        """Whether a right detection above the threshold takes each box of the truth; bool (N,)."""
        found = np.zeros(num_boxes, bool)
        found[self.objects[self.right & self.shown]] = True
        return found


def judge(annotations: Annotations, found: DetectionColumns) -> Judged:
    """Hold detections against the truth."""
    count = len(found.boxes)
    objects, right = np.full(count, -1), np.zeros(count, bool)
    neutral = np.zeros(count, bool)
    taken = np.zeros(len(annotations.boxes), bool)
    order = np.lexsort((-found.scores, found.positions))
    starts = np.searchsorted(found.positions, np.arange(len(annotations) + 1))
    spans = [order[starts[position] : starts[position + 1]] for position in range(len(annotations))]
    ious: list[NDArray[Any]] = []
    for position, own in enumerate(spans):
        rows = annotations.rows(position)
        boxes: Any = found.boxes[own].astype(np.float32)
        truth, ignore = annotations.boxes[rows], annotations.ignore[rows]
        overlap = geometry.iou(boxes, truth)
        ious.append(overlap)
        same = found.class_ids[own, None] == annotations.class_ids[rows]
        _take(np.where(same & ~ignore, overlap, 0), own, rows.start, objects, taken)
        right[own] = objects[own] >= 0
        if ignore.any():
            region = geometry.ioa(boxes, truth[ignore]).max(axis=1) >= 0.5
            neutral[own] = ~right[own] & region
    threshold, f1 = _best_threshold(found.scores, right, neutral, int((~annotations.ignore).sum()))
    shown = found.scores >= threshold
    # What only weaker detections took is free again for the strong ones of another class.
    taken[:] = False
    taken[objects[right & shown]] = True
    objects[~shown] = -1
    for position, own in enumerate(spans):
        rows = annotations.rows(position)
        left = shown[own] & ~right[own] & ~neutral[own]
        free = np.where(annotations.ignore[rows], 0, ious[position])
        _take(np.where(left[:, None], free, 0), own, rows.start, objects, taken)
    return Judged(threshold, objects, right & shown, neutral, shown, f1)


def _take(
    ious: NDArray[Any], own: NDArray[np.int64], first: int, objects: NDArray[np.int64], taken: NDArray[np.bool_]
) -> None:
    """Let the detections of an image, best first, take objects; IoUs (R, N), 0 where that is out of the question."""
    if not ious.size:
        return
    free = ~taken[first : first + ious.shape[1]]
    for row in np.flatnonzero(ious.max(axis=1) >= MIN_IOU).tolist():
        open_to_it = np.where(free, ious[row], 0)
        best = int(open_to_it.argmax())
        if open_to_it[best] >= MIN_IOU:
            free[best] = False
            objects[own[row]] = first + best
    taken[first : first + ious.shape[1]] = ~free


def _best_threshold(
    scores: NDArray[np.float64], right: NDArray[np.bool_], neutral: NDArray[np.bool_], num_objects: int
) -> tuple[float, float]:
    """The score at which F1 is highest, the highest such, and that F1; without any right detection 0.5 and 0."""
    counted = np.flatnonzero(~neutral)
    order = counted[np.argsort(-scores[counted], kind="stable")]
    hits = np.cumsum(right[order])
    if not len(hits) or not hits[-1]:
        return 0.5, 0.0
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_objects)
    ends = np.append(scores[order][1:] < scores[order][:-1], True)  # a threshold does not part equal scores
    best = int(np.argmax(np.where(ends, f1, -1)))
    return float(scores[order[best]]), float(f1[best])


@dataclasses.dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of C classes by COCO's rules; NaN for a class without objects.

    Attributes:
        ap, ap50: float64 (C,), average precision over IoU 0.50 to 0.95, and at 0.50.
        precision: float64 (101, C), at IoU 0.50 and recalls 0, 0.01, ... 1; -1 without objects.
        objects: int64 (C,), how many there are.
    """

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    precision: NDArray[np.float64]
    objects: NDArray[np.int64]


def score_classes(annotations: Annotations, found: DetectionColumns) -> ClassScores:
    """Scores of each class, as `average_precision` counts them."""
    engine: Engine = "faster-coco-eval" if importlib.util.find_spec("faster_coco_eval") else "pycocotools"
    precision = evaluate(annotations, found, max_detections=MAX_DETECTIONS, engine=engine)["precision"]
    per_class = precision[:, :, :, 0, -1]  # IoU thresholds, recalls, classes
    classes = range(per_class.shape[2])
    return ClassScores(
        np.array([mean(per_class[:, :, one]) for one in classes]),
        np.array([mean(per_class[0, :, one]) for one in classes]),
        per_class[0],
        np.bincount(annotations.class_ids[~annotations.ignore], minlength=len(annotations.class_names)),
    )


def confusion(annotations: Annotations, found: DetectionColumns, judged: Judged) -> NDArray[np.int64]:
    """Objects by their class (rows) and the class of what takes them (columns), int64 (C + 1, C + 1).

    The last column counts objects that nothing takes, the last row detections that take nothing.
    """
    classes = len(annotations.class_names)
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    counted = judged.shown & ~judged.neutral
    takes = counted & (judged.objects >= 0)
    np.add.at(matrix, (annotations.class_ids[judged.objects[takes]], found.class_ids[takes]), 1)
    missed = ~annotations.ignore
    missed[judged.objects[takes]] = False
    matrix[:classes, classes] = np.bincount(annotations.class_ids[missed], minlength=classes)
    matrix[classes, :classes] = np.bincount(found.class_ids[counted & (judged.objects < 0)], minlength=classes)
    return matrix


def errors_by_image(annotations: Annotations, found: DetectionColumns, judged: Judged) -> NDArray[np.int64]:
    """For each image the objects that no right detection takes, and the detections that are wrong; int64 (P, 2)."""
    count = len(annotations)
    missed = ~annotations.ignore & ~judged.found(len(annotations.boxes))
    wrong = judged.shown & ~judged.neutral & ~judged.right
    return np.stack(
        [
            np.bincount(annotations.positions[missed], minlength=count),
            np.bincount(found.positions[wrong], minlength=count),
        ],
        axis=1,
    )
