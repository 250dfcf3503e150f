"""Pascal VOC: a folder of XML files to Annotations."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypedDict
from xml.etree import ElementTree
from xml.parsers import expat

from detfeed.annotations import MAX_SIDE, Annotations, IgnoreReason
from detfeed.errors import AnnotationError, among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.folder_images import Images
from detfeed.readers.many_files import read_files
from detfeed.readers.notes import Notes
from detfeed.readers.paths import Near, is_image, path_inside, to_id, walk_files
from detfeed.readers.problems import OnProblem, tell_repeated
from detfeed.readers.rows import ImageRow, ObjectRow, Rows
from detfeed.readers.texts import MOST_OF_LIST, check_utf8, is_unknown, read_bytes, read_lines, to_number

_DEEPEST = 64  # levels of elements; VOC's files have 5
_FLAGS = {"true": True, "false": False}
# Folders of XML files and of images, VOC's own first.
ANNOTATIONS, IMAGES = ("Annotations", "annotations", "labels"), ("JPEGImages", "images", "data")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_COLUMN = re.compile(r"(.*\S)\s+(?:-1|0|1)")


class VocArguments(TypedDict, total=False):
    """The keywords of `read_voc`, which documents them."""

    annotation_dir: str | None
    image_dir: str | None
    class_names: tuple[str, ...] | None
    one_based: bool
    invalid: Invalid
    on_problem: OnProblem | None


class _VocFile(NamedTuple):
    """What an XML file holds.

    Attributes:
        labels: names of the classes of its objects.
        filename: the image that it names, or empty.
        objects: its objects.
        hw: height and width in pixels, None if it does not say.
        error: what is wrong with its objects or sizes, which are missing then.
    """

    labels: set[str]
    filename: str
    objects: Sequence[ObjectRow]
    hw: tuple[int, int] | None
    error: AnnotationError | None = None


def read_voc(
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    annotation_dir: str | None = None,
    image_dir: str | None = None,
    class_names: tuple[str, ...] | None = None,
    one_based: bool = True,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in Pascal VOC's layout, or any folder of such XML files with their images.

    XML files and images may lie in subfolders. `difficult` makes a box an ignore region; empty, `Unspecified`, `None`
    and `false` mean that it is not. Of an object only its own `bndbox` is read, not those of its parts. `difficult`,
    `truncated` and `size` may be missing; an element that stands twice with different contents is an error; where
    height or width is missing, empty or below 1, the image's header is read, with its EXIF orientation applied. The
    image id is the XML file's path below the folder of XML files, without its suffix. The image is the one that
    `filename` names, or else the one with the XML file's name; two different images are an error, since either may be
    meant. An image that is found in another folder only, or under a name that is written in another way, is taken if
    there is one such, with a warning. So are images without an XML file left out, if there is no split.

    Args:
        root: folder that holds the others, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, without ".txt"; a second column of -1, 0 or 1 is ignored. None: every
            XML file, in the order of their names.
        annotation_dir: folder of XML files below `root`. None: the first of Annotations, annotations and labels that
            there is, or else `root` itself.
        image_dir: folder of images below `root`. None: the first of JPEGImages, images and data that there is, or else
            `root` itself.
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
    folder, image_folder = voc_folder(root, annotation_dir, ANNOTATIONS), voc_folder(root, image_dir, IMAGES)
    notes = Notes()
    file_of = _files_by_id(folder)
    if not file_of and annotation_dir is None and os.path.basename(folder) != ANNOTATIONS[0]:
        raise AnnotationError(f"{root}: expected XML files in it or in Annotations, got none; see `annotation_dir`")
    rows = Rows(
        root if split is None else f"{root} ({split})",
        where="{file}, `object[{place}]/bndbox`",
        on_problem=on_problem,
        ignored_as=IgnoreReason.DIFFICULT,
    )
    if split is None:
        chosen = {image_id: os.path.join(folder, file_of[image_id]) for image_id in sorted(file_of)}
    else:
        chosen = _listed(root, split, folder, file_of, notes, rows.add_problem)
    images = Images(image_folder, file_of, notes)
    labels: set[str] = set()

    def to_image(image_id: str, read: Callable[[], _VocFile], file: str) -> ImageRow:
        found = read()
        labels.update(found.labels)
        image = images.of(file, image_id, found.filename)
        if found.error:
            raise found.error
        return ImageRow(os.path.join(image_folder, image), image_id, found.objects, found.hw)

    with read_files(partial(_read, class_names, one_based), list(chosen.values())) as reads:
        for (image_id, file), read in zip(chosen.items(), reads, strict=True):
            if not rows.add_file(file, partial(to_image, image_id, read)):
                images.leave_out(image_id)
    if split is None:
        images.note_left_over("an XML file")
    if class_names is None:
        others = [os.path.join(folder, file_of[image_id]) for image_id in sorted(set(file_of) - set(chosen))]
        class_names = tuple(sorted(labels | _other_labels(others, rows.add_problem)))
    rows.stop()
    notes.warn(rows.source)
    return rows.to_annotations(class_names, invalid=invalid)


def voc_folder(root: str, given: str | None, names: Sequence[str]) -> str:
    """The folder below the root that is given, or else the first that is there; without any, the root."""
    if given is None and os.path.isdir(root):
        folders = (os.path.join(root, name) for name in names)
        return next(filter(os.path.lexists, folders), root)
    return os.path.join(root, names[0] if given is None else given)


def _files_by_id(folder: str) -> dict[str, str]:
    """Paths of the XML files in a folder and below it, relative to it, by their paths without suffix."""
    file_of: dict[str, str] = {}
    for path in walk_files(folder, "a folder of XML files", "; see `annotation_dir`"):
        stem, suffix = os.path.splitext(path)
        if suffix.lower() == ".xml" and file_of.setdefault(stem, path) != path:
            raise AnnotationError(f"{folder}: expected one XML file of a name, got {file_of[stem]!r} and {path!r}")
    return file_of


def _listed(
    root: str, split: str, folder: str, file_of: dict[str, str], notes: Notes, on_problem: OnProblem
) -> dict[str, str]:
    """XML files of a split by image id, in the order of its list."""
    file = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
    if not os.path.lexists(file):
        raise _no_list(root, split, file)
    listed: dict[str, str] = {}
    seen: dict[str, tuple[str, str]] = {}
    near = Near(file_of)
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
            if image_id not in file_of:
                found = near.find(image_id) or near.find(os.path.splitext(image_id)[0] if is_image(image_id) else "")
                if len(found) == 1:
                    notes.add(
                        "the XML file is in another folder, or its name is written in another way",
                        f"{file}, line {line}: {shorten(image_id)} is {shorten(found[0])}",
                    )
                    image_id, xml_file = found[0], os.path.join(folder, file_of[found[0]])
            if not tell_repeated(seen, image_id, file, f"line {line}", on_problem):
                listed[image_id] = xml_file
    return listed


def _no_list(root: str, split: str, file: str) -> AnnotationError:
    lists = os.path.dirname(file)
    names = walk_files(lists, "a folder of lists") if os.path.isdir(lists) else []
    have = [stem for stem, suffix in map(os.path.splitext, names) if suffix == ".txt"]
    folder = os.path.join(root, split)
    hint = f"; the folder {folder} can be read itself, without a split" if os.path.isdir(folder) else ""
    return AnnotationError(f"{file}: expected a list of images, got no such file; there are {have}{hint}")


def _read(class_names: tuple[str, ...] | None, one_based: bool, file: str) -> _VocFile:
    tree = _parse(file)
    labels, filename = _labels(tree), (tree.findtext("filename") or "").strip()
    try:
        hw = _size(file, tree)
        _check_once(file, tree, "", ("filename", "size"))
        objects = [
            _object(file, item, place, class_names, one_based)
            for place, item in enumerate(tree.findall("object"), start=1)
        ]
    except AnnotationError as error:
        return _VocFile(labels, filename, (), None, error)
    return _VocFile(labels, filename, objects, hw)


def _labels(tree: ElementTree.Element) -> set[str]:
    """Names of the classes of a file's objects."""
    return {(item.findtext("name") or "").strip() for item in tree.findall("object")} - {""}


