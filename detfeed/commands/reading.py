"""Reading: the data sets that a command takes, with a line for each thing that their readers tell."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Iterator

from detfeed.annotations import Annotations
from detfeed.check.printing import count_files, say
from detfeed.errors import DetfeedError
from detfeed.readers.formats import DataSet, required, training_set, validation_set


def named_sets(arguments: argparse.Namespace) -> dict[str, DataSet]:
    """The data sets that the arguments name: "train", and "val" if there is one.

    Raises:
        argparse.ArgumentError: there is none, or options do not go together.
    """
    val = validation_set(arguments)
    return {"train": required(training_set(arguments))} | ({} if val is None else {"val": val})


def read_sets(named: dict[str, DataSet], *, skip_unreadable: bool) -> dict[str, Annotations]:
    """Read data sets, and print how much is in each.

    Args:
        named: the data sets by name.
        skip_unreadable: leave out what can't be read, with a line for each. Else it is an error.

    Raises:
        DetfeedError: the data can't be read.
    """
    tables = {}
    for name, data_set in named.items():
        skipped: list[str] = []

        def skip(path: str, error: DetfeedError, skipped: list[str] = skipped) -> None:
            say(f"skipped: {error}")
            skipped.append(path)

        with said_warnings():
            tables[name] = data_set.read(on_problem=skip if skip_unreadable else None)
        left_out = f"; {count_files(len(set(skipped)))} can't be read, or only in part" if skipped else ""
        print(f"read {name}: {counted(tables[name])}, from {tables[name].source}{left_out}")
    return tables


def counted(table: Annotations) -> str:
    """How much is in a table, in words."""
    return (
        f"{len(table)} images, {len(table.boxes)} boxes ({int(table.ignore.sum())} ignored), "
        f"{len(table.class_names)} classes"
    )


@contextlib.contextmanager
def said_warnings() -> Iterator[None]:
    """Print each warning as one line on stderr."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in warned:
                say(f"warning: {warning.message}")
