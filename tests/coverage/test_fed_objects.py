"""The boxes that coverage looks at are those of the samples that a loader feeds, to the bit."""

import warnings

import albumentations
import numpy as np
import pytest

from detfeed import BatchLoader, Fixed, ShortSide
from detfeed.coverage.fed_objects import feed_objects

AUGMENTS = {
    "none": None,
    "flip": "flip",
    "ssd": "ssd",
    "lsj": "lsj",
    "mosaic": [albumentations.Mosaic(target_size=(90, 120), p=0.5)],
}


def nothing(sample):
    return {}


@pytest.mark.parametrize(
    ("augment", "resize"),
    [
        ("none", ShortSide(200, max_side=250)),
        ("none", ShortSide(33)),
        ("none", Fixed((90, 70))),
        ("flip", ShortSide(200, max_side=250)),
        ("lsj", Fixed((90, 70))),
        ("ssd", ShortSide(33)),
        ("mosaic", Fixed((90, 70))),
    ],
    ids=str,
)
def test_boxes_are_those_of_the_samples(shapes, augment, resize):
    settings = {"resize": resize, "augment": AUGMENTS[augment], "seed": 3, "min_size": 8.0, "min_visibility": 0.5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small objects
        loader = BatchLoader(shapes, nothing, batch_size=4, **settings)
    fed = feed_objects(shapes, **settings)
    lost = 0
    for number, position in enumerate(range(len(shapes))):
        sample = loader.load_sample(0, position)
        rows = fed.image == number
        np.testing.assert_array_equal(fed.boxes[rows], sample.boxes)
        np.testing.assert_array_equal(fed.rows[rows], sample.rows)
        np.testing.assert_array_equal(fed.class_ids[rows], sample.class_ids)
        np.testing.assert_array_equal(fed.ignore[rows], sample.ignore)
        assert fed.boxes.dtype == sample.boxes.dtype
        assert (tuple(fed.image_hw[number]), tuple(fed.canvas_hw[number])) == (sample.image_hw, sample.input_hw)
        lost += sample.num_lost
    assert fed.num_lost == lost
    assert fed.ignore.any() and not fed.ignore.all()


def test_no_image_is_read(annotate, tmp_path):
    table = annotate([(40, 60), (30, 30)], [[(1, 2, 20, 30)], []])
    for path in tmp_path.glob("*.png"):
        path.unlink()
    for augment in (None, "flip"):
        fed = feed_objects(table, resize=Fixed((80, 120)), augment=augment)
        np.testing.assert_array_equal(fed.image, [0])
        np.testing.assert_array_equal(fed.boxes[:, [1, 3]], [[4, 60]])


def test_some_of_the_images_keep_their_boxes(shapes):
    whole = feed_objects(shapes, resize=ShortSide(64))
    some = feed_objects(shapes, resize=ShortSide(64), max_images=7, seed=5)
    assert len(some.positions) == 7 and (np.diff(some.positions) > 0).all()
    chosen = np.isin(whole.positions, some.positions)
    for mine, theirs in zip(some[:-1], whole.select(chosen)[:-1], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    none = whole.select(np.zeros(len(shapes), bool))
    assert len(none.positions) == len(none.boxes) == 0
