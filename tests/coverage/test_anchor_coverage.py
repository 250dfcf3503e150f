"""Coverage says of each object what `AnchorTargets` makes of it, and counts it in the right groups."""

import json
import math

import numpy as np
import pytest

from detfeed import AnchorGrid, AnchorTargets, BatchLoader, Fixed, ShortSide, anchor_coverage
from detfeed.coverage.anchor_coverage import percent
from detfeed.targets.matches import NEGATIVE

# 4 x 4 cells of 16 pixels with one anchor each that fills its cell.
TILES = AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0),),), offset=0.5)


def test_without_objects_there_is_nothing_to_cover(annotate):
    coverage = anchor_coverage(annotate([(64, 64)], [[]]), TILES, resize=Fixed((64, 64)))
    assert coverage.summary_line() == "anchors: no objects to cover"
    assert (coverage.num_positive.tolist(), coverage.num_negative.tolist()) == ([0], [16])
    assert math.isnan(coverage.all.positive)
    assert json.loads(json.dumps(coverage.to_dict(), allow_nan=False))["all"]["positive"] is None


def test_each_object_has_a_true_positive_a_low_quality_match_or_none(annotate):
    boxes = [
        (0, 0, 16, 16),  # an anchor
        (17, 0, 31, 16),  # 14/16 of one
        (40, 40, 56, 56),  # a quarter of each of four: IoU 64/448
        (0, 0, 16, 15),  # 15/16 of the first anchor, which has a better box
    ]
    table = annotate([(64, 64), (64, 64)], [boxes, [(48, 0, 64, 16), (0, 32, 64, 64)]], ignore_of=[[0] * 4, [0, 1]])
    coverage = anchor_coverage(table, TILES, resize=Fixed((64, 64)))
    assert coverage.positive.tolist() == [True, True, False, False, True]
    assert coverage.low_quality.tolist() == [False, False, True, False, False]
    assert coverage.unmatched.tolist() == [False, False, False, True, False]
    np.testing.assert_allclose(coverage.best_iou, [1, 14 / 16, 64 / 448, 15 / 16, 1], rtol=1e-6)
    assert coverage.rows.tolist() == [0, 1, 2, 3, 4]
    assert coverage.image.tolist() == [0, 0, 0, 0, 1]
    assert coverage.num_positive.tolist() == [6, 1]
    assert coverage.num_low_quality.tolist() == [4, 0]
    assert coverage.num_negative.tolist() == [10, 7]  # eight anchors lie on the ignore region
    assert coverage.num_ignored == 1
    assert coverage.histogram().tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 1, 3]
    assert coverage.summary_line() == (
        "anchors: 60.0 % of 5 objects have an anchor with IoU 0.7, 20.0 % a low-quality match only, 20.0 % none"
    )
    strict = anchor_coverage(table, AnchorTargets(TILES, low_quality=False), resize=Fixed((64, 64)))
    assert strict.unmatched.tolist() == [False, False, True, True, False]
    assert strict.summary_line() == "anchors: 60.0 % of 5 objects have an anchor with IoU 0.7, 40.0 % none"
    balance = coverage.balance()
    assert (balance["positive"], balance["negative"]) == (3.5, 8.5)
    assert (balance["sampled_positive"], balance["sampled_negative"]) == (3.5, 8.5)
    few = anchor_coverage(table, AnchorTargets(TILES, num_samples=8), resize=Fixed((64, 64))).balance()
    assert (few["sampled_positive"], few["sampled_negative"], few["full"]) == (2.5, 5.5, 0.5)


def test_an_object_with_a_true_positive_is_not_counted_as_low_quality_too(annotate):
    # The second anchor is the best one of the small box, but lies better on the large one.
    coverage = anchor_coverage(annotate([(64, 64)], [[(0, 0, 20, 16), (28, 0, 30, 2)]]), TILES, resize=Fixed((64, 64)))
    assert coverage.num_low_quality.tolist() == [1]
    assert coverage.positive.tolist() == [True, False]
    assert coverage.low_quality.tolist() == [False, False]
    assert coverage.unmatched.tolist() == [False, True]


