"""The mask of an object as one polygon covers the same pixels."""

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detfeed.mask_columns import MaskColumns
from detfeed.readers.outlines import outline

HW = (9, 12)
BITS = st.integers(0, 2 ** (HW[0] * HW[1]) - 1)


def runs_of(mask):
    """Runs of a mask, columns first, from outside."""
    flat = np.concatenate([[0], mask.reshape(-1, order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff([0, *ends]).astype(np.int32)


def polygons_of(*polygons):
    counts = np.array([len(polygon) for polygon in polygons])
    return MaskColumns.made(
        np.array([3]),
        sizes_hw=np.array([HW]),
        points=np.concatenate([np.float32(polygon) for polygon in polygons]),
        point_counts=counts,
        polygon_counts=np.array([len(polygons)]),
    )


def filled(polygon):
    """The pixels of one polygon, as pycocotools draws it."""
    flat = [polygon.astype(np.float64).reshape(-1)]
    return pycocotools.mask.decode(pycocotools.mask.merge(pycocotools.mask.frPyObjects(flat, *HW)))


def test_mask_without_pixels_has_no_outline():
    assert outline(MaskColumns.of({3: np.int32([HW[0] * HW[1]])}), 3, HW).shape == (0, 2)


@settings(max_examples=150)
@given(BITS)
@example(0b101)
@example(2 ** (HW[0] * HW[1]) - 1)
def test_outline_of_any_pixels_covers_these_and_no_others(bits):
    mask = np.array([bits >> place & 1 for place in range(HW[0] * HW[1])], np.uint8).reshape(HW)
    masks = MaskColumns.of({3: runs_of(mask)})
    assert (masks.fill(3, HW) // 255 == mask).all()
    polygon = outline(masks, 3, HW)
    assert (filled(polygon) == mask).all() if len(polygon) else not mask.any()


def test_hole_and_islands_are_kept():
    mask = np.zeros(HW, np.uint8)
    mask[1:8, 1:8] = 1
    mask[3:6, 3:6] = 0
    mask[4, 4] = 1
    mask[:, 10] = 1
    assert (filled(outline(MaskColumns.of({3: runs_of(mask)}), 3, HW)) == mask).all()


def test_polygon_inside_its_image_stays_and_one_that_reaches_out_is_cut():
    corners = [[0, 0], [12, 0], [12, 9], [0.125, 8.5]]
    assert outline(polygons_of(corners), 3, HW).tolist() == corners
    cut = outline(polygons_of([[-5, 2], [20, 2], [20, 30], [-5, 30]]), 3, HW)
    assert cut.min() >= 0 and (cut <= [12, 9]).all()
    assert filled(cut).sum() == 12 * 7 == filled(cut)[2:].sum()


TRIANGLE = st.lists(st.tuples(st.integers(-8, 56), st.integers(-8, 44)), min_size=3, max_size=5)


@settings(max_examples=150)
@given(st.lists(TRIANGLE, min_size=1, max_size=3))
@example([[(0, 0), (16, 0), (16, 16), (0, 16)], [(8, 8), (40, 8), (40, 32), (8, 32)]])  # they share pixels
def test_one_polygon_covers_the_pixels_that_several_do(quarters):
    masks = polygons_of(*(np.float32(polygon) / 4 for polygon in quarters))
    mask = masks.fill(3, HW) // 255
    polygon = outline(masks, 3, HW)
    if len(polygon):
        assert (filled(polygon) == mask).all()
        assert (polygon >= 0).all() and (polygon <= HW[::-1]).all()
    else:
        assert not mask.any()


@pytest.mark.parametrize("shift", [0, 20])
def test_polygons_that_share_no_pixel_are_joined_without_another_point(shift):
    first, second = [[0, 0], [4, 0], [4, 4]], [[6, 2], [8, 2], [8, 7], [6, 7]]
    polygon = outline(polygons_of(first, np.add(second, shift / 10)), 3, HW)
    assert len(polygon) == 3 + 1 + 4 + 1 + 1
    assert {tuple(point) for point in polygon.tolist()} == {
        tuple(np.float32(point).tolist()) for point in [*first, *np.add(second, shift / 10)]
    }
