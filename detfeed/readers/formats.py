"""Formats: a table of all formats that are read, and the command line options that name a data set in one of them.

A command adds the options to its parser, and reads what the parsed arguments name:

    add_training_options(parser)
    add_validation_options(parser)
    arguments = parser.parse_args()
    train, val = training_set(arguments), validation_set(arguments)
    annotations = None if train is None else train.read()
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from detfeed.annotations import Annotations
from detfeed.errors import any_of
from detfeed.images.decoding import Exif
from detfeed.images.files import is_url
from detfeed.readers import kitti, voc
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.coco import Crowds, read_coco
from detfeed.readers.csv import read_csv
from detfeed.readers.json_lines import read_image_folder, read_ndjson
from detfeed.readers.kitti import kitti_folder, read_kitti
from detfeed.readers.lvis import read_lvis
from detfeed.readers.openimages import read_openimages
from detfeed.readers.voc import read_voc, voc_folder
from detfeed.readers.yolo import read_yolo

Read = Callable[..., Annotations]
Layout = Mapping[str, Any]  # values of the layout options that are given, by their names


def _images(path: str, layout: Layout) -> str | None:
    return layout.get("images")


def _images_or_beside(path: str, layout: Layout) -> str | None:
    return layout.get("images", os.path.dirname(path))


def _voc_images(path: str, layout: Layout) -> str:
    return voc_folder(path, layout.get("image_dir"), voc.IMAGES)


def _kitti_images(path: str, layout: Layout) -> str:
    return kitti_folder(path, layout.get("image_dir"), kitti.IMAGES)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of annotations.

    Attributes:
        name: name of its options, --NAME and --val-NAME.
        read: its reader, called with a path and keywords.
        metavar: "FILE" or "DIR", what the path leads to.
        help: what the path leads to, in up to 52 characters.
        keywords: the layout options that it takes, each with the reader's keyword for it.
        needs: the layout options that must be given.
        image_dir: function of path and layout that returns the folder, or the URL of one, that file names in a written
            copy start from; None: the folder of all images.
        val_split: the split of validation data if none is given.
        file_in: name of the annotation file in a folder that also holds the images; such a folder may be given for the
            path. None: no folder may.
    """

    name: str
    read: Read
    metavar: str
    help: str
    keywords: Mapping[str, str]
    needs: Sequence[str] = ()
    image_dir: Callable[[str, Layout], str | None] = _images
    val_split: str | None = None
    file_in: str | None = None


def _same(*names: str) -> dict[str, str]:
    """Layout options that a reader knows by the same name."""
    return {name: name for name in names}


FORMATS = {
    format.name: format
    for format in (
        Format(
            name="coco",
            read=read_coco,
            metavar="FILE",
            help="COCO instances JSON; needs --images",
            keywords={"images": "image_dir", **_same("crowds", "exif", "masks", "keypoints")},
            needs=["images"],
            file_in="_annotations.coco.json",  # of Roboflow and RF-DETR
        ),
        Format(
            name="lvis",
            read=read_lvis,
            metavar="FILE",
            help="LVIS JSON; needs --images",
            keywords={"images": "image_dir", **_same("crowds", "exif", "masks", "keypoints")},
            needs=["images"],
        ),
        Format(
            name="voc",
            read=read_voc,
            metavar="DIR",
            help="VOC folder, or any folder of XML files and images",
            keywords=_same("split", "annotation_dir", "image_dir", "one_based"),
            image_dir=_voc_images,
        ),
        Format(
            name="yolo",
            read=read_yolo,
            metavar="FILE",
            help="YOLO's data.yaml, obj.data, classes.txt, or folder",
            keywords=_same("split", "root", "masks", "keypoints"),
            val_split="val",
        ),
        Format(
            name="csv",
            read=read_csv,
            metavar="FILE",
            help="CSV of boxes (keras-retinanet, Roboflow, SKU110K)",
            keywords={"classes": "classes_csv", "images": "image_dir"},
            image_dir=_images_or_beside,
        ),
        Format(
            name="kitti",
            read=read_kitti,
            metavar="DIR",
            help="KITTI folder, such as training",
            keywords={"annotation_dir": "label_dir", "image_dir": "image_dir"},
            image_dir=_kitti_images,
        ),
        Format(
            name="openimages",
            read=read_openimages,
            metavar="FILE",
            help="OpenImages CSV; needs --images and --classes",
            keywords={"classes": "classes_csv", "images": "image_dir"},
            needs=["images", "classes"],
        ),
        Format(
            name="imagefolder",
            read=read_image_folder,
            metavar="DIR",
            help="Hugging Face's folder with metadata.jsonl",
            keywords={},
            image_dir=lambda path, layout: path,
        ),
        Format(
            name="ndjson",
            read=read_ndjson,
            metavar="FILE",
            help="Ultralytics' NDJSON",
            keywords={"images": "image_dir", **_same("split", "masks", "keypoints")},
            val_split="val",
        ),
    )
}

