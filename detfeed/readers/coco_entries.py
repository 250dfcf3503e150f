"""Entries: the forms of what COCO files list, and the reading of lists one by one where msgspec refuses a whole one.

Tools write harmless values of other types, such as null for "no crowd". They are mended here, and what can't be is a
fault, so that one bad entry costs no other.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import msgspec

from detfeed.annotations import MAX_SIDE
from detfeed.readers.json_files import explain

# Numbers fit numpy's int64. Texts are short, so that one of them can't make a column of gigabytes.
Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Id = Number | Annotated[str, msgspec.Meta(max_length=255)]
_Name = Annotated[str, msgspec.Meta(max_length=4096)]
_Side = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIDE)]  # 0: not known

UNDECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What a fault costs: the entry alone, its image with all annotations, or the mask of the entry.
ENTRY, IMAGE, MASK = range(3)


# Only the fields named in these are decoded; the parser skips all others, polygons above all.
class Box(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Number
    bbox: tuple[float, float, float, float]
    id: Id | None = None
    area: float | None = None
    segmentation: msgspec.Raw = msgspec.Raw()  # decoded for crowds only
    iscrowd: int = 0
    ignore: int = 0


class KeypointBox(Box, gc=False):
    keypoints: msgspec.Raw = msgspec.Raw()


class ImageEntry(msgspec.Struct, gc=False):
    id: Id
    file_name: _Name
    height: _Side = 0
    width: _Side = 0


class Category(msgspec.Struct, gc=False):
    id: Number
    name: _Name
    keypoints: msgspec.Raw = msgspec.Raw()  # decoded if keypoints are read
    flip_idx: msgspec.Raw = msgspec.Raw()  # likewise; not of COCO's, but as in YOLO's files


class CocoFile(msgspec.Struct, gc=False):
    images: list[ImageEntry]
    annotations: list[Box]
    categories: list[Category]


class KeypointFile(CocoFile, gc=False):
    annotations: list[KeypointBox]  # type: ignore[assignment]


class _RawFile(msgspec.Struct, gc=False):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


class Fault(NamedTuple):
    """An entry that can't be read.

    Attributes:
        row: of the entry in its list.
        message: what is wrong, with the place in the file.
        effect: ENTRY, IMAGE or MASK.
        id: the image's id; None if it can't be read either.
    """

    row: int
    message: str
    effect: int
    id: int | str | None = None


class Entries(NamedTuple):
    """The entries of a list that can be read, the row of each in the list, and the faults of the others."""

    entries: list[Any]
    rows: Sequence[int]
    faults: list[Fault]


class Content(NamedTuple):
    """What a file has beside annotations; and these where they were decoded with it."""

    images: Entries
    categories: Entries
    annotations: Entries


# By list, the keys that say what an entry is. (Licenses have names, too.)
_ONCE = {
    "annotations": ("image_id", "category_id", "bbox"),
    "images": ("id", "file_name"),
    "categories": (),
}

_S = TypeVar("_S", bound=msgspec.Struct)
_Mend = Callable[[Any], Any]


def decode_content(data: bytes | bytearray, form: type[CocoFile]) -> Content:
    """Decode a file.

    Raises:
        One of `UNDECODED`: it is no such file, apart from single entries.
    """
    try:
        content = msgspec.json.decode(data, type=form)
        if data.count(b'"file_name"') > len(content.images):
            raise msgspec.ValidationError("a key of an image may stand twice")
        return Content(*(Entries(one, range(len(one)), []) for one in (
            content.images, content.categories, content.annotations
        )))  # fmt: skip
    except msgspec.ValidationError:
        raw = msgspec.json.decode(data, type=_RawFile)
        image, box = (
            get_args(next(field.type for field in msgspec.structs.fields(form) if field.name == name))[0]
            for name in ("images", "annotations")
        )
        return Content(
            images=decode_entries(raw.images, image, "images"),
            categories=decode_entries(raw.categories, Category, "categories"),
            annotations=decode_entries(raw.annotations, box, "annotations"),
        )


def may_repeat_keys(data: bytes | bytearray | memoryview, num_boxes: int) -> bool:
    """Whether a key of an annotation may stand twice in a JSON list of so many, of which msgspec takes the last value.

    The count takes a third of the time of reading the annotations.
    """
    data = bytes(data)
    return any(data.count(b'"%s"' % key.encode()) > num_boxes for key in _ONCE["annotations"])


def decode_entries(raws: Sequence[msgspec.Raw], form: type[msgspec.Struct], field: str) -> Entries:
    """Decode the entries of a list one by one; those of other types are mended where it is clear what they mean.

    A key that stands twice with different values is a fault, if it is one that makes an entry another one.

    Args:
        raws: the entries.
        form: what to decode them to.
        field: name of the list in the file.
    """
    decoder = msgspec.json.Decoder(form)
    entries, rows, faults = [], [], []
    for row, raw in enumerate(raws):
        try:
            if repeated := _repeated_key(bytes(raw), _ONCE[field]):
                raise msgspec.ValidationError(f"expected one `{repeated}`, got several - at `$`")
            try:
                entries.append(decoder.decode(raw))
            except msgspec.ValidationError:
                entries.append(_mend(raw, form))
            rows.append(row)
        except UNDECODED as error:
            faults.append(_fault(error, raw, row, field))
    return Entries(entries, rows, faults)


def _repeated_key(raw: bytes, keys: Sequence[str]) -> str | None:
    """The first of some keys of an object that stands twice with different values."""
    if all(raw.count(b'"%s"' % key.encode()) < 2 for key in keys):
        return None
    repeated = None

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # at inner objects first
        nonlocal repeated
        found = dict(pairs)
        twice = () if len(found) == len(pairs) else pairs
        repeated = next((key for key, value in twice if key in keys and value != found[key]), None)
        return found

    value = json.loads(raw, object_pairs_hook=look)
    return repeated if isinstance(value, dict) else None


def _mend(raw: msgspec.Raw, form: type[_S]) -> _S:
    loose = msgspec.json.decode(raw, type=_loose(form))
    values: dict[str, Any] = {}
    for name, mend in _MENDERS[field_of(form)].items():
        value = getattr(loose, name, msgspec.UNSET)
        if value is not msgspec.UNSET:
            values[name] = mend(value)
    for name in ("segmentation", "keypoints", "flip_idx"):
        if getattr(loose, name, None):
            values[name] = getattr(loose, name)
    return msgspec.json.decode(msgspec.json.encode(values), type=form)


@functools.cache
def _loose(form: type[msgspec.Struct]) -> Any:
    """The form with values of any type."""
    fields = [
        (one.name, msgspec.Raw, msgspec.Raw()) if one.type is msgspec.Raw else (one.name, Any, msgspec.UNSET)
        for one in msgspec.structs.fields(form)
    ]
    return msgspec.defstruct("Loose", fields)


def field_of(form: type[msgspec.Struct]) -> str:
    """The field of a file that lists entries of a form."""
    return "images" if issubclass(form, ImageEntry) else "categories" if issubclass(form, Category) else "annotations"


def _fault(error: Exception, raw: msgspec.Raw, row: int, field: str) -> Fault:
    """The fault of an entry; that of an annotation costs its image, unless no more than its place is wrong."""
    try:
        value = msgspec.json.decode(raw)
    except (*UNDECODED, ValueError):
        value = _loads(raw)
    message = re.sub(r'"(NaN|-?Infinity)"', r"\1", explain(error, value, f"{field}[{row}]"))
    where = str(error)
    named = value.get("image_id" if field == "annotations" else "id") if isinstance(value, dict) else None
    try:
        image_id = msgspec.convert(whole(named), Id)
    except msgspec.ValidationError:
        image_id = None
    alone = image_id is None or "`bbox`" in where or "$.bbox" in where
    return Fault(row, message, ENTRY if alone else IMAGE, image_id)


def _loads(raw: msgspec.Raw) -> Any:
    """An entry with numbers that no float holds, such as 1e999, as texts; None if it can't be decoded at all."""
    try:
        return json.loads(bytes(raw), parse_float=str)
    except (ValueError, RecursionError):
        return None


