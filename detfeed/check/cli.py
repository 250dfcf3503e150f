"""The command line: `detfeed check`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from detfeed.annotations import Annotations
from detfeed.check.dataset import RESIZE, Checked, Example, Finding, Read, Report, check
from detfeed.images.canvases import ShortSide
from detfeed.images.files import is_url
from detfeed.readers.bad_boxes import Kind
from detfeed.readers.coco import read_coco
from detfeed.readers.coco_writer import write_coco
from detfeed.readers.csv import read_csv
from detfeed.readers.kitti import read_kitti
from detfeed.readers.lvis import read_lvis
from detfeed.readers.openimages import read_openimages
from detfeed.readers.voc import read_voc
from detfeed.readers.yolo import read_yolo

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_SHOWN = 3  # examples that are printed; the JSON has more
_NOT_WRITTEN = "polygons of objects, keypoints, captions, info, licenses, supercategories and the ids of annotations"

# Which formats an option is for.
_WITH_IMAGES = ("coco", "lvis", "csv", "openimages")
_WITH_CLASSES = ("csv", "openimages")
_WITH_FOLDERS = ("voc", "kitti")
_WITH_SPLITS = ("voc", "yolo")

_TRAIN, _VAL, _FED, _OUT = "Data", "Validation data", "Size of the images fed", "Output"


@dataclasses.dataclass(frozen=True)
class _Options:
    """What holds for data of every kind, to train on and to validate on."""

    invalid: Literal["clip", "drop", "ignore"]
    classes: Path | None
    root: Path | None
    annotation_dir: str | None
    image_dir: str | None
    zero_based: bool


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
        str | None,
        typer.Option(
            help="Folder of images, or URL of one, of --coco, --lvis, --csv and --openimages.", rich_help_panel=_TRAIN
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="CSV of classes, of CSV and OpenImages.", rich_help_panel=_TRAIN)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="VOC: list in ImageSets/Main, all images if none; YOLO: train if none.", rich_help_panel=_TRAIN
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that YOLO's splits start from; as data.yaml says if none.", rich_help_panel=_TRAIN),
    ] = None,
    annotation_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder of annotations in that of VOC (Annotations if none) or KITTI (label_2).",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    image_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder of images in that of VOC (JPEGImages if none) or KITTI (image_2).", rich_help_panel=_TRAIN
        ),
    ] = None,
    zero_based: Annotated[
        bool, typer.Option("--zero-based", help="VOC corners are edges that count from 0.", rich_help_panel=_TRAIN)
    ] = False,
    invalid: Annotated[
        Literal["clip", "drop", "ignore"], typer.Option(help="What to do about bad boxes.", rich_help_panel=_TRAIN)
    ] = "clip",
    val_coco: Annotated[Path | None, typer.Option(help="COCO instances JSON.", rich_help_panel=_VAL)] = None,
    val_lvis: Annotated[Path | None, typer.Option(help="LVIS JSON.", rich_help_panel=_VAL)] = None,
    val_voc: Annotated[Path | None, typer.Option(help="VOC folder; --voc if none.", rich_help_panel=_VAL)] = None,
    val_yolo: Annotated[
        Path | None, typer.Option(help="YOLO's data.yaml; --yolo if none.", rich_help_panel=_VAL)
    ] = None,
    val_csv: Annotated[Path | None, typer.Option(help="CSV of boxes.", rich_help_panel=_VAL)] = None,
    val_kitti: Annotated[Path | None, typer.Option(help="KITTI folder.", rich_help_panel=_VAL)] = None,
    val_openimages: Annotated[Path | None, typer.Option(help="OpenImages' CSV of boxes.", rich_help_panel=_VAL)] = None,
    val_images: Annotated[
        str | None, typer.Option(help="Its folder of images; --images if none.", rich_help_panel=_VAL)
    ] = None,
    val_split: Annotated[
        str | None, typer.Option(help="Split of VOC or YOLO; of --val-yolo val if none.", rich_help_panel=_VAL)
    ] = None,
    short_side: Annotated[int, typer.Option(min=1, help="Shorter side in pixels.", rich_help_panel=_FED)] = RESIZE.size,
    max_side: Annotated[
        int | None, typer.Option(min=1, help="Longer side at most; 5/3 of the shorter if none.", rich_help_panel=_FED)
    ] = None,
    smallest_anchor: Annotated[
        float, typer.Option(min=0, help="Side of the smallest anchors in pixels.", rich_help_panel=_FED)
    ] = 32.0,
    fast: Annotated[bool, typer.Option("--fast", help="Read headers of images only, and compare their paths.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; as many as cores if none.")] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the report as JSON; - prints it.", rich_help_panel=_OUT),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write a COCO JSON of the training images that can be fed, with bad boxes treated as --invalid says. "
            f"It holds images, classes, boxes and masks of crowds, but not: {_NOT_WRITTEN}.",
            rich_help_panel=_OUT,
        ),
    ] = None,
) -> None:
    """Look for what is wrong with a data set, where, and what to do about it.

    Exit status: 0 if there is nothing but notes, 1 if there are errors or warnings, 2 if annotations can't be read as a
    whole, a file can't be written, or the check itself fails.
    """
    train_of = {
        "coco": coco, "lvis": lvis, "voc": voc, "yolo": yolo, "csv": csv, "kitti": kitti, "openimages": openimages
    }  # fmt: skip
    val_of = {
        "coco": val_coco, "lvis": val_lvis, "voc": val_voc, "yolo": val_yolo, "csv": val_csv, "kitti": val_kitti,
        "openimages": val_openimages,
    }  # fmt: skip
    named = [format for format, path in train_of.items() if path is not None]
    if len(named) != 1:
        got = " and ".join(f"--{name}" for name in named) or "none"
        raise typer.BadParameter(f"give one of {', '.join(f'--{name}' for name in train_of)}, got {got}")
    format = named[0]
    val_named = [format for format, path in val_of.items() if path is not None]
    if len(val_named) > 1:
        raise typer.BadParameter(f"give one validation set, got {' and '.join(f'--val-{name}' for name in val_named)}")
    val_format = val_named[0] if val_named else format if val_split is not None else None
    if val_split is not None and val_format not in _WITH_SPLITS:
        raise typer.BadParameter("--val-split needs --voc, --val-voc, --yolo or --val-yolo")
    options = _Options(invalid, classes, root, annotation_dir, image_dir, zero_based)
    _refuse_unused(format, val_format, images, val_images, split, options)
    if max_side is not None and max_side < short_side:
        raise typer.BadParameter(f"--max-side must be at least --short-side, {short_side}")
    inputs = [path for path in (*train_of.values(), *val_of.values(), classes) if path is not None]
    for other in inputs:
        if write is not None and _is_same(write, other):
            raise typer.BadParameter(f"--write would overwrite {other}, and a copy lacks its {_NOT_WRITTEN}")
    for other in inputs if write is None else [*inputs, write]:
        if json_file not in (None, "-") and _is_same(json_file, other):
            raise typer.BadParameter(f"--json would overwrite {other}")
    for option, out in (("--write", write), ("--json", json_file)):
        if out is not None and _holds_something_else(out):
            raise typer.BadParameter(f"{option} would overwrite {out}, which is no JSON")

    train = _reader(format, train_of[format], images, split, options)
    val = None
    if val_format is not None:
        if val_format == "yolo" and val_split is None:
            val_split = "val"
        path = val_of[val_format] or train_of[val_format]
        val = _reader(val_format, path, images if val_images is None else val_images, val_split, options)
    resize = ShortSide(short_side, max_side=max_side or short_side * 1333 // 800)

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that can't be printed is no reason to print nothing
    beside = Console(stderr=True)
    columns = (TextColumn("looking at images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=beside, transient=True, disable=not beside.is_terminal) as progress:
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
    except Exception as error:  # or Python would exit with 1, which is for what is found
        _say(": ".join(filter(None, ("the check failed", type(error).__name__, str(error)))))
        raise typer.Exit(2) from None
    content = json.dumps(report.to_dict(), indent=2) + "\n"
    written = write is None or _write(report, write, _image_folder(format, train_of[format], images, options))
    if json_file == "-":
        sys.stdout.write(content)
    else:
        if json_file is not None:
            try:
                Path(json_file).write_text(content)
            except OSError as error:
                _say(f"{json_file} was not written: {error.strerror}")
                written = False
        _print(report)
    raise typer.Exit(report.status if written else 2)


def _refuse_unused(
    format: str,
    val_format: str | None,
    images: str | None,
    val_images: str | None,
    split: str | None,
    options: _Options,
) -> None:
    """Raise an error about the first option that the formats do not take, or that they need and lack."""
    if val_images is not None and val_format not in _WITH_IMAGES:
        raise typer.BadParameter(f"--val-images goes with {_or(_WITH_IMAGES, 'val-')}")
    formats = {format, val_format}
    of_images = {format, val_format if val_images is None else None}
    for option, value, used_by, given in (
        ("--images", images, _WITH_IMAGES, of_images),
        ("--classes", options.classes, _WITH_CLASSES, formats),
        ("--split", split, _WITH_SPLITS, {format}),
        ("--root", options.root, ("yolo",), formats),
        ("--annotation-dir", options.annotation_dir, _WITH_FOLDERS, formats),
        ("--image-dir", options.image_dir, _WITH_FOLDERS, formats),
        ("--zero-based", options.zero_based or None, ("voc",), formats),
    ):
        if value is not None and not given & set(used_by):
            raise typer.BadParameter(f"{option} goes with {_or(used_by)}")
    for prefix, name, folder, option in (
        ("--", format, images, "--images"),
        ("--val-", val_format, images if val_images is None else val_images, "--val-images"),
    ):
        if name in _WITH_IMAGES and name != "csv" and folder is None:
            raise typer.BadParameter(f"{prefix}{name} needs {option}")
        if name in _WITH_CLASSES and options.classes is None:
            raise typer.BadParameter(f"{prefix}{name} needs --classes")
    for option, folder in (("--images", images), ("--val-images", val_images)):
        if folder is not None and not is_url(folder) and not os.path.isdir(folder):
            raise typer.BadParameter(f"{option}: expected a folder, got {folder}, which is none")


def _or(formats: tuple[str, ...], prefix: str = "") -> str:
    return " or ".join(f"--{prefix}{name}" for name in formats)


def _is_same(path: str | Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return os.path.realpath(path) == os.path.realpath(other)


def _holds_something_else(path: str | Path) -> bool:
    """Whether there is a file whose content does not begin as that of JSON."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(16).lstrip()[:1] not in (b"", b"{", b"[")
    except OSError:
        return False  # writing will tell


def _reader(format: str, path: Path | None, images: str | None, split: str | None, options: _Options) -> Read:
    """The function that reads a data set."""
    folders = {"annotation_dir": options.annotation_dir, "image_dir": options.image_dir}
    given = {name: folder for name, folder in folders.items() if folder is not None}
    label_dir = {"label_dir" if name == "annotation_dir" else name: folder for name, folder in given.items()}
    readers: dict[str, tuple[Read, tuple[object, ...], dict[str, object]]] = {
        "coco": (read_coco, (path, images), {}),
        "lvis": (read_lvis, (path, images), {}),
        "voc": (read_voc, (path, split), {"one_based": not options.zero_based, **given}),
        "yolo": (read_yolo, (path, split or "train"), {"root": options.root}),
        "csv": (read_csv, (path, options.classes, images), {}),
        "kitti": (read_kitti, (path,), {**label_dir}),
        "openimages": (read_openimages, (path, options.classes, images), {}),
    }
    read, positional, named = readers[format]
    return partial(read, *positional, **named, invalid=options.invalid)


def _image_folder(format: str, path: Path | None, images: str | None, options: _Options) -> str | None:
    """The folder that file names of a copy start from, so that it fits the same --images; None: that of all images."""
    if format in _WITH_FOLDERS:
        return os.path.join(path or "", options.image_dir or {"voc": "JPEGImages", "kitti": "image_2"}[format])
    if format == "csv" and images is None:
        return os.path.dirname(path or "")
    return images


def _write(report: Report, path: Path, image_dir: str | None) -> bool:
    """Write the cleaned copy; whether it could be."""
    train = report.checked[0]
    if train.annotations is None:
        _say(f"{path} was not written: the annotations can't be read")
        return False
    table = train.cleaned()
    if not len(table):
        _say(f"{path} was not written: there is no image that can be fed")
        return False
    try:
        folder = write_coco(table, path, image_dir)
    except (OSError, ValueError) as error:
        _say(f"{path} was not written: {getattr(error, 'strerror', None) or error}")
        return False
    left_out = f", without what can't be read of {_files(train.unread)}" if train.unread else ""
    _say(
        f"wrote {path} with {len(table)} of {len(train.annotations)} training images and {len(table.boxes)} boxes"
        f"{left_out}; its file names start from {folder or '.'}. Not in it: {_NOT_WRITTEN}"
    )
    return True


def _say(text: str) -> None:
    """Print a line beside the output."""
    Console(stderr=True).print(_printable(text), markup=False, highlight=False, soft_wrap=True)


def _print(report: Report) -> None:
    """Print the report: as a table in a terminal, else in lines, which nothing wraps or cuts."""
    console = Console()
    lines = [_summary(data, data.annotations) for data in report.checked if data.annotations is not None]
    if not report.findings:
        lines.append("nothing to report")
    if not console.is_terminal:
        for finding in report.findings:
            what, *rest = _lines(finding)
            lines += [f"{finding.severity} ({finding.data}) {finding.kind}, {finding.count}: {what}", *rest]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return
    for line in lines:
        console.print(Text(line))
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
    if report.findings:
        console.print(table)


def _summary(data: Checked, table: Annotations) -> str:
    """A line about a data set that was read."""
    line = (
        f"{data.name}: {len(table)} images, {len(table.boxes)} boxes of which {int(table.ignore.sum())} ignored, "
        f"{len(table.class_names)} classes, from {_printable(_short(table.source))}"
    )
    if data.unread:
        line += f"; not all of {_files(data.unread)} can be read"
    if len(data.fed_sides):
        low, median, high = np.quantile(data.fed_sides, [0, 0.5, 1]).tolist()
        line += f"; objects are fed {low:.3g} to {high:.3g} pixels large, half of them under {median:.3g}"
    return line


def _lines(finding: Finding) -> list[str]:
    """What was found, where, and what to do."""
    kept = finding.kind not in get_args(Kind)
    lines = [finding.what, *(f"- {_place(example, kept)}" for example in finding.examples[:_SHOWN])]
    if finding.count > _SHOWN:
        lines.append("- ...")
    return [_printable(line) for line in (*lines, f"> {finding.advice}")]


def _place(example: Example, kept: bool) -> str:
    place = _short(example.file)
    if example.box is not None and kept:  # the detail of a bad box names its place in the file
        place += f", box {example.box} of those kept"
    return f"{place}: {example.detail}" if example.detail else place


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _short(path: str) -> str:
    """A path from here, if that is shorter."""
    return path if is_url(path) or not path else min(path, os.path.relpath(path), key=len)


def _printable(text: str) -> str:
    """Text with escapes for what a terminal would obey instead of show: names come out of files that anybody wrote."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
