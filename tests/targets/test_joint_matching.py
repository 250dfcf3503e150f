"""Joint matching gives each image what `AnchorTargets` gives it."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detfeed import AnchorGrid, AnchorTargets, Sample
from detfeed.targets import joint_matching
from detfeed.targets.joint_matching import highest_ious, match_jointly
from detfeed.targets.matches import NEGATIVE

CANVAS = (96, 128)
GRIDS = {
    "fpn": AnchorGrid.fpn(sizes=(8, 16, 32), strides=(4, 8, 16)),
    "c4": AnchorGrid.c4(sizes=(8, 24, 60)),
    "centred": AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0), (40.0, 9.5)),), offset=0.5),
}


def sample(boxes, image_hw):
    return Sample(
        image=np.zeros((*image_hw, 3), np.uint8),
        boxes=boxes,
        class_ids=np.zeros(len(boxes), np.int32),
        ignore=np.zeros(len(boxes), bool),
        image_id=0,
        position=0,
        input_hw=CANVAS,
        rng=np.random.default_rng(0),
    )


def draw(seed, counts):
    """Images of drawn sizes with boxes of all sizes; some lie on each other, some on the grid."""
    rng = np.random.default_rng(seed)
    images, boxes = [], []
    for count in counts:
        height, width = int(rng.integers(20, 97)), int(rng.integers(20, 129))
        sides = np.exp(rng.uniform(np.log(0.5), np.log([width, height]), (count, 2)))
        start = rng.uniform(size=(count, 2)) * ([width, height] - sides)
        own = np.concatenate([start, start + sides], axis=1).astype(np.float32)
        own[::3] = np.rint(own[::3] / 4) * 4
        if count > 1:
            own[-1] = own[0]
        own = np.clip(own, 0, np.float32([width, height] * 2))
        boxes.append(own[((own[:, 2:] - own[:, :2]) > 0).all(axis=1)])
        images.append((height, width))
    return images, boxes


@settings(max_examples=60)
@example(seed=0, counts=[0], grid="fpn", low_quality=True, straddle=None, pairs=1)
@example(seed=0, counts=[5, 0, 7], grid="c4", low_quality=False, straddle=0.0, pairs=30)
@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    grid=st.sampled_from(sorted(GRIDS)),
    low_quality=st.booleans(),
    straddle=st.sampled_from([None, 0.0, 5.0]),
    pairs=st.sampled_from([1, 30, 20_000]),
)
def test_each_image_is_matched_as_alone(seed, counts, grid, low_quality, straddle, pairs):
    targets = AnchorTargets(GRIDS[grid], positive_iou=0.6, low_quality=low_quality, straddle=straddle)
    images, boxes = draw(seed, counts)
    image = np.arange(len(images)).repeat([len(own) for own in boxes])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joint_matching, "_MOST_PAIRS", pairs)  # so that few boxes make several chunks
        joint = match_jointly(
            targets, np.concatenate(boxes), image, input_hw=CANVAS, image_hw=np.array(images, np.int64)
        )
        ious = highest_ious(targets, np.concatenate(boxes), image, input_hw=CANVAS, image_hw=np.array(images, np.int64))
    np.testing.assert_array_equal(joint.highest, ious.max(axis=1))
    np.testing.assert_array_equal(joint.shape, ious.argmax(axis=1))
    first = 0
    for number, (image_hw, own) in enumerate(zip(images, boxes, strict=True)):
        alone = targets.match(sample(own, image_hw))
        mine = joint.image == number
        np.testing.assert_array_equal(joint.anchor[mine], alone.positive)
        np.testing.assert_array_equal(joint.match[mine] - first, alone.match)
        np.testing.assert_array_equal(joint.iou[mine], alone.iou)
        assert joint.num_negative[number] == np.count_nonzero(alone.states == NEGATIVE)
        first += len(own)


def test_highest_iou_is_that_of_the_best_anchor_inside_the_image():
    # Cells of 16 pixels with centres 0, 16, ...; the anchor of 32 x 32 around 32 is the box itself.
    targets = AnchorTargets(AnchorGrid.c4(sizes=(32, 64), ratios=(1.0,)))
    boxes = np.array([[16, 16, 48, 48], [16, 16, 48, 48]], np.float32)
    ious = highest_ious(
        targets, boxes, np.array([0, 1]), input_hw=CANVAS, image_hw=np.array([[96, 128], [96, 32]], np.int64)
    )
    # In the image of width 32 the anchors centred at x = 32 are outside; the next ones share half the box.
    np.testing.assert_allclose(ious, [[1, 0.25], [1 / 3, 0.25]], rtol=1e-6)
