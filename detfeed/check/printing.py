"""Printing: a report as a table or as lines, and messages beside it."""

from __future__ import annotations

import collections
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from detfeed.annotations import Annotations
from detfeed.check.findings import Checked, Example, Finding, Report, class_counts
from detfeed.check.pictures import OnProgress
from detfeed.readers.bad_boxes import Kind

if TYPE_CHECKING:
    from rich.console import Console

# rich is imported where it is used: it takes 0.1 s, and most commands end without it.

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_MOST_CLASSES = 10
_SHOWN = 3  # printed examples of a finding; the JSON has all


def say(text: str) -> None:
    """Print one line on stderr."""
    print(printable(text), file=sys.stderr)


@contextlib.contextmanager
def progress(text: str) -> Iterator[OnProgress]:
    """Show a progress bar on stderr, if that is a terminal; yields a function of the numbers done and of all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_report(report: Report) -> None:
    """Print a report: as a table in a terminal, else as lines that are neither wrapped nor cut."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    lines = [
        line for data in report.checked if data.annotations is not None for line in _summary(data, data.annotations)
    ]
    if console.is_terminal:
        for line in lines:
            console.print(Text(line))
        if report.findings:
            _print_table(report, console)
        console.print(Text(_verdict(report)))
        return
    for finding in report.findings:
        what, *rest = _lines(finding)
        lines += [f"{finding.severity} ({finding.data}) {finding.kind}, {finding.count}: {what}", *rest]
    lines.append(_verdict(report))
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _verdict(report: Report) -> str:
    """The last line: what all findings together mean."""
    counts = collections.Counter(finding.severity for finding in report.findings)
    counted = [
        f"{counts[each]} {each}{'s' if counts[each] > 1 else ''}"
        for each in ("error", "warning", "note")
        if counts[each]
    ]
    if any(finding.kind == "unreadable" for finding in report.findings):
        meaning = "the annotations can't be read"
    elif counts["error"]:
        meaning = "training would stop, or lack what the errors name"
    elif counts["warning"]:
        meaning = "it can be trained on, but what the warnings name teaches something wrong or makes scores wrong"
    else:
        meaning = "it can be trained on"
    return f"verdict: {', '.join(counted) or 'no findings'}: {meaning}"


def _print_table(report: Report, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("count", justify="right")
    table.add_column("what, where, and what to do", overflow="fold")
    for finding in report.findings:
        table.add_row(
            Text(f"{finding.severity} ({finding.data})\n{finding.kind}", style=_STYLES[finding.severity]),
            str(finding.count),
            Text("\n".join(_lines(finding))),
        )
    console.print(table)


def _summary(data: Checked, table: Annotations) -> list[str]:
    """A line about a data set, and one about its most frequent classes."""
    line = (
        f"{data.name}: {len(table)} images, {len(table.boxes)} boxes ({int(table.ignore.sum())} ignored), "
        f"{len(table.class_names)} classes, from {printable(table.source)}"
    )
    if data.unread:
        line += f"; {count_files(data.unread)} can't be read, or only in part"
    if len(data.fed_sides):
        low, median, high = np.quantile(data.fed_sides, [0, 0.5, 1]).tolist()
        line += f"; objects are fed {low:.3g} to {high:.3g} pixels large, half of them under {median:.3g}"
    if not table.class_names:
        return [line]
    counts = class_counts(table)
    order = np.argsort(-counts, kind="stable")[:_MOST_CLASSES].tolist()
    return [line, objects_line(table, order)]


def objects_line(table: Annotations, class_ids: Sequence[int]) -> str:
    """How many objects of some classes there are, with "..." for the others."""
    counts = class_counts(table)
    named = [f"{table.class_names[class_id]} {counts[class_id]}" for class_id in class_ids]
    others = ["..."] if len(class_ids) < len(table.class_names) else []
    return printable(f"  objects: {', '.join([*named, *others])}")


def _lines(finding: Finding) -> list[str]:
    """What was found, the first places, and what to do."""
    lines = [finding.what, *(f"- {_place(example, finding.kind)}" for example in finding.examples[:_SHOWN])]
    if finding.count > _SHOWN:
        lines.append("- ...")
    if finding.advice:
        lines.append(f"> {finding.advice}")
    return [printable(line) for line in lines]


def _place(example: Example, kind: str) -> str:
    place = example.file
    if example.box is not None and kind not in get_args(Kind):  # the detail of a bad box has its place in the file
        place += f", box {example.box} (as read, counted from 0)"
    return f"{place}: {example.detail}" if example.detail else place


def count_files(count: int) -> str:
    """A number of files in words."""
    return "1 file" if count == 1 else f"{count} files"


def printable(text: str) -> str:
    """Text on one line without control characters, which a terminal would obey: file names may contain any."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
