import numpy as np

from detfeed import AnchorGrid
from detfeed.targets.matches import COUNTS, AnchorMatches, count_matches
from detfeed.targets.matching import match_anchors

NONE = np.zeros((0, 4), np.float32)
# 4 x 4 cells of 16 pixels with one anchor each that fills its cell.
TILES = AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0),),), offset=0.5)
HW = (64, 64)


def box(*corners):
    return np.array([corners], np.float32)


def test_counts_of_nothing_are_zero():
    matches = AnchorMatches(np.zeros(0, np.int8), np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))
    assert count_matches(matches, NONE).tolist() == [0] * len(COUNTS)


def test_counts_tell_objects_without_area_from_those_that_no_anchor_matches():
    boxes = np.concatenate([box(0, 0, 16, 16), box(1, 1, 15, 15), box(5, 5, 5, 9), box(0, 48, 64, 64)])
    ignore = np.array([False, False, False, True])
    counts = count_matches(match_anchors(TILES, boxes, input_hw=HW, ignore=ignore), boxes, ignore=ignore)
    assert dict(zip(COUNTS, counts.tolist(), strict=True)) == {
        "positive": 1,
        "low_quality": 0,
        "unmatched": 1,
        "ignored": 4,
        "lost": 1,
    }
