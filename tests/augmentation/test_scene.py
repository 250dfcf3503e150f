"""A scene moves its image and all that lies on it alike: painted objects are found again in the pixels."""

import albumentations
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed.augmentation.pipeline import Augmentation
from detfeed.augmentation.scene import Scene
from detfeed.boxes import EMPTY

HEIGHT, WIDTH = 40, 60


def scene_of(boxes, *, masked=(), proposals=None, image_hw=(HEIGHT, WIDTH)):
    """A black picture in which box k is painted with the grey 60 + 40 * k, over boxes before it."""
    image = np.zeros((*image_hw, 3), np.uint8)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = {}
    for row, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        image[y0:y1, x0:x1] = 60 + 40 * row
        if row in masked:
            masks[row] = np.zeros(image_hw, np.uint8)
            masks[row][y0:y1, x0:x1] = 255
    return Scene(
        image=image,
        frame_hw=image_hw,
        boxes=boxes,
        rows=np.arange(7, 7 + len(boxes)),
        visible=np.ones(len(boxes)),
        masks=masks,
        proposals=boxes.copy() if proposals is None else np.array(proposals, np.float32).reshape(-1, 4),
    )


def painted(scene):
    """The boxes around the greys of a scene's picture, by row of the table."""
    found = {}
    for row in scene.rows.tolist():
        rows, columns = np.nonzero(scene.image[..., 0] == 60 + 40 * (row - 7))
        if len(rows):
            found[row] = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return found


