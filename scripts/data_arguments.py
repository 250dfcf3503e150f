"""Command line arguments that say which data set to use, shared by the scripts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from detfeed import Annotations, DetfeedError, Fixed, RepeatFactor, ShortSide, make_shapes, read_coco, read_voc
from detfeed.images.canvases import Resize
from detfeed.readers.bad_boxes import Invalid

SHAPES_HW = (96, 128)
MAX_VAL_SHAPES = 100  # with some 370 objects, so that a recall is known to 2 %


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return number


def not_negative(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return number


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `read_training` and `choose_feed` use."""
    data = parser.add_argument_group("data (none given: the built-in shapes, drawn into --shapes-dir)")
    data.add_argument("--coco", type=Path, metavar="FILE", help="COCO instances JSON")
    data.add_argument("--images", type=Path, metavar="DIR", help="folder of the COCO file's images")
    data.add_argument("--voc", type=Path, metavar="DIR", help="Pascal VOC folder, such as VOCdevkit/VOC2007")
    data.add_argument("--split", metavar="NAME", help="list in ImageSets/Main of the VOC folder; all images if none")
    data.add_argument(
        "--invalid", choices=get_args(Invalid), default="clip", help="what to do about bad boxes; default clip"
    )
    data.add_argument("--shapes-dir", type=Path, default=Path("runs/shapes"), metavar="DIR", help="default runs/shapes")
    data.add_argument("--shapes", type=positive, default=400, metavar="N", help="training images to draw (default 400)")
    size = parser.add_argument_group("size of the images fed")
    size.add_argument("--short-side", type=positive, metavar="PIXELS", help="default 800; 96 for the built-in shapes")
    size.add_argument(
        "--max-side", type=positive, metavar="PIXELS", help="default 5/3 of the short side (1333 for 800)"
    )
    size.add_argument("--fixed", type=positive, nargs=2, metavar=("H", "W"), help="one canvas instead")
    feed = parser.add_argument_group("feed")
    feed.add_argument("--batch-size", type=positive, default=2, help="default 2")
    feed.add_argument(
        "--augment", choices=("flip", "ssd", "lsj", "multiscale", "none"), default="flip", help="default flip"
    )
    feed.add_argument(
        "--repeat-factor", type=float, metavar="SHARE", help="repeat images of classes rarer than this (LVIS: 0.001)"
    )
    feed.add_argument("--seed", type=not_negative, default=0, help="default 0")


def add_validation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `read_validation` uses besides."""
    data = parser.add_argument_group("validation data (none given: none, but for the built-in shapes)")
    data.add_argument("--val-coco", type=Path, metavar="FILE", help="COCO instances JSON")
    data.add_argument("--val-images", type=Path, metavar="DIR", help="its images; those of --images if none")
    data.add_argument("--val-voc", type=Path, metavar="DIR", help="VOC folder; that of --voc if none")
    data.add_argument("--val-split", metavar="NAME", help="its list in ImageSets/Main")


def read_training(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Annotations:
    """The data set to train on; exits with a message of the parser on arguments that do not go together."""
    if arguments.coco and arguments.voc:
        parser.error("give --coco or --voc, not both")
    if arguments.images and not arguments.coco:
        parser.error("--images goes with --coco")
    if arguments.split and not arguments.voc:
        parser.error("--split goes with --voc")
    if arguments.coco:
        if not arguments.images:
            parser.error("--coco needs --images, the folder that its file names start from")
        _check_folder("--images", arguments.images, parser)
        return _read(parser, read_coco, arguments.coco, arguments.images, invalid=arguments.invalid)
    if arguments.voc:
        return _read(parser, read_voc, arguments.voc, arguments.split, invalid=arguments.invalid)
    return _draw_shapes(arguments.shapes_dir / "train", arguments.shapes, seed=0)


def read_validation(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Annotations | None:
    """The data set to score on, None if none was named; exits like `read_training`."""
    if arguments.val_coco and (arguments.val_voc or arguments.val_split):
        parser.error("give --val-coco or --val-voc and --val-split, not both")
    if arguments.val_images and not arguments.val_coco:
        parser.error("--val-images goes with --val-coco")
    if arguments.val_coco:
        images = arguments.val_images or arguments.images
        if not images:
            parser.error("--val-coco needs --val-images")
        _check_folder("--val-images", images, parser)
        return _read(parser, read_coco, arguments.val_coco, images, invalid=arguments.invalid)
    if arguments.val_voc or arguments.val_split:
        root = arguments.val_voc or arguments.voc
        if not root:
            parser.error("--val-split needs --val-voc")
        return _read(parser, read_voc, root, arguments.val_split, invalid=arguments.invalid)
    if arguments.coco or arguments.voc:
        return None
    return _draw_shapes(arguments.shapes_dir / "val", min(max(arguments.shapes // 4, 1), MAX_VAL_SHAPES), seed=1)


def _check_folder(option: str, folder: Path, parser: argparse.ArgumentParser) -> None:
    if not folder.is_dir():  # which readers, that open no image, would not tell
        parser.error(f"{option}: expected a folder, got {folder}, which is none")


def _read(
    parser: argparse.ArgumentParser, read: Callable[..., Annotations], *arguments: Any, **options: Any
) -> Annotations:
    """What a reader reads; exits with its message, which needs no traceback to be understood."""
    try:
        return read(*arguments, **options)
    except DetfeedError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def _draw_shapes(folder: Path, num_images: int, *, seed: int) -> Annotations:
    return read_coco(make_shapes(folder, num_images=num_images, image_hw=SHAPES_HW, seed=seed), folder / "images")


def choose_resize(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Resize:
    """What the size arguments ask for; exits like `read_training`."""
    if arguments.fixed and (arguments.short_side or arguments.max_side):
        parser.error("give --fixed or --short-side and --max-side, not both")
    if arguments.fixed:
        return Fixed((arguments.fixed[0], arguments.fixed[1]))
    built_in = not (arguments.coco or arguments.voc)
    short_side = arguments.short_side or (SHAPES_HW[0] if built_in else 800)
    if arguments.max_side and arguments.max_side < short_side:
        parser.error(f"--max-side must be at least the short side, {short_side}")
    return ShortSide(short_side, max_side=arguments.max_side or short_side * 1333 // 800)


def choose_feed(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The arguments of a sequence or loader that the size and feed arguments ask for; exits like `read_training`."""
    sampler = None
    if arguments.repeat_factor is not None:
        try:
            sampler = RepeatFactor(arguments.repeat_factor)
        except ValueError as error:
            parser.error(f"--repeat-factor: {error}")
    return {
        "batch_size": arguments.batch_size,
        "resize": choose_resize(arguments, parser),
        "augment": None if arguments.augment == "none" else arguments.augment,
        "seed": arguments.seed,
        "sampler": sampler,
    }