def whole(value: Any) -> Any:
    """A whole number that is written as a float, such as 1.0, as int; else the value itself."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_int(value: Any) -> Any:
    """A whole number that is written as a float or a text as int; else the value itself."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}(\.0*)?\s*", value):
        return int(value.partition(".")[0])
    return whole(value)


def _to_float(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", value):
        return float(value) if math.isfinite(float(value)) else value
    return value


_NOTHING = ("", "none", "null", "false", "unspecified", "nan")


def _to_flag(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
        return 0
    if isinstance(value, bool | float) or (isinstance(value, str) and value.strip().lower() == "true"):
        return int(bool(value))
    return to_int(value)


def _to_side(value: Any) -> Any:
    """A side in pixels; 0, for one that is not known, of what tools write for that."""
    if value is None or value is False or (isinstance(value, str) and value.strip().lower() in _NOTHING):
        return 0
    value = to_int(value)
    return 0 if isinstance(value, int | float) and value <= 0 else value


def _to_box(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (*UNDECODED, ValueError):
            return value
    return list(map(_to_float, value)) if isinstance(value, list) else value


def _to_area(value: Any) -> Any:
    value = _to_float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _to_own_id(value: Any) -> Any:
    """The id of an annotation, which nothing else names; None for what can't be one."""
    return whole(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _to_ints(value: Any) -> Any:
    return [] if value is None else list(map(to_int, value)) if isinstance(value, list) else value


def _to_name(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _same(value: Any) -> Any:
    return value


# By list and field: what makes a value of the right type of one of another.
_MENDERS: Mapping[str, Mapping[str, _Mend]] = {
    "annotations": {
        "image_id": whole,
        "category_id": to_int,
        "bbox": _to_box,
        "id": _to_own_id,
        "area": _to_area,
        "iscrowd": _to_flag,
        "ignore": _to_flag,
    },
    "images": {
        "id": whole,
        "file_name": _same,
        "coco_url": _same,
        "height": _to_side,
        "width": _to_side,
        "neg_category_ids": _to_ints,
        "not_exhaustive_category_ids": _to_ints,
    },
    "categories": {"id": to_int, "name": _to_name},
}

_NOT_JSON = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b')


def quote_nan(data: bytes) -> bytes:
    """JSON of which NaN and Infinity, which Python writes and JSON does not know, are texts."""

    def quote(found: re.Match[bytes]) -> bytes:
        text = found[0]
        return text if text.startswith(b'"') else b'"%s"' % text

    return _NOT_JSON.sub(quote, data) if b"NaN" in data or b"Infinity" in data else data
