"""Written images: the names that a written data set gives its images, and their files in its folders."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.errors import among
from detfeed.images.files import is_url
from detfeed.readers.notes import Notes
from detfeed.readers.paths import is_image, to_id

Placed = Literal["link", "copy"]
# One table, which becomes the split "train", or a table for each split.
Splits = Annotations | Mapping[str, Annotations]


def splits_of(annotations: Splits) -> dict[str, Annotations]:
    """The tables by split.

    Raises:
        ValueError: there are none, a name can't be that of a folder, or the tables have different classes.
    """
    tables = {"train": annotations} if isinstance(annotations, Annotations) else dict(annotations)
    if not tables:
        raise ValueError("Expected at least one table. Received: none")
    for split in tables:
        if not split or split.startswith(".") or set(split) & set("/\\\0\n\r"):
            raise ValueError(f"Expected the name of a split, which becomes a file's name. Received: {split!r}")
    (first, train), *others = tables.items()
    for split, table in others:
        if table.class_names != train.class_names:
            raise ValueError(
                f"Expected the classes of {first!r} in all splits, in one order. Received: {among(table.class_names)} "
                f"in {split!r}, {among(train.class_names)} in {first!r}; give both readers the same classes"
            )
    return tables


def common_folder(paths: Sequence[str]) -> str:
    """The deepest folder, or its URL, that holds all images; raises ValueError if there is none."""
    if not any(map(is_url, paths)):
        return os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    kinds = {path.partition("://")[0] if is_url(path) else "" for path in paths}
    if len(kinds) > 1:
        raise ValueError(f"Expected all images at paths or all at URLs of one kind. Received: {sorted(kinds)}")
    (kind,) = kinds
    # The part after "://" alone: os.path would merge the two slashes.
    return f"{kind}://{posixpath.commonpath([posixpath.dirname(path.partition('://')[2]) for path in paths])}"


def name_in(folder: str, path: str) -> str:
    """An image's path relative to a folder; raises ValueError if the image is not below it."""
    if is_url(folder) or is_url(path):
        start = folder if folder.endswith("/") else f"{folder}/"
        name = path.removeprefix(start)
        inside = path.startswith(start) and not name.startswith("/") and ".." not in name.split("/")
    else:
        name = os.path.relpath(path, folder or None)
        inside = name.split(os.sep)[0] != ".."
    if not inside:
        raise ValueError(f"Expected images in the folder {folder!r}. Received: {path}")
    return name


def image_names(table: Annotations, seen: dict[str, str]) -> list[str]:
    """Names of the images in a data set in which each image has an annotation file with its own name.

    Args:
        table: its images. Names are relative to the deepest folder that holds all of them.
        seen: path of the image by name without suffix, of the images before; gets these images.

    Raises:
        ValueError: an image at a URL, one whose name no reader takes for an image's, or two images whose names differ
            in nothing but their suffix.
    """
    url = next(filter(is_url, table.paths), None)
    if url is not None:
        raise ValueError(f"Expected image files on this machine. Received: {url}; download the images first")
    folder = common_folder(table.paths)
    names = [to_id(name_in(folder, path)) for path in table.paths]
    for name, path in zip(names, table.paths, strict=True):
        *parents, last = name.split(os.sep)
        if not is_image(last) or any(part.startswith(".") for part in parents):
            raise ValueError(
                f"Expected image files with the suffix of an image, in folders that are not hidden. Received: {path}; "
                "rename it"
            )
        stem = os.path.splitext(name)[0]
        if stem in seen:
            raise ValueError(
                "Expected images whose names differ in more than their suffix, each once. Received: "
                f"{seen[stem]} and {path}; rename or leave out one of them"
            )
        seen[stem] = path
    return names


def note_lost(table: Annotations, names: Sequence[str], notes: Notes, *, masks: Iterable[int], keypoints: bool) -> None:
    """Note what is left out of a data set in YOLO's or VOC's format.

    Args:
        table: what is written.
        names: the ids with which its images are read back.
        notes: gets a note of each kind.
        masks: the boxes whose masks are left out.
        keypoints: whether keypoints are left out.
    """
    for row in masks:
        notes.add("masks are left out", table.place_of(row))
    for row in np.flatnonzero(table.areas != geometry.area(table.boxes)).tolist():
        notes.add("areas other than those of the boxes are left out", table.place_of(row))
    if keypoints and table.keypoints is not None:
        notes.add("keypoints are left out", table.source)
    stems = [os.path.splitext(os.path.basename(name))[0] for name in names]
    if table.image_ids.tolist() not in (list(names), stems):
        notes.add("image ids become the names of the images", table.source)
    if table.neg_classes is not None:
        notes.add("neg_classes and not_exhaustive_classes are left out", table.source)


def place_image(path: str, target: str, placed: Placed) -> None:
    """Put an image into a written data set, as a symbolic link to the file itself, or as a copy.

    Raises:
        OSError: there is no such image, or the link or copy can't be made.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    source = os.path.realpath(path, strict=True)
    if placed == "link":
        os.symlink(source, target)
    else:
        shutil.copyfile(source, target)


def check_placed(placed: str) -> None:
    """Raise a ValueError about an unknown way to put images into a data set."""
    if placed not in get_args(Placed):
        raise ValueError(f"Expected images to be one of {get_args(Placed)}. Received: {placed!r}")
