import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed import AnnotationError
from detfeed.keypoints import Keypoints, flips_of

NAMES = ("nose", "left_eye", "right_eye")


def keypoints_of(rng, count, hw=(40, 60)):
    points = rng.uniform(0, 1, (count, 3, 3)) * [hw[1], hw[0], 0]
    points[..., 2] = rng.integers(0, 3, (count, 3))
    points[points[..., 2] == 0] = 0
    return Keypoints(points.astype(np.float32), NAMES, flips_of(NAMES))


def test_keypoints_of_no_box_go_through_every_operation():
    none = Keypoints(np.zeros((0, 3, 3), np.float32), NAMES, flips_of(NAMES))
    moved = none.flipped(60, axis=0).cropped((0, 0, 5, 5)).rescaled((5, 5), (9, 9)).take(np.zeros(0, np.int64))
    assert moved.points.shape == (0, 3, 3)


def test_flips_are_pairs_of_left_and_right_in_the_names():
    assert flips_of(NAMES).tolist() == [0, 2, 1]
    assert flips_of(["LeftHand", "tail", "RightHand", "left"]).tolist() == [2, 1, 0, 3]
    assert flips_of([]).tolist() == []


@given(st.integers(0, 2**32), st.sampled_from([0, 1]))
def test_flipping_twice_gives_the_keypoints_back_and_once_swaps_left_and_right(seed, axis):
    keypoints = keypoints_of(np.random.default_rng(seed), 4)
    once = keypoints.flipped((60, 40)[axis], axis=axis)
    np.testing.assert_allclose(once.flipped((60, 40)[axis], axis=axis).points, keypoints.points, atol=1e-5)
    np.testing.assert_array_equal(once.points[:, 1, 2], keypoints.points[:, 2, 2])


def test_points_outside_of_a_window_are_not_visible():
    points = np.float32([[[5, 5, 2], [20, 5, 1], [9, 30, 2]]])
    cut = Keypoints(points, NAMES, flips_of(NAMES)).cropped((4, 0, 14, 10))
    assert cut.points.tolist() == [[[1, 5, 2], [0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("shape", "names", "flips", "message"),
    [
        ((2, 2, 3), NAMES, [0, 2, 1], r"float32 \(N, 3, 3\), got float32 \(2, 2, 3\)"),
        ((2, 3, 3), NAMES[:2], [0, 2, 1], "expected 3 names of keypoints or none, got 2"),
        ((2, 3, 3), NAMES, [1, 2, 0], r"pairs of keypoints that become each other, got \[1, 2, 0\]"),
        ((2, 3, 3), (), [0, 1, 3], "pairs of keypoints"),
    ],
)
def test_columns_that_do_not_fit_together_are_an_error(shape, names, flips, message):
    with pytest.raises(AnnotationError, match=message):
        Keypoints(np.zeros(shape, np.float32), names, np.array(flips))
