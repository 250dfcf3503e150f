"""Check a data set: its annotations, its images, and how they fit, before anybody trains on it."""

from __future__ import annotations

import collections
import inspect
import os
import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.boxes import Boxes
from detfeed.check.comparing import Repeats, compare_classes, compare_folders, compare_images, compare_paths
from detfeed.check.findings import KINDS, MAX_EXAMPLES, RARE, Checked, Example, Findings, Report, class_counts
from detfeed.check.pictures import Inspected, OnProgress, inspect_image, inspect_images
from detfeed.errors import AnnotationError, DetfeedError, EntryError, ImageError, MissingImageError, RepeatedImageError
from detfeed.images.canvases import Resize, ShortSide, fed_wh
from detfeed.images.headers import named_format
from detfeed.readers.bad_boxes import BadBoxes, BadBoxesWarning
from detfeed.readers.folder_images import LEFT_OVER
from detfeed.readers.formats import Read
from detfeed.readers.ignored_classes import MOSTLY_IGNORED, mostly_ignored
from detfeed.readers.kitti import DONT_CARE
from detfeed.readers.orientations import orientation_of

RESIZE = ShortSide(800, max_side=1333)
_ORIENTATIONS = {"known": "orientation", "ambiguous": "ambiguous-orientation", "unclear": "unclear-orientation"}
_DEEDS = {"dropped": "dropped", "clipped": "clipped to it", "ignored": "made ignore regions"}


def check(
    train: Annotations | Read,
    val: Annotations | Read | None = None,
    *,
    resize: Resize = RESIZE,
    smallest_anchor: float = 32.0,
    fast: bool = False,
    workers: int | None = None,
    image_dirs: Sequence[str] = (),
    max_examples: int | None = MAX_EXAMPLES,
    on_progress: OnProgress | None = None,
) -> Report:
    """Check a data set: what is wrong with its annotations and images, where, and what to do.

    Args:
        train: a function that reads the data set, such as `partial(read_voc, "VOC2007", "trainval")`, or a table. The
            function's bad boxes and errors become findings. If it takes `on_problem`, as detfeed's readers do, each
            file that can't be read is a finding, and all others are checked; without it, the first such file ends the
            reading. A table has no bad boxes any more.
        val: validation data in the same form; it is checked, and compared with the training data.
        resize: how images are to be fed.
        smallest_anchor: side of the smallest anchor in pixels, on the images as they are fed.
        fast: read only the headers of images, which finds no damage behind them, and find images that stand twice by
            their paths, not by their pixels.
        workers: number of threads that decode images. None: the number of cores. (Decoding releases the GIL, so
            threads are enough.)
        image_dirs: folders of which each image should be in one of the two data sets; the others are a finding.
        max_examples: examples that the report has of each finding. None: all.
        on_progress: called with the number of images done and of all images.

    Returns:
        A report. That of a clean data set has only notes.

    Raises:
        ValueError: workers is below 1.
        DetfeedError: images are URLs, and the library that reads them is not installed.
    """
    findings = Findings(max_examples)
    skipped: list[str] = []
    told = not image_dirs
    read = {"train": _read("train", train, findings, skipped, left_over=told)}
    if val is not None:
        read["val"] = _read("val", val, findings, skipped, left_over=told)
    tables = [(name, table) for name, (table, _) in read.items() if table is not None]
    paths = [path for _, table in tables for path in table.paths]
    inspected = inspect_images(paths, fast=fast, workers=workers, on_progress=on_progress)

    repeats: Repeats = (compare_paths if fast else compare_images)(tables, inspected, findings)
    if tables:
        compare_folders(tables, image_dirs, skipped, findings, fast=fast, workers=workers)
    left = iter(inspected)
    checked = []
    for name, (table, unread) in read.items():
        usable, fed_sides = np.zeros(0, bool), np.zeros(0, np.float32)
        if table is not None:
            _check_whole(name, table, findings)
            usable = _check_images(name, table, [next(left) for _ in table.paths], findings)
            fed_sides = _check_boxes(name, table, resize, smallest_anchor, findings)
            _check_empty(name, table, findings)
            _check_classes(name, table, findings)
        checked.append(
            Checked(name, table, usable, fed_sides, unread, repeats if tables and table is tables[0][1] else {})
        )
    if len(tables) == 2:
        compare_classes(tables[0][1], tables[1][1], findings)
    return Report(findings.sorted(), tuple(checked))


