"""Sequences in Keras. TensorFlow starts once, for this file; JAX and torch run in processes of their own."""

import copy
import gc
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import albumentations
import keras
import numpy as np
import pytest

from detfeed import (
    AnchorGrid,
    AnchorTargetSequence,
    DetectionSequence,
    Fixed,
    LimitEmpty,
    Proposals,
    Replace,
    RoiTargetSequence,
    SampleError,
    ShortSide,
    read_coco,
    read_proposals,
)
from detfeed.feeding import workers
from feeds import IDS, KINDS, LONG, children, wait_until

GRID = AnchorGrid(strides=(32,), cell_sizes_wh=(((32.0, 32.0), (64.0, 64.0)),), offset=0.5)


def one_channel_model(num_anchors_per_cell=2):
    """A model on anchors in the fewest layers: one convolution with stride 32."""
    image = keras.Input((None, None, 3), name="image", dtype="uint8")
    image_hw = keras.Input((2,), name="image_hw", dtype="int32")
    scaled = keras.layers.Rescaling(1 / 255)(image)
    features = keras.layers.Conv2D(5 * num_anchors_per_cell, 32, strides=32)(scaled)
    rows = keras.layers.Reshape((-1, 5))(features)
    outputs = {"objectness": rows[..., :1], "deltas": rows[..., 1:]}
    return keras.Model({"image": image, "image_hw": image_hw}, outputs)


def same(batch, other):
    return all(np.array_equal(a[name], b[name]) for a, b in zip(batch, other, strict=True) for name in {**a, **b})


def make(shapes, **arguments):
    arguments = {"batch_size": 4, "resize": ShortSide(96), "augment": albumentations.HorizontalFlip(p=0.5), **arguments}
    return AnchorTargetSequence(shapes, GRID, **arguments)


def test_length_is_the_number_of_batches_and_a_loop_ends_there(shapes):
    sequence = make(shapes)
    batches = list(sequence)
    assert len(batches) == len(sequence) == sequence.num_batches
    assert sum(len(x["image"]) for x, _ in batches) == len(shapes)
    assert sequence.epoch == 1
    sequence.epoch = 0
    assert same(sequence[-1], batches[-1])
    with pytest.raises(IndexError, match=f"from 0 to {len(sequence) - 1}. Received: {len(sequence)}"):
        sequence[len(sequence)]


def test_positions_say_which_images_a_batch_holds(shapes):
    sequence = DetectionSequence(
        shapes, targets=lambda s: {"position": np.array(s.position)}, batch_size=4, resize=ShortSide(96)
    )
    for index in range(len(sequence)):
        assert sequence[index][1]["position"].tolist() == sequence.positions(index).tolist()


def test_two_runs_with_one_seed_feed_identical_bits(shapes):
    one, two, other = make(shapes, seed=3), make(shapes, seed=3), make(shapes, seed=4)
    for epoch in range(2):
        one.epoch = two.epoch = other.epoch = epoch
        assert all(same(one[index], two[index]) for index in range(len(one)))
        assert not same(one[0], other[0])


class Recorder(keras.Model):
    """A model whose loss after a batch tells which images it was given."""

    def __init__(self):
        super().__init__()
        self.scale = keras.layers.Dense(1)

    def call(self, inputs):
        return self.scale(inputs["position"])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(x["position"]) + 0 * keras.ops.mean(y_pred)


def fed_by_fit(sequence, shuffle=False, **how):
    """Mean position of every batch that fit took, in order; batches must be of one size."""
    fed = []

    class Listen(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.total = 0.0

        def on_train_batch_end(self, batch, logs=None):
            # The loss is the mean over the batches of the epoch so far.
            total = float(logs["loss"]) * (batch + 1)
            fed.append(total - self.total)
            self.total = total

    model = Recorder()
    model.compile(optimizer="sgd")
    model.fit(sequence, shuffle=shuffle, verbose=0, callbacks=[Listen()], **how)
    return pytest.approx(fed, abs=1e-3)


def planned(sequence, *epochs):
    """What `fed_by_fit` should have seen."""
    return [batch.mean() for epoch in epochs for batch in sequence.loader.batches(epoch)]


def recorded(shapes, **arguments):
    def position(sample):
        return {"position": np.float32([sample.position])}, {"nothing": np.zeros(1)}

    return DetectionSequence(shapes, targets=position, batch_size=4, resize=Fixed((32, 32)), **arguments)


@pytest.mark.parametrize("how", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}])
def test_fit_is_fed_epoch_after_epoch_as_planned(shapes, how):
    sequence = recorded(shapes, **how)
    sequence[3], len(sequence), sequence.num_batches  # looking at it first changes nothing
    assert fed_by_fit(sequence, epochs=3) == planned(sequence, 0, 1, 2)
    assert sequence.epoch == 3
    assert fed_by_fit(sequence, epochs=1) == planned(sequence, 3)


