import pickle

import albumentations
import numpy as np
import pytest

from detfeed.augmentation.pipeline import Augmentation
from rectangles import RECTANGLES, found, picture

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.float32([[0, 0, 60, 40], [10, 5, 20, 15], [30, 20, 60, 40]])


def rng(seed=0):
    return np.random.default_rng(seed)


# How far, in pixels, a box may end within what is seen, and beyond it. Corners that turn leave room in their box.
TIGHT, ROUNDED, LOOSE = (1e-3, 1e-3), (1.2, 1.5), (1.2, np.inf)
POOL = {
    "HorizontalFlip": (albumentations.HorizontalFlip(p=1), TIGHT),
    "D4": (albumentations.D4(p=1), TIGHT),
    "RandomCrop": (albumentations.RandomCrop(60, 60, p=1), TIGHT),
    "RandomCrop of a corner": (albumentations.RandomCrop(20, 20, p=1), TIGHT),
    "RandomSizedCrop": (albumentations.RandomSizedCrop((30, 100), (80, 90), p=1), ROUNDED),
    "RandomResizedCrop": (albumentations.RandomResizedCrop((90, 110), p=1), ROUNDED),
    "BBoxSafeRandomCrop": (albumentations.BBoxSafeRandomCrop(p=1), TIGHT),
    "AtLeastOneBBoxRandomCrop": (albumentations.AtLeastOneBBoxRandomCrop(60, 60, p=1), TIGHT),
    "CropAndPad": (albumentations.CropAndPad(percent=(-0.2, 0.2), p=1), ROUNDED),
    "PadIfNeeded": (albumentations.PadIfNeeded(200, 200, p=1), TIGHT),
    "RandomScale": (albumentations.RandomScale(0.4, p=1), ROUNDED),
    "Resize": (albumentations.Resize(77, 133, p=1), ROUNDED),
    "Rotate": (albumentations.Rotate(40, p=1), LOOSE),
    "SafeRotate": (albumentations.SafeRotate(40, p=1), (1.5, 2)),
    "Perspective": (albumentations.Perspective(p=1), LOOSE),
    "Affine": (albumentations.Affine(scale=(0.5, 1.5), rotate=(-30, 30), shear=(-10, 10), p=1), LOOSE),
    "shift": (albumentations.Affine(translate_percent=(-0.5, 0.5), p=1), ROUNDED),
    "CoarseDropout": (
        albumentations.CoarseDropout(
            num_holes_range=(4, 9), hole_height_range=(0.1, 0.4), hole_width_range=(0.1, 0.4), p=1
        ),
        TIGHT,
    ),
    "GridDropout": (albumentations.GridDropout(ratio=0.6, random_offset=True, p=1), TIGHT),
    "Erasing": (albumentations.Erasing(p=1), TIGHT),
    "XYMasking": (
        albumentations.XYMasking(num_masks_x=3, num_masks_y=3, mask_x_length=20, mask_y_length=20, p=1),
        TIGHT,
    ),
    "PixelDropout": (albumentations.PixelDropout(0.2, p=1), (1e-3, 4)),
    "ElasticTransform": (albumentations.ElasticTransform(alpha=100, sigma=10, p=1), ROUNDED),
    "GridDistortion": (albumentations.GridDistortion(p=1), ROUNDED),
    "OpticalDistortion": (albumentations.OpticalDistortion((-0.5, 0.5), p=1), ROUNDED),
    "ThinPlateSpline": (albumentations.ThinPlateSpline(p=1), LOOSE),
    "GridElasticDeform": (albumentations.GridElasticDeform((4, 4), 10, p=1), (3, 3)),
    "Morphological": (albumentations.Morphological(p=1), (2, 2)),
    "RandomBrightnessContrast": (albumentations.RandomBrightnessContrast(p=1), TIGHT),
    "ColorJitter": (albumentations.ColorJitter(saturation=(1, 1), hue=(0, 0), p=1), TIGHT),
    "ImageCompression": (albumentations.ImageCompression(p=1), TIGHT),
    "GaussianBlur": (albumentations.GaussianBlur((3, 3), p=1), ROUNDED),
    "several": (
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.OneOf([albumentations.RandomCrop(90, 90, p=1), albumentations.VerticalFlip(p=1)], p=0.8),
            albumentations.SomeOf([albumentations.GridDropout(p=1), albumentations.Transpose(p=1)], n=1, p=0.8),
        ],
        TIGHT,
    ),
}


@pytest.mark.parametrize("name", POOL)
def test_boxes_are_where_their_objects_are_seen_and_keep_their_rows(name):
    transform, (within, beyond) = POOL[name]
    augment = Augmentation(transform)
    lost = 0
    for seed in range(18):
        rectangles = RECTANGLES[seed % 3]
        new = augment(picture(rectangles), rectangles, rng(seed))
        height, width = new.image.shape[:2]
        assert len(new.boxes) == len(new.rows) == len(new.visible)
        assert len(set(new.rows.tolist())) == len(new.rows)
        assert (new.boxes >= 0).all() and (new.boxes <= [width, height, width, height]).all()
        assert (new.boxes[:, 2:] > new.boxes[:, :2]).all()
        assert (new.visible >= 0).all() and (new.visible <= 1 + 1e-6).all()
        for channel in range(3):
            seen, places = found(new.image, channel), np.flatnonzero(new.rows == channel)
            if len(places) == 0:
                assert seen is None, "an object that is seen has no box"
                lost += 1
            elif seen is None:
                # Covered, or at most a corner of its box, in which it is not.
                assert new.visible[places[0]] < 0.25
            else:
                box = new.boxes[places[0]]
                assert (box[:2] <= seen[:2] + within).all() and (box[2:] >= seen[2:] - within).all()
                assert (box[:2] >= seen[:2] - beyond).all() and (box[2:] <= seen[2:] + beyond).all()
    assert (lost > 0) == (name in LOSING)


