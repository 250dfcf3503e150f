import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_matching import differences, match_densely
from detfeed import AnchorGrid
from detfeed import boxes as geometry
from detfeed.targets.matches import IGNORED, NEGATIVE, POSITIVE
from detfeed.targets.matching import match_anchors

NONE = np.zeros((0, 4), np.float32)
# 4 x 4 cells of 16 pixels with one anchor each that fills its cell.
TILES = AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0),),), offset=0.5)
HW = (64, 64)


def box(*corners):
    return np.array([corners], np.float32)


def states(matches, columns=4):
    return matches.states.reshape(-1, columns)


def match_slowly(anchors, boxes, ignore, image_hw, positive_iou, negative_iou, low_quality, ignore_ioa):
    """Section 3.1.2 of the Faster R-CNN paper, word by word, with loops."""
    objects = [i for i in range(len(boxes)) if not ignore[i] and geometry.area(boxes[i : i + 1])[0] > 0]
    centres = [(round((a[0] + a[2]) / 2, 3), round((a[1] + a[3]) / 2, 3)) for a in anchors.astype(float)]
    centred = [x < image_hw[1] and y < image_hw[0] for x, y in centres]
    overlap = {
        (a, i): float(geometry.iou(anchors[a : a + 1], boxes[i : i + 1])[0, 0]) if centred[a] else 0.0
        for a in range(len(anchors))
        for i in objects
    }
    result = np.zeros(len(anchors), np.int8)
    match = np.full(len(anchors), -1)
    for a in range(len(anchors)):
        best = max((overlap[a, i] for i in objects), default=0.0)
        if best >= positive_iou:
            result[a] = POSITIVE
        elif best >= negative_iou:
            result[a] = IGNORED
        if low_quality:
            for i in objects:
                if overlap[a, i] > 0 and overlap[a, i] == max(overlap[b, i] for b in range(len(anchors))):
                    result[a] = POSITIVE
        if result[a] == NEGATIVE:
            for i in np.flatnonzero(ignore):
                if geometry.ioa(anchors[a : a + 1], boxes[i : i + 1])[0, 0] >= ignore_ioa:
                    result[a] = IGNORED
        if not centred[a]:
            result[a] = IGNORED
        if result[a] == POSITIVE:
            match[a] = next(i for i in objects if overlap[a, i] == best)
    return result, match


def test_without_boxes_every_anchor_is_negative():
    matches = match_anchors(TILES, NONE, input_hw=HW)
    assert matches.states.dtype == np.int8
    assert (matches.states == NEGATIVE).all()
    assert len(matches.positive) == len(matches.match) == 0


def test_box_on_an_anchor_makes_that_one_positive():
    matches = match_anchors(TILES, box(16, 32, 32, 48), input_hw=HW)
    assert matches.positive.tolist() == [9]
    assert matches.match.tolist() == [0]
    assert (matches.states == NEGATIVE).sum() == 15


def test_between_the_thresholds_an_anchor_is_ignored():
    # IoU 8 / 24 with the anchors on both sides, which tie and are both best: low quality makes them positive.
    half = box(8, 0, 24, 16)
    assert states(match_anchors(TILES, half, input_hw=HW))[0].tolist() == [1, 1, 0, 0]
    assert states(match_anchors(TILES, half, input_hw=HW, low_quality=False))[0].tolist() == [-1, -1, 0, 0]
    low = match_anchors(TILES, half, input_hw=HW, low_quality=False, negative_iou=0.34)
    assert (low.states == NEGATIVE).all()


def test_best_anchor_is_positive_below_the_negative_threshold():
    """tensorpack turns it back to background: a small object gets nothing to learn from."""
    matches = match_anchors(TILES, box(20, 20, 24, 24), input_hw=HW)
    assert matches.positive.tolist() == [5]


def test_one_pixel_box_gets_its_best_anchor():
    matches = match_anchors(TILES, box(40, 8, 41, 9), input_hw=HW)
    assert matches.positive.tolist() == [2]
    assert (matches.states == NEGATIVE).sum() == 15


def test_small_box_inside_several_anchors_of_one_shape_makes_all_positive():
    grid = AnchorGrid(strides=(4,), cell_sizes_wh=(((16.0, 16.0),),), offset=0.5)
    matches = match_anchors(grid, box(30, 30, 32, 32), input_hw=HW)
    anchors = grid.anchors(HW)
    inside = ((anchors[:, :2] <= 30) & (anchors[:, 2:] >= 32)).all(axis=1)
    assert inside.sum() > 1
    np.testing.assert_array_equal(matches.positive, np.flatnonzero(inside))


