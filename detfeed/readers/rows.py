"""Rows: the images and objects that a reader finds, collected in columns until they become a table."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.errors import AnnotationError, DetfeedError
from detfeed.keypoints import Keypoints
from detfeed.mask_columns import NO_MASKS, MaskColumns
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.draft import Draft
from detfeed.readers.many_files import read_files
from detfeed.readers.paths import NamedImages
from detfeed.readers.problems import OnProblem, Problems, StatedSize, hw_if_read, read_hw
from detfeed.readers.table import to_annotations


class ObjectRow(NamedTuple):
    """An object as its file gives it.

    Attributes:
        label: its class as the file names it, such as a name or a number.
        box: x0, y0, x1, y1, in pixels or as shares of the image's width and height; see `Rows.to_annotations`.
        place: number of its line or element, from 1.
        ignore: whether it is an ignore region.
        polygon: x and y of the points around it in turn, in the unit of the box; empty: it has none.
        keypoints: x, y in the unit of the box and visibility of each in turn; of all objects alike, or of none.
    """

    label: Hashable
    box: Sequence[float]
    place: int
    ignore: bool = False
    polygon: Sequence[float] = ()
    keypoints: Sequence[float] = ()


class ImageRow(NamedTuple):
    """An image with its objects, as an annotation file gives them.

    Attributes:
        path: of the image file.
        image_id: of the image.
        objects: in the file's order; may be empty.
        hw: height and width in pixels. None: those in the image's header.
        stated: the size that the header must agree with, where `hw` is None.
    """

    path: str
    image_id: str
    objects: Sequence[ObjectRow]
    hw: tuple[int, int] | None = None
    stated: StatedSize | None = None


class Rows:
    """Images and objects in the order in which a reader finds them.

    Where each image has an annotation file of its own, call `add_file` for each; where one file lists the objects of
    all images, call `add_lines` once. Both leave out what can't be read, and report it. Then call `stop`, and
    `to_annotations`.

    Objects are kept in arrays, 53 bytes each, since OpenImages has 14 million.

    Attributes:
        source: the file or folder that is read.
        labels: number by label, of all objects so far.
    """

    def __init__(
        self,
        source: str,
        *,
        where: str,
        on_problem: OnProblem | None,
        ignored_as: IgnoreReason = IgnoreReason.MARKED,
    ) -> None:
        """Begin without images.

        Args:
            source: the file or folder that is read, for messages.
            where: form of an object's place in messages, such as "{file}, line {place}". `file` is the annotation file
                with `add_file`, the image with `add_lines`.
            on_problem: called with (path, error) for each file, line and image that can't be read. None: `stop` raises
                the first error.
            ignored_as: why the format makes an object an ignore region.
        """
        self.source = source
        self._ignored_as = ignored_as
        self.labels: dict[Hashable, int] = {}
        self._where = where
        self._problems = Problems(on_problem)
        self._paths: list[str] = []
        self._image_ids: list[str] = []
        self._sizes_hw: list[tuple[int, int]] = []
        self._files: list[str] = []
        self._left_out: set[int] = set()
        self._boxes, self._positions, self._classes = array("d"), array("q"), array("i")
        self._places, self._ignore = array("q"), array("b")
        self._keypoints = array("d")
        self._polygon_rows, self._point_counts, self._points = array("q"), array("q"), array("d")

    def __len__(self) -> int:
        """Number of images."""
        return len(self._paths)

    def add_file(self, file: str, read: Callable[[str], ImageRow]) -> bool:
        """Add the image of an annotation file, unless the file or the image's header can't be read.

        Args:
            file: the annotation file.
            read: reads it; raises an AnnotationError if that fails.

        Returns:
            Whether the image was added.
        """
        try:
            image = read(file)
        except AnnotationError as error:
            self.add_problem(file, error)
            return False
        hw = image.hw or read_hw(image.path, self.add_problem, stated=image.stated)
        if hw is None:
            return False
        for item in image.objects:
            self._add_object(len(self), item)
        self._add_image(image.path, image.image_id, hw, file)
        return True

    def add_problem(self, path: str, error: DetfeedError) -> None:
        """Report what can't be read; see `Problems.add`."""
        self._problems.add(path, error)

    def stop(self) -> None:
        """Raise the first error that `on_problem` did not get, and say how many more there are."""
        self._problems.stop()

    def add_lines(
        self,
        lines: Iterable[tuple[int, list[str]]],
        images: NamedImages,
        read: Callable[[int, list[str]], ObjectRow | None],
        *,
        size: Callable[[list[str]], tuple[int, int] | None] | None = None,
        name_at: int = 0,
    ) -> None:
        """Add the objects of the lines of `source`, and their images, whose sizes are read from their headers.

        A line that can't be read leaves out its image with all its objects; a line that names no image leaves out
        itself.

        Args:
            lines: number and fields of each line.
            images: gets the images that the lines name; empty before.
            read: makes an object of a line's number and fields, or None if the line names an image without objects.
                Raises a ValueError, whose message gets the line's address, if it can't.
            size: gives the height and width that a line's fields state, or None; may raise as `read` does.
            name_at: the field that names the image.
        """
        stated: dict[int, StatedSize] = {}
        for line, fields in lines:
            position = None
            try:
                if name_at < len(fields):
                    position = images.position(fields[name_at])
                item = read(line, fields)
                if size is not None and position is not None and (hw := size(fields)):
                    _agree(stated.setdefault(position, StatedSize(hw, f"line {line} of {self.source}")), hw)
            except ValueError as error:
                if position is not None:
                    self._left_out.add(position)
                self.add_problem(self.source, with_address(error, self.source, line))
                continue
            if item is not None and position is not None:
                self._add_object(position, item)
        known = [(path, stated.get(position)) for position, path in enumerate(images.paths)]
        with read_files(hw_if_read, known) as reads:
            for position, (path, image_id, read_size) in enumerate(zip(images.paths, images.ids, reads, strict=True)):
                hw = None
                if position not in self._left_out:
                    hw = read_size() or read_hw(path, self.add_problem, images.near, stated.get(position))
                if hw is None:
                    self._left_out.add(position)
                self._add_image(path, image_id, hw or (1, 1), path)

    def _add_image(self, path: str, image_id: str, hw: tuple[int, int], file: str) -> None:
        self._paths.append(path)
        self._image_ids.append(image_id)
        self._sizes_hw.append(hw)
        self._files.append(file)

    def _add_object(self, position: int, item: ObjectRow) -> None:
        label, box, place, ignore, polygon, keypoints = item
        self._keypoints.extend(keypoints)
        if polygon:
            self._polygon_rows.append(len(self._places))
            self._point_counts.append(len(polygon) // 2)
            self._points.extend(polygon)
        self._positions.append(position)
        self._classes.append(self.labels.setdefault(label, len(self.labels)))
        self._boxes.extend(box)
        self._places.append(place)
        self._ignore.append(ignore)

    def to_annotations(
        self,
        class_names: Sequence[str],
        *,
        invalid: Invalid,
        labels: Collection[Hashable] | None = None,
        category_ids: Sequence[int] | None = None,
        shares: bool = False,
        keypoints: Keypoints | None = None,
    ) -> Annotations:
        """Build the table.

        Args:
            class_names: the classes in their order.
            invalid: policy for bad boxes; see `BadBoxesWarning`.
            labels: the labels of the classes in their order; all labels of objects are among them. None: their names.
            category_ids: the file's own numbers of the classes. None: from 1.
            shares: the boxes, polygons and keypoints are shares of their image's width and height. False: pixels.
            keypoints: those of no box, with names and flips; all objects have so many. None: they have none.

        Raises:
            As `to_annotations` of a draft.
        """
        self.stop()
        class_of = {label: row for row, label in enumerate(class_names if labels is None else labels)}
        class_ids = np.array([class_of[label] for label in self.labels], np.int32)
        positions = np.asarray(self._positions)
        image_hw = np.array(self._sizes_hw, np.int64).reshape(-1, 2)
        boxes: NDArray[np.float64] = np.asarray(self._boxes).reshape(-1, 4)
        if shares:
            with np.errstate(over="ignore"):  # an infinite corner lies outside its image, like others
                boxes = boxes * np.tile(image_hw[:, ::-1], 2)[positions]
        sizes_hw = image_hw[positions]
        if keypoints is not None:
            points = np.asarray(self._keypoints).reshape(len(positions), len(keypoints.flips), 3)
            with np.errstate(over="ignore"):  # an infinite point lies outside its image, like others
                points = points * (np.insert(sizes_hw[:, None, ::-1], 2, 1, axis=2) if shares else 1)
                points = points.astype(np.float32)
            keypoints = dataclasses.replace(keypoints, points=points).inside(sizes_hw.T[:, :, None])
        draft = Draft(
            source=self.source,
            paths=self._paths,
            image_ids=np.array(self._image_ids, str),
            image_hw=image_hw,
            boxes=boxes,
            positions=positions,
            class_ids=class_ids[np.asarray(self._classes)],
            ignore=np.asarray(self._ignore).astype(bool),
            ignore_reasons=np.asarray(self._ignore).astype(np.uint8) * np.uint8(self._ignored_as),
            class_names=class_names,
            category_ids=np.array(range(1, len(class_names) + 1) if category_ids is None else category_ids, np.int64),
            where=lambda row: self._where.format(file=self._files[self._positions[row]], place=self._places[row]),
            left_out=self._left_out,
            masks=self._masks(sizes_hw[np.asarray(self._polygon_rows)], shares),
            keypoints=keypoints,
        )
        return to_annotations(draft, invalid=invalid, shares=shares)

    def _masks(self, sizes_hw: NDArray[np.int64], shares: bool) -> MaskColumns:
        """The polygons of objects, which lie in images of these heights and widths, int64 (M, 2)."""
        if not self._polygon_rows:
            return NO_MASKS
        counts = np.array(self._point_counts)
        points = np.asarray(self._points).reshape(-1, 2)
        if shares:
            points = points * np.repeat(sizes_hw[:, ::-1], counts, axis=0)
        return MaskColumns.made(
            np.array(self._polygon_rows),
            sizes_hw=sizes_hw,
            points=points.astype(np.float32),
            point_counts=counts,
            polygon_counts=np.ones(len(counts), np.int64),
        )


def _agree(first: StatedSize, hw: tuple[int, int]) -> None:
    if first.hw != hw:
        raise ValueError(f"expected the height and width of {first.where}, {first.hw}, got {hw}")


def with_address(error: ValueError, source: str, line: int) -> AnnotationError:
    """An error about a line of a file; an AnnotationError has its address already."""
    if isinstance(error, AnnotationError):
        return error
    addressed = AnnotationError(f"{source}: {error} - at line {line}")
    addressed.__suppress_context__ = True  # the error without an address says nothing more
    return addressed
