"""CSV: a row for each box, as keras-retinanet, Roboflow and SKU110K write it, to Annotations."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from functools import partial
from typing import NamedTuple

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.notes import Notes
from detfeed.readers.paths import NamedImages, is_image
from detfeed.readers.problems import OnProblem
from detfeed.readers.rows import ObjectRow, Rows
from detfeed.readers.texts import is_number, is_unknown, read_rows, to_number

# Names that tools give the columns, in lower case.
_HEADINGS = {
    "path": ("path", "image_path", "img_path", "file_path", "file", "filename", "file_name", "image", "image_name"),
    "x1": ("x1", "xmin", "x_min", "bbox_x"),
    "y1": ("y1", "ymin", "y_min", "bbox_y"),
    "x2": ("x2", "xmax", "x_max"),
    "y2": ("y2", "ymax", "y_max"),
    "class": ("class", "class_name", "label", "label_name", "name", "category", "class_label"),
}
# MakeSense's, which go with bbox_x and bbox_y.
_SIZE_HEADINGS = {"x2": ("bbox_width",), "y2": ("bbox_height",)}
# The image's; w and h, without a word of the image, may be a box's.
_WIDTHS, _HEIGHTS = ("width", "image_width", "img_width"), ("height", "image_height", "img_height")
_CLASS_HEADINGS = (("class_name", "id"), ("class", "id"), ("name", "id"), ("class_name", "class_id"), ("label", "id"))


class _Columns(NamedTuple):
    """Where the fields of a row are.

    Attributes:
        width: number of fields.
        places: of path, x1, y1, x2, y2 and class.
        sized: whether x2 and y2 are the box's width and height.
        size: of the image's height and width, if they are there.
    """

    width: int
    places: tuple[int, ...]
    sized: bool = False
    size: tuple[int, int] | None = None


def read_csv(
    boxes_csv: str | os.PathLike[str],
    classes_csv: str | os.PathLike[str] | None = None,
    image_dir: str | os.PathLike[str] | None = None,
    *,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read boxes of the form `path,x1,y1,x2,y2,class_name`, and classes of the form `class_name,id`.

    Both may have a line of headings, which may put the columns in another order, between others, and call them as
    Roboflow's `filename,width,height,class,xmin,ymin,xmax,ymax` does. Without headings eight columns are SKU110K's,
    which end with width and height, or MakeSense's, `label,x,y,width,height,image,width,height`. Corners are edges in
    pixels. An image without objects has a line `path,,,,,`. The image id is the path in the file, without `./` and
    `//`. Images are in the order in which the file first names them, classes in the order of their ids. Sizes are read
    from the headers of the images, with their EXIF orientation applied; where the file gives width and height of the
    image, they must be these, or those of the picture as it is stored, which the boxes then lie on. An image that is
    not where its name says is taken from another folder below `image_dir` if there is one such, with a warning.

    Args:
        boxes_csv: the file of boxes; commas, semicolons or tabs separate its fields.
        classes_csv: the file of classes. None: all names in `boxes_csv`, sorted, with ids from 1.
        image_dir: folder of the images, or its URL, to which the paths are relative and which they may not leave;
            `https://` is the folder of all such URLs. None: the folder of `boxes_csv`.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each line and image that can't be read. The image is left out with
            all its lines; a line that names no image is left out itself. None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing, of an unknown format, or of another size than the file gives.

    Source: keras-retinanet's README, "CSV datasets"; SKU110K's README.
    """
    source = os.fspath(boxes_csv)
    folder = os.path.dirname(source) if image_dir is None else os.fspath(image_dir)
    category_of = None if classes_csv is None else _read_classes(os.fspath(classes_csv))
    lines = read_rows(source, "a CSV file of boxes")
    first = next(lines, None)
    columns, has_headings = _columns([] if first is None else first[1], source)
    if first is not None and not has_headings:
        lines = itertools.chain([first], lines)
    notes = Notes()
    rows = Rows(source, where="line {place} ({file})", on_problem=on_problem)
    rows.add_lines(
        lines,
        NamedImages(folder, notes=notes),
        lambda line, fields: _object(line, fields, columns, category_of),
        size=None if columns.size is None else partial(_size, columns.size),
        name_at=columns.places[0],
    )
    rows.stop()
    notes.warn(source)
    if category_of is None:
        return rows.to_annotations(sorted(map(str, rows.labels)), invalid=invalid)
    class_names = sorted(category_of, key=lambda name: category_of[name])
    return rows.to_annotations(class_names, invalid=invalid, category_ids=[category_of[name] for name in class_names])