def _read_labels(file: str) -> set[str]:
    return _labels(_parse(file))


def _other_labels(xml_files: list[str], on_problem: OnProblem) -> set[str]:
    """Names of classes in XML files outside the split."""
    labels: set[str] = set()
    with read_files(_read_labels, xml_files) as reads:
        for xml_file, read in zip(xml_files, reads, strict=True):
            try:
                labels |= read()
            except AnnotationError as error:
                hint = "the file is outside the split and read for the names of classes; `class_names=` gives them"
                on_problem(xml_file, AnnotationError(f"{error}; {hint}"))
    return labels


def _object(
    file: str, item: ElementTree.Element, place: int, class_names: tuple[str, ...] | None, one_based: bool
) -> ObjectRow:
    where = f"object[{place}]"
    _check_once(file, item, f"{where}/", ("name", "bndbox", "difficult"))
    name = (item.findtext("name") or "").strip()
    if not name or (class_names is not None and name not in class_names):
        expected = "a name" if class_names is None else f"one of {among(class_names)}"
        raise AnnotationError(f"{file}: expected {expected}, got {shorten(name)} - at `{where}/name`")
    ignore = _flag(file, item, "difficult", where)
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
        if isinstance(error, expat.ExpatError) and b"encoding=" not in data[:100]:
            check_utf8(data, file, "XML")
        hint = "; save it as UTF-8" if "encoding" in str(error) else _around(data, parser.ErrorByteIndex)
        raise AnnotationError(f"{file}: expected XML, got a file that does not parse: {error}{hint}") from None
    tree = builder.close()
    if tree.tag != "annotation":
        raise AnnotationError(f"{file}: expected an element `annotation` around all others, got {shorten(tree.tag)}")
    return tree


