#!/usr/bin/env python
"""Time the reading of a COCO file as large as instances_train2017.json, against pycocotools.

The file is drawn: as many images, boxes, crowds and bytes as COCO's, with polygons of the same lengths. Each reader has
a process of its own, and its peak memory is that of the whole process, imports included, and of those that it starts.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from detfeed.commands.parser import Parser, positive, whole

IMAGES, BOXES, CROWDS, CLASSES = 118_287, 860_001, 10_098, 80
AT_ONCE = 10_000  # images that are drawn together

# What each process does; it prints one line of JSON. A thread looks for children and their memory 20 times a second.
MEASURE = """
import json, pathlib, resource, sys, threading, time
{imports}
children, stop = {{}}, threading.Event()
def watch():
    while not stop.wait(0.05):
        for pid in pathlib.Path(f"/proc/self/task/{{threading.main_thread().native_id}}/children").read_text().split():
            try:
                status = pathlib.Path(f"/proc/{{pid}}/status").read_text()
            except OSError:
                continue
            if "VmHWM:" in status:
                children[pid] = int(status.partition("VmHWM:")[2].split()[0])
watcher = threading.Thread(target=watch)
watcher.start()
own = time.process_time()
start = time.perf_counter()
{read}
taken = time.perf_counter() - start
stop.set()
watcher.join()
used, helpers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
{after}
cpu = used.ru_utime + used.ru_stime - own + helpers.ru_utime + helpers.ru_stime
peak = used.ru_maxrss + sum(children.values())
print(json.dumps({{"seconds": taken, "CPU seconds": cpu, "peak MB": peak / 1024, "held MB": held / 1e6}}))
"""
WAYS = {
    "pycocotools": {
        "imports": "import contextlib, io; from pycocotools.coco import COCO",
        "read": "with contextlib.redirect_stdout(io.StringIO()): data = COCO(sys.argv[1])",
        "after": "held = float('nan')",
    },
    "read_coco": {
        "imports": "import dataclasses, numpy; from detfeed import read_coco",
        "read": "data = read_coco(sys.argv[1], 'train2017')",
        "after": (
            "held = sum(map(sys.getsizeof, (*data.paths, *data.class_names, data.paths)))\n"
            "parts = (data, data.masks)\n"
            "values = [getattr(part, field.name) for part in parts for field in dataclasses.fields(part)]\n"
            "held += sum(value.nbytes for value in values if isinstance(value, numpy.ndarray))"
        ),
    },
}
WAYS["read_coco(masks=True)"] = WAYS["read_coco"] | {"read": "data = read_coco(sys.argv[1], 'train2017', masks=True)"}


def _dump(content: object) -> str:
    return json.dumps(content, separators=(",", ": "))  # as COCO's files are written


def draw_polygons(rng: np.random.Generator, count: int) -> list[str]:
    """Polygons as COCO writes them: mostly one, sometimes two, of 20 points in the mean; 45 numbers an object."""
    polygons = []
    for _ in range(count):
        parts = []
        for _ in range(1 + int(rng.random() < 0.1)):
            points = 3 + int(rng.gamma(1, 17.6))
            corners = rng.uniform(0, 480, 2 * points).round(2).tolist()
            parts.append(corners)
        polygons.append(_dump(parts))
    return polygons


def write_file(path: Path, *, images: int, boxes: int, crowds: int) -> None:
    """Write a file of that many images, boxes and crowds, a few thousand images at a time."""
    rng = np.random.default_rng(0)
    polygons = draw_polygons(rng, 5000)
    sizes = [(480, 640), (640, 480), (427, 640), (640, 427), (640, 640)]
    counts = rng.multinomial(boxes, np.full(images, 1 / images))
    crowd_rows = set(rng.choice(boxes, crowds, replace=False).tolist())
    image_ids = rng.choice(600_000, images, replace=False) + 1
    sizes_of = rng.integers(0, len(sizes), images)
    category_ids = np.sort(rng.choice(90, CLASSES, replace=False)) + 1

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    with scratch.open("w") as file:
        file.write('{"info": {"year": 2017}, "licenses": [{"id": 1, "name": "none"}],"images": [')
        for position, (image_id, kind) in enumerate(zip(image_ids.tolist(), sizes_of.tolist(), strict=True)):
            height, width = sizes[kind]
            file.write(
                f'{"," if position else ""}{{"license": 3,"file_name": "{image_id:012d}.jpg","coco_url": '
                f'"http://images.cocodataset.org/train2017/{image_id:012d}.jpg","height": {height},"width": {width},'
                f'"date_captured": "2013-11-14 11:18:45","flickr_url": '
                f'"http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg","id": {image_id}}}'
            )
        file.write('],"annotations": [')
        row = 0
        for start in range(0, images, AT_ONCE):
            positions = np.repeat(np.arange(start, min(start + AT_ONCE, images)), counts[start : start + AT_ONCE])
            sides = rng.gamma(1.2, 80, (len(positions), 2))
            corners = rng.uniform(0, 1, (len(positions), 2))
            which = rng.integers(0, len(polygons), len(positions)).tolist()
            categories = category_ids[rng.integers(0, CLASSES, len(positions))].tolist()
            for place, position in enumerate(positions.tolist()):
                height, width = sizes[sizes_of[position]]
                w, h = min(sides[place, 0] + 4, width), min(sides[place, 1] + 4, height)
                x, y = corners[place, 0] * (width - w), corners[place, 1] * (height - h)
                segmentation, crowd = polygons[which[place]], int(row in crowd_rows)
                if crowd:
                    runs = rng.multinomial(height * width, np.full(401, 1 / 401)).tolist()
                    segmentation = _dump({"counts": runs, "size": [height, width]})
                file.write(
                    f'{"," if row else ""}{{"segmentation": {segmentation},"area": {w * h * 0.6},"iscrowd": '
                    f'{crowd},"image_id": {image_ids[position]},"bbox": [{x:.2f},{y:.2f},{w:.2f},{h:.2f}],'
                    f'"category_id": {categories[place]},"id": {row + 1}}}'
                )
                row += 1
        categories_text = _dump(
            [{"supercategory": "thing", "id": i, "name": f"class {i}"} for i in category_ids.tolist()]
        )
        file.write(f'],"categories": {categories_text}}}')
    scratch.rename(path)


def measure(way: str, path: Path) -> dict[str, float]:
    code = MEASURE.format(**WAYS[way])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], capture_output=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--share", type=positive, default=1.0, help="of COCO's images and boxes to draw [1]")
    parser.add_argument("--repeats", type=whole(1), default=1, metavar="N", help="rounds; the best one counts [1]")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder of the results [runs/bench]"
    )
    arguments = parser.parse_args()

    path = arguments.out / f"instances_{arguments.share:g}.json"
    if not path.exists():
        write_file(
            path,
            images=round(IMAGES * arguments.share),
            boxes=round(BOXES * arguments.share),
            crowds=round(CROWDS * arguments.share),
        )
    results: dict[str, dict[str, float]] = {}
    for _ in range(arguments.repeats):
        for way in WAYS:
            result = measure(way, path)
            results[way] = {name: min(value, results.get(way, result)[name]) for name, value in result.items()}
    ratios = {
        name: results["pycocotools"][name] / results["read_coco"][name]
        for name in ("seconds", "CPU seconds", "peak MB")
    }
    table = Table(title=f"reading {path.name}, {path.stat().st_size / 1e6:.0f} MB")
    for name in ("", *results["read_coco"]):
        table.add_column(name, justify="right")
    for way, result in results.items():
        table.add_row(way, *("" if np.isnan(value) else f"{value:.3g}" for value in result.values()))
    table.add_row("ratio", *(f"{ratio:.1f}" for ratio in ratios.values()))
    Console(width=120).print(table)
    report: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "bytes": path.stat().st_size,
        "results": {way: {k: None if np.isnan(v) else v for k, v in result.items()} for way, result in results.items()},
        "ratios": ratios,
    }
    (arguments.out / "reading.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {arguments.out / 'reading.json'}")


if __name__ == "__main__":
    main()
