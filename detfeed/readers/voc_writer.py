"""VOC writer: Annotations to a folder in Pascal VOC's layout."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.errors import shorten
from detfeed.readers.notes import Notes
from detfeed.readers.voc import ANNOTATIONS, IMAGES
from detfeed.readers.written_images import Placed, Splits, check_placed, image_names, note_lost, place_image, splits_of
from detfeed.writing import new_folder

# Characters that XML 1.0 can't hold, not even as a reference.
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_voc(
    annotations: Splits,
    folder: str | os.PathLike[str],
    *,
    whole_pixels: bool = True,
    images: Placed = "link",
) -> None:
    """Write a folder in Pascal VOC's layout, which `read_voc` reads as the same boxes.

    The folder gets the images in JPEGImages, an XML file for each in Annotations, and a list of each split in
    ImageSets/Main. Ignored boxes become `difficult`. Images are read back in the order of their names, and class names
    sorted, unless `class_names` gives their order. Warnings tell what VOC can't hold: fractions of a pixel, why a box
    is ignored, classes without boxes and their order, masks, areas, ids of images and classes.

    Args:
        annotations: the table, which becomes the split "train", or a table by the name of each split, all with the same
            classes.
        folder: a new folder; it gets its name when all is written.
        whole_pixels: round corners to whole pixels, as VOC has them; a box that would lose its area keeps a pixel.
            False: write decimals, which some programs do not read; corners then differ by less than 1e-9 pixels.
        images: "link" makes symbolic links to the image files, "copy" copies them.

    Raises:
        ValueError: an image at a URL, names of images that differ in nothing but their suffix, an image in two splits,
            a class without a name, or a name that XML or a list can't hold.
        OSError: the folder exists, an image is missing, or the folder can't be written.
    """
    tables = splits_of(annotations)
    check_placed(images)
    class_names = next(iter(tables.values())).class_names
    _check_classes(class_names)
    notes = Notes()
    seen: dict[str, str] = {}
    with new_folder(folder) as top:
        lists = Path(top, "ImageSets", "Main")
        lists.mkdir(parents=True)
        for name in (ANNOTATIONS[0], IMAGES[0]):
            Path(top, name).mkdir()
        for split, table in tables.items():
            names = image_names(table, seen)
            stems = [os.path.splitext(name)[0] for name in names]
            _note_lost(table, stems, class_names, notes)
            _write_images(top, table, names, _corners(table, whole_pixels, notes), images)
            text = "".join(f"{_listed(stem)}\n" for stem in stems)
            (lists / f"{split}.txt").write_text(text, encoding="utf-8", newline="\n")
    _note_classes(tables, class_names, notes)
    notes.warn(os.fspath(folder))


def _check_classes(class_names: Sequence[str]) -> None:
    for name in class_names:
        if not name or name != name.strip() or _NOT_IN_XML.search(name) or class_names.count(name) > 1:
            raise ValueError(
                "Expected each class name once, in characters that XML has, without white space at its ends. Received: "
                f"{shorten(name)}; see Annotations.rename_classes"
            )


def _note_lost(table: Annotations, stems: Sequence[str], class_names: Sequence[str], notes: Notes) -> None:
    note_lost(table, stems, notes, masks=table.masks, keypoints=True)
    for row in np.flatnonzero(table.ignore).tolist():
        notes.add("ignored boxes of all kinds are written as difficult", table.place_of(row))
    if sorted(class_names) == list(class_names) and table.category_ids.tolist() != list(range(1, len(class_names) + 1)):
        notes.add("category ids become numbers from 1 on", table.source)


def _note_classes(tables: Mapping[str, Annotations], class_names: Sequence[str], notes: Notes) -> None:
    source = next(iter(tables.values())).source
    if sorted(class_names) != list(class_names):
        notes.add("classes are read back in the order of their names", source)
    used = set().union(*(np.unique(table.class_ids).tolist() for table in tables.values()))
    for class_id in sorted(set(range(len(class_names))) - used):
        notes.add("classes without boxes are left out", f"class {shorten(class_names[class_id])}")


def _corners(table: Annotations, whole_pixels: bool, notes: Notes) -> NDArray[np.float64]:
    """VOC's corners float64 (N, 4), counted from 1 and inclusive."""
    boxes = table.boxes.astype(np.float64)
    if whole_pixels:
        rounded = np.rint(boxes)
        low, high = rounded[:, :2], rounded[:, 2:]
        flat = low >= high  # a box within a pixel, or around the border of two
        sizes = table.image_hw[table.positions][:, ::-1]
        np.copyto(low, np.minimum(np.floor(boxes[:, :2]), sizes - 1), where=flat)
        np.copyto(high, low + 1, where=flat)
        for row in np.flatnonzero((rounded != boxes).any(axis=1)).tolist():
            notes.add("fractions of a pixel are left out; whole_pixels=False keeps them", table.place_of(row))
        boxes = rounded
    boxes[:, :2] += 1
    return boxes


def _write_images(
    top: str, table: Annotations, names: Sequence[str], corners: NDArray[np.float64], placed: Placed
) -> None:
    labels = [escape(name, {"\r": "&#13;"}) for name in table.class_names]
    objects = [
        f"\t<object>\n\t\t<name>{labels[class_id]}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>{int(ignore)}</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{_text(x0)}</xmin>\n"
        f"\t\t\t<ymin>{_text(y0)}</ymin>\n\t\t\t<xmax>{_text(x1)}</xmax>\n\t\t\t<ymax>{_text(y1)}</ymax>\n"
        "\t\t</bndbox>\n\t</object>\n"
        for class_id, ignore, (x0, y0, x1, y1) in zip(
            table.class_ids.tolist(), table.ignore.tolist(), corners.tolist(), strict=True
        )
    ]
    for position, (name, path) in enumerate(zip(names, table.paths, strict=True)):
        place_image(path, os.path.join(top, IMAGES[0], name), placed)
        height, width = table.image_hw[position].tolist()
        first, end = table.offsets[position : position + 2].tolist()
        text = (
            f"<annotation>\n\t<folder>{IMAGES[0]}</folder>\n\t<filename>{_file_name(path)}</filename>\n\t<size>\n"
            f"\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
            f"\t<segmented>0</segmented>\n{''.join(objects[first:end])}</annotation>\n"
        )
        file = Path(top, ANNOTATIONS[0], f"{os.path.splitext(name)[0]}.xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")


def _text(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def _file_name(path: str) -> str:
    name = os.path.basename(path)
    if _NOT_IN_XML.search(name):
        raise ValueError(f"Expected names of images in characters that XML has. Received: {shorten(name)}; rename it")
    return escape(name, {"\r": "&#13;"})


def _listed(stem: str) -> str:
    if stem != stem.strip() or "\n" in stem or "\r" in stem:
        raise ValueError(
            "Expected names of images that a line can hold, without white space at the ends. "
            f"Received: {shorten(stem)}; rename it"
        )
    return stem
