#!/usr/bin/env python
"""Count boxes that leave their objects, in Keras's image layers and in detfeed.

Pictures of random sizes, each with three painted rectangles, go through Keras's layers, and through the recipes of
detfeed and a pool of albumentations transforms, with random seeds. The objects are then found again in the pixels.
Keras's layers get batches in the form that their documentation shows, with `bounding_box_format="xyxy"`. Where they
fill what comes into view, a constant is chosen, since the default of most mirrors objects into it. detfeed's pictures
are resized to one canvas on top, as in training. Boxes are clipped to the image before they are judged, and an object
seen with fewer than three pixels a side is not judged. Where rectangles do not stay upright, an object cut by the edge
of the image need only lie in its box.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from detfeed import BatchLoader, Fixed
from detfeed.commands.parser import Parser, whole
from painted_objects import Boxes, deviations, draw_boxes, paint, painted_table

SIZES = (100, 200)  # of a picture's sides
BATCH = 4
EPOCHS = 4
CANVAS = (200, 220)
# What leaves rectangles not upright, by a part of its name.
TURNS = ("Rotat", "Shear", "Perspective", "rotate", "shear", "Elastic", "Distortion")

Judged = NDArray[np.float64]


def keras_layers() -> dict[str, Callable[[int], Any]]:
    """Keras's layers that move pixels, by what is printed: each made with a seed."""
    from keras import layers

    boxes: dict[str, Any] = {"bounding_box_format": "xyxy"}
    fill: dict[str, Any] = {**boxes, "fill_mode": "constant"}
    return {
        "RandomFlip()": lambda seed: layers.RandomFlip(seed=seed, **boxes),
        "RandomCrop(80, 80)": lambda seed: layers.RandomCrop(80, 80, seed=seed, **boxes),
        "RandomCrop(60, 90)": lambda seed: layers.RandomCrop(60, 90, seed=seed, **boxes),
        "RandomCrop(220, 220)": lambda seed: layers.RandomCrop(220, 220, seed=seed, **boxes),
        "CenterCrop(80, 90)": lambda seed: layers.CenterCrop(80, 90, **boxes),
        "CenterCrop(220, 220)": lambda seed: layers.CenterCrop(220, 220, **boxes),
        "Resizing(150, 180)": lambda seed: layers.Resizing(150, 180, **boxes),
        "Resizing(..., pad_to_aspect_ratio=True)": lambda seed: layers.Resizing(
            150, 180, pad_to_aspect_ratio=True, **boxes
        ),
        "Resizing(..., crop_to_aspect_ratio=True)": lambda seed: layers.Resizing(
            150, 180, crop_to_aspect_ratio=True, **boxes
        ),
        "RandomTranslation(0.2, 0.2)": lambda seed: layers.RandomTranslation(0.2, 0.2, seed=seed, **fill),
        "RandomZoom(0.3)": lambda seed: layers.RandomZoom(0.3, seed=seed, **fill),
        "RandomZoom(0.3, 0.3)": lambda seed: layers.RandomZoom(0.3, 0.3, seed=seed, **fill),
        "RandomRotation(0.1)": lambda seed: layers.RandomRotation(0.1, seed=seed, **fill),
        "RandomShear(0.2, 0.2)": lambda seed: layers.RandomShear(0.2, 0.2, seed=seed, **fill),
        "RandomPerspective(0.5, 0.5)": lambda seed: layers.RandomPerspective(0.5, 0.5, seed=seed, **boxes),
        "RandomElasticTransform()": lambda seed: layers.RandomElasticTransform(seed=seed, **fill),
        "CutMix()": lambda seed: layers.CutMix(seed=seed, **boxes),
    }


def pool() -> dict[str, Any]:
    """What detfeed's `augment` is given, by what is printed."""
    return {
        **{f'"{name}"': name for name in ("flip", "ssd", "lsj", "multiscale")},
        "HorizontalFlip, VerticalFlip": [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)],
        "RandomCrop(80, 80)": albumentations.RandomCrop(80, 80, p=1),
        "RandomCrop(60, 90)": albumentations.RandomCrop(60, 90, p=1),
        "RandomResizedCrop": albumentations.RandomResizedCrop((100, 130), scale=(0.4, 1), p=1),
        "CenterCrop(80, 90)": albumentations.CenterCrop(80, 90, p=1),
        "PadIfNeeded(220, 220)": albumentations.PadIfNeeded(220, 220, p=1),
        "Affine, translate_percent": albumentations.Affine(translate_percent=(-0.2, 0.2), p=1),
        "Affine, scale": albumentations.Affine(scale=(0.7, 1.3), p=1),
        "Affine, rotate": albumentations.Affine(rotate=(-36, 36), p=1),
        "Affine, shear": albumentations.Affine(shear=(-11, 11), p=1),
        "Perspective": albumentations.Perspective(p=1),
        "D4": albumentations.D4(p=1),
        "ElasticTransform": albumentations.ElasticTransform(alpha=60, sigma=8, p=1),
        "OpticalDistortion": albumentations.OpticalDistortion(0.4, p=1),
        "GridDistortion": albumentations.GridDistortion(p=1),
    }


