"""Annotations: what a data set says about its images, as one immutable table of columns."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes
from detfeed.columns import ImageColumns
from detfeed.errors import AnnotationError, among
from detfeed.keypoints import Keypoints
from detfeed.mask_columns import NO_MASKS, MaskColumns, join_masks
from detfeed.masks import Runs
from detfeed.splitting import divide, numbered

# Pixels a side: more than any image has, and float32 still tells its pixels apart.
MAX_SIDE = 10**6

_SHOWN_CLASSES = 10  # in a notebook's table; the picture has more
_PAIRS = ("neg_classes", "not_exhaustive_classes")


class IgnoreReason(enum.IntEnum):
    """Why a box is an ignore region. A column holds them as uint8; 0 is for boxes that are none.

    The file says so: MARKED (COCO's `ignore`, or a table that gives no reason), CROWD (COCO's `iscrowd`), DIFFICULT
    (VOC's), GROUP (OpenImages' IsGroupOf), UNLABELLED (KITTI's DontCare). A reader made it one: BAD_BOX (the policy
    "ignore"). It became one on the way to a batch: HIDDEN (an augmentation left less than `min_visibility` of it),
    SMALL (it is fed with a side below `min_size`). The reasons of the file come before the others, and HIDDEN before
    SMALL.
    """

    NONE = 0
    MARKED = 1
    CROWD = 2
    DIFFICULT = 3
    GROUP = 4
    UNLABELLED = 5
    BAD_BOX = 6
    HIDDEN = 7
    SMALL = 8


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Annotations(ImageColumns):
    """Images and their boxes in columns: P images, N boxes, C classes.

    The boxes of the image in row `position` are rows offsets[position] to offsets[position + 1] of the box columns.
    Every box has an area and lies inside its image; nobody who gets a table needs to clip. Arrays are made read-only.

    Attributes:
        paths: P paths of image files.
        image_ids: int64 or str (P,), the annotation file's own ids, each once.
        image_hw: int32 (P, 2), height and width in pixels as annotated.
        boxes: float32 (N, 4), xyxy pixels of the image as it is stored in the file.
        class_ids: int32 (N,), 0-based and contiguous; row of `class_names`.
        ignore: bool (N,), True for COCO's `iscrowd` and `ignore`, VOC's `difficult`, KITTI's DontCare, OpenImages'
            IsGroupOf and what the policy "ignore" made of bad boxes.
        areas: float32 (N,), square pixels of the object (of its mask where the file says so, else of its box).
        offsets: int64 (P + 1,), from 0 to N.
        class_names: C names.
        category_ids: int64 (C,), the file's own numbers of the classes.
        masks: by row of the box columns, the RLE masks of those boxes that have one (COCO's crowds, or all objects
            where a reader was asked for masks): int32 (K,) lengths of runs, column by column, first of pixels outside;
            they add up to the image's pixels. A dict is made `MaskColumns`, which hold polygons as well.
        source: the file or folder that this was read from, for messages.
        neg_classes: of a federated set such as LVIS, which annotates each image for some classes only: int32 (K, 2),
            pairs of position and class id, the images that were seen to show none of a class. None: not federated,
            so that an image shows none of any class that it has no boxes of.
        not_exhaustive_classes: likewise int32 (K, 2), the images that may show more of a class than has boxes.
        annotation_ids: int64 (N,), the file's own ids of the boxes, as COCO's; -1 for one that is missing or no whole
            number, and an id may repeat if it does in the file. From formats without such ids, the number of the box
            among all that the reader found, dropped ones included, from 1. None: 1 to N.
        ignore_reasons: uint8 (N,), why each box is ignored; see `IgnoreReason`. `ignore` decides whether it is: a box
            that is not gets NONE, and one that is and has no reason gets MARKED. None: no reasons.
        keypoints: of the boxes; see `Keypoints`. None: the file has none, or the reader was not asked for them.

    Raises:
        AnnotationError: columns that do not fit together, boxes that are not finite, have no area or reach out of their
            image, class ids out of range, image ids that stand twice, sizes below 1, masks of other sizes than their
            images.
    """

    paths: tuple[str, ...]
    image_ids: NDArray[np.generic]
    image_hw: NDArray[np.int32]
    boxes: Boxes
    class_ids: NDArray[np.int32]
    ignore: NDArray[np.bool_]
    areas: NDArray[np.float32]
    offsets: NDArray[np.int64]
    class_names: tuple[str, ...]
    category_ids: NDArray[np.int64]
    masks: Mapping[int, Runs] = dataclasses.field(default_factory=lambda: NO_MASKS)
    source: str = "annotations"
    neg_classes: NDArray[np.int32] | None = None
    not_exhaustive_classes: NDArray[np.int32] | None = None
    annotation_ids: NDArray[np.int64] = None  # type: ignore[assignment]
    ignore_reasons: NDArray[np.uint8] = None  # type: ignore[assignment]
    keypoints: Keypoints | None = None

    def __post_init__(self) -> None:
        self._fill_columns()
        images, count, classes = len(self.paths), len(self.boxes), len(self.class_names)
        if self.image_ids.shape != (images,):
            raise AnnotationError(f"{self.source}: expected {images} image ids, got {self.image_ids.shape}")
        self._check_columns(
            {
                "image_hw": ((images, 2), np.int32),
                "boxes": ((count, 4), np.float32),
                "class_ids": ((count,), np.int32),
                "ignore": ((count,), np.bool_),
                "areas": ((count,), np.float32),
                "offsets": ((images + 1,), np.int64),
                "category_ids": ((classes,), np.int64),
                "annotation_ids": ((count,), np.int64),
                "ignore_reasons": ((count,), np.uint8),
            }
        )
        if self.keypoints is not None and len(self.keypoints.points) != count:
            raise AnnotationError(
                f"{self.source}: expected keypoints of {count} boxes, got those of {len(self.keypoints.points)}"
            )
        self._check_sizes()
        self._check_boxes()
        self._check_masks()
        self._check_pairs()

    def _fill_columns(self) -> None:
        """Make the columns that are not given, and let the reasons agree with `ignore`."""
        if self.annotation_ids is None:
            object.__setattr__(self, "annotation_ids", np.arange(1, len(self.boxes) + 1))
        reasons = self.ignore_reasons
        if reasons is None:
            object.__setattr__(self, "ignore_reasons", self.ignore.astype(np.uint8))  # MARKED is 1
        elif reasons.shape == self.ignore.shape and ((reasons != 0) != self.ignore).any():
            agreeing = np.where(self.ignore, np.maximum(reasons, IgnoreReason.MARKED), 0).astype(np.uint8)
            object.__setattr__(self, "ignore_reasons", agreeing)

    def _name_image(self, position: int) -> str:
        return f"{super()._name_image(position)} ({self.paths[position]})"

    def _describe(self, row: int) -> str:
        height, width = self.image_hw[self.position_of(row)]
        return f"{super()._describe(row)} of class {self.class_ids[row]} in an image of height {height}, width {width}"

    def _check_sizes(self) -> None:
        small = np.flatnonzero((self.image_hw < 1).any(axis=1))
        if len(small):
            position = int(small[0])
            height, width = self.image_hw[position]
            raise AnnotationError(
                f"{self.source}: expected sizes of at least 1 pixel, got height {height}, width {width} - "
                f"at {self._name_image(position)}"
            )

    def _check_boxes(self) -> None:
        positions = self.positions
        x0, y0, x1, y1 = self.boxes.T
        height, width = (side[positions] for side in np.ascontiguousarray(self.image_hw.T, np.float32))
        classes = len(self.class_names)
        # Column by column, and NaN compares false: a tenth of the time of the checks one by one, which are needed for
        # the message alone.
        if not (
            (x1 > x0).all()
            and (y1 > y0).all()
            and self.boxes.min(initial=0) >= 0
            and (x1 <= width).all()
            and (y1 <= height).all()
            and geometry.area(self.boxes).min(initial=1) > 0
            and self.class_ids.min(initial=0) >= 0
            and self.class_ids.max(initial=-1) < classes
        ):
            inside = (self.boxes[:, :2] >= 0).all(axis=1) & (x1 <= width) & (y1 <= height)
            self._check_rows(
                (
                    (np.isfinite(self.boxes), "finite box corners"),
                    ((x1 >= x0) & (y1 >= y0), "x0 <= x1 and y0 <= y1"),
                    (geometry.area(self.boxes) > 0, "a box with area"),
                    (inside, "a box inside its image"),
                    ((self.class_ids >= 0) & (self.class_ids < classes), "a known class"),
                )
            )

    def _check_masks(self) -> None:
        masks = MaskColumns.of(self.masks)
        object.__setattr__(self, "masks", masks)
        rows = masks.rows
        unknown = rows[(rows < 0) | (rows >= len(self.boxes))]
        if len(unknown):
            raise AnnotationError(
                f"{self.source}: expected masks of boxes 0 to {len(self.boxes) - 1}, got {unknown[0]}"
            )
        positions = self.positions_of(rows)
        pixels = self.image_hw[positions].prod(axis=1, dtype=np.int64)
        covered = masks.pixels
        for place in np.flatnonzero(covered != pixels)[:1].tolist():
            raise AnnotationError(
                f"{self.source}: expected a mask of {self.image_hw[positions[place]].tolist()} pixels, got runs over "
                f"{covered[place]} - at {self.place_of(int(rows[place]))}"
            )

    def _check_pairs(self) -> None:
        if (self.neg_classes is None) != (self.not_exhaustive_classes is None):
            raise AnnotationError(f"{self.source}: expected both of {' and '.join(_PAIRS)}, or none, got one")
        for name in _PAIRS if self.neg_classes is not None else ():
            pairs = getattr(self, name)
            if pairs.shape != (len(pairs), 2) or pairs.dtype != np.int32:
                raise AnnotationError(
                    f"{self.source}: expected `{name}` to be int32 (K, 2), got {pairs.dtype.name} {pairs.shape}"
                )
            known = ((pairs >= 0) & (pairs < [len(self), len(self.class_names)])).all(axis=1)
            if not known.all():
                raise AnnotationError(
                    f"{self.source}: expected pairs of one of {len(self)} positions and of {len(self.class_names)} "
                    f"classes, got {pairs[np.argmin(known)].tolist()} - at `{name}[{np.argmin(known)}]`"
                )
            pairs.setflags(write=False)

    def __repr__(self) -> str:
        return (
            f"Annotations({len(self)} images, {len(self.boxes)} boxes of which {int(self.ignore.sum())} ignored, "
            f"{len(self.class_names)} classes, from {self.source!r})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the commonest classes, and the labels at a glance; no image is read."""
        from detfeed.drawing import html, labels

        counts, ignored = (
            np.bincount(self.class_ids[rows], minlength=len(self.class_names)) for rows in (~self.ignore, self.ignore)
        )
        rows = [
            (class_id, self.class_names[class_id], int(counts[class_id]), int(ignored[class_id]))
            for class_id in np.argsort(-counts, kind="stable")[:_SHOWN_CLASSES].tolist()
        ]
        more = len(self.class_names) - len(rows)
        return "".join(
            (
                html.paragraph(repr(self)),
                html.table(("class id", f"class{f' (and {more} more)' * (more > 0)}", "objects", "ignored"), rows),
                html.picture(labels.draw_labels(self), "classes, sizes and places of boxes, and objects per image"),
            )
        )

    def select(self, positions: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Annotations:
        """The images in some rows, in that order, with their boxes and masks; all classes stay.

        Args:
            positions: rows (Q,), each at most once, or bool (P,); Q may be 0.

        Raises:
            IndexError: a position out of range.
            AnnotationError: a position that stands twice.
        """
        chosen = np.asarray(positions)
        chosen = np.arange(len(self))[chosen if chosen.size else chosen.astype(np.int64)]
        counts = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        pairs: dict[str, Any] = {}
        if self.neg_classes is not None:
            place_of = np.full(len(self), -1, np.int32)
            place_of[chosen] = np.arange(len(chosen))
            for name in _PAIRS:
                column = getattr(self, name)
                moved = np.stack([place_of[column[:, 0]], column[:, 1]], axis=1)
                pairs[name] = moved[moved[:, 0] >= 0]
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[position] for position in chosen),
            image_ids=self.image_ids[chosen],
            image_hw=self.image_hw[chosen],
            boxes=self.boxes[rows],
            class_ids=self.class_ids[rows],
            ignore=self.ignore[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            ignore_reasons=self.ignore_reasons[rows],
            offsets=offsets,
            masks=MaskColumns.of(self.masks).take(rows, len(self.boxes)),
            keypoints=None if self.keypoints is None else self.keypoints.take(rows),
            **pairs,
        )

    def split(
        self,
        fractions: float | Sequence[float],
        *,
        seed: int = 0,
        groups: Sequence[Hashable] | NDArray[np.generic] | None = None,
        keep_classes: bool = False,
    ) -> tuple[Annotations, ...]:
        """Divide the images at random into parts. Each image is in one part; parts keep the order of this table.

        A function of this table, the groups, fractions and seed alone (without groups and classes, of the number of
        images): the same call gives the same parts.

        Args:
            fractions: shares of the parts, which add up to 1, or one number f for the two parts f and 1 - f. A part
                gets the nearest whole number of images, which may be 0; with groups or classes, one near to it.
            seed: not negative.
            groups: of each image (P,), the group that it belongs to, such as a video or a patient, or the groups of
                `group_duplicates`; images of a group stay in one part. None: each image is a group.
            keep_classes: give each part its share of the images of each class, and to each part at least one group of
                images that shows a class, as long as there are such; that with the largest share comes first. Ignored
                boxes don't count.

        Raises:
            ValueError: shares that are negative or do not add up to 1, a negative seed, or not one group an image.
        """
        shares = (fractions, 1 - fractions) if isinstance(fractions, int | float) else tuple(fractions)
        if not shares or not min(shares) >= 0 or not abs(sum(shares) - 1) < 1e-6:
            raise ValueError(
                f"Expected fractions to be a number from 0 to 1, or several that add up to 1. Received: {fractions}"
            )
        if seed < 0:
            raise ValueError(f"Expected seed to be at least 0. Received: {seed}")
        if groups is not None and len(groups) != len(self):
            raise ValueError(f"Expected groups of {len(self)} images. Received: {len(groups)}")
        if groups is None and not keep_classes:
            shuffled = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(self))
            ends = np.rint(np.cumsum(shares)[:-1] * len(self)).astype(np.int64)
            return tuple(self.select(np.sort(part)) for part in np.split(shuffled, ends))
        group_of = np.arange(len(self)) if groups is None else numbered(groups)
        sizes = np.bincount(group_of)
        shown = np.zeros((0, 2), np.int64)
        if keep_classes:
            columns = np.column_stack([self.positions, self.class_ids])
            shown = np.unique(columns[~self.ignore], axis=0)
        counts = np.zeros((len(sizes), len(self.class_names) if keep_classes else 0), np.int64)
        np.add.at(counts, (group_of[shown[:, 0]], shown[:, 1]), 1)
        parts = divide(counts, sizes, shares, seed=seed)[group_of]
        return tuple(self.select(np.flatnonzero(parts == part)) for part in range(len(shares)))

    def rename_classes(self, names: Mapping[str, str]) -> Annotations:
        """Give classes other names; classes that get one name become one class.

        A merged class has the place and the category id of its first part. Of boxes that repeat each other in a merged
        class, the first stays. In a federated set, an image shows none of a merged class if it shows none of its parts.

        Args:
            names: new name by old name; classes that it leaves out keep theirs.

        Raises:
            ValueError: an old name that no class has.
        """
        unknown = sorted(set(names) - set(self.class_names))
        if unknown:
            raise ValueError(f"Expected names of classes among {among(self.class_names)}. Received: {unknown}")
        renamed = [names.get(name, name) for name in self.class_names]
        class_names = tuple(dict.fromkeys(renamed))
        class_of = {name: row for row, name in enumerate(class_names)}
        new_ids = np.array([class_of[name] for name in renamed], np.int32)
        pairs: dict[str, Any] = {}
        if self.neg_classes is not None and self.not_exhaustive_classes is not None:
            moved, counts = np.unique(_moved(np.unique(self.neg_classes, axis=0), new_ids), axis=0, return_counts=True)
            pairs["neg_classes"] = moved[counts == np.bincount(new_ids, minlength=1)[moved[:, 1]]]
            pairs["not_exhaustive_classes"] = np.unique(_moved(self.not_exhaustive_classes, new_ids), axis=0)
        table = dataclasses.replace(
            self,
            class_ids=new_ids[self.class_ids],
            class_names=class_names,
            category_ids=self.category_ids[[renamed.index(name) for name in class_names]],
            **pairs,
        )
        return table if len(class_names) == len(renamed) else table._without_repeats()

    def with_classes(self, class_names: Sequence[str]) -> Annotations:
        """The table with the classes of another one, in its order, so that class ids mean the same in both.

        Validation data needs it where its files were read alone: formats without a list of classes number those that
        they find.

        Args:
            class_names: names, each once. Classes that the table does not have get category ids above its own.

        Raises:
            AnnotationError: boxes have a class that is not among them.
            ValueError: a name stands twice.
        """
        if len(set(class_names)) < len(class_names):
            raise ValueError(f"Expected each name once. Received: {list(class_names)}")
        row_of = {name: row for row, name in enumerate(class_names)}
        counts = np.bincount(self.class_ids, minlength=len(self.class_names))
        strange = [name for name, count in zip(self.class_names, counts, strict=True) if count and name not in row_of]
        if strange:
            raise AnnotationError(
                f"{self.source}: expected boxes of the classes {among(class_names)}, got some of {among(strange)}; "
                "see `rename_classes`"
            )
        new_ids = np.array([row_of.get(name, -1) for name in self.class_names], np.int32)
        category_ids = int(self.category_ids.max(initial=0)) + 1 + np.arange(len(class_names))
        kept = new_ids >= 0
        category_ids[new_ids[kept]] = self.category_ids[kept]
        pairs: dict[str, Any] = {}
        if self.neg_classes is not None and self.not_exhaustive_classes is not None:
            for name in _PAIRS:
                moved = _moved(getattr(self, name), new_ids)
                pairs[name] = moved[moved[:, 1] >= 0]
        return dataclasses.replace(
            self, class_ids=new_ids[self.class_ids], class_names=tuple(class_names), category_ids=category_ids, **pairs
        )

    def _without_repeats(self) -> Annotations:
        """The table without boxes that repeat an earlier one of their image, class and ignore flag."""
        kept = ~repeated_rows(self.positions, self.class_ids, self.ignore, self.boxes + np.float32(0))
        places = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return dataclasses.replace(
            self,
            boxes=self.boxes[kept],
            class_ids=self.class_ids[kept],
            ignore=self.ignore[kept],
            areas=self.areas[kept],
            annotation_ids=self.annotation_ids[kept],
            ignore_reasons=self.ignore_reasons[kept],
            offsets=places[self.offsets],
            masks=MaskColumns.of(self.masks).take(np.flatnonzero(kept), len(self.boxes)),
            keypoints=None if self.keypoints is None else self.keypoints.take(np.flatnonzero(kept)),
        )


