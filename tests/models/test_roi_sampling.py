"""Held to detfeed.RoiTargets on whichever backend KERAS_BACKEND names (see test_faster_rcnn.py for the others)."""

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import ops

from detfeed import RoiTargets, Sample
from detfeed import boxes as geometry
from detfeed.models import RoiSampler, match_rois, sample_rois

INPUT_HW = (48, 64)
NUM_CLASSES = 3


def to_numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def draw_sample(rng):
    """A sample with boxes in quarters of a pixel: areas and IoUs are exact, ties and equal thresholds included."""
    image_hw = rng.integers((20, 30), INPUT_HW, endpoint=True)

    def boxes(count):
        low = rng.integers(-8, 4 * INPUT_HW[1], (count, 2)) / 4
        return np.concatenate([low, low + rng.integers(0, 100, (count, 2)) / 4], axis=1).astype(np.float32)

    num_boxes = int(rng.integers(0, 6))
    truth = geometry.clip(boxes(num_boxes), tuple(image_hw))
    truth = truth[geometry.area(truth) > 0]  # as Annotations promises
    num_boxes = len(truth)
    proposals = np.concatenate([boxes(30), truth, truth + rng.integers(-4, 5, truth.shape).astype(np.float32)])
    proposals[:, 2:] = np.maximum(proposals[:, 2:], proposals[:, :2])
    proposals = geometry.clip(proposals, tuple(image_hw))  # as a loader leaves what it has moved
    proposals = proposals[geometry.area(proposals) > 0]
    return Sample(
        image=np.zeros((*image_hw, 3), np.uint8),
        boxes=truth,
        class_ids=rng.integers(0, NUM_CLASSES, num_boxes).astype(np.int32),
        ignore=rng.random(num_boxes) < 0.3,
        image_id=0,
        position=0,
        input_hw=INPUT_HW,
        rng=rng,
        proposals=proposals,
    )


def batched(samples):
    """The arguments of match_rois, with places left unused."""
    batch, rows, columns = len(samples), 45, 7
    proposals, boxes = np.zeros((batch, rows, 4), np.float32), np.zeros((batch, columns, 4), np.float32)
    class_ids, ignore = np.full((batch, columns), -1, np.int32), np.zeros((batch, columns), np.int8)
    for i, sample in enumerate(samples):
        proposals[i, : len(sample.proposals)] = sample.proposals
        boxes[i, : len(sample.boxes)] = sample.boxes
        class_ids[i, : len(sample.boxes)] = sample.class_ids
        ignore[i, : len(sample.boxes)] = sample.ignore
    return proposals, boxes, class_ids, ignore, np.array([sample.image_hw for sample in samples], np.int32)


def candidates(sample, num_proposals=45):
    """Rows of the RoIs of match_rois that RoiTargets.match looks at."""
    objects = np.flatnonzero(~sample.ignore)
    return np.concatenate([np.arange(len(sample.proposals)), num_proposals + objects])


@pytest.fixture(scope="module")
def samples():
    return [draw_sample(np.random.default_rng(seed)) for seed in range(40)]


all_rules = [
    {},
    {"background_low": 0.1},
    {"foreground_iou": 0.25, "ignore_ioa": 0.25},
    {"foreground_iou": 0.75, "background_low": 0.5, "ignore_ioa": 1.0},
]