def draw_size(rng: np.random.Generator) -> tuple[int, int]:
    height, width = rng.integers(*SIZES, 2, endpoint=True).tolist()
    return height, width


def by_colour(boxes: NDArray[Any], labels: NDArray[Any]) -> Boxes:
    """Boxes in the order of the colours, zeros where there is none; float32 (3, 4)."""
    ordered = np.zeros((3, 4), np.float32)
    real = labels >= 0
    ordered[labels[real].astype(int)] = boxes[real]
    return ordered


def judge_keras(name: str, make: Callable[[int], Any], pictures: int, seed: int) -> Judged | str:
    """Deviations of all boxes, or how the layer refuses boxes."""
    from keras import ops

    judged = []
    for number in range(-(-pictures // BATCH)):
        rng = np.random.default_rng([seed, number])
        image_hw = draw_size(rng)
        boxes = np.stack([draw_boxes(image_hw, rng) for _ in range(BATCH)])
        batch = {
            # float32, since Keras 3.15.1's Resizing(pad_to_aspect_ratio=True) fails for uint8 on TensorFlow.
            "images": np.stack([paint(each, image_hw) for each in boxes]).astype(np.float32),
            "bounding_boxes": {"boxes": boxes, "labels": np.tile(np.arange(3, dtype=np.int32), (BATCH, 1))},
        }
        try:
            out = make(int(rng.integers(2**31)))(batch, training=True)
        except NotImplementedError:
            return "NotImplementedError"
        images = ops.convert_to_numpy(out["images"])
        moved, labels = (ops.convert_to_numpy(out["bounding_boxes"][key]) for key in ("boxes", "labels"))
        for row in range(BATCH):
            judged.append(deviations(images[row], by_colour(moved[row], labels[row]), turns=_turns(name)))
    return np.concatenate(judged)


def judge_detfeed(name: str, augment: Any, pictures: int, seed: int) -> Judged:
    """Deviations of all boxes of some pictures in a few epochs, fed as in training."""
    rng = np.random.default_rng(seed)
    count = -(-pictures // EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        table = painted_table(Path(folder), [draw_size(rng) for _ in range(count)], rng)
        loader = BatchLoader(table, lambda sample: {}, batch_size=1, resize=Fixed(CANVAS), augment=augment, seed=seed)
        samples = (loader.load_sample(epoch, position) for epoch in range(EPOCHS) for position in range(count))
        return np.concatenate(
            [deviations(each.image, by_colour(each.boxes, each.class_ids), turns=_turns(name)) for each in samples]
        )


def _turns(name: str) -> bool:
    return any(word in name for word in TURNS)


def summary(judged: Judged) -> dict[str, Any]:
    """How many of each kind there are, and the worst deviation in pixels."""
    off = judged[np.isfinite(judged)]
    return {
        "objects": int(np.count_nonzero(~np.isnan(judged))),
        "off by > 1 px": int(np.count_nonzero(off > 1)),
        "off by > 2 px": int(np.count_nonzero(off > 2)),
        "lost": int(np.count_nonzero(np.isposinf(judged))),
        "invented": int(np.count_nonzero(np.isneginf(judged))),
        "worst px": round(float(off.max()), 1) if len(off) else None,
    }


def measure(pictures: int, seed: int) -> Iterator[dict[str, Any]]:
    for name, make in track(keras_layers().items(), "Keras", transient=True):
        judged = judge_keras(name, make, pictures, seed)
        yield {"of": "Keras", "layer": name, **({"refuses": judged} if isinstance(judged, str) else summary(judged))}
    for name, augment in track(pool().items(), "detfeed", transient=True):
        yield {"of": "detfeed", "layer": name, **summary(judge_detfeed(name, augment, pictures, seed))}


def main() -> None:
    parser = Parser(usage="%(prog)s [options]", description=__doc__)
    parser.add_argument("--pictures", type=whole(1), default=200, metavar="N", help="for each layer [200]")
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of pictures and layers [0]")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder of the results [runs/bench]"
    )
    arguments = parser.parse_args()

    from keras import backend

    results = list(measure(arguments.pictures, arguments.seed))
    versions = {name: importlib.metadata.version(name) for name in ("keras", "detfeed", "albumentations")}
    versions["backend"] = backend.backend()
    columns = list(next(row for row in results if "objects" in row))
    table = Table(
        title=f"{arguments.pictures} pictures of three objects: Keras {versions['keras']} on {versions['backend']}, "
        f"detfeed {versions['detfeed']} with albumentations {versions['albumentations']}"
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("of", "layer") else "right")
    for row in results:
        refuses = f" takes no boxes: {row['refuses']}" if "refuses" in row else ""
        table.add_row(row["of"], row["layer"] + refuses, *(str(row.get(name, "")) for name in columns[2:]))
    Console(width=140).print(table)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "boxes.json").write_text(json.dumps({"versions": versions, "results": results}, indent=2) + "\n")
    print(f"wrote {arguments.out / 'boxes.json'}")


if __name__ == "__main__":
    main()
