#!/usr/bin/env python
"""Train a region proposal network on a data set of any format or the built-in shapes, and score its proposals."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

import training_run
from detfeed import Annotations
from detfeed.commands.parser import Parser, run_program
from detfeed.recall import MAX_PROPOSALS

if TYPE_CHECKING:
    from detfeed.models import ProposalModel


def build_parser() -> Parser:
    return training_run.build_parser(__doc__, Path("runs/rpn"))


def build_model(arguments: argparse.Namespace, data: Annotations) -> ProposalModel:
    from detfeed.models import ProposalModel

    return ProposalModel(training_run.build_rpn(arguments))


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    with parser.one_line_errors():
        arguments = training_run.parse_arguments(parser, argv)
    recall = training_run.run(arguments, parser, "ProposalModel", build_model)
    if recall:
        print_recall(recall)
    print(f"wrote {arguments.out}")


def print_recall(recall: dict[str, float]) -> None:
    table = Table(title="proposals against the validation boxes")
    for column in ("proposals an image", "AR", "AR small", "AR medium", "AR large", "recall at IoU 0.5"):
        table.add_column(column, justify="right", min_width=5)
    for most in MAX_PROPOSALS:
        names = [
            f"AR@{most}",
            *(f"AR@{most}_{size}" for size in ("small", "medium", "large")),
            f"recall@{most}",
        ]
        table.add_row(str(most), *(training_run.shown(recall, name) for name in names))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(run_program(main))