@pytest.mark.parametrize("rules", all_rules)
def test_states_and_matches_are_those_of_roi_targets(samples, rules):
    rules = RoiTargets(crowd="box", **rules)
    all_rois, all_states, all_matches = to_numpy(match_rois(*batched(samples), rules=rules))
    seen = set()
    for sample, rois, states, match in zip(samples, all_rois, all_states, all_matches, strict=True):
        expected_rois, expected = rules.match(sample)
        rows = candidates(sample)
        np.testing.assert_array_equal(rois[rows], expected_rois)
        np.testing.assert_array_equal(states[rows], expected.states)
        np.testing.assert_array_equal(match[rows][expected.positive], expected.match)
        assert (np.delete(states, rows) == -1).all()
        seen |= set(expected.states.tolist())
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("num_classes", [None, NUM_CLASSES])
def test_targets_are_those_of_roi_targets_where_all_rois_are_drawn(samples, num_classes):
    rules = RoiTargets(crowd="box", num_samples=60, positive_fraction=1.0, num_classes=num_classes)
    x_and_y = to_numpy(RoiSampler(rules)(*batched(samples)))
    for i, sample in enumerate(samples):
        x, y = rules(sample)
        expected = (x["rois"], y["roi_class_ids"], y["roi_deltas"].reshape(60, -1))
        drawn = (x_and_y["rois"][i], x_and_y["roi_class_ids"][i], x_and_y["roi_deltas"][i].reshape(60, -1))
        ours, theirs = (np.column_stack(parts) for parts in (drawn, expected))
        assert x_and_y["roi_class_ids"].dtype == np.int32 and x_and_y["roi_deltas"].dtype == np.float32
        # Draws come in no order within foreground and background.
        by_roi = [np.lexsort(rows[:, :5].T) for rows in (ours, theirs)]
        np.testing.assert_allclose(ours[by_roi[0]], theirs[by_roi[1]], rtol=1e-5, atol=1e-6)


def test_image_without_boxes_or_proposals_gives_unused_places():
    nothing = (np.zeros((2, 0, 4), np.float32), np.zeros((2, 0), np.int32), np.zeros((2, 0), bool))
    proposals = np.zeros((2, 3, 4), np.float32)
    proposals[1, 1] = (0, 0, 9, 9)
    sampler = RoiSampler(RoiTargets(crowd="box", num_samples=5))
    drawn = to_numpy(sampler(proposals, *nothing, np.array([[20, 20]] * 2, np.int32)))
    assert drawn["roi_class_ids"].tolist() == [[-1] * 5, [0, -1, -1, -1, -1]]
    assert drawn["rois"][1, 0].tolist() == [0, 0, 9, 9]
    assert not drawn["rois"][0].any() and not drawn["rois"][1, 1:].any() and not drawn["roi_deltas"].any()


@pytest.mark.parametrize("counts", [(0, 0, 5), (2, 3, 0), (9, 1, 2), (9, 30, 2), (1, 30, 0), (0, 30, 3)])
@pytest.mark.parametrize(("num_samples", "positive_fraction"), [(8, 0.25), (1, 0.25), (8, 1.0)])
def test_foreground_fills_its_share_and_background_the_rest(counts, num_samples, positive_fraction):
    num_positive, num_negative, _ = counts
    states = np.repeat([1, 0, -1], counts).astype(np.int8)[None]
    states = np.random.default_rng(0).permuted(states, axis=1)
    rows, drawn = to_numpy(sample_rois(states, num_samples=num_samples, positive_fraction=positive_fraction, seed=0))
    p = min(num_positive, int(num_samples * positive_fraction))
    q = min(num_negative, num_samples - p)
    assert drawn[0].tolist() == [1] * p + [0] * q + [-1] * (num_samples - p - q)
    np.testing.assert_array_equal(states[0, rows[0, : p + q]], drawn[0, : p + q])
    assert len(set(rows[0, : p + q].tolist())) == p + q and not rows[0, p + q :].any()


def test_each_call_draws_anew_and_all_are_drawn_alike():
    states = np.repeat([1, 0, -1], (6, 12, 2)).astype(np.int8)[None].repeat(100, axis=0)
    seed = keras.random.SeedGenerator(0)
    draws = [to_numpy(sample_rois(states, num_samples=8, positive_fraction=0.25, seed=seed))[0] for _ in range(5)]
    assert (draws[0] != draws[1]).any()
    counts = np.bincount(np.concatenate(draws).ravel(), minlength=20)
    assert not counts[18:].any()
    # 500 images: each foreground RoI is drawn 500 * 2 / 6 = 167 times, each background RoI 500 * 6 / 12 = 250 times.
    assert (abs(counts[:6] - 167) < 50).all() and (abs(counts[6:18] - 250) < 60).all()


def test_rules_with_masks_are_refused():
    with pytest.raises(ValueError, match=r'crowd="box".*Received: crowd="mask"'):
        RoiSampler(RoiTargets())
