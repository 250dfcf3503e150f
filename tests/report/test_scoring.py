"""Judging detections, against a slow reference and by what the counts must add up to."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from detfeed import average_precision
from detfeed import boxes as geometry
from detfeed.average_precision import gather
from detfeed.report.scoring import MIN_IOU, confusion, errors_by_image, judge, score_classes
from tables import clean

INT = st.integers(0, 12)
BOX = st.tuples(INT, INT, st.integers(1, 8), st.integers(1, 8)).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
OBJECTS = st.lists(st.tuples(BOX, st.integers(0, 1), st.booleans()), max_size=4, unique_by=lambda one: one[0])
DETECTION = st.tuples(BOX, st.sampled_from([0.125, 0.25, 0.5, 0.75]), st.integers(0, 1))
IMAGES = st.lists(st.tuples(OBJECTS, st.lists(DETECTION, max_size=5)), min_size=1, max_size=3)


def tables_of(images):
    """The truth and the detections of images, each a list of (box, class, ignore) and one of (box, score, class)."""
    rows = [(position, *one) for position, (objects, _) in enumerate(images) for one in objects]
    truth = clean(
        [row[1] for row in rows],
        positions=[row[0] for row in rows],
        class_ids=[row[2] for row in rows],
        ignore=[row[3] for row in rows],
        sizes=[(20, 20)] * len(images),
    )
    parts = [[np.array([one[part] for one in found]) for _, found in images] for part in (0, 1, 2)]
    return truth, gather(truth, *parts)


def slowly_judged(truth, found):
    """`judge`, written from its docstring: one detection after another."""

    def best(row, allowed):
        choice, best_iou = -1, MIN_IOU
        for other in allowed:
            iou = geometry.iou(found.boxes[row : row + 1].astype(np.float32), truth.boxes[other : other + 1])[0, 0]
            if iou > best_iou or (iou == best_iou and choice < 0):
                choice, best_iou = other, iou
        return choice

    count = len(found.boxes)
    order = sorted(range(count), key=lambda row: (found.positions[row], -found.scores[row], row))
    of_image = [list(range(*truth.rows(p).indices(len(truth.boxes)))) for p in range(len(truth))]
    objects, neutral = [-1] * count, [False] * count
    for row in order:
        own = of_image[found.positions[row]]
        same = [i for i in own if truth.class_ids[i] == found.class_ids[row] and not truth.ignore[i]]
        objects[row] = best(row, [i for i in same if i not in objects])
        if objects[row] < 0:
            box = found.boxes[row : row + 1].astype(np.float32)
            neutral[row] = any(geometry.ioa(box, truth.boxes[i : i + 1])[0, 0] >= 0.5 for i in own if truth.ignore[i])
    right = [place >= 0 for place in objects]

    def f1(threshold):
        shown = [row for row in range(count) if found.scores[row] >= threshold and not neutral[row]]
        hits = sum(right[row] for row in shown)
        return 2 * hits / (len(shown) + np.count_nonzero(~truth.ignore)) if hits else 0.0

    candidates = sorted({found.scores[row] for row in range(count) if not neutral[row]}, reverse=True)
    threshold = max(candidates, key=f1) if any(right) else 0.5
    shown = [score >= threshold for score in found.scores]
    objects = [place if shown[row] else -1 for row, place in enumerate(objects)]
    for row in order:
        if shown[row] and objects[row] < 0 and not neutral[row]:
            own = of_image[found.positions[row]]
            objects[row] = best(row, [i for i in own if not truth.ignore[i] and i not in objects])
    right = [right[row] and shown[row] for row in range(count)]
    return threshold, f1(threshold), objects, right, neutral, shown


@hypothesis.given(IMAGES)
def test_detections_are_judged_as_one_after_another_would_be(images):
    truth, found = tables_of(images)
    judged = judge(truth, found)
    threshold, f1, *columns = slowly_judged(truth, found)
    assert judged.threshold == threshold
    assert judged.f1 == pytest.approx(f1)
    for name, column in zip(("objects", "right", "neutral", "shown"), columns, strict=True):
        assert getattr(judged, name).tolist() == column, name


@hypothesis.given(IMAGES)
def test_every_object_and_every_detection_is_counted_once(images):
    truth, found = tables_of(images)
    judged = judge(truth, found)
    matrix = confusion(truth, found, judged)
    objects = np.bincount(truth.class_ids[~truth.ignore], minlength=2)
    assert matrix[:2].sum(axis=1).tolist() == objects.tolist()
    counted = np.bincount(found.class_ids[judged.shown & ~judged.neutral], minlength=2)
    assert matrix[:, :2].sum(axis=0).tolist() == counted.tolist()
    assert np.trace(matrix[:2, :2]) == judged.right.sum()
    missed, wrong = errors_by_image(truth, found, judged).sum(axis=0)
    assert missed == objects.sum() - judged.right.sum()
    assert wrong == counted.sum() - judged.right.sum()


def test_a_better_detection_of_another_class_leaves_an_object_to_its_own():
    truth, found = tables_of([([((0, 0, 10, 10), 0, False)], [((0, 0, 10, 10), 0.75, 1), ((0, 0, 10, 9), 0.5, 0)])])
    judged = judge(truth, found)
    assert (judged.objects.tolist(), judged.right.tolist()) == ([-1, 0], [False, True])


def test_an_object_that_only_a_weak_detection_would_find_is_taken_for_another_class():
    strong = [((0, 0, 5, 5), 0.75, 0), ((5, 5, 10, 10), 0.75, 0)]
    images = [
        ([(box, 0, False) for box, _, _ in strong], strong),
        (
            [((0, 0, 10, 10), 0, False)],
            [((0, 0, 10, 10), 0.75, 1), ((0, 0, 10, 10), 0.125, 0)]
            + [((11 + i, 11, 14 + i, 14), 0.125, 0) for i in range(5)],
        ),
    ]
    truth, found = tables_of(images)
    judged = judge(truth, found)
    assert judged.threshold == 0.75
    assert confusion(truth, found, judged).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_nothing_to_judge_is_ordinary():
    truth, found = tables_of([([], []), ([], [])])
    judged = judge(truth, found)
    assert (judged.threshold, judged.f1, len(judged.objects)) == (0.5, 0, 0)
    assert not confusion(truth, found, judged).any()
    assert errors_by_image(truth, found, judged).tolist() == [[0, 0], [0, 0]]


def test_classes_have_the_scores_of_average_precision():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(6):
        objects = [((x, y, x + 6, y + 6), int(rng.integers(2)), False) for x, y in ((0, 0), (10, 0), (0, 10))]
        found = [
            (tuple(np.add(box, rng.integers(-1, 2, 4))), float(rng.random()), int(rng.integers(2)))
            for box, _, _ in objects
        ]
        images.append((objects, [(tuple(np.clip(box, 0, 20)), score, one) for box, score, one in found]))
    truth, found = tables_of(images)
    spans = [slice(*np.searchsorted(found.positions, (p, p + 1))) for p in range(len(truth))]
    expected = average_precision(
        truth, *([column[span] for span in spans] for column in (found.boxes, found.scores, found.class_ids))
    )
    scores = score_classes(truth, found)
    assert scores.ap.tolist() == pytest.approx([expected["AP/a"], expected["AP/b"]])
    assert np.mean(scores.ap50) == pytest.approx(expected["AP50"])
    assert scores.objects.sum() == len(truth.boxes)


def test_a_right_detection_inside_an_ignore_region_is_right():
    truth, found = tables_of(
        [([((0, 0, 10, 10), 0, False), ((0, 0, 20, 20), 0, True)], [((0, 0, 10, 9), 0.5, 0), ((5, 5, 20, 20), 0.5, 0)])]
    )
    judged = judge(truth, found)
    assert judged.right.tolist() == [True, False]
    assert judged.neutral.tolist() == [False, True]
