import pickle
import random
import threading

import albumentations
import numpy as np
import pytest

from detfeed.augmentation.pipeline import Augmentation, Other

NONE = np.zeros((0, 4), np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.float32([[0, 0, 60, 40], [10, 5, 20, 15], [30, 20, 60, 40]])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_no_boxes_in_no_boxes_out():
    image, boxes, rows, visible, proposals, masks = Augmentation(albumentations.HorizontalFlip(p=1))(IMAGE, NONE, rng())
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    assert boxes.shape == proposals.shape == (0, 4)
    assert rows.shape == visible.shape == (0,)
    assert masks.shape == (0, 40, 60)


def test_boxes_follow_the_image_and_know_where_they_come_from():
    image, boxes, rows, visible, *_ = Augmentation(albumentations.HorizontalFlip(p=1))(IMAGE, BOXES, rng())
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    np.testing.assert_allclose(boxes, [[0, 0, 60, 40], [40, 5, 50, 15], [0, 20, 30, 40]], atol=1e-4)
    assert boxes.dtype == np.float32
    assert rows.tolist() == [0, 1, 2]
    assert visible.tolist() == [1, 1, 1]


def test_boxes_that_a_crop_loses_are_gone_and_the_others_keep_their_rows():
    crop = albumentations.Crop(25, 16, 60, 40, p=1)
    image, boxes, rows, visible, *_ = Augmentation(crop)(IMAGE, BOXES, rng())
    np.testing.assert_array_equal(image, IMAGE[16:40, 25:60])
    assert rows.tolist() == [0, 2]
    np.testing.assert_allclose(boxes, [[0, 0, 35, 24], [5, 4, 35, 24]], atol=1e-4)
    np.testing.assert_allclose(visible, [35 * 24 / 2400, 1], atol=1e-4)


def test_visible_share_is_of_the_box_as_it_was_before_several_crops():
    crops = [albumentations.Crop(30, 0, 60, 40, p=1), albumentations.Crop(0, 30, 30, 40, p=1)]
    visible = Augmentation(crops)(IMAGE, BOXES, rng()).visible
    np.testing.assert_allclose(visible, [30 * 10 / 2400, 300 / 600], atol=1e-4)


def test_masks_follow_the_image():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 10:20] = 255
    pipeline = [albumentations.HorizontalFlip(p=1), albumentations.Crop(30, 0, 60, 40, p=1)]
    new = Augmentation(pipeline)(IMAGE, BOXES, rng(), masks=[mask, 255 - mask])
    assert new.masks.shape == (2, 40, 30)
    x0, y0, x1, y1 = np.rint(new.boxes[new.rows == 1][0]).astype(int)
    assert (new.masks[0, y0:y1, x0:x1] == 255).all()
    assert new.masks[0].sum() == 255 * (y1 - y0) * (x1 - x0)
    np.testing.assert_array_equal(new.masks[1], 255 - new.masks[0])


def test_crop_that_loses_every_box_leaves_none():
    _, boxes, rows, *_ = Augmentation(albumentations.Crop(0, 20, 9, 40, p=1))(IMAGE, BOXES[1:2], rng())
    assert boxes.shape == (0, 4)
    assert rows.shape == (0,)


def test_proposals_go_where_boxes_go_and_do_not_sway_them():
    """A crop that keeps the boxes it sees would otherwise keep the proposals, which cover the image."""
    everywhere = np.float32([[0, 0, 60, 40], [0, 0, 9, 9], [50, 30, 60, 40]])
    augment = Augmentation([albumentations.HorizontalFlip(p=0.5), albumentations.BBoxSafeRandomCrop(p=1)])
    sizes = set()
    for seed in range(8):
        image, boxes, rows, _, none, _ = augment(IMAGE, BOXES[1:2], rng(seed))
        assert none.shape == (0, 4)
        same_image, same_boxes, same_rows, _, moved, _ = augment(
            IMAGE, BOXES[1:2], rng(seed), proposals=np.concatenate([BOXES[1:2], everywhere])
        )
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(boxes, same_boxes)
        np.testing.assert_array_equal(rows, same_rows)
        np.testing.assert_array_equal(boxes[0], moved[0])
        assert moved.dtype == np.float32
        np.testing.assert_allclose(moved[1], [0, 0, image.shape[1], image.shape[0]], atol=1e-4)
        sizes.add(image.shape)
    assert len(sizes) > 2


