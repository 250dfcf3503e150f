"""Comparing: images that stand twice, within a data set and across two, and classes that differ."""

from __future__ import annotations

import itertools
import os

import numpy as np

from detfeed.annotations import Annotations
from detfeed.check.findings import Example, Findings
from detfeed.check.pictures import Inspected, first_alike
from detfeed.images.files import is_url

Named = list[tuple[str, Annotations]]  # (name, table) of each data set


def compare_classes(train: Annotations, val: Annotations, findings: Findings) -> None:
    """Report the first class in which validation data differs from training data."""
    for place, names in enumerate(itertools.zip_longest(train.class_names, val.class_names)):
        if names[0] != names[1]:
            detail = f"class {place} is {names[0]!r} in training data, {names[1]!r} in validation data"
            findings.add("different-classes", "val", [Example(val.source, detail=detail)])
            return


def compare_paths(tables: Named, inspected: list[Inspected], findings: Findings) -> None:
    """Report image files that stand twice, in one data set or in two.

    Args:
        tables: the data sets.
        inspected: the images of all of them, in order.
        findings: gets the findings.
    """
    images = iter(inspected)
    seen: dict[str, dict[str, str]] = {}  # data set -> absolute path -> path as annotated
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


def compare_images(tables: Named, inspected: list[Inspected], findings: Findings) -> None:
    """Report images that are the same or look alike, in one data set or in two.

    Args:
        tables: the data sets.
        inspected: the images of all of them, in order.
        findings: gets the findings.
    """
    places = [(name, table, position) for name, table in tables for position in range(len(table))]
    rows = [row for row, image in enumerate(inspected) if image.thumbnail]
    if not rows:
        return
    found: dict[tuple[str, str], list[Example]] = {}

    def note(kind: str, row: int, other: int) -> None:
        (name, table, position), (_, other_table, other_position) = places[row], places[other]
        same = inspected[row].digest == inspected[other].digest
        detail = f"{'the same file as' if same else 'looks like'} {other_table.paths[other_position]}"
        found.setdefault((kind, name), []).append(
            Example(table.paths[position], table.image_id(position), detail=detail)
        )

    first = first_alike(
        np.array([inspected[row].hash for row in rows], np.uint64),
        np.stack([np.frombuffer(inspected[row].thumbnail, np.uint8) for row in rows]),
    )
    first_same: dict[tuple[str, bytes], int] = {}  # (data set, digest) -> row
    for row, like in zip(rows, first.tolist(), strict=True):
        name, digest = places[row][0], inspected[row].digest
        other = rows[like] if like >= 0 else row
        leaked = places[other][0] != name
        # An identical file is named rather than one that looks alike, even if it comes later.
        if leaked:
            note("leaked-images", row, first_same.get((places[other][0], digest), other))
        same = first_same.setdefault((name, digest), row)
        if same != row:
            note("identical-images", row, same)
        elif other != row and not leaked:
            note("similar-images", row, other)
    for (kind, name), examples in found.items():
        findings.add(kind, name, examples)
