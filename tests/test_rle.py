import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detfeed.rle import fill_mask, parse_runs


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
    [("\n", "characters from '0' to 'o'"), ("Q", "breaks off"), ([3, -1], "got -1 to 3"), ([2**31], "got 2147483648")],
)
def test_what_is_no_mask_is_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        parse_runs(counts)
