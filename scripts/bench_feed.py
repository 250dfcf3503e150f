#!/usr/bin/env python
"""Time the feed: the same batches made in place, by Keras's own workers and by detfeed's, to numpy, tf.data and fit.

Every measurement is a process of its own, so that its workers are cold and its memory is its own; rounds of all of them
follow each other, so that a machine that slows down slows all alike. Prints tables and saves them as JSON and a plot.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import pickle
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

import albumentations
import cloudpickle
import numpy as np
from rich.console import Console
from rich.table import Table

from bench_peers import BOUND, PEERS, installed
from detfeed import (
    AnchorGrid,
    AnchorTargets,
    Annotations,
    BatchLoader,
    Feed,
    Fixed,
    Sample,
    ShortSide,
    make_shapes,
    read_coco,
    read_image,
)
from detfeed.commands.parser import Parser, whole
from detfeed.readers.formats import add_training_options, training_set

Cell = TypeVar("Cell", bound=tuple[Any, ...])
# "stream" is fit(sequence.stream(), steps_per_epoch=...): one iterator of TensorFlow's for all epochs. "fit" is
# fit(sequence, shuffle=False), and "shuffled fit" is fit(sequence): Keras shuffles the batches of each epoch.
SINKS = ("numpy", "tf.data", "fit", "stream", "shuffled fit")
# Name: kind, number of workers (None: as asked for), processes or threads, sinks.
WAYS = {
    "in place": ("detfeed", 1, False, SINKS[:4]),
    "Keras threads": ("keras", None, False, SINKS[:3]),
    "Keras processes": ("keras", None, True, SINKS[:3]),
    "detfeed threads": ("detfeed", None, False, SINKS[:4]),
    "detfeed processes": ("detfeed", None, True, SINKS),
    "without guesses": ("unguessed", None, True, SINKS[4:]),
}
# How often each image comes in an epoch of "shuffled fit". An epoch must have many more batches than are made ahead, or
# a batch made ahead in the wrong order is used soon after.
REPEATS = 8


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    add_training_options(parser, title="data, one of (none: 80 drawn images)")
    drawn = parser.add_argument_group("drawn images")
    drawn.add_argument(
        "--shapes-dir",
        type=Path,
        default=Path("runs/bench/shapes"),
        metavar="DIR",
        help="where to draw them [runs/bench/shapes]",
    )
    bench = parser.add_argument_group("measurements")
    bench.add_argument("--short-side", type=whole(1), default=800, metavar="N", help="shorter side in pixels [800]")
    bench.add_argument("--batch-size", type=whole(1), default=8, metavar="N", help="images [8]")
    bench.add_argument("--workers", type=whole(1), nargs="+", default=[2], metavar="N", help="how many [2]")
    bench.add_argument("--epochs", type=whole(1), default=4, metavar="N", help="timed epochs of a measurement [4]")
    bench.add_argument("--rounds", type=whole(1), default=3, metavar="N", help="of all measurements [3]")
    bench.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder of the results [runs/bench]"
    )
    bench.add_argument(
        "--peers",
        action="store_true",
        help="compare with the loaders of those other libraries that are installed, to numpy, instead",
    )
    bench.add_argument("--measure", help=argparse.SUPPRESS)
    return parser


def read_data(arguments: argparse.Namespace) -> Annotations:
    """The data set that the arguments name, or drawn images.

    Raises:
        argparse.ArgumentError: options do not go together.
        DetfeedError: the data can't be read.
    """
    named = training_set(arguments)
    if named is not None:
        return named.read()
    json_file = arguments.shapes_dir / "instances.json"
    if not json_file.exists():
        make_shapes(arguments.shapes_dir, num_images=80, image_hw=(480, 640))
    return read_coco(json_file, arguments.shapes_dir / "images")


def loader_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    side = arguments.short_side
    return {
        "batch_size": arguments.batch_size,
        "resize": ShortSide(side, max_side=side * 1333 // 800),
        "augment": albumentations.HorizontalFlip(p=0.5),
    }


# One measurement, in a process of its own.


class Usage:
    """Memory and CPU of this process and its children."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._cpu: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.look()

    def look(self) -> None:
        """Note the present memory and CPU time."""
        total = 0.0
        for pid in [os.getpid(), *descendants()]:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                self._cpu[pid] = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
                # The proportional set size counts memory that several processes share once.
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(rollup.partition("\nPss:")[2].split()[0]) / 1024
            except (OSError, IndexError, ValueError):
                continue
        self.peak = max(self.peak, total)

    def cpu(self) -> float:
        """CPU seconds so far."""
        self.look()
        return sum(self._cpu.values())

    def stop(self) -> None:
        self._stop.set()


