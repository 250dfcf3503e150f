import itertools
import pickle

import albumentations
import numpy as np
import pytest

from detfeed import BatchLoader, Fixed, Proposals, ShortSide
from detfeed.augmentation.pipeline import Augmentation
from detfeed.augmentation.recipes import RECIPES, OverlappingCrop, ZoomOut, flip, lsj, multiscale, named, ssd
from detfeed.augmentation.scale import Recipe, ScaleJitter


def nothing(sample):
    return {}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", RECIPES)
def test_image_without_objects_goes_through_each_recipe(annotate, name):
    loader = BatchLoader(annotate([(40, 60)], [[]]), nothing, batch_size=1, resize=Fixed((32, 32)), augment=name)
    for epoch in range(5):
        sample = loader.load_sample(epoch, 0)
        assert sample.boxes.shape == (0, 4)
        assert min(sample.image_hw) >= 1 and max(sample.image_hw) <= 32


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_the_same_from_the_same_seed_and_after_pickling(shapes, name):
    one = BatchLoader(shapes, nothing, batch_size=4, resize=ShortSide(64), augment=name)
    other = pickle.loads(pickle.dumps(one))
    seen = set()
    for epoch in range(3):
        for position in range(6):
            a, b = one.load_sample(epoch, position), other.load_sample(epoch, position)
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.boxes, b.boxes)
            seen.add((position, a.image.tobytes()))
    assert len(seen) > 9


def drawn(annotate, tmp_path, boxes):
    """An image on which each box is alone in one colour channel."""
    import cv2

    table = annotate([(120, 160)], [boxes])
    pixels = np.zeros((120, 160, 3), np.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1, channel] = 255
    cv2.imwrite(table.paths[0], pixels[:, :, ::-1])
    return table


@pytest.mark.parametrize("name", ["flip", "lsj", "multiscale"])
def test_objects_are_seen_in_their_boxes(annotate, tmp_path, name):
    boxes = [(5, 5, 50, 60), (70, 30, 150, 110), (40, 80, 60, 115)]
    table = drawn(annotate, tmp_path, boxes)
    proposals = Proposals(table.image_ids, np.float32(boxes), np.ones(3, np.float32), np.array([0, 3], np.int64))
    loader = BatchLoader(
        table, nothing, batch_size=1, resize=ShortSide(96), augment=name, proposals=proposals, min_visibility=0.3
    )
    lost = ignored = 0
    for epoch in range(40):
        sample = loader.load_sample(epoch, 0)
        np.testing.assert_array_equal(sample.proposals, sample.boxes)
        assert sample.num_lost == 3 - len(sample.boxes)
        lost += sample.num_lost
        ignored += sample.ignore.sum()
        for channel in range(3):
            rows, columns = np.nonzero(sample.image[:, :, channel] > 127)
            mine = sample.boxes[sample.class_ids == channel]
            if len(mine) == 0:
                assert len(rows) == 0
            elif len(rows):
                seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(mine[0], seen, atol=1.1)
    assert (lost > 0) == (ignored > 0) == (name == "lsj")


def test_large_scale_jitter_feeds_objects_at_a_tenth_to_twice_their_size_evenly(annotate):
    table = annotate([(60, 100)], [[(48, 28, 52, 32)]])
    loader = BatchLoader(table, nothing, batch_size=1, resize=Fixed((100, 100)), augment=lsj(), min_size=0)
    factors = []
    for epoch in range(400):
        sample = loader.load_sample(epoch, 0)
        height, width = sample.image_hw
        assert sample.input_hw == (100, 100)
        if len(sample.boxes) and not sample.ignore[0]:
            x0, y0, x1, y1 = sample.boxes[0]
            if min(x0, y0) > 0 and x1 < width and y1 < height:
                factors.append((x1 - x0) / 4)
                assert (y1 - y0) / 4 == pytest.approx(factors[-1], rel=0.12)
                if factors[-1] < 0.95:
                    assert (height, width) == pytest.approx((60 * factors[-1], 100 * factors[-1]), abs=1)
                if factors[-1] > 1.05:
                    assert width == 100
    assert 0.09 < min(factors) < 0.15 and 1.85 < max(factors) <= 2.05
    # Small ones are there whole, large ones may be cut away.
    assert np.histogram(factors, [0.1, 0.4, 0.7, 1.0])[0] == pytest.approx([400 * 0.3 / 1.9] * 3, rel=0.4)


def test_window_of_an_enlarged_image_fills_its_canvas():
    jitter = ScaleJitter(2, 2)
    places = set()
    for seed in range(60):
        (x0, y0, x1, y1), placed = jitter.place((60, 100), (60, 100), (100, 100), rng(seed))
        assert (y1 - y0, x1 - x0) == (50, 50)
        assert placed == (100, 100)
        assert 0 <= y0 <= 10 and 0 <= x0 <= 50
        places.add((x0, y0))
    assert len(places) > 40
    # Twice its size, it still fits a canvas that others made larger.
    assert jitter.place((60, 100), (60, 100), (120, 200), rng()) == ((0, 0, 100, 60), (120, 200))
    assert ScaleJitter(0.1, 0.1).place((60, 100), (60, 100), (100, 100), rng()) == ((0, 0, 100, 60), (6, 10))
    assert ScaleJitter(0.01, 0.01).place((60, 9), (60, 9), (100, 100), rng())[1] == (1, 1)


