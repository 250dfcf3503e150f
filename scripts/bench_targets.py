#!/usr/bin/env python
"""Time anchor matching and whole targets against the dense way in numpy, and torchvision's if it is installed.

All ways are timed in turn on the same boxes, so that the ratios hold on a machine whose speed drifts. "target" is all
that a loader does for an image: matching, sampling, coding, and writing into the batch.
"""

from __future__ import annotations

import bisect
import json
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detfeed import (
    AnchorGrid,
    AnchorTargets,
    Annotations,
    BatchLoader,
    Sample,
    ShortSide,
    make_shapes,
    read_coco,
)
from detfeed.commands.parser import Parser, whole
from detfeed.readers.formats import add_training_options, training_set

Boxes = NDArray[np.float32]

INPUT_HW = (800, 1344)
NUMBERS = (0, 1, 7, 20, 60, 200)
GRIDS = {"FPN": AnchorGrid.fpn(), "C4": AnchorGrid.c4()}


def draw_boxes(number: int, rng: np.random.Generator) -> Boxes:
    """Boxes with sides drawn log-uniformly from 10 to 500 pixels, anywhere in the input; float32 (number, 4)."""
    size = np.exp(rng.uniform(np.log(10), np.log(500), (number, 2)))
    corner = rng.uniform(size=(number, 2)) * (np.array(INPUT_HW[::-1]) - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def to_box_sets(table: Annotations) -> list[Boxes]:
    """The boxes of each image as they lie on the input: short side 800, at most 1333."""
    resized = ShortSide(800, max_side=1333).resized_hw(table.image_hw)
    sets = []
    for position in range(len(table)):
        rows = table.rows(position)
        boxes = table.boxes[rows][~table.ignore[rows]]
        if (resized[position] <= INPUT_HW).all():
            sets.append((boxes * np.tile((resized[position] / table.image_hw[position])[::-1], 2)).astype(np.float32))
    return sets


def sample_of(boxes: Boxes) -> Sample:
    return Sample(
        image=np.broadcast_to(np.uint8(0), (*INPUT_HW, 3)),
        boxes=boxes,
        class_ids=np.zeros(len(boxes), np.int32),
        ignore=np.zeros(len(boxes), bool),
        image_id=0,
        position=0,
        input_hw=INPUT_HW,
        rng=np.random.default_rng(0),
    )


def match_densely(anchors: Boxes, boxes: Boxes) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """The state and the best box of each anchor, from the IoU of each anchor with each box.

    It is the plain rule of a hand-written generator. The tests hold `match_anchors` to a longer one, which also has
    regions to ignore and rules for anchors that reach out; a script can't import it from there.
    """
    states = np.zeros(len(anchors), np.int8)
    if len(boxes) == 0:
        return states, np.zeros(len(anchors), np.int64)

    def overlap(low: int, high: int) -> NDArray[np.float32]:
        ends = np.minimum(anchors[:, None, high], boxes[:, high])
        return (ends - np.maximum(anchors[:, None, low], boxes[:, low])).clip(0)

    shared = overlap(0, 2) * overlap(1, 3)
    areas, box_areas = ((some[:, 2:] - some[:, :2]).prod(axis=1) for some in (anchors, boxes))
    iou = shared / (areas[:, None] + box_areas - shared)
    best, highest = iou.max(axis=1), iou.max(axis=0)
    states[best >= 0.3] = -1
    states[best >= 0.7] = 1
    states[((iou == highest) & (highest > 0)).any(axis=1)] = 1
    return states, iou.argmax(axis=1)


def torchvision_matcher(grid: AnchorGrid) -> Callable[[Boxes], Any] | None:
    """torchvision's box_iou and Matcher on the same anchors, or None where it is not installed."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from torchvision.models.detection._utils import Matcher  # pyright: ignore[reportMissingImports]
        from torchvision.ops import box_iou  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    anchors = torch.from_numpy(grid.anchors(INPUT_HW).copy())
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
    # Its matcher refuses images without boxes; the callers of it make all anchors negative.
    return lambda boxes: matcher(box_iou(torch.from_numpy(boxes), anchors)) if len(boxes) else None


def time_in_turn(ways: dict[str, Callable[[Boxes], Any]], sets: list[Boxes], repeats: int) -> dict[str, float]:
    """Median milliseconds an image of each way; in each round every way does all sets in a row."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(sets[0])
    for _ in range(repeats):
        for name, way in ways.items():
            for boxes in sets:
                start = time.perf_counter()
                way(boxes)
                taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in taken.items()}