LOSING = {
    "RandomCrop",
    "RandomCrop of a corner",
    "RandomSizedCrop",
    "RandomResizedCrop",
    "CropAndPad",
    "Affine",
    "shift",
}
LOSING |= {"AtLeastOneBBoxRandomCrop", "Perspective", "ThinPlateSpline", "several"}


def test_holes_cover_a_share_of_an_object_or_all_of_it_and_leave_others_as_they_are():
    class Holes(albumentations.CoarseDropout):
        def get_params_dependent_on_data(self, params, data):
            return {"holes": np.array([[0, 0, 10, 20], [40, 0, 50, 10], [20, 30, 28, 40]]), "seed": 0}

    boxes = np.float32([[2.25, 2.25, 8, 8], [5, 0, 15, 20], [30.3, 5.6, 30.7, 9], [18, 25, 30.5, 40], [42, 2, 42.4, 5]])
    new = Augmentation(Holes(p=1))(np.full((40, 60, 3), 200, np.uint8), boxes, rng(), proposals=boxes[1:2])
    assert new.rows.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(new.boxes, [boxes[0], [10, 0, 15, 20], boxes[2], boxes[3], boxes[4]], atol=1e-4)
    np.testing.assert_allclose(new.visible, [0, 0.5, 1, 1 - 80 / (13 * 15), 0], atol=1e-6)
    np.testing.assert_allclose(new.proposals, [[10, 0, 15, 20]], atol=1e-4)


def test_share_that_a_hole_leaves_and_share_that_a_crop_leaves_multiply():
    class Hole(albumentations.CoarseDropout):
        def get_params_dependent_on_data(self, params, data):
            return {"holes": np.array([[0, 0, 10, 20]]), "seed": 0}

    pipeline = [Hole(p=1), albumentations.Crop(0, 0, 60, 10, p=1)]
    new = Augmentation(pipeline)(IMAGE, np.float32([[0, 0, 20, 20]]), rng())
    np.testing.assert_allclose(new.boxes, [[10, 0, 20, 10]], atol=1e-4)
    np.testing.assert_allclose(new.visible, [0.25], atol=1e-6)


def test_object_that_a_distortion_moves_out_of_the_image_is_gone():
    """albumentations leaves its box where it was."""

    class Shift(albumentations.OpticalDistortion):
        def get_params_dependent_on_data(self, params, data):
            columns, rows = np.meshgrid(np.arange(60, dtype=np.float32), np.arange(40, dtype=np.float32))
            return {"map_x": columns + 20, "map_y": rows}

    boxes = np.float32([[2, 2, 12, 12], [10, 20, 30, 40], [40, 10, 50, 30]])
    new = Augmentation(Shift(p=1))(IMAGE, boxes, rng())
    np.testing.assert_allclose(new.boxes, [[0, 20, 10, 40], [20, 10, 30, 30]], atol=1e-4)
    assert new.rows.tolist() == [1, 2]
    np.testing.assert_allclose(new.visible, [0.5, 1], atol=1e-6)


def test_object_cut_by_shuffled_tiles_becomes_its_pieces():
    shuffle = Augmentation(albumentations.RandomGridShuffle((2, 2), p=1))
    rectangles = np.float32([[10, 10, 30, 30], [70, 20, 95, 40], [100, 100, 110, 110]])
    split = 0
    for seed in range(12):
        new = shuffle(picture(rectangles), rectangles, rng(seed))
        for channel in range(3):
            pieces = new.rows == channel
            assert new.visible[pieces].sum() == pytest.approx(1, abs=0.05)
            inside = np.zeros(new.image.shape[:2], bool)
            for x0, y0, x1, y1 in np.rint(new.boxes[pieces]).astype(int):
                inside[y0:y1, x0:x1] = True
            np.testing.assert_array_equal(inside, new.image[:, :, channel] > 127)
        split += (new.rows == 1).sum() == 2
    assert split > 3


def test_pipeline_with_holes_and_distortions_is_the_same_after_pickling():
    pipeline = [
        albumentations.OneOf([albumentations.CoarseDropout(p=1), albumentations.GridDropout(p=1)], p=1),
        albumentations.OpticalDistortion(p=1),
    ]
    augment = Augmentation(pipeline)
    copy = pickle.loads(pickle.dumps(augment))
    for seed in range(4):
        for one, other in zip(augment(IMAGE, BOXES, rng(seed)), copy(IMAGE, BOXES, rng(seed)), strict=True):
            np.testing.assert_array_equal(one, other)
