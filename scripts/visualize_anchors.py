#!/usr/bin/env python
"""Draw what is fed to a region proposal network, after augmentation, as PNG contact sheets.

Each tile is one image on its canvas, in the order that training gets them: objects, the sampled positive anchors tied
to the object they match, the sampled negatives, ignored regions, and in red the objects that no anchor matches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_arguments import add_data_arguments, choose_feed, read_training
from detfeed import AnchorGrid, AnchorTargets, BatchLoader
from detfeed.commands.parser import Parser, positive, whole
from detfeed.drawing import ANCHOR_KEYS, contact_sheet, draw_anchors, unmatched_boxes, write_png


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    sheets = parser.add_argument_group("sheets")
    sheets.add_argument(
        "--out", type=Path, default=Path("runs/anchors"), metavar="DIR", help="where to write the sheets [runs/anchors]"
    )
    sheets.add_argument("--epoch", type=whole(0), default=0, metavar="N", help="whose order and augmentation [0]")
    sheets.add_argument("--images-per-sheet", type=whole(1), default=12, metavar="N", help="images on a sheet [12]")
    sheets.add_argument("--sheets", type=whole(1), default=1, metavar="N", help="how many [1]")
    add_data_arguments(parser)
    anchors = parser.add_argument_group("anchors (as given to train_rpn.py)")
    anchors.add_argument("--model", choices=("fpn", "c4"), default="fpn", metavar="NAME", help="fpn or c4 [fpn]")
    anchors.add_argument(
        "--anchor-sizes", type=positive, nargs="+", metavar="N", help="sides in pixels [32 64 128 256 512]"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    with parser.one_line_errors():
        feed = choose_feed(arguments)
        data = read_training(arguments)
    sizes: dict[str, Any] = {"sizes": tuple(arguments.anchor_sizes)} if arguments.anchor_sizes else {}
    grid = AnchorGrid.fpn(**sizes) if arguments.model == "fpn" else AnchorGrid.c4(**sizes)
    targets = AnchorTargets(grid)
    loader = BatchLoader(data, targets, **feed)
    positions = np.concatenate(loader.batches(arguments.epoch)).tolist()
    per_sheet = arguments.images_per_sheet
    positions = positions[: arguments.sheets * per_sheet]
    title = f"what is fed in epoch {arguments.epoch}: {arguments.model} anchors, seed {arguments.seed}, {data}"
    objects = unmatched = 0
    for start in range(0, len(positions), per_sheet):
        tiles = []
        for position in positions[start : start + per_sheet]:
            sample = loader.load_sample(arguments.epoch, position)
            matches = targets.match(sample)
            # Once, on a fresh sample: the targets are drawn from the sample's generator, as in training.
            y = targets(sample)[1]
            tiles.append(draw_anchors(sample, grid.anchors(sample.input_hw), matches, y))
            objects += int((~sample.ignore).sum())
            unmatched += int(unmatched_boxes(sample, matches).sum())
        path = arguments.out / f"anchors_epoch{arguments.epoch}_{start // per_sheet}.png"
        write_png(path, contact_sheet(tiles, legend=ANCHOR_KEYS, title=title))
        print(path)
    print(f"{len(positions)} images, {objects} objects, {unmatched} matched by no anchor")
    if unmatched:
        print(
            f"warning: nothing is learned from the {unmatched} objects drawn in red; "
            "try smaller --anchor-sizes or a larger --short-side"
        )


if __name__ == "__main__":
    main()
