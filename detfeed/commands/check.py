"""`detfeed check`: its options, and what it prints and writes."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from typing import Any, get_args

from detfeed.check.dataset import check
from detfeed.check.findings import MAX_EXAMPLES, Repeat, Report
from detfeed.check.printing import count_files, print_report, progress, say
from detfeed.commands.parser import not_negative, whole
from detfeed.commands.sizes import add_size_options, choose_short_side
from detfeed.images.canvases import ShortSide
from detfeed.readers.coco_writer import NOT_WRITTEN, write_coco
from detfeed.readers.formats import (
    FORMATS,
    DataSet,
    add_training_options,
    add_validation_options,
    required,
    training_set,
    validation_set,
)
from detfeed.writing import replace_file


def add_check(commands: Any) -> None:
    """Add `detfeed check` to the commands of a parser."""
    parser = commands.add_parser(
        "check",
        help="find what is wrong with a data set",
        usage="%(prog)s --FORMAT PATH [options]",
        description="Find what is wrong with a data set, where, and what to do about it.\n\n"
        "Exit status: 0 if there are only notes, 1 if there are errors or warnings,\n"
        "2 if annotations can't be read at all, a file can't be written, or the check\nitself fails.",
        epilog=textwrap.fill(f"Defaults are in [brackets]. A copy that --write writes lacks {NOT_WRITTEN}.", 78),
    )
    add_training_options(parser, invalid=("clip", "drop", "ignore"))
    add_validation_options(parser)
    add_size_options(parser).add_argument(
        "--smallest-anchor",
        type=not_negative,
        default=32.0,
        metavar="N",
        help="side of the smallest anchor in pixels [32]",
    )
    work = parser.add_argument_group("work")
    work.add_argument("--fast", action="store_true", help="read image headers only, and compare paths")
    work.add_argument("--workers", type=whole(1), metavar="N", help="threads that read images [one for each core]")
    out = parser.add_argument_group("output")
    out.add_argument("--json", metavar="FILE", help="write the report as JSON; - prints it")
    out.add_argument("--write", metavar="FILE", help="write a COCO JSON of the usable training data")
    out.add_argument(
        "--without",
        action="append",
        choices=get_args(Repeat),
        metavar="WHAT",
        help="--write: without identical, similar or leaked images",
    )
    parser.set_defaults(run=_check, parser=parser)


def _check(arguments: argparse.Namespace) -> int:
    """Run `detfeed check`; return its exit status."""
    train, val = required(training_set(arguments)), validation_set(arguments)
    resize = choose_short_side(arguments)
    _refuse_overwriting(arguments)
    if arguments.without and arguments.write is None:
        raise argparse.ArgumentError(None, "--without: expected --write with it, got none; leave --without out")
    if "leaked" in (arguments.without or ()) and val is None:
        raise argparse.ArgumentError(None, "--without leaked: expected validation data with it, got none; give it")
    report = _run_check(train, val, resize, arguments)
    if report is None:
        return 2
    content = json.dumps(report.to_dict(), indent=2) + "\n"
    written = arguments.write is None or _write_copy(report, arguments, train.image_dir)
    if arguments.json == "-":
        sys.stdout.write(content)
    else:
        written &= arguments.json is None or _write_json(content, arguments.json)
        print_report(report)
    return report.status if written else 2


def _refuse_overwriting(arguments: argparse.Namespace) -> None:
    """Raise an error if a file to write is an input, or a file of another kind."""
    given = vars(arguments)
    paths = [given[f"{prefix}{name}"] for prefix in ("", "val_") for name in FORMATS]
    inputs = [path for path in (*paths, arguments.classes) if path is not None]
    for option, out in (("--write", arguments.write), ("--json", arguments.json)):
        if out is None or (option, out) == ("--json", "-"):
            continue
        for other in inputs:
            if _is_same(out, other):
                lacks = f"; a copy lacks {NOT_WRITTEN}" if option == "--write" else ""
                raise argparse.ArgumentError(
                    None, f"{option}: expected a new file, got {out}, which is an input{lacks}; give another name"
                )
        if _is_no_json(out):
            raise argparse.ArgumentError(
                None, f"{option}: expected a new file or JSON to replace, got {out}; give another name"
            )
        inputs.append(out)


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them does not exist
        return os.path.realpath(path) == os.path.realpath(other)


def _is_no_json(path: str) -> bool:
    """Whether a file exists whose content does not begin like JSON."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(16).lstrip()[:1] not in (b"", b"{", b"[")
    except OSError:
        return False  # writing will fail with a message


def _run_check(train: DataSet, val: DataSet | None, resize: ShortSide, arguments: argparse.Namespace) -> Report | None:
    """The report, with a progress bar in a terminal; None if the check fails, with a line that says how."""
    try:
        with progress("checking images") as on_progress:
            return check(
                train.read,
                None if val is None else val.read,
                resize=resize,
                smallest_anchor=arguments.smallest_anchor,
                fast=arguments.fast,
                workers=arguments.workers,
                image_dirs=[folder for each in (train, val) if (folder := whole_folder(each)) is not None],
                max_examples=MAX_EXAMPLES if arguments.json is None else None,
                on_progress=on_progress,
            )
    except Exception as error:  # of any kind: status 1, Python's own, is that of findings
        say(": ".join(filter(None, ("the check failed", type(error).__name__, str(error)))))
        return None


def whole_folder(data_set: DataSet | None) -> str | None:
    """The folder of which the data set should name each image; None if it may hold other sets."""
    if data_set is None or data_set.format.val_split is not None or "split" in data_set.read.keywords:
        return None
    if data_set.format.name == "csv" and "image_dir" not in data_set.read.keywords:
        return None  # the images are somewhere below the folder of the file
    folder = data_set.image_dir
    return folder if folder and os.path.isdir(folder) else None


def _write_json(content: str, path: str) -> bool:
    """Write the report; return whether that worked."""
    try:
        replace_file(path, content.encode())
    except OSError as error:
        say(f"{path} was not written: {error.strerror}")
        return False
    return True


def _write_copy(report: Report, arguments: argparse.Namespace, image_dir: str | None) -> bool:
    """Write the usable training data; return whether that worked."""
    path, without = arguments.write, tuple(dict.fromkeys(arguments.without or ()))
    train = report.checked[0]
    if train.annotations is None:
        say(f"{path} was not written: the annotations can't be read")
        return False
    table = train.cleaned(without=without)
    if not len(table):
        say(f"{path} was not written: no image can be fed")
        return False
    try:
        folder = write_coco(table, path, image_dir)
    except (OSError, ValueError) as error:
        say(f"{path} was not written: {getattr(error, 'strerror', None) or error}")
        return False
    left_out = f", without the unreadable parts of {count_files(train.unread)}" if train.unread else ""
    fewer = len(train.cleaned()) - len(table)
    if without:
        left_out += f", without {fewer} {' or '.join(without)} images"
    say(
        f"wrote {path} with {len(table)} of {len(train.annotations)} training images and {len(table.boxes)} boxes"
        f"{left_out}; its file names start from {folder or '.'}. The copy lacks {NOT_WRITTEN}"
    )
    return True
