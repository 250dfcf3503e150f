"""CSV: boxes and classes as keras-retinanet takes them, to Annotations."""

from __future__ import annotations

import os
from collections.abc import Collection

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.paths import NamedImages
from detfeed.readers.problems import OnProblem
from detfeed.readers.rows import ObjectRow, Rows
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

    Corners are edges in pixels. An image without objects has a line `path,,,,,`. The image id is the path in the file,
    without `./` and `//`. Images are in the order in which the file first names them, classes in the order of their
    ids. Sizes are read from the headers of the images, with their EXIF orientation applied.

    Args:
        boxes_csv, classes_csv: the files, without a line of headings.
        image_dir: folder of the images, or its URL, to which the paths are relative and which they may not leave;
            `https://` is the folder of all such URLs. None: the folder of `boxes_csv`.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each line and image that can't be read. The image is left out with
            all its lines; a line that names no image is left out itself. None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing or of an unknown format.

    Source: keras-retinanet's README, "CSV datasets".
    """
    source = os.fspath(boxes_csv)
    folder = os.path.dirname(source) if image_dir is None else os.fspath(image_dir)
    category_of = _read_classes(os.fspath(classes_csv))
    class_names = sorted(category_of, key=lambda name: category_of[name])
    rows = Rows(source, where="line {place} ({file})", on_problem=on_problem)
    rows.add_lines(
        read_rows(source, "a CSV file of boxes"),
        NamedImages(folder),
        lambda line, fields: _object(line, fields, category_of),
    )
    return rows.to_annotations(class_names, invalid=invalid, category_ids=[category_of[name] for name in class_names])


def _object(line: int, fields: list[str], class_names: Collection[str]) -> ObjectRow | None:
    """None if the line is of an image without objects."""
    if len(fields) != 6:
        raise ValueError(f"expected 6 fields, got {len(fields)}")
    if not any(fields[1:]):
        return None
    label = fields[5]
    if label not in class_names:
        raise ValueError(f"expected a class among {among(class_names)}, got {shorten(label)}")
    return ObjectRow(label, [to_number(text) for text in fields[1:5]], line)


def _read_classes(source: str) -> dict[str, int]:
    """Category ids of the classes by name."""
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
