import warnings

import pytest

from detfeed.readers.notes import Notes


def test_nothing_found_is_no_warning():
    Notes().warn("a file")


def test_each_kind_is_one_warning_with_its_number_and_first_place():
    notes = Notes()
    for line in range(3):
        notes.add("polygons are boxes", f"line {line}")
    notes.add("a name is elsewhere", "line 7")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        notes.warn("a file")
    assert [str(one.message) for one in said] == [
        "a file: polygons are boxes - at line 0, the first of 3",
        "a file: a name is elsewhere - at line 7",
    ]
    assert {one.filename for one in said} == {__file__}


def test_a_warning_may_be_an_error():
    notes = Notes()
    notes.add("polygons are boxes", "line 1")
    with pytest.raises(UserWarning, match="polygons"):
        notes.warn("a file")
