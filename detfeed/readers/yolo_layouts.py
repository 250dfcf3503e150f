"""YOLO layouts: what the files of Ultralytics' YOLO, of darknet and of labelling tools say of classes and images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import yaml

from detfeed.errors import AnnotationError, shorten
from detfeed.keypoints import MAX_KEYPOINTS, Keypoints, flips_of
from detfeed.readers.notes import Notes
from detfeed.readers.paths import list_folder
from detfeed.readers.texts import read_lines, read_text
from detfeed.readers.yolo_objects import Shape

Content = dict[str, Any]

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


# Files of a folder that say where its images and classes are, the first of which is read; "" is any name.
_KNOWN = (("data", ".yaml"), ("dataset", ".yaml"), ("data", ".yml"), ("", ".yaml"), ("", ".data"))
_CLASSES = ("classes.txt", "obj.names", "labels.txt", os.path.join("labels", "classes.txt"))
# Names that tools give one split.
_SPLITS = {"val": ("val", "valid", "validation"), "valid": ("valid", "val", "validation")}


def layout_file(path: str) -> str:
    """The file that describes a data set: the one given, or that in the folder given.

    Raises:
        AnnotationError: the folder has no such file, or several of one kind.
    """
    if not os.path.isdir(path):
        return path
    names = list_folder(path, "a folder")
    for stem, suffix in _KNOWN:
        found = [name for name in names if name.endswith(suffix) and (not stem or name == stem + suffix)]
        if len(found) > 1:
            raise AnnotationError(
                f"{path}: expected one file that describes the data set, got {found[0]!r} and {found[1]!r}; give one"
            )
        if found:
            return os.path.join(path, found[0])
    file = next((name for name in _CLASSES if os.path.isfile(os.path.join(path, name))), None)
    if file is None:
        raise AnnotationError(
            f"{path}: expected data.yaml, obj.data or classes.txt in this folder, got none; give the file, or write one"
        )
    return os.path.join(path, file)


def read_layout(source: str, split: str) -> tuple[Content, str]:
    """Read a file that describes a data set.

    Args:
        source: a YAML file; darknet's file of `key = value` (.data); or a file with one class a line (.txt or .names),
            whose images are in the folders images/SPLIT or SPLIT/images, in the list SPLIT.txt, or, of "train", all
            that lie in the folder images or beside the file.
        split: the split that is to be read.

    Returns:
        Content in the form of a YAML file, and the folder of the file, to which its paths are relative.

    Raises:
        AnnotationError: the file is missing or not such a file.
    """
    folder = os.path.dirname(source) or "."
    suffix = os.path.splitext(source)[1].lower()
    if suffix == ".data":
        return _read_darknet(source, folder), folder
    if suffix in (".txt", ".names"):
        if os.path.basename(os.path.abspath(folder)) == "labels":
            folder = os.path.join(folder, os.pardir)
        return {"names": _read_classes(source), split: _images_beside(source, folder, split)}, folder
    return _read_yaml(source), folder


def _read_darknet(source: str, folder: str) -> Content:
    content: Content = {}
    for line, text in enumerate(read_lines(source, "a darknet file"), start=1):
        key, equals, value = (part.strip() for part in text.partition("="))
        if text.strip() and not text.strip().startswith("#"):
            if not equals:
                raise AnnotationError(f"{source}: expected `key = value`, got {shorten(text.strip())} - at line {line}")
            content[key] = value
    if not content.get("names"):
        raise AnnotationError(f"{source}: expected a file of classes, got none - at `names`")
    # darknet's paths are relative to the folder in which it runs, which is rarely that of the file.
    for key in ("names", "train", "valid", "test"):
        if key in content:
            content[key] = _longest_end(folder, content[key])
    content["names"] = _read_classes(os.path.join(folder, content["names"]))
    content["nc"] = content.get("classes", "")
    return content


def _longest_end(folder: str, path: str) -> str:
    """The longest end of a path that there is in a folder, such as obj.names for data/obj.names; else the path."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    return next((end for end in ends if ".." not in end and os.path.exists(os.path.join(folder, end))), path)


def _read_classes(source: str) -> list[str]:
    names = [line.strip() for line in read_lines(source, "a file of classes")]
    while names and not names[-1]:
        names.pop()
    return names


