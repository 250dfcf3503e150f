"""Painted objects are found again in the pixels where their masks are, after every recipe and a pool of transforms."""

import dataclasses
import json

import albumentations
import cv2
import numpy as np
import pytest

from detfeed import BatchLoader, Fixed, read_coco, write_coco
from detfeed.mask_columns import MaskColumns

HW = (120, 160)
POLYGONS = {  # by colour
    (250, 20, 20): [(20, 20), (70, 25), (60, 60), (35, 45), (22, 66)],
    (20, 250, 20): [(90, 30), (140, 20), (150, 55), (110, 62)],
    (20, 20, 250): [(40, 75), (120, 80), (80, 112)],
}
POOL = {
    "nothing": None,
    "flip": "flip",
    "ssd": "ssd",
    "lsj": "lsj",
    "multiscale": "multiscale",
    "both flips": [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)],
    "crop": albumentations.RandomCrop(90, 100, p=1),
    "affine": albumentations.Affine(scale=(0.7, 1.3), rotate=(-40, 40), shear=(-10, 10), p=1),
    "perspective": albumentations.Perspective(p=1),
    "transpose": albumentations.Transpose(p=1),
    "quarter turns": albumentations.RandomRotate90(p=1),
    "d4": albumentations.D4(p=1),
    "resized crop": albumentations.RandomResizedCrop((100, 130), scale=(0.4, 1), p=1),
    "safe crop": albumentations.BBoxSafeRandomCrop(p=1),
    "pad": albumentations.PadIfNeeded(200, 200, p=1),
    "elastic": albumentations.ElasticTransform(alpha=60, sigma=8, p=1),
    "optical": albumentations.OpticalDistortion(0.4, p=1),
    "grid": albumentations.GridDistortion(p=1),
    "plate spline": albumentations.ThinPlateSpline(p=1),
    "small": albumentations.LongestMaxSize(100, p=1),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """An image with three painted objects, written with their polygons and read back."""
    folder = tmp_path_factory.mktemp("painted")
    points = [np.array(polygon, np.float32) for polygon in POLYGONS.values()]
    plain = read_coco(*_file_of_boxes(folder, points))
    columns = MaskColumns.made(
        np.arange(3),
        sizes_hw=plain.image_hw[[0] * 3],
        points=np.concatenate(points),
        point_counts=np.array(list(map(len, points))),
        polygon_counts=np.ones(3, np.int64),
    )
    picture = np.full((*HW, 3), 128, np.uint8)
    for row, colour in enumerate(POLYGONS):
        picture[columns.fill(row, HW) > 0] = colour
    cv2.imwrite(plain.paths[0], picture[..., ::-1])
    write_coco(_with_masks(plain, columns), folder / "again.json")
    return read_coco(folder / "again.json", folder, masks=True)


def _file_of_boxes(folder, points):

    (folder / "a.png").touch()
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": [*corner.min(0).tolist(), *np.ptp(corner, 0).tolist()]}
        for n, corner in enumerate(points)
    ]
    image = {"id": 1, "file_name": "a.png", "height": HW[0], "width": HW[1]}
    content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json", folder


def _with_masks(table, columns):

    return dataclasses.replace(table, masks=columns)


def loader_of(table, augment):
    def targets(sample):
        return {}

    return BatchLoader(table, targets, batch_size=1, resize=Fixed(HW), augment=augment, seed=3)


@pytest.mark.parametrize("augment", POOL.values(), ids=POOL)
def test_masks_lie_where_the_painted_objects_are(table, augment):
    loader = loader_of(table, augment)
    seen = 0
    for epoch in range(6):
        sample = loader.load_sample(epoch, 0)
        pixels = sample.image.astype(int)
        for row, table_row in enumerate(sample.rows.tolist()):
            # Of the colours, SSD's recipe keeps which is the strongest.
            channel = table_row
            strength = pixels[..., channel] - np.delete(pixels, channel, axis=2).max(axis=2)
            painted = strength > 60
            mask = sample.masks[row] > 127
            kernel = np.ones((5, 5), np.uint8)
            thick = [cv2.dilate(one.astype(np.uint8), kernel) > 0 for one in (mask, painted)]
            thin = [cv2.erode(one.astype(np.uint8), kernel) > 0 for one in (mask, painted)]
            assert not (thin[0] & ~thick[1]).any() and not (thin[1] & ~thick[0]).any()
            if painted.sum() > 200:
                assert (mask & painted).sum() / (mask | painted).sum() > 0.8
                seen += 1
    assert seen > 3


def test_mask_that_stays_behind_would_be_found(table):
    sample = loader_of(table, albumentations.HorizontalFlip(p=1)).load_sample(0, 0)
    row = sample.rows.tolist().index(0)
    red = sample.image[..., 0].astype(int) - sample.image[..., 1] > 60
    assert (sample.masks[row][:, ::-1][red] > 127).mean() < 0.5 < (sample.masks[row][red] > 127).mean()


def test_mask_is_drawn_only_if_somebody_looks_at_it(table, monkeypatch):
    drawn = []
    fill = MaskColumns.fill
    monkeypatch.setattr(MaskColumns, "fill", lambda self, row, hw: drawn.append(row) or fill(self, row, hw))
    for augment in (None, "flip", "multiscale"):
        sample = loader_of(table, augment).load_sample(0, 0)
        assert list(sample.masks) == [0, 1, 2] and drawn == []
        assert sample.masks[1].shape == sample.image_hw
        assert sample.masks[1] is sample.masks[1] and drawn == [1]
        drawn.clear()


def test_mosaic_which_would_lose_the_masks_is_refused(table):
    mosaic = albumentations.Mosaic(p=1, target_size=HW, cell_shape=HW)
    with pytest.raises(ValueError, match="without Mosaic, which moves no masks"):
        loader_of(table, mosaic)
