"""COCO: instances JSON files to Annotations."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Literal, TypedDict, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.errors import AnnotationError, EntryError, MissingImageError, among, shorten
from detfeed.images.decoding import Exif
from detfeed.keypoints import MAX_KEYPOINTS, Keypoints, flips_of
from detfeed.mask_columns import MaskColumns
from detfeed.readers import coco_blocks as blocks
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.coco_blocks import Columns
from detfeed.readers.coco_entries import (
    IMAGE,
    MASK,
    UNDECODED,
    Category,
    CocoFile,
    Content,
    Entries,
    KeypointFile,
    Number,
    decode_content,
    quote_nan,
)
from detfeed.readers.coco_images import Images, fill_sizes, find_images, number_in, turn_sizes
from detfeed.readers.draft import Draft
from detfeed.readers.ignored_classes import warn_of_ignored
from detfeed.readers.json_files import MOST_OF_JSON, decode_by
from detfeed.readers.notes import Notes
from detfeed.readers.problems import OnProblem, Problems
from detfeed.readers.table import to_annotations
from detfeed.readers.texts import open_file

Crowds = Literal["ignore", "object"]


class CocoArguments(TypedDict, total=False):
    """The keywords of `read_coco`, which documents them."""

    masks: bool
    keypoints: bool
    crowds: Crowds
    exif: Exif
    invalid: Invalid
    on_problem: OnProblem | None


def read_coco(
    json: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    *,
    masks: bool = False,
    keypoints: bool = False,
    crowds: Crowds = "ignore",
    exif: Exif = "auto",
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    r"""Read a COCO instances file.

    Classes are numbered from 0 in the order of their category ids, which may have gaps. `iscrowd` and `ignore` make a
    box an ignore region; the RLE masks of crowds are kept. Images without boxes are kept. Images are in the order of
    the file. A height or width that is missing, null, empty or below 1 is read from the image's header, with its EXIF
    orientation applied; no other image is opened.

    Values of another type are read where it is clear what they mean, such as the category id "1". A warning tells of
    image ids that are texts in annotations and numbers in images, or the reverse, of annotation ids that repeat, and of
    images found under a name that is written in another way: "\" for "/", in other folders, in another case,
    percent-encoded, or with accents composed otherwise. Of more than 2000 images, those with usual names are looked for
    in that way only if one of 2000 is missing.

    Args:
        json: the instances file.
        image_dir: folder of the images, or its URL, to which `file_name` is relative and which it may not leave.
        masks: read the masks of all objects, polygons and RLE, for target functions such as `MaskTargets`. False: those
            of crowds alone. COCO's training set takes 0.2 GB more with all.
        keypoints: read the objects' keypoints, whose names and number are those of the categories, and the same for all
            categories that have some. Those with left and right in their names change places in a mirrored image, or
            those that `flip_idx` of the categories says, which `write_coco` writes. Half a pixel is added to x and y,
            since COCO's are numbers of pixels. Those outside of their image are not visible.
        crowds: "ignore" makes `iscrowd` an ignore region. "object" takes crowds as objects, without their masks unless
            `masks` asks for them: CVAT writes `iscrowd` for all objects that are drawn as masks. With "ignore", a
            warning names the classes that have more ignored boxes than objects.
        exif: where an image's EXIF orientation turns it by a quarter and its annotated size is the stored one, the size
            does not tell whether boxes lie on the stored or on the turned picture. "auto": on the turned one if a box
            fits only that, with a warning, else on the stored one. "apply": on the turned one; the headers of all
            images are read. "ignore": on the stored one.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path of the file or image, error) for each entry that can't be read. An annotation
            whose image is not in the file, or whose `bbox` can't be read, is left out (`MissingImageError`,
            `EntryError`); of a mask that can't be read, the mask (`EntryError`). Any other annotation that
            can't be read, such as one whose category is not in the file, leaves out its image with all of its
            annotations. None: the first such error is raised, and tells how many more there are.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it. A
            `MissingImageError` for an annotation whose image is not in the file.
        ImageError: the header of an image whose size the file does not give can't be read.
        ValueError: unknown `crowds`, `exif` or `invalid`.
    """
    problems = Problems(on_problem)
    source, image_dir = os.fspath(json), os.fspath(image_dir)
    _, draft = read_draft(
        source,
        image_dir,
        KeypointFile if keypoints else CocoFile,
        "a COCO JSON file",
        problems,
        masks=masks,
        crowds=crowds,
        exif=exif,
    )
    problems.stop()
    table = to_annotations(draft, invalid=invalid)
    if crowds == "ignore":
        warn_of_ignored(table)
    return table


def read_draft(
    source: str,
    image_dir: str,
    form: type[CocoFile],
    noun: str,
    problems: Problems,
    *,
    masks: bool,
    crowds: Crowds,
    exif: Exif,
) -> tuple[Images, Draft]:
    """Read a file of COCO's form.

    Args:
        source: path of the file.
        image_dir: folder of the images.
        form: the type to decode to.
        noun: what the file is expected to be.
        problems: gets the errors of entries that can't be read.
        masks, crowds, exif: see `read_coco`.

    Returns:
        The file's images, and the draft of its table.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.
    """
    for name, value, known in (("crowds", crowds, get_args(Crowds)), ("exif", exif, get_args(Exif))):
        if value not in known:
            raise ValueError(f"Expected {name} to be one of {known}. Received: {value!r}")
    open_file(source, noun, MOST_OF_JSON).close()
    with blocks.no_collections():
        try:
            content, columns = _read(source, form, noun, masks)
        except OSError as error:
            raise AnnotationError(f"{source}: expected {noun}, got {error.strerror or error}") from error
        notes = Notes()
        images = find_images(content.images, source, image_dir, problems, notes)
        draft = _to_draft(images, _categories(content.categories, source, problems), columns, source, problems, notes)
        draft = _settle(draft, images, columns, problems, notes, masks=masks, crowds=crowds, exif=exif)
        if issubclass(form, KeypointFile):
            categories = content.categories.entries
            draft = dataclasses.replace(draft, keypoints=_keypoints(columns, categories, draft, problems))
        notes.warn(source)
        return images, draft


def _read(source: str, form: type[CocoFile], noun: str, masks: bool) -> tuple[Content, Columns]:
    """A file's content, and its annotations as columns."""
    # If the file is broken, or cut into blocks at the wrong places, decoding all of it tells which, with an address.
    with contextlib.suppress(*UNDECODED):
        read = blocks.read(source, form, all_masks=masks, keypoints=issubclass(form, KeypointFile))
        if read is not None:
            return read
    content = decode_by(lambda data: decode_content(quote_nan(data), form), source, noun)
    annotations = content.annotations
    return content, blocks.to_columns(blocks.with_stand_ins(annotations), annotations.faults, all_masks=masks)


