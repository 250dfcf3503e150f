"""Sizes: the options of a command line for the size of the images fed."""

from __future__ import annotations

import argparse
from typing import Any

from detfeed.commands.parser import whole
from detfeed.images.canvases import ShortSide

SHORT_SIDE = 800


def add_size_options(parser: argparse.ArgumentParser, *, default: str = str(SHORT_SIDE)) -> Any:
    """Add a group with --short-side and --max-side.

    Args:
        parser: gets the group.
        default: the shorter side if none is given, for the help.

    Returns:
        The group, for more options.
    """
    size = parser.add_argument_group("size of the images fed")
    size.add_argument("--short-side", type=whole(1), metavar="N", help=f"shorter side in pixels [{default}]")
    size.add_argument("--max-side", type=whole(1), metavar="N", help="longer side at most [5/3 of the shorter side]")
    return size


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
