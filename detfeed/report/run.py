"""Run: what a training left in its folder, read for a page."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detfeed.annotations import Annotations
from detfeed.average_precision import DetectionColumns
from detfeed.errors import AnnotationError, shorten
from detfeed.readers.coco_results import read_results
from detfeed.readers.proposals import read_proposals

# All of a detector but its weights. `detfeed.models.detector` makes a model of it, for which it imports Keras.
DETECTOR = "detector.json"
FILES = ("log.csv", "metrics.json", "recall.json", "detections.json", "proposals.json")
# Proposals of an image that a page shows; a file has up to 1,000.
MOST_PROPOSALS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A folder that `scripts/train_rpn.py` or `scripts/train_faster_rcnn.py` wrote.

    Attributes:
        folder: where it is.
        log: of each epoch, the numbers by name; "epoch" counts from 0.
        scores: at the end: metrics.json, else recall.json; empty without either.
        found: detections of the validation images, or proposals of class -1; None if there are none.
        classes: whether `found` has classes.
        annotations: the validation data with the classes that those of `found` are; None without validation data.
    """

    folder: Path
    log: list[dict[str, float]]
    scores: dict[str, float]
    found: DetectionColumns | None
    classes: bool
    annotations: Annotations | None


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a run was started with; empty if it has none.

    Raises:
        AnnotationError: the file is no JSON of settings, or the folder has no file of a run.
    """
    if not any((folder / name).is_file() for name in (*FILES, "settings.json")):
        raise AnnotationError(
            f"{folder}: expected the folder of a run, with some of settings.json, {', '.join(FILES)}, got none of "
            "them; give the folder that was --out of the training"
        )
    settings = _read_object(folder / "settings.json")
    return {} if settings is None else settings


def read_run(folder: Path, annotations: Annotations | None, class_names: Sequence[str] = ()) -> Run:
    """Read the folder of a run.

    Args:
        folder: it may lack any of its files.
        annotations: the validation data of the run. None: its detections are not read.
        class_names: those of the training data, for a run that does not say which its detector knows.

    Raises:
        AnnotationError: a file of the run can't be read, or speaks of other images than `annotations`.
    """
    read_settings(folder)
    scores = _read_object(folder / "metrics.json") or _read_object(folder / "recall.json") or {}
    numbers = {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
    found, classes = None, False
    if annotations is not None and (folder / "detections.json").is_file():
        annotations = _with_classes(annotations, _class_names(folder) or class_names)
        found, classes = read_results(folder / "detections.json", annotations), True
    elif annotations is not None and (folder / "proposals.json").is_file():
        found = _best_proposals(folder / "proposals.json", annotations)
    return Run(folder, _read_log(folder / "log.csv"), numbers, found, classes, annotations)


def _class_names(folder: Path) -> list[str]:
    """The classes that the run's detector knows, in its order; none if the run does not say."""
    description = _read_object(folder / DETECTOR) or {}
    names = description.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AnnotationError(
            f"{folder / DETECTOR}: expected a list of names at `$.class_names`, got {shorten(str(names))}"
        )
    return names


def _with_classes(annotations: Annotations, class_names: Sequence[str]) -> Annotations:
    """The validation data as a training scored it: its classes begin with those of the detector, in their order.

    Category ids of classes that the data lacks come from their place in that order, so these come first. Classes that
    the data alone has follow: their objects are missed, and no reason to show nothing.
    """
    names = list(dict.fromkeys([*class_names, *annotations.class_names]))
    return annotations if tuple(names) == annotations.class_names else annotations.with_classes(names)


def _read_object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: expected a JSON object, got a file that is none: {error}") from None
    if not isinstance(content, dict):
        raise AnnotationError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _read_log(path: Path) -> list[dict[str, float]]:
    """Rows of the log; what is no finite number is left out, as epochs without a validation leave cells empty."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [{name: _number(value) for name, value in row.items() if name} for row in csv.DictReader(file)]
    logs = [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]
    return [row for row in logs if "epoch" in row]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _best_proposals(path: Path, annotations: Annotations) -> DetectionColumns:
    """The best proposals of each image, all of class -1."""
    proposals = read_proposals(path, annotations, missing="allow")
    rows = np.lexsort((-proposals.scores, proposals.positions))
    positions = proposals.positions[rows]
    place = np.arange(len(rows)) - proposals.offsets[positions]
    rows = rows[place < MOST_PROPOSALS]
    return DetectionColumns(
        proposals.positions[rows],
        proposals.boxes[rows].astype(np.float64),
        proposals.scores[rows].astype(np.float64),
        np.full(len(rows), -1),
    )
