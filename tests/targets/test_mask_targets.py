import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed import MaskTargets, RoiTargets, Sample
from detfeed.targets.mask_targets import cell_shares


def sample_of(boxes, masks, *, proposals=(), ignore=None, hw=(40, 60)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=np.zeros((*hw, 3), np.uint8),
        boxes=boxes,
        class_ids=np.zeros(len(boxes), np.int32),
        ignore=np.zeros(len(boxes), bool) if ignore is None else np.array(ignore),
        image_id=1,
        position=0,
        input_hw=hw,
        rng=np.random.default_rng(0),
        proposals=np.array(proposals, np.float32).reshape(-1, 4),
        masks=masks,
    )


def slow_shares(mask, roi, size):
    """Pixel by pixel: each gives a cell the share of it that lies in the cell."""
    x0, y0, x1, y1 = map(float, roi)
    shares = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            left, right = x0 + column * (x1 - x0) / size, x0 + (column + 1) * (x1 - x0) / size
            top, bottom = y0 + row * (y1 - y0) / size, y0 + (row + 1) * (y1 - y0) / size
            covered = 0.0
            for y in range(max(0, int(top)), min(mask.shape[0], int(bottom) + 1)):
                for x in range(max(0, int(left)), min(mask.shape[1], int(right) + 1)):
                    wide = max(0.0, min(right, x + 1) - max(left, x))
                    high = max(0.0, min(bottom, y + 1) - max(top, y))
                    covered += wide * high * mask[y, x] / 255
            shares[row, column] = covered / ((right - left) * (bottom - top))
    return shares


def test_image_without_objects_has_no_masks_to_learn():
    _, y = MaskTargets(RoiTargets(num_samples=4))(sample_of([], {}))
    assert y["roi_masks"].shape == (4, 28, 28) and y["roi_masks"].dtype == np.int8
    assert (y["roi_masks"] == -1).all() and (y["roi_class_ids"] <= 0).all()


def test_mask_on_paper():
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3, 2:] = 255
    _, y = MaskTargets(RoiTargets(num_samples=2, positive_fraction=0.5), size=4)(
        sample_of([(0, 0, 4, 4)], {0: mask}, hw=(4, 4))
    )
    assert y["roi_masks"][0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert (y["roi_masks"][1] == -1).all()


def test_each_foreground_roi_has_the_mask_of_its_own_object_and_one_without_mask_is_not_learned():
    masks = {row: np.zeros((40, 60), np.uint8) for row in (0, 2)}
    masks[0][:, :30] = 255
    boxes = [(5, 5, 25, 25), (30, 5, 50, 25), (5, 26, 25, 40)]
    x, y = MaskTargets(RoiTargets(num_samples=8, positive_fraction=1.0), size=2)(sample_of(boxes, masks))
    by_roi = {tuple(roi): cells for roi, cells in zip(x["rois"].tolist(), y["roi_masks"].tolist(), strict=True)}
    assert [by_roi[box] for box in boxes] == [[[1, 1]] * 2, [[-1, -1]] * 2, [[0, 0]] * 2]


@given(st.integers(0, 2**32), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_shares_of_cells_are_those_of_a_slow_reference(seed, size):
    rng = np.random.default_rng(seed)
    mask = (rng.integers(0, 2, (15, 20)) * 255).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.2] = 90
    x0, y0 = rng.uniform(-3, 15), rng.uniform(-3, 10)
    roi = np.float32([x0, y0, x0 + rng.uniform(0.5, 15), y0 + rng.uniform(0.5, 12)])
    np.testing.assert_allclose(cell_shares(mask, roi, size), slow_shares(mask, roi, size), atol=1e-5)


def test_targets_of_28_cells_are_right_to_a_pixel():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:40, :60]
    boxes = [(10.0, 5.0, 45.0, 35.0)]
    mask = (((x - 27) / 17) ** 2 + ((y - 20) / 14) ** 2 <= 1).astype(np.uint8) * 255
    proposals = np.array(boxes * 6) + rng.uniform(-3, 3, (6, 4))
    drawn, targets = MaskTargets(RoiTargets(num_samples=8, positive_fraction=1.0))(
        sample_of(boxes, {0: mask}, proposals=proposals)
    )
    assert (targets["roi_class_ids"] == 1).sum() == 7
    for roi, cells in zip(drawn["rois"][:7], targets["roi_masks"][:7], strict=True):
        slow = slow_shares(mask, roi, 28)
        sure = np.abs(slow - 0.5) > 1e-4
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(cells[sure], (slow >= 0.5)[sure])
        assert 0.3 < cells.mean() < 0.95


def test_size_below_one_and_of_other_type_is_an_error():
    with pytest.raises(ValueError, match=r"size to be at least 1. Received: 0"):
        MaskTargets(size=0)
    with pytest.raises(TypeError, match="size"):
        MaskTargets(size=2.5)
