import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detfeed import masks
from detfeed.masks import covered_boxes, covered_grid, fill_mask, parse_runs, sum_mask


def parse_slowly(text):
    """rleFrString of pycocotools' maskApi.c, in Python."""
    runs, place = [], 0
    while place < len(text):
        value, digit, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 31) << 5 * digit
            more = bool(bits & 32)
            place, digit = place + 1, digit + 1
            if not more and bits & 16:
                value |= -1 << 5 * digit
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def pack(runs):
    """rleToString of maskApi.c, in Python."""
    text = ""
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 * more) + 48)
    return text


def test_no_runs_are_ordinary():
    assert parse_runs([]).tolist() == parse_runs("").tolist() == []


def test_runs_go_down_the_columns_and_start_outside():
    mask = fill_mask(parse_runs([1, 2, 3]), (2, 3))
    assert mask.tolist() == [[0, 255, 0], [255, 0, 0]]
    assert mask.dtype == np.uint8


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_compressed_strings_are_read_as_pycocotools_writes_them(mask):
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask))
    runs = parse_runs(encoded["counts"].decode())
    assert runs.sum() == mask.size
    np.testing.assert_array_equal(fill_mask(runs, mask.shape), mask * 255)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("o" * 10**6, "of more digits"),
        ("\n", "characters from '0' to 'o'"),
        ("Q", "breaks off"),
        ([3, -1], "got -1 to 3"),
        ([2**31], "got 2147483648"),
        (pack([3, 1, 4]) + "N", "got -1 to 4"),
        (pack([2**31]), "got 2147483648"),
        ("\u20ac", "characters from '0' to 'o', got '\u20ac'"),
        ("0o", "breaks off"),
    ],
)
def test_broken_runs_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        parse_runs(counts)


@pytest.mark.parametrize("part", [8, 9, 100])
@given(runs=st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 40), max_size=60))
def test_strings_unpacked_part_by_part_are_those_of_the_reference(part, runs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_PART", part)
        text = pack(runs)
        assert parse_slowly(text) == runs
        assert parse_runs(text).tolist() == runs
        assert parse_runs(text).dtype == np.int32


@pytest.mark.parametrize("counts", [pack([3, 1, 4, 1, 5, 9]), [3, 1, 4, 1, 5, 9]])
def test_more_runs_than_a_picture_has_are_refused(counts):
    assert len(parse_runs(counts, most=6)) == 6
    with pytest.raises(ValueError, match="expected at most 5 runs, got"):
        parse_runs(counts, most=5)


def test_a_string_of_megabytes_takes_memory_for_its_runs_alone():
    text = pack([7] * 4) + "0" * 4_000_000
    tracemalloc.start()
    runs = parse_runs(text)
    with pytest.raises(ValueError, match="at most 100 runs"):
        parse_runs(text, most=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(runs) == 4_000_004 and (runs == 7).all()
    # 4 bytes a run, twice while the parts are joined, and two copies of the string. A list of numbers took 25.
    assert peak < 12 * len(text)


def test_covered_area_of_a_box_counts_pixels_whole_and_in_part():
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 255
    mask[3, 5] = 51
    boxes = np.float32([[0, 0, 6, 4], [2, 1, 5, 3], [2.5, 1, 3, 1.5], [4.5, 2.5, 9, 9], [-5, -5, 0, 0], [1, 1, 1, 3]])
    np.testing.assert_allclose(covered_boxes(sum_mask(mask), boxes), [6.2, 6, 0.25, 0.25 + 0.2, 0, 0], atol=1e-12)
    assert covered_boxes(sum_mask(mask), np.zeros((0, 4), np.float32)).shape == (0,)


def test_the_summed_area_table_is_two_cumulative_sums():
    # 25 megapixels all inside: their sum is over what 32 bits hold.
    for mask in (
        np.random.default_rng(0).integers(0, 256, (31, 40), np.uint8)[:, 3:],
        np.full((5000, 5000), 255, "u1"),
    ):
        expected = mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1)
        sums, box = sum_mask(mask)
        assert box.tolist() == [0, 0, *mask.shape[::-1]]
        assert not sums[0].any() and not sums[:, 0].any()
        np.testing.assert_array_equal(sums[1:, 1:], expected)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 0, 0, 7, 255])),
    st.lists(st.tuples(*[st.sampled_from([-3, 0, 1, 2.25, 4, 6.5, 9, 12])] * 4), max_size=4),
)
def test_of_a_mask_with_empty_edges_as_much_is_covered_as_of_the_mask_pixel_by_pixel(mask, corners):
    corners = np.array(corners, np.float32).reshape(-1, 4)
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    fine = np.repeat(np.repeat(mask, 4, axis=0), 4, axis=1).astype(float) / 255 / 16
    expected = [
        fine[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)].sum() for x0, y0, x1, y1 in (4 * boxes).astype(int)
    ]
    np.testing.assert_allclose(covered_boxes(sum_mask(mask), boxes), expected, atol=1e-9)


def test_boxes_on_a_grid_and_one_by_one_are_covered_alike():
    rng = np.random.default_rng(0)
    sums = sum_mask(rng.integers(0, 256, (30, 40), np.uint8))
    x, y = rng.uniform(-5, 45, 7), rng.uniform(-5, 35, 5)
    grid = covered_grid(sums, (x, x + 9.5), (y, y + 3.25))
    boxes = np.array([[a, b, a + 9.5, b + 3.25] for b in y for a in x])
    np.testing.assert_allclose(grid.reshape(-1), covered_boxes(sums, boxes), atol=1e-9)
