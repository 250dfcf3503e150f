"""YOLO writer: Annotations to a folder in the layout of Ultralytics' YOLO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import yaml

from detfeed.annotations import Annotations
from detfeed.errors import any_of, shorten
from detfeed.images.headers import read_header
from detfeed.readers.notes import Notes
from detfeed.readers.written_images import Placed, Splits, check_placed, image_names, note_lost, place_image, splits_of
from detfeed.readers.yolo import label_path
from detfeed.writing import new_folder

Ignored = Literal["drop", "object"]
_SPLITS = ("train", "val", "test")


def write_yolo(
    annotations: Splits,
    folder: str | os.PathLike[str],
    *,
    ignored: Ignored = "drop",
    images: Placed = "link",
) -> None:
    """Write a folder in the layout of Ultralytics' YOLO, which `read_yolo` reads as the same boxes.

    The folder gets data.yaml, the images in images/SPLIT, and in labels/SPLIT a text file for each image, empty for one
    without boxes. Images are read back in the order of their names. Shares are written with all digits: corners differ
    by less than 1e-9 pixels. Warnings tell what YOLO can't hold: ignore flags, masks, areas, ids of images and classes.

    Args:
        annotations: the table, which becomes the split "train", or a table for each of "train", "val" and "test", all
            with the same classes. (Ultralytics' own programs need "train" and "val".)
        folder: a new folder; it gets its name when all is written.
        ignored: what becomes of ignored boxes, for which YOLO has no flag: "drop" makes background of them, "object"
            objects.
        images: "link" makes symbolic links to the image files, "copy" copies them.

    Raises:
        ValueError: an image at a URL, names of images that differ in nothing but their suffix, an image whose annotated
            size is not that of the picture as EXIF turns it, on which YOLO's shares are taken, or a class without a
            name.
        ImageError: an image can't be read.
        OSError: the folder exists, or can't be written.
    """
    tables = splits_of(annotations)
    check_placed(images)
    if ignored not in get_args(Ignored):
        raise ValueError(f"Expected ignored to be one of {get_args(Ignored)}. Received: {ignored!r}")
    for split in tables:
        if split not in _SPLITS:
            raise ValueError(f"Expected splits among {any_of(_SPLITS)}. Received: {split!r}")
    notes = Notes()
    class_names = next(iter(tables.values())).class_names
    with new_folder(folder) as top:
        for split, table in tables.items():
            _write_split(top, split, table, ignored, images, notes)
        content = {split: f"images/{split}" for split in tables} | {"names": _names(class_names)}
        # PyYAML writes some line breaks (NEL in a name) so that it reads spaces; escaped, they stay what they are.
        printable = all(map(str.isprintable, class_names))
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=printable)
        Path(top, "data.yaml").write_text(text, encoding="utf-8", newline="\n")
    notes.warn(os.fspath(folder))


def _write_split(top: str, split: str, table: Annotations, ignored: Ignored, placed: Placed, notes: Notes) -> None:
    names = [os.path.join("images", split, name) for name in image_names(table, {})]
    note_lost(table, names, notes)
    ordinary = np.arange(len(table.category_ids))
    if not any((table.category_ids == ordinary + first).all() for first in (0, 1)):
        notes.add("category ids become numbers from 0 on", table.source)
    for row in np.flatnonzero(table.ignore).tolist():
        done = "left out" if ignored == "drop" else "written as objects"
        notes.add(f"ignored boxes are {done}, since YOLO has no flag for them", table.place_of(row))
    os.makedirs(os.path.join(top, "images", split))
    lines = _lines(table)
    kept = ~table.ignore | (ignored == "object")
    for position, (name, path) in enumerate(zip(names, table.paths, strict=True)):
        _check_size(path, tuple(table.image_hw[position].tolist()))
        place_image(path, os.path.join(top, name), placed)
        label_file = os.path.join(top, label_path(name))
        os.makedirs(os.path.dirname(label_file), exist_ok=True)
        rows = range(*table.offsets[position : position + 2].tolist())
        with open(label_file, "w", encoding="ascii", newline="\n") as file:
            file.write("".join(lines[row] for row in rows if kept[row]))


def _lines(table: Annotations) -> list[str]:
    """The line of each box: `class x y width height`, the centre and sizes as shares of the image's."""
    boxes = table.boxes.astype(np.float64)
    sizes = np.tile(table.image_hw[:, ::-1], 2)[table.positions].astype(np.float64)
    shares = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1) / sizes
    return [
        f"{class_id} {x!r} {y!r} {width!r} {height!r}\n"
        for class_id, (x, y, width, height) in zip(table.class_ids.tolist(), shares.tolist(), strict=True)
    ]


def _check_size(path: str, annotated_hw: tuple[int, ...]) -> None:
    header = read_header(path)
    if header.oriented_hw != annotated_hw:
        turned = f" turned by EXIF orientation {header.orientation}" if header.orientation > 1 else ""
        raise ValueError(
            f"Expected images of their annotated height and width, of which YOLO's shares are taken. Received: {path}, "
            f"annotated {annotated_hw}, which is {header.oriented_hw}{turned}; correct it, or leave it out"
        )


def _names(class_names: tuple[str, ...]) -> dict[int, str]:
    for name in class_names:
        if not name.strip():
            raise ValueError(f"Expected classes with names. Received: {shorten(name)}; see Annotations.rename_classes")
    return dict(enumerate(class_names))
