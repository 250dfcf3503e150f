"""`detfeed anchors`: how well anchors cover a data set, and which would do better."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

from detfeed.check.printing import progress, say
from detfeed.commands.anchor_options import add_anchor_options, chosen_grid
from detfeed.commands.coverage_tables import print_coverage, print_suggestion
from detfeed.commands.feed_options import RECIPES
from detfeed.commands.parser import positive_share, whole
from detfeed.commands.reading import named_sets, read_sets
from detfeed.commands.sizes import add_size_options, choose_resize
from detfeed.coverage.anchor_coverage import anchor_coverage
from detfeed.coverage.suggestion import suggest_anchors
from detfeed.errors import any_of
from detfeed.readers.formats import add_training_options, add_validation_options
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.writing import replace_file


def add_anchors(commands: Any) -> None:
    """Add `detfeed anchors` to the commands of a parser."""
    parser = commands.add_parser(
        "anchors",
        help="see how well anchors fit a data set, and find better ones",
        usage="%(prog)s --FORMAT PATH [options]",
        description="See how well anchors cover the objects of a data set at the size at which it is fed,\nand find "
        "better ones. Annotations alone are read, no images.\n\n"
        "Exit status: 0, 1 if data can't be read or the report can't be written, 2 if the\narguments are wrong.",
    )
    add_training_options(parser)
    add_validation_options(parser, title="validation data, to check suggestions on, one of")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out unreadable annotations, and name them"
    )
    add_size_options(parser, fixed=True)
    anchors = add_anchor_options(parser)
    anchors.add_argument(
        "--positive-iou", type=positive_share, default=0.7, metavar="IOU", help="least IoU of a true positive [0.7]"
    )
    anchors.add_argument(
        "--negative-iou",
        type=positive_share,
        default=0.3,
        metavar="IOU",
        help="anchors below this IoU are background [0.3]",
    )
    feed = parser.add_argument_group("feed")
    feed.add_argument(
        "--augment",
        choices=RECIPES,
        default="none",
        metavar="RECIPE",
        help=f"{any_of(RECIPES)} [none]",
    )
    feed.add_argument("--at-most", type=whole(1), metavar="N", help="look at N images, drawn at random [all]")
    feed.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of the images drawn and of the search [0]"
    )
    out = parser.add_argument_group("output")
    out.add_argument("--suggest", action="store_true", help="find sizes and ratios that fit better")
    out.add_argument("--json", metavar="FILE", help="write the report as JSON; - prints it")
    parser.set_defaults(run=_anchors, parser=parser)


def _anchors(arguments: argparse.Namespace) -> int:
    """Run `detfeed anchors`; return its exit status."""
    if arguments.negative_iou > arguments.positive_iou:
        raise argparse.ArgumentError(
            None,
            f"--negative-iou: expected at most the IoU of a positive, {arguments.positive_iou:g}, got "
            f"{arguments.negative_iou:g}; see --positive-iou",
        )
    targets = AnchorTargets(
        chosen_grid(arguments), positive_iou=arguments.positive_iou, negative_iou=arguments.negative_iou
    )
    feed: dict[str, Any] = {
        "resize": choose_resize(arguments),
        "augment": None if arguments.augment == "none" else arguments.augment,
        "seed": arguments.seed,
        "max_images": arguments.at_most,
    }
    only_json = arguments.json == "-"
    with contextlib.redirect_stdout(sys.stderr) if only_json else contextlib.nullcontext():
        tables = read_sets(named_sets(arguments), skip_unreadable=arguments.skip_unreadable)
        for name, table in tables.items():
            if not len(table):
                say(f"{name}: no images")
                return 1
        coverages, suggestion = {}, None
        for name, table in tables.items():
            with progress("looking at boxes") as on_progress:
                coverages[name] = anchor_coverage(table, targets, **feed, on_progress=on_progress)
        if arguments.suggest:
            with progress("looking at boxes") as on_progress:
                suggestion = suggest_anchors(
                    tables["train"], targets, check_on=tables.get("val"), **feed, on_progress=on_progress
                )
    if not only_json:
        for name, coverage in coverages.items():
            print_coverage(name, coverage, advise=not arguments.suggest)
        if suggestion is not None:
            print_suggestion(suggestion)
    if arguments.json is None:
        return 0
    report: dict[str, Any] = {name: coverage.to_dict() for name, coverage in coverages.items()}
    if suggestion is not None:
        report["suggestion"] = suggestion.to_dict()
    content = json.dumps(report, indent=2) + "\n"
    if only_json:
        sys.stdout.write(content)
        return 0
    try:
        replace_file(arguments.json, content.encode())
    except OSError as error:
        say(f"{arguments.json} was not written: {error.strerror}")
        return 1
    return 0
