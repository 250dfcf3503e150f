"""KITTI: a folder of 2D object labels to Annotations."""

from __future__ import annotations

import os
from collections.abc import Collection

from detfeed.annotations import Annotations
from detfeed.errors import MissingImageError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.paths import image_of, images_by_stem, list_folder
from detfeed.readers.problems import OnProblem
from detfeed.readers.rows import ImageRow, ObjectRow, Rows
from detfeed.readers.texts import parse_lines, read_lines, to_number

DONT_CARE = "DontCare"


def read_kitti(
    root: str | os.PathLike[str],
    *,
    label_dir: str = "label_2",
    image_dir: str = "image_2",
    class_names: tuple[str, ...] | None = None,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in KITTI's layout: for each image a text file of objects.

    Of a line's 15 fields (16 with a score) the type and the box are read; the box's corners are edges in pixels.
    DontCare makes a box an ignore region. It is a class of its own, since such regions have no class, and the last one,
    so that it changes no other's number. The image id is the text file's name without its suffix. Sizes are read from
    the headers of the images, with their EXIF orientation applied.

    Args:
        root: folder that holds the others, such as KITTI's training.
        label_dir, image_dir: folders of text files and images below `root`.
        class_names: the classes in order, without DontCare; an object of another class is an error. None: all classes
            in the files, sorted.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each text file and image that can't be read; the image is left out.
            None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and line.
        ImageError: an image is of an unknown format.

    Source: the readme of KITTI's object development kit.
    """
    root = os.fspath(root)
    folder, image_folder = os.path.join(root, label_dir), os.path.join(root, image_dir)
    names = list_folder(folder, "a folder of text files", "; see `label_dir`")
    images = images_by_stem(list_folder(image_folder, "a folder of images", "; see `image_dir`"))
    allowed = None if class_names is None else (*class_names, DONT_CARE)

    def read_image(file: str) -> ImageRow:
        stem = os.path.splitext(os.path.basename(file))[0]
        image = image_of(file, stem, images, image_folder)
        if image is None:
            raise MissingImageError(f"{file}: expected an image {stem}.* in {image_folder}, got none")
        lines = read_lines(file, "a text file of objects")
        objects = parse_lines(lines, file, lambda line, fields: _object(line, fields, allowed))
        return ImageRow(os.path.join(image_folder, image), stem, objects)

    rows = Rows(root, where="{file}, line {place}", on_problem=on_problem)
    for name in names:
        if os.path.splitext(name)[1].lower() == ".txt":
            rows.add_file(os.path.join(folder, name), read_image)
    found = sorted(str(label) for label in rows.labels if label != DONT_CARE)
    classes = found if class_names is None else class_names
    return rows.to_annotations([*classes, DONT_CARE], invalid=invalid)


def _object(line: int, fields: list[str], allowed: Collection[str] | None) -> ObjectRow:
    if len(fields) not in (15, 16):
        raise ValueError(f"expected 15 or 16 fields, got {len(fields)}")
    # All fields are parsed: the second word of a class would move the corners by one field.
    numbers = [to_number(field) for field in fields[1:]]
    label = fields[0]
    if allowed is not None and label not in allowed:
        raise ValueError(f"expected one of {among(allowed)}, got {shorten(label)}")
    return ObjectRow(label, numbers[3:7], line, label == DONT_CARE)
