import numpy as np
import pytest

from detfeed import proposal_recall

NONE = np.zeros((0, 4), np.float32)


def score(table, boxes):
    return proposal_recall(
        table,
        [np.array(b, np.float32).reshape(-1, 4) for b in boxes],
        [np.linspace(1, 0, len(b), dtype=np.float32) for b in boxes],
    )


def test_without_objects_recall_is_nan(annotate):
    assert np.isnan(score(annotate([(50, 50)], [[]]), [[]])["AR@100"])
    assert np.isnan(score(annotate([(50, 50)], [[]]), [[(0, 0, 5, 5)]])["recall@100"])


def test_without_proposals_recall_is_zero(annotate):
    result = score(annotate([(50, 50)], [[(0, 0, 10, 10)]]), [[]])
    assert result["AR@1000"] == result["recall@1000"] == 0


def test_perfect_proposals_have_recall_one(annotate):
    boxes = [[(0, 0, 10, 10)], [(5, 5, 45, 45), (0, 0, 50, 30)]]
    result = score(annotate([(50, 50)] * 2, boxes), boxes)
    assert result["AR@100"] == result["recall@1000"] == 1
    assert result["AR@100_small"] == result["AR@100_medium"] == 1
    assert np.isnan(result["AR@100_large"])


def test_average_recall_counts_the_iou_thresholds_passed(annotate):
    # IoU 0.8 passes 0.50, 0.55, ... 0.75 and 0.80: 7 of 10.
    result = score(annotate([(50, 50)], [[(0, 0, 10, 10)]]), [[(0, 0, 10, 8)]])
    assert result["AR@100"] == pytest.approx(0.7)
    assert result["recall@100"] == 1


def test_only_the_best_scored_proposals_count(annotate):
    wrong = [(20, 20, 30 + i % 7, 31) for i in range(100)]
    result = score(annotate([(50, 50)], [[(0, 0, 10, 10)]]), [[*wrong, (0, 0, 10, 10)]])
    assert result["AR@100"] == 0
    assert result["AR@300"] == 1


def test_ignored_boxes_count_neither_as_found_nor_as_missed(annotate):
    table = annotate([(50, 50)], [[(0, 0, 10, 10), (20, 20, 50, 50)]], ignore_of=[[False, True]])
    assert score(table, [[(0, 0, 10, 10)]])["AR@100"] == 1
    assert score(table, [[(20, 20, 50, 50)]])["AR@100"] == 0


def test_classes_do_not_matter(annotate):
    boxes = [(0, 0, 10, 10), (20, 20, 30, 30), (30, 30, 50, 50)]
    table = annotate([(50, 50)], [boxes])
    assert len(set(table.class_ids.tolist())) == 3
    assert score(table, [boxes])["AR@100"] == 1


def test_numbers_of_images_that_differ_are_refused(annotate):
    with pytest.raises(ValueError, match=r"each of 1 images\. Received: 0, 0"):
        proposal_recall(annotate([(50, 50)], [[]]), [], [])
