"""COCO images: the entries of images in a COCO file, as ids, paths and sizes."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import AnnotationError, DetfeedError, ImageError, RepeatedImageError, shorten
from detfeed.images.decoding import Exif
from detfeed.images.files import is_url
from detfeed.images.headers import read_header
from detfeed.readers.bad_boxes import TOLERANCE
from detfeed.readers.coco_entries import Entries, ImageEntry
from detfeed.readers.notes import Notes
from detfeed.readers.paths import ELSEWHERE, Near, is_image, path_inside, paths_inside, walk_files
from detfeed.readers.problems import Problems, read_hw

PROBES = 2000  # images whose files are looked for at reading; takes a few milliseconds


@dataclasses.dataclass
class Images:
    """P images that are read.

    Attributes:
        entries: P entries of the file.
        places: the row of each in the file.
        ids: P ids, all numbers or all texts.
        paths: P paths.
        hw: int64 (P, 2), height and width in pixels; 0 where they are not known.
        unread: ids of images that are not among them, and of which a problem was told.
        left_out: positions of images to leave out.
    """

    entries: list[Any]
    places: Sequence[int]
    ids: list[Any]
    paths: list[str]
    hw: NDArray[np.int64]
    unread: set[int | str]
    left_out: set[int]


def find_images(found: Entries, source: str, image_dir: str, problems: Problems, notes: Notes) -> Images:
    """The images of a file; an entry that can't be read is handed to `problems`."""
    unread = {fault.id for fault in found.faults if fault.id is not None}
    for fault in found.faults:
        problems.add(source, AnnotationError(f"{source}: {fault.message}"))
    entries, places = found.entries, found.rows
    ids = _of_one_type([image.id for image in entries])
    bad: dict[int, AnnotationError] = {}
    if len(set(ids)) < len(ids) or len(set(map(type, ids))) > 1:
        bad |= _repeats(entries, ids, places, source, unread) | _of_other_type(ids, places, source)
    paths, outside = _paths([image.file_name for image in entries], places, source, image_dir, notes)
    unread.update(ids[row] for row in outside)
    bad = outside | bad
    if bad:
        for row in sorted(bad):
            problems.add(source, bad[row])
        kept = [row for row in range(len(entries)) if row not in bad]
        entries, places = [entries[row] for row in kept], [places[row] for row in kept]
        ids, paths = [ids[row] for row in kept], [paths[row] for row in kept]
    hw = np.array([[image.height for image in entries], [image.width for image in entries]], np.int64).T
    return Images(entries, places, ids, paths, hw.reshape(-1, 2), unread - set(ids), set())


def _of_one_type(ids: list[Any]) -> list[Any]:
    """Ids, with texts as the numbers that they are written as where other ids are numbers and none is the same."""
    if len(set(map(type, ids))) < 2:
        return ids
    numbers = {one for one in ids if isinstance(one, int)}
    written = {one: number_in(one) for one in ids if isinstance(one, str)}
    texts_of = collections.Counter(written.values())
    clear = {
        text: one for text, one in written.items() if one is not None and texts_of[one] == 1 and one not in numbers
    }
    return [clear.get(one, one) for one in ids]


def number_in(text: str) -> int | None:
    """The whole number that a text is, None if it is none."""
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19 else None


def _repeats(
    entries: list[ImageEntry], ids: list[Any], places: Sequence[int], source: str, unread: set[int | str]
) -> dict[int, AnnotationError]:
    """An error for each entry whose id repeats an earlier one. If it is another image, the earlier one is bad, too."""
    first: dict[Any, int] = {}
    bad: dict[int, AnnotationError] = {}
    for row, one in enumerate(ids):
        earlier = first.setdefault(one, row)
        if earlier == row:
            continue
        expected, places_of = f"{source}: expected each image id once", (places[earlier], places[row])
        text = f"{expected}, got {one!r} again - at `images[{places_of[1]}].id`, first at `images[{places_of[0]}].id`"
        if entries[row].file_name == entries[earlier].file_name:
            bad[row] = RepeatedImageError(text)
            continue
        bad[row] = AnnotationError(text)
        bad.setdefault(earlier, AnnotationError(f"{expected}, got {one!r} twice - at `images[{places_of[0]}].id`"))
        unread.add(one)
    return bad


def _of_other_type(ids: list[Any], places: Sequence[int], source: str) -> dict[int, AnnotationError]:
    """An error for each id of another type than the first."""
    return {
        row: AnnotationError(
            f"{source}: expected image ids that are all numbers or all texts, got {ids[0]!r} and {one!r} - at "
            f"`images[{places[row]}].id`"
        )
        for row, one in enumerate(ids)
        if type(one) is not type(ids[0])
    }