def peak_megabytes(way: Callable[[Boxes], Any], boxes: Boxes) -> float:
    """What numpy allocates at most during one call, in MB."""
    way(boxes)
    tracemalloc.start()
    way(boxes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure(kind: str, label: str, sets: list[Boxes], repeats: int) -> dict[str, Any]:
    grid = GRIDS[kind]
    targets = AnchorTargets(grid)
    anchors = grid.anchors(INPUT_HW)

    # One batch of eight that a target is written into, as the loader does.
    def sampled(boxes: Boxes) -> dict[str, NDArray[Any]]:
        return targets(sample_of(boxes))[1]

    batch = {name: np.zeros((8, *array.shape), array.dtype) for name, array in sampled(sets[0]).items()}

    def whole_target(boxes: Boxes) -> None:
        for name, array in sampled(boxes).items():
            batch[name][3] = array

    ways: dict[str, Callable[[Boxes], Any]] = {
        "matching": lambda boxes: targets.match(sample_of(boxes)),
        "target": whole_target,
        "dense": lambda boxes: match_densely(anchors, boxes),
    }
    theirs = torchvision_matcher(grid)
    if theirs is not None:
        ways["torchvision"] = theirs
    result: dict[str, Any] = {"anchors": kind, "boxes": label, **time_in_turn(ways, sets, repeats)}
    largest = max(sets, key=len)
    result["peak_mb"] = peak_megabytes(ways["matching"], largest)
    result["dense_peak_mb"] = peak_megabytes(ways["dense"], largest)
    return result


def time_crowds(shapes_dir: Path, repeats: int) -> dict[str, float]:
    """Median milliseconds of a target, of drawn images with a crowd, by what counts as the crowd."""
    json_file = shapes_dir / "instances.json"
    if not json_file.exists():
        make_shapes(shapes_dir, num_images=80, image_hw=(480, 640))
    table = read_coco(json_file, shapes_dir / "images")
    starts = table.offsets.tolist()
    crowded = sorted({bisect.bisect(starts, row) - 1 for row in table.masks})
    by_mask, by_box = AnchorTargets(GRIDS["FPN"]), AnchorTargets(GRIDS["FPN"], crowd="box")
    ways = {"by its mask": by_mask, "by its box": by_box, "left out": by_box}
    loader = BatchLoader(table, by_mask, batch_size=1, resize=ShortSide(800, max_side=1333))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for position in crowded * repeats:
        for name, way in ways.items():
            sample = loader.load_sample(0, position)  # a new one: it keeps the masks that were looked at
            if name == "left out":
                sample = sample_of(sample.boxes[~sample.ignore])
            start = time.perf_counter()
            way(sample)
            taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in taken.items()}


def print_table(results: list[dict[str, Any]]) -> None:
    table = Table(title=f"ms an image, input {INPUT_HW[0]}x{INPUT_HW[1]} (ratio to matching)")
    names = ["matching", "target", "dense", *(["torchvision"] if "torchvision" in results[0] else [])]
    for column in ("anchors", "boxes", *names, "peak MB", "dense peak MB"):
        table.add_column(column, justify="right")
    for result in results:
        cells = [f"{result[name]:.2f} ({result[name] / result['matching']:.0f}x)" for name in names[2:]]
        table.add_row(
            result["anchors"],
            result["boxes"],
            f"{result['matching']:.3f}",
            f"{result['target']:.3f}",
            *cells,
            f"{result['peak_mb']:.1f}",
            f"{result['dense_peak_mb']:.0f}",
        )
    Console(width=120).print(table)


def plot(results: list[dict[str, Any]], picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, kind in zip(figure.subplots(1, 2, sharey=True), GRIDS, strict=True):
        rows = [r for r in results if r["anchors"] == kind and r["boxes"].isdigit()]
        for name in ("matching", "target", "dense", "torchvision"):
            if name in rows[0]:
                axis.plot([int(r["boxes"]) for r in rows], [r[name] for r in rows], marker="o", label=name)
        axis.set_title(f"{kind}, {GRIDS[kind].num_anchors(INPUT_HW):,} anchors")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_yscale("log")
        axis.set_xlabel("boxes")
        axis.set_ylabel("ms an image")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(picture, dpi=120)


def main() -> None:
    parser = Parser(description=__doc__)
    add_training_options(parser, title="data whose boxes are timed as well, one of (none: drawn boxes alone)")
    bench = parser.add_argument_group("measurements")
    bench.add_argument("--sets", type=whole(1), default=10, metavar="N", help="sets drawn for a number of boxes [10]")
    bench.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="times each set is matched [5]")
    bench.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder of the results [runs/bench]"
    )
    arguments = parser.parse_args()
    with parser.one_line_errors():
        named = training_set(arguments)
        data_sets = {} if named is None else {named.format.name: to_box_sets(named.read())}

    results = []
    for kind in GRIDS:
        for number in NUMBERS:
            rng = np.random.default_rng(number)
            sets = [draw_boxes(number, rng) for _ in range(arguments.sets)]
            results.append(measure(kind, str(number), sets, arguments.repeats))
        results += [measure(kind, name, sets, 1) for name, sets in data_sets.items()]
    print_table(results)
    crowds = time_crowds(arguments.out / "shapes", arguments.repeats)
    print("target of a drawn image with a crowd, FPN:", ", ".join(f"{name} {ms:.2f} ms" for name, ms in crowds.items()))
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    report = {
        "machine": {**machine, "numpy": np.__version__},
        "input_hw": INPUT_HW,
        "results": results,
        "crowds": crowds,
    }
    (arguments.out / "targets.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(results, arguments.out / "targets.png")
    print(f"wrote {arguments.out / 'targets.json'} and {arguments.out / 'targets.png'}")


if __name__ == "__main__":
    main()
