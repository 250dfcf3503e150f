"""`detfeed show`: pictures of what is fed, and of the labels of a data set."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from detfeed.annotations import Annotations
from detfeed.batches.loader import BatchLoader, TargetFunction
from detfeed.check.printing import progress, say
from detfeed.commands.anchor_options import add_anchor_options, chosen_grid
from detfeed.commands.feed_options import add_feed_options, choose_feed
from detfeed.commands.parser import whole
from detfeed.commands.reading import read_sets, said_warnings
from detfeed.drawing.labels import draw_labels
from detfeed.drawing.sheets import write_png
from detfeed.drawing.text import counted
from detfeed.errors import DetfeedError
from detfeed.readers.formats import add_training_options, required, training_set
from detfeed.readers.proposals import read_proposals
from detfeed.showing import Sheet, show
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.mask_targets import MaskTargets
from detfeed.targets.padded_boxes import PaddedBoxes
from detfeed.targets.roi_targets import RoiTargets

TARGETS = ("anchors", "dense", "rois", "masks", "boxes")
_OF_PROPOSALS = ("rois", "masks")


def add_show(commands: Any) -> None:
    """Add `detfeed show` to the commands of a parser."""
    parser = commands.add_parser(
        "show",
        help="draw what is fed",
        usage="%(prog)s --FORMAT PATH [options]",
        description="Draw what is fed, from the arrays of the batches: objects, the positives tied to\n"
        "them, negatives, ignored regions, padding, and in red the objects without a\npositive.\n\n"
        "Exit status: 0 if pictures are written, 1 if data can't be read or written, or\nthere is nothing to show, "
        "2 if the arguments are wrong.",
        epilog="Defaults are in [brackets].",
    )
    which = parser.add_argument_group("what to show")
    which.add_argument("--image-id", nargs="+", metavar="ID", help="show the images with these ids")
    which.add_argument(
        "--class", nargs="+", dest="of_class", metavar="C", help="show images with one of these classes, by name"
    )
    which.add_argument("--worst", action="store_true", help="show images with most objects without a positive")
    which.add_argument(
        "--among", type=whole(1), default=1000, metavar="N", help="number of images that --worst compares [1000]"
    )
    which.add_argument(
        "--epoch", type=whole(0), default=0, metavar="N", help="epoch whose order and augmentation are shown [0]"
    )
    which.add_argument("--batch", type=whole(0), metavar="N", help="show this batch of the epoch [all]")
    which.add_argument("--number", type=whole(1), default=12, metavar="N", help="show at most so many images [12]")
    which.add_argument("--labels", action="store_true", help="draw labels.png instead: classes, sizes, places")
    add_training_options(parser)
    add_target_options(parser)
    add_feed_options(parser)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", type=Path, default=Path("runs/show"), metavar="DIR", help="folder for the pictures [runs/show]"
    )
    out.add_argument("--per-sheet", type=whole(1), default=12, metavar="N", help="images on a sheet [12]")
    parser.set_defaults(run=_show, parser=parser)


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `_targets` uses."""
    targets = parser.add_argument_group("targets")
    targets.add_argument(
        "--targets", default="anchors", metavar="NAME", help=f"{', '.join(TARGETS)}, or MODULE:NAME [anchors]"
    )
    targets.add_argument("--proposals", metavar="FILE", help="file of proposals for the targets rois and masks")
    add_anchor_options(parser)


def _show(arguments: argparse.Namespace) -> int:
    """Run `detfeed show`; return its exit status."""
    if arguments.targets == "masks":
        arguments.masks = True
    if arguments.proposals is not None and arguments.targets not in _OF_PROPOSALS and ":" not in arguments.targets:
        raise argparse.ArgumentError(
            None, f"--proposals: expected --targets rois or masks with it, got {arguments.targets}; leave it out"
        )
    feed = choose_feed(arguments)
    annotations = read_sets({"train": required(training_set(arguments))}, skip_unreadable=False)["train"]
    if arguments.labels:
        path = arguments.out / "labels.png"
        write_png(path, draw_labels(annotations))
        print(path)
        return 0
    targets = _targets(arguments, annotations)
    try:
        with said_warnings():
            proposals = None if arguments.proposals is None else read_proposals(arguments.proposals, annotations)
            loader = BatchLoader(annotations, targets, proposals=proposals, **feed)
        with progress("making batches") as on_progress:
            sheet = show(
                loader,
                epoch=arguments.epoch,
                index=arguments.batch,
                image_ids=arguments.image_id,
                classes=arguments.of_class,
                worst=arguments.worst,
                among=arguments.among,
                num_images=arguments.number,
                on_progress=on_progress,
            )
    except ValueError as error:
        if isinstance(error, DetfeedError):
            raise
        say(f"nothing is shown: {error}")
        return 1
    for path in write_sheets(sheet, arguments.out, f"fed_epoch{arguments.epoch}", per_sheet=arguments.per_sheet):
        print(path)
    told = f", {sheet.num_unmatched:,} without a positive" if hasattr(targets, "show") else ""
    print(f"{counted(len(sheet.pictures), 'image')}, {counted(sheet.num_objects, 'object')}{told}")
    if not hasattr(targets, "show"):
        say(f"the targets are not drawn: {arguments.targets} has no method show(picture, x, y)")
    return 0


def write_sheets(sheet: Sheet, folder: Path, name: str, *, per_sheet: int) -> list[Path]:
    """Write the pictures of a sheet as several PNG files of so many pictures each; returns the files."""
    paths = []
    for number, start in enumerate(range(0, len(sheet.pictures), per_sheet)):
        paths.append(folder / f"{name}_{number}.png")
        Sheet(sheet.pictures[start : start + per_sheet], sheet.title, sheet.side).save(paths[-1])
    return paths


def _targets(arguments: argparse.Namespace, annotations: Annotations) -> TargetFunction:
    """The target function that the options name."""
    name = arguments.targets
    targets: Any
    if name in ("anchors", "dense"):
        targets = AnchorTargets(chosen_grid(arguments), form="sampled" if name == "anchors" else "dense")
    elif name == "rois":
        targets = RoiTargets()
    elif name == "masks":
        return MaskTargets()
    elif name == "boxes":
        targets = PaddedBoxes.for_annotations(annotations)
    else:
        return _imported(name)
    if arguments.masks:
        targets.uses_masks = True  # else the samples have those of crowds alone, or none
    return targets  # type: ignore[no-any-return]


def _imported(name: str) -> TargetFunction:
    """The target function MODULE:NAME, from the working folder or what is installed; a class is made one."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise argparse.ArgumentError(None, f"--targets: expected {', '.join(TARGETS)} or MODULE:NAME, got {name}")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise argparse.ArgumentError(None, f"--targets: expected {name} to be importable, got {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    targets = found() if isinstance(found, type) else found
    if not callable(targets):
        raise argparse.ArgumentError(None, f"--targets: expected a function of a sample, got {targets!r}")
    return targets
