"""YOLO: a YAML file of folders and classes with a text file of boxes for each image, to Annotations."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import yaml

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError, MissingImageError, among, shorten
from detfeed.readers.paths import list_folder, path_inside, to_id, walk_images
from detfeed.readers.table import Invalid, OnProblem, read_hw, tell, tell_again, to_annotations
from detfeed.readers.texts import MOST_OF_LIST, read_lines, read_lines_if_any, read_text, to_number

_MOST_YAML = 2**18  # bytes; the parser takes three seconds for as many of "a,", and LVIS's 1203 classes are 40,000


# The base makes strings, lists and dicts and nothing else: safer than the safe one, whose merged mappings can be made
# to grow without end, and a class called "no" stays one.
class _Loader(yaml.BaseLoader):  # type: ignore[misc]
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuses keys that stand twice, of which the base keeps the last."""
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
    `class x1 y1 x2 y2 x3 y3 ...` for a polygon, which becomes the box around it; keypoints after a box are left out. It
    lies where the image does, with the last folder `images` of the path replaced by `labels`. An image without one has
    no boxes; two images with one are an error, and so is one without an image, where the split is a folder. Sizes are
    read from the headers of the images, turned as EXIF says. The image id is the image's path below the root; category
    ids are the classes' numbers in the file. Links to folders of images are followed.

    Args:
        data_yaml: the file, with `names` (a list, or names by number), `path` (the root, from the file's folder on)
            and for each split a folder of images, a text file that lists images, or several of these.
        split: which: "train", "val" or "test".
        root: folder that the splits start from, and that no image may be outside of; instead of `path`.
        invalid: what to do about bad boxes; see `policies`.
        on_problem: told of a label file or an image that can't be read (path, error), which is then left out with the
            other. None: the error is raised.

    Raises:
        AnnotationError: a file is missing or not what it should be, an image stands twice, or none has a label file;
            the message names file and place. A `MissingImageError` for a label file without an image.
        ImageError: an image is missing or of an unknown format.

    Source: docs.ultralytics.com/datasets/detect, and for the places of files its data/utils.py.
    """
    source = os.fspath(data_yaml)
    content = _read_yaml(source)
    name_of = _names(content, source)
    class_of = {category_id: row for row, category_id in enumerate(name_of)}
    folder = (
        os.path.join(os.path.dirname(source) or ".", _text(content, "path", source))
        if root is None
        else os.fspath(root)
    )
    if not os.path.isdir(folder):
        raise AnnotationError(f"{source}: expected a folder, got {folder}, which is none - at `path`; see `root`")
    has_keypoints = "kpt_shape" in content

    image_ids, files, sizes = [], [], []
    paths: list[str] = []
    boxes, class_ids, positions, lines = [], [], [], []
    image_of: dict[str, str] = {}  # by label file
    any_labels = False
    for name in _images(content, split, folder, source, on_problem):
        path = os.path.join(folder, name)
        file = _label_path(path)
        try:
            image_id = to_id(name)
            rows = read_lines_if_any(file, "a text file of boxes")
            any_labels |= rows is not None
            if file in image_of:
                raise AnnotationError(
                    f"{file}: expected one image, got {image_of[file]} and {path}; remove or rename all but one"
                )
            found = _boxes(rows or [], file, class_of, has_keypoints)
        except AnnotationError as error:
            tell(on_problem, file, error)
            any_labels = True
            continue
        except ValueError as error:
            tell(on_problem, path, AnnotationError(f"{path}: {error}"))
            continue
        size = read_hw(path, on_problem)
        if size is None:
            continue
        if rows is not None:
            image_of[file] = path
        height, width = size
        for line, class_id, (x0, y0, x1, y1) in found:
            boxes.append([x0 * width, y0 * height, x1 * width, y1 * height])
            class_ids.append(class_id)
            positions.append(len(paths))
            lines.append(line)
        image_ids.append(image_id)
        files.append(file)
        paths.append(path)
        sizes.append(size)
    if files and not any_labels:
        raise AnnotationError(
            f"{source}: expected label files of {len(files)} images, got none, not even {files[0]} - at `{split}`"
        )
    return to_annotations(
        paths=paths,
        image_ids=np.array(image_ids, str),
        image_hw=sizes,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions, np.int64),
        class_ids=np.array(class_ids, np.int32),
        ignore=np.zeros(len(boxes), bool),
        class_names=list(name_of.values()),
        category_ids=np.array(list(name_of), np.int64),
        source=f"{source} ({split})",
        invalid=invalid,
        where=lambda row: f"{files[positions[row]]}, line {lines[row]}",
    )


def _boxes(
    rows: list[str], file: str, class_of: dict[int, int], has_keypoints: bool
) -> list[tuple[int, int, list[float]]]:
    """Line, class id and corners, as shares of the image's sizes, of each box."""
    found = []
    for line, text in enumerate(rows, start=1):
        fields = text.split()
        if not fields:
            continue
        where = f"line {line}"
        category, *values = (to_number(field, file, where) for field in fields)
        if category not in class_of:
            raise AnnotationError(
                f"{file}: expected a class among {among(class_of)}, got {shorten(fields[0])} - at `{where}`"
            )
        if has_keypoints:
            values = values[:4]
        if len(values) == 4:
            x, y, w, h = values
            box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        elif len(values) >= 6 and len(values) % 2 == 0:
            box = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        else:
            raise AnnotationError(
                f"{file}: expected a class with 4 numbers or with 3 or more points, got {len(values)} numbers - "
                f"at `{where}`"
            )
        found.append((line, class_of[int(category)], box))
    return found


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
    """Names of classes by their numbers, in the order of these."""
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
    """Paths of a split's images below the root."""
    if split not in content:
        have = sorted({"train", "val", "test"} & content.keys())
        raise AnnotationError(f"{source}: expected a split {split!r}, got none; there are {have}")
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    names: list[str] = []
    seen: dict[str, tuple[str, str]] = {}

    def add(name: str, file: str, where: str) -> None:
        name = os.path.relpath(name, folder)
        if not tell_again(seen, name, file, where, on_problem):
            names.append(name)

    for number, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise AnnotationError(f"{source}: expected a path, got a {type(entry).__name__} - at `{split}`")
        if not entry.strip():
            raise AnnotationError(f"{source}: expected a path, got nothing - at `{split}`; remove it or say which")
        # Roboflow writes ../train/images and means train/images.
        path = os.path.normpath(_inside(folder, entry.removeprefix("../") or ".", f"{source}: {{}} - at `{split}`"))
        if os.path.isdir(path):
            images = sorted(walk_images(path))
            for name in images:
                add(name, source, f"`{split}[{number}]`" if len(entries) > 1 else f"`{split}`")
            _tell_orphans(path, images, on_problem)
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


def _tell_orphans(folder: str, images: list[str], on_problem: OnProblem | None) -> None:
    """Tell of label files that none of the images in a folder has, where labels have a folder of their own."""
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
            got = f"{shorten(others[stem])}, of no format that is read" if stem in others else "none"
            tell(on_problem, file, MissingImageError(f"{file}: expected an image {stem}.* in {place}, got {got}"))


def _has_labels(file: str) -> bool:
    """Whether a text is one of boxes by its first line; others, such as lists of classes, lie beside them."""
    try:
        first = next((text for text in read_lines(file, "a text file of boxes") if text.strip()), "")
        return len([to_number(field, file, "the first line") for field in first.split()]) > 4
    except AnnotationError:
        return False


def _label_path(path: str) -> str:
    *parts, name = path.split(os.sep)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return os.sep.join([*parts, f"{os.path.splitext(name)[0]}.txt"])