def test_epoch_cut_in_pieces_by_steps_per_epoch_is_fed_whole_before_the_next(shapes):
    sequence = recorded(shapes)
    assert len(sequence) == 6
    assert fed_by_fit(sequence, epochs=4, steps_per_epoch=3) == planned(sequence, 0, 1)


@pytest.mark.parametrize("how", [{}, {"workers": 2}])
def test_what_one_fit_left_of_an_epoch_is_not_fed_to_the_next(shapes, how):
    """TensorFlow asks ahead of what is used, by how much depends on timing."""
    sequence = recorded(shapes, **how)
    for epoch in range(4):
        assert fed_by_fit(sequence, epochs=1, steps_per_epoch=4) == planned(sequence, epoch)[:4]


def test_each_loop_is_an_epoch_also_after_one_that_was_left_early(shapes):
    sequence = recorded(shapes)
    fed = [[y for y, _ in sequence] for _ in range(2)]
    next(iter(sequence))
    fed.append([y for y, _ in sequence])
    for epoch, batches in zip((0, 1, 3), fed, strict=True):
        assert [batch["position"].mean() for batch in batches] == pytest.approx(planned(sequence, epoch))
    assert sequence.epoch == 4


@pytest.mark.parametrize("how", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}])
def test_evaluating_is_fed_the_same_each_time_whatever_part_of_it_is_used(shapes, how):
    training, validation = recorded(shapes, **how), recorded(shapes, seed=1, **how)
    model = Recorder()
    model.compile(optimizer="sgd")
    history = model.fit(training, validation_data=validation, validation_steps=4, epochs=3, verbose=0).history
    assert history["val_loss"] == pytest.approx([np.mean(planned(validation, 0)[:4])] * 3)
    assert (training.epoch, validation.epoch) == (3, 0)


def test_evaluating_and_predicting_on_the_training_data_between_epochs_changes_nothing(shapes):
    sequence = recorded(shapes)

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(sequence, steps=2, verbose=0)
            self.model.predict(sequence, verbose=0)

    model, fed = Recorder(), []
    model.compile(optimizer="sgd")
    end = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: fed.append(logs["loss"]))
    model.fit(sequence, epochs=3, verbose=0, callbacks=[end, Look()])
    assert fed == pytest.approx([np.mean(planned(sequence, epoch)) for epoch in range(3)])


@pytest.mark.parametrize("shuffle", [False, True])
def test_positions_name_the_rows_of_predict_before_and_after_it(shapes, shuffle):
    sequence = recorded(shapes, shuffle=shuffle)
    before = np.concatenate([sequence.positions(index) for index in range(len(sequence))])
    model = Echo()
    model.compile()
    rows = model.predict(sequence, verbose=0)[:, 0]
    after = np.concatenate([sequence.positions(index) for index in range(len(sequence))])
    assert rows.tolist() == before.tolist() == after.tolist()


class Echo(keras.Model):
    def call(self, inputs):
        return inputs["position"]


def test_fit_that_begins_with_a_later_epoch_is_fed_that_epoch(shapes):
    sequence = recorded(shapes)
    assert fed_by_fit(sequence, initial_epoch=2, epochs=4) == planned(sequence, 2, 3)
    assert fed_by_fit(sequence, epochs=1) == planned(sequence, 4)