def _read(
    name: str, data: Annotations | Read, findings: Findings, skipped: list[str], *, left_over: bool
) -> tuple[Annotations | None, int]:
    """Read a data set.

    Args:
        name: of the data set.
        data: what reads it, or its table.
        findings: gets the findings.
        skipped: gets the paths of the files that can't be read.
        left_over: report what the reader tells of images without annotations; else their folder is looked through.

    Returns:
        The table, None if it can't be read at all; and the number of files that can't be read, wholly or in part.
    """
    if isinstance(data, Annotations):
        return data, 0
    problems: list[tuple[str, DetfeedError]] = []
    arguments = {"on_problem": lambda path, error: problems.append((path, error))} if _takes_on_problem(data) else {}
    table = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            table = data(**arguments)
        except (AnnotationError, ImageError) as error:
            findings.add("unreadable", name, [_split(str(error))])
        except OSError as error:
            findings.add("unreadable", name, [Example(str(error.filename or ""), detail=error.strerror or str(error))])
    skipped += [path for path, _ in problems]
    num_unread = _add_problems(name, problems, findings)
    if table is None:
        return None, num_unread
    for warning in warned:
        if isinstance(warning.message, BadBoxesWarning):
            _add_bad_boxes(name, warning.message.found, findings)
        elif not left_over and str(warning.message).startswith(f"{table.source}: {LEFT_OVER}"):
            continue
        elif str(warning.message).startswith(f"{table.source}: {MOSTLY_IGNORED}"):
            continue  # a finding of its own
        elif str(warning.message).startswith(f"{table.source}: "):
            findings.add("read-otherwise", name, [_split(str(warning.message))])
        else:
            warnings.warn(warning.message, stacklevel=3)
    return table, num_unread


def _takes_on_problem(data: Read) -> bool:
    try:
        return "on_problem" in inspect.signature(data).parameters
    except ValueError:  # a built-in function may have no signature
        return False


def _add_bad_boxes(name: str, found: Sequence[BadBoxes], findings: Findings) -> None:
    for bad in found:
        examples = [
            Example(box.path, box.image_id, box.index, f"{_corners(box.box)}, {box.where}", box.box)
            for box in bad.examples[: findings.max_examples]
        ]
        findings.add(bad.kind, name, examples, count=bad.count, done=f"; {_DEEDS[bad.effect]}")


def _add_problems(name: str, problems: list[tuple[str, DetfeedError]], findings: Findings) -> int:
    """Report what a reader left out; return the number of files that can't be read."""
    found = collections.defaultdict(list)
    for path, error in problems:
        kind = "unreadable-annotation"
        if isinstance(error, ImageError):
            kind = inspect_image(path, fast=True).problem or "size-mismatch"
        elif isinstance(error, EntryError):
            kind = "unreadable-entry"
        elif isinstance(error, MissingImageError):
            kind = "missing-image"
        elif isinstance(error, RepeatedImageError):
            kind = "listed-again"
        found[kind].append(Example(path, detail=str(error).removeprefix(f"{path}: ")))
    for kind, examples in found.items():
        findings.add(kind, name, examples)
    return len({path for path, error in problems if not isinstance(error, RepeatedImageError)})


def _split(message: str) -> Example:
    """Split an error message "file: expected ...". The name of the file may contain ": " itself."""
    ends = [match.start() for match in re.finditer(": ", message)]
    there = [end for end in ends if os.path.isfile(message[:end])]
    expected = [end for end in ends if message.startswith(": expected ", end)]
    end = [*there[-1:], *expected, *ends, len(message)][0]
    return Example(message[:end], detail=message[end + 2 :])


def _check_whole(name: str, table: Annotations, findings: Findings) -> None:
    if not len(table):
        findings.add("no-images", name, [Example(table.source)])
    elif table.ignore.all():
        findings.add("no-objects", name, [Example(table.source, detail=f"{len(table)} images")])


def _check_images(name: str, table: Annotations, images: list[Inspected], findings: Findings) -> NDArray[np.bool_]:
    """Compare each image file with its annotation; return which images can be fed, bool (P,)."""
    found: dict[str, list[Example]] = {kind: [] for kind in KINDS}
    usable = np.ones(len(table), bool)
    for position, image in enumerate(images):
        path, image_id = table.paths[position], table.image_id(position)
        annotated_hw = tuple(table.image_hw[position].tolist())
        boxes = table.boxes[table.rows(position)]
        for kind, detail in _problems_of(path, image, annotated_hw, boxes):
            found[kind].append(Example(path, image_id, detail=detail))
            usable[position] &= not _prevents_feeding(kind, image)
    for kind, examples in found.items():
        findings.add(kind, name, examples)
    return usable


def find_unusable(table: Annotations, images: Sequence[Inspected]) -> dict[int, str]:
    """The images that can't be fed, as `Checked.usable` tells them: their positions, and for each its file and why.

    Args:
        table: P images.
        images: P results of `inspect_images`.
    """
    unusable: dict[int, str] = {}
    for position, image in enumerate(images):
        annotated_hw = tuple(table.image_hw[position].tolist())
        path, boxes = table.paths[position], table.boxes[table.rows(position)]
        for kind, detail in _problems_of(path, image, annotated_hw, boxes):
            if _prevents_feeding(kind, image):
                unusable.setdefault(position, f"{path}: {detail}")
    return unusable


def _prevents_feeding(kind: str, image: Inspected) -> bool:
    return kind in ("size-mismatch", image.problem)


