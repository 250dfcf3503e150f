"""The callbacks of a training run, without training."""

import csv
import types

import pytest

import detfeed
from detfeed.models.run_callbacks import EpochLog, Progress


@pytest.fixture
def progress(shapes):
    sequence = detfeed.DetectionSequence(
        shapes, targets=lambda s: {}, batch_size=4, resize=detfeed.Fixed((32, 32)), seed=5
    )
    callback = Progress(sequence, 8)
    callback.set_model(types.SimpleNamespace(stop_training=False))
    callback.on_epoch_begin(1)
    return callback


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_the_run_and_names_the_images(progress, shapes, loss):
    progress.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(
        FloatingPointError, match=r"The loss is (nan|inf) after batch 1 of epoch 1, of the images"
    ) as error:
        progress.on_train_batch_end(1, {"loss": loss})
    for position in progress.sequence.loader.batches(1)[1]:
        assert f"{shapes.image_id(position)} ({shapes.paths[position]})" in str(error.value)


def test_run_stops_after_the_steps_asked_for(progress):
    assert len(progress.sequence) == 6
    progress.on_train_batch_end(0, {"loss": 1.0})
    assert not progress.model.stop_training
    progress.on_train_batch_end(1, {"loss": 1.0})
    assert progress.model.stop_training, "step 8 of epochs of 6 is the second of epoch 1"


def test_epoch_that_was_not_fed_whole_is_an_error(progress):
    progress.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(RuntimeError, match=r"Expected 6 batches in epoch 1\. Received: 1"):
        progress.on_epoch_end(1)


def test_log_has_the_columns_of_all_epochs_and_each_epoch_once(tmp_path):
    log = EpochLog(tmp_path / "log.csv")
    log.on_epoch_end(0, {"loss": 3.0})
    log.on_epoch_end(1, {"loss": 9.0})
    log.on_epoch_end(1, {"loss": 2.0, "AR@100": 0.5})
    with (tmp_path / "log.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "0", "loss": "3.0", "AR@100": ""},
            {"epoch": "1", "loss": "2.0", "AR@100": "0.5"},
        ]
