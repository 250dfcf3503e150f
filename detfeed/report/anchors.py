"""Anchors: how well those of the gallery cover the data, and what would cover it better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from detfeed.annotations import Annotations
from detfeed.coverage.anchor_coverage import HISTOGRAM, AnchorCoverage, Group, anchor_coverage
from detfeed.coverage.suggestion import AnchorSuggestion, suggest_anchors
from detfeed.images.canvases import Resize
from detfeed.report.charts import Chart, chart
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.anchors import AnchorGrid

# 10,000 images with 7 boxes tell a share to 0.4 %, in seconds.
MOST_IMAGES = 10_000
_MOST_CLASSES = 20
_STATES = ("true positive", "low quality only", "none")


class Fit(NamedTuple):
    """How well anchors fit.

    Attributes:
        sentences: for the page.
        first: for the list of what to look at first; empty if the anchors are as good as any that were found.
        charts: by name.
        python, options: the suggestion, to paste; empty if none is better.
    """

    sentences: list[str]
    first: str
    charts: dict[str, Chart]
    python: str
    options: str


def fit(
    tables: Mapping[str, Annotations], targets: AnchorTargets, *, resize: Resize, augment: Any, seed: int
) -> Fit | None:
    """Look at the anchors of `targets`.

    Args:
        tables: the data sets by name, the training data first.
        resize, augment, seed: of the feed of training data; validation data is not augmented.

    Returns:
        None if there is nothing to cover.
    """
    names = list(tables)
    coverages = {
        name: anchor_coverage(
            table,
            targets,
            resize=resize,
            augment=augment if name == names[0] else None,
            seed=seed,
            max_images=MOST_IMAGES,
        )
        for name, table in tables.items()
        if len(table)
    }
    if not coverages or not len(coverages[names[0]].rows):
        return None
    suggestion = suggest_anchors(
        tables[names[0]],
        targets,
        resize=resize,
        augment=augment,
        seed=seed,
        check_on=tables[names[1]] if len(coverages) > 1 else None,
        max_images=MOST_IMAGES,
    )
    sentences = [f"{name}: {_plain(coverage.summary_line())}." for name, coverage in coverages.items()]
    train = coverages[names[0]]
    balance = train.balance()
    sentences.append(
        f"An image of {names[0]} has {balance['positive']:.1f} positive anchors on average, "
        f"{balance['low_quality']:.1f} of them of low quality, and {balance['negative']:,.0f} negative ones; "
        f"{balance['sampled_positive']:.1f} and "
        f"{balance['sampled_negative']:.1f} are sampled for the loss."
    )
    sentences.append(f"Suggestion: {_plain(suggestion.summary_line())}.")
    better = suggestion.is_better
    return Fit(
        sentences,
        f"{_plain(suggestion.summary_line())}." if better else "",
        _charts(train, suggestion),
        suggestion.python if better else "",
        suggestion.options if better else "",
    )


def smallest_side(grid: AnchorGrid) -> float:
    """Side of the smallest anchor in pixels: the root of its area."""
    return round(min(math.sqrt(width * height) for cell in grid.cell_sizes_wh for width, height in cell), 3)


def _plain(line: str) -> str:
    return line.removeprefix("anchors: ")


def _charts(coverage: AnchorCoverage, suggestion: AnchorSuggestion) -> dict[str, Chart]:
    classes = sorted((group for group in coverage.by_class() if group.count), key=lambda group: group.positive)
    more = len(classes) - _MOST_CLASSES
    return {
        "anchors-iou": _ious(coverage, suggestion),
        "anchors-size": _bars("By size as fed, in pixels", coverage.by_size()),
        "anchors-ratio": _bars("By height / width", coverage.by_ratio()),
        "anchors-class": _bars(
            "By class", classes[:_MOST_CLASSES], f"the {_MOST_CLASSES} worst of {len(classes)}" if more > 0 else ""
        ),
        "anchors-level": _bars("By level of the best anchor", coverage.by_level()),
    }


def _ious(coverage: AnchorCoverage, suggestion: AnchorSuggestion) -> Chart:
    """Histogram of the best IoU of each object; with a suggestion before and after, of images it was not fitted to."""
    given = {"these anchors": coverage}
    summary = "the highest IoU that an anchor has with each object"
    if suggestion.is_better:
        given = {"these anchors": suggestion.before, "suggested": suggestion.after}
        summary += ", of images that the suggestion was not fitted to"
    rows = [
        {
            "from": HISTOGRAM[place],
            "to": HISTOGRAM[place + 1],
            "anchors": name,
            "objects": count,
            "share": count / max(len(each.rows), 1),
        }
        for name, each in given.items()
        for place, count in enumerate(each.histogram().tolist())
    ]
    names = list(given)
    legend = {"orient": "top", "title": None} if len(names) > 1 else None
    return chart(
        "Best IoU of each object",
        rows,
        summary,
        mark={"type": "rect", "opacity": 0.55},
        encoding={
            "x": {"field": "from", "type": "quantitative", "title": "IoU", "scale": {"domain": [0, 1]}},
            "x2": {"field": "to"},
            "y": {
                "field": "share",
                "type": "quantitative",
                "stack": None,
                "title": "share of objects",
                "axis": {"format": "%"},
            },
            "y2": {"datum": 0},
            "color": {"field": "anchors", "type": "nominal", "sort": names, "legend": legend},
            "tooltip": [
                {"field": "anchors"},
                {"field": "from"},
                {"field": "to"},
                {"field": "objects"},
                {"field": "share", "format": ".1%"},
            ],
        },
    )


def _bars(title: str, groups: Sequence[Group], summary: str = "") -> Chart:
    """Shares of objects with a true positive, with a low-quality match only, and with none."""
    shown = [group for group in groups if group.count]
    rows = [
        {"group": group.name, "state": state, "place": place, "share": share, "objects": group.count}
        for group in shown
        for place, (state, share) in enumerate(
            zip(_STATES, (group.positive, group.low_quality, group.unmatched), strict=True)
        )
    ]
    return chart(
        title,
        rows,
        summary,
        height=max(60, 22 * len(shown)),
        mark={"type": "bar"},
        encoding={
            "y": {
                "field": "group",
                "type": "nominal",
                "sort": [group.name for group in shown],
                "title": None,
                "axis": {"labelLimit": 130},
            },
            "x": {
                "field": "share",
                "type": "quantitative",
                "stack": "zero",
                "title": "share of objects",
                "axis": {"format": "%"},
                "scale": {"domain": [0, 1]},
            },
            "color": {
                "field": "state",
                "type": "nominal",
                "sort": list(_STATES),
                "scale": {"domain": list(_STATES), "range": ["#009e73", "#e69f00", "#d55e00"]},
                "legend": {"orient": "top", "title": None},
            },
            "order": {"field": "place"},
            "tooltip": [
                {"field": "group"},
                {"field": "state", "title": "anchor"},
                {"field": "share", "format": ".1%"},
                {"field": "objects"},
            ],
        },
    )
