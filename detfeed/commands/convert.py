"""`detfeed convert`: any format that is read, to COCO, YOLO or VOC."""

from __future__ import annotations

import argparse
import textwrap
import warnings
from functools import partial
from typing import Any

from detfeed.annotations import Annotations
from detfeed.check.printing import say
from detfeed.commands.output import chosen_output
from detfeed.commands.reading import counted, named_sets, read_sets, said_warnings
from detfeed.readers.coco import read_coco
from detfeed.readers.coco_writer import NOT_WRITTEN, write_coco
from detfeed.readers.formats import DataSet, add_training_options, add_validation_options
from detfeed.readers.ignored_classes import MOSTLY_IGNORED
from detfeed.readers.voc import read_voc
from detfeed.readers.voc_writer import write_voc
from detfeed.readers.written_images import Placed
from detfeed.readers.yolo import read_yolo
from detfeed.readers.yolo_writer import write_yolo


def add_convert(commands: Any) -> None:
    """Add `detfeed convert` to the commands of a parser."""
    parser = commands.add_parser(
        "convert",
        help="write a data set as COCO, YOLO or VOC",
        usage="%(prog)s --FORMAT PATH [options] --to-FORMAT PATH",
        description="Write a data set in another format: all of it, or nothing.\n\n"
        "A line tells of each kind of thing that the format can't hold. What is written is\nread again and counted.\n\n"
        "Exit status: 0 if it is written, 1 if data can't be read or written, 2 if the\narguments are wrong.",
        epilog=textwrap.fill(f"Defaults are in [brackets]. No format gets {NOT_WRITTEN}.", 78),
    )
    add_training_options(parser)
    add_validation_options(parser)
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out unreadable annotations, and name them"
    )
    out = parser.add_argument_group("output, one of")
    out.add_argument("--to-coco", metavar="FILE", help="a new COCO instances JSON, of one data set")
    out.add_argument("--to-yolo", metavar="DIR", help="a new folder with data.yaml, images and labels")
    out.add_argument("--to-voc", metavar="DIR", help="a new VOC folder; ignored boxes become difficult")
    how = parser.add_argument_group("YOLO and VOC")
    how.add_argument("--copy", action="store_true", help="copy the images [make symbolic links to them]")
    how.add_argument("--ignored-as-objects", action="store_true", help="YOLO: keep ignored boxes [drop them]")
    how.add_argument("--decimals", action="store_true", help="VOC: write fractions of a pixel [round them]")
    parser.set_defaults(run=_convert, parser=parser)


def _convert(arguments: argparse.Namespace) -> int:
    """Run `detfeed convert`; return its exit status."""
    to, out = _target(arguments)
    named = named_sets(arguments)
    if to == "coco" and "val" in named:
        raise argparse.ArgumentError(
            None, "--to-coco: expected one data set, got training and validation data; convert one at a time"
        )
    tables = read_sets(named, skip_unreadable=arguments.skip_unreadable)
    try:
        with said_warnings():
            read = _write(to, out, tables, named, arguments)
            # The reader of the data has told of them already.
            warnings.filterwarnings("ignore", f"(?s).*: {MOSTLY_IGNORED}")
            again = {name: read(name) for name in tables}
    except ValueError as error:
        say(f"{out} was not written: {error}")
        return 1
    for name, table in again.items():
        print(f"wrote {name}: {counted(table)}, to {out}")
    return 0


def _target(arguments: argparse.Namespace) -> tuple[str, str]:
    """The format to write, and the path."""
    to, out = chosen_output(arguments, ("coco", "yolo", "voc"), files=("coco",))
    for option, used in (("copy", ("yolo", "voc")), ("ignored_as_objects", ("yolo",)), ("decimals", ("voc",))):
        if getattr(arguments, option) and to not in used:
            takers = " or ".join(f"--to-{name}" for name in used)
            name = option.replace("_", "-")
            raise argparse.ArgumentError(None, f"--{name}: expected {takers} with it, got --to-{to}; leave it out")
    return to, out


def _write(
    to: str, out: str, tables: dict[str, Annotations], named: dict[str, DataSet], arguments: argparse.Namespace
) -> Any:
    """Write the tables; return a function that reads one of them again, by its name."""
    placed: Placed = "copy" if arguments.copy else "link"
    if to == "coco":
        folder = write_coco(tables["train"], out, named["train"].image_dir)
        print(f"file names in {out} start from {folder or '.'}; it lacks {NOT_WRITTEN}")
        return lambda name: read_coco(out, folder, exif="ignore")
    if to == "yolo":
        write_yolo(tables, out, ignored="object" if arguments.ignored_as_objects else "drop", images=placed)
        keypoints = any(table.keypoints is not None for table in tables.values())
        return partial(read_yolo, out, masks=True, keypoints=keypoints)
    write_voc(tables, out, whole_pixels=not arguments.decimals, images=placed)
    return lambda name: read_voc(out, name, class_names=tables[name].class_names)
