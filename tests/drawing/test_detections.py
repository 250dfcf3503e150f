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


def compare(found, right, truth, is_found, ignored=None):
    ignored = np.zeros(len(truth), bool) if ignored is None else np.array(ignored)
    tile = compare_detections(
        IMAGE,
        found,
        ["a 0.90"] * len(found),
        np.array(right, bool),
        truth=(truth, ["a"] * len(truth), ignored),
        found=np.array(is_found, bool),
        side=240,
    )
    half = (tile.image.shape[1] - 12) // 2
    return tile, tile.image[:, :half], tile.image[:, half + 12 :]


def test_nothing_found_in_an_image_of_nothing():
    tile, left, right = compare(NONE, [], NONE, [])
    assert tile.caption == ("0 of 0 objects found; 0 wrong detections",)
    assert not tile.alert
    np.testing.assert_array_equal(left, right)


def test_objects_that_are_found_or_not_and_detections_differ_in_colour():
    box = boxes((10, 10, 60, 60))
    tile, left, right = compare(box, [True], box, [True])
    assert tile.caption[0].startswith("1 of 1 object found; 0 wrong detections")
    assert has(left, YELLOW) and not has(left, RED)
    assert has(right, BLUE) and not has(right, GREY)
    tile, left, right = compare(box, [False], box, [False])
    assert tile.caption == ("0 of 1 object found; 1 wrong detection",)
    assert tile.alert and has(left, RED) and not has(left, YELLOW)
    assert has(right, GREY) and not has(right, BLUE)


def test_ignored_regions_are_hatched_and_neither_found_nor_missed():
    box = boxes((10, 10, 60, 60))
    tile, left, _ = compare(NONE, [], box, [False], [True])
    assert tile.caption[0].startswith("0 of 0 objects found") and not tile.alert
    assert has(left, PURPLE) and not has(left, RED)


@pytest.mark.parametrize("name", ["dog", "собака", "犬", ""])
def test_names_of_any_script_at_any_edge_are_drawn_inside_the_picture(name):
    corners = boxes((0, 0, 5, 5), (115, 0, 120, 5), (0, 95, 5, 100), (115, 95, 120, 100), (0, 0, 120, 100))
    picture = draw_detections(IMAGE, corners, np.full(5, 0.5, np.float32), [name] * 5, side=120)
    assert picture.shape == IMAGE.shape
    assert has(picture, BLUE)
