"""Faster R-CNN, on whichever backend KERAS_BACKEND names; the last test runs parts of this folder on the others."""

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

from detfeed import AnchorGrid, RoiTargets
from detfeed.models import RPN, DetectionModel, FasterRCNN, ProposalModel, roi_align, roi_loss
from small_resnet50 import small_resnet50

backend = keras.backend.backend()
# Compiling a step takes longer than running it; JAX has to compile either way.
without_compiling = {"run_eagerly": backend != "jax"}
input_hw = (64, 96)
NUM_CLASSES = 3
LOSSES = ("rpn_objectness_loss", "rpn_box_loss", "roi_class_loss", "roi_box_loss")


def to_numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


@pytest.fixture(scope="module", autouse=True)
def small_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "ResNet50", small_resnet50)
        yield


def build(grid=None, *, num_samples=16, **arguments):
    limits = {"train_pre_nms": 50, "train_post_nms": 60, "pre_nms": 40, "post_nms": 30}
    rules = RoiTargets(crowd="box", num_samples=num_samples)
    rpn = RPN(AnchorGrid.fpn() if grid is None else grid, frozen_stages=4)
    return FasterRCNN(rpn, NUM_CLASSES, roi_targets=rules, **limits, **arguments)


@pytest.fixture(scope="module")
def model():
    """A model on a feature pyramid that no test trains or compiles."""
    model = build(seed=0)
    # Batch norm at its initial statistics lets features grow from block to block: keep softmax and sigmoid off 0 and 1.
    for part, names in ((model.rpn.head, ("objectness", "deltas")), (model.head, ("class_logits", "box_deltas"))):
        for name in names:
            part.get_layer(name).kernel.assign(0.01 * part.get_layer(name).kernel)
    return model


def make_inputs(rng, hw=input_hw):
    image = rng.integers(0, 256, (2, *hw, 3), dtype=np.uint8)
    return {"image": image, "image_hw": np.array([hw, (hw[0] - 10, hw[1] - 20)], np.int32)}


def make_truth():
    """One ignored box, and unused places."""
    boxes = np.zeros((2, 4, 4), np.float32)
    boxes[0, :3] = [(4, 4, 40, 40), (50, 10, 90, 60), (0, 0, 20, 20)]
    boxes[1, :1] = [(10, 10, 60, 50)]
    class_ids, ignore = np.array([[0, 2, 1, -1], [1, -1, -1, -1]], np.int32), np.zeros((2, 4), bool)
    ignore[0, 2] = True
    return {"boxes": boxes, "class_ids": class_ids, "ignore": ignore}


def make_anchor_targets(rng, state=(1, 0)):
    return {
        "anchor_index": rng.integers(0, 1000, (2, 16)).astype(np.int32),
        "anchor_state": np.tile(np.array(state, np.int8), (2, 8)),
        "anchor_deltas": rng.normal(size=(2, 16, 4)).astype(np.float32),
    }


# The loss of the RoI head

cases = ("mixed", "many_classes", "one_class", "no_foreground", "all_foreground", "one_roi_background")
cases += ("one_roi_foreground", "large_logits", "unused")


@pytest.mark.parametrize("case", cases)
def test_roi_loss_and_its_gradients_agree_with_torchvision(golden, with_gradients, case):
    data = golden("roi_loss_torchvision")
    names = ["class_logits", "box_regression", "labels", "regression_targets"]
    names += ["classification_loss", "box_loss", "grad_class_logits", "grad_box_regression"]
    logits, regression, labels, wanted, *expected = (data[f"{case}_{name}"] for name in names)
    labels, wanted = ops.convert_to_tensor(labels.astype(np.int32)), ops.convert_to_tensor(wanted)
    beta = float(data["smooth_l1_beta"])

    def losses(logits, regression):
        return ops.stack(roi_loss(logits, regression[:, :, 1:], labels, wanted, beta=beta))

    arguments = ops.convert_to_tensor(logits), ops.convert_to_tensor(regression)
    (class_loss, box_loss), gradients = to_numpy(with_gradients(losses)(*arguments))
    np.testing.assert_allclose((class_loss, box_loss), expected[:2], rtol=1e-5)
    for gradient, theirs in zip(gradients, expected[2:], strict=True):
        np.testing.assert_allclose(gradient, theirs, rtol=1e-5, atol=1e-7)


