from collections.abc import Collection
from numbers import Integral, Real

import numpy as np
import pytest

from detfeed.errors import expect, expect_each


def test_values_of_the_types_pass():
    expect(Integral, "a whole number", a=3, b=np.int16(3))
    expect(Real, "a number", a=3, b=2.5, c=np.float32(2.5), d=np.uint8(1))
    expect(Real | None, "a number or None", a=None, b=1)
    expect(bool, "True or False", a=True)
    expect(str, "text", a="a")
    expect_each(Integral, "whole numbers", a=(), b=[1, 2], c=np.arange(3))
    expect_each((Real, Collection), "numbers or tuples", a=(1, (2, 3)))


@pytest.mark.parametrize("value", ["3", 2.5, None, True, np.bool_(True), np.float64(3), [3]])
def test_value_of_another_type_is_an_error_that_shows_name_and_value(value):
    with pytest.raises(TypeError) as caught:
        expect(Integral, "a whole number", fine=1, size=value)
    assert str(caught.value) == f"Expected size to be a whole number. Received: {value!r}"


@pytest.mark.parametrize("values", [3, "34", ("3",), (3, True), (2.5,), None, iter([3])])
def test_collection_of_other_types_is_an_error_that_shows_it_whole(values):
    with pytest.raises(TypeError) as caught:
        expect_each(Integral, "whole numbers", sizes=values)
    assert str(caught.value) == f"Expected sizes to be whole numbers. Received: {values!r}"
