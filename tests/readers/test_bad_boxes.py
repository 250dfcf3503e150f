import warnings

import numpy as np
import pytest

from detfeed import AnnotationError, BatchLoader, ShortSide
from detfeed.readers.bad_boxes import BadBox, BadBoxes, BadBoxesWarning
from detfeed.readers.table import to_annotations
from tables import clean, draft

INSIDE = [2, 2, 6, 6]


@pytest.mark.parametrize("invalid", ["clip", "drop", "ignore", "raise"])
def test_no_boxes_and_good_boxes_pass_without_a_warning(invalid):
    assert len(clean([], invalid).boxes) == 0
    assert len(clean([], invalid, sizes=())) == 0
    table = clean([INSIDE, [0, 0, 20, 10], [0, 0, 0.1, 0.1]], invalid)
    assert table.boxes.tolist() == np.float32([INSIDE, [0, 0, 20, 10], [0, 0, 0.1, 0.1]]).tolist()
    assert not table.ignore.any()


@pytest.mark.parametrize(
    ("box", "clip", "ignore"),
    [
        ([-3, 2, 9, 12], [0, 2, 9, 10], [0, 2, 9, 10]),  # partly outside
        ([-9, -9, 99, 99], [0, 0, 20, 10], [0, 0, 20, 10]),  # larger than the image
        ([1e200, 0, 5e300, 9], None, None),
        ([20, 0, 25, 9], None, None),  # wholly outside
        ([3, 3, 3, 8], None, None),  # without area
        ([20, 1, 20.4, 9], None, None),  # without area inside
        ([9, 8, 3, 4], None, [3, 4, 9, 8]),  # swapped corners
        ([9, 4, 3, 8], None, [3, 4, 9, 8]),
    ],
)
def test_each_bad_box_follows_each_policy(box, clip, ignore):
    for invalid, wanted in (("clip", clip), ("drop", None), ("ignore", ignore)):
        with pytest.warns(UserWarning, match=r"some file: of 2 boxes 1 .*; the first is .* - at line 2") as said:
            table = clean([INSIDE, box], invalid)
        assert len(said) == 1
        assert f'(invalid="{invalid}")' in str(said[0].message)
        assert table.boxes.tolist()[1:] == ([wanted] if wanted else [])
        assert table.ignore.tolist()[1:] == ([invalid == "ignore"] if wanted else [])
    with pytest.raises(
        AnnotationError,
        match=r"expected a box with area, inside its image, got \[.* in an image of height 10 and width 20 - "
        r'at line 2; invalid="clip", "drop" or "ignore" goes on',
    ):
        clean([INSIDE, box], "raise")


@pytest.mark.parametrize("invalid", ["clip", "drop", "ignore", "raise"])
def test_half_a_pixel_outside_is_clipped_and_not_bad(invalid):
    table = clean([[-0.5, -0.25, 20.5, 10.5]], invalid)
    assert table.boxes.tolist() == [[0, 0, 20, 10]]
    assert not table.ignore.any()


def test_one_of_boxes_that_repeat_each_other_stays():
    boxes = [INSIDE, [1, 1, 2, 2], INSIDE, INSIDE, INSIDE, INSIDE]
    given = {
        "positions": [0, 0, 0, 1, 0, 0],
        "class_ids": [0, 0, 0, 0, 1, 0],
        "ignore": [False] * 5 + [True],
        "sizes": [(10, 20)] * 2,
    }
    for invalid in ("clip", "drop", "ignore"):
        with pytest.warns(UserWarning, match=r"of 6 boxes 1 repeating another dropped .* - at line 3") as said:
            table = clean(boxes, invalid, **given)
        assert len(said) == 1
        assert table.offsets.tolist() == [0, 4, 5]
        assert table.class_ids.tolist() == [0, 0, 1, 0, 0]
    with pytest.raises(AnnotationError, match=r"expected each box once, got \[2.0, 2.0, 6.0, 6.0\]"):
        clean(boxes, "raise", **given)


