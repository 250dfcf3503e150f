"""KITTI: a folder of 2D object labels to Annotations."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.headers import read_header
from detfeed.paths import shorten
from detfeed.policies import Invalid, to_annotations
from detfeed.texts import read_text, to_number

DONT_CARE = "DontCare"


def read_kitti(
    root: str | os.PathLike[str],
    *,
    label_dir: str = "label_2",
    image_dir: str = "image_2",
    class_names: tuple[str, ...] | None = None,
    invalid: Invalid = "clip",
) -> Annotations:
    """Read a data set in KITTI's layout: for each image a text file of objects.

    Of a line's 15 fields (16 with a score) the type and the box count, whose corners are taken as edges. DontCare makes
    a box an ignore region. It is a class of its own, since such regions are of no class: the last, so that it moves no
    other's number. An image id is the name of a file without its ending; sizes are read from the headers of the images.

    Args:
        root: folder that holds the others, such as KITTI's training.
        label_dir, image_dir: folders of text files and images below `root`.
        class_names: the classes in order, without DontCare; an object of another one is an error. None: all in the
            files, sorted.
        invalid: what to do about bad boxes; see `policies`.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is of an unknown format.

    Source: the readme of KITTI's object development kit.
    """
    root = Path(root)
    folder = root / label_dir
    for each, argument in ((folder, "label_dir"), (root / image_dir, "image_dir")):
        if not each.is_dir():
            raise AnnotationError(f"{each}: expected a folder, got none; see `{argument}`")
    images = {os.path.splitext(name)[0]: name for name in sorted(os.listdir(root / image_dir), reverse=True)}
    files = sorted(folder.glob("*.txt"))
    paths, boxes, names, positions, lines = [], [], [], [], []
    for position, file in enumerate(files):
        if file.stem not in images:
            raise AnnotationError(f"{file}: expected an image {file.stem}.* in {root / image_dir}, got none")
        paths.append(str(root / image_dir / images[file.stem]))
        for line, text in enumerate(read_text(file, "a text file of objects").splitlines(), start=1):
            fields = text.split()
            if not fields:
                continue
            if len(fields) not in (15, 16):
                raise AnnotationError(f"{file}: expected 15 or 16 fields, got {len(fields)} - at line {line}")
            if class_names is not None and fields[0] not in (*class_names, DONT_CARE):
                raise AnnotationError(
                    f"{file}: expected one of {[*class_names, DONT_CARE]}, got {shorten(fields[0])} - at line {line}"
                )
            names.append(fields[0])
            boxes.append([to_number(field, str(file), f"line {line}") for field in fields[4:8]])
            positions.append(position)
            lines.append(line)

    classes = [*(sorted(set(names) - {DONT_CARE}) if class_names is None else class_names), DONT_CARE]
    class_of = {name: row for row, name in enumerate(classes)}
    return to_annotations(
        paths=paths,
        image_ids=np.array([file.stem for file in files], str),
        image_hw=[read_header(path).oriented_hw for path in paths],
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions, np.int64),
        class_ids=np.array([class_of[name] for name in names], np.int32),
        ignore=np.array([name == DONT_CARE for name in names], bool),
        class_names=classes,
        category_ids=np.arange(1, len(classes) + 1),
        source=str(root),
        invalid=invalid,
        where=lambda row: f"{files[positions[row]]}, line {lines[row]}",
    )
