"""YOLO: a YAML file of folders and classes with a text file of boxes for each image, to Annotations."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, MissingImageError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.many_files import read_files
from detfeed.readers.notes import Notes
from detfeed.readers.paths import ELSEWHERE, Near, is_image, list_folder, path_inside, to_id, walk_images
from detfeed.readers.problems import OnProblem, hw_if_read, tell_repeated
from detfeed.readers.rows import ImageRow, ObjectRow, Rows
from detfeed.readers.texts import MOST_OF_LIST, parse_lines, read_lines, read_lines_if_any, to_number
from detfeed.readers.yolo_layouts import keypoints_of, layout_file, names_of, read_layout, root_of, split_of
from detfeed.readers.yolo_objects import Shape, boxed, outlined


def read_yolo(
    data_yaml: str | os.PathLike[str],
    split: str = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    masks: bool = False,
    keypoints: bool = False,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in the layout of YOLO: Ultralytics', darknet's, or a folder with a file of classes.

    A label file has a line `class x y width height` for each box (its centre and sizes as shares of the image's), or
    `class x1 y1 x2 y2 x3 y3 ...` for a polygon or rotated box, of which the box around it is read, with a warning
    unless `masks` keeps the polygon. Keypoints after a box are left out unless `keypoints` asks for them. Numbers above
    2 are an error, since they are pixels. The label file's path is the image's with its last folder `images` replaced
    by `labels`. An image without label file has no boxes. Two images with the same label file are an error; where the
    split is a folder, so is a label file without an image, unless labels lie beside images, where it is a warning.
    Sizes are read from the headers of the images, with their EXIF orientation applied. The image id is the image's path
    below the root; category ids are the classes' numbers in the file. Links to folders of images are followed. An image
    of a list that is not where its name says is taken from another folder of the root if there is one such, with a
    warning.

    Args:
        data_yaml: the YAML file, with `names` (a list, or names by number), `path` (the root, relative to the file's
            folder) and for each split a folder of images, an image, a text file that lists images, or several of these.
            Or darknet's obj.data, whose lists are taken without their first folders where there are none such. Or a
            file of one class a line (.txt or .names), whose images are those of images/SPLIT, SPLIT/images or the list
            SPLIT.txt; without such, the split "train" is all of images, or all beside the file. Or a folder with one of
            these files.
        split: which: "train", "val" (also "valid" and "validation" in the file) or "test".
        root: folder that the splits are relative to and that no image may be outside of; instead of `path`.
        masks: keep polygons as masks of the objects, for target functions such as `MaskTargets`. A rotated box is a
            polygon of four points.
        keypoints: read keypoints. `kpt_shape` in the file says how many there are, `kpt_names` their names, `flip_idx`
            which change places in a mirrored image; without it, those whose names say left and right, and a warning
            tells if there are no names either. Where they come without visibility, one with x or y of 0 or below is not
            labelled.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each label file and image that can't be read; the image is left out.
            None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be, an image is listed twice, or no image has a label
            file; the message names file and place. A `MissingImageError` for a label file without an image.
        ImageError: an image is missing or of an unknown format.

    Source: docs.ultralytics.com/datasets/detect, and for the places of files its data/utils.py.
    """
    source = layout_file(os.fspath(data_yaml))
    notes = Notes()
    content, of_file = read_layout(source, split)
    name_of = names_of(content, source)
    folder = root_of(content, of_file, split, source, notes) if root is None else os.fspath(root)
    key = split_of(content, split, source, notes)
    if not os.path.isdir(folder):
        raise AnnotationError(f"{source}: expected a folder, got {folder}, which is none - at `path`; see `root`")
    shape, points = keypoints_of(content, source, notes) if keypoints else ((0, 0), None)
    image_of: dict[str, str] = {}  # by label file
    unlabelled: list[str] = []  # label files that are not there

    def to_image(name: str, path: str, read: Callable[[], _LabelFile], file: str) -> ImageRow:
        found = read()
        if found.objects is None:
            unlabelled.append(file)
        elif file in image_of:
            raise AnnotationError(
                f"{file}: expected one image, got {image_of[file]} and {path}; remove or rename all but one"
            )
        for line in found.around:
            notes.add("polygons and rotated boxes are read as the boxes around them", f"{file}, line {line}")
        return ImageRow(path, name, found.objects or (), found.hw)

    rows = Rows(f"{source} ({split})", where="{file}, line {place}", on_problem=on_problem)
    names = _images(content[key], key, folder, source, notes, rows.add_problem)
    files = [(label_path(path), path) for path in (os.path.join(folder, name) for name in names)]
    lines = _Lines(classes=name_of, has_keypoints="kpt_shape" in content, masks=masks, shape=shape)
    with read_files(lines.read, files) as reads:
        for name, (file, path), read in zip(names, files, reads, strict=True):
            if rows.add_file(file, partial(to_image, name, path, read)):
                image_of[file] = path
    rows.stop()
    if len(rows) and len(unlabelled) == len(names):
        raise AnnotationError(
            f"{source}: expected label files of {len(names)} images, got none, not even {unlabelled[0]} - at "
            f"`{split}`; label files of images/... are in labels/..., so written, those of other folders beside the "
            "images"
        )
    notes.warn(rows.source)
    return rows.to_annotations(
        list(name_of.values()),
        invalid=invalid,
        labels=name_of,
        category_ids=list(name_of),
        shares=True,
        keypoints=points,
    )


