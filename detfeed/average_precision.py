"""Average precision: how good a detector's boxes are, scored by COCO's own code and by VOC's rule."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations

Engine = Literal["pycocotools", "faster-coco-eval"]
Floats = NDArray[np.float64]

AREA_RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
MAX_DETECTIONS = (1, 10, 100)
VOC_IOU = 0.5

# By engine: the modules of COCO and of COCOeval, and the name of the latter.
_ENGINES = {
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
}


def average_precision(
    annotations: Annotations,
    boxes: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    class_ids: Sequence[ArrayLike],
    *,
    engine: Engine = "pycocotools",
) -> dict[str, float]:
    """COCO's twelve figures, and the average precision of each class.

    Args:
        annotations: the truth; P images, C classes. Its order of images is that of the lists. An ignored box counts
            as COCO counts a crowd: any number of detections may lie in it, and neither they nor it count.
        boxes: per image, float32 (R, 4), xyxy pixels of the image as it is stored in the file; R may be 0.
        scores: per image, float32 (R,). Of each class, the 100 best of an image count.
        class_ids: per image, int (R,), rows of `annotations.class_names`.
        engine: "pycocotools", or "faster-coco-eval" (`pip install detfeed[faster]`) for the same figures sooner.

    Returns:
        `AP`, the mean over IoU 0.50 to 0.95 and all classes; `AP50`, `AP75`; `AP_small`, `AP_medium`, `AP_large` (areas
        up to 32², up to 96², above); `AR@1`, `AR@10`, `AR@100`, recall with so many detections of a class in an image;
        `AR@100_small`, `AR@100_medium`, `AR@100_large`; then `AP/NAME` for each class. NaN where there is no object;
        classes without objects are left out of means.

    Raises:
        ValueError: lists of other lengths, arrays of other shapes, numbers that are not finite, boxes with x1 < x0 or
            y1 < y0, class ids that `annotations` does not have, two classes of one name, federated annotations (LVIS
            has rules of its own), or an unknown engine.
        ModuleNotFoundError: the engine is not installed.

    Source: pycocotools' COCOeval, which does the work. One rule differs: COCOeval overlooks the flag `ignore` of a
        file, and counts such a box as an object unless it has `iscrowd` too.
    """
    if annotations.neg_classes is not None:
        raise ValueError(
            f"Expected annotations of all classes in each image. Received: {annotations}, which are federated. "
            "Score the file of `write_results` with the package lvis; or by COCO's rules all the same: "
            "dataclasses.replace(annotations, neg_classes=None, not_exhaustive_classes=None)"
        )
    _check_names(annotations)
    found = gather(annotations, boxes, scores, class_ids)
    evaluated = evaluate(annotations, found, max_detections=MAX_DETECTIONS, engine=engine)
    # (IoU thresholds, recalls, classes, areas, numbers of detections), and the same without recalls.
    precision, recall = evaluated["precision"], evaluated["recall"]
    result = {
        "AP": mean(precision[:, :, :, 0, -1]),
        "AP50": mean(precision[0, :, :, 0, -1]),
        "AP75": mean(precision[5, :, :, 0, -1]),
    }
    for area, name in list(enumerate(AREA_RANGES))[1:]:
        result[f"AP_{name}"] = mean(precision[:, :, :, area, -1])
    for number, most in enumerate(MAX_DETECTIONS):
        result[f"AR@{most}"] = mean(recall[:, :, 0, number])
    for area, name in list(enumerate(AREA_RANGES))[1:]:
        result[f"AR@{MAX_DETECTIONS[-1]}_{name}"] = mean(recall[:, :, area, -1])
    for class_id, name in enumerate(annotations.class_names):
        result[f"AP/{name}"] = mean(precision[:, :, class_id, 0, -1])
    return result


def voc_average_precision(
    annotations: Annotations,
    boxes: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    class_ids: Sequence[ArrayLike],
) -> dict[str, float]:
    """Pascal VOC's average precision at IoU 0.5, by both of its rules.

    All detections of a class, best first, look for the object of highest IoU in their image. One that reaches IoU 0.5
    with an object that no better one has taken is right; one whose object is ignored (`difficult`) counts neither way;
    every other one is wrong.

    Args:
        annotations, boxes, scores, class_ids: see `average_precision`. All detections of an image count.

    Returns:
        `AP50_area`, the area under the curve of precision over recall (VOC2010 to VOC2012), and `AP50_11points`, the
        mean of precision at the recalls 0, 0.1, ... 1 (VOC2007), both as means over the classes that have objects;
        then `AP50_area/NAME` and `AP50_11points/NAME` for each class. NaN where there is no object.

    Raises:
        ValueError: see `average_precision`.

    Source: VOCevaldet.m of the VOC2012 and VOC2007 devkits. Their boxes count pixels, inclusive and from 1: `read_voc`
        turns them to edges, between which IoU is the same. Detections of equal score follow the order of images here.
    """
    _check_names(annotations)
    found = gather(annotations, boxes, scores, class_ids)
    best_rows, best_ious = _best_objects(annotations, found)
    ignored = np.append(annotations.ignore, False)  # the last for row -1, no object
    by_rule: dict[str, list[float]] = {"AP50_area": [], "AP50_11points": []}
    for class_id in range(len(annotations.class_names)):
        num_objects = int(np.count_nonzero(~annotations.ignore & (annotations.class_ids == class_id)))
        rows = np.flatnonzero(found.class_ids == class_id)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        objects = np.where(best_ious[rows] >= VOC_IOU, best_rows[rows], -1)
        objects = objects[~ignored[objects]]
        right = np.zeros(len(objects), bool)
        right[np.unique(objects, return_index=True)[1]] = True  # the best one of each object
        hits = np.cumsum(right & (objects >= 0), dtype=np.int64)
        precision = hits / np.arange(1, len(hits) + 1)
        by_rule["AP50_area"].append(_area_under(hits, precision, num_objects))
        by_rule["AP50_11points"].append(_mean_of_11_points(hits, precision, num_objects))
    result = {name: _mean_of_classes(values) for name, values in by_rule.items()}
    for rule, values in by_rule.items():
        result |= {f"{rule}/{name}": value for name, value in zip(annotations.class_names, values, strict=True)}
    return result


class DetectionColumns(NamedTuple):
    """The detections of all images in columns, those of an image side by side."""

    positions: NDArray[np.int64]  # (R,), of their images
    boxes: Floats  # (R, 4), xyxy pixels of the image
    scores: Floats  # (R,)
    class_ids: NDArray[np.int64]  # (R,)

    @property
    def boxes_xywh(self) -> Floats:
        """Left, top, width and height, float64 (R, 4)."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)


