#!/usr/bin/env python
"""Time the reading of data sets with a small file for each image, with the processes that help and without.

The sets are drawn: three objects in each file, and links to one JPEG, so that neither a disk nor decoding counts. Each
reading has a process of its own. Both ways take turns.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from detfeed.commands.parser import Parser, whole

OBJECTS = 3
HW = (375, 500)

# What each process does; it prints its seconds.
MEASURE = """
import sys, time
from detfeed import read_images, read_kitti, read_voc, read_yolo
from detfeed.check.pictures import inspect_images
from detfeed.processes import helpers
helpers.MOST_PROCESSES = int(sys.argv[2])
folder = sys.argv[1]
{before}
start = time.perf_counter()
{read}
print(time.perf_counter() - start)
"""
WAYS = {
    "read_voc": ("", "read_voc(folder)"),
    "read_yolo": ("", "read_yolo(f'{folder}/data.yaml')"),
    "read_kitti": ("", "read_kitti(folder)"),
    "read_images": ("", "read_images(f'{folder}/images')"),
    "headers of check --fast": ("paths = read_images(f'{folder}/images').paths", "inspect_images(paths, fast=True)"),
}


def draw(folder: Path, files: int) -> None:
    """Write a set in the layouts of VOC, YOLO and KITTI."""
    rng = np.random.default_rng(0)
    scratch = folder.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("images", "Annotations", "labels", "label_2"):
        (scratch / name).mkdir(parents=True)
    for name in ("JPEGImages", "image_2"):
        (scratch / name).symlink_to("images")
    cv2.imwrite(str(scratch / "picture.jpg"), rng.integers(0, 256, (*HW, 3), np.uint8))
    height, width = HW
    for number in range(files):
        name = f"{number:06d}"
        (scratch / "images" / f"{name}.jpg").symlink_to("../picture.jpg")
        x0, y0 = rng.integers(1, (width // 2, height // 2), (OBJECTS, 2)).T.tolist()
        x1, y1 = rng.integers((width // 2, height // 2), (width, height), (OBJECTS, 2)).T.tolist()
        corners = list(zip(x0, y0, x1, y1, strict=True))
        (scratch / "Annotations" / f"{name}.xml").write_text(voc_file(name, corners))
        (scratch / "labels" / f"{name}.txt").write_text(
            "".join(
                f"{row} {(a + c) / 2 / width:.6f} {(b + d) / 2 / height:.6f} {(c - a) / width:.6f} "
                f"{(d - b) / height:.6f}\n"
                for row, (a, b, c, d) in enumerate(corners)
            )
        )
        (scratch / "label_2" / f"{name}.txt").write_text(
            "".join(
                f"Car 0.00 0 -1.57 {a:.2f} {b:.2f} {c:.2f} {d:.2f} 1.50 1.60 3.90 1.00 1.60 20.00 -1.50\n"
                for a, b, c, d in corners
            )
        )
    names = [f"class {row}" for row in range(OBJECTS)]
    (scratch / "data.yaml").write_text(json.dumps({"train": "images", "val": "images", "names": names}))
    scratch.rename(folder)


def voc_file(name: str, corners: list[tuple[int, int, int, int]]) -> str:
    """An XML file with the elements and the indents of VOC2007."""
    objects = "".join(
        f"\t<object>\n\t\t<name>class {row}</name>\n\t\t<pose>Left</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n"
        f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for row, (x0, y0, x1, y1) in enumerate(corners)
    )
    return (
        f"<annotation>\n\t<folder>VOC2007</folder>\n\t<filename>{name}.jpg</filename>\n\t<source>\n"
        "\t\t<database>The VOC2007 Database</database>\n\t\t<annotation>PASCAL VOC2007</annotation>\n"
        "\t\t<image>flickr</image>\n\t\t<flickrid>1</flickrid>\n\t</source>\n\t<owner>\n\t\t<flickrid>1</flickrid>\n"
        f"\t\t<name>nobody</name>\n\t</owner>\n\t<size>\n\t\t<width>{HW[1]}</width>\n\t\t<height>{HW[0]}</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def measure(way: str, folder: Path, processes: int) -> float:
    before, read = WAYS[way]
    code = MEASURE.format(before=before, read=read)
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder), str(processes)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--files", type=whole(1), default=100_000, metavar="N", help="images of the set [100000]")
    parser.add_argument("--repeats", type=whole(1), default=1, metavar="N", help="rounds; the best one counts [1]")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder of the results [runs/bench]"
    )
    arguments = parser.parse_args()

    folder = arguments.out / f"small_files_{arguments.files}"
    if not folder.exists():
        draw(folder, arguments.files)
    most = min(os.cpu_count() or 1, 4)
    results: dict[str, dict[str, float]] = {way: {"alone": np.inf, "helped": np.inf} for way in WAYS}
    for _ in range(arguments.repeats):
        for way, best in results.items():
            for kind, processes in (("alone", 1), ("helped", most)):
                best[kind] = min(best[kind], measure(way, folder, processes))
    table = Table(title=f"{arguments.files} files, seconds")
    for name in ("", "one process", f"up to {most} processes", "ratio"):
        table.add_column(name, justify="right")
    for way, best in results.items():
        table.add_row(way, f"{best['alone']:.3g}", f"{best['helped']:.3g}", f"{best['alone'] / best['helped']:.2f}")
    Console(width=120).print(table)
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "files": arguments.files,
        "seconds": results,
    }
    (arguments.out / "small_files.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {arguments.out / 'small_files.json'}")


if __name__ == "__main__":
    main()
