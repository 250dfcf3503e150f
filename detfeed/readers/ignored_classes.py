"""Ignored classes: those of which more boxes are ignored than learned, and the warning about them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.errors import shorten
from detfeed.readers.kitti import DONT_CARE
from detfeed.readers.notes import Notes

# Begins the warning.
MOSTLY_IGNORED = "classes have more ignored boxes than objects"

_SHOWN = 5


class IgnoredClass(NamedTuple):
    """A class of which more boxes are ignored than not.

    Attributes:
        class_id: its row in the table's `class_names`.
        num_objects, num_ignored: how many of its boxes are objects, and how many are ignored.
    """

    class_id: int
    num_objects: int
    num_ignored: int


def mostly_ignored(table: Annotations) -> list[IgnoredClass]:
    """The classes of a table of which more boxes are ignored than not, but for KITTI's regions without objects."""
    num_classes = len(table.class_names)
    ignored = np.bincount(table.class_ids[table.ignore], minlength=num_classes)
    objects = np.bincount(table.class_ids, minlength=num_classes) - ignored
    return [
        IgnoredClass(row, int(objects[row]), int(ignored[row]))
        for row in np.flatnonzero(ignored > objects).tolist()
        if table.class_names[row] != DONT_CARE
    ]


def warn_of_ignored(table: Annotations) -> None:
    """Issue one UserWarning that names the classes of a COCO or LVIS file of which more is ignored than learned."""
    found = mostly_ignored(table)
    if not found:
        return
    shown = [
        f"{shorten(table.class_names[one.class_id])} ({one.num_ignored} of {one.num_objects + one.num_ignored})"
        for one in found[:_SHOWN]
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    rows = np.flatnonzero(table.ignore & np.isin(table.class_ids, [one.class_id for one in found]))
    advice = "they are learned neither as objects nor as background"
    if (table.ignore_reasons[rows] == IgnoreReason.CROWD).any():
        advice += '; if iscrowd does not mean crowds, as CVAT writes it for each mask, read with crowds="object"'
    notes = Notes()
    notes.add(f"{MOSTLY_IGNORED}: {', '.join(shown)}{more}; {advice}", table.place_of(int(rows[0])))
    notes.warn(table.source)
