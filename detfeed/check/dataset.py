"""Check: what is wrong with a data set, where, and what to do about it, before anybody trains on it."""

from __future__ import annotations

import collections
import dataclasses
import inspect
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.check.pictures import Inspected, first_alike, inspect_image
from detfeed.errors import AnnotationError, DetfeedError, ImageError, MissingImageError, RepeatedImageError
from detfeed.images.canvases import Resize, ShortSide, fed_wh
from detfeed.images.files import is_url
from detfeed.images.headers import named_format
from detfeed.processes.process import cores
from detfeed.readers.bad_boxes import BadBoxes, BadBoxesWarning
from detfeed.readers.kitti import DONT_CARE

Severity = Literal["error", "warning", "note"]
Read = Callable[..., Annotations]
OnProgress = Callable[[int, int], None]  # (images done, images in all)

RESIZE = ShortSide(800, max_side=1333)
# A class with fewer boxes than this is rare.
RARE = 10
MAX_EXAMPLES = 10

# Of each kind of finding its severity, what was found, and what to do. An error would stop training, a warning teaches
# something wrong or hides something from whoever looks at the scores, a note does no harm.
KINDS: dict[str, tuple[Severity, str, str]] = {
    "unreadable": ("error", "the annotations can't be read", "correct what the message names"),
    "no-images": (
        "error",
        "no image that can be read; nothing can be trained on",
        "see whether the folders and lists are those meant, and their images of known formats",
    ),
    "unreadable-annotation": (
        "error",
        "annotations that can't be read; their images are left out",
        "correct what the message names, or leave these images out (--write)",
    ),
    "missing-image": (
        "error",
        "images that are not there",
        "put the images there, or leave them out (--write)",
    ),
    "unreadable-image": (
        "error",
        "images that can't be opened",
        "see to what the message names, such as permissions, or leave these images out (--write)",
    ),
    "damaged-image": (
        "error",
        "images that are cut short, damaged, or of no known format",
        "replace the files, or leave these images out (--write)",
    ),
    "too-large": (
        "error",
        "images of more pixels than are decoded",
        "make the pictures smaller, or leave them out (--write)",
    ),
    "size-mismatch": (
        "error",
        "images that are neither as stored nor as turned of the annotated size",
        "correct the annotation or the image, or leave these images out (--write)",
    ),
    "no-objects": (
        "error",
        "no box but ignored ones; nothing can be learned or scored",
        "see whether the annotations are those meant, and named as their images",
    ),
    "listed-again": ("error", "images that a list names again; taken once", "remove the repeats from the list"),
    "swapped-corners": ("warning", "boxes of negative size", "swap their corners in the file"),
    "no-area": ("warning", "boxes without area", "draw them anew or delete them"),
    "outside": ("warning", "boxes wholly outside their image", "correct or delete them"),
    "larger-than-image": (
        "warning",
        "boxes that reach out of their image at opposite sides",
        "see whether they are meant for another size of the image",
    ),
    "partly-outside": (
        "warning",
        "boxes that reach out of their image",
        "clip them in the file; VOC corners that count from 0 need one_based=False (--zero-based)",
    ),
    "repeated": ("warning", "boxes that repeat another of the same class", "delete all but one"),
    "thin-box": (
        "warning",
        "boxes one pixel wide or high at most, which is what VOC's xmin == xmax makes: mostly slips of the mouse",
        "draw them anew, delete them, or mark them as difficult",
    ),
    "ambiguous-orientation": (
        "warning",
        "images that EXIF turns or mirrors and whose annotated size fits with and without; read with it",
        'see which way the boxes fit, and store the pictures upright; exif="ignore" reads all without',
    ),
    "identical-images": ("warning", "images whose files are the same as another's", "keep one of each"),
    "leaked-images": (
        "warning",
        "validation images that look like a training image",
        "take them out of one of the two: scores on them say nothing",
    ),
    "mostly-without-boxes": (
        "warning",
        "images without boxes, which are more than half of all",
        "see whether their annotations are there, and named as they are",
    ),
    "similar-class-names": (
        "warning",
        "classes whose names are the same, or differ in case or spaces only",
        "make them one: Annotations.rename_classes",
    ),
    "different-classes": (
        "warning",
        "validation data has other classes, or in another order, than training data",
        "give both readers the same classes: class ids mean different things as they are",
    ),
    "orientation": (
        "note",
        "images that EXIF turns or mirrors; the annotated size says whether to, and exif='auto' does so",
        "mind that other tools may read them otherwise",
    ),
    "invalid-orientation": (
        "note",
        "images with an EXIF orientation that is none; read as stored",
        "nothing, unless the boxes lie elsewhere",
    ),
    "misnamed-format": (
        "note",
        "images of another format than their names say; detfeed goes by the content",
        "rename them if other tools are to read them",
    ),
    "trailing-bytes": ("note", "files with bytes after the end of the picture; not read", "nothing"),
    "similar-images": (
        "note",
        "images that look like another one of the same set",
        "keep one of each, or leave them if that is meant",
    ),
    "no-boxes": ("note", "images without boxes", "nothing, if they show no object"),
    "ignored-boxes": (
        "note",
        "boxes that are ignored (crowds, difficult, groups): neither learned nor background",
        "nothing",
    ),
    "absent-class": (
        "note",
        "classes without a box that is not ignored",
        "leave them out, or find images of them",
    ),
    "rare-class": (
        "note",
        f"classes with fewer than {RARE} boxes that are not ignored",
        "find more images of them, or merge them with others",
    ),
    "fed-below-a-pixel": (
        "note",
        "objects that are fed with a side of less than a pixel, which min_size makes ignore regions",
        "feed larger images",
    ),
    "fed-below-half-an-anchor": (
        "note",
        "objects that are fed smaller than half of the smallest anchor, which match it poorly",
        "feed larger images, or take smaller anchors",
    ),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """A place where something was found.

    Attributes:
        file: of the image, or of the annotations.
        image_id: None where no image is meant.
        box: place among the boxes of its image: of those in the file if it is bad, else of those kept. None: no box.
        detail: what stands there.
    """

    file: str
    image_id: int | str | None = None
    box: int | None = None
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that was found, with how often and the first places.

    Attributes:
        kind: one of `KINDS`.
        severity: "error", "warning" or "note".
        data: "train" or "val".
        count: how many images, boxes or classes.
        what: what was found, and done.
        advice: what to do.
        examples: at most `MAX_EXAMPLES`.
    """

    kind: str
    severity: Severity
    data: str
    count: int
    what: str
    advice: str
    examples: tuple[Example, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Checked:
    """A data set that was looked at.

    Attributes:
        name: "train" or "val".
        annotations: as they were read; None if they could not be.
        usable: bool (P,), whether an image can be fed.
        fed_sides: float32 (M,), root of the area of each object that is not ignored, in pixels as it is fed.
        unread: how many files, of annotations or images, could not be read, wholly or in part, so that `annotations`
            lacks images.
    """

    name: str
    annotations: Annotations | None
    usable: NDArray[np.bool_]
    fed_sides: NDArray[np.float32]
    unread: int = 0

    def cleaned(self) -> Annotations:
        """The images that can be fed, with the boxes that the reader's policy left."""
        if self.annotations is None:
            raise ValueError(f"Expected annotations that could be read. Received: none of {self.name}")
        return self.annotations.select(self.usable)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What a check found, the worst first.

    Attributes:
        findings: of all data sets.
        checked: the data sets, "train" first.
    """

    findings: tuple[Finding, ...]
    checked: tuple[Checked, ...]

    @property
    def status(self) -> int:
        """Exit status: 2 if annotations can't be read at all, 1 if there are errors or warnings, 0 if notes at most."""
        if any(finding.kind == "unreadable" for finding in self.findings):
            return 2
        return int(any(finding.severity != "note" for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """The report in types that JSON has; names and meanings stay from release to release."""
        return {
            "version": 1,
            "status": self.status,
            "data": [_summary(checked) for checked in self.checked],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }


def check(
    train: Annotations | Read,
    val: Annotations | Read | None = None,
    *,
    resize: Resize = RESIZE,
    smallest_anchor: float = 32.0,
    fast: bool = False,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Look for what is wrong with a data set: its annotations, its images, and how they fit.

    Args:
        train: a function that reads the data set, such as `partial(read_voc, "VOC2007", "trainval")`: bad boxes are
            reported as it finds them, and errors become findings. If it takes `on_problem`, as detfeed's readers do,
            the files that it tells of are findings and all others are checked; else one such file hides the rest. Or
            a table, whose bad boxes are gone already.
        val: likewise one to validate on, compared with the first.
        resize: how images are to be fed.
        smallest_anchor: side in pixels of the input.
        fast: read headers of images only, which tells no damage, and compares paths of images instead of pictures.
        workers: threads that decode. None: as many as there are cores. (Processes were slower: 1.5 ms an image against
            1.1 on 2 cores, since decoding needs no interpreter.)
        on_progress: called now and then with how many images are done, and how many there are.

    Returns:
        A report; a clean set's has notes at most.

    Raises:
        ValueError: workers below 1.
        DetfeedError: images are URLs, and the library that reads such ones is not installed.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"Expected workers to be at least 1. Received: {workers}")
    findings = _Findings()
    read = [_read(name, data, findings) for name, data in (("train", train), ("val", val)) if data is not None]
    tables = [table for table, _ in read]
    paths = [path for table in tables if table is not None for path in table.paths]
    inspected = _inspect(paths, fast=fast, workers=workers or cores(), on_progress=on_progress)

    checked = []
    start = 0
    for name, (table, unread) in zip(("train", "val"), read, strict=False):
        if table is None:
            checked.append(Checked(name, None, np.zeros(0, bool), np.zeros(0, np.float32), unread))
            continue
        if not len(table):
            findings.add("no-images", name, [Example(table.source)])
        elif table.ignore.all():
            findings.add("no-objects", name, [Example(table.source, detail=f"{len(table)} images")])
        images = inspected[start : start + len(table)]
        start += len(table)
        usable = _check_images(name, table, images, findings)
        fed_sides = _check_boxes(name, table, resize, smallest_anchor, findings)
        _check_classes(name, table, findings)
        checked.append(Checked(name, table, usable, fed_sides, unread))
    named = [(c.name, c.annotations) for c in checked if c.annotations is not None]
    if fast:
        _compare_paths(named, inspected, findings)
    else:
        _compare_images(named, inspected, findings)
    if len(tables) == 2 and tables[0] is not None and tables[1] is not None:
        _compare_classes(tables[0], tables[1], findings)
    return Report(findings.sorted(), tuple(checked))


class _Findings:
    """Collects findings."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []

    def add(
        self, kind: str, data: str, examples: Iterable[Example], *, count: int | None = None, done: str = ""
    ) -> None:
        """One finding, or more of one that is there already, unless there are no examples.

        Args:
            kind: one of `KINDS`.
            data: name of the set.
            examples: all, or the first if `count` says how many there are.
            count: None: as many as examples.
            done: what was done about it.
        """
        examples = tuple(examples)
        if not examples:
            return
        count = len(examples) if count is None else count
        severity, what, advice = KINDS[kind]
        for place, other in enumerate(self._findings):
            if (other.kind, other.data, other.what) == (kind, data, what + done):
                examples = (*other.examples, *examples)[:MAX_EXAMPLES]
                self._findings[place] = dataclasses.replace(other, count=other.count + count, examples=examples)
                return
        self._findings.append(Finding(kind, severity, data, count, what + done, advice, examples[:MAX_EXAMPLES]))

    def sorted(self) -> tuple[Finding, ...]:
        """The worst first, otherwise as in `KINDS`."""
        severities, kinds = ("error", "warning", "note"), list(KINDS)
        return tuple(sorted(self._findings, key=lambda f: (severities.index(f.severity), kinds.index(f.kind))))


def _read(name: str, data: Annotations | Read, findings: _Findings) -> tuple[Annotations | None, int]:
    """The table, None if it can't be read as a whole; and of how many files something is left out of it."""
    if isinstance(data, Annotations):
        return data, 0
    found: tuple[BadBoxes, ...] = ()
    unread: list[tuple[str, DetfeedError]] = []
    arguments = {"on_problem": lambda path, error: unread.append((path, error))} if _takes_on_problem(data) else {}
    table = None
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            table = data(**arguments)
    except (AnnotationError, ImageError) as error:
        findings.add("unreadable", name, [_split(str(error))])
    except OSError as error:
        findings.add("unreadable", name, [Example(str(error.filename or ""), detail=error.strerror or str(error))])
    num_unread = _tell_unread(name, unread, findings)
    if table is None:
        return None, num_unread
    for warning in said:
        if isinstance(warning.message, BadBoxesWarning):
            found += warning.message.found
        else:
            warnings.warn(warning.message, stacklevel=3)
    for bad in found:
        examples = [
            Example(box.path, box.image_id, box.index, f"{_corners(box.box)}, {box.where}") for box in bad.examples
        ]
        done = {"dropped": "dropped", "clipped": "clipped to it", "ignored": "made ignore regions"}[bad.effect]
        findings.add(bad.kind, name, examples, count=bad.count, done=f"; {done}")
    return table, num_unread


def _takes_on_problem(data: Read) -> bool:
    try:
        return "on_problem" in inspect.signature(data).parameters
    except ValueError:  # something built in, that has none
        return False


def _tell_unread(name: str, unread: list[tuple[str, DetfeedError]], findings: _Findings) -> int:
    """Report what a reader left out; returns of how many files."""
    found = collections.defaultdict(list)
    for path, error in unread:
        kind = "unreadable-annotation"
        if isinstance(error, ImageError):
            kind = inspect_image(path, fast=True).problem or "damaged-image"
        elif isinstance(error, MissingImageError):
            kind = "missing-image"
        elif isinstance(error, RepeatedImageError):
            kind = "listed-again"
        found[kind].append(Example(path, detail=str(error).removeprefix(f"{path}: ")))
    for kind, examples in found.items():
        findings.add(kind, name, examples)
    return len({path for path, error in unread if not isinstance(error, RepeatedImageError)})


def _split(message: str) -> Example:
    """A message of the form "file: what is wrong"; there may be colons in the name of the file."""
    ends = [match.start() for match in re.finditer(": ", message)]
    there = [end for end in ends if os.path.isfile(message[:end])]
    expected = [end for end in ends if message.startswith(": expected ", end)]
    end = [*there[-1:], *expected, *ends, len(message)][0]
    return Example(message[:end], detail=message[end + 2 :])


def _inspect(paths: list[str], *, fast: bool, workers: int, on_progress: OnProgress | None) -> list[Inspected]:
    inspected: list[Inspected] = []
    with ThreadPoolExecutor(workers) as executor:
        images = executor.map(lambda path: inspect_image(path, fast=fast), paths)
        try:
            for image in images:
                inspected.append(image)
                if on_progress is not None:
                    on_progress(len(inspected), len(paths))
        except BaseException:
            executor.shutdown(cancel_futures=True)  # or somebody who interrupts it waits for all the rest
            raise
    return inspected


def _check_images(name: str, table: Annotations, images: list[Inspected], findings: _Findings) -> NDArray[np.bool_]:
    """Look at each image file beside its annotation; returns which can be fed."""
    found: dict[str, list[Example]] = {kind: [] for kind in KINDS}
    usable = np.ones(len(table), bool)
    for position, image in enumerate(images):
        path = table.paths[position]

        def note(kind: str, detail: str, position: int = position) -> None:
            found[kind].append(Example(table.paths[position], table.image_id(position), detail=detail))

        header = image.header
        if image.problem:
            note(image.problem, image.message.removeprefix(f"{path}: "))
            usable[position] = False
        if header is None:
            continue
        annotated = tuple(table.image_hw[position].tolist())
        stored, turned = header.stored_hw, header.oriented_hw
        sizes = f"annotated height and width {annotated}, stored {stored}"
        if header.orientation > 1:
            sizes += f", turned {turned} by EXIF orientation {header.orientation}"
        if annotated not in (stored, turned):
            swapped = "; as if height and width were swapped" if annotated == stored[::-1] else ""
            note("size-mismatch", sizes + swapped)
            usable[position] = False
        elif header.orientation > 1:
            note("ambiguous-orientation" if stored == turned else "orientation", sizes)
        if header.invalid_orientation is not None:
            note("invalid-orientation", f"EXIF orientation {header.invalid_orientation}")
        if named_format(path) not in (None, header.format):
            note("misnamed-format", f"{header.format} content")
        if image.trailing:
            note("trailing-bytes", f"{image.trailing} bytes")
    for kind, examples in found.items():
        findings.add(kind, name, examples)
    return usable


def _check_boxes(
    name: str, table: Annotations, resize: Resize, smallest_anchor: float, findings: _Findings
) -> NDArray[np.float32]:
    """Look at the boxes that were kept; returns the root of the area of each object as it is fed."""
    counts = np.diff(table.offsets)
    positions = np.repeat(np.arange(len(table)), counts)
    sides = table.boxes[:, 2:] - table.boxes[:, :2]
    fed = fed_wh(table.boxes, table.offsets, table.image_hw, resize)
    fed_sides = np.sqrt(fed.prod(axis=1)).astype(np.float32)
    objects = ~table.ignore

    def add(kind: str, rows: NDArray[np.bool_], values: NDArray[np.floating] | None = None) -> None:
        first = np.flatnonzero(rows)[:MAX_EXAMPLES].tolist()
        examples = []
        for row in first:
            position = int(positions[row])
            detail = _corners(table.boxes[row].tolist())
            if values is not None:
                detail += f", fed {values[row, 0]:.3g} wide and {values[row, 1]:.3g} high"
            place = row - int(table.offsets[position])
            examples.append(Example(table.paths[position], table.image_id(position), place, detail))
        findings.add(kind, name, examples, count=int(rows.sum()))

    add("thin-box", objects & (sides <= 1).any(axis=1))
    add("ignored-boxes", table.ignore)
    below = objects & (fed < 1).any(axis=1)
    add("fed-below-a-pixel", below, fed)
    add("fed-below-half-an-anchor", objects & ~below & (fed_sides < smallest_anchor / 2), fed)
    empty = np.flatnonzero(counts == 0)
    examples = [Example(table.paths[row], table.image_id(row)) for row in empty[:MAX_EXAMPLES].tolist()]
    meaning = "all of them is background" if table.neg_classes is None else "they are known to lack some classes only"
    kind = "mostly-without-boxes" if 0 < len(table) < 2 * len(empty) < 2 * len(table) else "no-boxes"
    if not table.ignore.all():  # or there is nothing but such, which is told
        findings.add(kind, name, examples, count=len(empty), done=f"; {meaning}")
    return fed_sides[objects]


def _check_classes(name: str, table: Annotations, findings: _Findings) -> None:
    counts = _class_counts(table)
    ignored = np.bincount(table.class_ids[table.ignore], minlength=len(table.class_names))
    absent: list[Example] = []
    rare: list[Example] = []
    for label, count, more in zip(table.class_names, counts.tolist(), ignored.tolist(), strict=True):
        example = Example(table.source, detail=f"{label}: {count} boxes{f', {more} ignored ones' if more else ''}")
        if 0 < count < RARE:
            rare.append(example)
        elif not count and label != DONT_CARE:  # which every KITTI set has; it means no object
            absent.append(example)
    findings.add("absent-class", name, absent)
    findings.add("rare-class", name, rare)
    alike: dict[str, list[str]] = {}
    for label in table.class_names:
        alike.setdefault("".join(label.split()).casefold(), []).append(label)
    groups = [Example(table.source, detail=", ".join(map(repr, group))) for group in alike.values() if len(group) > 1]
    findings.add("similar-class-names", name, groups)


def _class_counts(table: Annotations) -> NDArray[np.int64]:
    """Boxes of each class that are not ignored."""
    return np.bincount(table.class_ids[~table.ignore], minlength=len(table.class_names))


def _compare_classes(train: Annotations, val: Annotations, findings: _Findings) -> None:
    if train.class_names != val.class_names:
        for place, names in enumerate(itertools.zip_longest(train.class_names, val.class_names)):
            if names[0] != names[1]:
                detail = f"class {place} is {names[0]!r} in training data, {names[1]!r} in validation data"
                findings.add("different-classes", "val", [Example(val.source, detail=detail)])
                break


def _compare_paths(tables: list[tuple[str, Annotations]], inspected: list[Inspected], findings: _Findings) -> None:
    """Look for image files that stand twice, in each set and across."""
    images = iter(inspected)
    seen: dict[str, dict[str, str]] = {}  # by set and place, the path as it stands there
    for name, table in tables:
        own = seen[name] = {}
        for position, path in enumerate(table.paths):
            if next(images).problem == "missing-image":
                continue
            place = path if is_url(path) else os.path.abspath(path)
            for other, paths in seen.items():
                if place in paths:
                    kind = "identical-images" if other == name else "leaked-images"
                    example = Example(path, table.image_id(position), detail=f"the same file as {paths[place]}")
                    findings.add(kind, name, [example])
            own.setdefault(place, path)


def _compare_images(tables: list[tuple[str, Annotations]], inspected: list[Inspected], findings: _Findings) -> None:
    """Look for images that are the same or alike, in each set and across."""
    places = [(name, table, position) for name, table in tables for position in range(len(table))]
    rows = [row for row, image in enumerate(inspected) if image.thumbnail]
    if not rows:
        return
    first = first_alike(
        np.array([inspected[row].hash for row in rows], np.uint64),
        np.stack([np.frombuffer(inspected[row].thumbnail, np.uint8) for row in rows]),
    )
    found: dict[tuple[str, str], list[Example]] = {}
    first_same: dict[tuple[str, bytes], int] = {}  # by set and digest
    for row, like in zip(rows, first.tolist(), strict=True):
        name, digest = places[row][0], inspected[row].digest

        def note(kind: str, other: int, name: str = name, row: int = row) -> None:
            (_, table, position), (_, other_table, other_position) = places[row], places[other]
            same = inspected[row].digest == inspected[other].digest
            detail = f"{'the same file as' if same else 'looks like'} {other_table.paths[other_position]}"
            example = Example(table.paths[position], table.image_id(position), detail=detail)
            found.setdefault((kind, name), []).append(example)

        other = rows[like] if like >= 0 else row
        leaked = places[other][0] != name
        if leaked:
            note("leaked-images", first_same.get((places[other][0], digest), other))
        # The same file counts before one that is alike and comes earlier.
        same = first_same.setdefault((name, digest), row)
        if same != row:
            note("identical-images", same)
        elif other != row and not leaked:
            note("similar-images", other)
    for (kind, name), examples in found.items():
        findings.add(kind, name, examples)


def _corners(box: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in box)}]"


def _summary(checked: Checked) -> dict[str, Any]:
    table = checked.annotations
    if table is None:
        return {"name": checked.name}
    sides = checked.fed_sides
    quantiles = np.quantile(sides, [0, 0.1, 0.5, 0.9, 1]).tolist() if len(sides) else None
    counts: collections.Counter[str] = collections.Counter()
    for label, count in zip(table.class_names, _class_counts(table).tolist(), strict=True):
        counts[label] += count  # two classes may have one name
    return {
        "name": checked.name,
        "source": table.source,
        "images": len(table),
        "usable_images": int(checked.usable.sum()),
        "unread_files": checked.unread,
        "boxes": len(table.boxes),
        "ignored_boxes": int(table.ignore.sum()),
        "classes": dict(counts),
        "fed_side_quantiles": quantiles,
    }
