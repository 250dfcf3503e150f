"""COCO: instances JSON files to Annotations and back."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.masks import Runs, parse_runs
from detfeed.paths import path_inside, paths_inside
from detfeed.policies import MAX_SIDE, Invalid, to_annotations

_T = TypeVar("_T")

# What a federated table's columns are called in LVIS's files.
_LVIS_FIELDS = {"neg_classes": "neg_category_ids", "not_exhaustive_classes": "not_exhaustive_category_ids"}

# Bytes of annotations that are objects at a time: all of COCO's at once would take as much memory as its file.
_BLOCK = 2**23
# Where an array of objects may be cut, and where it ends if it is a value of the outermost object.
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_END = re.compile(rb'\}\s*\]\s*(?:,\s*"|\}\s*\Z)')
_BEGIN = re.compile(rb'"annotations"\s*:\s*\[')
_STAND_IN = b'{"image_id": 0, "category_id": 0, "bbox": [0, 0, 0, 0], "id": "stands for all annotations"}'

# Only the fields named here are decoded; the parser skips all others, polygons above all.
# What numpy's int64 holds, and names short enough that one of them can't make a column of gigabytes.
_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Id = _Number | Annotated[str, msgspec.Meta(max_length=255)]
_Name = Annotated[str, msgspec.Meta(max_length=4096)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


class Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: _Name
    height: _Side
    width: _Side


class _Box(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Number
    bbox: tuple[float, float, float, float]
    id: _Id | None = None
    area: float | None = None
    segmentation: msgspec.Raw = msgspec.Raw()  # looked into for crowds only
    iscrowd: int = 0
    ignore: int = 0


class _Rle(msgspec.Struct, gc=False):
    counts: str | list[int]
    size: tuple[int, int]


class _Category(msgspec.Struct, gc=False):
    id: _Number
    name: _Name


class File(msgspec.Struct, gc=False):
    images: list[Image]
    annotations: list[_Box]
    categories: list[_Category]


_F = TypeVar("_F", bound=File)
_Parts = Callable[[], Iterable[list[_Box]]]  # annotations in the order of the file
_DECODER = msgspec.json.Decoder(list[_Box])
_UNDECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_coco(
    json: str | os.PathLike[str], image_dir: str | os.PathLike[str], *, invalid: Invalid = "clip"
) -> Annotations:
    """Read a COCO instances file.

    Classes are numbered from 0 in the order of their category ids, which may have gaps. `iscrowd` and `ignore` make a
    box an ignore region, and the RLE masks of crowds are kept. Images without boxes are kept, in the order of the file.

    Args:
        json: the instances file.
        image_dir: folder that its file names start from, and that they may not leave. Images are not opened.
        invalid: what to do about boxes that reach out of their image, have no area inside it, or repeat another;
            see `policies`.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.
    """
    _, columns = read_columns(os.fspath(json), os.fspath(image_dir), File, "a COCO JSON file")
    return to_annotations(**columns, invalid=invalid)


def read_columns(source: str, image_dir: str, form: type[_F], noun: str) -> tuple[_F, dict[str, Any]]:
    """A file's content without its annotations, and the arguments of `to_annotations`, but for `invalid`.

    Args:
        source: path of the file.
        image_dir: folder that its file names start from.
        form: the type to decode to.
        noun: what the file is expected to be.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.
    """
    data = _read_bytes(source, noun)
    with _no_collections():
        cut = _cut(data, form)
        if cut is not None:
            content, parts = cut
            try:
                return content, _to_columns(content, parts, source, image_dir)
            except _UNDECODED:
                pass  # it was cut at the wrong place, or it is wrong: all of it at once tells, and where
        content = _decode(data, source, form, noun)
        del data
        boxes, content.annotations = content.annotations, []
        return content, _to_columns(content, lambda: [boxes], source, image_dir)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector from what is decoded, of which nothing is garbage: 7 % of the time of reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _cut(data: bytes, form: type[_F]) -> tuple[_F, _Parts] | None:
    """A file's content without its annotations, and a function that decodes these block by block.

    A guess where they begin and end, and where one ends, is right if what is between is JSON, and the rest is JSON in
    which something that stands for them comes out as they would: no other reading of the bytes is possible then.

    Returns:
        None if the rest is not so. Decoding raises one of `_UNDECODED` if what is between is not so.
    """
    begin = _BEGIN.search(data)
    end = begin and _END.search(data, max(begin.end(), len(data) - _BLOCK))
    if not begin or not end:
        return None
    start, stop = begin.end(), end.start() + 1
    try:
        content = msgspec.json.decode(b"".join((data[:start], _STAND_IN, data[stop:])), type=form)
    except _UNDECODED:
        return None
    if content.annotations != [msgspec.json.decode(_STAND_IN, type=_Box)]:
        return None
    content.annotations = []

    def parts() -> Iterator[list[_Box]]:
        at = start
        while at < stop:
            gap = _BETWEEN.search(data, at + _BLOCK, stop)
            block = memoryview(data)[at : gap.start() + 1 if gap else stop]
            yield _DECODER.decode(b"".join((b"[", block, b"]")))
            at = gap.end() - 1 if gap else stop

    return content, parts


def _to_columns(content: File, parts: _Parts, source: str, image_dir: str) -> dict[str, Any]:
    categories = sorted(content.categories, key=lambda category: category.id)
    class_of = {category.id: row for row, category in enumerate(categories)}
    if len(class_of) != len(categories):
        raise AnnotationError(f"{source}: expected each category id once, got {[c.id for c in categories]}")
    position_of = {image.id: position for position, image in enumerate(content.images)}
    if len(position_of) != len(content.images):
        for place, image in enumerate(content.images):
            if position_of[image.id] != place:
                raise AnnotationError(
                    f"{source}: expected each image id once, got {image.id!r} again - at "
                    f"`images[{position_of[image.id]}].id`, first at `images[{place}].id`"
                )
    images = content.images
    ids = [image.id for image in images]
    image_ids = np.array(ids, np.int64) if set(map(type, ids)) <= {int} else np.array(ids, str)
    boxes = _read_boxes(content, parts, source, position_of, class_of)
    return {
        "paths": _paths(images, source, image_dir),
        "image_ids": image_ids,
        "image_hw": np.array([[image.height for image in images], [image.width for image in images]], np.int64).T,
        **boxes,
        "class_names": [category.name for category in categories],
        "category_ids": np.array([category.id for category in categories], np.int64),
        "source": source,
        "where": lambda row: f"`annotations[{row}].bbox` (image_id {ids[boxes['positions'][row]]!r})",
    }


def _read_boxes(
    content: File, parts: _Parts, source: str, position_of: dict[int | str, int], class_of: dict[int, int]
) -> dict[str, Any]:
    """The columns of boxes, in the order of the file."""
    columns: dict[str, list[NDArray[Any]]] = {
        name: [np.empty(0, dtype)]
        for name, dtype in (
            ("boxes", float),
            ("positions", int),
            ("class_ids", np.int32),
            ("ignore", bool),
            ("areas", float),
        )
    }
    masks: dict[int, Runs] = {}
    numbers, names = array("q"), list[str]()  # ids
    start = 0
    for part in parts():
        try:
            positions = [position_of[box.image_id] for box in part]
            class_ids = [class_of[box.category_id] for box in part]
        except KeyError:
            raise _reference_error(part, start, source, position_of, class_of) from None
        crowd = np.array([bool(box.iscrowd) for box in part], bool)
        flat = itertools.chain.from_iterable([box.bbox for box in part])
        columns["boxes"].append(np.fromiter(flat, np.float64, 4 * len(part)))
        columns["positions"].append(np.array(positions, np.int64))
        columns["class_ids"].append(np.array(class_ids, np.int32))
        columns["ignore"].append(crowd | np.array([bool(box.ignore) for box in part], bool))
        columns["areas"].append(np.array([box.area for box in part], np.float64))  # None becomes NaN
        for place in np.flatnonzero(crowd).tolist():
            box = part[place]
            if bytes(box.segmentation).startswith(b"{"):
                where = f"at `annotations[{start + place}].segmentation` (image_id {box.image_id!r})"
                masks[start + place] = _read_mask(box.segmentation, content.images[positions[place]], source, where)
        ids = [box.id for box in part]
        try:
            numbers.extend(array("q", ids))  # type: ignore[arg-type]
        except TypeError:
            numbers.extend(i for i in ids if isinstance(i, int))
            names.extend(i for i in ids if isinstance(i, str))
        start += len(part)
    ordered = np.sort(np.frombuffer(numbers, np.int64)) if numbers else np.empty(0, np.int64)
    if (ordered[1:] == ordered[:-1]).any() or len(set(names)) < len(names):
        raise _repeated_id_error(parts, source)
    joined = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    boxes = joined["boxes"].reshape(-1, 4)
    with np.errstate(over="ignore"):  # infinite is one way to reach out of the image
        boxes[:, 2:] += boxes[:, :2]
    return {**joined, "boxes": boxes, "masks": masks}


def _paths(images: Sequence[Image], source: str, image_dir: str) -> list[str]:
    names = [image.file_name for image in images]
    try:
        return paths_inside(image_dir, names)
    except ValueError:
        for place, name in enumerate(names):
            try:
                path_inside(image_dir, name)
            except ValueError as error:
                raise AnnotationError(f"{source}: {error} - at `images[{place}].file_name`") from None
        raise


def _reference_error(
    part: list[_Box], start: int, source: str, position_of: dict[int | str, int], class_of: dict[int, int]
) -> AnnotationError:
    """About the first annotation of an image or a category that is not in the file."""
    place, box = next(
        (place, box)
        for place, box in enumerate(part, start)
        if box.image_id not in position_of or box.category_id not in class_of
    )
    problem = f"a category_id among {sorted(class_of)}, got {box.category_id}"
    if box.image_id not in position_of:
        problem = "the image_id of an image in the file, got none such"
    return AnnotationError(f"{source}: expected {problem} - at `annotations[{place}]` (image_id {box.image_id!r})")


def _repeated_id_error(parts: _Parts, source: str) -> AnnotationError:
    """About the first annotation whose id stands before."""
    seen: set[int | str] = set()
    place = 0
    boxes = itertools.chain.from_iterable(parts())
    while (box := next(boxes)).id is None or box.id not in seen:
        if box.id is not None:
            seen.add(box.id)
        place += 1
    return AnnotationError(
        f"{source}: expected each annotation id once, got {box.id!r} again - at `annotations[{place}]` "
        f"(image_id {box.image_id!r})"
    )


def _read_mask(segmentation: msgspec.Raw, image: Image, source: str, where: str) -> Runs:
    try:
        rle = msgspec.json.decode(segmentation, type=_Rle)
        runs = parse_runs(rle.counts)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise AnnotationError(
            f"{source}: expected an RLE mask, got one that does not parse: {error} - {where}"
        ) from None
    if rle.size != (image.height, image.width) or runs.sum(dtype=np.int64) != image.height * image.width:
        raise AnnotationError(
            f"{source}: expected an RLE mask of the image's height and width {image.height, image.width}, got "
            f"size {rle.size} and {runs.sum(dtype=np.int64)} pixels - {where}"
        )
    return runs


def write_coco(
    annotations: Annotations, path: str | os.PathLike[str], image_dir: str | os.PathLike[str] | None = None
) -> str:
    """Write a COCO instances file, from which `read_coco` makes the same table again.

    Ignored boxes with a mask are written as crowds, other ignored ones with `ignore`, masks as uncompressed RLE.
    A federated table gets LVIS's fields, for `read_lvis`. Corners and areas are written exactly.

    Args:
        annotations: the table. It comes back with its classes in the order of their category ids.
        path: the file; one that exists is written over.
        image_dir: folder that the images' `file_name` are to start from. None: the one that holds all of them.

    Returns:
        The image folder, for `read_coco`.

    Raises:
        ValueError: an image outside `image_dir`, or a category id that stands twice.
        OSError: the file can't be written.
    """
    table = annotations
    if len(set(table.category_ids.tolist())) < len(table.category_ids):
        raise ValueError(f"Expected each category id once. Received: {table.category_ids.tolist()}")
    if image_dir is None:
        image_dir = os.path.commonpath([os.path.dirname(name) for name in table.paths]) if table.paths else ""
    image_dir = os.fspath(image_dir)
    ids = table.image_ids.tolist()
    images: list[dict[str, Any]] = []
    for name, image_id, (height, width) in zip(table.paths, ids, table.image_hw.tolist(), strict=True):
        file_name = os.path.relpath(name, image_dir or None)
        if file_name.split(os.sep)[0] == "..":
            raise ValueError(f"Expected images in the folder {image_dir!r}. Received: {name}")
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
    for column, field in _LVIS_FIELDS.items():
        pairs = getattr(table, column)
        if pairs is not None:
            for image in images:
                image[field] = []
            for position, class_id in pairs.tolist():
                images[position][field].append(int(table.category_ids[class_id]))

    boxes = table.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    positions = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    category_ids = table.category_ids[table.class_ids]
    rows = zip(
        positions.tolist(),
        category_ids.tolist(),
        boxes.tolist(),
        table.areas.tolist(),
        table.ignore.tolist(),
        strict=True,
    )
    objects = []
    for row, (position, category_id, bbox, area, ignore) in enumerate(rows):
        item: dict[str, Any] = {
            "id": row + 1,
            "image_id": ids[position],
            "category_id": category_id,
            "bbox": bbox,
            "area": area,
            "iscrowd": int(ignore and row in table.masks),
        }
        if ignore and row not in table.masks:
            item["ignore"] = 1
        if row in table.masks:
            item["segmentation"] = {"counts": table.masks[row].tolist(), "size": table.image_hw[position].tolist()}
        objects.append(item)
    categories = [
        {"id": category_id, "name": name}
        for category_id, name in zip(table.category_ids.tolist(), table.class_names, strict=True)
    ]
    content = {"images": images, "annotations": objects, "categories": categories}
    with open(path, "wb") as file:
        file.write(msgspec.json.encode(content))
    return image_dir


def decode_json(source: str, form: type[_T], noun: str) -> _T:
    """A JSON file's content as msgspec decodes it.

    Args:
        source: path of the file.
        form: the type to decode to.
        noun: what the file is expected to be.

    Raises:
        AnnotationError: the file is missing, no JSON, or of another form; the message names the place in it.
    """
    return _decode(_read_bytes(source, noun), source, form, noun)


def _read_bytes(source: str, noun: str) -> bytes:
    try:
        with open(source, "rb") as file:
            return file.read()
    except OSError as error:
        raise AnnotationError(f"{source}: expected {noun}, got {error.strerror or error}") from error


def _decode(data: bytes, source: str, form: type[_T], noun: str) -> _T:
    try:
        return msgspec.json.decode(data, type=form)
    except msgspec.ValidationError as error:
        raise AnnotationError(f"{source}: {_explain(error, data)}") from None
    except RecursionError:
        raise AnnotationError(f"{source}: expected {noun}, got JSON that is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise AnnotationError(
            f"{source}: expected JSON, got a file that does not parse: {error}{_surroundings(str(error), data)}"
        ) from None


def _surroundings(message: str, data: bytes) -> str:
    """What stands at the byte that msgspec's message names."""
    found = re.search(r"byte (\d+)", message)
    if not found:
        return ""
    byte = int(found[1])
    text = data[max(0, byte - 40) : byte + 20].decode(errors="replace")
    line = data.count(b"\n", 0, byte) + 1
    hint = "; JSON knows no NaN and no Infinity" if data[byte : byte + 3] in (b"NaN", b"Inf") else ""
    return f", in {text!r} - at line {line}{hint}"


def _explain(error: msgspec.ValidationError, data: bytes) -> str:
    """msgspec's message with the value it stumbled on and, for an annotation, the image it belongs to."""
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`")
    owner = ""
    try:
        value: Any = msgspec.json.decode(data)
        for key in re.findall(r"\[(\d+)\]|\.(\w+)", path):
            value = value[int(key[0])] if key[0] else value[key[1]]
            if isinstance(value, dict) and "image_id" in value:
                owner = f" (image_id {value['image_id']!r:.80})"
        got = msgspec.json.encode(value).decode()
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError, LookupError, TypeError):
        return str(error)  # what follows is broken as well, or a key that stands twice leads elsewhere
    got = got if len(got) <= 80 else got[:77] + "..."
    # The value says more than msgspec's "Expected `int`, got `str`".
    expected = message.partition(", got ")[0]
    verdict = f"e{expected[1:]}, got {got}" if expected.startswith("Expected") else f"{message} in {got}"
    hint = (
        "; a list is a results file, which read_proposals reads"
        if message == "Expected `object`, got `array`" and not path
        else ""
    )
    return f"{verdict} - at `{path.lstrip('.') or 'top level'}`{owner}{hint}"
