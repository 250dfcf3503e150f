import pickle

import albumentations
import numpy as np
import pytest
from albumentations.augmentations.crops.transforms import CropSizeError

from detfeed import boxes as geometry
from detfeed.augmentation import recipes
from detfeed.augmentation.moves import Flip, RandomCrop, moves_of
from detfeed.augmentation.pipeline import Augmentation
from detfeed.augmentation.scene import Scene

MOVES = {
    "flip": albumentations.HorizontalFlip(p=0.5),
    "vertical flip": albumentations.VerticalFlip(p=0.3),
    "crop": albumentations.RandomCrop(20, 30, p=0.7),
    "list": [albumentations.VerticalFlip(p=0.5), albumentations.HorizontalFlip(p=0.5)],
    "always": [albumentations.VerticalFlip(p=1), albumentations.RandomCrop(20, 30), albumentations.HorizontalFlip()],
    "never": [albumentations.VerticalFlip(p=0), albumentations.HorizontalFlip()],
    "crop of a crop, and a flip": [
        albumentations.RandomCrop(30, 40),
        albumentations.RandomCrop(20, 25, p=0.5),
        albumentations.HorizontalFlip(),
    ],
    "compose inside a compose": albumentations.Compose(
        [
            albumentations.Compose([albumentations.HorizontalFlip(p=0.5), albumentations.RandomCrop(25, 25)], p=0.5),
            albumentations.VerticalFlip(p=0.5),
        ],
        p=0.8,
    ),
}


def scene_of(seed, number=6, image_hw=(43, 61)):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * image_hw[::-1]
        return np.concatenate([corners[:, 0], corners[:, 1] + 0.5], axis=1).astype(np.float32).clip(0, [61, 43] * 2)

    return Scene(
        image=rng.integers(0, 256, (*image_hw, 3), np.uint8),
        frame_hw=image_hw,
        boxes=boxes(number),
        rows=np.arange(number) + 5,
        visible=np.ones(number),
        masks={row: rng.integers(0, 256, image_hw, np.uint8) for row in range(0, number, 2)},
        proposals=boxes(number + 3),
    )


def through_albumentations(scene, augmentation, rng):
    """As `Scene.augmented` does where only albumentations can."""
    new = augmentation(scene.image, scene.boxes, rng, proposals=scene.proposals, masks=list(scene.masks.values()))
    masks = dict(zip(scene.masks, new.masks, strict=True))
    return new, {place: masks[row] for place, row in enumerate(new.rows.tolist()) if row in masks}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("number", [0, 6])
def test_from_the_same_seed_comes_what_comes_from_albumentations(name, number):
    augmentation = Augmentation(MOVES[name])
    seen = set()
    for seed in range(60):
        scene = scene_of(seed, number)
        ours_rng, theirs_rng = np.random.default_rng(seed), np.random.default_rng(seed)
        ours = scene.augmented(augmentation, ours_rng)
        assert augmentation.moved(scene, np.random.default_rng(seed)) is not None
        theirs, masks = through_albumentations(scene, augmentation, theirs_rng)
        np.testing.assert_array_equal(ours.image, theirs.image)
        assert ours.frame_hw == theirs.image.shape[:2]
        # A box that only touches the image may be left by rounding in one of them.
        kept = geometry.area(theirs.boxes) > 1e-3
        assert (ours.rows - 5).tolist() == theirs.rows[kept].tolist()
        np.testing.assert_allclose(ours.boxes, theirs.boxes[kept], atol=1e-4)
        np.testing.assert_allclose(ours.visible, theirs.visible[kept], atol=1e-4)
        np.testing.assert_allclose(ours.proposals, theirs.proposals[geometry.area(theirs.proposals) > 1e-3], atol=1e-4)
        assert kept.all() and ours.masks.keys() == masks.keys()
        assert all(np.array_equal(ours.masks[place], masks[place]) for place in masks)
        assert ours_rng.integers(2**62) == theirs_rng.integers(2**62), "what is drawn later must not change"
        seen.add(ours.image.tobytes() == scene.image.tobytes())
    assert len(seen) == 2 or name in ("always", "crop of a crop, and a flip"), "done and not done"


@pytest.mark.parametrize("recipe", [recipes.flip(), recipes.lsj(), recipes.multiscale()])
def test_flips_of_published_recipes_are_moves(recipe):
    assert moves_of(recipe.transform) == Flip(0.5, axis=0)


def test_what_may_do_anything_else_is_left_to_albumentations():
    class Own(albumentations.HorizontalFlip):
        def apply(self, img, **params):
            return 255 - img

    for transform in (
        Own(p=1),
        albumentations.RandomCrop(9, 9, pad_if_needed=True),
        albumentations.Compose([albumentations.HorizontalFlip(), albumentations.Blur()]),
        albumentations.OneOf([albumentations.HorizontalFlip(), albumentations.VerticalFlip()]),
        albumentations.Sequential([albumentations.HorizontalFlip()]),
    ):
        assert moves_of(transform) is None
        assert Augmentation(transform).moved(scene_of(0), np.random.default_rng(0)) is None
    image = scene_of(0).image
    np.testing.assert_array_equal(
        scene_of(0).augmented(Augmentation(Own(p=1)), np.random.default_rng(0)).image, 255 - image
    )


def test_no_transforms_leave_a_scene_as_it_is():
    scene = scene_of(1)
    assert Augmentation([]).moved(scene, np.random.default_rng(0)) is scene


def test_crop_larger_than_the_image_is_refused_as_albumentations_does():
    scene = scene_of(0)
    for transform in (albumentations.RandomCrop(44, 10), albumentations.RandomCrop(10, 62)):
        augmentation = Augmentation(transform)
        with pytest.raises(CropSizeError):
            augmentation(scene.image, scene.boxes, np.random.default_rng(0))
        with pytest.raises(CropSizeError, match=r"at least the crop's height and width \(.*Received: \(43, 61\)"):
            scene.augmented(augmentation, np.random.default_rng(0))


def test_moves_travel_to_other_processes_with_their_pipeline():
    augmentation = pickle.loads(pickle.dumps(Augmentation(albumentations.RandomCrop(10, 12, p=1))))
    assert moves_of(albumentations.RandomCrop(10, 12)) == RandomCrop(1.0, (10, 12))
    moved = augmentation.moved(scene_of(0), np.random.default_rng(0))
    assert moved is not None and moved.image.shape == (10, 12, 3)
