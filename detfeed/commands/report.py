"""`detfeed report`: a data set, what is fed of it, and a run on it, as one HTML page."""

from __future__ import annotations

import argparse
import collections
import os
from pathlib import Path
from typing import Any, get_args

from detfeed.check.findings import Severity
from detfeed.check.printing import progress, say
from detfeed.commands.anchor_options import add_anchor_options, chosen_grid
from detfeed.commands.check import whole_folder
from detfeed.commands.feed_options import RECIPES
from detfeed.commands.parser import whole
from detfeed.commands.sizes import add_size_options, choose_resize
from detfeed.drawing.text import counted
from detfeed.errors import AnnotationError, any_of
from detfeed.images.files import is_url
from detfeed.readers.formats import (
    FORMATS,
    TRAINING,
    VALIDATION,
    add_training_options,
    add_validation_options,
    required,
    training_set,
    validation_set,
)
from detfeed.report.page import PICTURES, write_report
from detfeed.report.run import read_settings

_PATHS = (*FORMATS, "images", "classes", "root")
SHAPES_SIDE = 96  # at which the scripts feed the built-in shapes


def add_report(commands: Any) -> None:
    """Add `detfeed report` to the commands of a parser."""
    parser = commands.add_parser(
        "report",
        help="write a page about a data set, what is fed of it, and a run",
        usage="%(prog)s --FORMAT PATH [options]",
        description="Write one HTML file that needs no network: findings with pictures, classes, sizes\n"
        "and places, what is fed with its anchors, and the results of a run.\n\n"
        "With --run alone, data, sizes and anchors are those of the run.\n\n"
        "Exit status: 0 if it is written, 1 if data or the run can't be read or the file\ncan't be written, 2 if the "
        "arguments are wrong.",
    )
    add_training_options(parser, invalid=("clip", "drop", "ignore"))
    add_validation_options(parser)
    add_size_options(parser, fixed=True)
    anchors = add_anchor_options(parser, title="anchors and feed, of the gallery")
    anchors.add_argument("--augment", choices=RECIPES, metavar="RECIPE", help=f"{any_of(RECIPES)} [run's or none]")
    anchors.add_argument(
        "--pictures", type=whole(0), default=PICTURES, metavar="N", help=f"training images in the gallery [{PICTURES}]"
    )
    anchors.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of the images drawn and of the feed [0]"
    )
    work = parser.add_argument_group("work")
    work.add_argument("--run", dest="run_dir", type=Path, metavar="DIR", help="folder of a run of a training script")
    work.add_argument("--speed", type=whole(1), metavar="N", help="time each stage of the feed on N images [not timed]")
    work.add_argument("--fast", action="store_true", help="check image headers only, and compare paths")
    work.add_argument("--workers", type=whole(1), metavar="N", help="threads that check images [one for each core]")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="page to write [report.html]"
    )
    out.add_argument("--title", metavar="TEXT", help="title of the page [made of the data's name]")
    parser.set_defaults(run=_report, parser=parser, model=None, invalid=None)  # None: the run's


def _report(arguments: argparse.Namespace) -> int:
    """Run `detfeed report`; return its exit status."""
    _refuse_overwriting(arguments)
    if arguments.run_dir is not None:
        _take_settings(arguments, read_settings(arguments.run_dir))
    train, val = required(training_set(arguments)), validation_set(arguments)
    arguments.model = arguments.model or "fpn"
    grid, resize = chosen_grid(arguments), choose_resize(arguments)
    try:
        with progress("checking images") as on_progress:
            report = write_report(
                arguments.out,
                train.read,
                None if val is None else val.read,
                resize=resize,
                anchors=grid,
                augment=None if arguments.augment in (None, "none") else arguments.augment,
                run=arguments.run_dir,
                title=arguments.title,
                num_images=arguments.pictures,
                num_timed=arguments.speed or 0,
                seed=arguments.seed,
                fast=arguments.fast,
                workers=arguments.workers,
                image_dirs=[folder for each in (train, val) if (folder := whole_folder(each)) is not None],
                on_progress=on_progress,
            )
    except ModuleNotFoundError as error:
        say(str(error))
        return 1
    counts = collections.Counter(one.severity for one in report.findings)
    found = [counted(counts[each], each) if counts[each] else f"no {each}s" for each in get_args(Severity)]
    print(f"wrote {arguments.out}, {arguments.out.stat().st_size / 1e6:.1f} MB: {', '.join(found)}")
    return 0


def _refuse_overwriting(arguments: argparse.Namespace) -> None:
    """Raise an error if something is at the path of the page that is no page."""
    out = arguments.out
    if not out.exists():
        return
    if out.is_file():
        with out.open("rb") as file:
            if file.read(64).lstrip().lower().startswith(b"<!doctype html") or not out.stat().st_size:
                return
    raise argparse.ArgumentError(None, f"--out: expected a new file or a page to replace, got {out}; give another name")


def _take_settings(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Take from a run's settings what the command line leaves open.

    Data is taken as a whole, training or validation data: a mixture is data that nobody asked for.
    """
    names = ["model", "augment"]
    if all(getattr(arguments, name) is None for name in ("model", "anchor_sizes", "anchor_ratios")):
        names += ["anchor_sizes", "anchor_ratios"]
    if arguments.fixed is None and arguments.short_side is None and arguments.max_side is None:
        names += ["fixed", "short_side", "max_side"]
    if all(getattr(arguments, name) is None for name in FORMATS):
        names += (*TRAINING, "invalid")
        if all(getattr(arguments, name) is None for name in VALIDATION):
            names += VALIDATION
    settings = _with_shapes(settings)
    taken = {name: settings.get(name) for name in names if getattr(arguments, name) is None}
    _refuse_missing(taken, arguments.run_dir / "settings.json")
    for name, value in taken.items():
        setattr(arguments, name, value)


def _with_shapes(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run on the built-in shapes, with the files that these were drawn to, and their size."""
    folder = settings.get("shapes_dir")
    if not isinstance(folder, str) or any(settings.get(name) is not None for name in FORMATS):
        return settings
    files = {prefix: Path(folder, name, "instances.json") for prefix, name in (("", "train"), ("val_", "val"))}
    return (
        settings
        | {
            f"{prefix}{name}": str(path)
            for prefix, file in files.items()
            if not prefix or file.is_file()
            for name, path in (("coco", file), ("images", file.parent / "images"))
        }
        | ({} if settings.get("short_side") or settings.get("fixed") else {"short_side": SHAPES_SIDE})
    )


def _refuse_missing(taken: dict[str, Any], file: Path) -> None:
    """Raise an error for the first path that a run's settings name and that is not there."""
    for name, path in taken.items():
        if name.removeprefix("val_") not in _PATHS or not isinstance(path, str) or is_url(path):
            continue
        if not os.path.exists(path):
            where, start = "", ""
            if not os.path.isabs(path):
                where = f" from {os.getcwd()} on"
                start = "start the command in the folder where the training was started, or "
            raise AnnotationError(
                f"{file}: expected paths of the run's data, got {path}, where nothing is{where}; {start}give the data "
                "with options, such as --coco and --images"
            )