def test_box_that_is_bad_twice_is_counted_once():
    with pytest.warns(UserWarning, match=r"of 2 boxes 1 reaching .* clipped to it, 1 repeating another dropped \("):
        clean([[-5, 0, 5, 5], [-6, 0, 5, 5]])


def test_message_gives_the_corners_of_the_file():
    with pytest.warns(
        UserWarning, match=r"1 reaching .* or with swapped corners made .* first is \[9.0, 8.0, 3.0, 4.0\]"
    ):
        clean([[9, 8, 3, 4]], "ignore")


def test_box_stays_if_the_earlier_one_that_would_be_clipped_to_it_is_dropped():
    with pytest.warns(UserWarning, match=r"of 2 boxes 1 reaching out of their image dropped"):
        table = clean([[-5, 0, 5, 5], [0, 0, 5, 5]], "drop")
    assert table.boxes.tolist() == [[0, 0, 5, 5]]


def test_all_effects_are_counted_in_one_line():
    boxes = [INSIDE, INSIDE, [-3, 0, 5, 5], [-4, 0, 5, 6], [9, 9, 9, 9], [8, 8, 7, 7]]
    for invalid, line in (
        (
            "clip",
            r"6 boxes 2 reaching out of their image clipped to it, 2 without area .* dropped, 1 repeating another",
        ),
        ("drop", r"6 boxes 2 reaching out of their image dropped, 2 without area .* dropped, 1 repeating another"),
        (
            "ignore",
            r"3 reaching out of their image or with swapped corners made ignore regions, 1 without area .* 1 rep",
        ),
    ):
        with pytest.warns(UserWarning, match=line) as said:
            clean(boxes, invalid)
        assert len(said) == 1


