"""Pictures: which images are chosen, and how large they get."""

import base64

import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from detfeed.report.pictures import LARGE, SMALL, Pictures, encode_thumbnail, outline, spread


@hypothesis.given(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=20), st.integers(0, 25), st.integers(0, 3))
def test_images_are_chosen_once_and_classes_are_added_up_to_a_quarter(classes_of, count, seed):
    offsets = np.cumsum([0, *map(len, classes_of)])
    class_ids = np.array([one for each in classes_of for one in each], np.int32)
    chosen, words = spread(class_ids, offsets, count, seed=seed)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(len(classes_of)))
    drawn = min(count, len(classes_of))
    assert drawn <= len(chosen) <= max(drawn, count + count // 4)
    if len(chosen) < min(count + count // 4, len(classes_of)):
        assert {one for position in chosen for one in classes_of[position]} == set(class_ids.tolist())
    assert str(len(classes_of)) in words


def test_each_image_is_drawn_as_often_as_any_other():
    offsets = np.zeros(11, np.int64)
    counts = np.bincount(
        np.concatenate([spread(np.zeros(0, int), offsets, 3, seed=seed).positions for seed in range(1000)])
    )
    assert counts.sum() == 3000
    assert abs(counts - 300).max() < 5 * np.sqrt(300 * 0.7)


@pytest.mark.parametrize(("side", "most"), [(LARGE, 48_000), (SMALL, 14_000)])
@pytest.mark.parametrize("hw", [(1, 3000), (900, 1300), (20, 30)])
def test_a_thumbnail_keeps_to_its_side_and_bytes_even_of_noise(side, most, hw):
    noise = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    data = encode_thumbnail(noise, side)
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert len(data) <= most
    assert max(shown.shape[:2]) == min(side, max(hw))


def test_a_thumbnail_has_the_colours_of_its_image():
    image = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    pictures = Pictures()
    pictures.add_source(image, SMALL)
    header, _, text = pictures.sources[0].partition(",")
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    assert header == "data:image/jpeg;base64"
    assert abs(shown[..., ::-1].astype(int) - image).max() < 8


def test_the_outline_of_a_mask_covers_what_the_mask_covers():
    mask = np.zeros((100, 120), np.uint8)
    cv2.circle(mask, (50, 50), 30, 255, -1)
    cv2.circle(mask, (50, 50), 10, 0, -1)
    path = outline(mask, "ring")["path"]
    drawn = np.zeros_like(mask)
    parts = [np.array([p.split() for p in part.rstrip("Z").split("L")], float) for part in path.split("M")[1:]]
    cv2.fillPoly(drawn, [np.rint(part).astype(np.int32) for part in parts], 255)  # even-odd, as the page fills
    assert np.mean((drawn > 0) != (mask > 0)) < 0.02


def test_the_outline_of_nothing_is_empty():
    assert outline(np.zeros((5, 5), np.uint8), "nothing")["path"] == ""
