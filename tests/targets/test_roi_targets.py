import dataclasses
import math

import numpy as np
import pytest

from detfeed import AnchorGrid, AnchorTargets, RoiTargets, Sample
from detfeed import boxes as geometry


def sample(boxes=(), proposals=(), *, ignore=None, class_ids=None, image_hw=(100, 100), seed=0):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=np.zeros((*image_hw, 3), np.uint8),
        boxes=boxes,
        class_ids=np.zeros(len(boxes), np.int32) if class_ids is None else np.array(class_ids, np.int32),
        ignore=np.zeros(len(boxes), bool) if ignore is None else np.array(ignore),
        image_id=1,
        position=0,
        input_hw=(128, 128),
        rng=np.random.default_rng(seed),
        proposals=np.array(proposals, np.float32).reshape(-1, 4),
    )


def shapes(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


@pytest.mark.parametrize(("num_classes", "shape"), [(None, (512, 4)), (3, (512, 3, 4))])
def test_neither_boxes_nor_proposals_are_unused_places_alone(num_classes, shape):
    x, y = RoiTargets(num_classes=num_classes)(sample())
    assert shapes(x) == {"rois": ((512, 4), np.float32)}
    assert shapes(y) == {"roi_class_ids": ((512,), np.int32), "roi_deltas": (shape, np.float32)}
    assert (y["roi_class_ids"] == -1).all()
    assert not x["rois"].any()
    assert not y["roi_deltas"].any()


def test_proposals_of_an_image_without_boxes_are_background():
    x, y = RoiTargets(num_samples=4)(sample([], [(0, 0, 10, 10), (5, 5, 40, 40)]))
    assert y["roi_class_ids"].tolist() == [0, 0, -1, -1]
    assert x["rois"].tolist() == [[0, 0, 10, 10], [5, 5, 40, 40], [0] * 4, [0] * 4]


def test_boxes_of_an_image_without_proposals_are_its_rois():
    x, y = RoiTargets(num_samples=8, num_classes=5)(sample([(0, 0, 10, 10), (5, 5, 40, 40)], class_ids=[4, 2]))
    assert y["roi_class_ids"].tolist() == [5, 3] + [-1] * 6
    assert x["rois"][:2].tolist() == [[0, 0, 10, 10], [5, 5, 40, 40]]
    assert not y["roi_deltas"].any()


def test_boxes_that_are_all_ignored_are_no_rois_and_keep_theirs_from_being_background():
    rois = [(0, 0, 50, 50), (60, 60, 90, 90)]
    x, y = RoiTargets(num_samples=4)(sample([(0, 0, 50, 50)], rois, ignore=[True]))
    assert y["roi_class_ids"].tolist() == [0, -1, -1, -1]
    assert x["rois"][0].tolist() == [60, 60, 90, 90]


# One object, 40 x 40, of class 6, and an ignore region right of it.
OBJECT, REGION = (20, 20, 60, 60), (60, 0, 100, 100)
STATES = {
    (20, 20, 60, 60): 1,  # the object itself
    (20, 20, 60, 40): 1,  # half of it: IoU 0.5 exactly
    (20, 20, 60, 39): 0,  # a little less
    (20, 40, 100, 60): 0,  # IoU 0.25, covered by half, which is ignored
    (30, 20, 70, 60): 1,  # IoU 0.6, covered by a quarter
    (0, 60, 19, 80): 0,  # IoU 0
    (50, 0, 70, 20): 0,  # IoU 0, covered by half, which is ignored
    (50, 0, 69, 20): 0,  # a little less
    (20, 20, 30, 30): 0,  # IoU 1/16
}


@pytest.mark.parametrize("background_low", [0.0, 0.0625, 0.1])
def test_states_of_rois_drawn_on_paper(background_low):
    proposals = list(STATES)
    expected = list(STATES.values())
    expected[3] = expected[6] = -1
    if background_low > 0:
        expected[5] = expected[7] = -1
    if background_low > 0.0625:
        expected[8] = -1
    one = sample([REGION, OBJECT], proposals, ignore=[True, False])
    rois, matches = RoiTargets(background_low=background_low).match(one)
    assert rois.tolist() == [*map(list, proposals), list(OBJECT)]
    assert matches.states.tolist() == [*expected, 1]
    assert matches.positive.tolist() == [0, 1, 4, 9]
    assert matches.match.tolist() == [1] * 4


def test_deltas_drawn_on_paper_are_weighted_and_stand_in_the_row_of_their_class():
    # Twice as wide and half a width to the left, as high and a quarter of its height lower.
    proposal, box = (40, 20, 60, 60), (20, 30, 60, 70)
    expected = np.float32([-0.5 * 10, 0.25 * 10, math.log(2) * 5, 0])
    targets = {"foreground_iou": 0.2, "num_samples": 8}
    x, y = RoiTargets(**targets)(sample([box], [proposal], class_ids=[2]))
    assert x["rois"][:3].tolist() == [list(proposal), list(box), [0] * 4]
    assert y["roi_class_ids"].tolist() == [3, 3] + [-1] * 6
    np.testing.assert_allclose(y["roi_deltas"][0], expected, rtol=1e-6)
    assert not y["roi_deltas"][1:].any()
    _, aware = RoiTargets(num_classes=4, **targets)(sample([box], [proposal], class_ids=[2]))
    np.testing.assert_array_equal(aware["roi_deltas"][:, 2], y["roi_deltas"])
    assert not aware["roi_deltas"][:, [0, 1, 3]].any()
    _, plain = RoiTargets(delta_weights=(1, 1, 1, 1), **targets)(sample([box], [proposal], class_ids=[2]))
    np.testing.assert_allclose(plain["roi_deltas"][0], expected / np.float32([10, 10, 5, 5]), rtol=1e-6)


def test_roi_between_two_boxes_goes_to_the_better_and_among_equals_to_the_first():
    boxes = [(0, 0, 40, 40), (0, 20, 40, 60), (0, 0, 40, 40)]
    _, matches = RoiTargets(foreground_iou=0.3).match(sample(boxes, [(0, 10, 40, 50), (0, 11, 40, 51), (0, 9, 40, 49)]))
    assert matches.positive.tolist() == [0, 1, 2, 3, 4, 5]
    assert matches.match.tolist() == [0, 1, 0, 0, 1, 0]


def test_rois_are_the_proposals_and_then_the_objects_that_have_area():
    proposals = [(0, 0, 20, 20), (90, 90, 100, 100)]
    rois, matches = RoiTargets().match(sample([(90, 90, 100, 100), (30, 30, 30, 50)], proposals))
    assert rois.tolist() == [[0, 0, 20, 20], [90, 90, 100, 100], [90, 90, 100, 100]]
    assert matches.states.tolist() == [0, 1, 1]


def many(g, count, image_hw=(200, 300)):
    """Boxes with whole corners, so that no IoU is a rounding away from a threshold."""
    low = np.stack([g.integers(0, image_hw[1] - 1, count), g.integers(0, image_hw[0] - 1, count)], axis=1)
    size = g.integers(1, 60, (count, 2))
    return np.concatenate([low, np.minimum(low + size, image_hw[::-1])], axis=1).astype(np.float32)


def crowded(seed, num_boxes, num_proposals):
    """A sample with proposals all over the image and around its boxes."""
    g = np.random.default_rng(seed)
    boxes = many(g, num_boxes)
    near = boxes[g.integers(len(boxes), size=num_proposals // 2)] + g.integers(-4, 5, (num_proposals // 2, 4))
    near = geometry.clip(near, (200, 300))
    near = near[(near[:, 2:] > near[:, :2]).all(axis=1)]
    proposals = np.concatenate([many(g, num_proposals - len(near)), near])
    return sample(
        boxes,
        proposals,
        ignore=g.random(num_boxes) < 0.3,
        class_ids=g.integers(0, 7, num_boxes),
        image_hw=(200, 300),
        seed=seed,
    )


def test_at_most_a_quarter_is_foreground_and_background_fills_up():
    one = crowded(0, 12, 2000)
    rois, matches = RoiTargets().match(one)
    assert (matches.states == 1).sum() > 128
    x, y = RoiTargets()(one)
    assert (y["roi_class_ids"][:128] > 0).all()
    assert (y["roi_class_ids"][128:] == 0).all()
    rows = {tuple(roi) for roi in rois[matches.states == 1].tolist()}
    assert all(tuple(roi) in rows for roi in x["rois"][:128].tolist())
    _, few = RoiTargets(num_samples=10, positive_fraction=1.0)(crowded(0, 12, 2000))
    assert (few["roi_class_ids"] > 0).all()


def test_foreground_is_drawn_evenly():
    boxes = [(0, 0, 20, 20), (30, 30, 60, 60), (70, 70, 100, 100)]
    targets = RoiTargets(num_samples=4)
    first = [tuple(targets(sample(boxes, seed=seed))[0]["rois"][0].tolist()) for seed in range(600)]
    counts = [first.count(box) for box in boxes]
    assert sum(counts) == 600
    assert min(counts) > 150


def by_hand(one, *, foreground_iou, background_low, ignore_ioa, weights):
    """State, class and deltas of every RoI, one after the other, as Girshick 2015, section 2.3, has it."""

    def shared(a, b):
        return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))

    def area(a):
        return (a[2] - a[0]) * (a[3] - a[1])

    objects = [i for i in range(len(one.boxes)) if not one.ignore[i]]
    rois = [tuple(roi) for roi in [*one.proposals.tolist(), *one.boxes[objects].tolist()]]
    answers = {}
    for roi in rois:
        best, which = 0, None
        for i in objects:
            overlap = shared(roi, one.boxes[i].tolist())
            iou = overlap / (area(roi) + area(one.boxes[i].tolist()) - overlap)
            if iou > best:
                best, which = iou, i
        deltas = [0] * 4
        if best >= foreground_iou:
            class_id = int(one.class_ids[which]) + 1
            x0, y0, x1, y1 = one.boxes[which].tolist()
            w, h = roi[2] - roi[0], roi[3] - roi[1]
            deltas = [
                weights[0] * ((x0 + x1) - (roi[0] + roi[2])) / 2 / w,
                weights[1] * ((y0 + y1) - (roi[1] + roi[3])) / 2 / h,
                weights[2] * math.log((x1 - x0) / w),
                weights[3] * math.log((y1 - y0) / h),
            ]
        elif any(
            one.ignore[i] and shared(roi, one.boxes[i].tolist()) / area(roi) >= ignore_ioa
            for i in range(len(one.boxes))
        ):
            class_id = -1
        else:
            class_id = 0 if best >= background_low else -1
        answers[roi] = class_id, deltas
    return rois, answers


@pytest.mark.parametrize("background_low", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_random_rois_agree_with_a_slow_loop(seed, background_low):
    one = crowded(seed, 1 + 4 * seed, 150)
    options = {"foreground_iou": 0.5, "background_low": background_low, "ignore_ioa": 0.5}
    expected_rois, answers = by_hand(one, **options, weights=(10, 10, 5, 5))
    targets = RoiTargets(**options, num_samples=1000)
    rois, matches = targets.match(one)
    assert [tuple(roi) for roi in rois.tolist()] == expected_rois
    classes = np.array([answers[roi][0] for roi in expected_rois])
    np.testing.assert_array_equal(matches.states, np.minimum(classes, 1))
    # All are drawn where there is room: every RoI that is not ignored comes once, with its class and deltas.
    x, y = targets(one)
    drawn = [tuple(roi) for roi in x["rois"][y["roi_class_ids"] >= 0].tolist()]
    assert sorted(drawn) == sorted(roi for roi in expected_rois if answers[roi][0] >= 0)
    for roi, class_id, deltas in zip(drawn, y["roi_class_ids"].tolist(), y["roi_deltas"], strict=False):
        assert class_id == answers[roi][0]
        np.testing.assert_allclose(deltas, answers[roi][1], rtol=1e-4, atol=1e-5)


def test_fewer_places_draw_from_the_same_rois_and_none_twice():
    for seed in range(20):
        one = crowded(seed, 3, 60)
        rois, matches = RoiTargets().match(one)
        x, y = RoiTargets(num_samples=16)(one)
        used = y["roi_class_ids"] >= 0
        assert (y["roi_class_ids"] > 0).sum() == min(4, len(matches.positive))
        pool = [(tuple(roi), state) for roi, state in zip(rois.tolist(), matches.states.tolist(), strict=True)]
        for roi, class_id in zip(x["rois"][used].tolist(), y["roi_class_ids"][used].tolist(), strict=True):
            pool.remove((tuple(roi), min(class_id, 1)))


def test_deltas_turn_the_rois_into_their_boxes():
    one = crowded(1, 5, 300)
    x, y = RoiTargets()(one)
    positive = y["roi_class_ids"] > 0
    decoded = geometry.decode_deltas(y["roi_deltas"][positive], x["rois"][positive], (10, 10, 5, 5))
    distance = np.abs(decoded[:, None] - one.boxes[~one.ignore][None]).max(axis=2)
    assert (distance.min(axis=1) < 1e-3).all()
    classes = one.class_ids[~one.ignore][distance.argmin(axis=1)]
    np.testing.assert_array_equal(y["roi_class_ids"][positive], classes + 1)


def test_anchors_and_rois_that_are_the_same_boxes_have_the_same_states():
    """The second stage has the matcher's rules and the ignore rules of the first."""
    grid = AnchorGrid(strides=(16,), cell_sizes_wh=(((32.0, 32.0),),), offset=0.5)
    anchors = grid.anchors((128, 128))
    inside = ((anchors >= 0) & (anchors <= 128)).all(axis=1)  # proposals lie inside the image, anchors need not
    boxes, ignore = [(10, 20, 45, 50), (70, 60, 95, 100), (50, 0, 90, 40)], [False, False, True]
    one = sample(boxes, anchors[inside], ignore=ignore, image_hw=(128, 128))
    targets = AnchorTargets(grid, positive_iou=0.5, negative_iou=0.5, low_quality=False)
    expected = targets.match(one).states[inside]
    assert set(expected.tolist()) == {-1, 0, 1}
    np.testing.assert_array_equal(RoiTargets().match(one)[1].states[:-2], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"background_low": 0.5}, "background_low=0.5, foreground_iou=0.5"),
        ({"foreground_iou": 1.5}, "foreground_iou=1.5"),
        ({"num_classes": 0}, "at least 1, or None. Received: 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RoiTargets(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": "512"}, "num_samples to be a whole number. Received: '512'"),
        ({"num_classes": 80.0}, "num_classes to be a whole number or None. Received: 80.0"),
        ({"background_low": None}, "background_low to be a number. Received: None"),
        ({"delta_weights": "10, 10, 5, 5"}, "delta_weights to be four numbers. Received: '10, 10, 5, 5'"),
    ],
)
def test_arguments_of_wrong_types_are_refused_at_once(arguments, message):
    with pytest.raises(TypeError, match=message):
        RoiTargets(**arguments)


def test_class_id_at_or_above_num_classes_is_an_error():
    with pytest.raises(ValueError, match="below num_classes 3, got 3"):
        RoiTargets(num_classes=3)(sample([(0, 0, 9, 9)], class_ids=[3]))


def test_rois_in_a_crowd_count_by_its_mask_or_cheaper_by_its_box():
    crowd = sample([(0, 0, 100, 100)], [(0, 0, 20, 20), (0, 0, 40, 20), (60, 60, 80, 80)], ignore=[True])
    mask = np.zeros((100, 100), np.uint8)
    mask[:20, :20] = 255
    crowd = dataclasses.replace(crowd, masks={0: mask})
    assert RoiTargets().match(crowd)[1].states.tolist() == [-1, -1, 0]
    assert RoiTargets(ignore_ioa=0.6).match(crowd)[1].states.tolist() == [-1, 0, 0]
    assert RoiTargets(crowd="box").match(crowd)[1].states.tolist() == [-1, -1, -1]