@pytest.mark.parametrize("augment", [None, "flip", "lsj"])
def test_coverage_is_what_training_makes_of_the_samples(shapes, augment):
    targets = AnchorTargets(AnchorGrid.fpn(sizes=(8, 16, 24, 40, 64)), positive_iou=0.6, crowd="box")
    feed = {"resize": ShortSide(120), "augment": augment, "seed": 2}
    loader = BatchLoader(shapes, targets, batch_size=2, **feed)
    coverage = anchor_coverage(shapes, targets, **feed)
    for number in range(len(shapes)):
        sample = loader.load_sample(0, number)
        matches = targets.match(sample)
        objects = np.flatnonzero(~sample.ignore)
        good = set(matches.match[matches.iou >= np.float32(0.6)].tolist())
        mine = coverage.image == number
        np.testing.assert_array_equal(coverage.rows[mine], sample.rows[objects])
        assert coverage.positive[mine].tolist() == [row in good for row in objects]
        matched = set(matches.match.tolist())
        assert coverage.unmatched[mine].tolist() == [row not in matched for row in objects]
        assert coverage.low_quality[mine].tolist() == [row in matched - good for row in objects]
        assert coverage.num_positive[number] == len(matches.positive)
        assert coverage.num_low_quality[number] == (matches.iou < np.float32(0.6)).sum()
        assert coverage.num_negative[number] == (matches.states == NEGATIVE).sum()
    assert coverage.positive.any() and coverage.low_quality.any()


def test_groups_hold_each_object_once_and_name_where_it_is(annotate):
    boxes = [(0, 0, 10, 10), (0, 0, 40, 20), (0, 0, 20, 80), (0, 0, 100, 110), (50, 50, 66, 66)]
    grid = AnchorGrid.fpn(sizes=(16, 64), strides=(8, 32))
    coverage = anchor_coverage(annotate([(128, 128)], [boxes]), grid, resize=Fixed((128, 128)))
    counts = {
        group.name: group.count
        for groups in (coverage.by_size(), coverage.by_ratio(), coverage.by_class(), coverage.by_level())
        for group in groups
        if group.count
    }
    assert counts == {
        "under 16": 1,
        "16 to 32": 2,
        "32 to 64": 1,
        "64 to 128": 1,
        "0.5 to 0.71": 1,
        "0.71 to 1.41": 3,
        "4 and more": 1,
        "class 0": 2,
        "class 1": 2,
        "class 2": 1,
        "stride 8": 3,
        "stride 32": 2,
    }
    # 10 x 10 is under 0.7 of 16 x 16, and 20 x 80 beyond a ratio of 2 / 0.7^2; 100 x 110 is over 64 x 64 / 0.7.
    wrong = coverage.misfits()
    assert (wrong["smaller"], wrong["larger"]) == (1, 1)
    assert sum(wrong.values()) == (~coverage.positive).sum()


def test_a_part_of_the_images_says_so(shapes):
    coverage = anchor_coverage(shapes, AnchorGrid.c4(), resize=ShortSide(96), max_images=5)
    assert "objects in 5 of 24 images have" in coverage.summary_line()
    assert repr(coverage).startswith("AnchorCoverage(")


def test_percentages_are_0_or_100_only_if_they_are():
    assert [percent(share) for share in (0, 0.0001, 0.0005, 0.5, 0.9994, 0.9996, 1)] == [
        *("0 %", "<0.1 %", "0.1 %", "50.0 %", "99.9 %", ">99.9 %", "100 %")
    ]


def test_anything_but_anchors_is_refused(shapes):
    with pytest.raises(TypeError, match=r"AnchorGrid or AnchorTargets. Received: \[32\]"):
        anchor_coverage(shapes, [32], resize=ShortSide(96))
    with pytest.raises(TypeError, match="resize"):
        anchor_coverage(shapes, TILES, resize=600)
    with pytest.raises(ValueError, match="at least one image"):
        anchor_coverage(shapes.select([]), TILES, resize=ShortSide(96))