def _around(data: bytes, at: int) -> str:
    """The text around a byte that is no XML, for a message, and what to write instead of a character that has to be."""
    near = data[max(0, at - 2) : at + 1]
    hint = next(
        (f"; write {right} for {sign}" for sign, right in (("&", "&amp;"), ("<", "&lt;")) if sign.encode() in near), ""
    )
    return f", in {data[max(0, at - 40) : at + 20].decode(errors='replace')!r}{hint}"


def _size(file: str, tree: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width in pixels; None if either is unknown, which tools write in many ways."""
    size = tree.find("size")
    if size is None:
        return None
    _check_once(file, size, "size/", ("width", "height"))
    height, width = (
        0 if is_unknown(size.findtext(side)) else _number(file, size, side, "size") for side in ("height", "width")
    )
    for side, pixels in (("height", height), ("width", width)):
        if pixels > MAX_SIDE:
            raise AnnotationError(f"{file}: expected at most {MAX_SIDE} pixels, got {pixels:g} - at `size/{side}`")
    return (int(height), int(width)) if min(height, width) >= 1 else None


def _flag(file: str, item: ElementTree.Element, name: str, where: str) -> bool:
    text = item.findtext(name)
    if is_unknown(text):
        return False
    known = _FLAGS.get((text or "").strip().lower())
    return _number(file, item, name, where) != 0 if known is None else known


def _box(file: str, item: ElementTree.Element, where: str, one_based: bool) -> tuple[float, float, float, float]:
    corners = item.find("bndbox")
    if corners is None:
        raise AnnotationError(f"{file}: expected a bndbox, got none - at `{where}`")
    _check_once(file, corners, f"{where}/bndbox/", _CORNERS)
    x0, y0, x1, y1 = (_number(file, corners, side, f"{where}/bndbox") for side in _CORNERS)
    return (x0 - 1, y0 - 1, x1, y1) if one_based else (x0, y0, x1, y1)


def _check_once(file: str, item: ElementTree.Element, where: str, tags: Sequence[str]) -> None:
    """Refuse elements of which there are two that differ: either may be meant."""
    found = [element.tag for element in item]
    for tag in tags:
        if found.count(tag) > 1 and len({tuple("".join(one.itertext()).split()) for one in item.findall(tag)}) > 1:
            raise AnnotationError(
                f"{file}: expected one `{tag}`, got {found.count(tag)} that differ - at `{where}{tag}[2]`; remove all "
                "but one, or give each an element of its own around it"
            )


def _number(file: str, item: ElementTree.Element, name: str, where: str) -> float:
    text = item.findtext(name)
    if text is None:
        raise AnnotationError(f"{file}: expected a number, got nothing - at `{where}/{name}`")
    try:
        return to_number(text)
    except ValueError as error:
        raise AnnotationError(f"{file}: {error} - at `{where}/{name}`") from None