class _LabelFile(NamedTuple):
    """What belongs to an image.

    Attributes:
        objects: those of its label file; None if there is none.
        around: lines whose polygon became the box around it.
        hw: height and width in pixels, if the image's header can be read.
    """

    objects: Sequence[ObjectRow] | None
    around: Sequence[int]
    hw: tuple[int, int] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Lines:
    """How the lines of label files are read: with classes of these numbers, as the arguments of `read_yolo` say."""

    classes: Collection[int]
    has_keypoints: bool
    masks: bool
    shape: Shape

    def read(self, files: tuple[str, str]) -> _LabelFile:
        """Read a label file and its image's header."""
        file, image = files
        lines = read_lines_if_any(file, "a text file of boxes")
        around: list[int] = []
        objects = parse_lines(lines or (), file, partial(self._object, around))
        return _LabelFile(None if lines is None else objects, around, hw_if_read((image, None)))

    def _object(self, around: list[int], line: int, fields: list[str]) -> ObjectRow:
        """The box of a line, as shares of the image's sizes."""
        category, *values = map(to_number, fields)
        if category not in self.classes:
            raise ValueError(f"expected a class among {among(self.classes)}, got {shorten(fields[0])}")
        if self.has_keypoints and len(values) >= 4:
            return boxed(int(category), values, line, self.shape)
        if len(values) == 4:
            return boxed(int(category), values, line)
        # 2, "visible", is no share; without one, a polygon along the image's border has such numbers, too.
        count, left = divmod(len(values) - 4, 3)
        if count > 0 and not left and 2 in values[6::3] and {0, 1, 2}.issuperset(values[6::3]):
            raise ValueError(
                f"expected a class with 4 numbers or with 3 or more points, got a box and {count} keypoints, each with "
                f"its visibility; write `kpt_shape: [{count}, 3]` in the file of classes"
            )
        if len(values) >= 6 and len(values) % 2 == 0:
            if not self.masks:
                around.append(line)
            return outlined(int(category), values, line, masks=self.masks)
        hint = "; remove the fifth, which is the confidence of a prediction" if len(values) == 5 else ""
        raise ValueError(f"expected a class with 4 numbers or with 3 or more points, got {len(values)} numbers{hint}")


def _images(given: Any, split: str, folder: str, source: str, notes: Notes, on_problem: OnProblem) -> list[str]:
    """Paths of a split's images below the root, which are their ids."""
    entries = given if isinstance(given, list) else [given]
    names: list[str] = []
    seen: dict[str, tuple[str, str]] = {}
    # darknet's names start from the folder in which it ran, so that they are elsewhere as a rule.
    near = _NearImages(folder, Notes() if source.endswith(".data") else notes)

    def add(path: str, file: str, where: str) -> None:
        name = os.path.relpath(path, folder)
        if not tell_repeated(seen, name, file, where, on_problem):
            try:
                names.append(to_id(name))
            except ValueError as error:
                on_problem(path, AnnotationError(f"{path}: {error}"))

    for number, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise AnnotationError(f"{source}: expected a path, got a {type(entry).__name__} - at `{split}`")
        if not entry.strip():
            raise AnnotationError(f"{source}: expected a path, got nothing - at `{split}`; remove it or give a path")
        where = f"`{split}[{number}]`" if len(entries) > 1 else f"`{split}`"
        # Roboflow writes ../train/images and means train/images.
        path = os.path.normpath(_inside(folder, entry.removeprefix("../") or ".", f"{source}: {{}} - at `{split}`"))
        outside = os.path.normpath(os.path.join(folder, entry))
        if entry.startswith("../") and entry != "../" and os.path.exists(outside):
            if not os.path.exists(path):
                raise AnnotationError(
                    f"{source}: expected a path inside the root, {folder}, got {entry!r}, which leads to {outside} - "
                    f"at `{split}`; let `root` or `path` name a folder above both"
                )
            notes.add("splits that begin with ../ are read without it", f"{where}: {path}, not {outside}")
        if os.path.isdir(path):
            images = sorted(walk_images(path))
            for name in images:
                add(name, source, where)
            _report_orphans(path, images, notes, on_problem)
        elif is_image(os.path.basename(path)):
            add(near.path(os.path.relpath(path, folder), source, where), source, where)
        elif os.path.isfile(path):
            for line, name in _listed(path, folder):
                add(near.path(name, path, f"line {line}"), path, f"line {line}")
        else:
            raise AnnotationError(
                f"{source}: expected a folder of images or a file that lists them, got {path}, which is neither - at "
                f"`{split}`; {_meant(path)}see `root`"
            )
    return names


