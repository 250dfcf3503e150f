"""KITTI: a folder of 2D object labels to Annotations."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.errors import AnnotationError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.folder_images import Images
from detfeed.readers.many_files import read_files
from detfeed.readers.notes import Notes
from detfeed.readers.paths import walk_files
from detfeed.readers.problems import OnProblem, hw_if_read
from detfeed.readers.rows import ImageRow, ObjectRow, Rows
from detfeed.readers.texts import is_number, parse_lines, read_lines, to_number

DONT_CARE = "DontCare"
# Folders of text files and of images: KITTI's and FiftyOne's.
LABELS, IMAGES = ("label_2", "labels"), ("image_2", "data")

_Read = tuple[Sequence[ObjectRow], tuple[int, int] | None]  # objects of a text file, height and width of its image


def read_kitti(
    root: str | os.PathLike[str],
    *,
    label_dir: str | None = None,
    image_dir: str | None = None,
    class_names: tuple[str, ...] | None = None,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in KITTI's layout: for each image a text file of objects.

    Of a line's 15 fields (16 with a score) the type and the box are read; the box's corners are edges in pixels.
    DontCare makes a box an ignore region. It is a class of its own, since such regions have no class, and the last one,
    so that it changes no other's number. A class may have several words. Text files and images may lie in subfolders;
    the image id is the text file's path below its folder, without its suffix. An image that is found in another folder
    only is taken if there is one such, with a warning; so are images without a text file left out. Sizes are read from
    the headers of the images, with their EXIF orientation applied.

    Args:
        root: folder that holds the others, such as KITTI's training.
        label_dir: folder of text files below `root`. None: label_2, or labels if FiftyOne's labels and data are there
            instead.
        image_dir: folder of images below `root`. None: image_2, or data likewise.
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
    folder = kitti_folder(root, label_dir, LABELS)
    names = walk_files(folder, "a folder of text files", "; see `label_dir`")
    file_of = {path: os.path.splitext(path)[0] for path in names if path.lower().endswith(".txt")}
    notes = Notes()
    images = Images(kitti_folder(root, image_dir, IMAGES), file_of.values(), notes)
    allowed = None if class_names is None else (*class_names, DONT_CARE)

    def image_of(file: str, stem: str) -> str | AnnotationError:
        try:
            return os.path.join(images.folder, images.of(file, stem))
        except AnnotationError as error:
            return error

    def to_image(image: str | AnnotationError, stem: str, read: Callable[[], _Read], file: str) -> ImageRow:
        if isinstance(image, AnnotationError):
            raise image
        objects, hw = read()
        return ImageRow(image, stem, objects, hw)

    rows = Rows(root, where="{file}, line {place}", on_problem=on_problem, ignored_as=IgnoreReason.UNLABELLED)
    files = [os.path.join(folder, name) for name in file_of]
    image_files = [image_of(file, stem) for file, stem in zip(files, file_of.values(), strict=True)]
    with read_files(partial(_read, allowed), list(zip(files, image_files, strict=True))) as reads:
        for file, image, stem, read in zip(files, image_files, file_of.values(), reads, strict=True):
            if not rows.add_file(file, partial(to_image, image, stem, read)):
                images.leave_out(stem)
    rows.stop()
    images.note_left_over("a text file")
    notes.warn(root)
    found = sorted(str(label) for label in rows.labels if label != DONT_CARE)
    classes = found if class_names is None else class_names
    return rows.to_annotations([*classes, DONT_CARE], invalid=invalid)


def kitti_folder(root: str, given: str | None, names: tuple[str, str]) -> str:
    """The folder below the root that is given, or else KITTI's, or FiftyOne's if only both of its folders are there.

    Args:
        root: the root.
        given: name of the folder, if it is given.
        names: KITTI's and FiftyOne's name of it.
    """
    ours, other = names
    others_there = all(os.path.isdir(os.path.join(root, name)) for _, name in (LABELS, IMAGES))
    there = other if others_there and not os.path.lexists(os.path.join(root, ours)) else ours
    return os.path.join(root, there if given is None else given)


def _read(allowed: Collection[str] | None, files: tuple[str, str | AnnotationError]) -> _Read:
    """The objects of a text file, and height and width of its image, if its header can be read."""
    file, image = files
    lines = read_lines(file, "a text file of objects")
    objects = parse_lines(lines, file, lambda line, fields: _object(line, fields, allowed))
    return objects, None if isinstance(image, AnnotationError) else hw_if_read((image, None))


def _object(line: int, fields: list[str], allowed: Collection[str] | None) -> ObjectRow:
    # All fields are parsed, so that the words of a class, of which tools write several, are told from the numbers.
    words = next((place for place, field in enumerate(fields) if place and is_number(field)), len(fields))
    if len(fields) - words not in (14, 15):
        raise ValueError(f"expected a class and 14 or 15 numbers, got {len(fields)} fields")
    numbers = [to_number(field) for field in fields[words:]]
    label = " ".join(fields[:words])
    if allowed is not None and label not in allowed:
        raise ValueError(f"expected one of {among(allowed)}, got {shorten(label)}")
    return ObjectRow(label, numbers[3:7], line, label == DONT_CARE)
