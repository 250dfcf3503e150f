"""Results: charts, tables and pictures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.average_precision import DetectionColumns
from detfeed.errors import ImageError
from detfeed.images.decoding import read_image
from detfeed.report.charts import Chart, chart
from detfeed.report.pictures import LARGE, Layer, Pictures, Shape, box
from detfeed.report.run import Run
from detfeed.report.scoring import (
    MIN_IOU,
    ClassScores,
    Judged,
    confusion,
    errors_by_image,
    judge,
    score_classes,
)

WORST = 24
_MOST_CURVES = 8  # colours that can be told apart
_MOST_CONFUSED = 20
_LEGEND = {"orient": "bottom", "columns": 3, "symbolType": "stroke", "labelLimit": 120}


def log_charts(run: Run) -> list[Chart]:
    """Curves of what the log has, by epoch: losses, scores and the rest, each in a chart of its own."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in run.log for name in row if name != "epoch"):
        groups.setdefault(_group(name), []).append(name)
    charts = []
    for title in ("Losses", "Scores", "Scores by class", "Learning rate", "Feed"):
        names = groups.get(title, [])
        left_out = ""
        if title == "Scores by class" and len(names) > _MOST_CURVES:
            last = {name: [row[name] for row in run.log if name in row][-1] for name in names}
            names = sorted(names, key=lambda name: last[name])[:_MOST_CURVES]
            left_out = f"the {_MOST_CURVES} lowest of {len(last)}"
        elif len(names) > _MOST_CURVES:
            left_out = f"the first {_MOST_CURVES} of {len(names)} of the log"
            names = names[:_MOST_CURVES]
        if names:
            charts.append(_curves(title, names, run.log, left_out))
    return charts


def _group(name: str) -> str:
    if "loss" in name:
        return "Losses"
    if "/" in name:
        return "Scores by class"
    if name.startswith(("AP", "mAP", "AR", "recall")):
        return "Scores"
    return "Learning rate" if "rate" in name else "Feed"


def _curves(title: str, names: Sequence[str], log: Sequence[Mapping[str, float]], summary: str) -> Chart:
    # One curve for each name, with dashes as well as colours.
    rows: list[dict[str, Any]] = [
        {"epoch": int(row["epoch"]) + 1, "name": name, "value": row[name]}
        for row in log
        for name in names
        if name in row
    ]
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    return chart(
        title,
        rows,
        summary,
        mark={"type": "line", "point": {"size": 25, "strokeDash": [1, 0]}},
        params=[{"name": "chosen", "select": {"type": "point", "fields": ["name"]}, "bind": "legend"}],
        encoding={
            "x": {
                "field": "epoch",
                "type": "quantitative",
                "axis": {"format": "d", "tickMinStep": 1},
                "scale": {"domain": [first, max(last, first + 1)], "nice": False},
            },
            "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": title != "Learning rate"}},
            "color": {**_by("name", names), "legend": _LEGEND},
            "strokeDash": {**_by("name", names), "legend": None},
            "opacity": {"condition": {"param": "chosen", "value": 1}, "value": 0.15},
            "tooltip": [{"field": "name"}, {"field": "epoch"}, {"field": "value", "format": ".4~g"}],
        },
    )


def _by(field: str, order: Sequence[str]) -> dict[str, Any]:
    return {"field": field, "type": "nominal", "sort": list(order), "title": None}