def _problems_of(path: str, image: Inspected, annotated_hw: tuple[int, ...], boxes: Boxes) -> list[tuple[str, str]]:
    """Kind and detail of each finding about one image."""
    found = []
    header = image.header
    if image.problem:
        found.append((image.problem, image.message.removeprefix(f"{path}: ")))
    if header is None:
        return found
    stored, turned = header.stored_hw, header.oriented_hw
    sizes = f"annotated height and width {annotated_hw}, stored {stored}"
    if header.orientation > 1:
        sizes += f", turned {turned} by EXIF orientation {header.orientation}"
    if annotated_hw not in (stored, turned):
        swapped = "; as if height and width were swapped" if annotated_hw == stored[::-1] else ""
        found.append(("size-mismatch", sizes + swapped))
    elif header.orientation > 1:
        found.append((_ORIENTATIONS[orientation_of(header, annotated_hw, boxes)], sizes))
    if header.invalid_orientation is not None:
        found.append(("invalid-orientation", f"EXIF orientation {header.invalid_orientation}"))
    if named_format(path) not in (None, header.format):
        found.append(("misnamed-format", f"{header.format} content"))
    if image.bits is not None:
        found.append(("few-bits", f"its largest value takes {image.bits} bits"))
    if image.trailing:
        found.append(("trailing-bytes", f"{image.trailing} bytes"))
    return found


def _check_boxes(
    name: str, table: Annotations, resize: Resize, smallest_anchor: float, findings: Findings
) -> NDArray[np.float32]:
    """Check the boxes that the reader kept.

    Returns:
        float32 (M,), root of the area of each object that is not ignored, as it is fed.
    """
    positions = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    sides = table.boxes[:, 2:] - table.boxes[:, :2]
    fed = fed_wh(table.boxes, table.offsets, table.image_hw, resize)
    fed_sides = np.sqrt(fed.prod(axis=1)).astype(np.float32)
    objects = ~table.ignore

    def add(kind: str, rows: NDArray[np.bool_], values: NDArray[np.floating] | None = None, done: str = "") -> None:
        examples = []
        for row in np.flatnonzero(rows)[: findings.max_examples].tolist():
            position = int(positions[row])
            corners = tuple(table.boxes[row].tolist())
            detail = _corners(corners)
            if values is not None:
                detail += f", fed {values[row, 0]:.3g} wide and {values[row, 1]:.3g} high"
            place = row - int(table.offsets[position])
            examples.append(Example(table.paths[position], table.image_id(position), place, detail, corners))
        findings.add(kind, name, examples, count=int(rows.sum()), done=done)

    add("thin-box", objects & (sides <= 1).any(axis=1))
    add("ignored-boxes", table.ignore)
    below = objects & (fed < 1).any(axis=1)
    add("fed-below-a-pixel", below, fed)
    small = objects & ~below & (fed_sides < smallest_anchor / 2)
    done = f" ({smallest_anchor:.4g} pixels), so anchors match them poorly"
    add("fed-below-half-an-anchor", small, fed, done)
    return fed_sides[objects]


def _check_empty(name: str, table: Annotations, findings: Findings) -> None:
    """Report images without boxes, unless no image has any: that is a finding of its own."""
    if table.ignore.all():
        return
    empty = np.flatnonzero(np.diff(table.offsets) == 0)
    kind = "mostly-without-boxes" if 2 * len(empty) > len(table) else "no-boxes"
    all_classes, some = "all of their area is background", "only some classes are known to be absent from them"
    meaning = all_classes if table.neg_classes is None else some
    examples = [Example(table.paths[row], table.image_id(row)) for row in empty[: findings.max_examples].tolist()]
    findings.add(kind, name, examples, count=len(empty), done=f"; {meaning}")


def _check_classes(name: str, table: Annotations, findings: Findings) -> None:
    ignored = np.bincount(table.class_ids[table.ignore], minlength=len(table.class_names))
    mostly = [
        f"{table.class_names[one.class_id]}: {one.num_objects} boxes, {one.num_ignored} ignored ones"
        for one in mostly_ignored(table)
    ]
    absent: list[Example] = []
    rare: list[Example] = []
    alike: dict[str, list[str]] = {}
    for label, count, more in zip(table.class_names, class_counts(table).tolist(), ignored.tolist(), strict=True):
        alike.setdefault("".join(label.split()).casefold(), []).append(label)
        example = Example(table.source, detail=f"{label}: {count} boxes{f', {more} ignored ones' if more else ''}")
        if 0 < count < RARE:
            rare.append(example)
        elif not count and not more and label != DONT_CARE:  # KITTI's class of regions without objects
            absent.append(example)
    findings.add("mostly-ignored-class", name, [Example(table.source, detail=detail) for detail in mostly])
    findings.add("absent-class", name, absent)
    findings.add("rare-class", name, rare)
    groups = [Example(table.source, detail=", ".join(map(repr, group))) for group in alike.values() if len(group) > 1]
    findings.add("similar-class-names", name, groups)


def _corners(box: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in box)}]"