def test_iterators_of_epochs_that_are_over_are_let_go(shapes, monkeypatch):
    from tensorflow.python.data.ops import iterator_ops

    alive, made = [], weakref.WeakSet()

    # Not gc.get_objects: it holds tuples that TensorFlow's threads have half made, and their making then fails.
    def keep(self, *arguments, **keywords):
        made.add(self)
        return begin(self, *arguments, **keywords)

    begin = iterator_ops.OwnedIterator.__init__
    monkeypatch.setattr(iterator_ops.OwnedIterator, "__init__", keep)

    class Count(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            alive.append(len(made))

    model = Recorder()
    model.compile(optimizer="sgd")
    model.fit(recorded(shapes), epochs=3, verbose=0, callbacks=[Count()])
    assert set(alive) == {1}  # the one of this epoch: the end of another would stop it for a while


def worker_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("detfeed worker")}


@pytest.mark.parametrize("by", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_workers_end_with_the_model_that_they_fed_and_start_again_for_another(shapes, monkeypatch, kind, by):
    monkeypatch.setattr(workers, "IDLE_SECONDS", 10 * LONG)
    others, other_children = worker_threads(), children()  # of tests whose target functions hang
    sequence = recorded(shapes, **kind)
    for _ in range(2):
        model = Recorder()
        model.compile(optimizer="sgd")
        getattr(model, by)(sequence, verbose=0)
        assert worker_threads() - others
        del model
        gc.collect()
        assert wait_until(lambda: worker_threads() <= others and children() <= other_children)


def test_workers_go_on_when_another_model_than_the_one_they_feed_ends(shapes):
    others = worker_threads()
    sequence = recorded(shapes, workers=2)
    models = [Recorder(), Recorder()]
    for model in models:
        model.compile(optimizer="sgd")
        model.fit(sequence, verbose=0)
    working = worker_threads() - others
    del models[0]
    gc.collect()
    assert working and working <= worker_threads()


def test_epoch_that_was_not_ended_is_fed_again(shapes):
    sequence = recorded(shapes)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 3

    model = Recorder()
    model.compile(optimizer="sgd")
    model.fit(sequence, epochs=3, verbose=0, callbacks=[Stop()])
    assert fed_by_fit(sequence, epochs=1) == planned(sequence, 0)


def test_subclass_may_leave_out_the_methods_of_its_base(shapes):
    ends = []

    class Own(DetectionSequence):
        def on_epoch_end(self):
            ends.append(self.epoch)

    def position(sample):
        return {"position": np.float32([sample.position])}, {"nothing": np.zeros(1)}

    sequence = Own(shapes, targets=position, batch_size=4, resize=Fixed((32, 32)))
    assert fed_by_fit(sequence, epochs=2) == planned(sequence, 0, 1)
    assert ends[-1] == 2


def test_dense_targets_train_with_stock_losses_and_ignored_anchors_count_nothing(shapes):
    sequence = make(shapes, targets="dense", shuffle=False, augment=None)
    model = one_channel_model()
    model.compile(
        loss={"objectness": keras.losses.BinaryCrossentropy(from_logits=True), "deltas": keras.losses.Huber()}
    )
    x, y, weight = sequence[0]
    logs = model.test_on_batch(x, y, weight, return_dict=True)
    predicted = model.predict_on_batch(x)
    logits = predicted["objectness"][..., 0]
    entropy = np.logaddexp(0, logits) - logits * y["objectness"][..., 0]
    error = predicted["deltas"] - y["deltas"]
    huber = np.where(np.abs(error) < 1, 0.5 * error**2, np.abs(error) - 0.5).mean(axis=-1)
    expected = (entropy * weight["objectness"]).mean() + (huber * weight["deltas"]).mean()
    assert (weight["objectness"] == 0).any()
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "how",
    [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}],
    ids=["in the main thread", "threads", "processes"],
)
@pytest.mark.parametrize("targets", ["sampled", "dense"])
def test_fit_takes_every_canvas_with_any_workers(annotate, how, targets):
    # (32, 96), (96, 32) and (64, 64) with 2, 2 and 6 images: most batches look alike.
    sizes = [(32, 96)] * 2 + [(96, 32)] * 2 + [(64, 64)] * 6
    table = annotate(sizes, [[(2, 2, 30, 30)]] * 10)
    sequence = AnchorTargetSequence(
        table, GRID, targets=targets, batch_size=2, resize=ShortSide(64, max_side=96), **how
    )
    assert len(sequence.loader.canvases) > 1

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = keras.layers.Dense(1)

        def call(self, inputs):
            return self.scale(keras.ops.mean(keras.ops.cast(inputs["image"], "float32"), axis=(1, 2)))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 0 * keras.ops.mean(y_pred) + keras.ops.cast(keras.ops.shape(x["image"])[1], "float32")

    model = Model()
    model.compile(optimizer="sgd")
    history = model.fit(sequence, epochs=2, verbose=0).history
    heights = [sequence.loader.canvases[sequence.loader.canvas_ids[p], 0] for p in range(len(table))]
    assert history["loss"] == pytest.approx([np.mean(heights)] * 2)