def descendants() -> list[int]:
    """Process ids of the children of this process, and of theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def measure(arguments: argparse.Namespace, way: str, workers: int, sink: str) -> dict[str, float]:
    """Images per second and more of one way to one sink."""
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    from detfeed import AnchorTargetSequence

    kind, _, processes, _ = WAYS[way]
    table = read_data(arguments)
    settings = loader_arguments(arguments)
    epochs = arguments.epochs
    if sink == "shuffled fit":
        settings["sampler"] = lambda table: np.full(len(table), float(REPEATS))
        epochs = 1

    class KerasSequence(keras.utils.PyDataset):
        """What one writes by hand: the same loader behind Keras's own workers."""

        def __init__(self) -> None:
            super().__init__(workers=workers, use_multiprocessing=processes, max_queue_size=10)
            self.loader = BatchLoader(table, AnchorTargets(AnchorGrid.fpn()), **settings)

        def __len__(self) -> int:
            return self.loader.num_batches

        def __getitem__(self, index: int) -> Any:
            return self.loader.load(0, index)

    class Unguessed(AnchorTargetSequence):
        """A sequence that takes no notice of Keras's shuffle: it has batches made ahead in the order of their index."""

        @property
        def num_batches(self) -> int:
            return len(self)

    sequence: Any
    if kind == "keras":
        sequence = KerasSequence()
    else:
        own = {"detfeed": AnchorTargetSequence, "unguessed": Unguessed}[kind]
        sequence = own(table, AnchorGrid.fpn(), workers=workers, use_multiprocessing=processes, **settings)
    usage = Usage()
    asked = time.perf_counter()
    marks: list[list[float]] = []  # by epoch, when each batch arrived
    if sink in ("fit", "shuffled fit"):
        marks = _through_fit(sequence, epochs, shuffle=sink == "shuffled fit")
    elif sink == "stream":
        marks = _through_fit(sequence.stream(), epochs, steps_per_epoch=sequence.num_batches)
    else:
        adapter = PyDatasetAdapter(sequence, shuffle=False)
        dataset = adapter.get_tf_dataset() if sink == "tf.data" else None
        for _ in range(epochs + 1):
            adapter.on_epoch_begin()
            marks.append([])
            for _ in dataset if dataset is not None else adapter.get_numpy_iterator():
                marks[-1].append(time.perf_counter())
            adapter.on_epoch_end()
    cpu = usage.cpu()
    usage.stop()
    # The first epoch warms up.
    seconds = marks[-1][-1] - marks[0][-1]
    images_an_epoch = sum(map(len, sequence.loader.batches(0)))
    images = images_an_epoch * epochs
    batches = len(marks[0])
    gaps = [later[0] - earlier[-1] for earlier, later in itertools.pairwise(marks)]
    return {
        "images_per_second": images / seconds,
        "first_batch_s": marks[0][0] - asked,
        "gap_in_batches": statistics.median(gaps) / (seconds / (epochs * batches)),
        "cpu_s_per_100_images": 100 * cpu / (images + images_an_epoch),
        "peak_mb": usage.peak,
    }


