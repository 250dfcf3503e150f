#!/usr/bin/env python
"""Time how long it takes to see how well anchors fit a large data set, and to suggest better ones."""

from __future__ import annotations

import time

import numpy as np

from detfeed import AnchorGrid, Annotations, ShortSide, anchor_coverage, suggest_anchors
from detfeed.commands.parser import Parser, whole

SIZES_HW = ((480, 640), (640, 480), (427, 640), (640, 427), (612, 612), (375, 500), (500, 333))


def draw_table(num_images: int, boxes_each: int) -> Annotations:
    """Images of a few sizes with boxes whose sides are drawn log-uniformly from 8 pixels to the image's."""
    rng = np.random.default_rng(0)
    image_hw = np.array(SIZES_HW, np.int32)[rng.integers(len(SIZES_HW), size=num_images)]
    limits = np.repeat(image_hw[:, ::-1], boxes_each, axis=0)
    sides = np.exp(rng.uniform(np.log(8), np.log(limits)))
    corner = rng.uniform(size=sides.shape) * (limits - sides)
    boxes = np.minimum(np.concatenate([corner, corner + sides], axis=1), np.tile(limits, 2)).astype(np.float32)
    n = len(boxes)
    return Annotations(
        paths=tuple(f"{number}.jpg" for number in range(num_images)),
        image_ids=np.arange(num_images),
        image_hw=image_hw,
        boxes=boxes,
        class_ids=rng.integers(80, size=n).astype(np.int32),
        ignore=np.zeros(n, bool),
        areas=sides.prod(axis=1).astype(np.float32),
        offsets=np.arange(0, n + 1, boxes_each),
        class_names=tuple(map(str, range(80))),
        category_ids=np.arange(80),
    )


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--images", type=whole(1), default=100_000, metavar="N", help="to draw [100000]")
    parser.add_argument("--boxes", type=whole(0), default=7, metavar="N", help="in each [7]")
    arguments = parser.parse_args()
    table = draw_table(arguments.images, arguments.boxes)
    resize = ShortSide(800, max_side=1333)
    for name, grid in (("FPN", AnchorGrid.fpn()), ("C4", AnchorGrid.c4())):
        for what, function in (("coverage", anchor_coverage), ("suggestion", suggest_anchors)):
            start, worked = time.perf_counter(), time.process_time()
            answer = function(table, grid, resize=resize)
            taken, worked = time.perf_counter() - start, time.process_time() - worked
            print(f"{name} {what}: {taken:.1f} s, {worked:.1f} s of one core: {answer.summary_line()}", flush=True)


if __name__ == "__main__":
    main()