def test_multi_scale_feeds_short_sides_of_640_to_800_on_canvases_of_800(annotate):
    table = annotate([(100, 150)], [[]])
    loader = BatchLoader(table, nothing, batch_size=1, resize=ShortSide(800, max_side=1333), augment=multiscale())
    sizes = {loader.load_sample(epoch, 0).image_hw for epoch in range(40)}
    assert sizes == {(side, side * 3 // 2) for side in (640, 672, 704, 736, 768, 800)}
    assert loader.canvases.tolist() == [[800, 1216]]


def test_zooming_out_shows_an_image_whole_on_its_mean_colour():
    zoom = Augmentation(ZoomOut(max_side=3, p=1))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    sides = set()
    for seed in range(30):
        new = zoom(image, np.float32([[0, 0, 30, 20]]), rng(seed))
        x0, y0, x1, y1 = np.rint(new.boxes[0]).astype(int)
        np.testing.assert_array_equal(new.image[y0:y1, x0:x1], image)
        assert new.visible.tolist() == [1]
        outside = np.ones(new.image.shape[:2], bool)
        outside[y0:y1, x0:x1] = False
        assert (new.image[outside] == [123, 117, 104]).all()
        sides.add(new.image.shape[0])
    assert min(sides) >= 20 and 50 < max(sides) <= 60


def test_crops_overlap_an_object_as_much_as_drawn_and_hold_its_centre():
    crop = Augmentation(OverlappingCrop(p=1))
    image = np.zeros((60, 90, 3), np.uint8)
    boxes = np.float32([[20, 10, 60, 50], [80, 50, 90, 60]])
    shapes = set()
    for seed in range(60):
        new = crop(image, boxes, rng(seed))
        height, width = new.image.shape[:2]
        assert height >= 18 and width >= 27
        assert 0.5 <= width / height <= 2
        assert len(new.boxes) >= 1 and new.visible.max() >= 0.24
        shapes.add((height, width))
    assert (60, 90) in shapes and len(shapes) > 30
    assert crop(image, np.zeros((0, 4), np.float32), rng()).image.shape == (60, 90, 3)


def test_recipes_by_name_are_their_functions(annotate):
    table = annotate([(40, 60)], [[(5, 5, 30, 30)]])
    made = {"flip": flip(), "ssd": ssd(), "lsj": lsj(), "multiscale": multiscale()}
    assert made.keys() == RECIPES.keys()
    for name, recipe in made.items():
        one, other = (
            BatchLoader(table, nothing, batch_size=1, resize=Fixed((32, 32)), augment=augment)
            for augment in (name, recipe)
        )
        for epoch in range(4):
            np.testing.assert_array_equal(one.load_sample(epoch, 0).image, other.load_sample(epoch, 0).image)


def test_scale_goes_with_any_transform(annotate):
    recipe = Recipe(albumentations.VerticalFlip(p=1), ScaleJitter(0.5, 0.5))
    sample = BatchLoader(
        annotate([(40, 60)], [[(0, 0, 30, 10)]]), nothing, batch_size=1, resize=Fixed((40, 60)), augment=recipe
    ).load_sample(0, 0)
    assert sample.image_hw == (20, 30)
    np.testing.assert_allclose(sample.boxes, [[0, 15, 15, 20]], atol=1e-4)


def test_unknown_name_is_refused_with_those_there_are(annotate):
    with pytest.raises(ValueError, match=r"one of \['flip', 'lsj', 'multiscale', 'ssd'\], .* Received: 'mosaic'"):
        BatchLoader(annotate([(40, 60)], [[]]), nothing, batch_size=1, resize=Fixed((32, 32)), augment="mosaic")
    with pytest.raises(ValueError, match="Received: ''"):
        named("")


@pytest.mark.parametrize(("arguments", "message"), [((0, 1), "low=0"), ((2, 1), "high=1"), ((1, 2, 1), "Received: 1")])
def test_scales_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaleJitter(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0.1", 2), "low to be a number. Received: '0.1'"),
        ((1, 2, 2.0), "steps to be a whole number or None. Received: 2.0"),
    ],
)
def test_scales_of_wrong_types_are_refused_at_once(arguments, message):
    with pytest.raises(TypeError, match=message):
        ScaleJitter(*arguments)


def test_mask_of_a_crowd_is_cut_like_its_box(shapes):
    crowds = sorted({int(np.searchsorted(shapes.offsets, row, side="right")) - 1 for row in shapes.masks})
    loader = BatchLoader(shapes, nothing, batch_size=4, resize=ShortSide(96), augment="lsj")
    compared = 0
    for epoch, position in itertools.product(range(12), crowds):
        sample = loader.load_sample(epoch, position)
        for row, mask in sample.masks.items():
            assert mask.shape == sample.image_hw and sample.ignore[row]
            rows, columns = np.nonzero(mask > 127)
            if len(rows) > 20:
                seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                x0, y0, x1, y1 = sample.boxes[row]
                assert x0 - 1.5 <= seen[0] and y0 - 1.5 <= seen[1] and seen[2] <= x1 + 1.5 and seen[3] <= y1 + 1.5
                compared += 1
    assert compared > 5
