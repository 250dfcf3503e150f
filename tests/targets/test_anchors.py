import numpy as np
import pytest

from detfeed import AnchorGrid


def test_one_anchor_on_one_cell_is_drawn_on_paper():
    grid = AnchorGrid(strides=(8,), cell_sizes_wh=(((4.0, 2.0),),), offset=0.5)
    np.testing.assert_array_equal(grid.anchors((8, 8)), np.float32([[2, 3, 6, 5]]))


def test_order_is_level_row_column_and_then_cell():
    grid = AnchorGrid(strides=(4, 8), cell_sizes_wh=(((2.0, 2.0), (4.0, 4.0)), ((8.0, 8.0),)))
    anchors = grid.anchors((8, 12))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    cells = [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]
    np.testing.assert_array_equal(centres[:12:2], cells)
    np.testing.assert_array_equal(centres[1:12:2], cells)
    np.testing.assert_array_equal(centres[12:], [[0, 0], [8, 0]])
    np.testing.assert_array_equal(anchors[:2, 2] - anchors[:2, 0], [2, 4])


@pytest.mark.parametrize("input_hw", [(1, 1), (64, 64), (65, 63), (801, 1333)])
def test_feature_sizes_are_rounded_up_and_strides_stay(input_hw):
    grid = AnchorGrid.fpn()
    expected = [(int(np.ceil(input_hw[0] / s)), int(np.ceil(input_hw[1] / s))) for s in grid.strides]
    assert list(grid.feature_hw(input_hw)) == expected
    anchors = grid.anchors(input_hw)
    assert len(anchors) == grid.num_anchors(input_hw) == sum(3 * h * w for h, w in expected)
    # 800 pixels have 13 cells of stride 64, the last of which is centred at 768: image // feature would say 732.
    assert anchors[-1, 0] + anchors[-1, 2] == 2 * 64 * (expected[-1][1] - 1)


def test_fpn_and_c4_have_the_numbers_of_anchors_everyone_has():
    assert AnchorGrid.fpn().num_anchors((800, 1344)) == 268_569
    assert AnchorGrid.c4().num_anchors((800, 1344)) == 63_000


def test_ratios_are_height_by_width_and_keep_the_area():
    grid = AnchorGrid.fpn(rounding=False, sizes=(32, (64, 90), 128, 256, 512))
    width, height = (grid.cell_anchors(1)[:, 2:] - grid.cell_anchors(1)[:, :2]).T
    np.testing.assert_allclose(height / width, [0.5, 0.5, 1, 1, 2, 2], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(width * height), [64, 90] * 3, rtol=1e-6)
    assert grid.num_cell_anchors == (3, 6, 3, 3, 3)


def test_lists_and_arrays_are_as_good_as_tuples():
    lists = AnchorGrid(strides=[8], cell_sizes_wh=[[[4, 2]]])
    assert lists == AnchorGrid(strides=(8,), cell_sizes_wh=(((4.0, 2.0),),))
    assert len(lists.anchors((8, 8))) == 1
    sizes = np.float32([32, 64, 128, 256, 512])
    assert AnchorGrid.fpn(sizes=sizes, strides=np.array([4, 8, 16, 32, 64])) == AnchorGrid.fpn()
    assert AnchorGrid.c4(sizes=sizes) == AnchorGrid.c4()


def test_anchors_are_float32_cached_and_read_only():
    anchors = AnchorGrid.c4().anchors((64, 64))
    assert anchors.dtype == np.float32
    assert AnchorGrid.c4().anchors((64, 64)) is anchors
    with pytest.raises(ValueError, match="read-only"):
        anchors[0] = 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strides": (), "cell_sizes_wh": ()}, "0 strides"),
        ({"strides": (4, 8), "cell_sizes_wh": (((1, 1),),)}, "2 strides and sizes for 1"),
        ({"strides": (0,), "cell_sizes_wh": (((1, 1),),)}, r"positive strides. Received: \(0,\)"),
        ({"strides": (4, 8), "cell_sizes_wh": (((1, 1),), ())}, "on level 1"),
        ({"strides": (4,), "cell_sizes_wh": (((1, -1),),)}, "on level 0"),
        ({"strides": (4,), "cell_sizes_wh": (((1, 2, 3),),)}, r"Received: \(1, 2, 3\)"),
        (
            {"strides": (4,), "cell_sizes_wh": (((0.9, 8),),), "rounding": True},
            "that rounding leaves above 0 on level 0",
        ),
    ],
)
def test_grid_with_numbers_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnchorGrid(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnchorGrid(strides=8, cell_sizes_wh=(((4, 2),),)), "Expected strides to be .* Received: 8"),
        (lambda: AnchorGrid(strides="8", cell_sizes_wh=(((4, 2),),)), "strides to be .* Received: '8'"),
        (lambda: AnchorGrid(strides=(8.5,), cell_sizes_wh=(((4, 2),),)), r"strides to be .* Received: \(8.5,\)"),
        (lambda: AnchorGrid(strides=(8,), cell_sizes_wh=32), "Expected cell_sizes_wh to be .* Received: 32"),
        (lambda: AnchorGrid(strides=(8,), cell_sizes_wh=((32, 64),)), r"cell_sizes_wh to be .* Received: \(32, 64\)"),
        (lambda: AnchorGrid(strides=(8,), cell_sizes_wh=((("4", 2),),)), r"cell_sizes_wh .* Received: \('4', 2\)"),
        (lambda: AnchorGrid.fpn(sizes=32), "Expected sizes to be .* Received: 32"),
        (lambda: AnchorGrid.fpn(sizes=((32, "64"),), strides=(4,)), r"sizes to be .* Received: \(32, '64'\)"),
        (lambda: AnchorGrid.fpn(ratios=1.0), "Expected ratios to be a tuple of numbers. Received: 1.0"),
        (lambda: AnchorGrid.c4(sizes=32), "Expected sizes to be .* Received: 32"),
        (lambda: AnchorGrid.c4(stride="16"), "Expected stride to be a whole number. Received: '16'"),
    ],
)
def test_grid_from_wrong_types_is_refused_at_once(make, message):
    with pytest.raises(TypeError, match=message):
        make()


PRESETS = {
    "anchors_torchvision": {"fpn": AnchorGrid.fpn(), "c4": AnchorGrid.c4()},
    "anchors_keras_retinanet": {"p3": AnchorGrid.keras_retinanet()},
    "anchors_detectron2": {
        f"{kind}_offset{offset}": make(offset=offset)
        for kind, make in (("fpn", AnchorGrid.detectron2_fpn), ("c4", AnchorGrid.detectron2_c4))
        for offset in (0.0, 0.5)
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_originals_bit_for_bit(golden, name):
    file = golden(name)
    for key in file.files:
        grid = next(grid for start, grid in PRESETS[name].items() if key.startswith(start))
        input_hw = tuple(int(side) for side in key.split("_")[-1].split("x"))
        np.testing.assert_array_equal(grid.anchors(input_hw), file[key].astype(np.float32), err_msg=key)