def concat(tables: Sequence[Annotations], *, new_ids: bool = False) -> Annotations:
    """One table of the images of several, in their order; classes of one name become one class.

    Classes are in the order in which the tables name them first. They keep their category ids if the tables agree on
    them and they ascend, else they are numbered from 1.

    Args:
        tables: at least one.
        new_ids: number the images from 1 instead of keeping their ids.

    Raises:
        AnnotationError: two images have the same id, or some ids are numbers and others names, and not `new_ids`; some
            tables are federated and others are not.
        ValueError: no tables.
    """
    if not tables:
        raise ValueError("Expected at least one table. Received: none")
    source = " + ".join(table.source for table in tables)
    if new_ids:
        image_ids: NDArray[np.generic] = np.arange(1, 1 + sum(map(len, tables)), dtype=np.int64)
    else:
        image_ids = _joined_ids(tables, source)
    federated = [table.neg_classes is not None for table in tables]
    if any(federated) != all(federated):
        odd = tables[federated.index(False)]
        raise AnnotationError(
            f"{source}: expected all tables to be federated or none, got {odd.source} with neg_classes=None; "
            "dataclasses.replace gives it neg_classes and not_exhaustive_classes"
        )

    ids_of: dict[str, set[int]] = {}
    for table in tables:
        for name, category_id in zip(table.class_names, table.category_ids.tolist(), strict=True):
            ids_of.setdefault(name, set()).add(category_id)
    class_names = tuple(ids_of)
    class_of = {name: row for row, name in enumerate(class_names)}
    category_ids = np.array([min(ids) for ids in ids_of.values()], np.int64)
    if any(len(ids) > 1 for ids in ids_of.values()) or (np.diff(category_ids) <= 0).any():
        category_ids = np.arange(1, 1 + len(class_names))

    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ("class_ids", "offsets", *_PAIRS)}
    first_image = first_row = 0
    for table in tables:
        new_classes = np.array([class_of[name] for name in table.class_names], np.int32)
        columns["class_ids"].append(new_classes[table.class_ids])
        columns["offsets"].append(table.offsets[:-1] + first_row)
        for name in _PAIRS if all(federated) else ():
            columns[name].append(_moved(getattr(table, name), new_classes, first_image))
        first_image += len(table)
        first_row += len(table.boxes)
    columns["offsets"].append(np.array([first_row]))
    return Annotations(
        paths=tuple(path for table in tables for path in table.paths),
        image_ids=image_ids,
        image_hw=np.concatenate([table.image_hw for table in tables]),
        boxes=np.concatenate([table.boxes for table in tables]),
        ignore=np.concatenate([table.ignore for table in tables]),
        areas=np.concatenate([table.areas for table in tables]),
        annotation_ids=np.concatenate([table.annotation_ids for table in tables]),
        ignore_reasons=np.concatenate([table.ignore_reasons for table in tables]),
        class_names=class_names,
        category_ids=category_ids,
        masks=join_masks([MaskColumns.of(table.masks) for table in tables], [len(table.boxes) for table in tables]),
        keypoints=_joined_keypoints(tables, source),
        source=source,
        **{name: np.concatenate(parts) for name, parts in columns.items() if parts},
    )