def gather(
    annotations: Annotations,
    boxes: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    class_ids: Sequence[ArrayLike] | None = None,
) -> DetectionColumns:
    """Check detections image by image, and put them into columns; without `class_ids`, all are of class 0.

    Raises:
        ValueError: see `average_precision`.
    """
    lists = {"boxes": boxes, "scores": scores} | ({} if class_ids is None else {"class_ids": class_ids})
    lengths = [len(arrays) for arrays in lists.values()]
    if any(length != len(annotations) for length in lengths):
        raise ValueError(
            f"Expected {', '.join(lists)} for each of {len(annotations)} images. "
            f"Received: {', '.join(map(str, lengths))}"
        )
    checked = [
        _checked(annotations, position, {name: arrays[position] for name, arrays in lists.items()})
        for position in range(len(annotations))
    ] or [(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))]
    positions = np.repeat(np.arange(len(checked)), [len(parts[0]) for parts in checked])
    return DetectionColumns(
        positions=positions,
        boxes=np.concatenate([parts[0] for parts in checked]),
        scores=np.concatenate([parts[1] for parts in checked]),
        class_ids=np.concatenate([parts[2] for parts in checked]),
    )


def _checked(
    annotations: Annotations, position: int, given: Mapping[str, ArrayLike]
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """The arrays of one image, as float64 and int64."""
    boxes, scores = np.asarray(given["boxes"], np.float64), np.asarray(given["scores"], np.float64)
    class_ids = np.asarray(given.get("class_ids", np.zeros(len(boxes), np.int64)))
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    class_ids = class_ids.astype(np.int64) if class_ids.size == 0 else class_ids
    place = f"of image {annotations.image_id(position)!r} (position {position}, {annotations.paths[position]})"
    count = len(boxes)
    if boxes.shape != (count, 4) or scores.shape != (count,) or class_ids.shape != (count,):
        raise ValueError(
            "Expected boxes (R, 4) and R scores and class_ids. "
            f"Received: {boxes.shape}, {scores.shape} and {class_ids.shape} {place}"
        )
    if class_ids.dtype.kind not in "iu":
        raise ValueError(f"Expected class_ids to be integers. Received: {class_ids.dtype} {place}")
    num_classes = max(len(annotations.class_names), 1 if "class_ids" not in given else 0)
    for what, good in (
        ("finite boxes", np.isfinite(boxes).all(axis=1)),
        ("boxes with x0 <= x1 and y0 <= y1", (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)),
        ("finite scores", np.isfinite(scores)),
        (f"class_ids from 0 to {num_classes - 1}", (class_ids >= 0) & (class_ids < num_classes)),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                f"Expected {what}. Received: box {boxes[row].tolist()}, score {scores[row]}, class_id {class_ids[row]} "
                f"- at detection {row} {place}"
            )
    return boxes, scores, class_ids.astype(np.int64)


def _check_names(annotations: Annotations) -> None:
    names = annotations.class_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Expected classes of different names. Received: {twice[0]!r} {names.count(twice[0])} times. "
            "annotations.rename_classes({}) makes one class of them"
        )


