#!/usr/bin/env python
"""Time Faster R-CNN and RoIAlign on the installed backends of Keras, and torchvision's where it is installed.

Each way is a process of its own. They take turns, one call each, so that the ratios hold on a machine whose speed
drifts. All have a feature pyramid on ResNet50 from random weights, whose stages and batch norms are all trained,
torchvision's anchors and limits, Adam, and 80 classes. The targets of the RPN are made before, as the workers of a feed
do; torchvision makes them within its step.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detfeed import AnchorGrid, AnchorTargets, Sample
from detfeed.commands.parser import Parser, whole

NUM_CLASSES = 80
NUM_BOXES = 8  # of an image; COCO has 7 on average
NUM_ROIS = 512  # of an image
STRIDES = (4, 8, 16, 32)
CHANNELS = 256

# A call of the work that is timed; it returns when all is computed.
Work = Callable[[], object]


class Batch(NamedTuple):
    """Images of noise with boxes anywhere; int class ids from 0."""

    images: NDArray[np.uint8]  # (B, H, W, 3)
    boxes: NDArray[np.float32]  # (B, NUM_BOXES, 4), xyxy pixels
    class_ids: NDArray[np.int32]  # (B, NUM_BOXES)


def draw_boxes(count: int, image_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Boxes with sides drawn log-uniformly from 10 pixels to 0.6 of the short side; float32 (count, 4)."""
    size = np.exp(rng.uniform(np.log(10), np.log(0.6 * min(image_hw)), (count, 2)))
    corner = rng.uniform(size=(count, 2)) * (np.array(image_hw[::-1]) - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def draw_batch(image_hw: tuple[int, int], batch_size: int) -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        rng.integers(0, 256, (batch_size, *image_hw, 3), dtype=np.uint8),
        np.stack([draw_boxes(NUM_BOXES, image_hw, rng) for _ in range(batch_size)]),
        rng.integers(0, NUM_CLASSES, (batch_size, NUM_BOXES), dtype=np.int32),
    )


