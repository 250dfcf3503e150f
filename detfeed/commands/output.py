"""Output: the one place that a command is asked to write to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence


def chosen_output(
    arguments: argparse.Namespace, kinds: Sequence[str], *, files: Collection[str] = ()
) -> tuple[str, str]:
    """The kind of output of which the option --to-KIND is given, and the path given with it.

    Args:
        arguments: parsed, with an attribute `to_KIND` for each kind.
        kinds: at least two.
        files: those of which the path is a file's. An empty folder may be there for the others.

    Raises:
        argparse.ArgumentError: not one option is given, or something is at its path.
    """
    given = {kind: path for kind in kinds if (path := getattr(arguments, f"to_{kind}")) is not None}
    if len(given) != 1:
        *first, last = (f"--to-{kind}" for kind in kinds)
        got = " and ".join(f"--to-{kind}" for kind in given) or "none"
        raise argparse.ArgumentError(None, f"expected one of {', '.join(first)} and {last}, got {got}")
    ((kind, out),) = given.items()
    if os.path.lexists(out) and (kind in files or not os.path.isdir(out) or os.listdir(out)):
        raise argparse.ArgumentError(
            None, f"--to-{kind}: expected a new name, got {out}, which exists; give another name, or remove it"
        )
    return kind, out
