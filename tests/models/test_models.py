"""Held to torchvision's outputs; run on whichever backend KERAS_BACKEND names, and in part on the others."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import ops

from detfeed.models import (
    RPN,
    CaffeNormalize,
    ProposalModel,
    UpsampleLike,
    decode_boxes,
    dense_rpn_loss,
    fpn,
    nms,
    place_anchors,
    resnet50,
    sampled_rpn_loss,
    select_proposals,
)
from detfeed.targets.anchors import AnchorGrid
from small_resnet50 import small_resnet50

backend = keras.backend.backend()
input_hw = (64, 96)


def to_numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


@pytest.fixture(scope="module")
def grid():
    return AnchorGrid.fpn()


@contextlib.contextmanager
def quick_backbone(wanted=True):
    """RPN gets a backbone that is compiled soon. ResNet50 is trained by test_fit_on_dense_targets, on TensorFlow."""
    with pytest.MonkeyPatch.context() as patch:
        if wanted:
            patch.setattr(keras.applications, "ResNet50", small_resnet50)
        yield


@pytest.fixture(scope="module")
def rpn(grid):
    """An FPN RPN that no test trains."""
    with quick_backbone(backend != "tensorflow"):
        return RPN(grid)


@pytest.fixture
def policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_inputs(rng, batch=2, hw=input_hw):
    image = rng.integers(0, 256, (batch, *hw, 3), dtype=np.uint8)
    image_hw = np.array([hw, (hw[0] - 10, hw[1] - 20)] * batch, np.int32)[:batch]
    return {"image": image, "image_hw": image_hw}


def make_sampled_targets(rng, num_anchors, batch=2, size=16):
    return {
        "anchor_index": rng.permuted(np.tile(np.arange(num_anchors, dtype=np.int32), (batch, 1)), axis=1)[:, :size],
        "anchor_state": rng.integers(-1, 2, (batch, size)).astype(np.int8),
        "anchor_deltas": rng.normal(size=(batch, size, 4)).astype(np.float32),
    }


def make_dense_targets(sampled, num_anchors):
    """The same targets as arrays over all anchors: (y, sample_weight)."""
    batch = len(sampled["anchor_index"])
    y = {"objectness": np.zeros((batch, num_anchors, 1)), "deltas": np.zeros((batch, num_anchors, 4))}
    weight = {"objectness": np.zeros((batch, num_anchors)), "deltas": np.zeros((batch, num_anchors))}
    for i in range(batch):
        for index, state, deltas in zip(*(sampled[name][i] for name in sampled), strict=True):
            if state >= 0:
                y["objectness"][i, index] = weight["deltas"][i, index] = state
                y["deltas"][i, index] = deltas if state else 0
                weight["objectness"][i, index] = 1
    return keras.tree.map_structure(np.float32, y), keras.tree.map_structure(np.float32, weight)


# Normalisation


def test_image_without_pixels_normalises_to_zero():
    image = np.full((1, 2, 3, 3), 255, np.uint8)
    assert not to_numpy(CaffeNormalize()(image, np.zeros((1, 2), np.int32))).any()


def test_padding_is_zero_after_normalisation():
    image = np.full((2, 3, 4, 3), 200, np.uint8)
    normalised = to_numpy(CaffeNormalize()(image, np.array([[2, 3], [3, 4]], np.int32)))
    assert (normalised[0, 2:] == 0).all() and (normalised[0, :, 3:] == 0).all()
    assert (normalised[0, :2, :3] != 0).all() and (normalised[1] != 0).all()


def test_normalisation_swaps_rgb_and_takes_off_the_mean(rng):
    inputs = make_inputs(rng, batch=1, hw=(4, 5))
    expected = keras.applications.resnet50.preprocess_input(inputs["image"].astype(np.float32))
    normalised = to_numpy(CaffeNormalize()(inputs["image"], np.array([[4, 5]], np.int32)))
    np.testing.assert_allclose(normalised, expected, rtol=0, atol=1e-5)


def test_normalisation_rounds_to_half_precision_last(rng):
    image, image_hw = rng.integers(0, 256, (1, 4, 5, 3), dtype=np.uint8), np.array([[4, 5]], np.int32)
    half = to_numpy(CaffeNormalize(dtype="mixed_float16")(image, image_hw))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, to_numpy(CaffeNormalize()(image, image_hw)).astype(np.float16))


# Backbone


def test_missing_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.h5.*found no file"):
        resnet50(weights=tmp_path / "absent.h5")


def test_failed_download_names_the_alternatives(monkeypatch, tmp_path):
    def fail(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "ResNet50", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        resnet50(weights="imagenet")
    for part in ("URL fetch failure", "weights=None", "notop.h5", str(tmp_path / "models")):
        assert part in str(caught.value)


@pytest.mark.parametrize("wrong", [{"last_stage": 1}, {"last_stage": 6}, {"frozen_stages": 6}, {"frozen_stages": -1}])
def test_stage_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}.*Received: {next(iter(wrong.values()))}"):
        resnet50(**wrong)


def test_channels_first_is_refused():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            resnet50()
    finally:
        keras.config.set_image_data_format(before)


def test_frozen_stages_freeze_a_prefix_and_momentum_is_set():
    backbone = resnet50(frozen_stages=3, batch_norm_momentum=0.8, last_stage=4)
    trained = {variable.path.split("/")[-2].split("_")[0] for variable in backbone.trainable_variables}
    assert trained == {"conv4"}
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.8}
    assert [stage.shape[-1] for stage in backbone.outputs] == [256, 512, 1024]


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_a_stride_in_the_3x3_convolution_sees_each_cell_and_one_in_the_1x1_a_fourth(with_gradients, rng, stride_in_1x1):
    backbone = resnet50(stride_in_1x1=stride_in_1x1)

    def part(name):
        return keras.Model(
            backbone.get_layer("conv2_block3_out").output, backbone.get_layer(f"conv3_block1_{name}").output
        )

    cells = ops.convert_to_tensor(rng.normal(size=(1, 8, 12, 256)).astype(np.float32))
    _, (gradients,) = with_gradients(part("2_conv"))(cells)
    seen = (to_numpy(gradients)[0] != 0).any(axis=-1)
    even = np.add.outer(np.arange(8) % 2, np.arange(12) % 2) == 0
    np.testing.assert_array_equal(seen, even if stride_in_1x1 else np.ones((8, 12), bool))
    # The shortcut reads cell 2 i; the middle of a 3x3 filter must lie there too.
    middle = np.zeros((3, 3, 128, 128), np.float32)
    middle[1, 1] = np.eye(128)
    backbone.get_layer("conv3_block1_2_conv").kernel.assign(middle)
    step = 1 if stride_in_1x1 else 2
    before, after = (to_numpy(part(name)(cells)) for name in ("1_relu", "2_conv"))
    np.testing.assert_allclose(after, before[:, ::step, ::step], atol=1e-5)


def test_blocks_begin_as_their_shortcuts_without_weights_and_learn_to_differ(rng):
    backbone = resnet50(last_stage=2)
    first, last = (backbone.get_layer(f"conv2_block{block}_out").output for block in (1, 3))
    blocks = keras.Model(backbone.input, [first, last])
    image = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    before, after = to_numpy(blocks(image))
    np.testing.assert_array_equal(before, after)
    assert before.std() > 0
    for layer in backbone.layers:
        if layer.name.endswith("_3_bn"):
            assert layer.gamma.trainable
            layer.gamma.assign(np.full(layer.gamma.shape, 0.1, np.float32))
    before, after = to_numpy(blocks(image))
    assert (before != after).mean() > 0.3


def test_the_stride_is_where_the_weights_were_trained_with_it(grid, tmp_path):
    def strides(model):
        return {name: model.backbone.get_layer(f"conv4_block1_{name}_conv").strides for name in "12"}

    keras.applications.ResNet50(include_top=False, weights=None).save_weights(tmp_path / "notop.weights.h5")
    in_1x1, in_3x3 = {"1": (2, 2), "2": (1, 1)}, {"1": (1, 1), "2": (2, 2)}
    assert strides(RPN(grid)) == in_3x3
    pretrained = RPN(grid, weights=tmp_path / "notop.weights.h5")
    assert strides(pretrained) == in_1x1
    # A loaded model is made without the weights that it began with.
    assert strides(RPN.from_config(pretrained.get_config())) == in_1x1
    assert strides(RPN.from_config(RPN(grid).get_config())) == in_3x3
    older = pretrained.get_config()
    del older["stride_in_1x1"]
    assert strides(RPN.from_config(older)) == in_1x1
    moved = RPN(grid, weights=tmp_path / "notop.weights.h5", stride_in_1x1=False)
    assert strides(moved) == in_3x3
    for ours, theirs in zip(moved.backbone.weights, pretrained.backbone.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


def test_weights_are_refused_by_a_model_with_the_stride_elsewhere(grid, tmp_path, monkeypatch):
    file = tmp_path / "rpn.weights.h5"
    with quick_backbone():
        in_1x1, in_3x3 = (RPN(grid, stride_in_1x1=stride_in_1x1) for stride_in_1x1 in (True, False))
    for saved, other in ((in_1x1, in_3x3), (in_3x3, in_1x1)):
        saved.save_weights(file)
        saved.load_weights(file)
        message = f"stride_in_1x1={other.stride_in_1x1}. Received: .*stride_in_1x1={saved.stride_in_1x1}; make"
        with pytest.raises(ValueError, match=message):
            other.load_weights(file)
    monkeypatch.setattr(RPN, "save_own_variables", lambda self, store: None)  # as before it was saved
    in_1x1.save_weights(file)
    in_1x1.load_weights(file)
    with pytest.raises(ValueError, match="make the model with that"):
        in_3x3.load_weights(file)


def test_frozen_batch_norm_and_weights_from_a_file(tmp_path):
    source = keras.applications.ResNet50(include_top=False, weights=None)
    source.save_weights(tmp_path / "notop.weights.h5")
    backbone = resnet50(weights=tmp_path / "notop.weights.h5", frozen_batch_norm=True)
    for layer in filter(lambda layer: layer.weights, backbone.layers):
        assert layer.trainable != isinstance(layer, keras.layers.BatchNormalization)
        for ours, theirs in zip(layer.weights, source.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


# Pyramid


def test_upsampling_repeats_cells_and_crops_to_the_finer_map():
    coarse = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    upsampled = to_numpy(UpsampleLike()(coarse, np.zeros((1, 3, 4, 7), np.float32)))
    np.testing.assert_array_equal(upsampled[0, :, :, 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])


@pytest.mark.parametrize("hw", [(64, 96), (33, 70), (1, 1)])
def test_pyramid_levels_have_the_size_of_the_grid(grid, rng, hw):
    sizes = grid.feature_hw(hw)
    stages = [rng.normal(size=(1, *size, 2 + i)).astype(np.float32) for i, size in enumerate(sizes[:4])]
    levels = to_numpy(fpn([2, 3, 4, 5], channels=6)(stages))
    assert [level.shape for level in levels] == [(1, *size, 6) for size in sizes]
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])


# Losses


@pytest.mark.parametrize("size", [0, 3])
def test_nothing_sampled_gives_zero_loss(size):
    objectness, deltas = np.ones((2, 5, 1), np.float32), np.ones((2, 5, 4), np.float32)
    index, state = np.full((2, size), -1, np.int32), np.full((2, size), -1, np.int8)
    losses = sampled_rpn_loss(objectness, deltas, index, state, np.full((2, size, 4), np.nan, np.float32))
    assert to_numpy(losses) == (0, 0)


def test_weights_of_zero_give_zero_loss():
    objectness, deltas = np.ones((2, 5, 1), np.float32), np.ones((2, 5, 4), np.float32)
    weight = np.zeros((2, 5), np.float32)
    assert to_numpy(dense_rpn_loss(objectness, deltas, 0 * objectness, 0 * deltas, weight, weight)) == (0, 0)


def test_losses_of_a_case_small_enough_for_paper():
    objectness = np.array([[[0.0], [0.0], [50.0], [-50.0]]], np.float32)
    deltas = np.zeros((1, 4, 4), np.float32)
    index, state = np.array([[3, 0, 2, 1]], np.int32), np.array([[0, 1, 1, -1]], np.int8)
    wanted = np.zeros((1, 4, 4), np.float32)
    wanted[0, 1, 0] = 2.0  # a line: 2 - 0.5 / 2
    wanted[0, 2, 1] = 0.5  # a parabola: 0.5 * 0.25 / 1
    wanted[0, 0] = wanted[0, 3] = 100.0  # not positive, not read
    entropy, distance = to_numpy(sampled_rpn_loss(objectness, deltas, index, state, wanted, beta=1.0))
    np.testing.assert_allclose(entropy, np.log(2) / 3, rtol=1e-6)
    np.testing.assert_allclose(distance, (1.5 + 0.125) / 3, rtol=1e-6)


def test_dense_targets_have_the_loss_of_sampled_ones(rng):
    sampled = make_sampled_targets(rng, 50)
    y, weight = make_dense_targets(sampled, 50)
    objectness = rng.normal(size=(2, 50, 1)).astype(np.float32)
    deltas = rng.normal(size=(2, 50, 4)).astype(np.float32)
    dense = dense_rpn_loss(objectness, deltas, *y.values(), *weight.values())
    np.testing.assert_allclose(to_numpy(dense), to_numpy(sampled_rpn_loss(objectness, deltas, *sampled.values())), 1e-5)


def test_sampled_loss_agrees_with_torchvision(golden, grid):
    data = golden("rpn_loss_torchvision")
    anchors = grid.anchors(tuple(data["input_hw"]))
    targets = np.stack([slow_deltas(anchors, data[f"boxes_{i}"]) for i in range(2)])
    index = data["sampled_index"]
    state = np.take_along_axis(data["labels"], index, axis=1)
    wanted = np.take_along_axis(targets, index[..., None], axis=1)
    losses = sampled_rpn_loss(
        data["objectness"][..., None], data["deltas"], index, state, wanted, beta=float(data["smooth_l1_beta"])
    )
    np.testing.assert_allclose(to_numpy(losses), (data["objectness_loss"], data["box_loss"]), rtol=1e-5)


def slow_iou(a, b):
    wh = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    intersection = np.clip(wh, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (a, b)]
    return intersection / (areas[0][:, None] + areas[1] - intersection)


def slow_deltas(anchors, boxes):
    boxes = boxes[slow_iou(anchors, boxes).argmax(axis=1)]
    size, box_size = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    return np.concatenate([shift / size, np.log(box_size / size)], axis=1).astype(np.float32)


# Proposals


def test_nms_of_no_boxes_keeps_none():
    assert to_numpy(nms(np.zeros((2, 0, 4), np.float32), np.zeros((2, 0), np.float32), iou=0.5)).shape == (2, 0)


def test_nms_keeps_a_box_whose_suppressor_is_suppressed():
    boxes = np.array([[8, 0, 18, 10], [0, 0, 10, 10], [4, 0, 14, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.7, 0.9, 0.8, -np.inf], np.float32)
    assert to_numpy(nms(boxes, scores, iou=0.4)).tolist() == [True, True, False, False]


def test_nms_of_equal_scores_keeps_the_first_and_of_empty_boxes_keeps_all():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert to_numpy(nms(boxes, np.ones(4, np.float32), iou=0.5)).tolist() == [True, False, True, True]


def test_nms_agrees_with_a_slow_loop(rng):
    corners = rng.uniform(0, 60, (3, 2, 100, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 50, corners.shape)], axis=-1).astype(np.float32)
    scores = rng.integers(0, 30, (3, 2, 100)).astype(np.float32)
    expected = np.zeros(scores.shape, bool)
    for place in np.ndindex(3, 2):
        iou = slow_iou(boxes[place], boxes[place])
        for i in np.argsort(-scores[place], kind="stable"):
            expected[place][i] = not (iou[i] > 0.3)[expected[place]].any()
    np.testing.assert_array_equal(to_numpy(nms(boxes, scores, iou=0.3)), expected)


@pytest.mark.parametrize(("name", "weights"), [("decoded_rpn", (1, 1, 1, 1)), ("decoded_roi", (10, 10, 5, 5))])
def test_decoded_boxes_agree_with_torchvision(golden, name, weights):
    data = golden("coding_torchvision")
    decoded = to_numpy(decode_boxes(data["reference"], data["deltas_in"], weights))
    np.testing.assert_allclose(decoded, data[name], rtol=1e-5, atol=1e-3)


def test_image_without_proposals_is_filled_up():
    anchors = np.array([[0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]], np.float32)
    objectness, deltas = np.ones((2, 3, 1), np.float32), np.zeros((2, 3, 4), np.float32)
    image_hw = np.array([[0, 0], [16, 6]], np.int32)
    boxes, scores = to_numpy(
        select_proposals(anchors, objectness, deltas, image_hw, [2, 1], pre_nms=5, post_nms=12, min_size=1)
    )
    assert boxes.shape == (2, 12, 4) and scores.shape == (2, 12)
    assert (boxes[0] == 0).all() and (scores[0] == -1).all()
    assert sorted(boxes[1, :2].tolist()) == [[0, 0, 6, 8], [0, 0, 6, 16]]
    assert (boxes[1, 2:] == 0).all() and (scores[1, 2:] == -1).all()


def test_proposals_agree_with_torchvision(golden, grid):
    data = golden("proposals_torchvision")
    boxes, scores = to_numpy(
        select_proposals(
            grid.anchors(tuple(data["input_hw"])),
            data["objectness"][..., None],
            data["deltas"],
            data["image_hw"].astype(np.int32),
            data["num_anchors_per_level"].tolist(),
        )
    )
    for i in range(2):
        np.testing.assert_allclose(scores[i], data[f"scores_{i}"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(boxes[i], data[f"boxes_{i}"], rtol=1e-5, atol=1e-3)


grids = {
    "fpn": AnchorGrid.fpn(),
    "c4": AnchorGrid.c4(),
    "half": AnchorGrid.detectron2_fpn(offset=0.5),
    "retinanet": AnchorGrid.keras_retinanet(),
}


@pytest.mark.parametrize("name", grids)
@pytest.mark.parametrize("hw", [(1, 1), (64, 96), (199, 333)])
def test_anchors_of_a_size_known_late_are_those_of_the_grid(name, hw):
    grid = grids[name]
    anchors, counts = place_anchors(grid, *hw)
    np.testing.assert_array_equal(to_numpy(anchors), grid.anchors(hw))
    assert tuple(counts) == grid.num_anchors_per_level(hw)
    if backend == "tensorflow":
        late, counts = place_anchors(grid, *ops.convert_to_tensor(hw, dtype="int32"))
        np.testing.assert_array_equal(to_numpy(late), grid.anchors(hw))
        assert tuple(map(int, counts)) == grid.num_anchors_per_level(hw)


# The models


def test_strides_without_a_backbone_are_refused():
    with pytest.raises(ValueError, match=r"Received: \(32,\)"):
        RPN(AnchorGrid.c4(stride=32))


def test_levels_with_different_numbers_of_anchors_are_refused():
    with pytest.raises(ValueError, match=r"Received: \(6, 3, 3, 3, 3\)"):
        RPN(AnchorGrid.fpn(sizes=((16, 32), 64, 128, 256, 512)))


def test_outputs_follow_the_order_of_the_grid(rpn, grid, rng):
    hw = (40, 72)
    inputs = make_inputs(rng, batch=1, hw=hw)
    outputs = to_numpy(rpn(inputs))
    assert outputs["objectness"].shape == (1, grid.num_anchors(hw), 1)
    assert outputs["deltas"].shape == (1, grid.num_anchors(hw), 4)
    stages = rpn.backbone(rpn.normalize(inputs["image"], inputs["image_hw"]))
    level, y, x, k = 2, 1, 3, 1
    rows, columns = grid.feature_hw(hw)[level]
    objectness, deltas = to_numpy(rpn.head(rpn.pyramid(stages)[level]))
    assert objectness.shape == (1, rows, columns, 3)
    place = sum(grid.num_anchors_per_level(hw)[:level]) + (y * columns + x) * 3 + k
    np.testing.assert_allclose(outputs["objectness"][0, place, 0], objectness[0, y, x, k], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs["deltas"][0, place], deltas[0, y, x, 4 * k : 4 * k + 4], rtol=1e-4, atol=1e-6)


def test_padding_does_not_change_the_outputs(rpn, rng):
    inputs = make_inputs(rng)
    before = to_numpy(rpn(inputs))
    inputs["image"][1, 54:] = 255
    inputs["image"][1, :, 76:] = 128
    for name, after in to_numpy(rpn(inputs)).items():
        np.testing.assert_array_equal(after, before[name])


def test_regularisation_is_part_of_the_loss(rng):
    model = RPN(AnchorGrid.c4(), frozen_stages=4)
    model.compile(optimizer="sgd")
    outputs = {"objectness": np.zeros((2, 9, 1), np.float32), "deltas": np.zeros((2, 9, 4), np.float32)}
    y = make_sampled_targets(rng, 9, size=5)
    plain = float(model.compute_loss(y=y, y_pred=outputs))
    kernel = model.head.get_layer("conv").kernel
    kernel.regularizer = keras.regularizers.L2(2.0)
    penalty = 2 * np.square(to_numpy(kernel)).sum()
    np.testing.assert_allclose(float(model.compute_loss(y=y, y_pred=outputs)), plain + penalty, rtol=1e-5)
    np.testing.assert_allclose(plain, to_numpy(sum(sampled_rpn_loss(*outputs.values(), *y.values()))), rtol=1e-5)


def test_fit_on_sampled_targets_learns_what_is_not_frozen(grid, rng):
    with quick_backbone():
        model = RPN(grid, frozen_stages=4)
    model.compile(optimizer=keras.optimizers.Adam(1e-5))
    before = {variable.path: to_numpy(variable) for variable in model.backbone.variables}
    x, y = make_inputs(rng), make_sampled_targets(rng, grid.num_anchors(input_hw))
    history = model.fit(x, y, batch_size=2, epochs=4, verbose=0).history
    assert set(history) == {"loss", "objectness_loss", "box_loss"}
    np.testing.assert_allclose(history["loss"], np.add(history["objectness_loss"], history["box_loss"]), rtol=1e-5)
    assert history["loss"][-1] < history["loss"][0]
    changed = {v.path.split("/")[-2][:5] for v in model.backbone.variables if (to_numpy(v) != before[v.path]).any()}
    assert changed == {"conv5"}
    report = model.evaluate(x, y, batch_size=1, verbose=0, return_dict=True)
    np.testing.assert_allclose(report["loss"], report["objectness_loss"] + report["box_loss"], rtol=1e-5)


def test_fit_on_dense_targets(rng):
    grid = AnchorGrid.c4()
    with quick_backbone(backend != "tensorflow"):
        model = RPN(grid, frozen_stages=4)
    model.compile(optimizer=keras.optimizers.Adam(1e-5))
    num_anchors = grid.num_anchors(input_hw)
    x, sampled = make_inputs(rng), make_sampled_targets(rng, num_anchors)
    y, weight = make_dense_targets(sampled, num_anchors)
    with pytest.raises(ValueError, match="sample_weight"):
        model.compute_loss(x, y, model(x))
    dense = model.evaluate(x, y, sample_weight=weight, batch_size=2, verbose=0, return_dict=True)
    np.testing.assert_allclose(dense["loss"], dense["objectness_loss"] + dense["box_loss"], rtol=1e-5)
    outputs = to_numpy(model(x))
    expected = to_numpy(sampled_rpn_loss(outputs["objectness"], outputs["deltas"], *sampled.values()))
    np.testing.assert_allclose((dense["objectness_loss"], dense["box_loss"]), expected, rtol=1e-4)
    history = model.fit(x, y, sample_weight=weight, batch_size=2, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_compiled_losses_take_the_place_of_the_models_own(rng):
    grid = AnchorGrid.c4()
    with quick_backbone():
        model = RPN(grid, frozen_stages=4)
    entropy = keras.losses.BinaryCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(optimizer="sgd", loss={"objectness": entropy, "deltas": keras.losses.Huber()})
    num_anchors = grid.num_anchors(input_hw)
    x, sampled = make_inputs(rng), make_sampled_targets(rng, num_anchors)
    y, weight = make_dense_targets(sampled, num_anchors)
    report = model.evaluate(x, y, sample_weight=weight, batch_size=2, verbose=0, return_dict=True)
    assert set(report) == {"loss", "objectness_loss", "deltas_loss"}
    outputs = model(x)
    expected, _ = to_numpy(sampled_rpn_loss(outputs["objectness"], outputs["deltas"], *sampled.values()))
    np.testing.assert_allclose(report["objectness_loss"], expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_outputs_and_losses_are_float32_under_mixed_precision(policy, rng, name):
    policy(name)
    grid = AnchorGrid.c4()
    model = RPN(grid)
    outputs = model(make_inputs(rng, batch=1))
    assert {keras.backend.standardize_dtype(output.dtype) for output in outputs.values()} == {"float32"}
    model.compile(optimizer="sgd")
    targets = make_sampled_targets(rng, grid.num_anchors(input_hw), batch=1)
    loss = model.compute_loss(y=targets, y_pred=outputs)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32" and np.isfinite(float(loss))
    proposals = ProposalModel(model, pre_nms=20, post_nms=10)(make_inputs(rng, batch=1))
    assert {keras.backend.standardize_dtype(output.dtype) for output in proposals.values()} == {"float32"}


class TwoSizes(keras.utils.PyDataset):
    """Two batches of different sizes, so that TensorFlow does not know the size when it builds the graph."""

    def __init__(self, rng):
        super().__init__()
        self.batches = [make_inputs(rng, hw=hw) for hw in (input_hw, (48, 80))]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (self.batches[index],)


def test_predicted_proposals_are_those_of_the_parts(rpn, grid, rng):
    sequence = TwoSizes(rng)
    predicted = ProposalModel(rpn, pre_nms=60, post_nms=200).predict(sequence, verbose=0)
    assert predicted["boxes"].shape == (4, 200, 4) and predicted["scores"].shape == (4, 200)
    for i, inputs in enumerate(sequence.batches):
        hw = inputs["image"].shape[1:3]
        outputs = rpn(inputs)
        _, scores = to_numpy(
            select_proposals(
                grid.anchors(hw),
                outputs["objectness"],
                outputs["deltas"],
                inputs["image_hw"],
                grid.num_anchors_per_level(hw),
                pre_nms=60,
                post_nms=200,
            )
        )
        np.testing.assert_allclose(predicted["scores"][2 * i : 2 * i + 2], scores, rtol=0, atol=1e-4)
        assert (predicted["boxes"][2 * i : 2 * i + 2].max(axis=(1, 2)) <= inputs["image_hw"].max(axis=1)).all()


def test_weights_are_restored_before_the_first_call(rpn, grid, tmp_path):
    rpn.save_weights(tmp_path / "rpn.weights.h5")
    other = RPN(grid)
    other.load_weights(tmp_path / "rpn.weights.h5")
    for ours, theirs in zip(rpn.weights, other.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


@pytest.mark.parametrize("other", ["jax", "torch"])
def test_other_backends_agree(other):
    if other == backend or importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is this process's backend, or not installed")
    parts = (
        "agree_with_torchvision or agrees_with_torchvision or fit_on_sampled or predicted_proposals or slow_loop or "
        "begin_as_their_shortcuts"  # the real ResNet50, from random weights
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", parts],
        cwd=Path(__file__).resolve().parents[2],
        # Without optimising what it compiles, JAX takes two thirds of the time.
        env={**os.environ, "KERAS_BACKEND": other, "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stdout + run.stderr