def test_error_in_a_sample_stops_fit_with_its_address(shapes):
    def fail(sample):
        raise KeyError("nose")

    model = one_channel_model()
    model.compile(loss="mse")
    with pytest.raises(Exception, match=r"image_id \d+, position \d+, epoch 0, batch 0\): KeyError: 'nose'"):
        model.fit(DetectionSequence(shapes, targets=fail, batch_size=4, resize=Fixed((96, 128))), verbose=0)


def test_custom_targets_train_a_model_that_is_no_detector(shapes):
    """The README's example: how many boxes of each class an image has."""

    def count_classes(sample):
        counted = sample.class_ids[~sample.ignore]
        return {"count": np.bincount(counted, minlength=4).astype("float32")}

    sequence = DetectionSequence(shapes, targets=count_classes, batch_size=4, resize=Fixed((96, 128)))
    image = keras.Input((96, 128, 3), name="image", dtype="uint8")
    image_hw = keras.Input((2,), name="image_hw", dtype="int32")
    counts = keras.layers.Dense(4, name="count")(
        keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    )
    model = keras.Model({"image": image, "image_hw": image_hw}, {"count": counts})
    model.compile(optimizer="adam", loss="mse")
    assert np.isfinite(model.fit(sequence, verbose=0).history["loss"]).all()
    assert model.predict(sequence, verbose=0)["count"].shape == (len(shapes), 4)


def test_one_line_forms_read_coco_and_voc(shapes, data):
    from_coco = AnchorTargetSequence.from_coco(
        shapes.source, Path(shapes.source).parent / "images", GRID, batch_size=4, resize=ShortSide(96)
    )
    assert same(from_coco[0], make(shapes, augment=None)[0])
    for exif in ("apply", "ignore"):
        turned = AnchorTargetSequence.from_coco(
            shapes.source, Path(shapes.source).parent / "images", GRID, batch_size=4, resize=ShortSide(96), exif=exif
        )
        assert same(turned[0], from_coco[0])  # no image has an orientation
    from_voc = AnchorTargetSequence.from_voc(
        data / "voc" / "VOC2007", None, AnchorGrid.fpn(), batch_size=2, resize=ShortSide(128), targets="dense"
    )
    assert len(from_voc[0]) == 3


def test_further_arguments_go_to_the_targets(shapes):
    _, y = make(shapes, num_samples=32)[0]
    assert y["anchor_index"].shape[1:] == (32,)
    with pytest.raises(TypeError, match="nonsense"):
        make(shapes, nonsense=1)


def rois_of(shapes, folder, **arguments):
    """A sequence of RoIs from a results file that holds each box of the data set, and one in a corner of each image."""
    results = [{"image_id": i, "bbox": [0, 0, 9, 9], "score": 0.1} for i in shapes.image_ids.tolist()]
    for position in range(len(shapes)):
        for x0, y0, x1, y1 in shapes.boxes[shapes.rows(position)].tolist():
            bbox = [x0, y0, x1 - x0, y1 - y0]
            results.append({"image_id": shapes.image_id(position), "bbox": bbox, "score": 0.9})
    path = folder / "proposals.json"
    path.write_text(json.dumps(results))
    arguments = {"batch_size": 4, "resize": ShortSide(96), "augment": albumentations.HorizontalFlip(p=0.5), **arguments}
    return RoiTargetSequence(shapes, read_proposals(path, shapes), **arguments)


