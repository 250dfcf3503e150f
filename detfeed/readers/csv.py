"""CSV: boxes and classes as keras-retinanet takes them, to Annotations."""

from __future__ import annotations

import os

import numpy as np

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, among, shorten
from detfeed.readers.paths import NamedImages
from detfeed.readers.table import Invalid, OnProblem, read_hw, tell, to_annotations
from detfeed.readers.texts import read_rows, to_number


def read_csv(
    boxes_csv: str | os.PathLike[str],
    classes_csv: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read boxes of the form `path,x1,y1,x2,y2,class_name` and classes of the form `class_name,id`.

    Corners are edges in pixels. An image without objects is a line `path,,,,,`. The image id is the path as it stands
    in the file, without `./` and `//`; images are in the order in which they first stand there, classes in the order of
    their ids. Sizes are read from the headers of the images, turned as EXIF says.

    Args:
        boxes_csv, classes_csv: the files, without a line of headings.
        image_dir: folder, or URL of one, that the paths start from, and that they may not leave; `https://` is that of
            all such URLs. None: that of `boxes_csv`.
        invalid: what to do about bad boxes; see `policies`.
        on_problem: told of a row or an image that can't be read (path, error); the image is then left out with all its
            rows, or the row if it names none. None: the error is raised.

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

    images = NamedImages(folder)
    left_out: set[int] = set()
    boxes, positions, class_ids, lines = [], [], [], []
    for line, row in read_rows(source, "a CSV file of boxes"):
        try:
            position = images.position(row[0])
        except ValueError as error:
            tell(on_problem, source, AnnotationError(f"{source}: {error} - at line {line}"))
            continue
        try:
            box = _box(row, line, class_of, source)
        except AnnotationError as error:
            tell(on_problem, source, error)
            left_out.add(position)
            continue
        if box is not None:
            class_id, corners = box
            boxes.append(corners)
            positions.append(position)
            class_ids.append(class_id)
            lines.append(line)
    sizes = [None if position in left_out else read_hw(path, on_problem) for position, path in enumerate(images.paths)]
    return to_annotations(
        paths=images.paths,
        image_ids=np.array(images.ids, str),
        image_hw=sizes,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions, np.int64),
        class_ids=np.array(class_ids, np.int32),
        ignore=np.zeros(len(boxes), bool),
        class_names=class_names,
        category_ids=np.array([category_of[name] for name in class_names], np.int64),
        source=source,
        invalid=invalid,
        where=lambda row: f"line {lines[row]} ({images.paths[positions[row]]})",
    )


def _box(row: list[str], line: int, class_of: dict[str, int], source: str) -> tuple[int, list[float]] | None:
    """Class id and corners; None if the row is of an image without objects."""
    if len(row) != 6:
        raise AnnotationError(f"{source}: expected 6 fields, got {len(row)} - at line {line}")
    _, *corners, label = row
    if not any(row[1:]):
        return None
    if label not in class_of:
        raise AnnotationError(
            f"{source}: expected a class among {among(class_of)}, got {shorten(label)} - at line {line}"
        )
    return class_of[label], [to_number(text, source, f"line {line}") for text in corners]


def _read_classes(source: str) -> dict[str, int]:
    category_of: dict[str, int] = {}
    seen: set[int] = set()
    for line, row in read_rows(source, "a CSV file of classes"):
        if len(row) != 2 or not row[1].strip().isascii() or not row[1].strip().isdigit() or len(row[1]) > 9:
            raise AnnotationError(f"{source}: expected `class_name,id`, got {shorten(','.join(row))} - at line {line}")
        name, category_id = row[0], int(row[1])
        if not name.strip():
            raise AnnotationError(f"{source}: expected the name of a class, got {name!r} - at line {line}")
        if name in category_of or category_id in seen:
            raise AnnotationError(
                f"{source}: expected each class and each id once, got {shorten(name)} {category_id} - at line {line}"
            )
        category_of[name] = category_id
        seen.add(category_id)
    return category_of
