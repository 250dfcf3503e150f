"""Sizes: the options of a command line for the size of the images fed."""

from __future__ import annotations

import argparse
from typing import Any

from detfeed.commands.parser import whole
from detfeed.images.canvases import Fixed, Resize, ShortSide

SHORT_SIDE = 800


def add_size_options(parser: argparse.ArgumentParser, *, default: str = str(SHORT_SIDE), fixed: bool = False) -> Any:
    """Add a group with --short-side and --max-side.

    Args:
        parser: gets the group.
        default: the shorter side if none is given, for the help.
        fixed: add --fixed as well, for `choose_resize`.

    Returns:
        The group, for more options.
    """
    size = parser.add_argument_group("size of the images fed")
    size.add_argument("--short-side", type=whole(1), metavar="N", help=f"shorter side in pixels [{default}]")
    size.add_argument("--max-side", type=whole(1), metavar="N", help="longest side at most [5/3 of the shorter side]")
    if fixed:
        size.add_argument(
            "--fixed",
            type=whole(1),
            nargs=2,
            metavar=("H", "W"),
            help="feed all images on one canvas of this size instead",
        )
    return size


def choose_resize(arguments: argparse.Namespace, *, default: int = SHORT_SIDE) -> Resize:
    """The sizes that the options ask for, --fixed among them.

    Args:
        arguments: the parsed arguments.
        default: the shorter side if none is given.

    Raises:
        argparse.ArgumentError: options do not go together.
    """
    if not arguments.fixed:
        return choose_short_side(arguments, default=default)
    for option, value in (("--short-side", arguments.short_side), ("--max-side", arguments.max_side)):
        if value is not None:
            raise argparse.ArgumentError(None, f"--fixed: expected no {option} with it, got both; leave one out")
    return Fixed((arguments.fixed[0], arguments.fixed[1]))


def choose_short_side(arguments: argparse.Namespace, *, default: int = SHORT_SIDE) -> ShortSide:
    """The sizes that the options ask for.

    Args:
        arguments: the parsed arguments.
        default: the shorter side if none is given. With 800 the longer side is at most 1333.

    Raises:
        argparse.ArgumentError: --max-side is below the shorter side.
    """
    short_side, max_side = arguments.short_side or default, arguments.max_side
    if max_side is not None and max_side < short_side:
        raise argparse.ArgumentError(
            None, f"--max-side: expected at least the shorter side, {short_side}, got {max_side}; see --short-side"
        )
    return ShortSide(short_side, max_side=max_side or short_side * 1333 // 800)