@pytest.mark.parametrize(
    "nothing",
    [(200, 200, 220, 220), (-50, 0, -10, 20), (5, 5, 5, 20), (64, 0, 80, 16)],
    ids=["outside", "left of it", "without width", "touching the edge from outside"],
)
def test_box_without_area_makes_no_anchor_positive(nothing):
    """In torchvision, detectron2 and Mask R-CNN its best IoU of 0 makes every anchor positive."""
    empty = geometry.clip(box(*nothing), HW)
    assert geometry.area(empty) == 0
    matches = match_anchors(TILES, empty, input_hw=HW)
    assert (matches.states == NEGATIVE).all()
    other = match_anchors(TILES, np.concatenate([empty, box(0, 0, 16, 16)]), input_hw=HW)
    assert other.positive.tolist() == [0]
    assert other.match.tolist() == [1]


def test_box_between_anchors_that_leave_gaps_matches_nothing():
    grid = AnchorGrid(strides=(16,), cell_sizes_wh=(((4.0, 4.0),),), offset=0.5)
    assert (match_anchors(grid, box(14, 14, 18, 18), input_hw=HW).states == NEGATIVE).all()


def test_of_equal_boxes_the_first_is_matched():
    twice = np.concatenate([box(0, 0, 16, 16), box(0, 0, 16, 16)])
    assert match_anchors(TILES, twice, input_hw=HW).match.tolist() == [0]


def test_anchor_made_positive_by_one_box_is_matched_with_its_own_best():
    """Box 1 has no better anchor than 0, but anchor 0 overlaps box 0 more."""
    boxes = np.concatenate([box(0, 0, 16, 16), box(0, 0, 4, 4)])
    matches = match_anchors(TILES, boxes, input_hw=HW)
    assert matches.positive.tolist() == [0]
    assert matches.match.tolist() == [0]


def test_box_that_was_clipped_to_the_image_matches_by_the_part_that_is_left():
    matches = match_anchors(TILES, geometry.clip(box(-16, -16, 16, 16), HW), input_hw=HW)
    assert matches.positive.tolist() == [0]
    assert matches.iou.tolist() == [1]
    assert (matches.states == IGNORED).sum() == 0


def test_all_boxes_ignored_makes_no_positive_and_spares_their_anchors():
    matches = match_anchors(TILES, box(0, 0, 32, 32), input_hw=HW, ignore=np.array([True]))
    assert len(matches.positive) == 0
    assert states(matches).tolist() == [[-1, -1, 0, 0], [-1, -1, 0, 0], [0] * 4, [0] * 4]


def test_ignore_region_counts_by_the_share_of_the_anchor_it_covers():
    region = box(0, 0, 7, 16)
    for ioa, state in ((0.5, NEGATIVE), (7 / 16, IGNORED)):
        matches = match_anchors(TILES, region, input_hw=HW, ignore=np.array([True]), ignore_ioa=ioa)
        assert matches.states[0] == state


def test_object_inside_an_ignore_region_stays_positive():
    boxes = np.concatenate([box(0, 0, 64, 64), box(16, 16, 32, 32)])
    matches = match_anchors(TILES, boxes, input_hw=HW, ignore=np.array([True, False]))
    assert matches.positive.tolist() == [5]
    assert matches.match.tolist() == [1]
    assert (matches.states == IGNORED).sum() == 15


def masked(mask, **rules):
    """States of the 4 x 4 tiles with one ignore region over everything that has a mask."""
    matches = match_anchors(
        TILES, box(0, 0, 64, 64), input_hw=HW, ignore=np.array([True]), masks={0: mask.astype(np.uint8)}, **rules
    )
    return states(matches)


def test_ignore_region_with_a_mask_spares_only_what_the_mask_covers():
    mask = np.zeros(HW)
    assert (masked(mask) == NEGATIVE).all()
    mask[:16, :24] = 255  # the first tile and half of the second
    assert masked(mask)[0].tolist() == [-1, -1, 0, 0]
    assert masked(mask, ignore_ioa=0.51)[0].tolist() == [-1, 0, 0, 0]
    assert (masked(mask)[1:] == NEGATIVE).all()


def test_share_that_a_mask_covers_counts_pixels_in_part():
    mask = np.zeros(HW)
    mask[:16, :16] = 100
    assert masked(mask, ignore_ioa=100 / 255)[0, 0] == IGNORED
    assert masked(mask, ignore_ioa=101 / 255)[0, 0] == NEGATIVE