def _joined_ids(tables: Sequence[Annotations], source: str) -> NDArray[np.generic]:
    kinds = [table.image_ids.dtype.kind for table in tables if len(table)]
    if len(set(kinds)) > 1:
        raise AnnotationError(
            f"{source}: expected image ids that are all numbers or all names, got both; new_ids=True numbers the images"
        )
    image_ids = np.concatenate([table.image_ids for table in tables if len(table)] or [tables[0].image_ids])
    unique, counts = np.unique(image_ids, return_counts=True)
    if len(unique) < len(image_ids):
        twice, count = unique[counts > 1][0].item(), counts[counts > 1][0]
        raise AnnotationError(
            f"{source}: expected each image id once, got {twice!r} {count} times; new_ids=True numbers the images"
        )
    return image_ids


def _joined_keypoints(tables: Sequence[Annotations], source: str) -> Keypoints | None:
    """The keypoints of several tables; those of a table without any are not labelled."""
    found = [table.keypoints for table in tables if table.keypoints is not None]
    if not found:
        return None
    first = found[0]
    for other in found:
        if other.names != first.names or other.flips.tolist() != first.flips.tolist():
            raise AnnotationError(
                f"{source}: expected the same keypoints in all tables, got {first.names} and {other.names}"
            )
    none = np.zeros((1, len(first.flips), 3), np.float32)
    points = [
        np.repeat(none, len(table.boxes), axis=0) if table.keypoints is None else table.keypoints.points
        for table in tables
    ]
    return dataclasses.replace(first, points=np.concatenate(points))


