#!/usr/bin/env python
"""Time an image's way from its file to the canvas, decoded whole and at a reduced scale.

"read" is from the file to pixels, "sample" on to the canvas. Both ways, and cv2 alone, are timed in turn on the same
files, so that the ratios hold on a machine whose speed drifts. Without files the script draws its own: noise as rough
as photographs, at the sizes of a 12-megapixel camera and of COCO.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detfeed import Annotations, BatchLoader, ShortSide, read_image
from detfeed.commands.parser import Parser, whole

RESIZE = ShortSide(800, max_side=1333)
SIZES = {"12 MP": (3000, 4000), "12 MP progressive": (3000, 4000), "COCO": (480, 640)}


def draw_photograph(image_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise of all scales, the coarse ones strongest, as in nature; uint8 (H, W, 3)."""
    height, width = image_hw
    total = np.full((height, width, 3), 128, np.float32)
    for octave in range(2, 12):
        size = (max(2, height >> octave), max(2, width >> octave), 3)
        noise = rng.normal(0, 2 ** (octave / 2), size).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    total += rng.normal(0, 7, total.shape).astype(np.float32)
    return np.clip(total, 0, 255).astype(np.uint8)


def draw_files(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for kind, image_hw in SIZES.items():
        for number in range(2):
            path = folder / f"{kind.replace(' ', '_')}_{number}.jpg"
            options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, int("progressive" in kind)]
            cv2.imwrite(str(path), draw_photograph(image_hw, np.random.default_rng(number)), options)
            files.setdefault(kind, []).append(path)
    return files


def time_in_turn(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(times[1:])) for name, times in taken.items()}


def loader_of(path: Path, image_hw: tuple[int, int], *, reduce: bool) -> BatchLoader:
    """A loader of a data set of one image without boxes."""
    table = Annotations(
        paths=(str(path),),
        image_ids=np.arange(1),
        image_hw=np.array([image_hw], np.int32),
        boxes=np.empty((0, 4), np.float32),
        class_ids=np.empty(0, np.int32),
        ignore=np.empty(0, bool),
        areas=np.empty(0, np.float32),
        offsets=np.zeros(2, np.int64),
        class_names=("object",),
        category_ids=np.arange(1),
    )
    return BatchLoader(table, lambda sample: {}, batch_size=1, resize=RESIZE, reduce=reduce)


def measure(path: Path, repeats: int) -> dict[str, float]:
    data = np.fromfile(path, np.uint8)
    height, width, _ = read_image(path).shape
    whole, reduced = (loader_of(path, (height, width), reduce=reduce) for reduce in (False, True))
    fed_hw = whole.placed_hw(0)
    times = time_in_turn(
        {
            "cv2 decode": lambda: cv2.imdecode(data, cv2.IMREAD_COLOR_RGB),
            "read": lambda: read_image(path),
            "read reduced": lambda: read_image(path, at_least_hw=fed_hw),
            "sample": lambda: whole.load_sample(0, 0),
            "sample reduced": lambda: reduced.load_sample(0, 0),
        },
        repeats,
    )
    error = reduced.load_sample(0, 0).image.astype(np.float32) - whole.load_sample(0, 0).image
    return {"bytes": len(data), **times, "rms difference": float(np.sqrt((error**2).mean()))}


def main() -> None:
    parser = Parser(usage="%(prog)s [FILE ...] [options]", description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="time these images instead")
    parser.add_argument("--repeats", type=whole(1), default=9, metavar="N", help="times each image is read [9]")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder of the results [runs/bench]"
    )
    arguments = parser.parse_args()

    cv2.setNumThreads(1)  # as in a worker process
    with tempfile.TemporaryDirectory() as folder:
        groups = {"given": arguments.files} if arguments.files else draw_files(Path(folder))
        results = []
        for kind, paths in groups.items():
            measured = [measure(path, arguments.repeats) for path in paths]
            result = {name: float(np.mean([m[name] for m in measured])) for name in measured[0]}
            results.append({"images": kind, **result, "gain": result["sample"] / result["sample reduced"]})
    table = Table(title=f"ms an image, resized by {RESIZE}")
    for name in results[0]:
        table.add_column(name, justify="right")
    for row in results:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(table)
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    report = {"machine": {**machine, "cv2": cv2.__version__}, "results": results}
    (arguments.out / "images.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {arguments.out / 'images.json'}")


if __name__ == "__main__":
    main()
