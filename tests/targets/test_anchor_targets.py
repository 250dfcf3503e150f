import dataclasses

import numpy as np
import pytest

from detfeed import AnchorGrid, AnchorTargets, Sample
from detfeed import boxes as geometry
from detfeed.targets.matches import COUNTS
from detfeed.targets.matching import match_anchors
from detfeed.targets.sampling import draw

TILES = AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0),),), offset=0.5)
FPN = AnchorGrid.fpn()


def sample(boxes=(), ignore=None, image_hw=(64, 64), input_hw=(64, 64), seed=0):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=np.zeros((*image_hw, 3), np.uint8),
        boxes=boxes,
        class_ids=np.zeros(len(boxes), np.int32),
        ignore=np.zeros(len(boxes), bool) if ignore is None else np.array(ignore),
        image_id=1,
        position=0,
        input_hw=input_hw,
        rng=np.random.default_rng(seed),
    )


def test_sampled_targets_without_boxes_are_negatives_alone():
    _, y = AnchorTargets(TILES)(sample())
    assert {name: (array.shape, array.dtype) for name, array in y.items()} == {
        "anchor_index": ((256,), np.int32),
        "anchor_state": ((256,), np.int8),
        "anchor_deltas": ((256, 4), np.float32),
    }
    assert y["anchor_state"].tolist() == [0] * 16 + [-1] * 240
    assert sorted(y["anchor_index"][:16].tolist()) == list(range(16))
    assert not y["anchor_deltas"].any()


def test_sampled_targets_with_all_boxes_ignored_use_no_place_of_theirs():
    _, y = AnchorTargets(TILES)(sample([(0, 0, 64, 64)], [True]))
    assert y["anchor_state"].tolist() == [-1] * 256


def test_dense_targets_without_boxes_are_zeros_with_weights_of_one():
    x, y, weight = AnchorTargets(TILES, form="dense")(sample())
    assert x == {}
    assert {name: (array.shape, array.dtype) for name, array in y.items()} == {
        "objectness": ((16, 1), np.float32),
        "deltas": ((16, 4), np.float32),
    }
    assert {name: (array.shape, array.dtype) for name, array in weight.items()} == {
        "objectness": ((16,), np.float32),
        "deltas": ((16,), np.float32),
    }
    assert not y["objectness"].any()
    assert not y["deltas"].any()
    assert weight["objectness"].all()
    assert not weight["deltas"].any()


def test_dense_targets_weigh_ignored_anchors_zero():
    boxes, ignore = [(16, 16, 32, 32), (40, 40, 56, 56), (0, 48, 16, 64)], [False, False, True]
    _, y, weight = AnchorTargets(TILES, form="dense")(sample(boxes, ignore, image_hw=(64, 40)))
    matches = match_anchors(TILES, np.float32(boxes), input_hw=(64, 64), image_hw=(64, 40), ignore=np.array(ignore))
    np.testing.assert_array_equal(weight["objectness"] == 0, matches.states == -1)
    np.testing.assert_array_equal(y["objectness"][:, 0] == 1, matches.states == 1)
    np.testing.assert_array_equal(weight["deltas"], y["objectness"][:, 0])
    assert weight["objectness"][12] == 0, "the anchor under the ignore region"
    assert not y["deltas"][matches.states != 1].any()


def test_deltas_turn_the_sampled_anchors_into_their_boxes():
    boxes = np.float32([(10, 20, 70, 90), (100, 30, 228, 158), (250, 200, 254, 204)])
    _, y = AnchorTargets(FPN)(sample(boxes, image_hw=(256, 320), input_hw=(256, 320)))
    positive = y["anchor_state"] == 1
    anchors = FPN.anchors((256, 320))[y["anchor_index"][positive]]
    decoded = geometry.decode_deltas(y["anchor_deltas"][positive], anchors)
    distance = np.abs(decoded[:, None] - boxes[None]).max(axis=2)
    assert (distance.min(axis=1) < 1e-3).all()
    assert set(distance.argmin(axis=1)) == {0, 1, 2}, "every box has an anchor"
    dense = AnchorTargets(FPN, form="dense")(sample(boxes, image_hw=(256, 320), input_hw=(256, 320)))
    np.testing.assert_array_equal(dense[1]["deltas"][y["anchor_index"][positive]], y["anchor_deltas"][positive])


def test_sampled_states_are_those_of_the_matcher_and_no_anchor_comes_twice():
    one = sample([(10, 20, 70, 90), (100, 30, 228, 158)], image_hw=(200, 300), input_hw=(256, 320))
    targets = AnchorTargets(FPN, num_samples=64)
    states = targets.match(one).states
    x, y = targets(one)
    assert x == {}
    used = y["anchor_state"] >= 0
    np.testing.assert_array_equal(states[y["anchor_index"][used]], y["anchor_state"][used])
    assert len(np.unique(y["anchor_index"][used])) == used.sum() == 64


def test_box_that_was_clipped_to_the_image_is_coded_as_it_was_matched():
    _, y = AnchorTargets(TILES)(sample(geometry.clip(np.float32([(-16, -16, 16, 16)]), (64, 64))))
    assert y["anchor_state"][0] == 1
    assert not y["anchor_deltas"].any()


