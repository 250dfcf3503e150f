"""Pascal VOC: a folder of XML files to Annotations."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TypedDict
from xml.etree import ElementTree
from xml.parsers import expat

from detfeed.annotations import MAX_SIDE, Annotations
from detfeed.errors import AnnotationError, MissingImageError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.paths import image_of, images_by_stem, list_folder, path_inside, to_id
from detfeed.readers.problems import OnProblem, tell, tell_repeated
from detfeed.readers.rows import ImageRow, ObjectRow, Rows
from detfeed.readers.texts import MOST_OF_LIST, read_bytes, read_lines, to_number

_DEEPEST = 64  # levels of elements; VOC's files have 5
_COLUMN = re.compile(r"(.*\S)\s+(?:-1|0|1)")


class VocArguments(TypedDict, total=False):
    """The keywords of `read_voc`, which documents them."""

    annotation_dir: str
    image_dir: str
    class_names: tuple[str, ...] | None
    one_based: bool
    invalid: Invalid
    on_problem: OnProblem | None


def read_voc(
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    annotation_dir: str = "Annotations",
    image_dir: str = "JPEGImages",
    class_names: tuple[str, ...] | None = None,
    one_based: bool = True,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in Pascal VOC's layout.

    `difficult` makes a box an ignore region. Of an object only its own `bndbox` is read, not those of its parts.
    `difficult`, `truncated` and `size` may be missing; without a size the image's header is read, with its EXIF
    orientation applied. The image id is the XML file's name without its suffix. The image is the one that `filename`
    names, or else the one with the XML file's name; two different images are an error, since either may be meant.

    Args:
        root: folder that holds the others, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, without ".txt"; a second column of -1, 0 or 1 is ignored. None: every
            XML file, in the order of their names.
        annotation_dir, image_dir: folders of XML files and images below `root`.
        class_names: the classes in order; an object of another class is an error. None: all names in the folder of XML
            files, sorted, whatever the split, so that class ids are the same in all splits.
        one_based: the corners are VOC's, counted from 1 and inclusive, so that x0 = xmin - 1 and x1 = xmax. False:
            the corners are edges.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each XML file and image that can't be read; the image is left out.
            Also called for XML files outside the split, which are read for the names of classes. None: the error is
            raised.

    Raises:
        AnnotationError: a file is missing or not what it should be; the message names file and place.
        ImageError: an image whose size is read from its header is of an unknown format.
    """
    root = os.fspath(root)
    folder, image_folder = os.path.join(root, annotation_dir), os.path.join(root, image_dir)
    file_of = _files_by_id(folder)
    if split is None:
        chosen = {image_id: os.path.join(folder, file_of[image_id]) for image_id in sorted(file_of)}
    else:
        chosen = _listed(root, split, folder, file_of, on_problem)
    names = list_folder(image_folder, "a folder of images", "; see `image_dir`")
    files, images = set(names), images_by_stem(names)
    labels: set[str] = set()

    def read_image(image_id: str, file: str) -> ImageRow:
        tree = _parse(file)
        labels.update(_labels(tree))
        image = _image(file, tree, image_id, files, images, image_folder)
        hw = _size(file, tree)
        objects = [
            _object(file, item, place, class_names, one_based)
            for place, item in enumerate(tree.findall("object"), start=1)
        ]
        return ImageRow(os.path.join(image_folder, image), image_id, objects, hw)

    rows = Rows(
        root if split is None else f"{root} ({split})",
        where="{file}, `object[{place}]/bndbox`",
        on_problem=on_problem,
    )
    for image_id, file in chosen.items():
        rows.add_file(file, partial(read_image, image_id))
    if class_names is None:
        others = [os.path.join(folder, file_of[image_id]) for image_id in sorted(set(file_of) - set(chosen))]
        class_names = tuple(sorted(labels | _other_labels(others, on_problem)))
    return rows.to_annotations(class_names, invalid=invalid)


def _files_by_id(folder: str) -> dict[str, str]:
    """Names of the XML files in a folder, by their names without suffix."""
    file_of: dict[str, str] = {}
    for name in list_folder(folder, "a folder of XML files", "; see `annotation_dir`"):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() == ".xml" and file_of.setdefault(stem, name) != name:
            raise AnnotationError(f"{folder}: expected one XML file of a name, got {file_of[stem]!r} and {name!r}")
    return file_of


