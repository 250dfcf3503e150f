#!/usr/bin/env python
"""Compare the feed of this checkout with that of others, such as an older commit, in one run: images/s to numpy.

Every measurement is a process of its own that imports the package of its checkout; rounds of all of them follow each
other, so that a machine that slows down slows all alike. Prints a table of medians and spreads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import albumentations
from rich.console import Console
from rich.table import Table

from bench_peers import BOUND, PEERS
from detfeed import AnchorGrid, AnchorTargets, BatchLoader, Sample, ShortSide, read_coco

HERE = Path(__file__).resolve().parents[1]
EPOCHS = 6
WAYS = ("detfeed processes", "detfeed threads")
TARGETS = {"with FPN targets": True, "images alone": False}


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    # A plain parser: the process that measures imports this file with a package that may have no other.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT", help="folders that hold other versions")
    parser.add_argument("--coco", required=True, metavar="JSON", help="COCO's file of annotations")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of its images")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of all measurements [5]")
    arguments = parser.parse_args()
    trees = [*(checkout.resolve() for checkout in arguments.checkouts), HERE]
    cells = [(tree, way, kind) for way in WAYS for kind in TARGETS for tree in trees]
    cells.append((HERE, BOUND, "images alone"))
    rates: dict[tuple[Path, str, str], list[float]] = {cell: [] for cell in cells}
    for _ in range(arguments.rounds):
        for cell, runs in rates.items():
            runs.append(_in_a_process(*cell, arguments.coco, arguments.images))
    table = Table(title="images/s to numpy: 2 workers, batches of 8 at short side 800, flips")
    for column in ("checkout", "way", "", "images/s", "spread"):
        table.add_column(column)
    for (tree, way, kind), runs in rates.items():
        name = "this one" if tree == HERE else tree.name
        table.add_row(name, way, kind, f"{statistics.median(runs):.0f}", f"{min(runs):.0f}-{max(runs):.0f}")
    Console().print(table)


def _in_a_process(tree: Path, way: str, kind: str, *data: str) -> float:
    paths = os.pathsep.join((str(tree), str(HERE / "scripts")))
    command = [sys.executable, __file__, "--measure", way, kind, *data]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    lines = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    if not lines:
        raise SystemExit(f"{tree}: {way} failed: {done.stderr[-2000:]}")
    return float(lines[0].partition(" ")[2])


def measure(way: str, kind: str, coco: str, images: str) -> None:
    """Print images per second of a way with the package that is imported here, after an epoch that warms up."""
    targets: Any = AnchorTargets(AnchorGrid.fpn()) if TARGETS[kind] else _no_targets
    loader = BatchLoader(
        read_coco(coco, images),
        targets,
        batch_size=8,
        resize=ShortSide(800, max_side=1333),
        augment=albumentations.HorizontalFlip(p=0.5),
    )
    epoch = PEERS[way].start(loader, 2)
    sum(epoch())
    start = time.perf_counter()
    count = sum(sum(epoch()) for _ in range(EPOCHS))
    print("result", count / (time.perf_counter() - start), flush=True)
    for child in multiprocessing.active_children():  # they would keep our output open
        child.kill()
    os._exit(0)


def _no_targets(sample: Sample) -> dict[str, object]:
    return {}


if __name__ == "__main__":
    main()
