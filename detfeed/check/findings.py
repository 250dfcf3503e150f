"""Findings: what a check found, of which kind, how often and where, and the report of all findings."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.readers.bad_boxes import Kind

if TYPE_CHECKING:
    from detfeed.drawing.sheets import Tile

Severity = Literal["error", "warning", "note"]
Repeat = Literal["identical", "similar", "leaked"]

# A class with fewer boxes than this is rare.
RARE = 10
MAX_EXAMPLES = 10

# Images that a notebook shows, and findings of which one is looked for.
_MOST_THUMBNAILS, _MOST_TRIED = 6, 12

# The severity of each kind of finding, what was found, and what to do ("" for nothing). An error stops training. A
# warning teaches something wrong or makes scores wrong. A note does no harm.
KINDS: dict[str, tuple[Severity, str, str]] = {
    "unreadable": ("error", "the annotations can't be read", "correct the file as the message says"),
    "no-images": (
        "error",
        "no image can be read, so nothing can be trained on",
        "check that these are the right folders and lists, and that the images are of known formats",
    ),
    "unreadable-annotation": (
        "error",
        "annotations can't be read; their images are left out",
        "correct them as the message says, or leave these images out (--write)",
    ),
    "unreadable-entry": (
        "error",
        "entries of the file can't be read; they alone are left out, and their images stay",
        "correct them as the message says, or leave them out (--write)",
    ),
    "missing-image": (
        "error",
        "image files are missing",
        "add the files, or leave these images out (--write)",
    ),
    "unreadable-image": (
        "error",
        "image files can't be opened",
        "correct the cause in the message, such as permissions, or leave these images out (--write)",
    ),
    "damaged-image": (
        "error",
        "image files are cut short, damaged, or of no known format",
        "replace the files, or leave these images out (--write)",
    ),
    "unsupported-image": (
        "error",
        "image files have pixels of a kind that is not read",
        "convert the files, or leave these images out (--write)",
    ),
    "too-large": (
        "error",
        "images have more pixels than detfeed decodes",
        "make the images smaller, or leave them out (--write)",
    ),
    "size-mismatch": (
        "error",
        "images have another size than annotated, both as stored and as turned by EXIF",
        "correct the annotation or the image, or leave these images out (--write)",
    ),
    "unnamed-images": (
        "warning",
        "image files are in the folder that no annotation names; nothing is learned from them",
        "annotate them, give the set that names them as validation data, or remove them",
    ),
    "no-objects": (
        "error",
        "there are no boxes, or only ignored ones; nothing can be learned or scored",
        "check that these are the right annotations, and that they are named like their images",
    ),
    "listed-again": ("error", "a list names images again; each is read once", "remove the repeats from the list"),
    "swapped-corners": ("warning", "boxes have a negative width or height", "swap their corners in the file"),
    "no-area": ("warning", "boxes have no area", "draw them again, or delete them"),
    "outside": ("warning", "boxes lie wholly outside their image", "correct or delete them"),
    "larger-than-image": (
        "warning",
        "boxes reach out of their image at opposite sides",
        "check whether they were drawn for another size of the image",
    ),
    "partly-outside": (
        "warning",
        "boxes reach out of their image",
        "clip them in the file; if they are many, they may have another form: VOC corners that count from 0 need "
        "one_based=False (--zero-based), and COCO's boxes are x, y, width, height, not corners",
    ),
    "repeated": ("warning", "boxes repeat another box of the same class", "delete all but one"),
    "thin-box": (
        "warning",
        "boxes are at most one pixel wide or high (in VOC, xmin == xmax); most are slips of the mouse",
        "draw them again, delete them, or mark them as difficult",
    ),
    "ambiguous-orientation": (
        "warning",
        "EXIF turns or mirrors images, but their annotated size fits both ways; detfeed applies EXIF",
        'check which way the boxes fit, and store the images upright; exif="ignore" applies EXIF to no image',
    ),
    "unclear-orientation": (
        "warning",
        "EXIF turns images whose annotated size is that of the stored picture, and their boxes fit both ways; detfeed "
        "feeds them as stored",
        'check which way the boxes fit; if they were drawn on the turned picture, read COCO with exif="apply" '
        "(--exif apply)",
    ),
    "few-bits": (
        "warning",
        "16-bit images use fewer bits and are fed dark",
        "give their bits to the sequence, such as bits=12, or scale the files",
    ),
    "identical-images": ("warning", "image files are the same as another one of the set", "keep one of each"),
    "leaked-images": (
        "warning",
        "validation images look like training images",
        "remove them from one of the two sets: scores on them mean nothing",
    ),
    "mostly-without-boxes": (
        "warning",
        "images have no boxes; they are more than half of all images",
        "check that their annotations exist, and are named like the images",
    ),
    "similar-class-names": (
        "warning",
        "class names are equal, or differ only in case or spaces",
        "make them one class: Annotations.rename_classes",
    ),
    "mostly-ignored-class": (
        "warning",
        "classes have more ignored boxes than objects, or nothing else",
        'check what makes them ignored; if it is iscrowd, which CVAT writes for each mask, crowds="object" '
        "(--crowds object) reads them as objects",
    ),
    "different-classes": (
        "warning",
        "validation data has other classes than training data, or another order of classes",
        "give both readers the same classes; without that, a class id means two things",
    ),
    "orientation": (
        "note",
        "EXIF turns or mirrors images; exif='auto' follows it where the annotated size does",
        "remember that other tools may ignore EXIF",
    ),
    "read-otherwise": (
        "note",
        "the reader tells what it took in another way than it is written, or left out",
        "check that it is what is meant",
    ),
    "invalid-orientation": (
        "note",
        "images have an invalid EXIF orientation; they are read as stored",
        "",
    ),
    "misnamed-format": (
        "note",
        "images have another format than their names say; detfeed goes by the content",
        "rename them if other tools read them",
    ),
    "trailing-bytes": ("note", "image files have bytes after the end of the image; these are not read", ""),
    "similar-images": (
        "note",
        "images look like another one of the same set",
        "keep one of each, unless you want both",
    ),
    "no-boxes": ("note", "images have no boxes", "annotate those that show an object"),
    "ignored-boxes": (
        "note",
        "boxes are ignored (crowds, difficult, groups): neither objects nor background",
        "",
    ),
    "absent-class": (
        "note",
        "classes have no boxes",
        "remove these classes, or add images of them",
    ),
    "rare-class": (
        "note",
        f"classes have fewer than {RARE} boxes, not counting ignored ones",
        "add images of these classes, or merge them with others",
    ),
    "fed-below-a-pixel": (
        "note",
        "objects are fed less than a pixel wide or high; min_size makes them ignore regions",
        "feed larger images",
    ),
    "fed-below-half-an-anchor": (
        "note",
        "objects are fed smaller than half of the smallest anchor",
        "feed larger images, or use smaller anchors",
    ),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """A place where something was found.

    Attributes:
        file: the image file, or the file of annotations.
        image_id: the image; None if the example is not about one image.
        box: place of the box among those of its image: in the file for a bad box, else among those kept. None: no box.
        detail: the values found there.
        corners: the box's corners, x0 y0 x1 y1 in pixels of the image: as the file gives a bad box, else as it was
            kept. None: no box.
        other: the image file that this one is the same as or looks like. None: the finding compares no images.
    """

    file: str
    image_id: int | str | None = None
    box: int | None = None
    detail: str = ""
    corners: tuple[float, ...] | None = None
    other: str | None = None


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of finding in one data set: how often, and the first places.

    Attributes:
        kind: one of `KINDS`.
        severity: "error", "warning" or "note".
        data: "train" or "val".
        count: number of images, boxes or classes.
        what: what was found, and what the reader did about it.
        advice: what to do; "" for nothing.
        examples: the first places, as many as `check` was asked for.
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
    """A data set that was checked.

    Attributes:
        name: "train" or "val".
        annotations: the table; None if the annotations can't be read.
        usable: bool (P,), whether each image can be fed.
        fed_sides: float32 (M,), root of the area of each object that is not ignored, in pixels as it is fed.
        repeats: of training data, which images to leave out to be rid of repeats, bool (P,) each: "identical" and
            "similar", those that are the same as an earlier image or look like one; "leaked", those that look like one
            of validation data.
        unread: number of files, of annotations or images, that can't be read or only in part; `annotations` lacks their
            images.
    """

    name: str
    annotations: Annotations | None
    usable: NDArray[np.bool_]
    fed_sides: NDArray[np.float32]
    unread: int = 0
    repeats: Mapping[Repeat, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)

    def cleaned(self, *, without: Sequence[Repeat] = ()) -> Annotations:
        """The images that can be fed, with their boxes as the reader's `invalid` left them.

        Args:
            without: the repeats to leave out, too.

        Raises:
            ValueError: the annotations can't be read.
        """
        if self.annotations is None:
            raise ValueError(f"Expected annotations that could be read. Received: none of {self.name}")
        kept = self.usable.copy()
        for kind in without:
            if kind in self.repeats:
                kept &= ~self.repeats[kind]
        return self.annotations.select(kept)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """The findings of a check, the worst first.

    Attributes:
        findings: those of all data sets.
        checked: the data sets, "train" first.
    """

    findings: tuple[Finding, ...]
    checked: tuple[Checked, ...]

    @property
    def status(self) -> int:
        """Exit status: 2 if annotations can't be read at all, 1 if there are errors or warnings, else 0."""
        if any(finding.kind == "unreadable" for finding in self.findings):
            return 2
        return int(any(finding.severity != "note" for finding in self.findings))

    def _repr_html_(self) -> str:
        """What a notebook shows: the findings, and the first few images in which something was found."""
        from detfeed.drawing import html, sheets

        data = [
            (
                checked.name,
                len(table),
                int(checked.usable.sum()),
                len(table.boxes),
                int(table.ignore.sum()),
                table.source,
            )
            for checked in self.checked
            if (table := checked.annotations) is not None
        ]
        rows = [
            (each.severity, each.data, each.kind, each.count, f"{each.what}\n{_first_place(each)}", each.advice)
            for each in self.findings
        ]
        parts = [
            html.table(("data", "images", "that can be fed", "boxes", "ignored", "from"), data),
            html.table(("severity", "data", "finding", "count", "what, and where first", "what to do"), rows)
            if rows
            else html.paragraph("no findings"),
        ]
        tiles = list(itertools.islice(self._thumbnails(), _MOST_THUMBNAILS))
        if tiles:
            parts.append(html.picture(sheets.contact_sheet(tiles), "images in which something was found"))
        return "".join(parts)

    def _thumbnails(self) -> Iterator[Tile]:
        """A picture of one image of each finding, the worst first; at most two examples of one are tried."""
        from detfeed.check.thumbnails import draw_thumbnail

        tables = {checked.name: checked.annotations for checked in self.checked}
        for each in self.findings[:_MOST_TRIED]:
            table = tables.get(each.data)
            for example in each.examples[:2]:
                if table is None or example.image_id is None:
                    continue
                row = None if each.kind in get_args(Kind) else example.box  # of bad boxes, the place in the file
                tile = draw_thumbnail(table, example.image_id, row=row, caption=each.kind)
                if tile is not None:
                    yield tile
                    break

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types. Names and their meanings stay the same from release to release."""
        return {
            "version": 1,
            "status": self.status,
            "data": [_summary(checked) for checked in self.checked],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }


class Findings:
    """Collects findings.

    Attributes:
        max_examples: examples that are kept of each finding. None: all.
    """

    def __init__(self, max_examples: int | None = MAX_EXAMPLES) -> None:
        self.max_examples = max_examples
        self._findings: list[Finding] = []

    def add(
        self, kind: str, data: str, examples: Iterable[Example], *, count: int | None = None, done: str = ""
    ) -> None:
        """Add a finding, or add to the one of the same kind, data and deed. Without examples, do nothing.

        Args:
            kind: one of `KINDS`.
            data: name of the data set.
            examples: all examples, or the first ones of `count`.
            count: how many there are. None: as many as examples.
            done: what the reader did about it; follows the text of `KINDS`.
        """
        examples = tuple(examples)
        if not examples:
            return
        count = len(examples) if count is None else count
        severity, what, advice = KINDS[kind]
        for place, other in enumerate(self._findings):
            if (other.kind, other.data, other.what) == (kind, data, what + done):
                examples = (*other.examples, *examples)[: self.max_examples]
                self._findings[place] = dataclasses.replace(other, count=other.count + count, examples=examples)
                return
        self._findings.append(Finding(kind, severity, data, count, what + done, advice, examples[: self.max_examples]))

    def sorted(self) -> tuple[Finding, ...]:
        """The findings, the worst first; those of one severity in the order of `KINDS`."""
        severities, kinds = ("error", "warning", "note"), list(KINDS)
        return tuple(sorted(self._findings, key=lambda f: (severities.index(f.severity), kinds.index(f.kind))))


def _first_place(finding: Finding) -> str:
    example = next(iter(finding.examples), None)
    return "" if example is None else ": ".join(filter(None, (example.file, example.detail)))


def class_counts(table: Annotations) -> NDArray[np.int64]:
    """Number of boxes of each class that are not ignored, int64 (C,)."""
    return np.bincount(table.class_ids[~table.ignore], minlength=len(table.class_names))


def _summary(checked: Checked) -> dict[str, Any]:
    table = checked.annotations
    if table is None:
        return {"name": checked.name}
    sides = checked.fed_sides
    quantiles = np.quantile(sides, [0, 0.1, 0.5, 0.9, 1]).tolist() if len(sides) else None
    counts: collections.Counter[str] = collections.Counter()
    for label, count in zip(table.class_names, class_counts(table).tolist(), strict=True):
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