def test_roi_loss_reads_the_row_of_the_class_and_nothing_of_unused_places(rng):
    logits = rng.normal(size=(1, 4, 4)).astype(np.float32)
    deltas, wanted = (rng.normal(size=(1, 4, 3, 4)).astype(np.float32) for _ in range(2))
    class_ids = np.array([[2, 0, -1, 3]], np.int32)
    mine = np.zeros((1, 4, 4), np.float32)
    mine[0, 0], mine[0, 3] = wanted[0, 0, 1], wanted[0, 3, 2]
    by_class = to_numpy(roi_loss(logits, deltas, class_ids, wanted))
    logits[0, 2] = deltas[0, 2] = mine[0, 2] = np.nan
    np.testing.assert_allclose(to_numpy(roi_loss(logits, deltas, class_ids, mine)), by_class, rtol=1e-6)


def test_no_used_roi_gives_zero_loss():
    class_ids = np.full((1, 2), -1, np.int32)
    losses = roi_loss(np.ones((1, 2, 3)), np.ones((1, 2, 2, 4)), class_ids, np.full((1, 2, 4), np.nan, np.float32))
    assert to_numpy(losses) == (0, 0)


# The model


def test_wrong_numbers_of_classes_are_refused(model):
    with pytest.raises(ValueError, match="Received: num_classes=0"):
        FasterRCNN(model.rpn, 0)
    with pytest.raises(ValueError, match=r"its 3 classes.*Received: num_classes=4"):
        FasterRCNN(model.rpn, 3, roi_targets=RoiTargets(crowd="box", num_classes=4))


