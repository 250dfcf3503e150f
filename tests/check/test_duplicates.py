import dataclasses

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed import group_duplicates
from detfeed.check.pictures import MAX_DISTANCE, first_alike, group_alike, look_like
from image_files import encode, noise


def test_table_without_images_has_no_groups(annotate):
    assert group_duplicates(annotate([], [])).tolist() == []


def test_equal_and_similar_images_and_files_that_stand_twice_are_groups(annotate, tmp_path):
    names = ["a.png", "b.jpg", "c.png", "d.png", "a.png", "damaged.png", "missing.png", "damaged.png"]
    table = annotate([(60, 80)] * len(names), [[]] * len(names))
    table = dataclasses.replace(table, paths=tuple(str(tmp_path / name) for name in names))
    (tmp_path / "a.png").write_bytes(encode(noise(1), "PNG"))
    (tmp_path / "b.jpg").write_bytes(encode(noise(1), "JPEG", quality=60))
    (tmp_path / "c.png").write_bytes(encode(noise(2), "PNG"))
    (tmp_path / "d.png").write_bytes(encode(cv2.resize(noise(2), (60, 45)), "PNG"))
    (tmp_path / "damaged.png").write_bytes(encode(noise(3), "PNG")[:-30])
    done = []
    groups = group_duplicates(table, on_progress=lambda *counts: done.append(counts))
    assert groups.tolist() == [0, 0, 1, 1, 0, 2, 3, 2]
    assert done[-1] == (8, 8)


@settings(max_examples=50)
@given(st.integers(0, 30), st.integers(0, 2**32))
def test_groups_and_looks_are_those_of_all_pairs(count, seed):
    """Hashes of few bits in which many pairs are close, and thumbnails of few levels of grey."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 4, count, np.uint64) * np.uint64(2**MAX_DISTANCE * 3 + 5)
    hashes ^= np.uint64(1) << rng.integers(0, 60, count).astype(np.uint64)
    thumbnails = (rng.integers(0, 3, (count, 8)) * 12).astype(np.uint8)

    def alike(one, other):
        difference = thumbnails[one].astype(float) - thumbnails[other]
        near = int(hashes[one] ^ hashes[other]).bit_count() <= MAX_DISTANCE
        return near and np.abs(difference - difference.mean()).mean() <= 8

    labels = list(range(count))
    for one in range(count):
        for other in range(one):
            if alike(one, other):
                labels = [labels[one] if label == labels[other] else label for label in labels]
    groups = group_alike(hashes, thumbnails)
    assert [[a == b for b in groups] for a in groups] == [[a == b for b in labels] for a in labels]
    first = [next((other for other in range(one) if alike(one, other)), -1) for one in range(count)]
    assert first_alike(hashes, thumbnails).tolist() == first
    others = rng.random(count) < 0.5
    expected = [not others[one] and any(alike(one, other) for other in np.flatnonzero(others)) for one in range(count)]
    assert look_like(hashes, thumbnails, others).tolist() == expected
