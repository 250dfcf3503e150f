"""Marks: what stands where, and in which colour."""

import numpy as np

from detfeed.drawing import marks
from detfeed.drawing.marks import BLUE, DARK, RED, YELLOW

BLACK = (0, 0, 0)


def test_outline_is_inside_the_box_up_to_its_edge_between_dark_lines():
    image = np.zeros((20, 30, 3), np.uint8)
    marks.draw_boxes(image, np.array([[5, 4, 25, 16]], np.float32), YELLOW, thickness=2)
    middle = [tuple(pixel) for pixel in image[10].tolist()]
    left = [BLACK] * 4 + [DARK, YELLOW, YELLOW, DARK]
    assert middle == left + [BLACK] * 14 + left[::-1]
    column = [tuple(pixel) for pixel in image[:, 15].tolist()]
    top = [BLACK] * 3 + [DARK, YELLOW, YELLOW, DARK]
    assert column == top + [BLACK] * 6 + top[::-1]


def test_zoom_moves_the_edges_and_keeps_the_lines_thin():
    image = np.zeros((40, 40, 3), np.uint8)
    marks.draw_boxes(image, np.array([[2, 2, 8, 8]], np.float32), YELLOW, zoom=4)
    columns = np.flatnonzero((image[20] == YELLOW).all(axis=1))
    assert columns.tolist() == [8, 31]


def test_box_smaller_than_a_pixel_is_one_pixel():
    image = np.zeros((9, 9, 3), np.uint8)
    marks.draw_boxes(image, np.array([[4.1, 4.1, 4.3, 4.3]], np.float32), RED, thickness=3)
    assert np.argwhere((image == RED).all(axis=2)).tolist() == [[4, 4]]


def test_no_box_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    before = image.copy()
    none = np.zeros((0, 4), np.float32)
    marks.draw_boxes(image, none, RED, edge=0.45)
    marks.hatch_boxes(image, none, RED)
    marks.draw_dots(image, none[:, :2], RED)
    np.testing.assert_array_equal(image, before)


def test_soft_edge_is_between_the_image_and_the_dark_line():
    image = np.full((9, 9, 3), 225, np.uint8)
    marks.draw_boxes(image, np.array([[2, 2, 7, 7]], np.float32), BLUE, edge=0.5)
    assert image[4, 1].tolist() == [125] * 3
    assert image[4, 2].tolist() == list(BLUE)
    assert image[4, 4].tolist() == [225] * 3