def _categories(found: Entries, source: str, problems: Problems) -> list[Category]:
    """The categories in the order of their ids; one whose id repeats that of another name is none."""
    for fault in found.faults:
        problems.add(source, EntryError(f"{source}: {fault.message}"))
    first: dict[int, int] = {}
    unclear = set()
    for row, category in enumerate(found.entries):
        earlier = first.setdefault(category.id, row)
        if earlier != row:
            same = category.name == found.entries[earlier].name
            kind = EntryError if same else AnnotationError
            problems.add(source, kind(
                f"{source}: expected each category id once, got {category.id!r} again - at "
                f"`categories[{found.rows[row]}].id`, first at `categories[{found.rows[earlier]}].id`"
            ))  # fmt: skip
            if not same:
                unclear.add(category.id)
    known = [found.entries[row] for one, row in first.items() if one not in unclear]
    return sorted(known, key=lambda category: category.id)


def _to_draft(
    images: Images, categories: list[Category], columns: Columns, source: str, problems: Problems, notes: Notes
) -> Draft:
    """The draft of a file, without masks; sizes that the file does not give are 0."""
    ids = images.ids
    category_ids = np.array([category.id for category in categories], np.int64)
    positions = _positions(columns, images, notes)
    class_ids = _rows_of(columns.category_ids, category_ids.tolist())
    unread = np.zeros(len(positions), bool)
    unread[columns.fault_rows[columns.fault_effects != MASK]] = True
    unknown = ((positions < 0) | (class_ids < 0)) & ~unread
    if images.unread and unknown.any():
        unknown &= ~np.isin(columns.image_ids, list(images.unread)) | (positions >= 0)
    if unknown.any() or len(columns.fault_rows):
        errors = [
            *_unknown_errors(columns, np.flatnonzero(unknown), positions, category_ids, source),
            *_fault_errors(columns, source),
        ]
        for _, error in sorted(errors, key=lambda pair: pair[0]):
            problems.add(source, error)
        images.left_out.update(positions[unknown & (positions >= 0)].tolist())
        costly = positions[columns.fault_rows[columns.fault_effects == IMAGE]]
        images.left_out.update(costly[costly >= 0].tolist())
        positions[unread | np.isin(positions, list(images.left_out))] = -1
    _note_repeats(columns, notes)
    corners = columns.boxes
    with np.errstate(over="ignore"):  # an infinite corner lies outside its image, like others
        corners[:, 2:] += corners[:, :2]
    return Draft(
        source=source,
        paths=images.paths,
        image_ids=np.array(ids, np.int64 if set(map(type, ids)) <= {int} else str),
        image_hw=images.hw,
        boxes=corners,
        positions=positions,
        class_ids=class_ids.astype(np.int32),
        ignore=columns.crowd | columns.ignore,
        class_names=[category.name for category in categories],
        category_ids=category_ids,
        where=lambda row: f"`annotations[{row}].bbox` (image_id {ids[positions[row]]!r})",
        annotation_ids=_own_ids(columns),
        ignore_reasons=np.where(columns.crowd, np.uint8(IgnoreReason.CROWD), np.uint8(IgnoreReason.MARKED)),
        areas=columns.areas,
        left_out=images.left_out,
    )


