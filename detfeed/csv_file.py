"""CSV: boxes and classes as keras-retinanet takes them, to Annotations."""

from __future__ import annotations

import os

import numpy as np

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.headers import read_header
from detfeed.paths import path_inside, shorten
from detfeed.policies import Invalid, to_annotations
from detfeed.texts import read_rows, to_number


def read_csv(
    boxes_csv: str | os.PathLike[str],
    classes_csv: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    invalid: Invalid = "clip",
) -> Annotations:
    """Read boxes of the form `path,x1,y1,x2,y2,class_name` and classes of the form `class_name,id`.

    Corners are edges in pixels. An image without objects is a line `path,,,,,`. The image id is the path as it stands
    in the file; images are in the order in which they first stand there, classes in the order of their ids. Sizes are
    read from the headers of the images, turned as EXIF says.

    Args:
        boxes_csv, classes_csv: the files, without a line of headings.
        image_dir: folder that the paths start from, and that they may not leave. None: that of `boxes_csv`.
        invalid: what to do about bad boxes; see `policies`.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing or of an unknown format.

    Source: keras-retinanet's README, "CSV datasets".
    """
    source = os.fspath(boxes_csv)
    folder = os.path.dirname(source) if image_dir is None else os.fspath(image_dir)
    category_of = _read_classes(os.fspath(classes_csv))
    class_names = sorted(category_of, key=lambda name: category_of[name])
    class_of = {name: row for row, name in enumerate(class_names)}

    position_of: dict[str, int] = {}
    paths: list[str] = []
    boxes, positions, class_ids, lines = [], [], [], []
    for line, row in read_rows(source, "a CSV file of boxes"):
        if len(row) != 6:
            raise AnnotationError(f"{source}: expected 6 fields, got {len(row)} - at line {line}")
        name, *corners, label = row
        if name not in position_of:
            try:
                paths.append(path_inside(folder, name))
            except ValueError as error:
                raise AnnotationError(f"{source}: {error} - at line {line}") from None
            position_of[name] = len(position_of)
        if not any(row[1:]):
            continue
        if label not in class_of:
            raise AnnotationError(
                f"{source}: expected a class among {class_names}, got {shorten(label)} - at line {line}"
            )
        boxes.append([to_number(text, source, f"line {line}") for text in corners])
        positions.append(position_of[name])
        class_ids.append(class_of[label])
        lines.append(line)
    # First of all, since a path too long for a file would make a column of names that long.
    sizes = [read_header(path).oriented_hw for path in paths]
    return to_annotations(
        paths=paths,
        image_ids=np.array(list(position_of), str),
        image_hw=sizes,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions, np.int64),
        class_ids=np.array(class_ids, np.int32),
        ignore=np.zeros(len(boxes), bool),
        class_names=class_names,
        category_ids=np.array([category_of[name] for name in class_names], np.int64),
        source=source,
        invalid=invalid,
        where=lambda row: f"line {lines[row]} ({paths[positions[row]]})",
    )


def _read_classes(source: str) -> dict[str, int]:
    category_of: dict[str, int] = {}
    seen: set[int] = set()
    for line, row in read_rows(source, "a CSV file of classes"):
        if len(row) != 2 or not row[1].strip().isascii() or not row[1].strip().isdigit() or len(row[1]) > 9:
            raise AnnotationError(f"{source}: expected `class_name,id`, got {shorten(','.join(row))} - at line {line}")
        name, category_id = row[0], int(row[1])
        if name in category_of or category_id in seen:
            raise AnnotationError(
                f"{source}: expected each class and each id once, got {shorten(name)} {category_id} - at line {line}"
            )
        category_of[name] = category_id
        seen.add(category_id)
    return category_of
