"""What is fed is what was fed when `pinned.json` was written: see `pinned`, which also compares two commits exactly."""

import json
import subprocess
import sys

import pytest

import pinned

STORED = json.loads(pinned.STORED.read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What is fed now, by a process whose OpenCV does the same on each processor."""
    file = tmp_path_factory.mktemp("pinned") / "measured.json"
    subprocess.run([sys.executable, pinned.__file__, "--measure", str(file)], check=True, capture_output=True)
    return json.loads(file.read_text())


def test_every_setting_is_stored(measured):
    assert list(measured) == list(STORED)


@pytest.mark.parametrize("name", STORED)
def test_what_is_fed_has_not_changed(measured, name):
    assert list(measured[name]) == list(STORED[name])
    for address, (shape, *values, room) in measured[name].items():
        stored_shape, *stored_values = STORED[name][address]
        assert (address, shape) == (address, stored_shape)
        if isinstance(values[0], str):
            assert (address, values) == (address, stored_values)
        else:
            assert values == pytest.approx(stored_values, abs=room, rel=0), address
