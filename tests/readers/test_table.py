import numpy as np
import pytest

from detfeed import AnnotationError
from detfeed.readers.bad_boxes import BadBox, BadBoxesWarning
from tables import clean

INSIDE = [2, 2, 6, 6]


def test_masks_and_areas_follow_their_boxes():
    runs = np.int32([200])
    with pytest.warns(UserWarning, match="1 without area"):
        table = clean(
            [[5, 5, 5, 5], INSIDE, [1, 1, 2, 2]], areas=np.array([1.0, np.nan, 7.0]), masks={0: runs, 2: runs}
        )
    assert table.areas.tolist() == [16, 7]
    assert list(table.masks) == [1]


def test_absurd_sizes_and_unknown_policies_are_errors():
    with pytest.raises(AnnotationError, match=r"at most 1000000 pixels a side, got .* \[10, 4294967295\] - at 0.png"):
        clean([], sizes=[(10, 2**32 - 1)])
    with pytest.raises(ValueError, match=r"'clip', 'ignore', 'raise'\). Received: 'keep'"):
        clean([], "keep")


def test_images_that_are_left_out_take_their_boxes_with_them():
    boxes = [[1, 1, 2, 2], INSIDE, [-5, 0, 5, 5], [3, 3, 4, 4]]
    with pytest.warns(BadBoxesWarning, match=r"of 3 boxes 1 reaching .* - at line 3") as said:
        table = clean(
            boxes,
            positions=[0, 2, 2, 1],
            sizes=[(10, 20)] * 3,
            left_out=[0],
            masks={1: np.int32([200]), 0: np.int32([200])},
            areas=np.array([1.0, 2.0, 3.0, 4.0]),
        )
    assert said[0].message.found[0].examples == (BadBox("2.png", 2, 1, (-5, 0, 5, 5), "line 3"),)
    assert table.paths == ("1.png", "2.png")
    assert table.image_ids.tolist() == [1, 2]
    assert table.offsets.tolist() == [0, 1, 3]
    assert table.boxes.tolist() == [[3, 3, 4, 4], INSIDE, [0, 0, 5, 5]]
    assert table.areas.tolist() == [4, 2, 3]
    assert list(table.masks) == [1]
    assert len(clean([INSIDE], left_out=[0])) == 0
