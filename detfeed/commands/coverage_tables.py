"""Coverage tables: what `detfeed anchors` prints."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from detfeed.check.printing import printable
from detfeed.coverage.anchor_coverage import HISTOGRAM, AnchorCoverage, Group, percent
from detfeed.coverage.suggestion import AnchorSuggestion

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MOST_CLASSES = 10
_BAR = 24  # letters


def print_coverage(name: str, coverage: AnchorCoverage, *, advise: bool) -> None:
    """Print a table, what an image is made of, and a verdict.

    Args:
        name: of the data set.
        coverage: of it.
        advise: name --suggest where it may help.
    """
    console = _console()
    if coverage.all.count:
        _print_lines(console, f"\nobjects of {name}")
        console.print(_groups(coverage))
        _print_lines(console, "\nbest IoU of each object")
        console.print(_histogram(coverage))
    _print_lines(console, *_about_images(coverage), f"verdict: {_verdict(coverage, advise=advise)}")


def print_suggestion(suggestion: AnchorSuggestion) -> None:
    """Print what a suggestion gains on images that it was not fitted to, and what to paste."""
    from rich.table import Table

    console = _console()
    if suggestion.choice is None:
        _print_lines(console, suggestion.summary_line())
        return
    before, after = suggestion.before, suggestion.after
    _print_lines(
        console,
        f"\nsuggestion, checked on {len(before.positions):,} images; it was fitted to {suggestion.num_fitted:,} others",
    )
    table = Table()
    for column in ("", "given", "found"):
        table.add_column(column, justify="right" if column else "left")
    for what in ("positive", "low_quality", "unmatched"):
        table.add_row(_HEADS[what], *(percent(getattr(each.all, what)) for each in (before, after)))
    table.add_row("median of best IoUs", *(f"{each.all.median_iou:.2f}" for each in (before, after)))
    table.add_row("positive anchors an image", *(f"{each.balance()['positive']:.1f}" for each in (before, after)))
    console.print(table)
    if not suggestion.is_better:
        _print_lines(console, "verdict: keep the given anchors; what was found is not better beyond chance")
        return
    shares = [percent(each.all.positive) for each in (before, after)]
    _print_lines(
        console,
        *(
            f"warning: of {old.count:,} objects of class {printable(old.name)} only {percent(new.positive)} instead of "
            f"{percent(old.positive)} have a true positive"
            for old, new in suggestion.worse_classes()[:_MOST_CLASSES]
        ),
        f"verdict: {shares[1]} of the objects have a true positive instead of {shares[0]}, with",
        f"  {suggestion.python}",
        f"  {suggestion.options}",
    )


_HEADS = {"positive": "true positive", "low_quality": "low quality only", "unmatched": "none"}


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=100)


def _print_lines(console: Console, *lines: str) -> None:
    """Print lines that may be copied: the terminal wraps them."""
    from rich.text import Text

    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _groups(coverage: AnchorCoverage) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("", no_wrap=True)
    for column in ("objects", "median IoU", *_HEADS.values()):
        table.add_column(column, justify="right")
    by_class = [group for group in coverage.by_class() if group.count]
    worst = sorted(by_class, key=lambda group: group.positive)[:_MOST_CLASSES]
    of_classes = "class" if len(worst) == len(by_class) else f"class, the worst {len(worst)} of {len(by_class)}"
    sections = {
        "": [coverage.all],
        "size, pixels": coverage.by_size(),
        "height / width": coverage.by_ratio(),
        "stride and sizes of the best": _levels(coverage),
        of_classes: worst,
    }
    for head, groups in sections.items():
        if head:
            table.add_row(Text(head, style="bold"))
        for group in groups:
            if group.count:
                shares = (percent(getattr(group, what)) for what in _HEADS)
                indent = "  " if head else ""
                table.add_row(
                    Text(indent + printable(group.name)), f"{group.count:,}", f"{group.median_iou:.2f}", *shares
                )
        table.add_section()
    return table


def _levels(coverage: AnchorCoverage) -> list[Group]:
    """The groups of levels, with the sizes of their anchors."""
    groups = []
    for group, cells in zip(coverage.by_level(), coverage.anchors.cell_sizes_wh, strict=True):
        sizes = sorted({round(math.sqrt(width * height)) for width, height in cells})
        named = " ".join(map(str, sizes)) if len(sizes) <= 5 else f"{sizes[0]} to {sizes[-1]}"
        groups.append(dataclasses.replace(group, name=f"{group.name.removeprefix('stride ')}: {named}"))
    return groups


def _histogram(coverage: AnchorCoverage) -> Table:
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", justify="right")
    table.add_column("")
    counts = coverage.histogram()
    shares = counts / counts.sum()
    first = int(np.flatnonzero(counts)[0])
    for place in range(first, len(counts)):
        bar = "█" * round(_BAR * shares[place] / shares.max())
        edges = f"{HISTOGRAM[place]:.1f} to {HISTOGRAM[place + 1]:.1f}"
        table.add_row(edges, f"{counts[place]:,}", percent(shares[place]), bar)
    return table


def _about_images(coverage: AnchorCoverage) -> list[str]:
    """What an image is made of, in lines."""
    balance = coverage.balance()
    low, high = np.quantile(coverage.num_positive, [0.05, 0.95], method="nearest").tolist()
    samples = coverage.targets.num_samples
    drawn = balance["sampled_positive"]
    lines = [
        f"an image has {balance['positive']:.1f} positive anchors on average ({balance['low_quality']:.1f} of low "
        f"quality), in 90 % of images {low:,} to {high:,}, and {balance['negative']:,.0f} negative ones",
        f"of {samples} anchors drawn for the loss {drawn:.1f} are positive on average "
        f"({percent(drawn / samples)}); {percent(balance['without_positive'])} of images have none",
    ]
    looked_at = len(coverage.positions)
    if looked_at < coverage.num_images:
        lines.append(f"looked at {looked_at:,} of {coverage.num_images:,} images")
    if coverage.num_ignored:
        lines.append(f"not among the objects: {coverage.num_ignored:,} ignored")
    if coverage.num_lost:
        lines.append(f"lost to the augmentation: {coverage.num_lost:,}")
    return lines


def _verdict(coverage: AnchorCoverage, *, advise: bool) -> str:
    every = coverage.all
    if not every.count:
        return "no objects, so any anchors do"
    if every.positive >= 0.9 and every.unmatched < 0.01:
        return f"these anchors fit: {percent(every.positive)} of the objects have a true positive"
    misfits = coverage.misfits()
    total = sum(misfits.values())
    texts = {
        "smaller": "are smaller than anchors reach",
        "larger": "are larger",
        "elongated": "are flatter or narrower",
        "between": "lie between anchors in shape or place",
    }
    named = [f"{percent(count / total)} {texts[why]}" for why, count in misfits.items() if count]
    line = f"{percent(1 - every.positive)} of the objects have no true positive: of these {', '.join(named)}"
    return f"{line}; --suggest looks for better ones" if advise else line
