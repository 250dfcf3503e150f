import pickle
import random
import threading

import albumentations
import numpy as np
import pytest

from detfeed.augmentation.pipeline import Augmentation

NONE = np.zeros((0, 4), np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.float32([[0, 0, 60, 40], [10, 5, 20, 15], [30, 20, 60, 40]])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_no_boxes_in_no_boxes_out():
    image, boxes, rows, visible, proposals, masks, _ = Augmentation(albumentations.HorizontalFlip(p=1))(
        IMAGE, NONE, rng()
    )
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    assert boxes.shape == proposals.shape == (0, 4)
    assert rows.shape == visible.shape == (0,)
    assert masks.shape == (0, 40, 60)


def test_boxes_follow_the_image_and_keep_their_rows():
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


def test_visible_share_is_of_the_box_before_the_first_of_several_crops():
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
        image, boxes, rows, _, none, *_ = augment(IMAGE, BOXES[1:2], rng(seed))
        assert none.shape == (0, 4)
        same_image, same_boxes, same_rows, _, moved, *_ = augment(
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
def test_pipeline_with_its_own_randomness_is_refused_with_advice(draw):
    with pytest.raises(ValueError, match=r"the same again from the same seed.* draw from self\.py_random"):
        Augmentation([albumentations.HorizontalFlip(), Own(draw)])


def test_transform_that_draws_from_the_generators_it_is_given_is_taken():
    augment = Augmentation(Own(lambda transform: transform.py_random.randrange(250)))
    assert len({augment(IMAGE, NONE, rng(seed)).image[0, 0, 0] for seed in range(9)}) > 5
    Augmentation(Own(lambda transform: transform.random_generator.integers(250)))


def test_pipeline_that_needs_larger_images_than_it_is_tried_with_is_taken():
    assert Augmentation(albumentations.RandomCrop(200, 200, p=1))(np.zeros((300, 300, 3), np.uint8), NONE, rng())
    assert Augmentation(albumentations.RandomCrop(3000, 3000, p=1))


def test_transforms_that_are_rare_or_behind_a_crop_are_tried_out_as_well():
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
        (Blind(), "Received Blind, which moves no boxes"),
    ],
)
def test_part_that_cannot_be_used_is_refused_at_any_depth(part, message):
    for pipeline in (part, [part], [albumentations.OneOf([albumentations.Compose([part])])]):
        with pytest.raises(ValueError, match=message):
            Augmentation(pipeline)


def test_anything_but_a_pipeline_is_refused_with_advice():
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


def seeded_after(transform):
    transform.set_random_seed(7)
    return transform


@pytest.mark.parametrize(
    "transform",
    [
        albumentations.Compose([albumentations.HorizontalFlip()], seed=7),
        [albumentations.Blur(), albumentations.Compose([albumentations.HorizontalFlip()], seed=7)],
        [albumentations.Blur(), seeded_after(albumentations.HorizontalFlip())],
        seeded_after(albumentations.Compose([albumentations.Blur()])),
    ],
    ids=range(4),
)
def test_seed_of_its_own_is_refused_since_it_would_be_ignored(transform):
    with pytest.raises(ValueError, match=r"with seed 7; leave it out, and give seed=7 to the sequence or loader"):
        Augmentation(transform)


CROPS = [
    (albumentations.RandomCrop(600, 600), "RandomCrop"),
    (albumentations.CenterCrop(600, 600, p=0.01), "CenterCrop"),
    (albumentations.Crop(0, 0, 600, 600), "Crop"),
    ([albumentations.HorizontalFlip(), albumentations.RandomCrop(30, 300, p=0.01)], "RandomCrop"),
    (albumentations.OneOf([albumentations.Blur(), albumentations.CenterCrop(300, 30, p=1)]), "CenterCrop"),
    (albumentations.CropAndPad(px=-300), "CropAndPad"),
]


@pytest.mark.parametrize(("transform", "name"), CROPS, ids=range(len(CROPS)))
def test_crop_that_is_larger_than_an_image_is_named_with_it_before_anything_is_fed(transform, name):
    sizes = np.array([[700, 800], [100, 900], [800, 110]])
    with pytest.raises(
        ValueError, match=rf"image [12] of height (100|800) and width (900|110) too. Received: {name}\("
    ):
        Augmentation(transform).check_fits(sizes, lambda row: f"image {row}")
    Augmentation(transform).check_fits(sizes[:1], lambda row: f"image {row}")


def test_crop_that_pads_or_follows_a_resize_or_is_never_done_fits_any_image():
    for transform in (
        albumentations.RandomCrop(600, 600, pad_if_needed=True),
        [albumentations.SmallestMaxSize(700), albumentations.RandomCrop(600, 600)],
        albumentations.RandomCrop(600, 600, p=0),
    ):
        Augmentation(transform).check_fits(np.array([[20, 30]]), str)
