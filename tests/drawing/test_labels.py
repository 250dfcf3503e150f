"""The picture of a data set's labels."""

import dataclasses

import numpy as np
import pytest

from detfeed.drawing import labels
from detfeed.drawing.labels import draw_labels
from detfeed.drawing.marks import BLUE, PURPLE


def count(image, colour):
    return int((image == colour).all(axis=2).sum())


def test_table_without_boxes_or_images_is_drawn(annotate):
    for table in (annotate([], []), annotate([(60, 80)], [[]]), annotate([], [], classes=0)):
        picture = draw_labels(table)
        assert picture.dtype == np.uint8
        assert count(picture, PURPLE) == 0


def test_bars_of_classes_are_as_long_as_their_counts_say(annotate):
    boxes = [[1 + n, 1, 20 + n, 20] for n in range(8)]
    table = annotate([(60, 80)], [boxes], ignore_of=[[False] * 6 + [True] * 2], classes=1)
    picture = draw_labels(table)
    rows = np.flatnonzero((picture == PURPLE).all(axis=2).any(axis=1))
    bar = picture[rows[0]]
    assert (bar == PURPLE).all(axis=1).sum() * 3 == pytest.approx((bar == BLUE).all(axis=1).sum(), abs=3)


def test_more_classes_than_fit_are_counted_together(annotate, monkeypatch):
    table = annotate([(60, 80)], [[[1, 1, 20, 20], [2, 2, 9, 9]]], classes=40)
    monkeypatch.setattr(labels, "MOST_CLASSES", 50)
    long = draw_labels(table)
    monkeypatch.undo()
    assert draw_labels(table).shape[0] < long.shape[0]


def test_map_of_places_is_bright_where_objects_are(annotate):
    table = annotate([(100, 100)], [[[0, 0, 10, 10]]])
    opposite = dataclasses.replace(table, boxes=100 - table.boxes[:, [2, 3, 0, 1]])
    one, other = ((draw_labels(each) == (255, 240, 120)).all(axis=2) for each in (table, opposite))
    moved, left = np.argwhere(other & ~one), np.argwhere(one & ~other)
    # The sizes are as they were: what moves is the cell of the place, by 0.9 of 300 pixels, in cells of 300 / 42.
    assert len(moved) == len(left) > 40
    np.testing.assert_allclose(moved.min(axis=0) - left.min(axis=0), 270, atol=9)


def test_map_of_sizes_has_wide_objects_on_the_right_and_high_ones_on_top(annotate):
    wide, high = (
        (draw_labels(annotate([(100, 100)], [[box]])) == (255, 240, 120)).all(axis=2)
        for box in ([30, 48, 70, 52], [48, 30, 52, 70])  # of one centre
    )
    row, column = (np.argwhere(wide & ~high).mean(axis=0) - np.argwhere(high & ~wide).mean(axis=0)).tolist()
    assert row > 100 and column > 100