def _columns(first: list[str], source: str) -> tuple[_Columns, bool]:
    """The columns of a file by its first row, and whether this is one of headings."""
    names = [field.strip().lower().replace(" ", "_") for field in first]
    sized = "bbox_width" in names
    headings = {**_HEADINGS, **_SIZE_HEADINGS} if sized else _HEADINGS
    places = {
        column: [place for place, name in enumerate(names) if name in known] for column, known in headings.items()
    }
    if not any(places[column] for column in ("x1", "y1", "x2", "y2")) and not _are_words(first):
        return _columns_of_numbers(first), False
    wrong = [column for column, found in places.items() if len(found) != 1]
    if wrong:
        accepted = ", ".join("/".join(known) for known in _HEADINGS.values())
        raise AnnotationError(
            f"{source}: expected headings path, x1, y1, x2, y2 and class, each once, got "
            f"{shorten(','.join(first))} - at `{wrong[0]}` of line 1; these names are known: {accepted}"
        )
    sizes = [[place for place, name in enumerate(names) if name in known] for known in (_HEIGHTS, _WIDTHS)]
    (height, width) = (found[0] if len(found) == 1 else None for found in sizes)
    size = None if height is None or width is None else (height, width)
    return _Columns(len(first), tuple(place for (place,) in places.values()), sized, size), True


def _columns_of_numbers(first: list[str]) -> _Columns:
    """The columns of a file without headings."""
    if len(first) != 8:
        return _Columns(6, tuple(range(6)))
    if is_image(first[5].strip()) and not is_image(first[0].strip()):
        return _Columns(8, (5, 1, 2, 3, 4, 0), True, (7, 6))
    return _Columns(8, tuple(range(6)), False, (7, 6))


def _are_words(first: list[str]) -> bool:
    """Whether a row can only be one of headings: it names no image, and none of its fields is a number or empty."""
    return (
        len(first) > 4 and not is_image(first[0].strip()) and not any(not field or is_number(field) for field in first)
    )


def _size(places: tuple[int, int], fields: list[str]) -> tuple[int, int] | None:
    """Height and width of the image in a row; None where either is unknown, which tools write in many ways."""
    height, width = (0.0 if is_unknown(fields[place]) else to_number(fields[place]) for place in places)
    return (int(height), int(width)) if min(height, width) >= 1 else None


def _object(line: int, fields: list[str], columns: _Columns, class_names: Collection[str] | None) -> ObjectRow | None:
    """None if the line is of an image without objects."""
    if len(fields) != columns.width:
        raise ValueError(f"expected {columns.width} fields, got {len(fields)}")
    *corners, label = (fields[place] for place in columns.places[1:])
    if not any(corners) and not label:
        return None
    if class_names is not None and label not in class_names:
        label = label.strip()
    if class_names is None and not label.strip():
        raise ValueError(f"expected the name of a class, got {label!r}")
    if class_names is not None and label not in class_names:
        raise ValueError(f"expected a class among {among(class_names)}, got {shorten(label)}")
    x1, y1, x2, y2 = map(to_number, corners)
    return ObjectRow(label, (x1, y1, x1 + x2, y1 + y2) if columns.sized else (x1, y1, x2, y2), line)


def _read_classes(source: str) -> dict[str, int]:
    """Category ids of the classes by name."""
    category_of: dict[str, int] = {}
    seen: set[int] = set()
    for line, row in read_rows(source, "a CSV file of classes"):
        if line == 1 and tuple(field.strip().lower() for field in row) in _CLASS_HEADINGS:
            continue
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