class Results:
    """What a run's detections show about its classes and images.

    Args:
        run: with detections that have classes.
        annotations: its validation data; at least one class.
        train_counts: int64 (C,), objects of each class in the training data; None if it is unknown.
    """

    def __init__(self, run: Run, annotations: Annotations, train_counts: NDArray[np.int64] | None) -> None:
        if run.found is None or not run.classes:
            raise ValueError("Expected a run with detections. Received: one without")
        self.annotations = annotations
        self.found: DetectionColumns = run.found
        self.judged: Judged = judge(annotations, run.found)
        self.scores: ClassScores = score_classes(annotations, run.found)
        self.train_counts = train_counts
        scored = np.flatnonzero(~np.isnan(self.scores.ap))
        self.by_ap: list[int] = scored[np.argsort(self.scores.ap[scored], kind="stable")].tolist()

    def table(self) -> list[dict[str, Any]]:
        """Rows of a table of classes, the one learned worst first."""
        names = self.annotations.class_names
        matrix = confusion(self.annotations, self.found, self.judged)
        rows = []
        for class_id in self.by_ap:
            taken = matrix[class_id, :-1].copy()
            right = int(taken[class_id])
            taken[class_id] = 0
            rows.append(
                {
                    "name": names[class_id],
                    "ap": float(self.scores.ap[class_id]),
                    "ap50": float(self.scores.ap50[class_id]),
                    "objects": int(self.scores.objects[class_id]),
                    "trained": None if self.train_counts is None else int(self.train_counts[class_id]),
                    "right": right,
                    "missed": int(matrix[class_id, -1]),
                    "mistaken": names[int(taken.argmax())] if taken.any() else "",
                    "mistaken_count": int(taken.max(initial=0)),
                    "nothing": int(matrix[-1, class_id]),
                }
            )
        return rows

    def curves(self) -> Chart:
        """Precision over recall at IoU 0.5 by class."""
        names = self.annotations.class_names
        shown = self.by_ap[:_MOST_CURVES]
        rows = [
            {"class": names[class_id], "recall": recall, "precision": round(float(precision), 4)}
            for class_id in shown
            for recall, precision in zip(
                np.round(np.linspace(0, 1, 101), 2).tolist(), self.scores.precision[:, class_id].tolist(), strict=True
            )
        ]
        summary = f"the {_MOST_CURVES} worst of {len(self.by_ap)} classes" if len(self.by_ap) > len(shown) else ""
        domain = {"domain": [0, 1]}
        order = [names[class_id] for class_id in shown]
        return chart(
            "Precision and recall at IoU 0.5",
            rows,
            summary,
            mark={"type": "line", "interpolate": "step-before"},
            params=[{"name": "chosen", "select": {"type": "point", "fields": ["class"]}, "bind": "legend"}],
            encoding={
                "x": {"field": "recall", "type": "quantitative", "scale": domain},
                "y": {"field": "precision", "type": "quantitative", "scale": domain},
                "order": {"field": "recall"},
                "color": {**_by("class", order), "legend": _LEGEND},
                "strokeDash": {**_by("class", order), "legend": None},
                "opacity": {"condition": {"param": "chosen", "value": 1}, "value": 0.15},
                "tooltip": [{"field": "class"}, {"field": "recall"}, {"field": "precision"}],
            },
        )

    def matrix(self) -> Chart:
        """Confusion of classes: what takes the objects of each."""
        matrix = confusion(self.annotations, self.found, self.judged)
        names = self.annotations.class_names
        classes = len(names)
        confused = matrix[:classes, :classes].copy()
        np.fill_diagonal(confused, 0)
        worth = confused.sum(axis=0) + confused.sum(axis=1) + matrix[:classes, classes] + matrix[classes, :classes]
        chosen = np.sort(np.argsort(-worth, kind="stable")[:_MOST_CONFUSED])
        objects = matrix.sum(axis=1)
        rows = []
        for row in [*chosen.tolist(), classes]:
            for column in [*chosen.tolist(), classes]:
                if row == column == classes:
                    continue
                rows.append(
                    {
                        "object": "(no object)" if row == classes else names[row],
                        "detection": "(missed)" if column == classes else names[column],
                        "count": int(matrix[row, column]),
                        "share": round(float(matrix[row, column] / max(objects[row], 1)), 4),
                    }
                )
        order = [names[class_id] for class_id in chosen]
        summary = f"score of at least {self.judged.threshold:.2f}, IoU of at least {MIN_IOU}; shares of each row"
        summary += f"; the {len(chosen)} classes with most errors of {classes}" if len(chosen) < classes else ""
        axes = {
            "y": {"field": "object", "type": "nominal", "sort": [*order, "(no object)"], "axis": {"labelLimit": 110}},
            "x": {
                "field": "detection",
                "type": "nominal",
                "sort": [*order, "(missed)"],
                "axis": {"labelAngle": -35, "labelLimit": 110},
            },
        }
        tooltip = [{"field": "object"}, {"field": "detection"}, {"field": "count"}, {"field": "share", "format": ".1%"}]
        layers: list[dict[str, Any]] = [
            {
                "mark": {"type": "rect"},
                "encoding": {
                    "color": {
                        "field": "share",
                        "type": "quantitative",
                        "legend": None,
                        "scale": {"scheme": "viridis", "domain": [0, 1]},
                    },
                    "tooltip": tooltip,
                },
            }
        ]
        if len(chosen) <= 10:
            layers.append(
                {
                    "mark": {"type": "text"},
                    "encoding": {
                        "text": {"field": "count"},
                        "color": {"condition": {"test": "datum.share > 0.6", "value": "#000"}, "value": "#fff"},
                        "tooltip": tooltip,
                    },
                }
            )
        return chart(
            "Confusion of classes",
            rows,
            summary,
            height=(30 if len(chosen) <= 10 else 18) * (len(chosen) + 1),
            layer=layers,
            encoding=axes,
        )

    def errors(self) -> NDArray[np.int64]:
        """See `errors_by_image`."""
        return errors_by_image(self.annotations, self.found, self.judged)

    def add_worst(self, pictures: Pictures, most: int = WORST) -> list[int]:
        """Add pictures of the images with most errors, in pixels of their files; their numbers."""
        errors = self.errors()
        order = np.argsort(-errors.sum(axis=1), kind="stable")
        chosen = [position for position in order[:most].tolist() if errors[position].any()]
        numbers = (self._add(pictures, position, errors[position]) for position in chosen)
        return [number for number in numbers if number is not None]

    def _add(self, pictures: Pictures, position: int, errors: NDArray[np.int64]) -> int | None:
        table = self.annotations
        height, width = table.image_hw[position].tolist()
        try:
            image = read_image(table.paths[position], annotated_hw=(height, width))
        except ImageError:
            return None  # a finding of the check says why
        missed, wrong = errors.tolist()
        return pictures.add(
            pictures.add_source(image, LARGE),
            image_hw=(height, width),
            title=f"image {table.image_id(position)}: {missed} missed, {wrong} wrong",
            notes=[table.paths[position]],
            layers=self.layers(position),
            errors=missed + wrong,
        )

    def layers(self, position: int, to_canvas: Callable[[Any], Any] = lambda boxes: boxes) -> dict[Layer, list[Shape]]:
        """Truth and detections of an image, with what became of each."""
        table, names = self.annotations, self.annotations.class_names
        rows = table.rows(position)
        found = self.judged.found(len(table.boxes))[rows]
        shapes: dict[Layer, list[Shape]] = {"truth": [], "ignored": []}
        corners = to_canvas(table.boxes[rows])
        for place, ignored in enumerate(table.ignore[rows].tolist()):
            name = names[int(table.class_ids[rows][place])]
            if ignored:
                shapes["ignored"].append(box(corners[place], f"ignored: {name}"))
            else:
                verdict, kind = ("found", "") if found[place] else ("missed", "unmatched")
                shapes["truth"].append(box(corners[place], f"{name}: {verdict}", kind))
        shapes["detections"] = self.detections(position, to_canvas)
        return shapes

    def detections(self, position: int, to_canvas: Callable[[Any], Any] = lambda boxes: boxes) -> list[Shape]:
        """The detections of an image whose score reaches the threshold, with what became of each."""
        table, names, judged = self.annotations, self.annotations.class_names, self.judged
        first, last = np.searchsorted(self.found.positions, (position, position + 1)).tolist()
        shapes = []
        for row in range(first, last):
            if not judged.shown[row]:
                continue
            taken = int(judged.objects[row])
            if judged.neutral[row]:
                verdict, kind = "ignored", "neutral"
            elif judged.right[row]:
                verdict, kind = "right", "right"
            elif taken >= 0:
                verdict, kind = f"wrong class, it is {names[int(table.class_ids[taken])]}", "wrong"
            else:
                verdict, kind = "wrong, no object left there", "wrong"
            text = f"{names[int(self.found.class_ids[row])]}, score {self.found.scores[row]:.2f}: {verdict}"
            (corners,) = to_canvas(self.found.boxes[row : row + 1])
            shapes.append(box(corners, text, kind, score=round(float(self.found.scores[row]), 3)))
        return shapes
