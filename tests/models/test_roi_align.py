"""Held to torchvision's outputs on whichever backend KERAS_BACKEND names (see test_faster_rcnn.py for the others)."""

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import ops

from detfeed.models import roi_align, roi_levels

backend = keras.backend.backend()
STRIDES = (4, 8, 16, 32)


def eager(function):
    return function


def graph(function):
    """For feature maps of a size that is not known when the graph is built."""
    import tensorflow as tf

    return lambda *maps: tf.function(function, input_signature=[tf.TensorSpec((None, None, None, 4))] * 4)(*maps)


def xla(function):
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def jit(function):
    import jax

    return jax.jit(function)


ways = {"tensorflow": [eager, graph, xla], "jax": [jit], "torch": [eager]}[backend]


def to_numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def channels_last(nchw):
    return ops.convert_to_tensor(np.moveaxis(nchw, -3, -1))


def by_image(rois):
    """RoIs (N, 5) of two images as (2, R, 4), with unused places of zeros, and the places of the N."""
    places = [(int(image), int((rois[:i, 0] == image).sum())) for i, image in enumerate(rois[:, 0])]
    padded = np.zeros((2, max(row for _, row in places) + 1, 4), np.float32)
    for place, roi in zip(places, rois, strict=True):
        padded[place] = roi[1:]
    return ops.convert_to_tensor(padded), tuple(np.transpose(places))


def test_no_rois_give_no_features():
    features = [np.zeros((2, 3, 4, 5), np.float32)]
    assert to_numpy(roi_align(features, np.zeros((2, 0, 4), np.float32), strides=(16,))).shape == (2, 0, 7, 7, 5)


def test_a_case_small_enough_for_paper():
    """One bin a cell, its one point in the cell's middle: between four cells, and past the last one on the border."""
    features = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    rois = np.array([[[0, 0, 32, 32], [16, 0, 48, 32]]], np.float32)
    pooled = to_numpy(roi_align([features], rois, strides=(16,), output_size=2, sampling_ratio=1))
    assert pooled[0, :, :, :, 0].tolist() == [[[2, 3], [3.5, 4.5]], [[3, 3.5], [4.5, 5]]]


def test_points_far_outside_the_map_count_as_zero():
    rois = np.array([[[-96, 0, -64, 32], [160, 0, 192, 32], [0, 0, 0, 0]]], np.float32)
    pooled = to_numpy(roi_align([np.ones((1, 2, 3, 1), np.float32)], rois, strides=(16,)))
    assert not pooled[0, :2].any()
    np.testing.assert_allclose(pooled[0, 2], 1, rtol=1e-6)


def test_rois_that_are_not_numbers_read_inside_the_map():
    """A training that diverges is to end with a loss that is not a number, not with an index out of range."""
    rois = np.full((1, 2, 4), np.nan, np.float32)
    pooled = to_numpy(roi_align([np.ones((1, 2, 3, 1), np.float32)], rois, strides=(16,)))
    assert pooled.shape == (1, 2, 7, 7, 1)


@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align_agrees_with_torchvision(golden, aligned):
    data = golden("roi_align_torchvision")
    rois, places = by_image(data["rois"])
    pooled = roi_align([channels_last(data["features_nchw"])], rois, strides=(16,), aligned=aligned)
    expected = np.moveaxis(data[f"out_aligned{int(aligned)}_ratio2"], 1, -1)
    np.testing.assert_allclose(to_numpy(pooled)[places], expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("way", ways)
def test_multiscale_roi_align_and_its_gradients_agree_with_torchvision(golden, with_gradients, way):
    data = golden("multiscale_roi_align_torchvision")
    levels = [channels_last(data[f"p{level}_nchw"]) for level in range(2, 6)]
    rois, places = by_image(data["rois"])
    weight = np.zeros((2, 40, 7, 7, 4), np.float32)
    weight[places] = np.moveaxis(data["weight"], 1, -1)

    def align(*levels):
        return roi_align(levels, rois, strides=STRIDES)

    pooled, gradients = to_numpy(way(with_gradients(align, weight))(*levels))
    np.testing.assert_allclose(pooled[places], np.moveaxis(data["out"], 1, -1), rtol=0, atol=3e-4)
    for level, gradient in enumerate(gradients, 2):
        expected = np.moveaxis(data[f"grad_p{level}_nchw"], 1, -1)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-4 if level == 2 else 1e-4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("name", "strides"), [("levels_p2_p5", STRIDES), ("levels_p3_p5", STRIDES[1:])])
def test_levels_agree_with_torchvision(golden, compiled, name, strides):
    data = golden("roi_levels_torchvision")
    way = {"tensorflow": xla, "jax": jit, "torch": eager}[backend] if compiled else eager
    levels = way(lambda boxes: roi_levels(boxes, strides))(ops.convert_to_tensor(data["boxes"]))
    np.testing.assert_array_equal(to_numpy(levels), data[name])