# The layout options: each name in the parsed arguments, and the option.
LAYOUT = {
    "images": "--images",
    "classes": "--classes",
    "split": "--split",
    "root": "--root",
    "annotation_dir": "--annotation-dir",
    "image_dir": "--image-dir",
    "one_based": "--zero-based",
    "crowds": "--crowds",
    "exif": "--exif",
    "masks": "--masks",
    "keypoints": "--keypoints",
}
TRAINING = (*FORMATS, *LAYOUT)
VALIDATION = (*(f"val_{name}" for name in FORMATS), "val_images", "val_split")

_Named = tuple[Format, str]  # a format, and the path given with its option
_WHAT_TO_GIVE = {"images": "the folder that its file names start from", "classes": "its file of classes"}


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that a command line names.

    Attributes:
        format: its format.
        path: the path given with the format's option.
        read: reads it; takes `on_problem`.
        image_dir: folder, or URL of one, that file names in a written copy start from; None: the folder of all images.
    """

    format: Format
    path: str
    read: partial[Annotations]
    image_dir: str | None


def add_training_options(
    parser: argparse.ArgumentParser,
    *,
    title: str = "data, one of",
    invalid: Sequence[str] = get_args(Invalid),
) -> None:
    """Add the options that name training data, and those of its layout.

    Args:
        parser: gets two groups of options.
        title: of the group of formats.
        invalid: the policies for bad boxes that can be chosen.
    """
    data = parser.add_argument_group(title)
    for format in FORMATS.values():
        data.add_argument(f"--{format.name}", metavar=format.metavar, help=format.help)
    layout = parser.add_argument_group("layout of the data")
    layout.add_argument("--images", metavar="DIR", help="folder or URL that file names start from")
    layout.add_argument("--classes", metavar="FILE", help="CSV, OpenImages: file of classes")
    layout.add_argument("--split", metavar="NAME", help="VOC: list in ImageSets/Main [all]; YOLO: [train]")
    layout.add_argument("--root", metavar="DIR", help="YOLO: folder of the splits [as data.yaml says]")
    layout.add_argument("--annotation-dir", metavar="NAME", help="folder of labels (VOC: Annotations; KITTI: label_2)")
    layout.add_argument("--image-dir", metavar="NAME", help="folder of images (VOC: JPEGImages; KITTI: image_2)")
    layout.add_argument(
        "--zero-based", dest="one_based", action="store_const", const=False, help="VOC: corners are edges from 0 on"
    )
    layout.add_argument(
        "--crowds", choices=get_args(Crowds), metavar="WHAT", help="COCO: read iscrowd as ignore or object [ignore]"
    )
    layout.add_argument(
        "--exif",
        choices=get_args(Exif),
        metavar="HOW",
        help=f"COCO, EXIF orientation: {any_of(get_args(Exif))} [auto]",
    )
    for name, what in (("masks", "outlines"), ("keypoints", "keypoints")):
        takers = "COCO, LVIS, YOLO, NDJSON"
        layout.add_argument(f"--{name}", action="store_const", const=True, help=f"{takers}: read {what} as well")
    layout.add_argument(
        "--invalid", choices=invalid, default="clip", metavar="POLICY", help=f"bad boxes: {any_of(invalid)} [clip]"
    )


def add_validation_options(parser: argparse.ArgumentParser, *, title: str = "validation data, one of") -> None:
    """Add the options that name validation data.

    Args:
        parser: gets a group of options.
        title: of the group.
    """
    data = parser.add_argument_group(title, "Layout options hold for it as well.")
    for format in FORMATS.values():
        data.add_argument(f"--val-{format.name}", metavar=format.metavar, help=format.help.partition(";")[0])
    data.add_argument("--val-images", metavar="DIR", help="folder or URL of validation images [as --images]")
    data.add_argument("--val-split", metavar="NAME", help="split to validate on, also one of --voc [YOLO: val]")


def training_set(arguments: argparse.Namespace) -> DataSet | None:
    """The training data that the arguments name; None if they name none.

    Raises:
        argparse.ArgumentError: options do not go together, one is missing, or a folder of images does not exist.
    """
    given = _given(arguments)
    _refuse_unused(given)
    return _data_set(_training(given), {name: given[name] for name in LAYOUT if name in given}, given)


def validation_set(arguments: argparse.Namespace) -> DataSet | None:
    """The validation data that the arguments name; None if they name none.

    --val-split alone names a split of the training data. Layout options hold for both data sets, but for --images if
    there is --val-images, and for --split.

    Raises:
        argparse.ArgumentError: as `training_set`.
    """
    given = _given(arguments)
    _refuse_unused(given)
    named = _validation(given)
    layout = {name: given[name] for name in LAYOUT if name in given and name != "split"}
    if named is not None and named[0].val_split is not None:
        layout["split"] = named[0].val_split
    layout |= {name: given[f"val_{name}"] for name in ("images", "split") if f"val_{name}" in given}
    return _data_set(named, layout, given, "val-")


def required(data_set: DataSet | None) -> DataSet:
    """The data set.

    Raises:
        argparse.ArgumentError: it is None.
    """
    if data_set is None:
        raise argparse.ArgumentError(None, f"expected a data set, got none; give {_options(FORMATS.values())}")
    return data_set


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if value is not None}


def _training(given: Layout) -> _Named | None:
    return _one_of({name: given[name] for name in FORMATS if name in given})


def _validation(given: Layout) -> _Named | None:
    named = _one_of({name: given[f"val_{name}"] for name in FORMATS if f"val_{name}" in given}, "val-")
    return _training(given) if named is None and "val_split" in given else named


def _one_of(paths: Mapping[str, str], prefix: str = "") -> _Named | None:
    if len(paths) > 1:
        got = [f"--{prefix}{name}" for name in paths]
        raise argparse.ArgumentError(None, f"{got[1]}: expected one data set, got {' and '.join(got)}; give one")
    return next(((FORMATS[name], path) for name, path in paths.items()), None)


def _refuse_unused(given: Layout) -> None:
    """Raise an error for the first layout option that no named format takes."""
    train, val = _training(given), _validation(given)
    for name, option in LAYOUT.items():
        if name in given:
            for_training_alone = name == "split" or (name == "images" and "val_images" in given)
            _refuse_unless_taken(option, name, [train] if for_training_alone else [train, val])
    if "val_images" in given:
        _refuse_unless_taken("--val-images", "images", [val], "val-")
    if "val_split" in given:
        _refuse_unless_taken("--val-split", "split", [val], "" if val == train else "val-")


def _refuse_unless_taken(option: str, name: str, named: Sequence[_Named | None], prefix: str = "") -> None:
    formats = [one[0] for one in named if one is not None]
    if not any(name in format.keywords for format in formats):
        takers = _options((format for format in FORMATS.values() if name in format.keywords), prefix)
        got = _options(formats, prefix) if formats else "none"
        raise argparse.ArgumentError(None, f"{option}: expected {takers} with it, got {got}; leave {option} out")


def _data_set(named: _Named | None, layout: Layout, given: Layout, prefix: str = "") -> DataSet | None:
    if named is None:
        return None
    format, path = named
    if format.file_in is not None and os.path.isdir(path):
        layout = {"images": path, **layout}
        path = os.path.join(path, format.file_in)
    layout = {name: value for name, value in layout.items() if name in format.keywords}
    for name in format.needs:
        if name not in layout:
            option = f"--{prefix}images" if name == "images" else LAYOUT[name]
            raise argparse.ArgumentError(
                None, f"--{prefix}{format.name}: expected {option} with it, got none; give {_WHAT_TO_GIVE[name]}"
            )
    folder = layout.get("images")
    if folder is not None and not is_url(folder) and not os.path.isdir(folder):
        option = "--val-images" if prefix and "val_images" in given else "--images"
        raise argparse.ArgumentError(None, f"{option}: expected a folder or URL, got {folder}; there is no such folder")
    keywords = {format.keywords[name]: value for name, value in layout.items()}
    read = partial(format.read, path, **keywords, invalid=given.get("invalid", "clip"))
    return DataSet(format, path, read, format.image_dir(path, layout))


def _options(formats: Iterable[Format], prefix: str = "") -> str:
    return any_of(f"--{prefix}{format.name}" for format in formats)