def test_rois_are_fed_beside_their_images_with_the_same_bits_in_two_runs(shapes, tmp_path):
    one = rois_of(shapes, tmp_path, num_samples=16)
    two = rois_of(shapes, tmp_path, num_samples=16)
    assert all(same(one[index], two[index]) for index in range(len(one)))
    for index in range(len(one)):
        x, y = one[index]
        assert x.keys() == {"image", "image_hw", "rois"}
        assert x["rois"].shape == y["roi_deltas"].shape == (len(x["image"]), 16, 4)
        for row, position in enumerate(one.positions(index)):
            rows = shapes.rows(position)
            found = y["roi_class_ids"][row]
            expected = shapes.class_ids[rows][~shapes.ignore[rows]] + 1
            assert set(found[found > 0].tolist()) <= set(expected.tolist())
            assert (found > 0).sum() == min(4, 2 * len(expected))
    assert one.proposals is one.loader.proposals
    with pytest.raises(TypeError, match="nonsense"):
        rois_of(shapes, tmp_path, nonsense=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_second_stage_trains_on_rois(shapes, tmp_path, workers):
    sequence = rois_of(shapes, tmp_path, num_samples=16, workers=workers)
    inputs = {
        "image": keras.Input((None, None, 3), name="image", dtype="uint8"),
        "image_hw": keras.Input((2,), name="image_hw", dtype="int32"),
        "rois": keras.Input((16, 4), name="rois"),
    }
    scaled = keras.layers.Rescaling(1 / 100)(inputs["rois"])
    outputs = {
        "roi_class_ids": keras.layers.Dense(5, name="roi_class_ids")(scaled),
        "roi_deltas": keras.layers.Dense(4, name="roi_deltas")(scaled),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        loss={
            "roi_class_ids": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
            "roi_deltas": "huber",
        }
    )
    assert np.isfinite(model.fit(sequence, epochs=2, verbose=0).history["loss"]).all()
    assert sequence.epoch == 2


def test_error_of_a_sample_is_a_sample_error_outside_of_fit(shapes):
    with pytest.raises(SampleError, match="ZeroDivisionError"):
        DetectionSequence(shapes, targets=lambda s: 1 / 0, batch_size=4, resize=ShortSide(96))[0]


def test_keras_is_told_of_one_worker_whatever_the_sequence_has(shapes):
    sequence = recorded(shapes, workers=4, use_multiprocessing=True)
    assert (sequence.workers, sequence.use_multiprocessing) == (1, False)


def test_batches_are_made_once_each_and_ahead_even_if_keras_shuffles_them(shapes):
    made = []

    def position(sample):
        made.append(sample.position)
        return {"position": np.float32([sample.position])}, {"nothing": np.zeros(1)}

    sequence = DetectionSequence(shapes, targets=position, batch_size=1, resize=Fixed((32, 32)), workers=2)
    model = Recorder()
    model.compile(optimizer="sgd")
    random.seed(0)  # of Keras's shuffle: none of whose orders begins with 0, as if it were none
    model.fit(sequence, epochs=4, verbose=0)
    sequence.close()
    # Beside Keras's first look at two batches, and what was made ahead of it in the order that it did not take.
    assert len(made) <= 4 * len(shapes) + 2 * 12 + 10


def test_place_in_an_epoch_is_gone_to_without_making_what_is_before(shapes):
    made = []

    def position(sample):
        made.append(sample.position)
        return {"position": np.array(sample.position)}

    def make_sequence():
        return DetectionSequence(shapes, targets=position, batch_size=4, resize=Fixed((32, 32)))

    whole = [y["position"].tolist() for _, y in make_sequence().stream(3)]
    assert len(whole) == 18
    sequence = make_sequence()
    sequence.seek(1, 2)
    assert (len(sequence), sequence.cursor, sequence.epoch) == (4, (1, 2), 1)
    made.clear()
    assert sequence[0][1]["position"].tolist() == whole[8] == sequence.positions(0).tolist() == made
    assert sequence.cursor == (1, 3)
    assert [y["position"].tolist() for _, y in sequence.stream(3)] == whole[9:]
    assert (sequence.cursor, sequence.epoch, len(sequence)) == ((3, 0), 3, 6)
    with pytest.raises(IndexError, match=r"from 0 to 5\. Received: 6"):
        sequence[6]
    for place in ((-1, 0), (0, 6), (0, -1)):
        with pytest.raises(ValueError, match="Expected an epoch of at least 0 and a batch from 0 to 5"):
            sequence.seek(*place)


def test_stream_that_was_left_is_gone_on_with_at_its_cursor(shapes):
    sequence = recorded(shapes)
    seen = []
    for x, _ in sequence.stream():
        seen.append(x["position"].mean())
        if len(seen) == 8:
            break
    assert sequence.cursor == (1, 2)
    for x, _ in sequence.stream(2):
        seen.append(x["position"].mean())
    assert seen == planned(sequence, 0, 1)


def test_fit_takes_a_stream(shapes):
    sequence = recorded(shapes)
    assert fed_by_fit(sequence.stream(), epochs=4, steps_per_epoch=3) == planned(sequence, 0, 1)


@pytest.mark.parametrize("targets", ["sampled", "dense"])
def test_tf_data_holds_one_epoch_after_the_other_on_every_canvas(shapes, targets):
    sequence = make(shapes, targets=targets)
    dataset = sequence.to_tf_data()
    assert len(sequence.loader.canvases) > 1
    for epoch in (0, 1):
        batches = list(dataset.as_numpy_iterator())
        assert len(batches) == sequence.loader.num_batches
        assert all(same(batch, sequence.loader.load(epoch, index)) for index, batch in enumerate(batches))


def test_fit_takes_a_tf_dataset_without_a_warning_and_is_fed_every_batch(shapes):
    sequence = recorded(shapes)
    assert fed_by_fit(sequence.to_tf_data(), epochs=2) == planned(sequence, 0, 1)
    assert int(sequence.to_tf_data().cardinality()) == sequence.loader.num_batches
    sequence.seek(2, 4)
    rest = [y["position"].mean() for y, _ in sequence.to_tf_data().as_numpy_iterator()]
    assert rest == pytest.approx(planned(sequence, 2)[4:])


def test_batches_that_tensors_look_at_are_never_written_over(shapes):
    """TensorFlow takes aligned arrays without a copy."""
    import tensorflow as tf

    sequence = make(shapes, workers=1, use_multiprocessing=True, max_queue_size=1)
    tensors = [tf.convert_to_tensor(x["image"]) for x, _ in sequence.stream(3)]
    expected = [sequence.loader.load(epoch, index)[0]["image"] for epoch in range(3) for index in range(len(sequence))]
    assert all(np.array_equal(tensor, image) for tensor, image in zip(tensors, expected, strict=True))


@pytest.mark.parametrize("how", [{"workers": 2}, {"workers": 2, "use_multiprocessing": True}])
def test_evaluate_and_predict_and_validation_data_with_workers_of_their_own_see_every_image_once(shapes, how):
    training, validation = recorded(shapes, **how), recorded(shapes, shuffle=False, **how)
    model = Recorder()
    model.compile(optimizer="sgd")
    history = model.fit(training, validation_data=validation, epochs=2, verbose=0).history
    assert history["val_loss"] == pytest.approx([np.mean(range(len(shapes)))] * 2)
    assert model.evaluate(validation, verbose=0) == pytest.approx(np.mean(range(len(shapes))))
    weights = model.scale.get_weights()
    expected = np.arange(len(shapes))[:, None] * weights[0] + weights[1]
    order = np.concatenate([validation.positions(index) for index in range(len(validation))])
    assert model.predict(validation, verbose=0) == pytest.approx(expected[order], rel=1e-5)


@pytest.fixture
def staged(shapes):
    """A sequence whose images are grey until epoch 2, and larger from then on."""

    def gray(sample):
        return {"gray": np.float32([(sample.image[..., 0] == sample.image[..., 2]).all()])}

    return DetectionSequence(
        shapes,
        targets=gray,
        batch_size=4,
        resize=ShortSide(96),
        augment=albumentations.ToGray(p=1),
        inputs={"image": "image"},
        schedule={2: {"augment": None, "resize": ShortSide(128)}},
    )


def assert_staged(batches, epochs):
    count = len(batches) // len(epochs)
    for place, (x, y) in enumerate(batches):
        epoch = epochs[place // count]
        assert (np.asarray(y["gray"]) == (epoch < 2)).all()
        assert min(x["image"].shape[1:3]) == (96 if epoch < 2 else 128)


def test_arguments_change_with_their_epoch_however_it_is_come_to(staged):
    whole = [batch for _ in range(3) for batch in staged]
    assert_staged(whole, [0, 1, 2])
    staged.seek(2, 1)
    assert same(staged[0], whole[2 * staged.loader.num_batches + 1])
    staged.seek(1)
    assert_staged(list(staged.stream(4)), [1, 2, 3])
    staged.seek(1)
    dataset = staged.to_tf_data()
    assert_staged([batch for _ in range(2) for batch in dataset], [1, 2])


@pytest.mark.parametrize("initial_epoch", [0, 1, 2])
def test_fit_goes_on_over_a_change_of_size_and_augmentation(staged, initial_epoch):
    image = keras.Input((None, None, 3), name="image")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model({"image": image}, {"gray": keras.layers.Dense(1)(mean)})
    model.compile("sgd", loss="mse")
    model.fit(staged, initial_epoch=initial_epoch, epochs=3, verbose=0)
    assert int(model.optimizer.iterations) == (3 - initial_epoch) * staged.loader.num_batches
    assert staged.epoch == 3


def test_canvas_that_tensorflow_would_refuse_later_is_refused_when_the_sequence_is_made(shapes):
    with pytest.raises(ValueError, match=r"canvases vary .* only where .*fit\(other, initial_epoch=4\)"):
        make(shapes, resize=Fixed((96, 96)), schedule={4: {"resize": Fixed((128, 128))}})


def test_sequence_can_not_be_changed_without_effect(shapes):
    class Own(DetectionSequence):
        def __init__(self, annotations, **arguments):
            self.augment = None
            super().__init__(annotations, **arguments)
            self.batch_size = arguments["batch_size"]

    own = Own(shapes, targets=lambda sample: {}, batch_size=4, resize=ShortSide(96))
    assert (own.batch_size, own.augment) == (4, None)
    sequence = make(shapes)
    for of, name in [(sequence, "augment"), (sequence, "targets"), (sequence, "loader"), (own, "loader")]:
        with pytest.raises(AttributeError, match=f"a new {name}. Make another one, or let schedule="):
            setattr(of, name, None)
    with pytest.raises(AttributeError, match="a new targets"):
        sequence.loader.targets = None


MIRRORED = """
import keras, numpy as np, sys, tensorflow as tf
from detfeed import DetectionSequence, Fixed, read_coco

devices = [tf.config.LogicalDeviceConfiguration()] * 3
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
data = read_coco(*sys.argv[1:])

def make(replicas, **arguments):
    with tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]).scope():
        image = keras.Input((None, None, 3), name="image")
        mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
        model = keras.Model({"image": image}, {"count": keras.layers.Dense(1)(mean)})
        model.compile("sgd", loss="mse")
    count = lambda sample: {"count": np.float32([len(sample.boxes)])}
    arguments = {"inputs": {"image": "image"}, "resize": Fixed((48, 64)), **arguments}
    return model, DetectionSequence(data, targets=count, **arguments)

all_but_one = lambda data: np.float64([1] * 23 + [0])
for method, replicas, size in (("fit", 2, 10), ("evaluate", 3, 4)):
    model, sequence = make(replicas, batch_size=size, sampler=all_but_one)
    try:
        getattr(model, method)(sequence, verbose=0)
    except ValueError as error:
        print(error)
model, train = make(2, batch_size=4, sampler=all_but_one, drop_last=True)
_, odd = make(2, batch_size=4, sampler=all_but_one, shuffle=False)
model.fit(train, validation_data=odd, verbose=0)
print(len(model.predict(odd, verbose=0)["count"]), "predicted")
"""


def test_batch_that_replicas_can_not_share_is_found_before_tensorflow_fails_in_it(shapes):
    folder = Path(shapes.source).parent
    run = subprocess.run(
        [sys.executable, "-c", MIRRORED, shapes.source, str(folder / "images")],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    short, uneven, predicted = run.stdout.splitlines()
    assert "Received: batches of 3 images, with batch_size=10. Use drop_last=True, since" in short
    assert "Received: batches of 4 images, with batch_size=4. Use a batch_size that is a multiple of 3, and" in uneven
    assert predicted == "23 predicted"


def test_sequence_can_not_be_copied_and_says_what_can(shapes):
    with pytest.raises(TypeError, match="or send its `loader`"):
        copy.copy(make(shapes))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_fit_is_fed_as_planned_on_other_backends_too(shapes, backend):
    """With Keras's own workers the first batches would come twice there and the last ones never."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, __file__, shapes.source],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
        check=False,
    )
    expected = ["in place", "threads", "processes", "shuffled", "held", "dense"]
    assert done.stdout.splitlines() == [backend, *expected], done.stderr


def fit_on_this_backend(json):
    table = read_coco(json, Path(json).parent / "images")
    print(keras.backend.backend())
    processes = {"workers": 2, "use_multiprocessing": True}
    for name, how in (("in place", {}), ("threads", {"workers": 2}), ("processes", processes)):
        sequence = recorded(table, **how)
        assert fed_by_fit(sequence, epochs=3) == planned(sequence, 0, 1, 2)
        assert sequence.epoch == 3
        print(name)
    sequence = recorded(table, **processes)
    assert sorted(fed_by_fit(sequence, epochs=1, shuffle=True).expected) == pytest.approx(sorted(planned(sequence, 0)))
    print("shuffled")
    # What the backend looks at without a copy, if it does.
    sequence = make(table, workers=1, use_multiprocessing=True, max_queue_size=1)
    held = [keras.ops.convert_to_tensor(x["image"]) for x, _ in sequence.stream(3)]
    expected = [sequence.loader.load(epoch, index)[0]["image"] for epoch in range(3) for index in range(len(sequence))]
    assert all(
        np.array_equal(keras.ops.convert_to_numpy(tensor), image) for tensor, image in zip(held, expected, strict=True)
    )
    print("held")
    sequence = make(table, targets="dense")
    model = one_channel_model()
    model.compile(loss={"objectness": keras.losses.BinaryCrossentropy(from_logits=True), "deltas": "huber"})
    history = model.fit(sequence, validation_data=sequence, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    print("dense")


if __name__ == "__main__":
    fit_on_this_backend(sys.argv[1])


def test_every_sequence_takes_samplers_and_replaces_images(annotate, tmp_path):
    table = annotate([(64, 64)] * 3, [[(1, 1, 9, 9)], [(1, 1, 9, 9)], []])
    (tmp_path / "001.png").write_bytes(b"nothing")
    none = Proposals(table.image_ids, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(4, np.int64))
    for number, make in enumerate(
        [
            lambda **arguments: DetectionSequence(table, targets=lambda sample: {}, **arguments),
            lambda **arguments: AnchorTargetSequence(table, AnchorGrid.c4(), **arguments),
            lambda **arguments: RoiTargetSequence(table, none, **arguments),
        ]
    ):
        ledger = tmp_path / f"{number}.jsonl"
        common = {"batch_size": 1, "resize": Fixed((64, 64)), "sampler": LimitEmpty()}
        sequence = make(**common, on_error=Replace(0.5, ledger))
        assert len(sequence) == 2
        with pytest.warns(UserWarning, match=r"001\.png could not be read, and .*000\.png is fed"):
            list(sequence)
        assert json.loads(ledger.read_text())["replacement_id"] == 100
        assert sequence.feed.ledger.count == 1


def test_true_boxes_come_along_for_models_that_sample_their_own_rois(shapes):
    arguments = {"batch_size": 4, "resize": ShortSide(64), "shuffle": False}
    plain = AnchorTargetSequence(shapes, GRID, **arguments)
    places = int(np.bincount(shapes.positions).max())
    for boxes, expected in ((True, places), (places + 5, places + 5)):
        sequence = AnchorTargetSequence(shapes, GRID, boxes=boxes, **arguments)
        for index in range(len(sequence)):
            (x, y), (plain_x, plain_y) = sequence[index], plain[index]
            assert set(x) == {*plain_x, "boxes", "class_ids", "ignore"} and set(y) == set(plain_y)
            assert x["boxes"].shape == (len(x["image"]), expected, 4)
            for part, plain_part in ((x, plain_x), (y, plain_y)):
                assert all(np.array_equal(part[name], array) for name, array in plain_part.items())
            for row, position in enumerate(sequence.loader.batches(0)[index].tolist()):
                rows = shapes.rows(position)
                used = x["class_ids"][row] >= 0
                assert x["class_ids"][row][used].tolist() == shapes.class_ids[rows].tolist()
                assert x["ignore"][row][used].tolist() == shapes.ignore[rows].tolist()
    with pytest.raises(SampleError, match="expected at most 1 boxes, got"):
        AnchorTargetSequence(shapes, GRID, boxes=1, **arguments)[0]
    with pytest.raises(TypeError, match="Expected boxes to be True, False or a number of boxes"):
        AnchorTargetSequence(shapes, GRID, boxes="all", **arguments)