def _meant(path: str) -> str:
    """What may be meant by a path where nothing is, for a message."""
    if "\\" in path:
        return 'write "/" instead of "\\", which separates no folders here; '
    folder, name = os.path.split(path)
    others = list_folder(folder, "a folder") if os.path.isdir(folder) else []
    near = next((other for other in others if other.casefold() == name.casefold()), None)
    return f"there is {shorten(near)}; " if near else ""


def _listed(file: str, folder: str) -> Iterator[tuple[int, str]]:
    """Line, and path below the root, of each image in a list; the path may lead out of it."""
    for line, text in enumerate(read_lines(file, "a list of images", MOST_OF_LIST), start=1):
        if text.strip():
            name = text.strip().removeprefix("./")
            if not os.path.isabs(name):
                name = os.path.join(os.path.relpath(os.path.dirname(file), folder), name)
            yield line, name.removeprefix("./")


class _NearImages:
    """The images below the root, which is looked through only if an image is not where its name says."""

    def __init__(self, folder: str, notes: Notes) -> None:
        self._folder = folder
        self._notes = notes
        self._near: Near | None = None

    def path(self, name: str, file: str, where: str) -> str:
        """The path of a name, or that of the one image that is nearest to it, if nothing is there.

        Raises:
            AnnotationError: the name leads out of the root, and there is no such image.
        """
        path, problem = name, None
        try:
            path = _inside(self._folder, name, f"{file}: {{}} - at {where}")
        except AnnotationError as error:
            problem = error
        if problem is None and os.path.lexists(path):
            return path
        if self._near is None:
            self._near = Near(walk_images(self._folder))
        found = self._near.find(path)
        if len(found) == 1:
            self._notes.add(ELSEWHERE, f"{where} of {file}, whose image is {found[0]}")
            return found[0]
        if problem is not None:
            raise problem
        return path  # reading it is the error


def _inside(folder: str, name: str, message: str) -> str:
    try:
        return path_inside(folder, name)
    except ValueError as error:
        raise AnnotationError(message.format(error)) from None


def _report_orphans(folder: str, images: list[str], notes: Notes, on_problem: OnProblem) -> None:
    """Report the label files that belong to no image in a folder: as errors if labels have a folder of their own."""
    top = os.path.dirname(label_path(os.path.join(folder, "any")))
    known = set(map(label_path, images))
    for parent, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        texts = sorted(name for name in names if name.endswith(".txt") and not name.startswith("."))
        files = [file for file in (os.path.join(parent, name) for name in texts) if file not in known]
        orphans = [file for file in files if _has_labels(file)]
        if top == folder:
            for file in orphans:
                notes.add("label files without an image are left out", file)
            continue
        place = os.path.normpath(os.path.join(folder, os.path.relpath(parent, top)))
        others: dict[str, str] = {}
        if orphans and os.path.isdir(place):
            others = {os.path.splitext(name)[0]: name for name in list_folder(place, "a folder of images")}
        for file in orphans:
            stem = os.path.splitext(os.path.basename(file))[0]
            got = f"{shorten(others[stem])}, whose format is not supported" if stem in others else "none"
            on_problem(file, MissingImageError(f"{file}: expected an image {stem}.* in {place}, got {got}"))


def _has_labels(file: str) -> bool:
    """Whether the first line of a text file is a box; other texts, such as lists of classes, lie beside label files."""
    try:
        first = next((text for text in read_lines(file, "a text file of boxes") if text.strip()), "")
        return len([to_number(field) for field in first.split()]) > 4
    except ValueError:  # an AnnotationError, too
        return False


def label_path(path: str) -> str:
    """Path of the label file of an image."""
    *parts, name = path.split(os.sep)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return os.sep.join([*parts, f"{os.path.splitext(name)[0]}.txt"])
