"""Detections drawn beside the truth."""

import numpy as np
import pytest

from detfeed.drawing.detections import compare_detections, draw_detections
from detfeed.drawing.marks import BLUE, GREY, PURPLE, RED, YELLOW

IMAGE = np.full((100, 120, 3), 128, np.uint8)
NONE = np.zeros((0, 4), np.float32)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def has(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=-1).any()


def compare(found, names, scores, truth, true_names, ignored=None, **options):
    ignored = np.zeros(len(truth), bool) if ignored is None else np.array(ignored)
    tile = compare_detections(
        IMAGE, found, np.array(scores, np.float32), names, truth=(truth, true_names, ignored), side=240, **options
    )
    half = (tile.image.shape[1] - 12) // 2
    return tile, tile.image[:, :half], tile.image[:, half + 12 :]


def test_nothing_found_in_an_image_of_nothing():
    tile, left, right = compare(NONE, [], [], NONE, [])
    assert tile.caption == ("0 of 0 objects found; 0 detections of none; scores from 0.3",)
    assert not tile.alert
    np.testing.assert_array_equal(left, right)


def test_object_is_found_by_the_best_detection_of_its_class_alone():
    box = boxes((10, 10, 60, 60))
    tile, left, right = compare(np.repeat(box, 2, axis=0), ["a", "a"], [0.5, 0.9], box, ["a"])
    assert tile.caption[0].startswith("1 of 1 object found; 1 detection of none")
    assert has(left, YELLOW) and not has(left, RED)
    tile, left, right = compare(box, ["b"], [0.9], box, ["a"])
    assert tile.alert and has(left, RED) and not has(left, YELLOW)
    assert has(right, GREY) and not has(right, BLUE)


def test_low_scores_find_nothing():
    box = boxes((10, 10, 60, 60))
    assert compare(box, ["a"], [0.2], box, ["a"])[0].alert
    assert not compare(box, ["a"], [0.2], box, ["a"], min_score=0.1)[0].alert


def test_any_number_of_detections_may_lie_on_an_ignored_region_but_objects_come_first():
    truth = boxes((10, 10, 60, 60), (10, 10, 60, 62))
    tile, left, right = compare(truth[[1, 1, 1]], ["a"] * 3, [0.9, 0.8, 0.7], truth, ["a", "a"], [False, True])
    assert tile.caption[0].startswith("1 of 1 object found; 0 detections of none")
    assert has(left, PURPLE) and has(right, BLUE) and not has(right, GREY)


@pytest.mark.parametrize("name", ["dog", "собака", "犬", ""])
def test_names_of_any_script_at_any_edge_are_drawn_inside_the_picture(name):
    corners = boxes((0, 0, 5, 5), (115, 0, 120, 5), (0, 95, 5, 100), (115, 95, 120, 100), (0, 0, 120, 100))
    picture = draw_detections(IMAGE, corners, np.full(5, 0.5, np.float32), [name] * 5, side=120)
    assert picture.shape == IMAGE.shape
    assert has(picture, BLUE)
