"""COCO: instances JSON files to Annotations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypedDict, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import MAX_SIDE, Annotations
from detfeed.errors import AnnotationError, MissingImageError, among
from detfeed.masks import Runs
from detfeed.readers import coco_blocks as blocks
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.coco_blocks import UNDECODED, BadMask, Box, Columns, Id, Number
from detfeed.readers.draft import Draft
from detfeed.readers.json_files import MOST_OF_JSON, decode_json
from detfeed.readers.paths import path_inside, paths_inside
from detfeed.readers.problems import OnProblem, tell
from detfeed.readers.table import to_annotations
from detfeed.readers.texts import open_file

_Name = Annotated[str, msgspec.Meta(max_length=4096)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


# These hold the only fields that are decoded; msgspec skips all others.
class ImageEntry(msgspec.Struct, gc=False):
    id: Id
    file_name: _Name
    height: _Side
    width: _Side


class _Category(msgspec.Struct, gc=False):
    id: Number
    name: _Name


class CocoFile(msgspec.Struct, gc=False):
    images: list[ImageEntry]
    annotations: list[Box]
    categories: list[_Category]


_F = TypeVar("_F", bound=CocoFile)


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
    box an ignore region; the RLE masks of crowds are kept. Images without boxes are kept. Images are in the order of
    the file.

    Args:
        json: the instances file.
        image_dir: folder of the images, or its URL, to which `file_name` is relative and which it may not leave. Images
            are not opened.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path of the file, error) for annotations whose image is not in the file, which are left
            out, and for images with annotations whose category is not in the file, which are left out with all of
            their annotations. None: the first such error is raised.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it. A
            `MissingImageError` for an annotation whose image is not in the file.
    """
    _, draft = read_draft(os.fspath(json), os.fspath(image_dir), CocoFile, "a COCO JSON file", on_problem)
    return to_annotations(draft, invalid=invalid)


def read_draft(
    source: str, image_dir: str, form: type[_F], noun: str, on_problem: OnProblem | None
) -> tuple[_F, Draft]:
    """Read a file of COCO's form.

    Args:
        source: path of the file.
        image_dir: folder of the images.
        form: the type to decode to.
        noun: what the file is expected to be.
        on_problem: see `read_coco`.

    Returns:
        The file's content without its annotations, and the draft of its table.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.
    """
    open_file(source, noun, MOST_OF_JSON).close()
    with blocks.no_collections():
        try:
            content, columns = _read(source, form, noun)
            return content, _to_draft(content, columns, source, image_dir, on_problem)
        except OSError as error:
            raise AnnotationError(f"{source}: expected {noun}, got {error.strerror or error}") from error
        except BadMask as error:
            raise AnnotationError(
                f"{source}: expected an RLE mask, got one that does not parse: {error} - at "
                f"`annotations[{error.row}].segmentation` (image_id {error.image_id!r})"
            ) from None


def _read(source: str, form: type[_F], noun: str) -> tuple[_F, Columns]:
    """A file's content without its annotations, and these as columns."""
    # If the file is broken, or cut into blocks at the wrong places, decoding all of it tells which, with an address.
    with contextlib.suppress(*UNDECODED):
        read = blocks.read(source, form)
        if read is not None:
            return read
    content = decode_json(source, form, noun)
    boxes, content.annotations = content.annotations, []
    return content, blocks.to_columns(boxes)