def _images_beside(source: str, folder: str, split: str) -> str:
    names = [
        name
        for known in _SPLITS.get(split, (split,))
        for name in (f"images/{known}", f"{known}/images", f"{known}.txt")
    ]
    if split == "train":
        names += ["images", "."]
    for name in names:
        if os.path.exists(os.path.join(folder, name)):
            return name
    raise AnnotationError(
        f"{source}: expected images of the split {split!r} in {' or '.join(names)}, got none; `train` is all images"
    )


def split_of(content: Content, split: str, source: str, notes: Notes) -> str:
    """The key of a split, which tools name in several ways.

    Raises:
        AnnotationError: there is none.
    """
    key = _key_of(content, split)
    if key is None:
        have = sorted({"train", "val", "valid", "validation", "test"} & content.keys())
        raise AnnotationError(f"{source}: expected a split {split!r}, got none; there are {have}")
    if key != split:
        notes.add(f"`{key}` is read for the split {split!r}", source)
    return key


def _key_of(content: Content, split: str) -> str | None:
    return next((name for name in (split, *_SPLITS.get(split, ())) if name in content), None)


def root_of(content: Content, folder: str, split: str, source: str, notes: Notes) -> str:
    """The folder that paths are relative to.

    `path` may be of another machine; the folder of the file is taken then if the split's images are there.

    Raises:
        AnnotationError: it is no folder.
    """
    given = text_of(content, "path", source)
    root = os.path.join(folder, given)
    if os.path.isdir(root):
        return root
    entries = content.get(_key_of(content, split) or split)
    entries = entries if isinstance(entries, list) else [entries]
    if all(isinstance(entry, str) and entry and os.path.exists(os.path.join(folder, entry)) for entry in entries):
        notes.add(f"`path` {shorten(given)} is no folder here, {folder} is taken", source)
        return folder
    raise AnnotationError(f"{source}: expected a folder, got {root}, which is none - at `path`; see `root`")


def _read_yaml(source: str) -> Content:
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


def names_of(content: Content, source: str) -> dict[int, str]:
    """Names of the classes by number, in the order of the numbers."""
    given = content.get("names")
    names = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(names, dict):
        raise AnnotationError(
            f"{source}: expected a list of classes, or names by number, got a {type(given).__name__} - at `names`"
        )
    if not names:
        raise AnnotationError(f"{source}: expected the names of the classes, got none - at `names`")
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
    count = text_of(content, "nc", source).strip()
    if count and count != str(len(name_of)):
        raise AnnotationError(
            f"{source}: expected as many classes as names, got {shorten(count)} and {len(name_of)} names - at `nc`"
        )
    return dict(sorted(name_of.items()))


def keypoints_of(content: Content, source: str, notes: Notes) -> tuple[Shape, Keypoints]:
    """How many keypoints there are, with the numbers of each, 2 or 3; and the keypoints of no box.

    Raises:
        AnnotationError: there are none, or `kpt_shape` or `flip_idx` is not what it should be.
    """
    try:
        count, size = map(int, content["kpt_shape"])
        if not 0 < count <= MAX_KEYPOINTS or size not in (2, 3):
            raise ValueError("another shape")
        names = _keypoint_names(content.get("kpt_names"), count, notes)
        flips = flips_of(names) if names else np.arange(count)
        if "flip_idx" in content:
            flips = np.array([int(place) for place in content["flip_idx"]], np.int64)
        elif not names and count > 1:
            notes.add("there is no flip_idx, so that no keypoints change places in mirrored images", "`kpt_shape`")
        return (count, size), Keypoints(np.zeros((0, count, 3), np.float32), names, flips)
    except (AnnotationError, KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise AnnotationError(
            f"{source}: expected `kpt_shape: [K, 2 or 3]`, and in `flip_idx` K numbers of keypoints that become each "
            f"other, got {shorten(str(content.get('kpt_shape')))} and {shorten(str(content.get('flip_idx')))}"
        ) from None


def _keypoint_names(given: Any, count: int, notes: Notes) -> tuple[str, ...]:
    """The names of keypoints, from a list or from equal lists of all classes; none if there are none."""
    lists = {tuple(map(str, names)) for names in (given.values() if isinstance(given, dict) else [given or ()])}
    names = next(iter(lists), ())
    if len(lists) < 2 and len(names) in (0, count):
        return names
    notes.add(f"names of keypoints are left out, since they are not {count} that all classes have", "`kpt_names`")
    return ()


def text_of(content: Content, key: str, source: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise AnnotationError(f"{source}: expected a text, got a {type(value).__name__} - at `{key}`")
    return value
