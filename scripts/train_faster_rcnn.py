#!/usr/bin/env python
"""Train a Faster R-CNN on a data set of any format or the built-in shapes, and score its detections."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

import training_run
from detfeed import Annotations, RoiTargets
from detfeed.check.printing import printable
from detfeed.commands.parser import Parser, run_program, whole

if TYPE_CHECKING:
    from detfeed.models import DetectionModel


def build_parser() -> Parser:
    parser = training_run.build_parser(__doc__, Path("runs/faster_rcnn"))
    head = parser.add_argument_group("head")
    head.add_argument(
        "--roi-samples",
        type=whole(1),
        default=512,
        metavar="N",
        help="RoIs of an image that the head learns from [512]",
    )
    head.add_argument(
        "--train-proposals",
        type=whole(1),
        default=2000,
        metavar="N",
        help="of an image that they are drawn from [2000]",
    )
    head.add_argument("--proposals", type=whole(1), default=1000, metavar="N", help="of an image to classify [1000]")
    return parser


def build_model(arguments: argparse.Namespace, data: Annotations) -> DetectionModel:
    from detfeed.models import DetectionModel, FasterRCNN

    faster_rcnn = FasterRCNN(
        training_run.build_rpn(arguments),
        num_classes=len(data.class_names),
        roi_targets=RoiTargets(crowd="box", num_samples=arguments.roi_samples),
        train_pre_nms=arguments.train_proposals,
        train_post_nms=arguments.train_proposals,
        pre_nms=arguments.proposals,
        post_nms=arguments.proposals,
        seed=arguments.seed,
    )
    return DetectionModel(faster_rcnn)


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    with parser.one_line_errors():
        arguments = training_run.parse_arguments(parser, argv)
    figures = training_run.run(arguments, parser, "DetectionModel", build_model, boxes=True)
    if figures:
        print_precision(figures)
    print(f"wrote {arguments.out}")


def print_precision(figures: dict[str, float]) -> None:
    table = Table(title="detections against the validation boxes\n(AP: COCO's mAP, the mean over IoU 0.5 to 0.95)")
    table.add_column(no_wrap=True)
    for column in ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR@100"):
        table.add_column(column, justify="right", min_width=5)
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@100")
    table.add_row("all classes", *(training_run.shown(figures, name) for name in names))
    for name in figures:
        if name.startswith("AP/"):
            class_name = Text(printable(name.removeprefix("AP/")))  # no markup: a name may have brackets
            table.add_row(class_name, training_run.shown(figures, name))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(run_program(main))
