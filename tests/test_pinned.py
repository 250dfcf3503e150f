"""What is fed is what was fed when `pinned.json` was written: see `pinned`, which also compares two commits exactly."""

import json

import pytest

import pinned

STORED = json.loads(pinned.STORED.read_text())


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return pinned.make_grid(tmp_path_factory.mktemp("pinned"))


def test_every_setting_is_stored(grid):
    assert list(grid) == list(STORED)


@pytest.mark.parametrize("name", STORED)
def test_what_is_fed_has_not_changed(grid, name):
    arrays = dict(pinned.arrays_of(grid[name]()))
    assert list(arrays) == list(STORED[name])
    for address, array in arrays.items():
        (shape, *values), (stored_shape, *stored_values) = pinned.rough(array), STORED[name][address]
        assert (address, shape) == (address, stored_shape)
        if isinstance(values[0], str):
            assert (address, values) == (address, stored_values)
        else:
            assert values == pytest.approx(stored_values, abs=pinned.room(array), rel=0), address
