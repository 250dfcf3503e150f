"""Comparing: images that stand twice, within a data set and across two, and classes that differ."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.check.findings import Example, Findings, Repeat
from detfeed.check.pictures import Inspected, first_alike, inspect_images, look_like
from detfeed.images.files import is_url
from detfeed.readers.paths import walk_images

Named = list[tuple[str, Annotations]]  # (name, table) of each data set
Repeats = dict[Repeat, NDArray[np.bool_]]


def compare_classes(train: Annotations, val: Annotations, findings: Findings) -> None:
    """Report the first class in which validation data differs from training data."""
    for place, names in enumerate(itertools.zip_longest(train.class_names, val.class_names)):
        if names[0] != names[1]:
            detail = f"class {place} is {names[0]!r} in training data, {names[1]!r} in validation data"
            findings.add("different-classes", "val", [Example(val.source, detail=detail)])
            return


def compare_folders(
    tables: Named,
    image_dirs: Sequence[str],
    skipped: Collection[str],
    findings: Findings,
    *,
    fast: bool,
    workers: int | None,
) -> None:
    """Report image files in folders that no data set names, and that could be fed.

    Args:
        tables: the data sets.
        image_dirs: the folders; each is reported once, as of the first data set.
        skipped: files that could not be read; images with their names are not reported again.
        findings: gets the findings.
        fast, workers: as in `inspect_images`.
    """
    named = {_file(path) for _, table in tables for path in table.paths}
    stems = {_stem(path) for path in skipped}
    for folder in dict.fromkeys(image_dirs):
        paths = [os.path.join(folder, name) for name in sorted(walk_images(folder))]
        left = [path for path in paths if _file(path) not in named and _stem(path) not in stems]
        images = inspect_images(left, fast=fast, workers=workers)
        examples = [Example(path) for path, image in zip(left, images, strict=True) if not image.problem]
        findings.add("unnamed-images", tables[0][0], examples)
        named.update(map(_file, left))


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def compare_paths(tables: Named, inspected: list[Inspected], findings: Findings) -> Repeats:
    """Report image files that stand twice, in one data set or in two.

    Args:
        tables: the data sets.
        inspected: the images of all of them, in order.
        findings: gets the findings.

    Returns:
        `Checked.repeats` of the first data set.
    """
    images = iter(inspected)
    repeats = _no_repeats(tables)
    seen: dict[str, dict[str, str]] = {}  # data set -> absolute path -> path as annotated
    for name, table in tables:
        own = seen[name] = {}
        for position, path in enumerate(table.paths):
            if next(images).problem == "missing-image":
                continue
            place = _file(path)
            for other, paths in seen.items():
                if place in paths:
                    kind = "identical-images" if other == name else "leaked-images"
                    detail = f"the same file as {paths[place]}"
                    example = Example(path, table.image_id(position), detail=detail, other=paths[place])
                    findings.add(kind, name, [example])
                    if kind == "identical-images" and name == tables[0][0]:
                        repeats["identical"][position] = True
            own.setdefault(place, path)
    if len(tables) == 2:
        val = set(map(_file, tables[1][1].paths))
        repeats["leaked"][:] = [_file(path) in val for path in tables[0][1].paths]
    return repeats


def compare_images(tables: Named, inspected: list[Inspected], findings: Findings) -> Repeats:
    """Report images that are the same or look alike, in one data set or in two.

    Args:
        tables: the data sets.
        inspected: the images of all of them, in order.
        findings: gets the findings.

    Returns:
        `Checked.repeats` of the first data set.
    """
    repeats = _no_repeats(tables)
    places = [(name, table, position) for name, table in tables for position in range(len(table))]
    rows = [row for row, image in enumerate(inspected) if image.thumbnail]
    if not rows:
        return repeats
    found: dict[tuple[str, str], list[Example]] = {}
    noted: dict[tuple[str, str], list[int]] = {}  # rows

    def note(kind: str, row: int, other: int) -> None:
        (name, table, position), (_, other_table, other_position) = places[row], places[other]
        same = inspected[row].digest == inspected[other].digest
        other_path = other_table.paths[other_position]
        detail = f"{'the same file as' if same else 'looks like'} {other_path}"
        noted.setdefault((kind, name), []).append(row)
        found.setdefault((kind, name), []).append(
            Example(table.paths[position], table.image_id(position), detail=detail, other=other_path)
        )

    hashes = np.array([inspected[row].hash for row in rows], np.uint64)
    thumbnails = np.stack([np.frombuffer(inspected[row].thumbnail, np.uint8) for row in rows])
    first = first_alike(hashes, thumbnails)
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
        if name == tables[0][0]:
            positions = [places[row][2] for row in noted[kind, name]]
            repeats["identical" if kind == "identical-images" else "similar"][positions] = True
    own = np.array(rows) < len(tables[0][1])
    repeats["leaked"][np.array(rows)[own]] = look_like(hashes, thumbnails, ~own)[own]
    return repeats


def _no_repeats(tables: Named) -> Repeats:
    count = len(tables[0][1]) if tables else 0
    return {"identical": np.zeros(count, bool), "similar": np.zeros(count, bool), "leaked": np.zeros(count, bool)}


def _file(path: str) -> str:
    """One name for each image file."""
    return path if is_url(path) else os.path.abspath(path)
