"""Charts of a page, as specifications of Vega-Lite: what is counted is counted here, and the page only draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.check.findings import Checked, class_counts
from detfeed.report.speed import Stage
from detfeed.targets.anchors import AnchorGrid

Chart = dict[str, Any]

MOST_CLASSES = 40  # of a bar chart; a table has all of them
_MOST_SIZES = 300
_CELLS = 24  # a side of the map of places


def chart(title: str, values: Sequence[Mapping[str, Any]], summary: str = "", **spec: Any) -> Chart:
    """A chart as wide as its place on the page.

    Args:
        title: what it shows.
        values: its rows.
        summary: one sentence for those who do not see it, and those who do.
        spec: the rest of its specification.
    """
    return {
        "title": title,
        "summary": summary,
        "spec": {"width": "container", "height": 240, "data": {"values": list(values)}, **spec},
    }


def class_bars(checked: Sequence[Checked]) -> Chart:
    """Share of objects by class and data set."""
    tables = _tables(checked)
    totals: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    for name, table in tables.items():
        counts[name] = {}
        for label, count in zip(table.class_names, class_counts(table).tolist(), strict=True):
            counts[name][label] = counts[name].get(label, 0) + count
            totals[label] = totals.get(label, 0) + count
    order = sorted(totals, key=lambda label: -totals[label])
    shown = order[:MOST_CLASSES]
    values = [
        {
            "class": label,
            "data": name,
            "objects": counts[name].get(label, 0),
            "share": counts[name].get(label, 0) / max(sum(counts[name].values()), 1),
        }
        for label in shown
        for name in tables
    ]
    summary = ""
    if order:
        most, least = order[0], order[-1]
        summary = f"{most} has {totals[most]} objects, {least} {totals[least]}"
        summary += f"; the {MOST_CLASSES} most frequent of {len(order)} classes" if len(order) > MOST_CLASSES else ""
    return chart(
        "Classes",
        values,
        summary,
        height=max(60, (26 if len(tables) > 1 else 18) * len(shown)),
        mark={"type": "bar"},
        encoding={
            "y": {"field": "class", "type": "nominal", "sort": shown, "title": None, "axis": {"labelLimit": 160}},
            "x": {"field": "share", "type": "quantitative", "title": "share of objects", "axis": {"format": "%"}},
            **({"yOffset": {"field": "data", "sort": list(tables)}} if len(tables) > 1 else {}),
            "color": _by_data(tables),
            "tooltip": [
                {"field": "class"},
                {"field": "data", "title": "data"},
                {"field": "objects"},
                {"field": "share", "format": ".2%"},
            ],
        },
    )


def size_lines(checked: Sequence[Checked], grid: AnchorGrid) -> Chart:
    """Distribution of the sides of objects as they are fed, with the sides of anchors."""
    sides = {one.name: one.fed_sides for one in checked if one.annotations is not None}
    anchor_sides = sorted({round(float(np.sqrt(w * h)), 1) for cell in grid.cell_sizes_wh for w, h in cell})
    everything = np.concatenate([*sides.values(), np.zeros(0, np.float32)])
    summary = ""
    if len(everything):
        low, median, high = np.quantile(everything, [0.05, 0.5, 0.95])
        summary = f"nine of ten objects are fed {low:.3g} to {high:.3g} pixels large, half of them under {median:.3g}"
    return _log_histogram(
        "Sizes of objects as fed", "root of area in pixels", sides, _near(anchor_sides), "anchor side", summary
    )


def ratio_lines(checked: Sequence[Checked], grid: AnchorGrid) -> Chart:
    """Distribution of height / width, with the ratios of anchors."""
    ratios = {}
    for name, table in _tables(checked).items():
        sides = (table.boxes[:, 2:] - table.boxes[:, :2])[~table.ignore]
        ratios[name] = sides[:, 1] / sides[:, 0]
    anchor_ratios = sorted({round(h / w, 2) for cell in grid.cell_sizes_wh for w, h in cell})
    return _log_histogram("Shapes of objects", "height / width", ratios, _near(anchor_ratios), "anchor ratio")


def _near(values: Sequence[float], within: float = 1.06) -> list[float]:
    """Values without those that differ from the one before by less than rounding makes of them."""
    kept: list[float] = []
    for value in values:
        if not kept or value > kept[-1] * within:
            kept.append(value)
    return kept


def _log_histogram(
    title: str,
    axis: str,
    data: Mapping[str, NDArray[np.floating]],
    marks: Sequence[float],
    mark: str,
    summary: str = "",
    per_octave: int = 4,
) -> Chart:
    """Shares by ranges of a fourth of an octave, as steps, with dashed lines where anchors are."""
    everything = np.concatenate([*data.values(), np.zeros(0, np.float32)])
    if not len(everything):
        return chart(title, [], "there are no objects")
    low, high = np.floor(np.log2(everything.min())), np.ceil(np.log2(everything.max()))
    edges = 2.0 ** np.arange(low, high + 1 / per_octave, 1 / per_octave)
    edges = np.append(edges, 2 * edges[-1]) if len(edges) < 2 else edges
    edges[-1] *= 1 + 1e-6
    rows = []
    for name, values in data.items():
        counts = np.histogram(values, edges)[0]
        for place, count in enumerate(counts.tolist()):
            rows.append(
                {
                    "from": round(float(edges[place]), 3),
                    "to": round(float(edges[place + 1]), 3),
                    "data": name,
                    "objects": count,
                    "share": count / max(len(values), 1),
                }
            )
    scale = {"type": "log", "base": 2, "domain": [float(edges[0]), float(edges[-1])], "nice": False}
    return chart(
        title,
        rows,
        summary,
        layer=[
            {
                "mark": {"type": "rect", "opacity": 0.55},
                "encoding": {
                    "y2": {"datum": 0},
                    "x": {"field": "from", "type": "quantitative", "scale": scale, "title": axis},
                    "x2": {"field": "to"},
                    "y": {
                        "field": "share",
                        "type": "quantitative",
                        "stack": None,
                        "title": "share of objects",
                        "axis": {"format": "%"},
                    },
                    "color": _by_data(data),
                    "tooltip": [
                        {"field": "data"},
                        {"field": "from", "format": ".4~g"},
                        {"field": "to", "format": ".4~g"},
                        {"field": "objects"},
                        {"field": "share", "format": ".2%"},
                    ],
                },
            },
            {
                "data": {"values": [{"at": value, "what": mark} for value in marks if edges[0] <= value <= edges[-1]]},
                "mark": {"type": "rule", "strokeDash": [4, 3], "size": 2},
                "encoding": {
                    "x": {"field": "at", "type": "quantitative"},
                    "tooltip": [{"field": "at", "title": mark}],
                },
            },
        ],
    )


def place_map(name: str, table: Annotations) -> Chart:
    """Where objects lie in their images: the share of objects that cover each cell."""
    rows = [
        {"x": x, "x2": x + 1, "y": y, "y2": y + 1, "share": round(float(share), 5)}
        for (y, x), share in np.ndenumerate(covered_shares(table))
    ]
    scale = {"domain": [0, _CELLS], "nice": False}
    return chart(
        f"Places of objects in {name}",
        rows,
        "each cell is a part of all images, the top left one at the top left: the share of objects that cover it",
        height=260,
        mark={"type": "rect"},
        encoding={
            "x": {"field": "x", "type": "quantitative", "axis": None, "scale": scale},
            "x2": {"field": "x2"},
            "y": {"field": "y", "type": "quantitative", "axis": None, "scale": {**scale, "reverse": True}},
            "y2": {"field": "y2"},
            "color": {
                "field": "share",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "zero": True},
                "legend": {"format": ".1%", "title": "cover it"},
            },
            "tooltip": [{"field": "share", "format": ".2%"}],
        },
    )


def covered_shares(table: Annotations, cells: int = _CELLS) -> NDArray[np.float64]:
    """Share of the objects that cover the centre of each cell of their image, float64 (cells, cells)."""
    objects = ~table.ignore
    image_hw = table.image_hw[table.positions][objects].astype(np.float64)
    boxes = table.boxes[objects].astype(np.float64) / image_hw[:, [1, 0, 1, 0]] * cells
    # A cell is covered if its centre is, from the first centre at or after x0 to the last one before x1.
    first, last = np.ceil(boxes[:, :2] - 0.5).astype(int), np.ceil(boxes[:, 2:] - 0.5).astype(int)
    changes = np.zeros((cells + 1, cells + 1))
    for rows, columns, sign in (
        (first[:, 1], first[:, 0], 1),
        (first[:, 1], last[:, 0], -1),
        (last[:, 1], first[:, 0], -1),
        (last[:, 1], last[:, 0], 1),
    ):
        np.add.at(changes, (rows.clip(0, cells), columns.clip(0, cells)), sign)
    covered = changes.cumsum(axis=0).cumsum(axis=1)[:cells, :cells]
    return covered / max(len(boxes), 1)


def count_bars(checked: Sequence[Checked]) -> Chart:
    """Distribution of the number of objects in an image."""
    counts = {
        name: np.bincount(table.positions[~table.ignore], minlength=len(table))
        for name, table in _tables(checked).items()
    }
    most = max((int(each.max(initial=0)) for each in counts.values()), default=0)
    step = max(1, -(-(most + 1) // 40))
    rows = []
    for name, each in counts.items():
        for start, images in enumerate(np.bincount(each // step, minlength=most // step + 1).tolist()):
            label = str(start * step) if step == 1 else f"{start * step} to {start * step + step - 1}"
            rows.append(
                {
                    "from": start * step,
                    "to": start * step + step,
                    "objects": label,
                    "data": name,
                    "images": images,
                    "share": images / max(len(each), 1),
                }
            )
    everything = np.concatenate([*counts.values(), np.zeros(0, np.int64)])
    summary = f"{everything.mean():.1f} objects an image on average, at most {most}" if len(everything) else ""
    return chart(
        "Objects in an image",
        rows,
        summary,
        mark={"type": "rect", "opacity": 0.55},
        encoding={
            "y2": {"datum": 0},
            "x": {"field": "from", "type": "quantitative", "title": "objects", "scale": {"nice": False}},
            "x2": {"field": "to"},
            "y": {
                "field": "share",
                "type": "quantitative",
                "stack": None,
                "title": "share of images",
                "axis": {"format": "%"},
            },
            "color": _by_data(counts),
            "tooltip": [
                {"field": "data"},
                {"field": "objects"},
                {"field": "images"},
                {"field": "share", "format": ".2%"},
            ],
        },
    )


def image_sizes(checked: Sequence[Checked]) -> Chart:
    """Widths and heights of the images, a circle for each pair."""
    rows = []
    tables = _tables(checked)
    kinds = 0
    for name, table in tables.items():
        sizes, counts = np.unique(table.image_hw, axis=0, return_counts=True)
        kinds = max(kinds, len(sizes))
        order = np.argsort(-counts, kind="stable")[:_MOST_SIZES]
        for (height, width), count in zip(sizes[order].tolist(), counts[order].tolist(), strict=True):
            rows.append({"width": width, "height": height, "images": count, "data": name})
    summary = f"{kinds} sizes" + (f"; the {_MOST_SIZES} most frequent are shown" if kinds > _MOST_SIZES else "")
    return chart(
        "Sizes of images",
        rows,
        summary,
        mark={"type": "circle", "opacity": 0.7},
        encoding={
            "x": {"field": "width", "type": "quantitative", "scale": {"zero": False}},
            "y": {"field": "height", "type": "quantitative", "scale": {"zero": False}},
            "size": {"field": "images", "type": "quantitative", "legend": None, "scale": {"range": [30, 600]}},
            "color": _by_data(tables),
            "tooltip": [{"field": "width"}, {"field": "height"}, {"field": "images"}, {"field": "data"}],
        },
    )


def stage_bars(stages: Sequence[Stage]) -> Chart:
    """Time of each stage of the feed."""
    rows = [{"stage": name, "ms": round(milliseconds, 3)} for name, milliseconds in stages]
    return chart(
        "Time of each stage",
        rows,
        "milliseconds for an image on one thread",
        height=28 * len(stages),
        mark={"type": "bar"},
        encoding={
            "y": {"field": "stage", "type": "nominal", "sort": [name for name, _ in stages], "title": None},
            "x": {"field": "ms", "type": "quantitative", "title": "ms for an image"},
            "tooltip": [{"field": "stage"}, {"field": "ms"}],
        },
    )


def _tables(checked: Sequence[Checked]) -> dict[str, Annotations]:
    return {one.name: one.annotations for one in checked if one.annotations is not None}


def _by_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Colour by data set; a legend only where there are two."""
    legend = {"orient": "top", "title": None} if len(data) > 1 else None
    return {"field": "data", "type": "nominal", "sort": list(data), "legend": legend}
