import pickle

import albumentations
import numpy as np
import pytest

from detfeed.augmentation.mosaic import Other
from detfeed.augmentation.pipeline import Augmentation
from rectangles import found

NONE = np.zeros((0, 4), np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.float32([[0, 0, 60, 40], [10, 5, 20, 15], [30, 20, 60, 40]])


def rng(seed=0):
    return np.random.default_rng(seed)


def others_of(count, first_row):
    """Images of other sizes with one object each, alone in a colour channel."""
    made = []
    for place in range(count):
        pixels = np.zeros((60 + 20 * place, 90, 3), np.uint8)
        pixels[10:40, 20:70, place % 3] = 255
        made.append(Other(pixels, np.float32([[20, 10, 70, 40]]), np.array([first_row + place])))
    return made


@pytest.mark.parametrize("fit_mode", ["cover", "contain"])
def test_mosaic_has_the_objects_of_all_its_images_where_they_are_seen_by_the_share_that_is_left(fit_mode):
    mosaic = albumentations.Mosaic(target_size=(200, 240), cell_shape=(180, 200), fit_mode=fit_mode, p=1)
    augment = pickle.loads(pickle.dumps(Augmentation([albumentations.HorizontalFlip(p=0.5), mosaic])))
    assert augment.num_others == 3
    image = np.zeros((80, 100, 3), np.uint8)
    seen, cut = set(), 0
    for seed in range(30):
        others = others_of(3, first_row=2)
        new = augment(image, np.float32([[0, 0, 9, 9], [30, 30, 60, 50]]), rng(seed), others=others)
        assert new.image.shape == (200, 240, 3)
        for channel in range(3):
            pixels, place = found(new.image, channel), np.flatnonzero(new.rows == 2 + channel)
            if pixels is None:
                assert len(place) == 0 or new.visible[place[0]] < 0.05
                continue
            np.testing.assert_allclose(new.boxes[place[0]], pixels, atol=2)
            height, width = others[channel].image.shape[:2]
            ratios = (180 / height, 200 / width)
            scale = max(ratios) if fit_mode == "cover" else min(ratios)
            share = (pixels[2:] - pixels[:2]).prod() / (50 * 30 * scale**2)
            assert new.visible[place[0]] == pytest.approx(min(share, 1), abs=0.06)
            cut += share < 0.9
        seen |= set(new.rows.tolist())
        again = augment(image, np.float32([[0, 0, 9, 9], [30, 30, 60, 50]]), rng(seed), others=others_of(3, 2))
        for one, other in zip(new, again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert seen >= {1, 2, 3, 4} and cut > 5


def test_mosaic_of_images_without_objects_has_none():
    augment = Augmentation(albumentations.Mosaic(target_size=(50, 50), cell_shape=(40, 40), p=1))
    new = augment(IMAGE, NONE, rng(), others=[Other(IMAGE, NONE, np.zeros(0, np.int64))] * 3)
    assert new.boxes.shape == (0, 4) and new.image.shape == (50, 50, 3)


def test_mosaic_that_is_not_done_reads_no_other_image():
    class Unread(list):
        def __getitem__(self, index):
            raise AssertionError("read")

    augment = Augmentation([albumentations.Mosaic(p=0), albumentations.VerticalFlip(p=1)])
    new = augment(IMAGE, BOXES, rng(), others=Unread([None] * 3))
    np.testing.assert_array_equal(new.image, IMAGE[::-1])
    assert new.rows.tolist() == [0, 1, 2] and new.visible.tolist() == [1, 1, 1]


def test_several_mosaics_are_refused():
    with pytest.raises(ValueError, match=r"at most one Mosaic\. Received: 2"):
        Augmentation([albumentations.Mosaic(), albumentations.Mosaic()])
