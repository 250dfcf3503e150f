"""Sheets: every tile is there, unscaled and whole, and none lies on another."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed.drawing.picture import KEYS, POSITIVE_KEYS, TRUTH_KEYS
from detfeed.drawing.sheets import Tile, contact_sheet, pack, write_png
from detfeed.images.decoding import read_image


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=2).sum())


def test_sheet_without_tiles_is_its_legend():
    keys = (*TRUTH_KEYS, *POSITIVE_KEYS, *KEYS.values())
    sheet = contact_sheet([], legend=keys)
    for key in keys:
        if key.mark != "fill":  # it tints what is below
            assert count(sheet, key.colour) > 0


SIZES = st.lists(st.tuples(st.sampled_from([20, 30, 31, 60]), st.sampled_from([20, 45, 60])), max_size=12)


@settings(max_examples=25)
@given(sizes=SIZES, columns=st.integers(1, 9), gap=st.sampled_from([0, 5]))
def test_packed_tiles_keep_their_distance_and_lie_within_the_whole(sizes, columns, gap):
    places, (height, width) = pack(sizes, columns=columns, gap=gap)
    assert len(places) == len(sizes)
    for (top, left), (high, wide) in zip(places, sizes, strict=True):
        assert top >= 0 and top + high <= height and left >= 0 and left + wide <= width
    for (one, one_hw), (other, other_hw) in itertools.combinations(zip(places, sizes, strict=True), 2):
        assert any(
            first[axis] + size[axis] + gap <= second[axis]
            for axis in (0, 1)
            for first, size, second in ((one, one_hw, other), (other, other_hw, one))
        )
    assert width <= max((wide for _, wide in sizes), default=0) * min(columns, max(len(sizes), 1)) + gap * columns


@pytest.mark.parametrize(("number", "columns"), [(1, 3), (4, 3), (6, 3), (7, 2), (2, 9)])
def test_tiles_of_one_size_stand_row_by_row_in_their_order(number, columns):
    places, whole = pack([(30, 40)] * number, columns=columns, gap=2)
    used = min(columns, number)
    assert places == [(place // used * 32, place % used * 42) for place in range(number)]
    assert whole == (-(-number // used) * 32 - 2, used * 42 - 2)


def test_two_orientations_are_packed_without_holes_that_a_tile_would_fit_in():
    landscape, portrait = (30, 40), (40, 30)
    sizes = [landscape, portrait, portrait, landscape, landscape, portrait, landscape, portrait] * 2
    _, (height, width) = pack(sizes, columns=3)
    assert sum(high * wide for high, wide in sizes) / (height * width) > 0.9


def test_sheet_shows_tiles_of_any_size_without_a_change():
    sizes = [(40, 300), (70, 200), (50, 300)]
    tiles = [Tile(np.full((*hw, 3), (100 + n, 0, 0), np.uint8), ("caption",)) for n, hw in enumerate(sizes)]
    sheet = contact_sheet(tiles, columns=2)
    for tile in tiles:
        places = np.argwhere((sheet == tile.image[0, 0]).all(axis=2))
        assert (places.max(axis=0) - places.min(axis=0) + 1).tolist() == list(tile.image.shape[:2])
        assert len(places) == tile.image.shape[0] * tile.image.shape[1]


def test_long_caption_is_broken_into_lines_and_makes_room_for_them():
    picture = np.zeros((10, 300, 3), np.uint8)
    short, long = (contact_sheet([Tile(picture, (text,))]).shape[0] for text in ("word", "word " * 60))
    assert long > short + 3 * 20


def test_caption_of_an_alert_is_red():
    picture = np.zeros((10, 300, 3), np.uint8)
    calm, alarmed = (contact_sheet([Tile(picture, ("HHHH",), alert)]).astype(int) for alert in (False, True))
    assert (calm[..., 0] == calm[..., 1]).all()
    assert (alarmed[..., 0] > alarmed[..., 1] + 100).any()


def test_png_reads_back_as_it_was_written(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), image)


def test_png_that_cannot_be_written_raises(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_png(tmp_path / "file" / "a.png", np.zeros((2, 2, 3), np.uint8))
