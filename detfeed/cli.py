"""The command line: `detfeed check`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from detfeed.check import RESIZE, Example, Read, Report, check
from detfeed.coco import read_coco, write_coco
from detfeed.csv_file import read_csv
from detfeed.files import is_url
from detfeed.images import ShortSide
from detfeed.kitti import read_kitti
from detfeed.lvis import read_lvis
from detfeed.openimages import read_openimages
from detfeed.voc import read_voc
from detfeed.yolo import read_yolo

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_SHOWN = 3  # examples in the table; the JSON has more

_TRAIN, _VAL, _FED, _OUT = "Data", "Validation data", "Size of the images fed", "Output"


@app.callback()
def main() -> None:
    """A data feed for training object detectors in Keras."""


@app.command("check")
def check_command(
    coco: Annotated[Path | None, typer.Option(help="COCO instances JSON.", rich_help_panel=_TRAIN)] = None,
    lvis: Annotated[Path | None, typer.Option(help="LVIS JSON.", rich_help_panel=_TRAIN)] = None,
    voc: Annotated[Path | None, typer.Option(help="Pascal VOC folder.", rich_help_panel=_TRAIN)] = None,
    yolo: Annotated[Path | None, typer.Option(help="YOLO's data.yaml.", rich_help_panel=_TRAIN)] = None,
    csv: Annotated[
        Path | None, typer.Option(help="CSV of boxes, as keras-retinanet takes it.", rich_help_panel=_TRAIN)
    ] = None,
    kitti: Annotated[Path | None, typer.Option(help="KITTI folder.", rich_help_panel=_TRAIN)] = None,
    openimages: Annotated[Path | None, typer.Option(help="OpenImages' CSV of boxes.", rich_help_panel=_TRAIN)] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images, of --coco, --lvis, --csv and --openimages.", rich_help_panel=_TRAIN),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="CSV of classes, of --csv and --openimages.", rich_help_panel=_TRAIN)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="VOC: list in ImageSets/Main, all images if none; YOLO: train if none.", rich_help_panel=_TRAIN
        ),
    ] = None,
    annotation_dir: Annotated[
        str, typer.Option(help="Folder of XML files in the VOC folder.", rich_help_panel=_TRAIN)
    ] = "Annotations",
    image_dir: Annotated[
        str, typer.Option(help="Folder of images in the VOC folder.", rich_help_panel=_TRAIN)
    ] = "JPEGImages",
    zero_based: Annotated[
        bool, typer.Option("--zero-based", help="VOC corners are edges that count from 0.", rich_help_panel=_TRAIN)
    ] = False,
    invalid: Annotated[
        Literal["clip", "drop", "ignore"], typer.Option(help="What to do about bad boxes.", rich_help_panel=_TRAIN)
    ] = "clip",
    val_coco: Annotated[Path | None, typer.Option(help="COCO instances JSON.", rich_help_panel=_VAL)] = None,
    val_voc: Annotated[Path | None, typer.Option(help="VOC folder; --voc if none.", rich_help_panel=_VAL)] = None,
    val_csv: Annotated[Path | None, typer.Option(help="CSV of boxes.", rich_help_panel=_VAL)] = None,
    val_images: Annotated[
        Path | None, typer.Option(help="Its folder of images; --images if none.", rich_help_panel=_VAL)
    ] = None,
    val_split: Annotated[str | None, typer.Option(help="Split of VOC or YOLO.", rich_help_panel=_VAL)] = None,
    short_side: Annotated[int, typer.Option(min=1, help="Shorter side in pixels.", rich_help_panel=_FED)] = RESIZE.size,
    max_side: Annotated[
        int | None, typer.Option(min=1, help="Longer side at most; 5/3 of the shorter if none.", rich_help_panel=_FED)
    ] = None,
    smallest_anchor: Annotated[
        float, typer.Option(min=0, help="Side of the smallest anchors in pixels.", rich_help_panel=_FED)
    ] = 32.0,
    fast: Annotated[bool, typer.Option("--fast", help="Read headers of images only.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; as many as cores if none.")] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the report as JSON; - prints it.", rich_help_panel=_OUT),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write a COCO JSON of the images that can be fed, with bad boxes treated as --invalid says.",
            rich_help_panel=_OUT,
        ),
    ] = None,
) -> None:
    """Look for what is wrong with a data set, where, and what to do about it.

    Exit status: 0 if there is nothing but notes, 1 if there are errors or warnings, 2 if annotations can't be read or
    a file can't be written.
    """
    given = {"coco": coco, "lvis": lvis, "voc": voc, "yolo": yolo, "csv": csv, "kitti": kitti, "openimages": openimages}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        got = " and ".join(f"--{name}" for name in named) or "none"
        raise typer.BadParameter(f"give one of {', '.join(f'--{name}' for name in given)}, got {got}")
    for option, value, sources, needed_by in (
        ("--images", images, ("coco", "lvis", "csv", "openimages"), ("coco", "lvis", "openimages")),
        ("--classes", classes, ("csv", "openimages"), ("csv", "openimages")),
        ("--split", split, ("voc", "yolo"), ()),
    ):
        if value is None and named[0] in needed_by:
            raise typer.BadParameter(f"--{named[0]} needs {option}")
        if value is not None and named[0] not in sources:
            raise typer.BadParameter(f"{option} goes with {' or '.join(f'--{name}' for name in sources)}")

    def reader(
        coco: Path | None, voc: Path | None, yolo: Path | None, csv: Path | None, images: Path | None, split: str | None
    ) -> Read | None:
        if coco and images:
            return lambda: read_coco(coco, images, invalid=invalid)
        if voc:
            return lambda: read_voc(
                voc,
                split,
                annotation_dir=annotation_dir,
                image_dir=image_dir,
                one_based=not zero_based,
                invalid=invalid,
            )
        if yolo:
            return lambda: read_yolo(yolo, split or "train", invalid=invalid)
        if csv and classes:
            return lambda: read_csv(csv, classes, images, invalid=invalid)
        return None

    train = reader(coco, voc, yolo, csv, images, split)
    if lvis and images:
        train = lambda: read_lvis(lvis, images, invalid=invalid)  # noqa: E731
    elif kitti:
        train = lambda: read_kitti(kitti, invalid=invalid)  # noqa: E731
    elif openimages and classes and images:
        train = lambda: read_openimages(openimages, classes, images, invalid=invalid)  # noqa: E731
    assert train is not None

    val = None
    if sum(map(bool, (val_coco, val_csv, val_voc or val_split))) > 1:
        raise typer.BadParameter("give one of --val-coco, --val-csv, and --val-voc and --val-split")
    if val_images and not (val_coco or val_csv):
        raise typer.BadParameter("--val-images goes with --val-coco and --val-csv")
    if val_coco or val_csv or val_voc or val_split:
        val = reader(
            val_coco,
            val_voc or (voc if val_split else None),
            yolo if val_split else None,
            val_csv,
            val_images or images,
            val_split,
        )
        if val is None:
            raise typer.BadParameter(
                "--val-coco needs --val-images, --val-csv needs --classes, --val-split needs --voc, --val-voc or --yolo"
            )
    if max_side is not None and max_side < short_side:
        raise typer.BadParameter(f"--max-side must be at least --short-side, {short_side}")
    resize = ShortSide(short_side, max_side=max_side or short_side * 1333 // 800)

    quiet = Console(stderr=True)
    columns = (TextColumn("looking at images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=quiet, transient=True) as progress:
        task = progress.add_task("", total=None)
        report = check(
            train,
            val,
            resize=resize,
            smallest_anchor=smallest_anchor,
            fast=fast,
            workers=workers,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    content = json.dumps(report.to_dict(), indent=2) + "\n"
    if json_file == "-":
        sys.stdout.write(content)
    else:
        Console().print(_render(report))
        if json_file:
            try:
                Path(json_file).write_text(content)
            except OSError as error:
                quiet.print(f"{json_file} was not written: {error.strerror}", markup=False, soft_wrap=True)
                raise typer.Exit(2) from None
    if write and not _write(report, write, quiet):
        raise typer.Exit(2)
    raise typer.Exit(report.status)


def _write(report: Report, path: Path, console: Console) -> bool:
    """Write the cleaned copy; whether it could be."""
    train = report.checked[0]
    if train.annotations is None:
        console.print(f"{path} was not written: the annotations can't be read", markup=False, soft_wrap=True)
        return False
    table = train.cleaned()
    try:
        folder = write_coco(table, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        console.print(f"{path} was not written: {reason}", markup=False, soft_wrap=True)
        return False
    console.print(
        f"wrote {path} with {len(table)} of {len(train.annotations)} images and {len(table.boxes)} boxes; its file "
        f"names start from {folder or '.'}",
        markup=False,
        soft_wrap=True,
    )
    return True


def _render(report: Report) -> Group:
    lines = []
    for data in report.to_dict()["data"]:
        if "images" not in data:
            continue
        line = (
            f"{data['name']}: {data['images']} images, {data['boxes']} boxes of which {data['ignored_boxes']} ignored, "
            f"{len(data['classes'])} classes, from {_short(data['source'])}"
        )
        if data["fed_side_quantiles"]:
            low, _, median, _, high = data["fed_side_quantiles"]
            line += f"; objects are fed {low:.3g} to {high:.3g} pixels large, half of them under {median:.3g}"
        lines.append(Text(line))
    if not report.findings:
        return Group(*lines, Text("nothing to report"))
    table = Table(show_lines=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("count", justify="right")
    table.add_column("what, where, and what to do", overflow="fold")
    for finding in report.findings:
        where = "".join(f"\n- {_place(example)}" for example in finding.examples[:_SHOWN])
        if finding.count > _SHOWN:
            where += "\n- ..."
        table.add_row(
            Text(f"{finding.severity} ({finding.data})\n{finding.kind}", style=_STYLES[finding.severity]),
            str(finding.count),
            Text(f"{finding.what}{where}\n> {finding.advice}"),
        )
    return Group(*lines, table)


def _place(example: Example) -> str:
    place = _short(example.file)
    if example.box is not None:
        place += f", box {example.box}"
    return f"{place}: {example.detail}" if example.detail else place


def _short(path: str) -> str:
    """A path from here, if that is shorter."""
    return path if is_url(path) else min(path, os.path.relpath(path), key=len)