def _paths(
    names: list[str], places: Sequence[int], source: str, image_dir: str, notes: Notes
) -> tuple[list[str], dict[int, AnnotationError]]:
    """Paths of images, and an error for each name that leads out of the folder; its path is empty."""
    bad: dict[int, AnnotationError] = {}
    try:
        paths = paths_inside(image_dir, names)
    except ValueError:
        paths = []
        for row, name in enumerate(names):
            try:
                paths.append(path_inside(image_dir, name))
            except ValueError as error:
                paths.append("")
                bad[row] = AnnotationError(f"{source}: {error} - at `images[{places[row]}].file_name`")
    if is_url(image_dir) or not os.path.isdir(image_dir or "."):
        return paths, bad
    missing = [row for row in _to_look_for(names, paths, bad) if row in bad or not os.path.lexists(paths[row])]
    if missing:
        for row, path in _near(names, paths, missing, image_dir).items():
            notes.add(ELSEWHERE, f"`images[{places[row]}].file_name`: {shorten(names[row])}, whose image is {path}")
            paths[row] = path
            bad.pop(row, None)
    return paths, bad


def _to_look_for(names: list[str], paths: list[str], bad: Collection[int]) -> Iterable[int]:
    """The rows of images whose files are looked for, since COCO's 118,000 would take a second or, far away, minutes.

    All of few; of many those with odd names, and all if one of some that are spread over the file is missing.
    """
    probes = range(0, len(names), len(names) // PROBES + 1)
    if not all(row in bad or os.path.lexists(paths[row]) for row in probes):
        return range(len(names))
    return sorted({*bad, *(row for row, name in enumerate(names) if "\\" in name or "%" in name or not name.isascii())})


def _near(names: list[str], paths: list[str], missing: list[int], image_dir: str) -> dict[int, str]:
    """By row, the path of the one image that is nearest to a name and that no other name claims."""
    try:
        files = walk_files(image_dir or ".", "a folder of images")
    except AnnotationError:
        return {}
    near = Near(file for file in files if is_image(os.path.basename(file)))
    found = {row: near.find(names[row]) for row in missing}
    gone = set(missing)
    claims = collections.Counter(files[0] for files in found.values() if len(files) == 1)
    claims.update(os.path.relpath(path, image_dir or ".") for row, path in enumerate(paths) if row not in gone)
    return {
        row: os.path.join(image_dir, files[0])
        for row, files in found.items()
        if len(files) == 1 and claims[files[0]] == 1 and _may_be(names[row], files[0], image_dir)
    }


def _may_be(name: str, file: str, image_dir: str) -> bool:
    """Whether a file in another folder may be the image: not if the name's own folder is there and lacks it."""
    folder = "/".join(part for part in name.replace("\\", "/").split("/")[:-1] if part != "..")
    return not folder or os.path.dirname(file) == folder or not os.path.isdir(os.path.join(image_dir, folder))


def fill_sizes(images: Images, problems: Problems) -> None:
    """Read the sizes that the file does not give from the images' headers; without one, an image is left out."""
    for position in np.flatnonzero((images.hw == 0).any(axis=1)).tolist():
        if position not in images.left_out:
            hw = read_hw(images.paths[position], problems.add)
            if hw is None:
                images.left_out.add(position)
            images.hw[position] = hw or (1, 1)


def turn_sizes(
    images: Images, boxes: NDArray[np.float64], positions: NDArray[np.int64], exif: Exif, notes: Notes
) -> None:
    """Swap height and width of images whose boxes were drawn on the picture as its EXIF orientation turns it.

    Args:
        images: their sizes are changed.
        boxes: float64 (N, 4), xyxy.
        positions: int64 (N,), row of each box's image, or -1.
        exif: "auto" turns those images of which a box fits only the turned picture, and opens no others; "apply" all
            whose size is the stored one; "ignore" none.
        notes: gets the images that "auto" turns.
    """
    if exif == "ignore":
        return
    known = set(range(len(images.paths))) if exif == "apply" else _fit_turned_alone(images.hw, boxes, positions)
    for position in sorted(known - images.left_out):
        height, width = images.hw[position].tolist()
        if height == width:
            continue
        try:
            header = read_header(images.paths[position])
        except ImageError:
            continue
        except DetfeedError:  # a URL that nothing installed can open
            if exif == "apply":
                raise
            return
        if header.orientation >= 5 and header.stored_hw == (height, width):
            images.hw[position] = width, height
            if exif == "auto":
                notes.add(
                    "boxes fit only the picture as its EXIF orientation turns it, though the annotated size is that "
                    "of the stored one, so they are read as boxes on the turned picture",
                    images.paths[position],
                )


def _fit_turned_alone(
    image_hw: NDArray[np.int64], boxes: NDArray[np.float64], positions: NDArray[np.int64]
) -> set[int]:
    """The images of which a box reaches out, and all boxes fit if height and width are swapped."""
    if not len(image_hw):
        return set()
    limits = image_hw[:, ::-1][positions] + TOLERANCE
    out = (boxes[:, 2] > limits[:, 0]) | (boxes[:, 3] > limits[:, 1])
    out &= positions >= 0
    if not out.any():
        return set()
    found = np.unique(positions[out])
    rows = np.flatnonzero(np.isin(positions, found))
    high, limits = boxes[rows, 2:], limits[rows, ::-1]
    return set(found.tolist()) - set(positions[rows[(high > limits).any(axis=1)]].tolist())
