"""KITTI: a folder of 2D object labels to Annotations."""

from __future__ import annotations

import os

import numpy as np

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, MissingImageError, among, shorten
from detfeed.readers.paths import image_of, images_by_stem, list_folder
from detfeed.readers.table import Invalid, OnProblem, read_hw, tell, to_annotations
from detfeed.readers.texts import read_lines, to_number

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

    Of a line's 15 fields (16 with a score) the type and the box count, whose corners are taken as edges. DontCare makes
    a box an ignore region. It is a class of its own, since such regions are of no class: the last, so that it moves no
    other's number. An image id is the name of a file without its ending; sizes are read from the headers of the images.

    Args:
        root: folder that holds the others, such as KITTI's training.
        label_dir, image_dir: folders of text files and images below `root`.
        class_names: the classes in order, without DontCare; an object of another one is an error. None: all in the
            files, sorted.
        invalid: what to do about bad boxes; see `policies`.
        on_problem: told of a text file or an image that can't be read (path, error), which is then left out. None: the
            error is raised.

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

    image_ids, files, sizes = [], [], []
    paths: list[str] = []
    boxes, labels, positions, lines = [], [], [], []
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() != ".txt":
            continue
        file = os.path.join(folder, name)
        try:
            image = image_of(file, stem, images, image_folder)
            if image is None:
                raise MissingImageError(f"{file}: expected an image {stem}.* in {image_folder}, got none")
            objects = _objects(file, allowed)
        except AnnotationError as error:
            tell(on_problem, file, error)
            continue
        path = os.path.join(image_folder, image)
        size = read_hw(path, on_problem)
        if size is None:
            continue
        for line, label, box in objects:
            lines.append(line)
            labels.append(label)
            boxes.append(box)
            positions.append(len(paths))
        image_ids.append(stem)
        files.append(file)
        paths.append(path)
        sizes.append(size)

    classes = [*(sorted(set(labels) - {DONT_CARE}) if class_names is None else class_names), DONT_CARE]
    class_of = {name: row for row, name in enumerate(classes)}
    return to_annotations(
        paths=paths,
        image_ids=np.array(image_ids, str),
        image_hw=sizes,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions, np.int64),
        class_ids=np.array([class_of[label] for label in labels], np.int32),
        ignore=np.array([label == DONT_CARE for label in labels], bool),
        class_names=classes,
        category_ids=np.arange(1, len(classes) + 1),
        source=root,
        invalid=invalid,
        where=lambda row: f"{files[positions[row]]}, line {lines[row]}",
    )


def _objects(file: str, allowed: tuple[str, ...] | None) -> list[tuple[int, str, list[float]]]:
    """Line, class and corners of each object."""
    objects = []
    for line, text in enumerate(read_lines(file, "a text file of objects"), start=1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) not in (15, 16):
            raise AnnotationError(f"{file}: expected 15 or 16 fields, got {len(fields)} - at line {line}")
        # All of them: a class of two words would move the corners by one field.
        numbers = [to_number(field, file, f"line {line}") for field in fields[1:]]
        if allowed is not None and fields[0] not in allowed:
            raise AnnotationError(
                f"{file}: expected one of {among(allowed)}, got {shorten(fields[0])} - at line {line}"
            )
        objects.append((line, fields[0], numbers[3:7]))
    return objects