def _settle(
    draft: Draft,
    images: Images,
    columns: Columns,
    problems: Problems,
    notes: Notes,
    *,
    masks: bool,
    crowds: Crowds,
    exif: Exif,
) -> Draft:
    """The draft with sizes of all images that stay, and its crowds as `crowds` says."""
    positions = draft.positions
    fill_sizes(images, problems)
    boxes: NDArray[np.float64] = draft.boxes  # type: ignore[assignment]
    turn_sizes(images, boxes, positions, exif, notes)
    if crowds == "object":
        draft = dataclasses.replace(draft, ignore=columns.ignore, ignore_reasons=None)
        if not masks:
            return draft
    if images.left_out:
        positions[np.isin(positions, list(images.left_out))] = -1
    return dataclasses.replace(draft, masks=_masks(columns, positions, images.hw, draft.source, problems))


def _positions(columns: Columns, images: Images, notes: Notes) -> NDArray[np.int64]:
    """The row of each annotation's image, int64 (N,); -1: it has none."""
    positions = _rows_of(columns.image_ids, images.ids)
    missing = np.flatnonzero(positions < 0)
    if not len(missing):
        return positions
    texts = any(isinstance(one, str) for one in images.ids)
    written = "numbers where images have texts" if texts else "texts where images have numbers"
    of_number: dict[int | None, int | None] = {}
    for row, one in enumerate(images.ids):
        number = number_in(one) if texts else one
        of_number[number] = None if number in of_number or number is None else row
    for row in missing.tolist():
        one = columns.image_ids[row : row + 1].tolist()[0]
        if isinstance(one, str) == texts:
            continue
        found = of_number.get(one if texts else number_in(one))
        if found is not None:
            positions[row] = found
            kind = f"annotations have image ids that are {written}; they are taken as the same"
            notes.add(kind, _place(columns, row))
    return positions


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
) -> Iterator[tuple[int, AnnotationError]]:
    """The first row and an error for each image id among rows whose image or category is unknown."""
    rows_of: dict[int | str, list[int]] = {}
    for row, image_id in zip(rows.tolist(), columns.image_ids[rows].tolist(), strict=True):
        rows_of.setdefault(image_id, []).append(row)
    known = among(category_ids.tolist())
    for image_id, (first, *others) in rows_of.items():
        where = f"at {_place(columns, first)}{f', the first of {len(others) + 1}' if others else ''}"
        if positions[first] < 0:
            yield (
                first,
                MissingImageError(
                    f"{source}: expected the image_id of an image in the file, got {image_id!r} - {where}"
                ),
            )
        else:
            got = columns.category_ids[first]
            yield first, AnnotationError(f"{source}: expected a category_id among {known}, got {got} - {where}")


def _place(columns: Columns, row: int, field: str = "") -> str:
    return f"`annotations[{row}]{field}` (image_id {columns.image_ids[row : row + 1].tolist()[0]!r})"


def _fault_errors(columns: Columns, source: str) -> Iterator[tuple[int, AnnotationError]]:
    """The row and the error of each annotation that can't be read."""
    for row, effect, message in zip(
        columns.fault_rows.tolist(), columns.fault_effects.tolist(), columns.faults.tolist(), strict=True
    ):
        kind = AnnotationError if effect == IMAGE else EntryError
        yield row, kind(f"{source}: {message.decode()}")


def _own_ids(columns: Columns) -> NDArray[np.int64]:
    """The ids of annotations that are whole numbers, int64 (N,); -1 for others and where there is none."""
    if columns.ids.dtype == np.int64:
        return columns.ids
    numbers = [number_in(one) if isinstance(one, str) else one for one in columns.ids.tolist()]
    return np.array([-1 if number is None else number for number in numbers], np.int64)


