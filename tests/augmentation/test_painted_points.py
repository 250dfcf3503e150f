"""Painted points are found again where their keypoints are, after every recipe and a pool of transforms."""

import json

import albumentations
import cv2
import numpy as np
import pytest

from detfeed import BatchLoader, Fixed, read_coco

HW = (120, 160)
COLOURS = {"left eye": (255, 0, 0), "nose": (0, 255, 0), "right eye": (0, 0, 255)}
POINTS = {"left eye": (50, 40), "nose": (70, 70), "right eye": (100, 45)}
POOL = {
    "nothing": None,
    "flip": "flip",
    "ssd": "ssd",
    "lsj": "lsj",
    "multiscale": "multiscale",
    "both flips": [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)],
    "crop": albumentations.RandomCrop(60, 70, p=1),
    "affine": albumentations.Affine(scale=(0.7, 1.3), rotate=(-60, 60), shear=(-10, 10), p=1),
    "perspective": albumentations.Perspective(p=1),
    "transpose": albumentations.Transpose(p=1),
    "quarter turns": albumentations.RandomRotate90(p=1),
    "d4": albumentations.D4(p=1),
    "turn": albumentations.Rotate((-180, 180), p=1),
    "safe turn": albumentations.SafeRotate((-90, 90), p=1),
    "resized crop": albumentations.RandomResizedCrop((100, 130), scale=(0.4, 1), p=1),
    "pad": albumentations.PadIfNeeded(200, 200, p=1),
    "elastic": albumentations.ElasticTransform(alpha=60, sigma=8, p=1),
    "optical": albumentations.OpticalDistortion(0.4, p=1),
    "grid": albumentations.GridDistortion(p=1),
    # A stronger one folds the picture, so that a point is in it twice.
    "plate spline": albumentations.ThinPlateSpline((0.05, 0.15), p=1),
    "tiles": albumentations.RandomGridShuffle((2, 2), p=1),
    "small": albumentations.LongestMaxSize(100, p=1),
    "blur then flip": [albumentations.Blur(p=1), albumentations.HorizontalFlip(p=1)],
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    picture = np.full((*HW, 3), 100, np.uint8)
    for name, (x, y) in POINTS.items():
        picture[y - 3 : y + 4, x - 3 : x + 4] = COLOURS[name]
    cv2.imwrite(str(folder / "a.png"), picture[..., ::-1])
    numbers = [number for x, y in POINTS.values() for number in (x, y, 2)]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HW[0], "width": HW[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 20, 100, 80], "keypoints": numbers}],
        "categories": [{"id": 1, "name": "face", "keypoints": list(POINTS)}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return read_coco(folder / "a.json", folder, keypoints=True)


def no_targets(sample):
    return {}


def find(image, colour):
    """The centre of the pixels of a colour and how many they are; None if there are too few."""
    pixels = image.astype(int)
    channel = int(np.argmax(colour))
    strength = pixels[..., channel] - np.delete(pixels, channel, axis=2).max(axis=2)
    y, x = np.nonzero(strength > 60)
    return None if len(x) < 4 else (np.array([x.mean(), y.mean()]) + 0.5, len(x))


@pytest.mark.parametrize("augment", POOL.values(), ids=POOL)
def test_keypoints_lie_where_the_painted_points_are(table, augment):
    loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed(HW), augment=augment, seed=5, min_visibility=0)
    seen = 0
    for epoch in range(8):
        sample = loader.load_sample(epoch, 0)
        mirrored = None
        found = [find(sample.image, COLOURS[name]) for name in POINTS]
        for points in sample.keypoints:
            visible = points[points[:, 2] > 0]
            assert (points[points[:, 2] == 0] == 0).all()
            height, width = sample.image_hw
            assert ((visible[:, :2] >= 0) & (visible[:, :2] <= [width, height])).all()
            # In a mirrored picture the left eye is what is painted as the right one.
            for place, (name, spot) in enumerate(zip(POINTS, found, strict=True)):
                if spot is None or name == "nose":
                    continue
                away = {
                    other: np.abs(points[list(POINTS).index(other), :2] - spot[0]).max()
                    for other in ("left eye", "right eye")
                    if points[list(POINTS).index(other), 2]
                }
                inside = (spot[0] > 5).all() and (spot[0] < np.array([width, height]) - 5).all()
                if inside and spot[1] > 15:
                    nearest = min(away, key=away.get)
                    assert away[nearest] < 2.5, (name, place, spot, points)
                    assert mirrored in (None, nearest != name)
                    mirrored = nearest != name
                    seen += 1
            nose = found[1]
            if nose and points[1, 2] and nose[1] > 15 and (nose[0] > 5).all():
                assert np.abs(points[1, :2] - nose[0]).max() < 2.5 or nose[1] < 30
    assert seen > 2


def test_left_and_right_change_places_in_every_mirrored_picture_and_in_no_other(table):
    eyes = {}
    for name, augment in {
        "flip": albumentations.HorizontalFlip(p=1),
        "flip without moves": [
            albumentations.HorizontalFlip(p=1),
            albumentations.ToGray(p=0),
            albumentations.Blur(p=1),
        ],
        "upside down": albumentations.VerticalFlip(p=1),
        "transpose": albumentations.Transpose(p=1),
        "turn": albumentations.Rotate((170, 170), p=1),
        "nothing": None,
    }.items():
        loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed(HW), augment=augment)
        sample = loader.load_sample(0, 0)
        red = find(sample.image, COLOURS["left eye"])[0]
        eyes[name] = int(np.abs(sample.keypoints[0, [0, 2], :2] - red).max(axis=1).argmin())
    assert eyes == {
        "flip": 1, "flip without moves": 1, "upside down": 1, "transpose": 1, "turn": 0, "nothing": 0
    }  # fmt: skip


def test_points_that_a_crop_leaves_out_are_not_visible(table):
    crop = albumentations.Crop(60, 0, 160, 120, p=1)
    loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((120, 100)), augment=crop)
    points = loader.load_sample(0, 0).keypoints[0]
    assert points.tolist() == [[0, 0, 0], [10.5, 70.5, 2], [40.5, 45.5, 2]]


def test_mosaic_which_would_lose_the_keypoints_is_refused(table):
    mosaic = albumentations.Mosaic(p=1, target_size=HW, cell_shape=HW)
    with pytest.raises(ValueError, match="Mosaic, which moves no keypoints"):
        BatchLoader(table, no_targets, batch_size=1, resize=Fixed(HW), augment=mosaic)
