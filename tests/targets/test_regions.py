import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed import AnchorGrid
from detfeed import boxes as geometry
from detfeed.targets.matches import IGNORED, NEGATIVE, AnchorMatches
from detfeed.targets.regions import Regions
from detfeed.targets.sampling import sample_anchors

NONE = np.zeros((0, 4), np.float32)
TILES = AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0),),), offset=0.5)
HW = (64, 64)


def hidden(regions, number):
    states = np.zeros(number, np.int8)
    regions.hide(states)
    return states == IGNORED


def test_without_regions_nothing_is_hidden():
    regions = Regions(TILES, NONE, np.zeros(0, bool), input_hw=HW)
    assert regions.most == 0
    assert not regions.holds(np.arange(16)).any() and not hidden(regions, 16).any()


def test_mask_without_pixels_hides_nothing():
    box = np.float32([[0, 0, 64, 64]])
    regions = Regions(TILES, box, np.array([True]), input_hw=HW, masks={0: np.zeros(HW, np.uint8)})
    assert not regions.holds(np.arange(16)).any() and not hidden(regions, 16).any()


def test_only_negatives_are_hidden():
    regions = Regions(TILES, np.float32([[0, 0, 32, 16]]), np.array([True]), input_hw=HW)
    states = np.zeros(16, np.int8)
    states[0] = 1
    regions.hide(states)
    assert states.tolist() == [1, IGNORED, *[NEGATIVE] * 14]
    assert regions.holds(np.arange(4)).tolist() == [True, True, False, False]


def covered_slowly(grid, boxes, ignore, masks, input_hw):
    """Of each anchor the largest share that a region covers, from its pixels a quarter wide; float64 (A,)."""
    anchors = grid.anchors(input_hw).astype(float)
    share = np.zeros(len(anchors))
    for row in np.flatnonzero(ignore):
        if row in masks:
            fine = np.repeat(np.repeat(masks[row], 4, axis=0), 4, axis=1).astype(float) / 255 / 16
            edges = np.maximum(np.rint(4 * anchors), 0).astype(int)
            shared = np.array([fine[y0:y1, x0:x1].sum() for x0, y0, x1, y1 in edges])
        else:
            shared = geometry.intersection(anchors, boxes[row : row + 1].astype(float))[:, 0]
        share = np.maximum(share, shared / geometry.area(anchors))
    return share


@st.composite
def covered_scenes(draw):
    quarter = st.integers(4, 100).map(lambda value: value / 4)
    strides = draw(st.lists(st.integers(3, 16), min_size=1, max_size=2))
    sizes = tuple(tuple(draw(st.lists(st.tuples(quarter, quarter), min_size=1, max_size=3))) for _ in strides)
    sizes = tuple(tuple((2 * w, 2 * h) for w, h in level) for level in sizes)  # corners on quarters of a pixel
    offset = draw(st.sampled_from([0.0, 0.5]))
    grid = AnchorGrid(strides=tuple(strides), cell_sizes_wh=sizes, offset=offset, rounding=draw(st.booleans()))
    input_hw = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    boxes, masks = [], {}
    for row in range(draw(st.integers(1, 3))):
        x, y = (sorted(draw(st.tuples(*[st.integers(0, side)] * 2))) for side in input_hw[::-1])
        boxes.append([x[0], y[0], x[1], y[1]])
        if draw(st.booleans()):
            rng = np.random.default_rng(draw(st.integers(0, 99)))
            values = np.uint8([0, 255] if draw(st.booleans()) else [0, 100, 200, 255])
            masks[row] = np.zeros(input_hw, np.uint8)
            # Partly beyond its box: a mask counts instead of it.
            inside = np.s_[y[0] : y[1] + 2, x[0] : x[1] + 2]
            masks[row][inside] = rng.choice(values, masks[row][inside].shape)
    ignore = np.array([draw(st.sampled_from([True, True, False])) for _ in boxes])
    return grid, np.float32(boxes), ignore, masks, input_hw


@settings(max_examples=150)
@given(covered_scenes(), st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]))
def test_as_many_anchors_lie_on_regions_as_do_pixel_by_pixel_one_by_one_and_all_at_once(scene, ioa):
    grid, boxes, ignore, masks, input_hw = scene
    regions = Regions(grid, boxes, ignore, input_hw=input_hw, masks=masks, ignore_ioa=ioa)
    at_once = hidden(regions, grid.num_anchors(input_hw))
    np.testing.assert_array_equal(regions.holds(np.arange(len(at_once))), at_once)
    assert at_once.sum() <= regions.most
    share = covered_slowly(grid, boxes, ignore, masks, input_hw)
    sure = np.abs(share - ioa) > 1e-6
    np.testing.assert_array_equal(at_once[sure], (share >= ioa)[sure])


@pytest.mark.parametrize("kind", ["fpn", "detectron2_fpn"])
@pytest.mark.parametrize("size", [20, 150, 256], ids=["a small crowd", "a crowd on half the image", "all of the image"])
def test_drawing_with_regions_is_drawing_from_states_in_which_they_are_hidden(kind, size):
    grid, input_hw = getattr(AnchorGrid, kind)(), (256, 320)
    rng = np.random.default_rng(size)
    masks = {1: ((rng.random(input_hw) < 0.9) * 255).astype(np.uint8)}
    masks[1][size:], masks[1][:, size * 5 // 4 :] = 0, 0
    boxes = np.float32([[200, 100, 260, 250], [0, 0, size * 5 // 4, size]])
    states = rng.choice(np.int8([0, 0, 0, 0, -1, 1]), grid.num_anchors(input_hw))
    regions = Regions(grid, boxes, np.array([True, True]), input_hw=input_hw, masks=masks)

    def matches(states):
        positive = np.flatnonzero(states == 1)
        return AnchorMatches(states, positive, np.zeros(len(positive), int), np.ones(len(positive), np.float32))

    full = states.copy()
    regions.hide(full)
    for seed in range(20):
        lazily, fully = (
            sample_anchors(matches(some.copy()), np.random.default_rng(seed), regions=others)
            for some, others in ((states, regions), (full, None))
        )
        for one, other in zip(lazily, fully, strict=True):
            np.testing.assert_array_equal(one, other)
        assert (full[fully[1]] == NEGATIVE).all()
