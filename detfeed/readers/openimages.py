"""OpenImages: its CSV files of boxes and classes to Annotations."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from operator import itemgetter

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.errors import AnnotationError, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.notes import Notes
from detfeed.readers.paths import NamedImages
from detfeed.readers.problems import OnProblem
from detfeed.readers.rows import ObjectRow, Rows
from detfeed.readers.texts import read_rows, to_number
from detfeed.readers.yolo_objects import check_shares

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

    `IsGroupOf` makes a box an ignore region. The images are those that the file has boxes of, in its order. Sizes are
    read from the headers of the images, with their EXIF orientation applied. Classes are in the order of `classes_csv`;
    category ids count from 1.

    Args:
        boxes_csv: the boxes, with a line of headings.
        classes_csv: a line `LabelName,name` for each class, such as class-descriptions-boxable.csv.
        image_dir: folder of the images, `ImageID`.jpg, or its URL.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each line and image that can't be read. The image is left out with
            all its lines; a line that names no image is left out itself. None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing or of an unknown format.
    """
    source, classes = os.fspath(boxes_csv), os.fspath(classes_csv)
    name_of = _read_classes(classes)
    lines = read_rows(source, "a CSV file of boxes")
    line, headings = next(lines, (0, []))
    columns = _columns(headings, line, source)
    notes = Notes()
    rows = Rows(source, where="line {place} ({file})", on_problem=on_problem, ignored_as=IgnoreReason.GROUP)
    rows.add_lines(
        lines,
        NamedImages(os.fspath(image_dir), ".jpg", notes),
        _object_reader(columns, len(headings), name_of, classes),
        name_at=columns[0],
    )
    rows.stop()
    notes.warn(source)
    return rows.to_annotations(list(name_of.values()), invalid=invalid, labels=name_of, shares=True)


def _columns(headings: list[str], line: int, source: str) -> list[int]:
    """The number of each of `_COLUMNS`."""
    if not headings:
        raise AnnotationError(f"{source}: expected headings {', '.join(_COLUMNS)}, got an empty file")
    missing = [name for name in _COLUMNS if name not in headings]
    if missing:
        raise AnnotationError(f"{source}: expected headings {', '.join(_COLUMNS)}, got none of {missing}")
    twice = [name for name in _COLUMNS if headings.count(name) > 1]
    if twice:
        raise AnnotationError(f"{source}: expected each heading once, got {twice} again - at line {line}")
    return [headings.index(name) for name in _COLUMNS]


def _object_reader(
    columns: list[int], num_fields: int, labels: Collection[str], classes_csv: str
) -> Callable[[int, list[str]], ObjectRow]:
    """A function that makes an object of a line's number and fields."""
    pick = itemgetter(*columns[1:])

    def read_object(line: int, fields: list[str]) -> ObjectRow:
        if len(fields) != num_fields:
            raise ValueError(f"expected {num_fields} fields, got {len(fields)}")
        label, x0, x1, y0, y1, group = pick(fields)
        if label not in labels:
            raise ValueError(f"expected a class of {classes_csv}, got {shorten(label)}")
        is_group = _IS_GROUP.get(group.strip())
        if is_group is None:
            raise ValueError(f"expected `IsGroupOf` to be 1, 0 or -1, got {shorten(group)}")
        box = [to_number(text) for text in (x0, y0, x1, y1)]
        check_shares(box)
        return ObjectRow(label, box, line, is_group)

    return read_object


def _read_classes(source: str) -> dict[str, str]:
    """Names of the classes by their labels, such as /m/01g317."""
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