def test_one_transform_a_list_and_a_compose_are_the_same():
    flip = albumentations.HorizontalFlip(p=0.5)
    blur = albumentations.GaussianBlur(p=0.5)
    answers = [
        [Augmentation(form)(IMAGE, BOXES, rng(seed))[0].tobytes() for seed in range(8)]
        for form in ([flip, blur], albumentations.Compose([flip, blur]), (flip, blur))
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 2


def test_transforms_are_drawn_independently():
    """Compose.set_random_seed would do all or none of the transforms that have the same p."""
    augment = Augmentation([albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)])
    seen = {augment(IMAGE, NONE, rng(seed))[0].tobytes() for seed in range(40)}
    assert seen == {IMAGE[::v, ::h].tobytes() for v in (1, -1) for h in (1, -1)}


def test_same_generator_same_answer_in_any_thread_and_after_pickling():
    augment = Augmentation([albumentations.RandomBrightnessContrast(p=1), albumentations.Affine(p=1)])
    expected = [augment(IMAGE, BOXES, rng(seed)) for seed in range(6)]
    copies = [augment, pickle.loads(pickle.dumps(augment))]
    failures = []

    def compare(copy):
        for _ in range(5):
            for seed, answer in enumerate(expected):
                got = copy(IMAGE, BOXES, rng(seed))
                failures.extend(1 for a, b in zip(got, answer, strict=True) if not np.array_equal(a, b))

    threads = [threading.Thread(target=compare, args=(copy,)) for copy in copies * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_callers_pipeline_is_left_as_it_was():
    flip = albumentations.HorizontalFlip(p=0.5)
    before = flip.py_random
    for pipeline in (flip, [flip]):
        Augmentation(pipeline)(IMAGE, BOXES, rng())
        assert flip.py_random is before


# Three rectangles, each alone in one colour channel, so that it is found again whatever is done to the pixels.
RECTANGLES = np.float32(
    [
        [[2, 2, 30, 30], [40, 4, 80, 20], [100, 0, 160, 25]],
        [[0, 40, 20, 110], [30, 45, 36, 50], [60, 40, 110, 90]],
        [[120, 60, 125, 100], [130, 95, 160, 120], [40, 100, 48, 106]],
    ]
)


def picture(rectangles):
    pixels = np.zeros((120, 160, 3), np.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(rectangles.astype(int)):
        pixels[y0:y1, x0:x1, channel] = 255
    return pixels


def found(pixels, channel):
    """Where a rectangle is seen, as a box; None if nowhere."""
    rows, columns = np.nonzero(pixels[:, :, channel] > 127)
    return None if len(rows) == 0 else np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


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
def test_boxes_are_where_their_objects_are_seen_and_know_whose_they_are(name):
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


def test_objects_of_which_tiles_are_shuffled_become_their_pieces():
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


class Own(albumentations.ImageOnlyTransform):
    """Adds a number that `draw` makes."""

    def __init__(self, draw):
        super().__init__(p=1)
        self.draw = draw

    def apply(self, img, **params):
        return np.full_like(img, self.draw(self))


@pytest.mark.parametrize(
    "draw",
    [
        lambda transform: np.random.randint(250),  # noqa: NPY002
        lambda transform: random.randrange(250),
        lambda transform: np.random.default_rng().integers(250),
    ],
)
def test_pipeline_with_a_randomness_of_its_own_is_refused_with_what_to_write(draw):
    with pytest.raises(ValueError, match=r"the same again from the same seed.* draw from self\.py_random"):
        Augmentation([albumentations.HorizontalFlip(), Own(draw)])


def test_transform_that_draws_from_the_generators_it_is_given_is_taken():
    augment = Augmentation(Own(lambda transform: transform.py_random.randrange(250)))
    assert len({augment(IMAGE, NONE, rng(seed)).image[0, 0, 0] for seed in range(9)}) > 5
    Augmentation(Own(lambda transform: transform.random_generator.integers(250)))


def test_pipeline_that_needs_larger_images_than_it_is_tried_with_is_taken():
    assert Augmentation(albumentations.RandomCrop(200, 200, p=1))(np.zeros((300, 300, 3), np.uint8), NONE, rng())
    assert Augmentation(albumentations.RandomCrop(3000, 3000, p=1))


def test_what_is_done_rarely_or_behind_a_crop_is_tried_out_as_well():
    rare = Own(lambda transform: random.randrange(250))
    rare.p = 0.01
    behind = [albumentations.RandomCrop(512, 512), Own(lambda transform: random.randrange(250))]
    for pipeline in (rare, [albumentations.OneOf([rare, albumentations.NoOp()])], behind):
        with pytest.raises(ValueError, match="the same again from the same seed"):
            Augmentation(pipeline)
    for pipeline in (
        albumentations.Normalize(p=0.01),
        [albumentations.RandomCrop(512, 512), albumentations.Normalize()],
    ):
        with pytest.raises(ValueError, match=r"Received: float32 .* normalisation belongs into the model"):
            Augmentation(pipeline)
    with pytest.raises(ValueError, match=r"Received: uint8 \(72, 96\); keep three channels"):
        Augmentation(albumentations.ToGray(num_output_channels=1, p=1))


def test_transform_that_fails_on_any_picture_is_refused_with_its_own_error():
    with pytest.raises(ZeroDivisionError):
        Augmentation(Own(lambda transform: 1 // 0))


class Blind(albumentations.DualTransform):
    """Moves pixels and not boxes."""

    _targets = (albumentations.core.type_definitions.Targets.IMAGE,)

    def apply(self, img, **params):
        return img[:, ::-1]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (albumentations.TextImage(font_path="no"), r"Received TextImage, which needs \['textimage_metadata'\]: leave"),
        (albumentations.OverlayElements(), r"Received OverlayElements, which needs \['overlay_metadata'\]"),
        (albumentations.MaskDropout(), r"Received MaskDropout, which needs \['mask'\]"),
        (albumentations.RandomCropNearBBox(), r"Received RandomCropNearBBox, which needs \['cropping_bbox'\]"),
        (
            albumentations.ConstrainedCoarseDropout(bbox_labels=[1]),
            r"Received ConstrainedCoarseDropout, which needs masks or labels",
        ),
        (
            albumentations.CropNonEmptyMaskIfExists(20, 20),
            r"Received CropNonEmptyMaskIfExists, which needs masks or labels",
        ),
        (Blind(), "Received Blind, which knows no boxes"),
    ],
)
def test_part_that_can_not_be_used_is_refused_wherever_it_stands(part, message):
    for pipeline in (part, [part], [albumentations.OneOf([albumentations.Compose([part])])]):
        with pytest.raises(ValueError, match=message):
            Augmentation(pipeline)


def test_what_is_no_pipeline_is_refused_with_what_to_write():
    with pytest.raises(TypeError, match="Received: 'flip'"):
        Augmentation("flip")
    own = albumentations.Compose(
        [albumentations.HorizontalFlip()], bbox_params=albumentations.BboxParams("coco", label_fields=[])
    )
    for pipeline in (own, [own], [albumentations.VerticalFlip(), own]):
        with pytest.raises(ValueError, match=r"\['bboxes'\]; detfeed adds the box parameters itself"):
            Augmentation(pipeline)


def test_pipeline_that_normalises_is_refused():
    with pytest.raises(ValueError, match=r"Received: float32 .* normalisation belongs into the model"):
        Augmentation(albumentations.Normalize())(IMAGE, BOXES, rng())


def test_transforms_that_are_off_are_no_reason_to_refuse():
    off = albumentations.Normalize(p=0)
    for pipeline in (
        [off, albumentations.HorizontalFlip()],
        albumentations.OneOf([off, albumentations.Transpose(p=1)]),
    ):
        Augmentation(pipeline)(IMAGE, BOXES, rng())