def evaluate(
    annotations: Annotations,
    found: DetectionColumns,
    *,
    max_detections: Sequence[int],
    by_class: bool = True,
    engine: Engine = "pycocotools",
) -> dict[str, Floats]:
    """COCOeval's tables, with -1 where there is no object.

    Args:
        annotations: the truth.
        found: the detections.
        max_detections: numbers M of detections of an image that count.
        by_class: whether a detection must be of its object's class; else there is one class.
        engine: what does the work.

    Returns:
        `precision` float64 (10 IoU thresholds, 101 recalls, C, areas, M), `recall` float64 (10, C, areas, M); areas as
        in `AREA_RANGES`.

    Raises:
        ValueError: an unknown engine.
        ModuleNotFoundError: the engine is not installed.
    """
    coco_class, evaluation_class = _load_engine(engine)
    classes = range(len(annotations.class_names) if by_class else 1)
    if not len(annotations) or not classes:  # of which COCOeval makes tables of other shapes, or none
        shape = (10, 101, len(classes), len(AREA_RANGES), len(max_detections))
        return {"precision": np.full(shape, -1.0), "recall": np.full((shape[0], *shape[2:]), -1.0)}
    # Images are numbered in the order of their ids, since that is the order of detections of equal score.
    numbers = np.unique(annotations.image_ids, return_inverse=True)[1]
    truth = DetectionColumns(
        positions=annotations.positions,
        boxes=annotations.boxes.astype(np.float64),
        scores=np.zeros(len(annotations.boxes)),
        class_ids=annotations.class_ids.astype(np.int64),
    )
    sides = []
    for side, areas, crowd in (
        (truth, annotations.areas.astype(np.float64), annotations.ignore),
        (found, found.boxes_xywh[:, 2:].prod(axis=1), np.zeros(len(found.boxes), bool)),
    ):
        coco = coco_class()
        coco.dataset = {
            "images": [{"id": number} for number in range(len(annotations))],
            "categories": [{"id": class_id, "name": str(class_id)} for class_id in classes],
            "annotations": _rows(side, numbers, areas, crowd, by_class=by_class),
        }
        sides.append(coco)
    with contextlib.redirect_stdout(io.StringIO()):
        for coco in sides:
            coco.createIndex()
        evaluation = evaluation_class(*sides, iouType="bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.params.areaRng = [list(limits) for limits in AREA_RANGES.values()]
        evaluation.params.areaRngLbl = list(AREA_RANGES)
        evaluation.evaluate()
        evaluation.accumulate()
    return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}


