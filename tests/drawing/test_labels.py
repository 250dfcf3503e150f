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
    table = annotate([(100, 100)] * 2, [[[0, 0, 10, 10]], [[4, 4, 6, 6]]])
    moved = dataclasses.replace(table, boxes=100 - table.boxes[:, [2, 3, 0, 1]])
    pictures = [draw_labels(each).astype(int) for each in (table, moved)]
    assert pictures[0].shape == pictures[1].shape
    bright = [np.argwhere((each == (255, 240, 120)).all(axis=2)) for each in pictures]
    # The sizes are as they were, so what moves is the map of places, a cell to the opposite corner.
    assert (bright[1].max(axis=0) - bright[0].max(axis=0) > 100).any() or (bright[0] != bright[1]).any()
    assert len(bright[0]) == len(bright[1]) > 40