def _moved(pairs: NDArray[np.int32], class_ids: NDArray[np.int32], first_image: int = 0) -> NDArray[np.int32]:
    """Pairs of positions and class ids with other class ids, and positions counted from another image on."""
    return np.stack([pairs[:, 0] + first_image, class_ids[pairs[:, 1]]], axis=1).astype(np.int32)


def repeated_rows(
    positions: NDArray[np.int64], class_ids: NDArray[np.int32], ignore: NDArray[np.bool_], boxes: Boxes
) -> NDArray[np.bool_]:
    """Which boxes equal an earlier one, of the same image, class and ignore flag.

    Args:
        positions: int64 (N,), images of the boxes.
        class_ids, ignore, boxes: as in `Annotations`; without -0.0.

    Returns:
        bool (N,).
    """
    columns = (positions, class_ids, ignore, *boxes.view(np.int32).T)
    repeats = np.zeros(len(boxes), bool)
    # Sorting hashes takes a tenth of sorting rows; only those whose hash is not alone are then compared.
    factors = np.random.default_rng(0).integers(2**63, size=len(columns), dtype=np.uint64)
    hashes = np.zeros(len(boxes), np.uint64)
    for column, factor in zip(columns, factors, strict=True):
        hashes += column.astype(np.uint64) * factor
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        suspects = np.flatnonzero(twice[np.searchsorted(twice[:-1], hashes)] == hashes)
        rows = np.column_stack([column[suspects] for column in columns])
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        repeats[suspects] = first[inverse.reshape(-1)] != np.arange(len(suspects))
    return repeats