def mean(values: Floats) -> float:
    """COCO's mean, over what is not -1; NaN without any."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


def _load_engine(engine: str) -> tuple[Any, Any]:
    """The classes COCO and COCOeval of an engine, imported only where they are used: that takes a third of a second."""
    if engine not in get_args(Engine):
        raise ValueError(f"Expected engine to be one of {get_args(Engine)}. Received: {engine!r}")
    coco, evaluation, name = _ENGINES[engine]
    try:
        return importlib.import_module(coco).COCO, getattr(importlib.import_module(evaluation), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Expected the package {engine} to be installed: pip install {engine}", name=error.name
        ) from error


def _rows(
    side: DetectionColumns, numbers: NDArray[np.int64], areas: Floats, crowd: NDArray[np.bool_], *, by_class: bool
) -> list[dict[str, Any]]:
    """COCO's annotations, of the truth or of detections; ids from 1, since COCOeval takes an id 0 for no match."""
    columns = (
        range(1, len(areas) + 1),
        numbers[side.positions].tolist(),
        (side.class_ids if by_class else np.zeros_like(side.class_ids)).tolist(),
        side.boxes_xywh.tolist(),
        areas.tolist(),
        side.scores.tolist(),
        crowd.astype(int).tolist(),
    )
    names = ("id", "image_id", "category_id", "bbox", "area", "score", "iscrowd")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _best_objects(annotations: Annotations, found: DetectionColumns) -> tuple[NDArray[np.int64], Floats]:
    """For each detection the row of the object of its class and image with the highest IoU, the first among equals.

    Returns:
        int64 (R,), -1 without any, and the IoU, float64 (R,).
    """
    best_rows, best_ious = np.full(len(found.boxes), -1), np.zeros(len(found.boxes))
    starts = np.searchsorted(found.positions, np.arange(len(annotations) + 1))
    for position in range(len(annotations)):
        mine, rows = slice(starts[position], starts[position + 1]), annotations.rows(position)
        if mine.start == mine.stop or rows.start == rows.stop:
            continue
        truth: Any = annotations.boxes[rows].astype(np.float64)
        boxes: Any = found.boxes[mine]
        ious = geometry.iou(boxes, truth)
        ious[found.class_ids[mine, None] != annotations.class_ids[rows]] = 0
        best_ious[mine] = ious.max(axis=1)
        best_rows[mine] = np.where(best_ious[mine] > 0, rows.start + ious.argmax(axis=1), -1)
    return best_rows, best_ious


def _area_under(hits: NDArray[np.int64], precision: Floats, num_objects: int) -> float:
    """Area under the curve of precision over recall, made to fall first; NaN without objects."""
    if not num_objects:
        return float("nan")
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits, prepend=0) * falling) / num_objects)


def _mean_of_11_points(hits: NDArray[np.int64], precision: Floats, num_objects: int) -> float:
    """Mean of the highest precision at recalls of at least 0, 0.1, ... 1; NaN without objects."""
    if not num_objects:
        return float("nan")
    # In whole numbers: three of ten objects have recall 0.3, whatever rounding makes of 3 times 0.1.
    return float(np.mean([precision[10 * hits >= tenth * num_objects].max(initial=0) for tenth in range(11)]))


def _mean_of_classes(values: Sequence[float]) -> float:
    """Mean over the classes that have objects; NaN without any."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")