def _to_draft(content: CocoFile, columns: Columns, source: str, image_dir: str, on_problem: OnProblem | None) -> Draft:
    categories = sorted(content.categories, key=lambda category: category.id)
    category_ids = np.array([category.id for category in categories], np.int64)
    _check_once([category.id for category in content.categories], source, "category", "categories")
    images = content.images
    ids = [image.id for image in images]
    _check_once(ids, source, "image", "images")
    _check_one_type(ids, source)
    image_hw = np.array([[image.height for image in images], [image.width for image in images]], np.int64).T
    positions = _rows_of(columns.image_ids, ids)
    class_ids = _rows_of(columns.category_ids, category_ids.tolist())
    left_out: list[int] = []
    unknown = (positions < 0) | (class_ids < 0)
    if unknown.any():
        for error in _unknown_errors(columns, np.flatnonzero(unknown), positions, category_ids, source):
            tell(on_problem, source, error)
        left_out = np.unique(positions[unknown & (positions >= 0)]).tolist()
        positions[np.isin(positions, left_out)] = -1
    _check_ids(columns, source)
    corners = columns.boxes
    with np.errstate(over="ignore"):  # an infinite corner lies outside its image, like others
        corners[:, 2:] += corners[:, :2]
    return Draft(
        source=source,
        paths=_paths(images, source, image_dir),
        image_ids=np.array(ids, np.int64 if set(map(type, ids)) <= {int} else str),
        image_hw=image_hw,
        boxes=corners,
        positions=positions,
        class_ids=class_ids.astype(np.int32),
        ignore=columns.crowd | columns.ignore,
        class_names=[category.name for category in categories],
        category_ids=category_ids,
        where=lambda row: f"`annotations[{row}].bbox` (image_id {ids[positions[row]]!r})",
        areas=columns.areas,
        masks=_masks(columns, positions, image_hw, source),
        left_out=left_out,
    )


def _rows_of(wanted: NDArray[Any], ids: list[Any]) -> NDArray[np.int64]:
    """The place of each of N wanted ids among ids, int64 (N,); -1: it is not among them."""
    if wanted.dtype == object or not set(map(type, ids)) <= {int} or not ids:
        row_of = {one: row for row, one in enumerate(ids)}
        return np.array([row_of.get(one, -1) for one in wanted.tolist()], np.int64)
    known = np.array(ids, np.int64)
    low, high = known.min(), known.max()
    if int(high) - int(low) < 16 * len(known):
        # The ids lie close to each other, COCO's with gaps of four in the mean: look them up instead of searching.
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
    """One error for each image id among rows whose image or category is unknown, in the order of the rows."""
    rows_of: dict[int | str, list[int]] = {}
    for row, image_id in zip(rows.tolist(), columns.image_ids[rows].tolist(), strict=True):
        rows_of.setdefault(image_id, []).append(row)
    known = among(category_ids.tolist())
    for image_id, (first, *others) in rows_of.items():
        where = f"at {_place(columns, first)}{f', the first of {len(others) + 1}' if others else ''}"
        if positions[first] < 0:
            yield MissingImageError(
                f"{source}: expected the image_id of an image in the file, got {image_id!r} - {where}"
            )
        else:
            got = columns.category_ids[first]
            yield AnnotationError(f"{source}: expected a category_id among {known}, got {got} - {where}")


def _place(columns: Columns, row: int, field: str = "") -> str:
    return f"`annotations[{row}]{field}` (image_id {columns.image_ids[row : row + 1].tolist()[0]!r})"


def _check_once(ids: Sequence[int | str], source: str, noun: str, field: str) -> None:
    """Raise an error about the first id that repeats an earlier one."""
    if len(set(ids)) == len(ids):
        return
    first: dict[int | str, int] = {}
    place = next(place for place, one in enumerate(ids) if first.setdefault(one, place) != place)
    raise AnnotationError(
        f"{source}: expected each {noun} id once, got {ids[place]!r} again - at `{field}[{place}].id`, first at "
        f"`{field}[{first[ids[place]]}].id`"
    )


def _check_ids(columns: Columns, source: str) -> None:
    """Raise an error about the first annotation whose id repeats an earlier one."""
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


def _check_one_type(ids: Sequence[int | str], source: str) -> None:
    if len(set(map(type, ids))) > 1:
        kind = type(ids[0])
        place = next(place for place, one in enumerate(ids) if type(one) is not kind)
        raise AnnotationError(
            f"{source}: expected image ids that are all numbers or all texts, got {ids[0]!r} and {ids[place]!r} - at "
            f"`images[{place}].id`"
        )


def _masks(columns: Columns, positions: NDArray[np.int64], image_hw: NDArray[np.int64], source: str) -> dict[int, Runs]:
    """The masks by row, checked against the sizes of their images; `positions` has each row's image, or -1."""
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


def _paths(images: Sequence[ImageEntry], source: str, image_dir: str) -> list[str]:
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
