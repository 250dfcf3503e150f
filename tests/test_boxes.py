import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detfeed import boxes as geometry

NONE = np.zeros((0, 4), np.float32)


def box(*corners):
    return np.array([corners], np.float32)


# Corners on a grid of 1/4 pixel, so that flips are exact.
corners = arrays(np.int32, st.tuples(st.integers(0, 8), st.just(4)), elements=st.integers(0, 4000)).map(
    lambda a: (
        np.concatenate([np.minimum(a[:, :2], a[:, 2:]), np.maximum(a[:, :2], a[:, 2:]) + 4], axis=1).astype(np.float32)
        / 4
    )
)


def test_no_boxes_are_ordinary():
    some = box(0, 0, 2, 2)
    assert geometry.area(NONE).shape == (0,)
    assert geometry.iou(NONE, some).shape == (0, 1)
    assert geometry.iou(some, NONE).shape == (1, 0)
    assert geometry.ioa(NONE, some).shape == (0, 1)
    assert geometry.clip(NONE, (5, 5)).shape == (0, 4)
    assert geometry.flip(NONE, 5, axis=0).shape == (0, 4)
    assert geometry.from_xywh([]).shape == (0, 4)
    assert geometry.to_xywh(NONE).shape == (0, 4)
    assert geometry.encode_deltas(NONE, NONE).shape == (0, 4)
    assert geometry.decode_deltas(NONE, NONE).shape == (0, 4)


def test_iou_of_boxes_drawn_on_paper():
    ours = np.array([[0, 0, 2, 2], [0, 0, 4, 4], [10, 10, 11, 11]], np.float32)
    theirs = np.array([[1, 0, 3, 2], [0, 0, 2, 2]], np.float32)
    np.testing.assert_array_equal(geometry.iou(ours, theirs), np.float32([[2 / 6, 1], [4 / 16, 4 / 16], [0, 0]]))


def test_touching_boxes_share_nothing():
    assert geometry.iou(box(0, 0, 2, 2), box(2, 0, 4, 2)) == 0


def test_iou_of_two_boxes_without_area_is_zero_and_not_nan():
    assert geometry.iou(box(1, 1, 1, 3), box(1, 1, 1, 3)) == 0


def test_ioa_is_the_share_of_the_first_box():
    assert geometry.ioa(box(0, 0, 4, 4), box(2, 0, 8, 4)) == 0.5
    assert geometry.ioa(box(1, 1, 1, 1), box(0, 0, 8, 4)) == 0


def test_area_of_a_turned_round_box_is_zero():
    assert geometry.area(box(3, 3, 1, 1)) == 0


def test_clip_keeps_the_part_inside_and_empties_boxes_outside():
    clipped = geometry.clip(np.float32([[-5, 2, 3, 99], [20, 20, 30, 30]]), (10, 15))
    np.testing.assert_array_equal(clipped, np.float32([[0, 2, 3, 10], [15, 10, 15, 10]]))


@given(corners, st.sampled_from([0, 1]))
def test_flipping_twice_gives_the_boxes_back(boxes, axis):
    once = geometry.flip(boxes, 1200, axis=axis)
    np.testing.assert_array_equal(geometry.flip(once, 1200, axis=axis), boxes)
    np.testing.assert_array_equal(geometry.area(once), geometry.area(boxes))


@given(corners)
def test_xywh_goes_there_and_back(boxes):
    np.testing.assert_array_equal(geometry.from_xywh(geometry.to_xywh(boxes)), boxes)


@given(corners, st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]), st.data())
def test_decoding_undoes_encoding(boxes, weights, data):
    shift = data.draw(st.floats(-20, 20, width=32))
    anchors = boxes + np.float32([shift, -shift, shift + 3, 7 - shift])
    deltas = geometry.encode_deltas(boxes, anchors, weights)
    assert deltas.dtype == np.float32
    # A clamp of log(1000 / 16) is far off for anchors that differ from their boxes by a few pixels.
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]).max(axis=1, initial=1)[:, None]
    assert (np.abs(geometry.decode_deltas(deltas, anchors, weights) - boxes) <= 1e-5 * (size + 1000)).all()


def test_decoding_grows_an_anchor_to_1000_sixteenths_at_most():
    grown = geometry.decode_deltas(np.float32([[0, 0, 9, 9]]), box(0, 0, 16, 16))
    np.testing.assert_allclose(grown[0, 2:] - grown[0, :2], [1000, 1000], rtol=1e-5)


@pytest.mark.parametrize(("form", "weights"), [("rpn", (1, 1, 1, 1)), ("roi", (10, 10, 5, 5))])
def test_coding_agrees_with_torchvision(golden, form, weights):
    file = golden("coding_torchvision")
    deltas = geometry.encode_deltas(file["boxes"], file["reference"], weights)
    np.testing.assert_allclose(deltas, file[f"deltas_{form}"], rtol=1e-5, atol=1e-5)
    decoded = geometry.decode_deltas(file["deltas_in"], file["reference"], weights)
    np.testing.assert_allclose(decoded, file[f"decoded_{form}"], rtol=1e-5, atol=1e-3)
