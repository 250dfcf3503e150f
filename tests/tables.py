"""Tables for tests: drafts of made up boxes, and the comparison of two tables."""

import dataclasses

import numpy as np

from detfeed.readers.draft import Draft
from detfeed.readers.table import to_annotations


def draft(boxes, *, positions=None, class_ids=None, ignore=None, sizes=((10, 20),), **columns):
    """A draft of boxes on images of 10 x 20, whose places in the file are lines."""
    count = len(boxes)
    return Draft(
        paths=[f"{i}.png" for i in range(len(sizes))],
        image_ids=np.arange(len(sizes)),
        image_hw=np.array(sizes, np.int64).reshape(-1, 2),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        positions=np.array(positions or [0] * count, np.int64),
        class_ids=np.array(class_ids or [0] * count, np.int32),
        ignore=np.array(ignore or [False] * count, bool),
        class_names=["a", "b"],
        category_ids=np.array([1, 2]),
        source="some file",
        where=lambda row: f"line {row + 1}",
        **columns,
    )


def clean(boxes, invalid="clip", **columns):
    """The table of a draft."""
    return to_annotations(draft(boxes, **columns), invalid=invalid)


def assert_same(table, other):
    """All columns are equal, in values and dtypes; their sources may differ."""
    for field in dataclasses.fields(other):
        mine, theirs = getattr(table, field.name), getattr(other, field.name)
        if field.name == "masks":
            assert sorted(mine) == sorted(theirs)
            assert all((mine[row] == theirs[row]).all() for row in theirs)
        elif field.name == "keypoints" and theirs is not None:
            np.testing.assert_array_equal(mine.points, theirs.points)
            assert (mine.names, mine.flips.tolist()) == (theirs.names, theirs.flips.tolist())
        elif field.name != "source":
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
            assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None), field.name