def test_outputs_are_those_of_the_parts(model, rng):
    inputs = make_inputs(rng)
    outputs = to_numpy(model(inputs))
    proposals = to_numpy(ProposalModel(model.rpn, pre_nms=40, post_nms=30)(inputs))
    np.testing.assert_allclose(outputs["rois"], proposals["boxes"], rtol=0, atol=1e-3)
    for name, output in to_numpy(model.rpn(inputs)).items():
        np.testing.assert_allclose(outputs[name], output, rtol=1e-4, atol=1e-4)
    levels = model.rpn.extract_features(inputs)[:4]
    pooled = roi_align(levels, outputs["rois"], strides=(4, 8, 16, 32))
    class_logits, box_deltas = to_numpy(model.head(ops.reshape(pooled, (60, 7, 7, 256))))
    scale = abs(class_logits).max()
    np.testing.assert_allclose(outputs["class_logits"].reshape(60, 4), class_logits, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(outputs["box_deltas"].reshape(60, 12), box_deltas, rtol=0, atol=1e-4 * scale)


def test_sampled_rois_given_as_from_files_have_the_same_outputs(model, rng):
    inputs = make_inputs(rng)
    joint = to_numpy(model({**inputs, **make_truth()}, training=True))
    assert joint["rois"].shape == (2, 16, 4) and joint["class_logits"].shape == (2, 16, NUM_CLASSES + 1)
    # Class ids 0 and 2, then 1; the box of class id 1 in the first image is ignored. True boxes are foreground.
    for ids, allowed in zip(joint["roi_class_ids"].tolist(), ({-1, 0, 1, 3}, {-1, 0, 2}), strict=True):
        assert set(ids) <= allowed and ids[0] > 0
    given = to_numpy(model({**inputs, "rois": joint["rois"]}, training=True))
    assert set(given) == {"objectness", "deltas", "rois", "class_logits", "box_deltas"}
    for name, output in given.items():
        np.testing.assert_allclose(output, joint[name], rtol=1e-4, atol=1e-4 * abs(output).max())


def test_fit_trains_jointly_on_boxes_in_x(rng):
    model = build()
    model.compile(optimizer=keras.optimizers.SGD(1e-7))
    before = {variable.path: to_numpy(variable) for variable in model.trainable_variables}
    x, y = {**make_inputs(rng), **make_truth()}, make_anchor_targets(rng)
    history = model.fit(x, y, batch_size=2, epochs=2, verbose=0).history
    assert set(history) == {"loss", *LOSSES}
    np.testing.assert_allclose(history["loss"], np.sum([history[name] for name in LOSSES], axis=0), rtol=1e-5)
    assert all(history[name][0] > 0 for name in LOSSES)
    changed = {v.path for v in model.trainable_variables if (to_numpy(v) != before[v.path]).any()}
    # All RoIs and sampled anchors are on P2; the other levels come into it from the top down.
    unused = tuple(f"output{level}/kernel" for level in (3, 4, 5))
    assert {path for path in before if path.endswith("kernel") and not path.endswith(unused)} <= changed
    report = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    np.testing.assert_allclose(report["loss"], sum(report[name] for name in LOSSES), rtol=1e-5)


def test_fit_trains_on_rois_from_files(rng):
    model = build()
    model.rpn.head.trainable = False
    model.compile(optimizer=keras.optimizers.SGD(1e-7), **without_compiling)
    with pytest.raises(ValueError, match=r'"boxes".*or "rois".*Received: y with \[\'anchor_index\'\], and no boxes'):
        model.compute_loss(y={"anchor_index": 0}, y_pred={"rois": 0})
    with pytest.raises(ValueError, match=r"targets of the RPN beside boxes in x. Received: y with \[\]"):
        model.compute_loss(y={}, y_pred={"roi_class_ids": 0})
    inputs = make_inputs(rng)
    sampled = to_numpy(model({**inputs, **make_truth()}))
    x, y = {**inputs, "rois": sampled["rois"]}, {name: sampled[name] for name in ("roi_class_ids", "roi_deltas")}
    outputs = model(x)
    expected = to_numpy(roi_loss(outputs["class_logits"], outputs["box_deltas"], *y.values()))
    report = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    np.testing.assert_allclose([report[name] for name in LOSSES], [0, 0, *expected], rtol=1e-3)
    history = model.fit(x, y, batch_size=2, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_loss_of_the_roi_head_does_not_reach_the_head_of_the_rpn(rng):
    model = build(AnchorGrid.c4(), num_samples=4)
    assert model.roi_size == 14
    model.compile(optimizer=keras.optimizers.SGD(1e-7), **without_compiling)
    heads = model.rpn.head, model.head
    kernels = [[v for v in head.trainable_variables if v.path.endswith("kernel")] for head in heads]
    before = to_numpy(kernels)
    x, y = {**make_inputs(rng), **make_truth()}, make_anchor_targets(rng, state=(-1, -1))
    history = model.fit(x, y, batch_size=2, verbose=0).history
    assert history["rpn_objectness_loss"] == [0] and history["roi_class_loss"][0] > 0
    after = to_numpy(kernels)
    for old, new in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(old, new)
    assert all((old != new).any() for old, new in zip(before[1], after[1], strict=True))


class TwoSizes(keras.utils.PyDataset):
    """Two batches of different sizes, with true boxes besides, as a sequence for training feeds them."""

    def __init__(self, rng):
        super().__init__()
        self.batches = [{**make_inputs(rng, hw=hw), **make_truth()} for hw in (input_hw, (45, 83))]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (self.batches[index],)


def test_predicted_detections_lie_in_their_images_and_do_not_look_at_the_truth(model, rng):
    detector = DetectionModel(model, score_threshold=0.0, max_detections=20)
    sequence = TwoSizes(rng)
    predicted = detector.predict(sequence, verbose=0)
    assert predicted["boxes"].shape == (4, 20, 4) and predicted["class_ids"].dtype == np.int32
    for i, inputs in enumerate(sequence.batches):
        alone = to_numpy(detector({name: inputs[name] for name in ("image", "image_hw")}))
        np.testing.assert_allclose(predicted["scores"][2 * i : 2 * i + 2], alone["scores"], rtol=0, atol=1e-3)
        edge = np.tile(inputs["image_hw"][:, None, ::-1], (1, 1, 2))
        assert (predicted["boxes"][2 * i : 2 * i + 2] <= edge).all()
    found = predicted["scores"] >= 0
    assert found.any() and set(predicted["class_ids"][found].tolist()) <= {0, 1, 2}
    assert (predicted["class_ids"][~found] == -1).all() and not predicted["boxes"][~found].any()


def test_boxes_keep_their_precision_under_mixed_precision(rng):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(num_samples=256)  # room for all positives: none is left to chance
        inputs, truth = make_inputs(rng), make_truth()
        truth["boxes"][1, 0] = (10.015625, 10, 60.015625, 50)  # more digits than bfloat16 has
        outputs = to_numpy(model({**inputs, **truth}))
        rois = to_numpy(model({**inputs, "rois": outputs["rois"]}))["rois"]
    finally:
        keras.config.set_dtype_policy(before)
    assert {output.dtype for output in outputs.values()} == {np.dtype("float32"), np.dtype("int32")}
    assert (outputs["rois"][1] == truth["boxes"][1, 0]).all(axis=1).any()
    np.testing.assert_array_equal(rois, outputs["rois"])


# Files


def test_saved_models_are_the_same_when_loaded(model, rng, tmp_path):
    """With the RPN and the Faster R-CNN inside them."""
    inputs = make_inputs(rng)
    wrapped = ProposalModel(model.rpn, pre_nms=20, post_nms=10), DetectionModel(model, score_threshold=0.0, pre_nms=50)
    for original in wrapped:
        original.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded) is type(original) and loaded.get_config() == original.get_config()
        for ours, theirs in zip(to_numpy(loaded(inputs)).values(), to_numpy(original(inputs)).values(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * max(abs(theirs).max(), 1))
    assert loaded.faster_rcnn.rpn.anchors == model.rpn.anchors


@pytest.mark.parametrize("kind", ["rpn", "faster_rcnn"])
def test_checkpoint_of_the_best_epoch_is_the_whole_model_of_that_epoch(rng, tmp_path, kind):
    model = build(seed=0)
    inputs = make_inputs(rng)
    x, y = {**inputs, **make_truth()}, make_anchor_targets(rng)
    if kind == "rpn":
        model, x = model.rpn, inputs
    model.compile(optimizer=keras.optimizers.SGD(1e-6), **without_compiling)
    figures, weights = [0.1, 0.3, 0.2], []
    file = str(tmp_path / "best.keras")

    def score(epoch, logs):
        logs["val_AP"] = figures[epoch]
        weights.append([to_numpy(weight) for weight in model.weights])

    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=score),
        keras.callbacks.ModelCheckpoint(file, monitor="val_AP", mode="max", save_best_only=True),
    ]
    model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=callbacks)
    best = keras.saving.load_model(file)
    assert type(best) is type(model) and best.get_config() == model.get_config()
    for saved, second in zip(best.weights, weights[1], strict=True):
        np.testing.assert_array_equal(to_numpy(saved), second)
    assert any((second != last).any() for second, last in zip(*weights[1:], strict=True))
    best.fit(x, y, batch_size=2, verbose=0)  # it was compiled, and goes on


