"""The picture of the best proposals of an image."""

import numpy as np

from detfeed.drawing.marks import BLUE, GREY, RED, YELLOW
from detfeed.drawing.proposals import draw_proposals


def test_without_proposals_every_object_is_missed():
    none = np.zeros((0, 4), np.float32)
    image = np.zeros((32, 32, 3), np.uint8)
    truth = np.array([[4, 4, 20, 20]], np.float32)
    tile = draw_proposals(image, none, np.zeros(0, np.float32), truth, side=32)
    assert tile.image[12, 4].tolist() == list(RED)
    assert tile.caption == ("0 of 1 object found by the best 0 proposals",)


def test_without_objects_every_proposal_is_on_none():
    image = np.zeros((32, 32, 3), np.uint8)
    boxes = np.array([[4, 4, 20, 20]], np.float32)
    tile = draw_proposals(image, boxes, np.ones(1, np.float32), np.zeros((0, 4), np.float32), side=32)
    assert tile.image[12, 4].tolist() == list(GREY)
    assert tile.caption == ("0 of 0 objects found by the best 1 proposal",)


def test_only_the_best_proposals_count():
    image = np.zeros((64, 64, 3), np.uint8)
    truth = np.array([[2, 2, 22, 22], [40, 40, 60, 60]], np.float32)
    boxes = np.array([[41, 41, 61, 61], [4, 4, 24, 24], [2, 40, 22, 60]], np.float32)
    scores = np.array([0.1, 0.9, 0.5], np.float32)
    tile = draw_proposals(image, boxes, scores, truth, top=2, side=64)
    assert tile.image[12, 4].tolist() == list(BLUE)
    assert tile.image[18, 2].tolist() == list(YELLOW)
    assert tile.image[50, 40].tolist() == list(RED)
    assert tile.image[50, 2].tolist() == list(GREY)
    assert tile.caption == ("1 of 2 objects found by the best 2 proposals",)
