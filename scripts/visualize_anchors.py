#!/usr/bin/env python
"""Draw what is fed to a region proposal network, after augmentation, as PNG contact sheets.

Each tile is one image on its canvas, in the order that training gets them: objects, the sampled positive anchors tied
to the object they match, the sampled negatives, ignored regions, and in red the objects that no anchor matches.
`detfeed show` draws the same, and more.
"""

from __future__ import annotations

from pathlib import Path

from data_arguments import add_data_arguments, choose_feed, read_training
from detfeed import AnchorTargets, BatchLoader, show
from detfeed.commands.anchor_options import add_anchor_options, chosen_grid
from detfeed.commands.parser import Parser, whole
from detfeed.commands.show import write_sheets
from detfeed.drawing.text import counted


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    sheets = parser.add_argument_group("sheets")
    sheets.add_argument(
        "--out", type=Path, default=Path("runs/anchors"), metavar="DIR", help="where to write the sheets [runs/anchors]"
    )
    sheets.add_argument(
        "--epoch", type=whole(0), default=0, metavar="N", help="epoch whose order and augmentation are shown [0]"
    )
    sheets.add_argument("--images-per-sheet", type=whole(1), default=12, metavar="N", help="images on a sheet [12]")
    sheets.add_argument("--sheets", type=whole(1), default=1, metavar="N", help="how many sheets [1]")
    add_data_arguments(parser)
    add_anchor_options(parser, title="anchors (as given to train_rpn.py)")
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    with parser.one_line_errors():
        feed = choose_feed(arguments)
        targets = AnchorTargets(chosen_grid(arguments))
        data = read_training(arguments)
    per_sheet = arguments.images_per_sheet
    sheet = show(BatchLoader(data, targets, **feed), epoch=arguments.epoch, num_images=arguments.sheets * per_sheet)
    for path in write_sheets(sheet, arguments.out, f"anchors_epoch{arguments.epoch}", per_sheet=per_sheet):
        print(path)
    unmatched = sheet.num_unmatched
    images, objects = counted(len(sheet.pictures), "image"), counted(sheet.num_objects, "object")
    print(f"{images}, {objects}, {unmatched:,} matched by no anchor")
    if unmatched:
        print(
            f"warning: nothing is learned from {counted(unmatched, 'object')} drawn in red; "
            "try smaller --anchor-sizes or a larger --short-side"
        )


if __name__ == "__main__":
    main()
