import pickle

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed.mask_columns import NO_MASKS, MaskColumns, join_masks
from detfeed.masks import fill_mask

HW = (12, 17)


def draw_columns(rng, count):
    """Masks of about half of the boxes: some of runs, some of one to three polygons."""
    rows = np.flatnonzero(rng.random(count) < 0.5)
    with_runs = rng.random(len(rows)) < 0.4
    run_counts = np.where(with_runs, rng.integers(1, 6, len(rows)), 0)
    runs = [rng.multinomial(HW[0] * HW[1], np.full(n, 1 / n)) for n in run_counts if n]
    polygon_counts = np.where(with_runs, 0, rng.integers(1, 4, len(rows)))
    point_counts = rng.integers(3, 7, polygon_counts.sum())
    return MaskColumns.made(
        rows,
        sizes_hw=np.tile(HW, (len(rows), 1)),
        runs=np.concatenate([np.zeros(0, np.int32), *runs]).astype(np.int32),
        run_counts=run_counts,
        points=rng.uniform(-4, 20, (point_counts.sum(), 2)).astype(np.float32),
        point_counts=point_counts,
        polygon_counts=polygon_counts,
    )


def content(masks):
    """Runs and polygons by row."""
    return {row: (masks[row].tolist(), [polygon.tolist() for polygon in masks.polygons(row)]) for row in masks}


def test_no_masks_are_an_empty_mapping():
    assert not NO_MASKS and NO_MASKS == {} and 0 not in NO_MASKS
    assert NO_MASKS.take(np.arange(3), 3) == {} and join_masks([NO_MASKS, NO_MASKS], [2, 0]) == {}
    with pytest.raises(KeyError):
        NO_MASKS[0]


def test_runs_by_row_become_columns_and_stay_what_they_are():
    masks = MaskColumns.of({5: np.int32([3, 1]), 2: np.int32([4])})
    assert {row: runs.tolist() for row, runs in masks.items()} == {2: [4], 5: [3, 1]}
    assert masks.pixels.tolist() == [4, 4] and masks.polygons(5) == []
    assert MaskColumns.of(masks) is masks
    assert content(pickle.loads(pickle.dumps(masks))) == content(masks)


@given(st.integers(0, 2**32), st.integers(0, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_masks_go_with_their_boxes_when_some_are_taken_in_any_order(seed, count, data):
    masks = draw_columns(np.random.default_rng(seed), count)
    rows = data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, count))]
    taken = masks.take(np.array(rows, np.int64), count)
    before = content(masks)
    assert content(taken) == {place: before[row] for place, row in enumerate(rows) if row in before}
    assert (np.diff(taken.rows) > 0).all()


@given(st.integers(0, 2**32), st.lists(st.integers(0, 6), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_joined_tables_keep_their_masks(seed, counts):
    rng = np.random.default_rng(seed)
    parts = [draw_columns(rng, count) for count in counts]
    expected = {}
    for part, start in zip(parts, np.cumsum([0, *counts]).tolist(), strict=False):
        expected |= {row + start: mask for row, mask in content(part).items()}
    assert content(join_masks(parts, counts)) == expected


def test_polygons_cover_what_the_coco_api_says_and_runs_agree():
    masks = draw_columns(np.random.default_rng(3), 60)
    of_polygons = [row for row in masks if masks.polygons(row)]
    assert 5 < len(of_polygons) < len(masks)
    for row in of_polygons:
        parts = pycocotools.mask.frPyObjects([p.reshape(-1).astype(float) for p in masks.polygons(row)], *HW)
        expected = pycocotools.mask.decode(parts).any(axis=2) * 255
        np.testing.assert_array_equal(masks.fill(row, HW), expected)
    for row in masks:
        np.testing.assert_array_equal(masks.fill(row, HW), fill_mask(masks[row], HW))
        assert masks.fill(row, HW).flags.c_contiguous


def test_large_tables_are_taken_a_part_at_a_time(monkeypatch):
    masks = draw_columns(np.random.default_rng(1), 40)
    rows = np.random.default_rng(2).permutation(40)
    whole = content(masks.take(rows, 40))
    monkeypatch.setattr("detfeed.mask_columns._AT_ONCE", 3)
    assert content(masks.take(rows, 40)) == whole