def test_restored_weights_draw_the_rois_that_would_have_come(model, tmp_path):
    boxes = np.tile(np.arange(400, dtype=np.float32).reshape(1, 100, 4), (2, 1, 1))
    boxes[..., 2:] += 10
    nothing = np.zeros((2, 0, 4), np.float32), np.zeros((2, 0), np.int32), np.zeros((2, 0), bool)
    arguments = boxes, *nothing, np.full((2, 2), 500, np.int32)
    model.sampler(*arguments)
    model.save_weights(tmp_path / "model.weights.h5")
    expected = to_numpy(model.sampler(*arguments)["rois"])
    assert (to_numpy(model.sampler(*arguments)["rois"]) != expected).any()
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(to_numpy(model.sampler(*arguments)["rois"]), expected)


@pytest.mark.skipif(backend != "tensorflow", reason="a SavedModel is TensorFlow's")
def test_exported_detections_are_the_models_at_any_size(model, rng, tmp_path):
    import tensorflow as tf

    detector = DetectionModel(model, score_threshold=0.0)
    detector(make_inputs(rng))
    detector.export(tmp_path / "detector", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "detector"))
    for hw in ((61, 83), input_hw):
        inputs = make_inputs(rng, hw=hw)
        served, computed = (to_numpy(outputs) for outputs in (loaded.serve(inputs), detector(inputs)))
        for name, output in computed.items():
            np.testing.assert_allclose(served[name], output, rtol=0, atol=1e-2)


@pytest.mark.skipif(backend != "tensorflow", reason="images of any size have scalars in TensorFlow's graphs alone")
@pytest.mark.parametrize("kind", ["proposals", "detections"])
def test_onnx_finds_what_the_model_finds_at_any_size(model, rng, tmp_path, kind):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    if kind == "proposals":
        finder = ProposalModel(model.rpn, pre_nms=60, post_nms=20)
    else:
        finder = DetectionModel(model, score_threshold=0.0, max_detections=20)
    finder(make_inputs(rng))
    finder.export(tmp_path / "finder.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "finder.onnx")
    names = [output.name for output in session.get_outputs()]
    for hw in ((61, 83), (150, 201), input_hw):
        inputs = make_inputs(rng, hw=hw)
        computed = to_numpy(finder(inputs))
        assert set(names) == set(computed)
        for name, served in zip(names, session.run(None, inputs), strict=True):
            np.testing.assert_allclose(served, computed[name], rtol=0, atol=1e-2)


@pytest.mark.parametrize("other", ["jax", "torch"])
def test_other_backends_agree(other):
    if other == backend or importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is this process's backend, or not installed")
    files = [f"tests/models/test_{name}.py" for name in ("roi_align", "roi_sampling", "detections", "faster_rcnn")]
    parts = "torchvision or roi_targets or fills_its_share or trains_jointly"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", parts],
        cwd=Path(__file__).resolve().parents[2],
        # Without optimising what it compiles, JAX takes 80 s instead of 133.
        env={**os.environ, "KERAS_BACKEND": other, "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stdout + run.stderr
