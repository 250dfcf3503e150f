"""YOLO writer: Annotations to a folder in the layout of Ultralytics' YOLO."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.errors import any_of, shorten
from detfeed.images.headers import read_header
from detfeed.keypoints import Keypoints
from detfeed.mask_columns import MaskColumns
from detfeed.readers.notes import Notes
from detfeed.readers.outlines import outline
from detfeed.readers.written_images import Placed, Splits, check_placed, image_names, note_lost, place_image, splits_of
from detfeed.readers.yolo import label_path
from detfeed.writing import new_folder

Ignored = Literal["drop", "object"]
_SPLITS = ("train", "val", "test")
# Pixels by which a box differs from the one around its polygon if COCO rounds both to hundredths.
_MOVED = 0.01


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
    by less than 1e-9 pixels. Warnings tell what YOLO can't hold: ignore flags, areas, ids of images and classes.

    A data set of YOLO is of one kind. If the tables have keypoints, it is one of keypoints (`kpt_shape`, `flip_idx` and
    `kpt_names`), without masks. Else, if any object that is not ignored has a mask, each object is written as one
    polygon, which covers the same pixels, or as the corners of its box if it has no mask; its box is read back as the
    one around the polygon. Warnings tell of masks that are left out or made, and of boxes that change.

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
    points = _common_keypoints(tables.values())
    outlines = points is None and any(not table.ignore[list(table.masks)].all() for table in tables.values())
    notes = Notes()
    class_names = next(iter(tables.values())).class_names
    with new_folder(folder) as top:
        for split, table in tables.items():
            _write_split(top, split, table, points, outlines, ignored, images, notes)
        content = {split: f"images/{split}" for split in tables} | {"names": _names(class_names)}
        if points is not None:
            content |= _points_content(points, len(class_names))
        # PyYAML writes some line breaks (NEL in a name) so that it reads spaces; escaped, they stay what they are.
        printable = all(map(str.isprintable, [*class_names, *(points.names if points else ())]))
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=printable)
        Path(top, "data.yaml").write_text(text, encoding="utf-8", newline="\n")
    notes.warn(os.fspath(folder))


def _common_keypoints(tables: Iterable[Annotations]) -> Keypoints | None:
    """Those of the tables that have some; raises ValueError if they differ in names or flips."""
    found = [table.keypoints for table in tables if table.keypoints is not None and len(table.keypoints.flips)]
    kinds = [(points.names, points.flips.tolist()) for points in found]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"Expected the same keypoints in all splits, in one order. Received: {kinds}")
    return found[0] if found else None


def _points_content(points: Keypoints, num_classes: int) -> dict[str, Any]:
    """What data.yaml says of keypoints."""
    content: dict[str, Any] = {"kpt_shape": [len(points.flips), 3], "flip_idx": points.flips.tolist()}
    return content | (
        {"kpt_names": {number: list(points.names) for number in range(num_classes)}} if points.names else {}
    )


def _write_split(
    top: str,
    split: str,
    table: Annotations,
    points: Keypoints | None,
    outlines: bool,
    ignored: Ignored,
    placed: Placed,
    notes: Notes,
) -> None:
    names = [os.path.join("images", split, name) for name in image_names(table, {})]
    kept = ~table.ignore | (ignored == "object")
    note_lost(table, names, notes, masks=() if outlines else table.masks, keypoints=False)
    ordinary = np.arange(len(table.category_ids))
    if not any((table.category_ids == ordinary + first).all() for first in (0, 1)):
        notes.add("category ids become numbers from 0 on", table.source)
    for row in np.flatnonzero(table.ignore).tolist():
        done = "left out" if ignored == "drop" else "written as objects"
        notes.add(f"ignored boxes are {done}, since YOLO has no flag for them", table.place_of(row))
    os.makedirs(os.path.join(top, "images", split))
    lines = _lines(table, points, outlines, kept, notes)
    for position, (name, path) in enumerate(zip(names, table.paths, strict=True)):
        _check_size(path, tuple(table.image_hw[position].tolist()))
        place_image(path, os.path.join(top, name), placed)
        label_file = os.path.join(top, label_path(name))
        os.makedirs(os.path.dirname(label_file), exist_ok=True)
        rows = range(*table.offsets[position : position + 2].tolist())
        with open(label_file, "w", encoding="ascii", newline="\n") as file:
            file.write("".join(lines[row] for row in rows if kept[row]))


def _lines(
    table: Annotations, points: Keypoints | None, outlines: bool, kept: NDArray[np.bool_], notes: Notes
) -> list[str]:
    """The line of each box; those that are not kept have no polygon.

    It is `class x y width height`, the centre and sizes as shares of the image's, and after it the keypoints; or
    `class x1 y1 x2 y2 ...`, a polygon.
    """
    sizes = table.image_hw[:, ::-1][table.positions].astype(np.float64)
    low, high = table.boxes[:, :2].astype(np.float64), table.boxes[:, 2:].astype(np.float64)
    numbers = np.concatenate([(low + high) / 2 / sizes, (high - low) / sizes], axis=1)
    if points is not None:
        found = np.zeros((len(low), len(points.flips), 3))
        if table.keypoints is not None:
            found[:] = table.keypoints.points
        found[..., :2] /= sizes[:, None]
        numbers = np.concatenate([numbers, found.reshape(len(low), 3 * len(points.flips))], axis=1)
    of_each: list[list[float]] = numbers.tolist()
    masks = MaskColumns.of(table.masks)
    for row in np.flatnonzero(kept).tolist() if outlines else ():
        width, height = map(int, sizes[row])
        polygon = _polygon(table, row, masks, (height, width), notes)
        of_each[row] = (polygon / sizes[row]).reshape(-1).tolist()
    return [
        f"{class_id} {' '.join(map(repr, row))}\n"
        for class_id, row in zip(table.class_ids.tolist(), of_each, strict=True)
    ]


def _polygon(
    table: Annotations, row: int, masks: MaskColumns, image_hw: tuple[int, int], notes: Notes
) -> NDArray[np.float64]:
    """The outline of a box's mask, or of the box if the mask is missing or has no area, float64 (K, 2)."""
    x0, y0, x1, y1 = box = table.boxes[row].astype(np.float64)
    if row in masks:
        polygon = outline(masks, row, image_hw).astype(np.float64)
        if len(polygon) and (np.ptp(polygon, axis=0) > 0).all():
            around = np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])
            if np.abs(around - box).max() > _MOVED:
                notes.add("boxes become those around their polygons", table.place_of(row))
            return polygon
    notes.add("objects without a mask get their box as one, since all objects are polygons", table.place_of(row))
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


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
