"""Held to torchvision's outputs on whichever backend KERAS_BACKEND names (see test_faster_rcnn.py for the others)."""

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import ops

from detfeed.models import nms, select_detections


def to_numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def test_image_with_unused_rois_alone_has_no_detections():
    rois, image_hw = np.zeros((2, 3, 4), np.float32), np.full((2, 2), 9, np.int32)
    boxes, scores, class_ids = to_numpy(
        select_detections(np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 3, 4), np.float32), rois, image_hw)
    )
    assert boxes.shape == (2, 100, 4) and not boxes.any()
    assert (scores == -1).all() and scores.shape == (2, 100)
    assert (class_ids == -1).all() and class_ids.dtype == np.int32


def test_boxes_of_different_groups_do_not_suppress_each_other():
    boxes, scores = np.array([[0, 0, 9, 9]] * 4, np.float32), np.array([1, 4, 3, 2], np.float32)
    kept = nms(boxes, scores, iou=0.5, groups=np.array([7, 7, 2, 2]))
    assert to_numpy(kept).tolist() == [False, True, True, False]


def test_equal_boxes_of_two_classes_both_stay():
    rois = np.array([[[10, 10, 20, 20], [10, 10, 20, 20], [0, 0, 0, 0]]], np.float32)
    logits = np.log(np.array([[[0.2, 0.5, 0.3], [0.4, 0.56, 0.04], [0.1, 0.8, 0.1]]], np.float32))
    boxes, scores, class_ids = to_numpy(
        select_detections(
            logits, np.zeros((1, 3, 2, 4), np.float32), rois, np.array([[18, 40]], np.int32), max_detections=4
        )
    )
    np.testing.assert_allclose(scores[0], [0.56, 0.3, -1, -1], rtol=1e-6)
    assert class_ids[0].tolist() == [0, 1, -1, -1]
    assert boxes[0].tolist() == [[10, 10, 20, 18]] * 2 + [[0] * 4] * 2


def test_detections_agree_with_torchvision(golden):
    data = golden("detections_torchvision")
    boxes, scores, class_ids = to_numpy(
        select_detections(data["class_logits"], data["box_regression"][:, :, 1:], data["proposals"], data["image_hw"])
    )
    for i in range(6):
        count = len(data[f"scores_{i}"])
        assert (scores[i] >= 0).sum() == count
        np.testing.assert_array_equal(class_ids[i, :count] + 1, data[f"labels_{i}"])
        np.testing.assert_allclose(scores[i, :count], data[f"scores_{i}"], rtol=0, atol=2e-6)
        np.testing.assert_allclose(boxes[i, :count], data[f"boxes_{i}"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("places", [0, 3])
def test_padding_changes_no_detection(golden, places):
    data = golden("detections_torchvision")
    given = data["class_logits"][1:2], data["box_regression"][1:2, :, 1:], data["proposals"][1:2]
    padded = [np.pad(array, [(0, 0), (0, places), *[(0, 0)] * (array.ndim - 2)]) for array in given]
    before = to_numpy(select_detections(*given, data["image_hw"][1:2]))
    for ours, theirs in zip(to_numpy(select_detections(*padded, data["image_hw"][1:2])), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
