"""`detfeed split`: parts of a data set, with what belongs together in one part."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.check.dataset import find_unusable
from detfeed.check.duplicates import group_inspected
from detfeed.check.findings import class_counts
from detfeed.check.pictures import inspect_images
from detfeed.check.printing import objects_line, progress, say
from detfeed.commands.output import chosen_output
from detfeed.commands.parser import share, whole
from detfeed.commands.reading import counted, read_sets
from detfeed.drawing.text import counted as number_of
from detfeed.errors import among, shorten
from detfeed.images.files import is_url
from detfeed.readers.coco_writer import NOT_WRITTEN, write_coco
from detfeed.readers.formats import add_training_options, required, training_set
from detfeed.splitting import joined, numbered
from detfeed.writing import new_folder

_MOST_CLASSES = 20  # of which the objects in each part are printed
_NAMES = {2: ["train", "val"], 3: ["train", "val", "test"]}


def add_split(commands: Any) -> None:
    """Add `detfeed split` to the commands of a parser."""
    parser = commands.add_parser(
        "split",
        help="divide a data set into parts",
        usage="%(prog)s --FORMAT PATH [options] --to-FORM DIR",
        description="Divide a data set into parts, such as training and validation data.\n\n"
        "Images that are the same or look alike stay together, and so do those of one\n--group. Each part gets its "
        "share of the images of every class, as far as they go.\n\n"
        "Exit status: 0 if the parts are written, 1 if data can't be read or written,\n2 if the arguments are wrong.",
        epilog=textwrap.fill(f"Defaults are in [brackets]. A COCO file that is written lacks {NOT_WRITTEN}.", 78),
    )
    add_training_options(parser)
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out unreadable annotations and images")
    parts = parser.add_argument_group("parts")
    parts.add_argument(
        "--shares", type=share, nargs="+", metavar="S", help="share of the images for each part [0.8 0.2]"
    )
    parts.add_argument("--names", nargs="+", metavar="N", help="names of the parts [train val, or train val test]")
    parts.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of the draw: another one, another split [0]"
    )
    parts.add_argument(
        "--group",
        metavar="PATTERN",
        help="regular expression: same text in names, same part",
    )
    parts.add_argument("--fast", action="store_true", help="do not read images, to find those alike or damaged")
    parts.add_argument("--workers", type=whole(1), metavar="N", help="threads that read images [one for each core]")
    out = parser.add_argument_group("output, one of")
    out.add_argument("--to-coco", metavar="DIR", help="a new folder with a COCO JSON for each part")
    out.add_argument("--to-lists", metavar="DIR", help="a new folder with a list for each part (VOC: of ids)")
    parser.set_defaults(run=_split, parser=parser)


def _split(arguments: argparse.Namespace) -> int:
    """Run `detfeed split`; return its exit status."""
    _, out = chosen_output(arguments, ("coco", "lists"))
    shares = [0.8, 0.2] if arguments.shares is None else arguments.shares
    names = _names(arguments.names, shares)
    pattern = _pattern(arguments.group)
    data_set = required(training_set(arguments))
    table = read_sets({"train": data_set}, skip_unreadable=arguments.skip_unreadable)["train"]
    alike = numbered(range(len(table)))
    if not arguments.fast:
        with progress("comparing images") as on_progress:
            inspected = inspect_images(table.paths, workers=arguments.workers, on_progress=on_progress)
        alike = group_inspected(table, inspected)
        unusable = find_unusable(table, inspected)
        _tell_unusable(unusable, skip=arguments.skip_unreadable)
        if unusable and arguments.skip_unreadable:
            kept = ~np.isin(np.arange(len(table)), list(unusable))
            table, alike = table.select(kept), numbered(alike[kept])
            if not len(table):
                say(f"{out} was not written: no image can be fed")
                return 1
    groups = alike if pattern is None else joined(_named_groups(table, data_set.image_dir, pattern), alike)
    _tell_groups(groups)
    parts = dict(zip(names, table.split(shares, seed=arguments.seed, groups=groups, keep_classes=True), strict=True))
    try:
        with new_folder(out) as folder:
            for name, part in parts.items():
                if arguments.to_coco is not None:
                    write_coco(part, os.path.join(folder, f"{name}.json"), data_set.image_dir or None)
                else:
                    _write_list(part, Path(folder, f"{name}.txt"), ids=data_set.format.name == "voc")
    except ValueError as error:
        say(f"{out} was not written: {error}")
        return 1
    for name, part in parts.items():
        print(f"wrote {name}: {counted(part)}, to {out}")
        if 0 < len(table.class_names) <= _MOST_CLASSES:
            print(objects_line(part, np.argsort(-class_counts(table), kind="stable").tolist()))
    for name, part in parts.items():
        absent = np.flatnonzero((class_counts(table) > 0) & (class_counts(part) == 0)).tolist()
        if absent:
            say(f"warning: {name} has no object of {among(table.class_names[class_id] for class_id in absent)}")
    return 0


def _names(given: list[str] | None, shares: Sequence[float]) -> list[str]:
    if abs(sum(shares) - 1) >= 1e-6:
        raise argparse.ArgumentError(None, f"--shares: expected shares that add up to 1, got {sum(shares):g}")
    names = given or _NAMES.get(len(shares)) or [f"part{number}" for number in range(1, len(shares) + 1)]
    if len(names) != len(shares) or len(set(names)) < len(names):
        raise argparse.ArgumentError(
            None, f"--names: expected {len(shares)} names, one for each share, got {' '.join(names)}"
        )
    for name in names:
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            raise argparse.ArgumentError(None, f"--names: expected names of files, got {shorten(name)}")
    return names


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise argparse.ArgumentError(None, f"--group: expected a regular expression, got {text}: {error}") from None


def _named_groups(table: Annotations, image_dir: str | None, pattern: re.Pattern[str]) -> NDArray[np.int64]:
    """The group of each image by its path below the image folder; an image in which nothing is found is one itself."""
    start = os.path.join(image_dir or os.path.commonpath([os.path.dirname(path) for path in table.paths] or [""]), "")
    found: list[object] = []
    unmatched = []
    for position, path in enumerate(table.paths):
        match = pattern.search(path.removeprefix(start))
        if match is None:
            unmatched.append(path)
        found.append(position if match is None else match[1 if pattern.groups else 0])
    if unmatched:
        say(f"--group: nothing is found in {len(unmatched)} of {len(table)} names of images, such as {unmatched[0]}")
    return numbered(found)


def _tell_unusable(unusable: dict[int, str], *, skip: bool) -> None:
    """Tell of images that can't be fed."""
    if skip:
        for why in unusable.values():
            say(f"skipped: {why}")
    if unusable and skip:
        print(f"left out {number_of(len(unusable), 'image')} that can't be fed")
    elif unusable:
        say(
            f"warning: the parts hold {number_of(len(unusable), 'image')} that can't be fed, such as "
            f"{next(iter(unusable.values()))}; --skip-unreadable leaves them out, and detfeed check names them all"
        )


def _tell_groups(groups: NDArray[np.int64]) -> None:
    sizes = np.bincount(groups)
    together = sizes[sizes > 1]
    if len(together):
        print(f"{together.sum()} images stay together in {len(together)} groups; the largest has {together.max()}")
    if sizes.max(initial=0) * 10 > len(groups) >= 10:
        say(f"warning: one group has {sizes.max()} of {len(groups)} images, so the shares are kept only roughly")


def _write_list(part: Annotations, file: Path, *, ids: bool) -> None:
    """Write a line for each image: its id, as VOC's lists have them, or its whole path."""
    names = part.image_ids.tolist() if ids else [path if is_url(path) else os.path.abspath(path) for path in part.paths]
    for name in names:
        if "\n" in name or "\r" in name:
            raise ValueError(f"Expected names of images that a line can hold. Received: {shorten(name)}")
    file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8", newline="\n")