def _listed(
    root: str, split: str, folder: str, file_of: dict[str, str], on_problem: OnProblem | None
) -> dict[str, str]:
    """XML files of a split by image id, in the order of its list."""
    lists = os.path.join(root, "ImageSets", "Main")
    file = os.path.join(lists, f"{split}.txt")
    if not os.path.lexists(file):
        names = list_folder(lists, "a folder of lists") if os.path.isdir(lists) else []
        have = [stem for stem, suffix in map(os.path.splitext, names) if suffix == ".txt"]
        raise AnnotationError(f"{file}: expected a list of images, got no such file; there are {have}")
    listed: dict[str, str] = {}
    seen: dict[str, tuple[str, str]] = {}
    for line, text in enumerate(read_lines(file, "a list of images", MOST_OF_LIST), start=1):
        name = text.strip()
        # A class's list has a second column; a name that ends in " 1" is one only if there is such a file.
        column = _COLUMN.fullmatch(name)
        if column and name not in file_of:
            name = column[1]
        if name:
            try:
                image_id = to_id(name)
                xml_file = path_inside(folder, file_of.get(image_id, f"{image_id}.xml"))
            except ValueError as error:
                raise AnnotationError(f"{file}: {error} - at line {line}") from None
            if not tell_repeated(seen, image_id, file, f"line {line}", on_problem):
                listed[image_id] = xml_file
    return listed


def _labels(tree: ElementTree.Element) -> set[str]:
    """Names of the classes of a file's objects."""
    return {(item.findtext("name") or "").strip() for item in tree.findall("object")} - {""}


def _other_labels(xml_files: list[str], on_problem: OnProblem | None) -> set[str]:
    """Names of classes in XML files outside the split."""
    labels: set[str] = set()
    for xml_file in xml_files:
        try:
            labels |= _labels(_parse(xml_file))
        except AnnotationError as error:
            problem = AnnotationError(
                f"{error}; the file is outside the split and read for the names of classes; `class_names=` gives them"
            )
            tell(on_problem, xml_file, problem)
    return labels


def _image(
    file: str, tree: ElementTree.Element, image_id: str, names: set[str], images: dict[str, list[str]], folder: str
) -> str:
    """Name of the image that an XML file belongs to: of the `names` in a folder, or its `images` by stem."""
    named = (tree.findtext("filename") or "").strip()
    own = images.get(image_id, [])
    if named in names and own and named not in own:
        raise AnnotationError(
            f"{file}: expected one image, got {shorten(named)} by its `filename` and {own[0]!r} by its own name, which "
            f"are both in {folder}; correct or remove `filename`, or rename the file"
        )
    found = named if named in names else image_of(file, image_id, images, folder)
    if found is None:
        raise MissingImageError(f"{file}: expected an image {shorten(named)} or {image_id!r}.* in {folder}, got none")
    return found


def _object(
    file: str, item: ElementTree.Element, place: int, class_names: tuple[str, ...] | None, one_based: bool
) -> ObjectRow:
    where = f"object[{place}]"
    name = (item.findtext("name") or "").strip()
    if not name or (class_names is not None and name not in class_names):
        expected = "a name" if class_names is None else f"one of {among(class_names)}"
        raise AnnotationError(f"{file}: expected {expected}, got {shorten(name)} - at `{where}/name`")
    ignore = _number(file, item, "difficult", where, missing=0) != 0
    return ObjectRow(name, _box(file, item, where, one_based), place, ignore)


def _parse(file: str) -> ElementTree.Element:
    """The root element of an XML file.

    A document type is refused, since its entities can grow without end. So are other formats and prefixes, since both
    would look like an image without objects.
    """
    data = read_bytes(file, "an XML file")
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"elements are nested more than {_DEEPEST} deep: line {parser.CurrentLineNumber}")
        if ":" in tag:
            raise ValueError(f"{shorten(tag)} has a prefix; remove it: line {parser.CurrentLineNumber}")
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
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two for unknown encodings
        raise AnnotationError(f"{file}: expected XML, got a file that does not parse: {error}") from None
    tree = builder.close()
    if tree.tag != "annotation":
        raise AnnotationError(f"{file}: expected an element `annotation` around all others, got {shorten(tree.tag)}")
    return tree


def _size(file: str, tree: ElementTree.Element) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    height, width = (_number(file, size, side, "size") for side in ("height", "width"))
    # Some tools write 0 0 for an unknown size.
    if height == width == 0:
        return None
    for side, pixels in (("height", height), ("width", width)):
        if not 1 <= pixels <= MAX_SIDE:
            raise AnnotationError(f"{file}: expected 1 to {MAX_SIDE} pixels, got {pixels:g} - at `size/{side}`")
    return int(height), int(width)


def _box(file: str, item: ElementTree.Element, where: str, one_based: bool) -> tuple[float, float, float, float]:
    corners = item.find("bndbox")
    if corners is None:
        raise AnnotationError(f"{file}: expected a bndbox, got none - at `{where}`")
    x0, y0, x1, y1 = (_number(file, corners, side, f"{where}/bndbox") for side in ("xmin", "ymin", "xmax", "ymax"))
    return (x0 - 1, y0 - 1, x1, y1) if one_based else (x0, y0, x1, y1)


def _number(file: str, item: ElementTree.Element, name: str, where: str, missing: float | None = None) -> float:
    text = item.findtext(name)
    if text is None and missing is not None:
        return missing
    if text is None:
        raise AnnotationError(f"{file}: expected a number, got nothing - at `{where}/{name}`")
    try:
        return to_number(text)
    except ValueError as error:
        raise AnnotationError(f"{file}: {error} - at `{where}/{name}`") from None
