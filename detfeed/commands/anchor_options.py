"""Anchor options: those of a command line for a grid of anchors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from detfeed.commands.parser import positive
from detfeed.targets.anchors import AnchorGrid

_GRIDS: dict[str, Callable[..., AnchorGrid]] = {"fpn": AnchorGrid.fpn, "c4": AnchorGrid.c4}


def add_anchor_options(parser: argparse.ArgumentParser, *, title: str = "anchors") -> Any:
    """Add a group with --model, --anchor-sizes and --anchor-ratios.

    Returns:
        The group, for more options.
    """
    anchors = parser.add_argument_group(title)
    anchors.add_argument(
        "--model",
        choices=tuple(_GRIDS),
        default="fpn",
        metavar="NAME",
        help="levels of anchors: fpn (five) or c4 (one) [fpn]",
    )
    anchors.add_argument(
        "--anchor-sizes",
        type=positive,
        nargs="+",
        metavar="N",
        help="sides of anchors in pixels [32 64 128 256 512]; fpn: finest level first, as many for each",
    )
    anchors.add_argument(
        "--anchor-ratios", type=positive, nargs="+", metavar="R", help="height / width of anchors [0.5 1 2]"
    )
    return anchors


def chosen_grid(arguments: argparse.Namespace) -> AnchorGrid:
    """The grid that the options ask for.

    Raises:
        argparse.ArgumentError: sizes that the levels can't share evenly, or that are too small to be anchors.
    """
    make = _GRIDS[arguments.model]
    given: dict[str, Any] = {}
    if arguments.anchor_ratios:
        given["ratios"] = tuple(arguments.anchor_ratios)
    if arguments.anchor_sizes:
        sizes, levels = tuple(arguments.anchor_sizes), make().num_levels
        each, rest = divmod(len(sizes), levels)
        if rest:
            raise argparse.ArgumentError(
                None,
                f"--anchor-sizes: expected as many for each of the {levels} levels of {arguments.model}, got "
                f"{len(sizes)}; give {levels}, or a multiple",
            )
        given["sizes"] = sizes
        if levels > 1 and each > 1:
            given["sizes"] = tuple(sizes[first : first + each] for first in range(0, len(sizes), each))
    try:
        return make(**given)
    except ValueError as error:
        raise argparse.ArgumentError(None, f"--anchor-sizes: {error}") from None