@pytest.mark.parametrize("invalid", ["clip", "drop", "ignore"])
def test_clean_table_stays_as_it_is_and_the_loader_does_not_warn(invalid):
    rng = np.random.default_rng(0)
    boxes = rng.integers(-4, 25, (500, 4)).astype(np.float64)
    given = {"positions": rng.integers(0, 3, 500).tolist(), "class_ids": rng.integers(0, 2, 500).tolist()}
    with pytest.warns(UserWarning, match="of 500 boxes"):
        table = clean(boxes, invalid, sizes=[(10, 20)] * 3, **given)
    assert len(table.boxes)
    again = clean(
        table.boxes,
        "raise",
        sizes=[(10, 20)] * 3,
        positions=np.repeat(range(3), np.diff(table.offsets)).tolist(),
        class_ids=table.class_ids.tolist(),
        ignore=table.ignore.tolist(),
    )
    np.testing.assert_array_equal(again.boxes, table.boxes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BatchLoader(table, lambda sample: {}, batch_size=1, resize=ShortSide(10))


def test_repeats_are_those_a_slow_loop_finds():
    rng = np.random.default_rng(1)
    boxes = rng.integers(0, 3, (300, 4)) + np.array([0, 0, 3, 3])
    class_ids = rng.integers(0, 2, 300)
    with pytest.warns(UserWarning, match="repeating another"):
        table = clean(boxes, class_ids=class_ids.tolist())
    seen = []
    for box, class_id in zip(boxes.tolist(), class_ids.tolist(), strict=True):
        if (box, class_id) not in seen:
            seen.append((box, class_id))
    assert [(b, c) for b, c in zip(table.boxes.tolist(), table.class_ids.tolist(), strict=True)] == seen


@pytest.mark.parametrize(
    ("box", "kind", "effects"),
    [
        ([9, 8, 3, 4], "swapped-corners", ("dropped", "dropped", "ignored")),
        ([9, 8, 30, 4], "swapped-corners", ("dropped", "dropped", "ignored")),
        ([25, 8, 22, 4], "swapped-corners", ("dropped", "dropped", "dropped")),
        ([3, 3, 3, 8], "no-area", ("dropped", "dropped", "dropped")),
        ([-5, 1, 1e-60, 8], "no-area", ("dropped", "dropped", "dropped")),  # of area, but not in float32
        ([20, 1, 25, 9], "outside", ("dropped", "dropped", "dropped")),
        ([2, -1, 9, 11], "larger-than-image", ("clipped", "dropped", "ignored")),
        ([-3, 2, 9, 12], "partly-outside", ("clipped", "dropped", "ignored")),
        ([12, 2, 16, 6], "repeated", ("dropped", "dropped", "dropped")),
    ],
)
def test_warning_carries_each_kind_with_its_effect_and_the_box_of_the_file(box, kind, effects):
    for invalid, effect in zip(("clip", "drop", "ignore"), effects, strict=True):
        with pytest.warns(BadBoxesWarning) as said:
            clean([INSIDE, [12, 2, 16, 6], INSIDE, box], invalid, positions=[0, 1, 2, 1], sizes=[(10, 20)] * 3)
        example = BadBox(path="1.png", image_id=1, index=1, box=tuple(map(float, box)), where="line 4")
        assert said[0].message.found == (BadBoxes(kind, effect, 1, (example,)),)


def test_warning_gives_all_bad_boxes_of_a_kind():
    with pytest.warns(BadBoxesWarning) as said:
        clean([[x, 1, x, 2] for x in range(12)])
    (found,) = said[0].message.found
    assert found.count == 12
    assert [example.index for example in found.examples] == list(range(12))
    assert [example.index for example in found.examples[:3]] == [0, 1, 2]
    assert found.examples[-1] == tuple(found.examples)[-1]
    assert hash(found) == hash(found)
    assert "index=11" in repr(found.examples[11:])


@pytest.mark.parametrize("invalid", ["clip", "drop", "ignore", "raise"])
def test_ignored_box_that_reaches_out_is_clipped_and_stays(invalid):
    boxes = [INSIDE, [-5, 0, 5, 5], [-9, -9, 99, 99]]
    given = {"ignore": [False, True, True], "masks": {2: np.int32([200])}}
    if invalid == "clip":
        with pytest.warns(BadBoxesWarning, match=r"of 3 boxes 2 reaching out of their image clipped to it \("):
            table = clean(boxes, invalid, **given)
    else:
        table = clean(boxes, invalid, **given)  # warnings are errors here
    assert table.boxes.tolist() == [INSIDE, [0, 0, 5, 5], [0, 0, 20, 10]]
    assert table.ignore.tolist() == [False, True, True]
    assert list(table.masks) == [2]


def test_ignored_box_without_area_or_that_repeats_another_is_bad_all_the_same():
    boxes = [[-5, 0, 5, 5], [-6, 0, 5, 5], [30, 0, 40, 5], [9, 8, 3, 4]]
    for invalid, left in (("clip", 1), ("drop", 1), ("ignore", 2)):
        with pytest.warns(BadBoxesWarning, match="1 repeating another dropped"):
            table = clean(boxes, invalid, ignore=[True] * 4)
        assert len(table.boxes) == left
        assert table.ignore.all()
    with pytest.raises(AnnotationError, match="expected each box once"):
        clean(boxes, "raise", ignore=[True] * 4)


def test_negative_zero_is_zero():
    with pytest.warns(UserWarning, match="1 repeating another dropped"):
        table = clean([[0.0, 0.0, 5, 5], [-0.0, -0.0, 5, 5]])
    assert len(table.boxes) == 1
    assert not np.signbit(clean([[-0.0, -0.0, 5, 5]]).boxes).any()


def test_warning_points_at_the_line_that_called_detfeed_however_deep_that_calls_itself():
    inside = {"__name__": "detfeed.anything", "to_annotations": to_annotations}
    exec("def read(draft):\n    return to_annotations(draft, invalid='clip')", inside)
    for read in (inside["read"], lambda draft: to_annotations(draft, invalid="clip")):
        with pytest.warns(BadBoxesWarning) as said:
            read(draft([[5, 5, 5, 5]]))
        assert said[0].filename == __file__
