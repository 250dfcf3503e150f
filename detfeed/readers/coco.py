"""COCO: instances JSON files to Annotations and back."""

from __future__ import annotations

import codecs
import contextlib
import os
import posixpath
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypedDict, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import MAX_SIDE, Annotations
from detfeed.errors import AnnotationError, MissingImageError, among
from detfeed.images.files import is_url
from detfeed.masks import Runs
from detfeed.readers import coco_blocks as blocks
from detfeed.readers import texts
from detfeed.readers.coco_blocks import UNDECODED, BadMask, Box, Columns, Id, Number
from detfeed.readers.paths import path_inside, paths_inside
from detfeed.readers.table import Invalid, OnProblem, tell, to_annotations

_T = TypeVar("_T")

_MOST = 2**36  # bytes; ten times what any known file has
# What a federated table's columns are called in LVIS's files.
_LVIS_FIELDS = {"neg_classes": "neg_category_ids", "not_exhaustive_classes": "not_exhaustive_category_ids"}

_Name = Annotated[str, msgspec.Meta(max_length=4096)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


class Image(msgspec.Struct, gc=False):
    id: Id
    file_name: _Name
    height: _Side
    width: _Side


class _Category(msgspec.Struct, gc=False):
    id: Number
    name: _Name


class File(msgspec.Struct, gc=False):
    images: list[Image]
    annotations: list[Box]
    categories: list[_Category]


_F = TypeVar("_F", bound=File)


class CocoArguments(TypedDict, total=False):
    """The keywords of `read_coco`, which documents them."""

    invalid: Invalid
    on_problem: OnProblem | None


def read_coco(
    json: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    *,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a COCO instances file.

    Classes are numbered from 0 in the order of their category ids, which may have gaps. `iscrowd` and `ignore` make a
    box an ignore region, and the RLE masks of crowds are kept. Images without boxes are kept, in the order of the file.

    Args:
        json: the instances file.
        image_dir: folder, or URL of one, that its file names start from, and that they may not leave. Images are not
            opened.
        invalid: what to do about boxes that reach out of their image, have no area inside it, or repeat another;
            see `policies`.
        on_problem: told of annotations whose image is not in the file, which are then left out, and of images that have
            some whose category is not, which are left out with all of theirs (path of the file, error). None: the first
            such error is raised.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it. A
            `MissingImageError` for an annotation whose image is not in the file.
    """
    _, columns = read_columns(os.fspath(json), os.fspath(image_dir), File, "a COCO JSON file", on_problem)
    return to_annotations(**columns, invalid=invalid)


def read_columns(
    source: str, image_dir: str, form: type[_F], noun: str, on_problem: OnProblem | None
) -> tuple[_F, dict[str, Any]]:
    """A file's content without its annotations, and the arguments of `to_annotations`, but for `invalid`.

    Args:
        source: path of the file.
        image_dir: folder that its file names start from.
        form: the type to decode to.
        noun: what the file is expected to be.
        on_problem: see `read_coco`.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.
    """
    texts.open_file(source, noun, _MOST).close()
    with blocks.no_collections():
        try:
            with contextlib.suppress(*UNDECODED):  # cut at the wrong place, or wrong: all of it at once tells where
                read = blocks.read(source, form)
                if read is not None:
                    return read[0], _to_columns(*read, source, image_dir, on_problem)
            content = decode_json(source, form, noun)
            boxes, content.annotations = content.annotations, []
            return content, _to_columns(content, blocks.to_columns(boxes), source, image_dir, on_problem)
        except OSError as error:
            raise AnnotationError(f"{source}: expected {noun}, got {error.strerror or error}") from error
        except BadMask as error:
            raise AnnotationError(
                f"{source}: expected an RLE mask, got one that does not parse: {error} - at "
                f"`annotations[{error.row}].segmentation` (image_id {error.image_id!r})"
            ) from None


def _to_columns(
    content: File, columns: Columns, source: str, image_dir: str, on_problem: OnProblem | None
) -> dict[str, Any]:
    categories = sorted(content.categories, key=lambda category: category.id)
    category_ids = np.array([category.id for category in categories], np.int64)
    _check_once([category.id for category in content.categories], source, "category", "categories")
    images = content.images
    ids = [image.id for image in images]
    _check_once(ids, source, "image", "images")
    if len(set(map(type, ids))) > 1:
        kind = type(ids[0])
        place = next(place for place, one in enumerate(ids) if type(one) is not kind)
        raise AnnotationError(
            f"{source}: expected image ids that are all numbers or all texts, got {ids[0]!r} and {ids[place]!r} - at "
            f"`images[{place}].id`"
        )
    image_ids = np.array(ids, np.int64) if set(map(type, ids)) <= {int} else np.array(ids, str)
    image_hw = np.array([[image.height for image in images], [image.width for image in images]], np.int64).T
    positions = _rows_of(columns.image_ids, ids)
    class_ids = _rows_of(columns.category_ids, category_ids.tolist())
    sizes: Any = image_hw
    unknown = (positions < 0) | (class_ids < 0)
    if unknown.any():
        for error in _unknown_errors(columns, np.flatnonzero(unknown), positions, category_ids, source):
            tell(on_problem, source, error)
        sizes = image_hw.tolist()
        left_out = np.unique(positions[unknown & (positions >= 0)])
        for position in left_out.tolist():
            sizes[position] = None
        positions[np.isin(positions, left_out)] = -1
    _check_ids(columns, source)
    corners = columns.boxes
    with np.errstate(over="ignore"):  # infinite is one way to reach out of the image
        corners[:, 2:] += corners[:, :2]
    return {
        "paths": _paths(images, source, image_dir),
        "image_ids": image_ids,
        "image_hw": sizes,
        "boxes": corners,
        "positions": positions,
        "class_ids": class_ids.astype(np.int32),
        "ignore": columns.crowd | columns.ignore,
        "areas": columns.areas,
        "masks": _masks(columns, positions, image_hw, source),
        "class_names": [category.name for category in categories],
        "category_ids": category_ids,
        "source": source,
        "where": lambda row: f"`annotations[{row}].bbox` (image_id {ids[positions[row]]!r})",
    }


def _rows_of(wanted: NDArray[Any], ids: list[Any]) -> NDArray[np.int64]:
    """Where each of N wanted ids stands among ids, int64 (N,); -1 if it does not."""
    if wanted.dtype == object or not set(map(type, ids)) <= {int} or not ids:
        row_of = {one: row for row, one in enumerate(ids)}
        return np.array([row_of.get(one, -1) for one in wanted.tolist()], np.int64)
    known = np.array(ids, np.int64)
    low, high = known.min(), known.max()
    if int(high) - int(low) < 16 * len(known):
        # As COCO's, which have gaps of four in the mean: no search is needed.
        table = np.full(high - low + 1, -1)
        table[known - low] = np.arange(len(known))
        return np.where((wanted >= low) & (wanted <= high), table[np.clip(wanted, low, high) - low], -1)
    order = np.argsort(known)
    known = known[order]
    places = np.minimum(np.searchsorted(known, wanted), len(ids) - 1)
    return np.where(known[places] == wanted, order[places], -1)


def _unknown_errors(
    columns: Columns,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    source: str,
) -> Iterator[AnnotationError]:
    """An error for each image that rows of unknown images or categories are of, in the order of the first of them."""
    rows_of: dict[int | str, list[int]] = {}
    for row, image_id in zip(rows.tolist(), columns.image_ids[rows].tolist(), strict=True):
        rows_of.setdefault(image_id, []).append(row)
    known = among(category_ids.tolist())
    for first, *others in rows_of.values():
        where = f"at {_place(columns, first)}{f', the first of {len(others) + 1}' if others else ''}"
        if positions[first] < 0:
            yield MissingImageError(f"{source}: expected the image_id of an image in the file, got none such - {where}")
        else:
            got = columns.category_ids[first]
            yield AnnotationError(f"{source}: expected a category_id among {known}, got {got} - {where}")


def _place(columns: Columns, row: int, field: str = "") -> str:
    return f"`annotations[{row}]{field}` (image_id {columns.image_ids[row : row + 1].tolist()[0]!r})"


def _check_once(ids: Sequence[int | str], source: str, noun: str, field: str) -> None:
    """Raise an error about the first id that stands before."""
    if len(set(ids)) == len(ids):
        return
    first: dict[int | str, int] = {}
    place = next(place for place, one in enumerate(ids) if first.setdefault(one, place) != place)
    raise AnnotationError(
        f"{source}: expected each {noun} id once, got {ids[place]!r} again - at `{field}[{place}].id`, first at "
        f"`{field}[{first[ids[place]]}].id`"
    )


def _check_ids(columns: Columns, source: str) -> None:
    """Raise an error about the first annotation whose id stands before."""
    if columns.ids.dtype == np.int64:
        ordered = np.sort(columns.ids)
        if not (ordered[1:] == ordered[:-1]).any():
            return
    seen: set[int | str] = set()
    for row, one in enumerate(columns.ids.tolist()):
        if one in seen:
            raise AnnotationError(
                f"{source}: expected each annotation id once, got {one!r} again - at {_place(columns, row)}"
            )
        if one is not None:
            seen.add(one)


def _masks(columns: Columns, positions: NDArray[np.int64], image_hw: NDArray[np.int64], source: str) -> dict[int, Runs]:
    """The masks by row, checked against the sizes of their images, which are at `positions` by row (-1: of none)."""
    of = positions[columns.mask_rows]
    with_image = np.flatnonzero(of >= 0)
    image_hw = image_hw[of[with_image]]
    sizes, pixels = columns.mask_sizes[with_image], columns.mask_pixels[with_image]
    wrong = (sizes != image_hw).any(axis=1) | (pixels != image_hw.prod(axis=1))
    if wrong.any():
        k = int(wrong.argmax())
        row = int(columns.mask_rows[with_image[k]])
        raise AnnotationError(
            f"{source}: expected an RLE mask of the image's height and width {tuple(image_hw[k].tolist())}, got size "
            f"{tuple(sizes[k].tolist())} and {pixels[k]} pixels - at "
            f"{_place(columns, row, '.segmentation')}"
        )
    ends = np.cumsum(columns.mask_counts)
    starts = (ends - columns.mask_counts).tolist()
    return {
        row: columns.runs[start:end]
        for row, start, end in zip(columns.mask_rows.tolist(), starts, ends.tolist(), strict=True)
    }


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


def write_coco(
    annotations: Annotations, path: str | os.PathLike[str], image_dir: str | os.PathLike[str] | None = None
) -> str:
    """Write a COCO instances file, from which `read_coco` makes the same table again.

    Ignored boxes with a mask are written as crowds, other ignored ones with `ignore`, masks as uncompressed RLE.
    A federated table gets LVIS's fields, for `read_lvis`. Corners and areas are written exactly. What a table does not
    hold is not written: polygons, keypoints, captions, info, licenses, supercategories, the ids of annotations.

    Args:
        annotations: the table. It comes back with its classes in the order of their category ids.
        path: the file; one that exists is replaced, once the new one is whole.
        image_dir: folder, or URL of one, that the images' `file_name` are to start from. None: the one that holds all
            of them.

    Returns:
        The image folder, for `read_coco`.

    Raises:
        ValueError: an image outside `image_dir`, images at URLs of different kinds, or a category id that stands twice.
        OSError: the file can't be written.
    """
    table = annotations
    if len(set(table.category_ids.tolist())) < len(table.category_ids):
        raise ValueError(f"Expected each category id once. Received: {table.category_ids.tolist()}")
    image_dir = _common_folder(table.paths) if image_dir is None else os.fspath(image_dir)
    ids = table.image_ids.tolist()
    images: list[dict[str, Any]] = []
    for name, image_id, (height, width) in zip(table.paths, ids, table.image_hw.tolist(), strict=True):
        images.append({"id": image_id, "file_name": _name_in(image_dir, name), "height": height, "width": width})
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
    _replace(os.fspath(path), msgspec.json.encode(content))
    return image_dir


def _common_folder(paths: Sequence[str]) -> str:
    """The folder, or URL of one, that holds all images; raises ValueError if there is none."""
    if not any(map(is_url, paths)):
        return os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    kinds = {path.partition("://")[0] if is_url(path) else "" for path in paths}
    if len(kinds) > 1:
        raise ValueError(f"Expected all images at paths or all at URLs of one kind. Received: {sorted(kinds)}")
    (kind,) = kinds
    # Not os.path, which takes the two slashes for one.
    return f"{kind}://{posixpath.commonpath([posixpath.dirname(path.partition('://')[2]) for path in paths])}"


def _name_in(folder: str, path: str) -> str:
    """An image's path from its folder on; raises ValueError if it is not below it."""
    if is_url(folder) or is_url(path):
        start = folder if folder.endswith("/") else f"{folder}/"
        name = path.removeprefix(start)
        inside = path.startswith(start) and not name.startswith("/") and ".." not in name.split("/")
    else:
        name = os.path.relpath(path, folder or None)
        inside = name.split(os.sep)[0] != ".."
    if not inside:
        raise ValueError(f"Expected images in the folder {folder!r}. Received: {path}")
    return name


def _replace(path: str, data: bytes) -> None:
    """Write a file that is the old one until it is whole."""
    path = os.path.realpath(path)  # or a link would be replaced instead of what it leads to
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or device, which is to stay one
        with open(path, "wb") as file:
            file.write(data)
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def decode_json(source: str, form: type[_T], noun: str) -> _T:
    """A JSON file's content as msgspec decodes it.

    Args:
        source: path of the file.
        form: the type to decode to.
        noun: what the file is expected to be.

    Raises:
        AnnotationError: the file is missing, no JSON, or of another form; the message names the place in it.
    """
    return _decode(texts.read_bytes(source, noun, _MOST), source, form, noun)


def _decode(data: bytes, source: str, form: type[_T], noun: str) -> _T:
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    try:
        return msgspec.json.decode(data, type=form)
    except msgspec.ValidationError as error:
        raise AnnotationError(f"{source}: {_explain(error, data)}") from None
    except RecursionError:
        raise AnnotationError(f"{source}: expected {noun}, got JSON that is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        texts.check_utf8(data, source, noun)
        raise AnnotationError(
            f"{source}: expected JSON, got a file that does not parse: {error}{_surroundings(str(error), data)}"
        ) from None


def _surroundings(message: str, data: bytes) -> str:
    """What stands at the byte that msgspec's message names."""
    found = re.search(r"\(byte (\d+)\)", message)
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
