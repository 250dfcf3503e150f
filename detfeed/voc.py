"""Pascal VOC: a folder of XML files to Annotations."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from detfeed.annotations import Annotations
from detfeed.decoding import read_image
from detfeed.errors import AnnotationError


def read_voc(
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    annotation_dir: str = "Annotations",
    image_dir: str = "JPEGImages",
    class_names: tuple[str, ...] | None = None,
    one_based: bool = True,
) -> Annotations:
    """Read a data set in Pascal VOC's layout.

    `difficult` makes a box an ignore region. Only an object's own `bndbox` counts, not those of its parts. Missing
    `difficult`, `truncated` and `size` are fine: without a size the image is opened. The image id is the name of the
    XML file without its ending. The image is the one that `filename` names, or else the one named like the XML file.

    Args:
        root: folder that holds the others, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, without ".txt". None: every XML file, in order of names.
        annotation_dir, image_dir: folders of XML files and images below `root`.
        class_names: the classes in order; an object of another one is an error. None: all names in the folder of XML
            files, sorted, whatever the split, so that class ids are the same in all splits.
        one_based: the corners are VOC's, counted from 1 and inclusive, so that x0 = xmin - 1 and x1 = xmax. False:
            they are taken as edges.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and place.
    """
    root = Path(root)
    folder = root / annotation_dir
    image_ids = _image_ids(root, folder, split)
    if not (root / image_dir).is_dir():
        raise AnnotationError(f"{root / image_dir}: expected a folder of images, got none; see `image_dir`")
    files = set(os.listdir(root / image_dir))
    stems: dict[str, str] = {}
    for name in sorted(files, reverse=True):
        stems[Path(name).stem] = name

    paths, sizes, counts = [], [], []
    boxes: list[tuple[float, float, float, float]] = []
    names: list[str] = []
    ignore: list[bool] = []
    for image_id in image_ids:
        file = folder / f"{image_id}.xml"
        tree = _parse(file)
        named = (tree.findtext("filename") or "").strip()
        found = named if named in files else stems.get(image_id)
        if found is None:
            raise AnnotationError(
                f"{file}: expected an image {named!r} or {image_id!r}.* in {root / image_dir}, got none"
            )
        paths.append(str(root / image_dir / found))
        sizes.append(_size(file, tree) or read_image(paths[-1]).shape[:2])
        objects = tree.findall("object")
        counts.append(len(objects))
        for place, item in enumerate(objects, start=1):
            where = f"object[{place}]"
            label = (item.findtext("name") or "").strip()
            if not label or (class_names is not None and label not in class_names):
                expected = "a name" if class_names is None else f"one of {list(class_names)}"
                raise AnnotationError(f"{file}: expected {expected}, got {label!r} - at `{where}/name`")
            names.append(label)
            ignore.append(_number(file, item, "difficult", where, missing=0) != 0)
            boxes.append(_box(file, item, where, one_based))

    classes = _all_names(folder) if class_names is None else tuple(class_names)
    class_of = {label: row for row, label in enumerate(classes)}
    corners = np.array(boxes, np.float64).reshape(-1, 4).astype(np.float32)
    return Annotations(
        paths=tuple(paths),
        image_ids=np.array(image_ids, str),
        image_hw=np.array(sizes, np.int32).reshape(-1, 2),
        boxes=corners,
        class_ids=np.array([class_of[label] for label in names], np.int32),
        ignore=np.array(ignore, bool),
        areas=(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]),
        offsets=np.cumsum([0, *counts]).astype(np.int64),
        class_names=classes,
        category_ids=np.arange(1, len(classes) + 1),
        source=str(root) if split is None else f"{root} ({split})",
    )


def _image_ids(root: Path, folder: Path, split: str | None) -> list[str]:
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: expected a folder of XML files, got none; see `annotation_dir`")
    if split is None:
        return sorted(path.stem for path in folder.glob("*.xml"))
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = file.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{file}: expected a list of images in UTF-8, got {error}") from error
    except OSError as error:
        have = sorted(path.stem for path in file.parent.glob("*.txt"))
        raise AnnotationError(f"{file}: expected a list of images, got {error.strerror}; there are {have}") from error
    # A class's list has a second column, 1, 0 or -1; the first is the image in all of them.
    return [line.split()[0] for line in lines if line.strip()]


def _all_names(folder: Path) -> tuple[str, ...]:
    names = {item.findtext("name") or "" for file in folder.glob("*.xml") for item in _parse(file).findall("object")}
    return tuple(sorted({name.strip() for name in names} - {""}))


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except OSError as error:
        raise AnnotationError(f"{file}: expected an XML file, got {error.strerror}") from error
    except ElementTree.ParseError as error:
        raise AnnotationError(f"{file}: expected XML, got a file that does not parse: {error}") from error


def _size(file: Path, tree: ElementTree.Element) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    height, width = (_number(file, size, side, "size") for side in ("height", "width"))
    # Some tools write 0 0 when they did not know.
    return (int(height), int(width)) if height or width else None


def _box(file: Path, item: ElementTree.Element, where: str, one_based: bool) -> tuple[float, float, float, float]:
    corners = item.find("bndbox")
    if corners is None:
        raise AnnotationError(f"{file}: expected a bndbox, got none - at `{where}`")
    x0, y0, x1, y1 = (_number(file, corners, side, f"{where}/bndbox") for side in ("xmin", "ymin", "xmax", "ymax"))
    if not (np.isfinite([x0, y0, x1, y1]).all() and x0 <= x1 and y0 <= y1):
        raise AnnotationError(
            f"{file}: expected xmin <= xmax and ymin <= ymax, got {x0:g} {y0:g} {x1:g} {y1:g} - at `{where}/bndbox`"
        )
    return (x0 - 1, y0 - 1, x1, y1) if one_based else (x0, y0, x1, y1)


def _number(file: Path, item: ElementTree.Element, name: str, where: str, missing: float | None = None) -> float:
    text = item.findtext(name)
    if text is None and missing is not None:
        return missing
    try:
        return float(text or "")
    except ValueError:
        got = "nothing" if text is None else repr(text.strip())
        raise AnnotationError(f"{file}: expected a number, got {got} - at `{where}/{name}`") from None
