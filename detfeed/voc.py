"""Pascal VOC: a folder of XML files to Annotations."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.headers import read_header
from detfeed.paths import path_inside, shorten
from detfeed.policies import MAX_SIDE, Invalid, to_annotations
from detfeed.texts import read_text, to_number

_DEEPEST = 64  # elements in each other; VOC's have 5


def read_voc(
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    annotation_dir: str = "Annotations",
    image_dir: str = "JPEGImages",
    class_names: tuple[str, ...] | None = None,
    one_based: bool = True,
    invalid: Invalid = "clip",
) -> Annotations:
    """Read a data set in Pascal VOC's layout.

    `difficult` makes a box an ignore region. Only an object's own `bndbox` counts, not those of its parts. Missing
    `difficult`, `truncated` and `size` are fine: without a size the image's header is read, and turned as EXIF says.
    The image id is the name of the XML file without its ending. The image is the one that `filename` names, or else the
    one named like the XML file.

    Args:
        root: folder that holds the others, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, without ".txt". None: every XML file, in order of names.
        annotation_dir, image_dir: folders of XML files and images below `root`.
        class_names: the classes in order; an object of another one is an error. None: all names in the folder of XML
            files, sorted, whatever the split, so that class ids are the same in all splits.
        one_based: the corners are VOC's, counted from 1 and inclusive, so that x0 = xmin - 1 and x1 = xmax. False:
            they are taken as edges.
        invalid: what to do about boxes that reach out of their image, have no area inside it, or repeat another;
            see `policies`.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and place.
        ImageError: an image whose size is to be read from it is of an unknown format.
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

    paths, sizes, positions, places = [], [], [], []
    boxes: list[tuple[float, float, float, float]] = []
    names: list[str] = []
    ignore: list[bool] = []
    xml_files = [_xml_file(folder, image_id) for image_id in image_ids]
    for position, (image_id, file) in enumerate(zip(image_ids, xml_files, strict=True)):
        tree = _parse(file)
        named = (tree.findtext("filename") or "").strip()
        found = named if named in files else stems.get(image_id)
        if found is None:
            raise AnnotationError(
                f"{file}: expected an image {shorten(named)} or {image_id!r}.* in {root / image_dir}, got none"
            )
        paths.append(str(root / image_dir / found))
        sizes.append(_size(file, tree) or read_header(paths[-1]).oriented_hw)
        for place, item in enumerate(tree.findall("object"), start=1):
            where = f"object[{place}]"
            label = (item.findtext("name") or "").strip()
            if not label or (class_names is not None and label not in class_names):
                expected = "a name" if class_names is None else f"one of {list(class_names)}"
                raise AnnotationError(f"{file}: expected {expected}, got {shorten(label)} - at `{where}/name`")
            names.append(label)
            positions.append(position)
            places.append(place)
            ignore.append(_number(file, item, "difficult", where, missing=0) != 0)
            boxes.append(_box(file, item, where, one_based))

    if class_names is None:
        class_names = tuple(sorted(set(names))) if split is None else _all_names(folder)
    class_of = {label: row for row, label in enumerate(class_names)}
    return to_annotations(
        paths=paths,
        image_ids=np.array(image_ids, str),
        image_hw=sizes,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions, np.int64),
        class_ids=np.array([class_of[label] for label in names], np.int32),
        ignore=np.array(ignore, bool),
        class_names=class_names,
        category_ids=np.arange(1, len(class_names) + 1),
        source=str(root) if split is None else f"{root} ({split})",
        invalid=invalid,
        where=lambda row: f"{xml_files[positions[row]]}, `object[{places[row]}]/bndbox`",
    )


def _image_ids(root: Path, folder: Path, split: str | None) -> list[str]:
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: expected a folder of XML files, got none; see `annotation_dir`")
    if split is None:
        return sorted(path.stem for path in folder.glob("*.xml"))
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        have = sorted(path.stem for path in file.parent.glob("*.txt"))
        raise AnnotationError(f"{file}: expected a list of images, got no such file; there are {have}")
    lines = read_text(file, "a list of images").splitlines()
    # A class's list has a second column, 1, 0 or -1; the first is the image in all of them.
    return [line.split()[0] for line in lines if line.strip()]


def _all_names(folder: Path) -> tuple[str, ...]:
    names = {item.findtext("name") or "" for file in folder.glob("*.xml") for item in _parse(file).findall("object")}
    return tuple(sorted({name.strip() for name in names} - {""}))


def _xml_file(folder: Path, image_id: str) -> Path:
    try:
        return Path(path_inside(str(folder), f"{image_id}.xml"))
    except ValueError as error:
        raise AnnotationError(f"{folder}: {error} - in the list of images") from None


def _parse(file: Path) -> ElementTree.Element:
    """The root of an XML file, which may declare no document type: entities can be made to grow without end."""
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"elements are nested more than {_DEEPEST} deep: line {parser.CurrentLineNumber}")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise ValueError(f"a document type is declared, which may hold entities: line {parser.CurrentLineNumber}")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except OSError as error:
        raise AnnotationError(f"{file}: expected an XML file, got {error.strerror}") from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two for encodings that it does not know
        raise AnnotationError(f"{file}: expected XML, got a file that does not parse: {error}") from None
    return builder.close()


def _size(file: Path, tree: ElementTree.Element) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    height, width = (_number(file, size, side, "size") for side in ("height", "width"))
    # Some tools write 0 0 when they did not know.
    if height == width == 0:
        return None
    for side, pixels in (("height", height), ("width", width)):
        if not 1 <= pixels <= MAX_SIDE:
            raise AnnotationError(f"{file}: expected 1 to {MAX_SIDE} pixels, got {pixels:g} - at `size/{side}`")
    return int(height), int(width)


def _box(file: Path, item: ElementTree.Element, where: str, one_based: bool) -> tuple[float, float, float, float]:
    corners = item.find("bndbox")
    if corners is None:
        raise AnnotationError(f"{file}: expected a bndbox, got none - at `{where}`")
    x0, y0, x1, y1 = (_number(file, corners, side, f"{where}/bndbox") for side in ("xmin", "ymin", "xmax", "ymax"))
    return (x0 - 1, y0 - 1, x1, y1) if one_based else (x0, y0, x1, y1)


def _number(file: Path, item: ElementTree.Element, name: str, where: str, missing: float | None = None) -> float:
    text = item.findtext(name)
    if text is None and missing is not None:
        return missing
    if text is None:
        raise AnnotationError(f"{file}: expected a number, got nothing - at `{where}/{name}`")
    return to_number(text, str(file), f"{where}/{name}")