def around(mask):
    rows, columns = np.nonzero(mask > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@st.composite
def scenes(draw):
    """Up to three objects side by side, each with a mask."""
    boxes = []
    for place in range(draw(st.integers(0, 3))):
        x0 = 20 * place + draw(st.integers(0, 8))
        y0 = draw(st.integers(0, HEIGHT - 3))
        boxes.append((x0, y0, x0 + draw(st.integers(2, 11)), draw(st.integers(y0 + 2, HEIGHT))))
    return scene_of(boxes, masked=range(3))


def same(one, other):
    arrays = [(one.image, other.image), (one.boxes, other.boxes), (one.rows, other.rows), (one.visible, other.visible)]
    arrays += [(one.proposals, other.proposals), *((one.masks[row], other.masks[row]) for row in one.masks)]
    return one.masks.keys() == other.masks.keys() and all(np.array_equal(*pair) for pair in arrays)


def test_scene_without_boxes_goes_through_every_operation():
    scene = scene_of([])
    canvas = np.full((32, 64, 3), 9, np.uint8)
    for moved in (
        scene.whole(),
        scene.resized((20, 30)),
        scene.cropped((5, 5, 30, 20)),
        scene.flipped(),
        scene.placed(canvas, (20, 30)),
        scene.augmented(Augmentation(albumentations.HorizontalFlip(p=1)), np.random.default_rng(0)),
    ):
        assert moved.boxes.shape == moved.proposals.shape == (0, 4)
        assert len(moved.rows) == len(moved.visible) == len(moved.masks) == 0
        assert moved.frame_hw == moved.image.shape[:2]


@given(scenes(), st.sampled_from([0, 1]))
def test_flipping_twice_gives_the_scene_back_and_once_moves_all_alike(scene, axis):
    flipped = scene.flipped(axis=axis)
    assert same(flipped.flipped(axis=axis), scene)
    assert {row: box.tolist() for row, box in zip(flipped.rows.tolist(), flipped.boxes, strict=True)} == painted(
        flipped
    )
    assert all(around(flipped.masks[place]) == flipped.boxes[place].tolist() for place in flipped.masks)
    np.testing.assert_array_equal(flipped.proposals, flipped.boxes)


@given(scenes(), st.data())
def test_crop_keeps_what_is_inside_and_knows_its_share(scene, data):
    x0, y0 = data.draw(st.integers(0, WIDTH - 2)), data.draw(st.integers(0, HEIGHT - 2))
    x1, y1 = data.draw(st.integers(x0 + 1, WIDTH)), data.draw(st.integers(y0 + 1, HEIGHT))
    cropped = scene.cropped((x0, y0, x1, y1))
    assert cropped.frame_hw == cropped.image.shape[:2] == (y1 - y0, x1 - x0)
    assert dict(zip(cropped.rows.tolist(), cropped.boxes.tolist(), strict=True)) == painted(cropped)
    for place, row in enumerate(cropped.rows.tolist()):
        whole, left = (np.prod(box[2:] - box[:2]) for box in (scene.boxes[row - 7], cropped.boxes[place]))
        assert cropped.visible[place] == pytest.approx(left / whole)
        assert around(cropped.masks[place]) == cropped.boxes[place].tolist()


@given(scenes(), st.integers(1, 3), st.integers(1, 3))
def test_enlarging_moves_all_alike(scene, down, right):
    size_hw = HEIGHT * down, WIDTH * right
    canvas = np.full((size_hw[0] + 5, size_hw[1] + 7, 3), 9, np.uint8)
    placed, resized = scene.placed(canvas, size_hw), scene.resized(size_hw)
    assert same(placed, resized)
    assert np.shares_memory(placed.image, canvas)
    assert not canvas[size_hw[0] :].any() and not canvas[:, size_hw[1] :].any()
    np.testing.assert_array_equal(resized.boxes, scene.boxes * [right, down, right, down])
    np.testing.assert_array_equal(resized.proposals, resized.boxes)
    for place, mask in resized.masks.items():
        np.testing.assert_allclose(around(mask), resized.boxes[place], atol=1)


def test_boxes_of_an_image_decoded_at_half_its_size_are_in_whole_pixels_until_something_needs_them_in_its_own():
    scene = scene_of([(10, 10, 30, 20)], masked=[0])
    small = Scene(scene.image[::2, ::2], scene.frame_hw, scene.boxes, scene.rows, scene.visible, scene.masks)
    np.testing.assert_array_equal(small.resized((80, 120)).boxes, [[20, 20, 60, 40]])
    whole = small.whole()
    assert whole.frame_hw == (20, 30) and whole.whole() is whole
    np.testing.assert_array_equal(whole.boxes, [[5, 5, 15, 10]])
    np.testing.assert_array_equal(small.cropped((5, 0, 20, 20)).boxes, [[0, 5, 10, 10]])
    np.testing.assert_array_equal(small.flipped().boxes, [[15, 5, 25, 10]])


def test_pipeline_moves_all_alike_and_shares_multiply():
    scene = scene_of([(0, 0, 20, 20), (40, 10, 50, 30)], masked=[1], proposals=[(0, 0, 20, 20), (55, 0, 60, 9)])
    half = scene.cropped((10, 0, 60, 40))
    np.testing.assert_allclose(half.visible, [0.5, 1])
    moved = half.augmented(Augmentation(albumentations.Crop(5, 0, 40, 40, p=1)), np.random.default_rng(0))
    assert moved.rows.tolist() == [7, 8]
    np.testing.assert_allclose(moved.visible, [0.25, 1])
    np.testing.assert_allclose(moved.boxes, [[0, 0, 5, 20], [25, 10, 35, 30]], atol=1e-4)
    assert list(moved.masks) == [1] and around(moved.masks[1]) == [25, 10, 35, 30]
    np.testing.assert_allclose(moved.proposals, [[0, 0, 5, 20]], atol=1e-4)
    gone = half.augmented(Augmentation(albumentations.Crop(0, 0, 10, 40, p=1)), np.random.default_rng(0))
    assert gone.rows.tolist() == [7] and gone.masks == {}


def test_defaults_of_two_scenes_are_not_shared():
    one = Scene(np.zeros((2, 2, 3), np.uint8), (2, 2), EMPTY, np.zeros(0, np.int64), np.zeros(0))
    assert one.proposals.shape == (0, 4) and one.masks == {}
