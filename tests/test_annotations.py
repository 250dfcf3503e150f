import dataclasses
import pickle

import numpy as np
import pytest

from detfeed import AnnotationError


def test_no_images_are_ordinary(annotate):
    empty = annotate([], [])
    assert len(empty) == 0
    assert repr(empty) == "Annotations(0 images, 0 boxes of which 0 ignored, 3 classes, from 'made up')"


def test_rows_of_an_image_are_its_boxes(annotate):
    table = annotate([(8, 8)] * 3, [[(0, 0, 1, 1)], [], [(0, 0, 2, 2), (0, 0, 3, 3)]])
    assert [table.boxes[table.rows(p), 2].tolist() for p in range(3)] == [[1], [], [2, 3]]
    assert table.image_id(2) == 102


def test_columns_are_read_only_and_survive_pickling(annotate):
    table = annotate([(8, 8)], [[(0, 0, 1, 1)]])
    with pytest.raises(ValueError, match="read-only"):
        table.boxes[0, 0] = 5
    copy = pickle.loads(pickle.dumps(table))
    assert copy.paths == table.paths
    np.testing.assert_array_equal(copy.boxes, table.boxes)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("boxes", np.zeros((1, 4)), r"`boxes` to be float32 \(1, 4\), got float64 \(1, 4\)"),
        ("class_ids", np.zeros(2, np.int32), r"`class_ids` to be int32 \(1,\), got int32 \(2,\)"),
        ("boxes", np.float32([[0, 0, np.nan, 1]]), "finite box corners, .*nan.* at box 0 of image 101"),
        ("boxes", np.float32([[5, 0, 1, 1]]), r"x0 <= x1 and y0 <= y1, got box \[5.0, 0.0, 1.0, 1.0\]"),
        ("class_ids", np.int32([3]), "a known class, got .* of class 3 - at box 0 of image 101"),
        ("image_ids", np.array([7, 7]), "each image id once, got 2 images with id 7"),
        ("image_hw", np.int32([[4, 4], [0, 4]]), "sizes of at least 1 pixel, got height 0, width 4 - at image 101"),
        ("offsets", np.array([0, 2, 1]), "`offsets` to rise from 0 to 1"),
        ("masks", {1: np.int32([64])}, "masks of boxes 0 to 0, got 1"),
        ("masks", {0: np.int32([63])}, r"a mask of \[8, 8\] pixels, got runs over 63 - at box 0 of image 101"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_an_address(annotate, column, value, message):
    table = annotate([(8, 8)] * 2, [[], [(0, 0, 1, 1)]])
    with pytest.raises(AnnotationError, match=f"made up: expected {message}"):
        dataclasses.replace(table, **{column: value})
