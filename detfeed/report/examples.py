"""Examples: the images that a check's findings speak of, with the boxes concerned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detfeed.annotations import Annotations
from detfeed.check.findings import Checked, Example, Finding
from detfeed.errors import ImageError
from detfeed.images.decoding import read_image
from detfeed.images.resizing import Image
from detfeed.report.pictures import SMALL, Layer, Pictures, Shape, box

# Pictures that a finding shows; a page has up to some 30 findings.
SHOWN = 6
# Findings about files that can't be decoded, or of which the annotation names no picture.
_UNSEEN = ("unreadable-image", "damaged-image", "unsupported-image", "too-large", "missing-image")


class ExamplePictures:
    """Makes the pictures of findings; an image of which several findings speak is read once.

    Args:
        pictures: gets them.
        checked: the data sets that were checked.
    """

    def __init__(self, pictures: Pictures, checked: Sequence[Checked]) -> None:
        self._pictures = pictures
        self._tables = {one.name: one.annotations for one in checked if one.annotations is not None}
        self._places = {
            name: {path: position for position, path in enumerate(table.paths)} for name, table in self._tables.items()
        }
        self._sources: dict[str, tuple[int, tuple[int, int]] | str] = {}

    def of(self, finding: Finding) -> list[dict[str, Any]]:
        """What a finding shows: a group for each image, with the numbers of its pictures or the reason for none."""
        if finding.kind in _UNSEEN:
            return []
        groups: dict[str, list[Example]] = {}
        for example in finding.examples:
            if self._is_image(example):
                groups.setdefault(example.file, []).append(example)
        return [self._group(finding, path, group) for path, group in list(groups.items())[:SHOWN]]

    def _is_image(self, example: Example) -> bool:
        return example.image_id is not None or self._table_of(example.file) is not None or example.other is not None

    def _group(self, finding: Finding, path: str, examples: Sequence[Example]) -> dict[str, Any]:
        marked: list[Shape] = [box(one.corners, one.detail, "marked") for one in examples if one.corners is not None]
        own = self._add(path, marked, prefer=finding.data)
        numbers = [own]
        other = examples[0].other
        if other is not None:
            others = [name for name in self._tables if name != finding.data]
            prefer = others[0] if finding.kind == "leaked-images" and others else finding.data
            numbers.append(self._add(other, [], prefer=prefer))
        return {
            "pictures": [number for number in numbers if isinstance(number, int)],
            "failures": [reason for reason in numbers if isinstance(reason, str)],
            "joined": finding.kind if other is not None else "",
        }

    def _table_of(self, path: str, prefer: str = "") -> tuple[str, Annotations, int] | None:
        for name in sorted(self._tables, key=lambda name: name != prefer):
            if path in self._places[name]:
                return name, self._tables[name], self._places[name][path]
        return None

    def _add(self, path: str, marked: Sequence[Shape], *, prefer: str) -> int | str:
        """Add a picture of an image file with its boxes; its number, or the reason why there is none."""
        placed = self._table_of(path, prefer)
        annotated_hw = None
        layers: dict[Layer, list[Shape]] = {"truth": list(marked)}
        title = path
        if placed is not None:
            name, table, position = placed
            title = f"{name}: image {table.image_id(position)}"
            height, width = table.image_hw[position].tolist()
            annotated_hw = (height, width)
            layers = _annotated(table, position)
            layers["truth"] = [*layers["truth"], *marked]
        if path not in self._sources:
            self._sources[path] = self._read(path, annotated_hw)
        source = self._sources[path]
        if isinstance(source, str):
            return source
        number, image_hw = source
        notes = [path]
        if annotated_hw is not None and image_hw != annotated_hw:
            notes.append(
                f"the file has {image_hw[1]} x {image_hw[0]}, its annotation {annotated_hw[1]} x {annotated_hw[0]}"
            )
        return self._pictures.add(number, image_hw=image_hw, title=title, notes=notes, layers=layers)

    def _read(self, path: str, annotated_hw: tuple[int, int] | None) -> tuple[int, tuple[int, int]] | str:
        image: Image
        try:
            image = read_image(path, annotated_hw=annotated_hw)
        except ImageError as error:
            if annotated_hw is None:
                return str(error)
            try:
                image = read_image(path)  # of another size than annotated: what the file shows
            except ImageError as second:
                return str(second)
        height, width = image.shape[:2]
        return self._pictures.add_source(image, SMALL), (height, width)


def _annotated(table: Annotations, position: int) -> dict[Layer, list[Shape]]:
    """The boxes of an image in pixels of its file; those that are ignored in a layer of their own."""
    rows = table.rows(position)
    layers: dict[Layer, list[Shape]] = {"truth": [], "ignored": []}
    for row in range(rows.start, rows.stop):
        ignored = bool(table.ignore[row])
        name = table.class_names[int(table.class_ids[row])]
        corners = table.boxes[row]
        text = (
            f"{'ignored: ' if ignored else ''}{name}, {corners[2] - corners[0]:.0f} x {corners[3] - corners[1]:.0f} px"
        )
        layers["ignored" if ignored else "truth"].append(box(corners, text))
    return layers
