"""Feed options: those of a command line that say how images are fed, as the arguments of a loader or sequence."""

from __future__ import annotations

import argparse
from typing import Any

from detfeed.batches.samplers import RepeatFactor
from detfeed.commands.parser import positive_share, whole
from detfeed.commands.sizes import SHORT_SIDE, add_size_options, choose_resize
from detfeed.errors import any_of

RECIPES = ("flip", "ssd", "lsj", "multiscale", "none")


def add_feed_options(parser: argparse.ArgumentParser, *, short_side: str = str(SHORT_SIDE)) -> None:
    """Add the options that `choose_feed` uses.

    Args:
        parser: gets two groups of options.
        short_side: the shorter side if none is given, for the help.
    """
    add_size_options(parser, default=short_side, fixed=True)
    feed = parser.add_argument_group("feed")
    feed.add_argument("--batch-size", type=whole(1), default=2, metavar="N", help="images in a batch [2]")
    feed.add_argument(
        "--augment",
        choices=RECIPES,
        default="flip",
        metavar="RECIPE",
        help=f"{any_of(RECIPES)} [flip]",
    )
    feed.add_argument(
        "--repeat-factor", type=positive_share, metavar="SHARE", help="repeat images of rarer classes (LVIS: 0.001)"
    )
    feed.add_argument("--seed", type=whole(0), default=0, metavar="N", help="seed of order and augmentation [0]")


def choose_feed(arguments: argparse.Namespace, *, short_side: int = SHORT_SIDE) -> dict[str, Any]:
    """The arguments of a sequence or loader that the options of size and feed ask for.

    Raises:
        argparse.ArgumentError: options do not go together.
    """
    return {
        "batch_size": arguments.batch_size,
        "resize": choose_resize(arguments, default=short_side),
        "augment": None if arguments.augment == "none" else arguments.augment,
        "seed": arguments.seed,
        "sampler": None if arguments.repeat_factor is None else RepeatFactor(arguments.repeat_factor),
    }