def test_mask_is_summed_exactly_under_anchors_between_pixels():
    rng = np.random.default_rng(0)
    mask = (rng.random((40, 50)) < 0.6).astype(np.uint8) * 255
    grid = AnchorGrid(strides=(7,), cell_sizes_wh=(((9.5, 13.25), (3.0, 2.5)),), offset=0.3)
    fine = np.repeat(np.repeat(mask, 20, axis=0), 20, axis=1) / 255
    for ioa in (0.3, 0.5, 0.7):
        region = box(0, 0, 50, 40)
        matches = match_anchors(
            grid, region, input_hw=(40, 50), ignore=np.array([True]), masks={0: mask}, ignore_ioa=ioa
        )
        for anchor, state in zip(grid.anchors((40, 50)), matches.states, strict=True):
            x0, y0, x1, y1 = (round(20 * value) for value in anchor.astype(float))
            share = fine[max(y0, 0) : y1, max(x0, 0) : x1].sum() / ((x1 - x0) * (y1 - y0))
            if abs(share - ioa) > 1e-3:
                assert (state == IGNORED) == (share > ioa)


def test_anchors_centred_in_padding_are_ignored_and_never_best():
    # The true image ends at x = 40, the centre of column 2: that column and the next are padding.
    matches = match_anchors(TILES, box(32, 0, 40, 16), input_hw=HW, image_hw=(64, 40))
    assert (states(matches)[:, 2:] == IGNORED).all()
    assert len(matches.positive) == 0
    inside = match_anchors(TILES, box(24, 0, 40, 16), input_hw=HW, image_hw=(64, 40))
    assert inside.positive.tolist() == [1]


def test_straddling_anchors_are_ignored_on_request():
    grid = AnchorGrid(strides=(16,), cell_sizes_wh=(((24.0, 24.0),),), offset=0.5)
    edge = np.zeros((4, 4), bool)
    edge[1:3, 1:3] = True
    kept = match_anchors(grid, NONE, input_hw=HW, straddle=0).states.reshape(4, 4)
    np.testing.assert_array_equal(kept == NEGATIVE, edge)
    assert (match_anchors(grid, NONE, input_hw=HW, straddle=4).states == NEGATIVE).all()
    assert (match_anchors(grid, NONE, input_hw=HW).states == NEGATIVE).all()


@st.composite
def scenes(draw):
    strides = draw(st.lists(st.integers(3, 24), min_size=1, max_size=2))
    # Two decimals, which no float holds: corners are rounded, but none comes closer to a limit than that by design.
    side = st.floats(2, 60).map(lambda value: round(value, 2))
    sizes = tuple(tuple(draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))) for _ in strides)
    grid = AnchorGrid(
        strides=tuple(strides),
        cell_sizes_wh=sizes,
        offset=draw(st.sampled_from([0.0, 0.5, 0.3])),
        rounding=draw(st.booleans()),
    )
    if any((grid.cell_anchors(level)[:, :2] >= grid.cell_anchors(level)[:, 2:]).any() for level in range(len(strides))):
        grid = AnchorGrid(strides=grid.strides, cell_sizes_wh=sizes, offset=grid.offset)
    input_hw = (draw(st.integers(1, 50)), draw(st.integers(1, 50)))
    image_hw = (draw(st.integers(1, input_hw[0])), draw(st.integers(1, input_hw[1])))
    coordinate = st.one_of(st.integers(-20, 70), st.floats(-20, 70, width=32), st.sampled_from([-5000, 5000]))
    drawn = draw(st.lists(st.tuples(*[coordinate] * 4), max_size=5))
    twice = draw(st.lists(st.sampled_from(drawn), max_size=2)) if drawn else []
    boxes = np.array([*drawn, *twice], np.float32).reshape(-1, 4)
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    boxes = geometry.clip(boxes, image_hw)
    ignore = np.array([draw(st.booleans()) for _ in boxes], bool)
    return grid, boxes, ignore, input_hw, image_hw


@st.composite
def rules_of(draw):
    positive_iou, negative_iou = draw(st.sampled_from([(0.7, 0.3), (0.5, 0.4), (0.5, 0.5), (0.3, 0.05)]))
    return {
        "positive_iou": positive_iou,
        "negative_iou": negative_iou,
        "low_quality": draw(st.booleans()),
        "ignore_ioa": draw(st.sampled_from([0.3, 0.5, 1.0])),
        "straddle": draw(st.sampled_from([None, 0, 3.5])),
    }