def draw_features(image_hw: tuple[int, int], batch_size: int) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Feature maps (B, h, w, CHANNELS) of each stride, and RoIs (B, NUM_ROIS, 4)."""
    rng = np.random.default_rng(0)
    maps = [(batch_size, -(-image_hw[0] // stride), -(-image_hw[1] // stride), CHANNELS) for stride in STRIDES]
    rois = np.stack([draw_boxes(NUM_ROIS, image_hw, rng) for _ in range(batch_size)])
    return [rng.normal(size=shape).astype(np.float32) for shape in maps], rois


def of_torchvision(work: str, image_hw: tuple[int, int], batch_size: int) -> Work:
    import torch  # pyright: ignore[reportMissingImports]
    from torchvision.models.detection import fasterrcnn_resnet50_fpn  # pyright: ignore[reportMissingImports]
    from torchvision.ops import MultiScaleRoIAlign  # pyright: ignore[reportMissingImports]

    if work.startswith("RoIAlign"):
        maps, rois = draw_features(image_hw, batch_size)
        levels = {str(place): torch.from_numpy(np.moveaxis(level, 3, 1).copy()) for place, level in enumerate(maps)}
        align = MultiScaleRoIAlign(list(levels), 7, 2)

        def pool() -> Any:
            return align(levels, list(torch.from_numpy(rois)), [image_hw] * batch_size)

        def pool_and_return() -> Any:
            wanted = [level.requires_grad_() for level in levels.values()]
            return torch.autograd.grad(pool().sum(), wanted)

        return pool_and_return if work.endswith("gradients") else pool

    batch = draw_batch(image_hw, batch_size)
    model = fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        trainable_backbone_layers=5,
        num_classes=NUM_CLASSES + 1,
        min_size=min(image_hw),
        max_size=max(image_hw),
        norm_layer=torch.nn.BatchNorm2d,
    )
    images = list(torch.from_numpy(batch.images.astype(np.float32) / 255).permute(0, 3, 1, 2))
    if work == "detection":
        model.eval()
        return torch.no_grad()(lambda: model(images))
    truth = [
        {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(class_ids.astype(np.int64) + 1)}
        for boxes, class_ids in zip(batch.boxes, batch.class_ids, strict=True)
    ]
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(model(images, truth).values())).sum().backward()
        optimizer.step()

    return step


def of_keras(work: str, image_hw: tuple[int, int], batch_size: int, *, xla: bool) -> Work:
    import keras

    from detfeed.models import RPN, DetectionModel, FasterRCNN

    if work.startswith("RoIAlign"):
        return roi_align_of_keras(*draw_features(image_hw, batch_size), xla=xla, gradients=work.endswith("gradients"))
    batch = draw_batch(image_hw, batch_size)
    grid = AnchorGrid.fpn()
    model = FasterRCNN(RPN(grid), NUM_CLASSES)
    x: dict[str, Any] = {"image": batch.images, "image_hw": np.full((batch_size, 2), image_hw, np.int32)}
    if work == "detection":
        detector = DetectionModel(model)
        detector.compile(jit_compile=xla)
        return lambda: detector.predict_on_batch(x)
    targets = AnchorTargets(grid)
    y = [targets(sample_of(batch, place, image_hw))[1] for place in range(batch_size)]
    x |= {"boxes": batch.boxes, "class_ids": batch.class_ids, "ignore": np.zeros(batch.class_ids.shape, bool)}
    model.compile(keras.optimizers.Adam(1e-4), jit_compile=xla)
    stacked = {name: np.stack([of_image[name] for of_image in y]) for name in y[0]}
    return lambda: model.train_on_batch(x, stacked)


def sample_of(batch: Batch, place: int, image_hw: tuple[int, int]) -> Sample:
    return Sample(
        image=batch.images[place],
        boxes=batch.boxes[place],
        class_ids=batch.class_ids[place],
        ignore=np.zeros(NUM_BOXES, bool),
        image_id=place,
        position=place,
        input_hw=image_hw,
        rng=np.random.default_rng(place),
    )


def roi_align_of_keras(
    maps: list[NDArray[np.float32]], rois: NDArray[np.float32], *, xla: bool, gradients: bool
) -> Work:
    import keras
    from keras import ops

    from detfeed.models import roi_align

    levels, boxes = [ops.convert_to_tensor(level) for level in maps], ops.convert_to_tensor(rois)

    def pool(*levels: Any) -> Any:
        return roi_align(levels, boxes, strides=STRIDES)

    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(jax.grad(lambda levels: pool(*levels).sum()) if gradients else lambda levels: pool(*levels))
        return lambda: jax.block_until_ready(call(levels))
    if keras.backend.backend() == "torch":
        import torch  # pyright: ignore[reportMissingImports]

        def pool_and_return() -> Any:
            wanted = [level.requires_grad_() for level in levels]
            return torch.autograd.grad(pool(*wanted).sum(), wanted)

        return pool_and_return if gradients else torch.no_grad()(lambda: pool(*levels))
    import tensorflow as tf

    def in_graph(*levels: Any) -> Any:
        if not gradients:
            return pool(*levels)
        with tf.GradientTape() as tape:
            tape.watch(levels)
            total = tf.reduce_sum(pool(*levels))
        return tape.gradient(total, list(levels), unconnected_gradients=tf.UnconnectedGradients.ZERO)

    graph = tf.function(in_graph, jit_compile=xla)
    return lambda: keras.tree.map_structure(lambda tensor: tensor.numpy()[..., :1], graph(*levels))


class Way(NamedTuple):
    """A backend of Keras, or torchvision.

    Attributes:
        needs: the module that must be installed.
        backend: of Keras; None: not Keras.
        build: makes the work of a name at a size.
    """

    needs: str
    backend: str | None
    build: Callable[[str, tuple[int, int], int], Work]


def _with_xla(*where: Any) -> Work:
    return of_keras(*where, xla=True)


def _without_xla(*where: Any) -> Work:
    return of_keras(*where, xla=False)


WAYS = {
    "torchvision": Way("torchvision", None, of_torchvision),
    "TensorFlow": Way("tensorflow", "tensorflow", _without_xla),
    "TensorFlow, XLA": Way("tensorflow", "tensorflow", _with_xla),
    "JAX": Way("jax", "jax", _with_xla),
    "torch": Way("torch", "torch", _without_xla),
}
WORKS = ("training step", "detection", "RoIAlign", "RoIAlign and gradients")


def serve(asked: Any, name: str, *where: Any) -> None:
    """In a process of its own: build a work and call it once, then time a call for each request.

    Args:
        asked: end of a pipe. It sends None or what failed, then (seconds, MiB) for each request.
        name: of the way.
        where: the work, the size and the number of images.
    """
    way = WAYS[name]
    if way.backend:
        os.environ["KERAS_BACKEND"] = way.backend
    try:
        work = way.build(*where)
        work()
        asked.send(None)
        while asked.recv():
            start = time.perf_counter()
            work()
            taken = time.perf_counter() - start
            asked.send((taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    except Exception as error:
        asked.send(f"{type(error).__name__}: {error}".strip().splitlines()[0])


def measure(names: list[str], repeats: int, *where: Any) -> dict[str, dict[str, float] | str]:
    """Median seconds of each way and the peak memory of its process in MiB; or why it can't do the work."""
    context = multiprocessing.get_context("spawn")
    results: dict[str, dict[str, float] | str] = {}
    with ExitStack() as stack:
        asking: dict[str, Any] = {}
        for name in names:
            mine, other = context.Pipe()
            process = context.Process(target=serve, args=(other, name, *where), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            failure = mine.recv()
            if failure:
                results[name] = failure
            else:
                asking[name] = mine
        answers: dict[str, list[tuple[float, float]]] = {name: [] for name in asking}
        for _ in range(repeats):
            for name, connection in asking.items():
                connection.send(True)
                answers[name].append(connection.recv())
        for name, answer in answers.items():
            seconds = [taken for taken, _ in answer]
            results[name] = {
                "seconds": statistics.median(seconds),
                "least": min(seconds),
                "most": max(seconds),
                "MiB": answer[-1][1],
            }
    return {name: results[name] for name in names}


def print_table(title: str, results: dict[str, dict[str, float] | str]) -> None:
    table = Table(title=title)
    for column in ("", "s", "spread", "of the first", "peak MiB"):
        table.add_column(column, justify="right" if column else "left")
    first = next(iter(results.values()))
    for name, result in results.items():
        if isinstance(result, str):
            table.add_row(name, "-", result)
            continue
        ratio = f"{result['seconds'] / first['seconds']:.2f}" if isinstance(first, dict) else "-"
        spread = f"{result['least']:.3g} - {result['most']:.3g}"
        table.add_row(name, f"{result['seconds']:.3g}", spread, ratio, f"{result['MiB']:.0f}")
    Console(width=120).print(table)


def main() -> None:
    parser = Parser(usage="%(prog)s [options]", description=__doc__)
    there = [name for name, way in WAYS.items() if importlib.util.find_spec(way.needs) is not None]
    parser.add_argument("--sizes", nargs="+", default=["240x320", "800x1344"], metavar="HxW", help="[240x320 800x1344]")
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=whole(1),
        default=[2, 1],
        metavar="N",
        help="images a batch, at each size [2 1]",
    )
    parser.add_argument("--ways", nargs="+", choices=there, default=there, metavar="WAY", help="some of the ways [all]")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS, metavar="WORK", help="[all]")
    parser.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="calls of each way [5]")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="of results [runs/bench]")
    arguments = parser.parse_args()

    all_results = []
    for size, batch_size in zip(arguments.sizes, arguments.batch_sizes, strict=True):
        image_hw = tuple(int(side) for side in size.split("x"))
        for work in arguments.works:
            results = measure(arguments.ways, arguments.repeats, work, image_hw, batch_size)
            print_table(f"{work}, {batch_size} x {size}", results)
            all_results.append({"work": work, "size": size, "images": batch_size, "ways": results})
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    path = arguments.out / "faster_rcnn.json"
    path.write_text(json.dumps({"machine": machine, "results": all_results}, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