def test_delta_weights_multiply():
    plain, weighted = (
        AnchorTargets(TILES, delta_weights=weights)(sample([(14, 15, 33, 31)]))[1]
        for weights in ((1, 1, 1, 1), (10, 10, 5, 5))
    )
    np.testing.assert_allclose(
        weighted["anchor_deltas"], plain["anchor_deltas"] * np.float32([10, 10, 5, 5]), rtol=1e-6
    )
    assert plain["anchor_deltas"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "sparse"}, r"one of \('sampled', 'dense'\). Received: 'sparse'"),
        ({"crowd": "both"}, r"one of \('mask', 'box'\). Received: 'both'"),
        ({"negative_iou": 0.8}, "negative_iou=0.8, positive_iou=0.7"),
        ({"negative_iou": 0}, "0 < negative_iou .* negative_iou=0,"),
        ({"num_samples": 0}, "num_samples to be at least 1. Received: 0"),
        ({"positive_fraction": 4}, "positive_fraction to be above 0 and at most 1. Received: 4"),
        ({"ignore_ioa": 0}, "ignore_ioa to be above 0 and at most 1. Received: 0"),
        ({"straddle": -1}, "straddle to be at least 0, or None. Received: -1"),
        ({"delta_weights": (1, 1)}, r"delta_weights to be four numbers. Received: \(1, 1\)"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnchorTargets(TILES, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchors": [32, 64]}, r"Expected anchors to be an AnchorGrid. Received: \[32, 64\]"),
        ({"anchors": None}, "Expected anchors to be an AnchorGrid. Received: None"),
        ({"num_samples": "256"}, "Expected num_samples to be a whole number. Received: '256'"),
        ({"num_samples": True}, "num_samples to be a whole number. Received: True"),
        ({"num_samples": 2.5}, "num_samples to be a whole number. Received: 2.5"),
        ({"positive_iou": "0.5"}, "positive_iou to be a number. Received: '0.5'"),
        ({"negative_iou": None}, "negative_iou to be a number. Received: None"),
        ({"ignore_ioa": True}, "ignore_ioa to be a number. Received: True"),
        ({"straddle": "0"}, "straddle to be a number of pixels or None. Received: '0'"),
        ({"delta_weights": 1.0}, "delta_weights to be four numbers. Received: 1.0"),
    ],
)
def test_arguments_of_wrong_types_are_refused_at_once(arguments, message):
    with pytest.raises(TypeError, match=message):
        AnchorTargets(**{"anchors": TILES, **arguments})


def test_numbers_of_numpy_are_as_good_as_pythons():
    one, other = (
        AnchorTargets(FPN, num_samples=whole(64), positive_iou=real(0.5), delta_weights=[real(2)] * 4)
        for whole, real in ((int, float), (np.int64, np.float32))
    )
    boxes = [(10, 20, 70, 90)]
    for name, array in one(sample(boxes))[1].items():
        np.testing.assert_array_equal(array, other(sample(boxes))[1][name])


@pytest.mark.parametrize("form", ["sampled", "dense"])
def test_counts_of_a_sample_drawn_on_paper(form):
    boxes = [(16, 16, 32, 32), (40, 40, 44, 44), (0, 0, 16, 16), (17, 17, 31, 31), (5, 5, 5, 9)]
    ignore = [False, False, True, False, False]
    x, *_ = AnchorTargets(TILES, form=form, counts=True)(sample(boxes, ignore, image_hw=(64, 56)))
    # Tile 5 is positive for the first box and, at an IoU below 0.7, tile 10 for the second; the fourth has the same
    # best tile as the first, which overlaps more. Ignored: the tile under the third box, and the four in the padding.
    assert dict(zip(COUNTS, x["match_counts"].tolist(), strict=True)) == {
        "positive": 2,
        "low_quality": 1,
        "unmatched": 1,
        "ignored": 5,
        "lost": 1,
    }
    assert x["match_counts"].dtype == np.int32


def test_crowds_count_by_their_mask_or_cheaper_by_their_box():
    crowd = sample([(0, 0, 64, 64)], [True])
    mask = np.zeros((64, 64), np.uint8)
    mask[:16, :32] = 255
    crowd = dataclasses.replace(crowd, masks={0: mask})
    by_mask, by_box = (AnchorTargets(TILES, crowd=crowd_by).match(crowd).states for crowd_by in ("mask", "box"))
    assert np.flatnonzero(by_mask == -1).tolist() == [0, 1]
    assert (by_box == -1).all()


def test_drawn_anchors_are_those_of_the_matcher_though_only_they_are_tested_against_the_mask_of_a_crowd():
    mask = np.zeros((256, 320), np.uint8)
    mask[::2, 40:300] = mask[20:200] = 255
    crowd = sample([(0, 0, 320, 256), (5, 9, 60, 90)], [True, False], image_hw=(256, 320), input_hw=(256, 320))
    targets = AnchorTargets(FPN)
    for seed in range(10):
        one, other = (dataclasses.replace(crowd, masks={0: mask}, rng=np.random.default_rng(seed)) for _ in range(2))
        _, y = targets(one)
        drawn = draw(targets.match(other), other.rng, targets.num_samples, targets.positive_fraction)
        np.testing.assert_array_equal(y["anchor_index"], drawn.rows)
        np.testing.assert_array_equal(y["anchor_state"], drawn.state)