def _through_fit(
    data: Any, epochs: int, *, steps_per_epoch: int | None = None, shuffle: bool = False
) -> list[list[float]]:
    """Times at which fit ended each step, on a model that does next to nothing."""
    import keras

    marks: list[list[float]] = []

    class Small(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.scale = keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.scale(keras.ops.cast(inputs["image"][:, ::64, 0], "float32"))

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            return keras.ops.mean(y_pred) + 0 * keras.ops.mean(y["anchor_deltas"])

    class Mark(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            marks.append([])

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            marks[-1].append(time.perf_counter())

    model = Small()
    model.compile(optimizer="sgd")
    how = {"steps_per_epoch": steps_per_epoch, "shuffle": shuffle}
    model.fit(data, epochs=epochs + 1, verbose=0, callbacks=[Mark()], **how)
    return marks


def measure_peer(arguments: argparse.Namespace, name: str, workers: int, targets: bool) -> dict[str, float]:
    """Images per second of a peer to numpy, with or without targets."""
    made = AnchorTargets(AnchorGrid.fpn()) if targets else _no_targets
    epoch = PEERS[name].start(BatchLoader(read_data(arguments), made, **loader_arguments(arguments)), workers)
    images = sum(epoch())  # warms up
    start = time.perf_counter()
    for _ in range(arguments.epochs):
        images = sum(epoch())
    return {"images_per_second": images * arguments.epochs / (time.perf_counter() - start)}


def _no_targets(sample: Sample) -> dict[str, Any]:
    return {}


# Stages and scale, in this process.


def time_stages(arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds an image of each stage alone, on one core."""
    import cv2

    cv2.setNumThreads(0)
    table = read_data(arguments)
    settings = loader_arguments(arguments)
    targets = AnchorTargets(AnchorGrid.fpn())
    plain, augmented = (
        BatchLoader(table, targets, reduce=False, **{**settings, "augment": augment})
        for augment in (None, settings["augment"])
    )
    spent: dict[str, float] = {}
    for round_ in range(2):  # the first warms up
        spent = dict.fromkeys(("decoded", "resized", "augmented", "targets"), 0.0)
        for position in range(len(table)):
            marks = [time.perf_counter()]
            read_image(table.paths[position])
            marks.append(time.perf_counter())
            plain.load_sample(round_, position)
            marks.append(time.perf_counter())
            sample = augmented.load_sample(round_, position)
            marks.append(time.perf_counter())
            targets(sample)
            marks.append(time.perf_counter())
            for name, (start, end) in zip(spent, itertools.pairwise(marks), strict=True):
                spent[name] += 1000 * (end - start) / len(table)
    return {
        "read and decode": spent["decoded"],
        # A sample is an image read and decoded, augmented if it is to be, and resized.
        "resize": spent["resized"] - spent["decoded"],
        "augment": spent["augmented"] - spent["resized"],
        "targets": spent["targets"],
        "transport": time_transport(arguments, augmented),
    }


class _Nothing(BatchLoader):
    """Batches of the right size that take no time to make."""

    def load(self, epoch: int, index: int, allocate: Any = np.empty, report: Any = None) -> Any:
        positions = self.batches(0)[index % self.num_batches]
        return {"image": allocate((len(positions), *self.placed_hw(0), 3), np.uint8)}, {}


def time_transport(arguments: argparse.Namespace, loader: BatchLoader, batches: int = 300) -> float:
    """Milliseconds an image to get a batch from a process that has it at once."""
    nothing = _Nothing(loader.annotations, loader.targets, **loader_arguments(arguments))
    feed = Feed(nothing, workers=1, use_multiprocessing=True)
    keys = [(0, index) for index in range(batches)]
    images = 0
    start = 0.0
    for place, key in enumerate(keys):
        if place == 20:
            start, images = time.perf_counter(), 0
        images += len(feed.get(key, keys[place + 1 : place + 11])[0]["image"])
    seconds = time.perf_counter() - start
    feed.close()
    return 1000 * seconds / images


def time_scale(num_images: int = 118_000, num_boxes: int = 860_000) -> dict[str, float]:
    """Times and memory of a worker for a data set of COCO's size, and for one of 100 images."""

    def made_up(images: int, boxes: int) -> Annotations:
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 300, (boxes, 2)).astype(np.float32)
        counts = np.bincount(rng.integers(images, size=boxes), minlength=images)
        return Annotations(
            paths=tuple(f"/data/coco/train2017/{number:012d}.jpg" for number in range(images)),
            image_ids=np.arange(images),
            image_hw=np.full((images, 2), (480, 640), np.int32),
            boxes=np.concatenate([corners, corners + 50], axis=1),
            class_ids=rng.integers(80, size=boxes).astype(np.int32),
            ignore=np.zeros(boxes, bool),
            areas=np.full(boxes, 2500, np.float32),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            class_names=tuple(map(str, range(80))),
            category_ids=np.arange(80),
        )

    result = {}
    for name, table in (("100", made_up(100, 700)), ("coco", made_up(num_images, num_boxes))):
        loader = _Nothing(table, AnchorTargets(AnchorGrid.fpn()), batch_size=8, resize=Fixed((64, 64)))
        start = time.perf_counter()
        pickled = cloudpickle.dumps(loader)
        result[f"{name}_pickle_s"] = time.perf_counter() - start
        result[f"{name}_pickle_mb"] = len(pickled) / 1e6
        start = time.perf_counter()
        pickle.loads(pickled)
        result[f"{name}_unpickle_s"] = time.perf_counter() - start
        before = set(descendants())
        feed = Feed(loader, workers=1, use_multiprocessing=True)
        start = time.perf_counter()
        feed.get((0, 0))
        result[f"{name}_first_batch_s"] = time.perf_counter() - start
        (pid,) = set(descendants()) - before
        status = Path(f"/proc/{pid}/status").read_text()
        result[f"{name}_worker_mb"] = int(status.partition("RssAnon:")[2].split()[0]) / 1024
        feed.close()
    return result


# All together.


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.measure:
        kind, *cell = json.loads(arguments.measure)
        result = measure_peer(arguments, *cell) if kind == "peer" else measure(arguments, *cell)
        print("result", json.dumps(result), flush=True)
        for child in multiprocessing.active_children():  # of a peer: they would keep our output open
            child.kill()
        os._exit(0)  # Keras's own pools may hang at exit
    with parser.one_line_errors():
        read_data(arguments)
    if arguments.peers:
        compare_with_peers(arguments, argv)
        return
    stages = time_stages(arguments)
    scale = time_scale()
    cells = [
        (way, count or workers, sink)
        for way, (_, count, _, sinks) in WAYS.items()
        for workers in (arguments.workers if count is None else [count])
        for sink in sinks
    ]
    results = _in_rounds("way", cells, arguments.rounds, argv)
    middle = {
        cell: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for cell, runs in results.items()
    }
    _print(arguments, middle, results, stages, scale)
    arguments.out.mkdir(parents=True, exist_ok=True)
    saved = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "arguments": {name: str(value) for name, value in vars(arguments).items() if name != "measure"},
        "stages_ms_per_image": stages,
        "scale": scale,
        "runs": [{"way": way, "workers": w, "sink": s, "runs": runs} for (way, w, s), runs in results.items()],
    }
    (arguments.out / "feed.json").write_text(json.dumps(saved, indent=2) + "\n")
    _plot(results, arguments.out / "feed.png")
    print(f"wrote {arguments.out / 'feed.json'} and {arguments.out / 'feed.png'}")


def compare_with_peers(arguments: argparse.Namespace, argv: list[str] | None) -> None:
    """Measure the peers that are installed, print them side by side, and save them."""
    cells = [
        (name, workers, targets)
        for name, peer in PEERS.items()
        for workers in arguments.workers
        for targets, timed in ((True, peer.targets), (False, peer.images))
        if timed and installed(peer)
    ]
    results = _in_rounds("peer", cells, arguments.rounds, argv)
    table = Table(title=f"images/s to numpy: batches of {arguments.batch_size} at short side {arguments.short_side}")
    for column in ("way", "workers", "with FPN targets", "spread", "without", "spread", "share of the bound"):
        table.add_column(column, justify="left" if column == "way" else "right")
    rates = {cell: [run["images_per_second"] for run in runs] for cell, runs in results.items()}
    for name, workers in dict.fromkeys(cell[:2] for cell in cells):
        row, shown = [], 0.0
        for targets in (True, False):
            some = rates.get((name, workers, targets))
            row += [f"{statistics.median(some):.0f}", f"{min(some):.0f}-{max(some):.0f}"] if some else ["", ""]
            shown = shown or (statistics.median(some) if some else 0.0)
        bound = statistics.median(rates[BOUND, workers, False])
        table.add_row(name, str(workers), *row, f"{shown / bound:.0%}")
    Console(width=120).print(table)
    missing = [name for name, peer in PEERS.items() if not installed(peer)]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    saved = [{"way": name, "workers": w, "targets": t, "runs": runs} for (name, w, t), runs in results.items()]
    (arguments.out / "peers.json").write_text(json.dumps(saved, indent=2) + "\n")
    print(f"wrote {arguments.out / 'peers.json'}")


def _in_rounds(kind: str, cells: list[Cell], rounds: int, argv: list[str] | None) -> dict[Cell, list[dict[str, float]]]:
    """The measurements of each cell, in rounds of all cells."""
    results: dict[Cell, list[dict[str, float]]] = {cell: [] for cell in cells}
    for round_ in range(rounds):
        for cell in cells:
            results[cell].append(_in_a_process((kind, *cell), argv))
            print(f"round {round_ + 1}/{rounds}: {cell}: {results[cell][-1]}", file=sys.stderr, flush=True)
    return results


def _in_a_process(cell: tuple[Any, ...], argv: list[str] | None) -> dict[str, float]:
    command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--measure", json.dumps(cell)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    if not lines:
        raise RuntimeError(f"{cell}: no result\n{done.stderr}")
    result: dict[str, float] = json.loads(lines[0].removeprefix("result "))
    return result


def _print(arguments: argparse.Namespace, middle: Any, results: Any, stages: Any, scale: Any) -> None:
    console = Console(width=120)
    table = Table(title=f"feed: batches of {arguments.batch_size} at short side {arguments.short_side}")
    for name in ("way", "workers", "to", "images/s", "spread", "× in place", "first batch s"):
        table.add_column(name, justify="left" if name in ("way", "to") else "right", no_wrap=name == "way")
    for name in ("gap, batches", "CPU s / 100", "peak MB"):
        table.add_column(name, justify="right")
    for (way, workers, sink), values in middle.items():
        rates = [run["images_per_second"] for run in results[way, workers, sink]]
        in_place = middle.get(("in place", 1, sink))
        table.add_row(
            way,
            str(workers),
            sink,
            f"{values['images_per_second']:.0f}",
            f"{min(rates):.0f}-{max(rates):.0f}",
            f"{values['images_per_second'] / in_place['images_per_second']:.2f}" if in_place else "",
            f"{values['first_batch_s']:.2f}",
            f"{values['gap_in_batches']:.1f}",
            f"{values['cpu_s_per_100_images']:.2f}",
            f"{values['peak_mb']:.0f}",
        )
    console.print(table)
    bound = 1000 / (stages["read and decode"] + stages["resize"])
    console.print(
        "stages alone, ms an image on one core: "
        + ", ".join(f"{name} {value:.2f}" for name, value in stages.items())
        + f"; reading, decoding and resizing bound a core to {bound:.0f} images/s"
    )
    console.print(
        f"a data set of COCO's size: {scale['coco_pickle_mb']:.0f} MB, pickled in {scale['coco_pickle_s']:.2f} s and "
        f"read in {scale['coco_unpickle_s']:.2f} s; its worker's first batch comes after "
        f"{scale['coco_first_batch_s']:.2f} s (100 images: {scale['100_first_batch_s']:.2f} s), and takes "
        f"{scale['coco_worker_mb'] - scale['100_worker_mb']:.0f} MB more"
    )


def _plot(results: dict[tuple[str, int, str], list[dict[str, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    names = list(dict.fromkeys(f"{way}\n{workers}" for way, workers, _ in results))
    for offset, sink in zip((-0.32, -0.16, 0, 0.16, 0.32), SINKS, strict=True):
        cells = [cell for cell in results if cell[2] == sink]
        rates = np.array([[run["images_per_second"] for run in results[cell]] for cell in cells])
        places = [names.index(f"{way}\n{workers}") + offset for way, workers, _ in cells]
        middles = np.median(rates, axis=1)
        spread = np.stack([middles - rates.min(axis=1), rates.max(axis=1) - middles])
        axis.bar(places, middles, 0.15, yerr=spread, label=f"to {sink}")
    axis.set_xticks(np.arange(len(names)), names)
    axis.set_ylabel("images per second")
    axis.legend()
    axis.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
