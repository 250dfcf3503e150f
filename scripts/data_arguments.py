"""The data, sizes and feed that the scripts share: their options, and what these choose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from detfeed import Annotations, make_shapes, read_coco
from detfeed.commands import feed_options, sizes
from detfeed.commands.feed_options import add_feed_options
from detfeed.commands.parser import whole
from detfeed.commands.sizes import SHORT_SIDE
from detfeed.images.canvases import Resize
from detfeed.readers.formats import (
    FORMATS,
    add_training_options,
    add_validation_options,
    training_set,
    validation_set,
)

SHAPES_HW = (96, 128)
MAX_VAL_SHAPES = 100  # about 370 objects, so a recall is exact to 2 %


def add_data_arguments(parser: argparse.ArgumentParser, *, validation: bool = False) -> None:
    """Add the options that `read_training`, `choose_feed` and, if asked for, `read_validation` use."""
    add_training_options(parser, title="training data, one of; left out: the built-in shapes")
    if validation:
        add_validation_options(
            parser, title="validation data, one of; left out: no scores (the built-in shapes have some)"
        )
    shapes = parser.add_argument_group("built-in shapes")
    shapes.add_argument(
        "--shapes-dir",
        type=Path,
        default=Path("runs/shapes"),
        metavar="DIR",
        help="folder to draw the shapes into [runs/shapes]",
    )
    shapes.add_argument(
        "--shapes", type=whole(1), default=400, metavar="N", help="how many training images to draw [400]"
    )
    add_feed_options(parser, short_side="800; shapes: 96")


def read_training(arguments: argparse.Namespace) -> Annotations:
    """The training data that the arguments name, or the built-in shapes.

    Raises:
        argparse.ArgumentError: options do not go together.
        DetfeedError: the data can't be read.
    """
    named = training_set(arguments)
    if named is not None:
        return named.read()
    return _draw_shapes(arguments.shapes_dir / "train", arguments.shapes, seed=0)


def read_validation(arguments: argparse.Namespace) -> Annotations | None:
    """The validation data that the arguments name; else built-in shapes beside those to train on, or None.

    Raises:
        argparse.ArgumentError: options do not go together.
        DetfeedError: the data can't be read.
    """
    named = validation_set(arguments)
    if named is not None:
        return named.read()
    if not _trains_on_shapes(arguments):
        return None
    return _draw_shapes(arguments.shapes_dir / "val", min(max(arguments.shapes // 4, 1), MAX_VAL_SHAPES), seed=1)


def choose_resize(arguments: argparse.Namespace) -> Resize:
    """The sizes that the arguments ask for.

    Raises:
        argparse.ArgumentError: options do not go together.
    """
    return sizes.choose_resize(arguments, default=_short_side(arguments))


def choose_feed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a sequence or loader that the options of size and feed ask for.

    Raises:
        argparse.ArgumentError: options do not go together.
    """
    return feed_options.choose_feed(arguments, short_side=_short_side(arguments))


def _short_side(arguments: argparse.Namespace) -> int:
    return SHAPES_HW[0] if _trains_on_shapes(arguments) else SHORT_SIDE


def _trains_on_shapes(arguments: argparse.Namespace) -> bool:
    return all(getattr(arguments, name) is None for name in FORMATS)


def _draw_shapes(folder: Path, num_images: int, *, seed: int) -> Annotations:
    return read_coco(make_shapes(folder, num_images=num_images, image_hw=SHAPES_HW, seed=seed), folder / "images")
