"""YOLO: a YAML file of folders and classes with a text file of boxes for each image, to Annotations."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from typing import Any

import yaml

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, MissingImageError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.paths import list_folder, path_inside, to_id, walk_images
from detfeed.readers.problems import OnProblem, tell, tell_repeated
from detfeed.readers.rows import ImageRow, ObjectRow, Rows
from detfeed.readers.texts import MOST_OF_LIST, parse_lines, read_lines, read_lines_if_any, read_text, to_number

# Bytes. The parser takes three seconds for this many of "a,"; LVIS's 1203 classes take 40,000.
_MOST_YAML = 2**18


# BaseLoader makes strings, lists and dicts only. SafeLoader would also merge mappings, which can grow without end, and
# make False of a class called "no".
class _Loader(yaml.BaseLoader):  # type: ignore[misc]
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that stands twice; BaseLoader keeps the last."""
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        return mapping


def read_yolo(
    data_yaml: str | os.PathLike[str],
    split: str = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in the layout of Ultralytics' YOLO.

    A label file has a line `class x y width height` for each box (its centre and sizes as shares of the image's), or
    `class x1 y1 x2 y2 x3 y3 ...` for a polygon, of which the box around it is read; keypoints after a box are left out.
    The label file's path is the image's with its last folder `images` replaced by `labels`. An image without label file
    has no boxes. Two images with the same label file are an error; where the split is a folder, so is a label file
    without an image. Sizes are read from the headers of the images, with their EXIF orientation applied. The image id
    is the image's path below the root; category ids are the classes' numbers in the file. Links to folders of images
    are followed.

    Args:
        data_yaml: the file, with `names` (a list, or names by number), `path` (the root, relative to the file's folder)
            and for each split a folder of images, a text file that lists images, or several of these.
        split: which: "train", "val" or "test".
        root: folder that the splits are relative to and that no image may be outside of; instead of `path`.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each label file and image that can't be read; the image is left out.
            None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be, an image is listed twice, or no image has a label
            file; the message names file and place. A `MissingImageError` for a label file without an image.
        ImageError: an image is missing or of an unknown format.

    Source: docs.ultralytics.com/datasets/detect, and for the places of files its data/utils.py.
    """
    source = os.fspath(data_yaml)
    content = _read_yaml(source)
    name_of = _names(content, source)
    folder = _root(content, source) if root is None else os.fspath(root)
    if not os.path.isdir(folder):
        raise AnnotationError(f"{source}: expected a folder, got {folder}, which is none - at `path`; see `root`")
    has_keypoints = "kpt_shape" in content
    image_of: dict[str, str] = {}  # by label file
    unlabelled: list[str] = []  # label files that are not there

    def read_image(name: str, path: str, file: str) -> ImageRow:
        lines = read_lines_if_any(file, "a text file of boxes")
        if lines is None:
            unlabelled.append(file)
        elif file in image_of:
            raise AnnotationError(
                f"{file}: expected one image, got {image_of[file]} and {path}; remove or rename all but one"
            )
        objects = parse_lines(lines or (), file, lambda line, fields: _object(line, fields, name_of, has_keypoints))
        return ImageRow(path, name, objects)

    rows = Rows(f"{source} ({split})", where="{file}, line {place}", on_problem=on_problem)
    names = _images(content, split, folder, source, on_problem)
    for name in names:
        path = os.path.join(folder, name)
        file = _label_path(path)
        if rows.add_file(file, partial(read_image, name, path)):
            image_of[file] = path
    if len(rows) and len(unlabelled) == len(names):
        raise AnnotationError(
            f"{source}: expected label files of {len(names)} images, got none, not even {unlabelled[0]} - at `{split}`"
        )
    return rows.to_annotations(
        list(name_of.values()), invalid=invalid, labels=name_of, category_ids=list(name_of), shares=True
    )


def _object(line: int, fields: list[str], labels: Collection[int], has_keypoints: bool) -> ObjectRow:
    """The box of a line, as shares of the image's sizes."""
    category, *values = map(to_number, fields)
    if category not in labels:
        raise ValueError(f"expected a class among {among(labels)}, got {shorten(fields[0])}")
    if has_keypoints:
        values = values[:4]
    if len(values) == 4:
        x, y, w, h = values
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    elif len(values) >= 6 and len(values) % 2 == 0:
        box = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
    else:
        raise ValueError(f"expected a class with 4 numbers or with 3 or more points, got {len(values)} numbers")
    return ObjectRow(int(category), box, line)


def _root(content: dict[str, Any], source: str) -> str:
    return os.path.join(os.path.dirname(source) or ".", _text(content, "path", source))


def _read_yaml(source: str) -> dict[str, Any]:
    text = read_text(source, "a YAML file", _MOST_YAML)
    try:
        content = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise AnnotationError(f"{source}: expected a YAML file, got one that is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        message = " ".join(str(error).split())
        raise AnnotationError(f"{source}: expected YAML, got a file that does not parse: {message}") from None
    if not isinstance(content, dict):
        raise AnnotationError(f"{source}: expected `names`, `path` and splits, got a {type(content).__name__}")
    return content


def _names(content: dict[str, Any], source: str) -> dict[int, str]:
    """Names of the classes by number, in the order of the numbers."""
    given = content.get("names")
    names = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(names, dict):
        raise AnnotationError(
            f"{source}: expected a list of classes, or names by number, got a {type(given).__name__} - at `names`"
        )
    name_of: dict[int, str] = {}
    for key, name in names.items():
        number = str(key)
        if not (number.isascii() and number.isdigit() and len(number) < 10) or not isinstance(name, str):
            raise AnnotationError(
                f"{source}: expected a class's number and its name, got {shorten(number)} and a "
                f"{type(name).__name__} - at `names`"
            )
        if not name.strip() or int(number) in name_of:
            problem = "its number again" if name.strip() else "no name"
            raise AnnotationError(
                f"{source}: expected each class's number once, with a name, got {problem} - at `names[{number}]`"
            )
        name_of[int(number)] = name
    count = _text(content, "nc", source).strip()
    if count and count != str(len(name_of)):
        raise AnnotationError(
            f"{source}: expected as many classes as names, got {shorten(count)} and {len(name_of)} names - at `nc`"
        )
    return dict(sorted(name_of.items()))


def _text(content: dict[str, Any], key: str, source: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise AnnotationError(f"{source}: expected a text, got a {type(value).__name__} - at `{key}`")
    return value


def _images(content: dict[str, Any], split: str, folder: str, source: str, on_problem: OnProblem | None) -> list[str]:
    """Paths of a split's images below the root, which are their ids."""
    if split not in content:
        have = sorted({"train", "val", "test"} & content.keys())
        raise AnnotationError(f"{source}: expected a split {split!r}, got none; there are {have}")
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    names: list[str] = []
    seen: dict[str, tuple[str, str]] = {}

    def add(path: str, file: str, where: str) -> None:
        name = os.path.relpath(path, folder)
        if not tell_repeated(seen, name, file, where, on_problem):
            try:
                names.append(to_id(name))
            except ValueError as error:
                tell(on_problem, path, AnnotationError(f"{path}: {error}"))

    for number, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise AnnotationError(f"{source}: expected a path, got a {type(entry).__name__} - at `{split}`")
        if not entry.strip():
            raise AnnotationError(f"{source}: expected a path, got nothing - at `{split}`; remove it or give a path")
        # Roboflow writes ../train/images and means train/images.
        path = os.path.normpath(_inside(folder, entry.removeprefix("../") or ".", f"{source}: {{}} - at `{split}`"))
        if os.path.isdir(path):
            images = sorted(walk_images(path))
            for name in images:
                add(name, source, f"`{split}[{number}]`" if len(entries) > 1 else f"`{split}`")
            _report_orphans(path, images, on_problem)
        elif os.path.isfile(path):
            for line, text in enumerate(read_lines(path, "a list of images", MOST_OF_LIST), start=1):
                if text.strip():
                    name = text.strip().removeprefix("./")
                    if not os.path.isabs(name):
                        name = os.path.join(os.path.relpath(os.path.dirname(path), folder), name)
                    inside = _inside(folder, name.removeprefix("./"), f"{path}: {{}} - at line {line}")
                    add(inside, path, f"line {line}")
        else:
            raise AnnotationError(
                f"{source}: expected a folder of images or a file that lists them, got {path}, which is neither - at "
                f"`{split}`; see `root`"
            )
    return names


def _inside(folder: str, name: str, message: str) -> str:
    try:
        return path_inside(folder, name)
    except ValueError as error:
        raise AnnotationError(message.format(error)) from None


def _report_orphans(folder: str, images: list[str], on_problem: OnProblem | None) -> None:
    """Report the label files that belong to no image in a folder, if labels have a folder of their own."""
    top = os.path.dirname(_label_path(os.path.join(folder, "any")))
    known = set(map(_label_path, images))
    for parent, folders, names in os.walk(top) if top != folder else ():
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        texts = sorted(name for name in names if name.endswith(".txt") and not name.startswith("."))
        files = [file for file in (os.path.join(parent, name) for name in texts) if file not in known]
        orphans = [file for file in files if _has_labels(file)]
        place = os.path.normpath(os.path.join(folder, os.path.relpath(parent, top)))
        others: dict[str, str] = {}
        if orphans and os.path.isdir(place):
            others = {os.path.splitext(name)[0]: name for name in list_folder(place, "a folder of images")}
        for file in orphans:
            stem = os.path.splitext(os.path.basename(file))[0]
            got = f"{shorten(others[stem])}, whose format is not supported" if stem in others else "none"
            tell(on_problem, file, MissingImageError(f"{file}: expected an image {stem}.* in {place}, got {got}"))


def _has_labels(file: str) -> bool:
    """Whether the first line of a text file is a box; other texts, such as lists of classes, lie beside label files."""
    try:
        first = next((text for text in read_lines(file, "a text file of boxes") if text.strip()), "")
        return len([to_number(field) for field in first.split()]) > 4
    except ValueError:  # an AnnotationError, too
        return False


def _label_path(path: str) -> str:
    *parts, name = path.split(os.sep)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return os.sep.join([*parts, f"{os.path.splitext(name)[0]}.txt"])