@pytest.mark.no_cover  # which takes longer than the test; others go the same ways
@settings(max_examples=300)
@given(scenes(), rules_of())
def test_matching_agrees_with_the_dense_way(scene, rules):
    grid, boxes, ignore, input_hw, image_hw = scene
    rules = {**rules, "input_hw": input_hw, "image_hw": image_hw, "ignore": ignore}
    ours = match_anchors(grid, boxes, **rules)
    assert ours.states.dtype == np.int8
    np.testing.assert_array_equal(ours.positive, np.flatnonzero(ours.states == POSITIVE))
    theirs = match_densely(grid, boxes, **rules, dtype=np.float64)
    assert differences(grid, boxes, ours, theirs, **rules) == []


@settings(max_examples=40)
@given(scenes(), st.booleans(), st.sampled_from([(0.7, 0.3), (0.5, 0.4)]), st.sampled_from([0.3, 0.5]))
def test_the_dense_way_agrees_with_a_slow_loop_written_from_the_paper(scene, low_quality, thresholds, ioa):
    grid, boxes, ignore, input_hw, image_hw = scene
    dense = match_densely(
        grid,
        boxes,
        input_hw=input_hw,
        image_hw=image_hw,
        ignore=ignore,
        positive_iou=thresholds[0],
        negative_iou=thresholds[1],
        low_quality=low_quality,
        ignore_ioa=ioa,
    )
    expected, match = match_slowly(grid.anchors(input_hw), boxes, ignore, image_hw, *thresholds, low_quality, ioa)
    np.testing.assert_array_equal(dense.states, expected)
    np.testing.assert_array_equal(dense.match, match[dense.positive])


def test_tied_anchors_stay_ties_where_corners_are_rounded():
    """In float32 the corners of detectron2's anchors differ by rounding, and some of the ties of this box are lost."""
    grid = AnchorGrid.detectron2_fpn(offset=0.5)
    boxes = box(400.3, 300.7, 406.1, 305.2)
    ours = match_anchors(grid, boxes, input_hw=(800, 1344))
    anchors = grid.anchors((800, 1344)).astype(np.float64)
    sides = anchors[:, 2:] - anchors[:, :2]
    inside = (anchors[:, :2] < boxes[0, :2]).all(axis=1) & (anchors[:, 2:] > boxes[0, 2:]).all(axis=1)
    smallest = np.isclose(sides.prod(axis=1), 32**2)
    np.testing.assert_array_equal(ours.positive, np.flatnonzero(inside & smallest))
    assert len(match_densely(grid, boxes, input_hw=(800, 1344)).positive) < len(ours.positive)


@pytest.mark.parametrize("kind", ["fpn", "c4", "detectron2_fpn", "detectron2_c4", "keras_retinanet"])
@pytest.mark.parametrize("number", [1, 7, 60])
def test_matching_agrees_with_the_dense_way_on_large_inputs(kind, number):
    grid = getattr(AnchorGrid, kind)()
    rng = np.random.default_rng(number)
    size = np.exp(rng.uniform(np.log(2), np.log(900), (number, 2)))
    corner = rng.uniform(-50, 1, (number, 2)) + rng.uniform(0, 1, (number, 2)) * (np.array([640, 480]) - size / 2)
    boxes = geometry.clip(np.concatenate([corner, corner + size], axis=1).astype(np.float32), (470, 601))
    rules = {"input_hw": (480, 640), "image_hw": (470, 601), "ignore": rng.random(number) < 0.2}
    ours = match_anchors(grid, boxes, **rules)
    assert differences(grid, boxes, ours, match_densely(grid, boxes, **rules, dtype=np.float64), **rules) == []


@pytest.mark.parametrize("kind", ["fpn", "c4"])
@pytest.mark.parametrize("number", range(12))
def test_matching_agrees_with_torchvision_on_coco_boxes(golden, number, kind):
    file = golden("matching_torchvision")
    grid = AnchorGrid.fpn() if kind == "fpn" else AnchorGrid.c4()
    part = {name: file[f"{number}_{kind}_{name}"] for name in ("boxes", "positive", "positive_match", "ignored")}
    input_hw = tuple(file[f"{number}_{kind}_input_hw"].tolist())
    matches = match_anchors(grid, geometry.clip(part["boxes"], input_hw), input_hw=input_hw)
    np.testing.assert_array_equal(matches.positive, part["positive"])
    np.testing.assert_array_equal(matches.match, part["positive_match"])
    np.testing.assert_array_equal(np.flatnonzero(matches.states == IGNORED), part["ignored"])