def _keypoints(columns: Columns, categories: list[Category], draft: Draft, problems: Problems) -> Keypoints:
    """The keypoints of all annotations."""
    names: tuple[str, ...] = _of_categories(categories, "keypoints", tuple[str, ...], "texts", draft.source)
    flips = np.array(_of_categories(categories, "flip_idx", tuple[Number, ...], "numbers", draft.source), np.int64)
    count = len(names) or len(flips) or int(columns.keypoint_counts.max(initial=0)) // 3
    if count > MAX_KEYPOINTS:
        raise AnnotationError(f"{draft.source}: expected at most {MAX_KEYPOINTS} keypoints of an object, got {count}")
    if not len(flips):
        flips = flips_of(names) if names else np.arange(count)
    try:
        no_boxes = Keypoints(np.zeros((0, count, 3), np.float32), names, flips)
    except AnnotationError:
        raise AnnotationError(
            f"{draft.source}: expected in `flip_idx` the numbers of {count} keypoints that become each other, got "
            f"{among(flips.tolist())} - at `categories`"
        ) from None
    points = np.zeros((len(draft.positions), count, 3))
    wrong = columns.keypoint_counts != 3 * count
    for row in columns.keypoint_rows[wrong & (draft.positions[columns.keypoint_rows] >= 0)].tolist():
        where = _place(columns, row, ".keypoints")
        problems.add(draft.source, EntryError(
            f"{draft.source}: expected x, y and visibility of {count} keypoints, got another number - at {where}"
        ))  # fmt: skip
    fitting = np.repeat(~wrong, columns.keypoint_counts)
    points[columns.keypoint_rows[~wrong]] = columns.keypoints[fitting].reshape(np.count_nonzero(~wrong), count, 3)
    points[..., :2] += 0.5
    with np.errstate(over="ignore"):  # an infinite point lies outside its image, like others
        keypoints = dataclasses.replace(no_boxes, points=points.astype(np.float32))
    sizes_hw = draft.image_hw[draft.positions] if len(draft.image_hw) else np.zeros((len(points), 2), np.int64)
    return keypoints.inside(sizes_hw.T[:, :, None])


def _of_categories(categories: list[Category], field: str, form: Any, noun: str, source: str) -> tuple[Any, ...]:
    """The list that all categories with a list in a field have there; none if none has one."""
    common: tuple[Any, ...] = ()
    for category in categories:
        given = bytes(getattr(category, field))
        try:
            found = msgspec.json.decode(given, type=form) if given not in (b"", b"null") else ()
        except UNDECODED as error:
            got = shorten(given.decode(errors="replace"))
            raise AnnotationError(
                f"{source}: expected a list of {noun} in `{field}`, got {got} - at the category {category.id}"
            ) from error
        if common and found and found != common:
            raise AnnotationError(
                f"{source}: expected the same `{field}` in all categories that have some, got {among(common)} and "
                f"{among(found)} - at the category {category.id}"
            )
        common = common or found
    return common


def _note_repeats(columns: Columns, notes: Notes) -> None:
    """Note each annotation whose id repeats an earlier one."""
    if columns.ids.dtype == np.int64:
        ordered = np.sort(columns.ids)
        if not (ordered[1:] == ordered[:-1]).any():
            return
    seen: set[int | str] = set()
    for row, one in enumerate(columns.ids.tolist()):
        if one in seen:
            notes.add("annotation ids repeat, and stay so", f"{_place(columns, row)}, id {one!r}")
        elif one is not None:
            seen.add(one)


def _masks(
    columns: Columns, positions: NDArray[np.int64], image_hw: NDArray[np.int64], source: str, problems: Problems
) -> MaskColumns:
    """The masks by row that have the sizes of their images; `positions` has each row's image, or -1."""
    of = positions[columns.mask_rows]
    with_image = np.flatnonzero(of >= 0)
    hw = image_hw[of[with_image]]
    sizes, pixels = columns.mask_sizes[with_image], columns.mask_pixels[with_image]
    wrong = (sizes != hw).any(axis=1) | (pixels != hw.prod(axis=1))
    for k in np.flatnonzero(wrong).tolist():
        row = int(columns.mask_rows[with_image[k]])
        problems.add(source, EntryError(
            f"{source}: expected an RLE mask of the image's height and width {tuple(hw[k].tolist())}, got size "
            f"{tuple(sizes[k].tolist())} and {pixels[k]} pixels - at "
            f"{_place(columns, row, '.segmentation')}"
        ))  # fmt: skip
    count = len(positions)
    run_counts, polygon_counts = np.zeros((2, count), np.int64)
    run_counts[columns.mask_rows] = columns.mask_counts
    np.add.at(polygon_counts, columns.polygon_rows, 1)
    kept = positions >= 0
    kept[columns.mask_rows[with_image[wrong]]] = False
    # Columns with an empty mask for each annotation, from which those are taken that have one.
    every = MaskColumns.made(
        np.arange(count),
        sizes_hw=image_hw[positions] if len(image_hw) else np.zeros((count, 2), np.int64),
        runs=columns.runs,
        run_counts=run_counts,
        points=columns.points,
        point_counts=columns.polygon_counts,
        polygon_counts=polygon_counts,
    )
    return every.only(np.flatnonzero(kept & (run_counts + polygon_counts > 0)))
