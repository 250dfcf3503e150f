"""OpenImages: its CSV files of boxes and classes to Annotations."""

from __future__ import annotations

import os
from array import array

import numpy as np

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, shorten
from detfeed.readers.paths import NamedImages
from detfeed.readers.table import Invalid, OnProblem, read_hw, tell, to_annotations
from detfeed.readers.texts import read_rows, to_number

_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf")
_IS_GROUP = {"1": True, "0": False, "-1": False}  # -1: unknown


def read_openimages(
    boxes_csv: str | os.PathLike[str],
    classes_csv: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    *,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read OpenImages' boxes, such as oidv6-train-annotations-bbox.csv.

    `IsGroupOf` makes a box an ignore region. Images are those that the file has boxes of, in its order; sizes are read
    from their headers, turned as EXIF says. Classes are in the order of `classes_csv`, category ids count from 1.

    Args:
        boxes_csv: the boxes, with a line of headings.
        classes_csv: a line `LabelName,name` for each class, such as class-descriptions-boxable.csv.
        image_dir: folder of the images, `ImageID`.jpg.
        invalid: what to do about bad boxes; see `policies`.
        on_problem: told of a row or an image that can't be read (path, error); the image is then left out with all its
            rows, or the row if it names none. None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing or of an unknown format.
    """
    source = os.fspath(boxes_csv)
    name_of = _read_classes(os.fspath(classes_csv))
    class_of = {label: row for row, label in enumerate(name_of)}
    images = NamedImages(os.fspath(image_dir), ".jpg")
    left_out: set[int] = set()
    # Arrays, since the training set has 14 million boxes.
    corners, positions, class_ids, ignore, lines = array("d"), array("q"), array("i"), array("b"), array("q")
    headings: list[str] | None = None
    for line, row in read_rows(source, "a CSV file of boxes"):
        if headings is None:
            headings = row
            missing = [name for name in _COLUMNS if name not in headings]
            if missing:
                raise AnnotationError(f"{source}: expected headings {', '.join(_COLUMNS)}, got none of {missing}")
            twice = [name for name in _COLUMNS if headings.count(name) > 1]
            if twice:
                raise AnnotationError(f"{source}: expected each heading once, got {twice} again - at line {line}")
            places = [headings.index(name) for name in _COLUMNS]
            continue
        position = None
        try:
            try:
                position = images.position(row[places[0]]) if places[0] < len(row) else None
            except ValueError as error:
                raise AnnotationError(f"{source}: {error} - at line {line}") from None
            if len(row) != len(headings):
                raise AnnotationError(f"{source}: expected {len(headings)} fields, got {len(row)} - at line {line}")
            label, x0, x1, y0, y1, group = (row[place] for place in places[1:])
            if label not in class_of:
                raise AnnotationError(
                    f"{source}: expected a class of {os.fspath(classes_csv)}, got {shorten(label)} - at line {line}"
                )
            is_group = _IS_GROUP.get(group.strip())
            if is_group is None:
                raise AnnotationError(
                    f"{source}: expected 1, 0 or -1, got {shorten(group)} - at `IsGroupOf`, line {line}"
                )
            numbers = [to_number(text, source, f"line {line}") for text in (x0, y0, x1, y1)]
        except AnnotationError as error:
            tell(on_problem, source, error)
            if position is not None:
                left_out.add(position)
            continue
        assert position is not None  # a row of all fields has this one
        corners.extend(numbers)
        positions.append(position)
        class_ids.append(class_of[label])
        ignore.append(is_group)
        lines.append(line)
    if headings is None:
        raise AnnotationError(f"{source}: expected headings {', '.join(_COLUMNS)}, got an empty file")

    sizes = [None if position in left_out else read_hw(path, on_problem) for position, path in enumerate(images.paths)]
    sizes_hw = np.array([size or (1, 1) for size in sizes], np.float64).reshape(-1, 2)
    rows = np.array(positions, np.int64)
    boxes_norm = np.array(corners, np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # infinite is one way to reach out of the image
        boxes = boxes_norm * np.tile(sizes_hw[rows, ::-1], 2)
    return to_annotations(
        paths=images.paths,
        image_ids=np.array(images.ids, str),
        image_hw=sizes,
        boxes=boxes,
        positions=rows,
        class_ids=np.array(class_ids, np.int32),
        ignore=np.array(ignore, bool),
        class_names=list(name_of.values()),
        category_ids=np.arange(1, len(name_of) + 1),
        source=source,
        invalid=invalid,
        where=lambda row: f"line {lines[row]} ({images.paths[positions[row]]})",
    )


def _read_classes(source: str) -> dict[str, str]:
    """Names of classes by the file's labels, such as /m/01g317."""
    name_of: dict[str, str] = {}
    for line, row in read_rows(source, "a CSV file of classes"):
        if len(row) != 2:
            raise AnnotationError(f"{source}: expected `LabelName,name`, got {len(row)} fields - at line {line}")
        if row[0] == "LabelName":  # headings, since version 7
            continue
        if not row[1].strip():
            raise AnnotationError(f"{source}: expected the name of a class, got {row[1]!r} - at line {line}")
        if row[0] in name_of:
            raise AnnotationError(f"{source}: expected each class once, got {shorten(row[0])} again - at line {line}")
        name_of[row[0]] = row[1]
    return name_of
