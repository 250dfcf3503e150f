"""The callbacks of a training run, without training."""

import csv
import types

import pytest

import detfeed
from detfeed.models.run_callbacks import EpochLog, FedImages, Progress, read_rows
from full_disk import full_disk


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


@pytest.fixture
def fed(progress, tmp_path):
    """A callback that has written epoch 0 and two batches of epoch 1, the second cut by a full disk."""
    callback = FedImages(progress.sequence, tmp_path / "fed.csv")
    callback.on_train_begin()
    for epoch, count in ((0, 6), (1, 1)):
        callback.sequence.seek(epoch)
        for batch in range(count):
            callback.on_train_batch_end(batch)
    return callback


def keys(path):
    return [(int(row["epoch"]), int(row["batch"])) for row in read_rows(path, numbers=("epoch", "batch"))]


EPOCH_0 = [(0, batch) for batch in range(6)]


@pytest.mark.parametrize("cut", range(1, 16))
def test_fed_images_are_gone_on_with_after_a_line_cut_anywhere(fed, cut):
    content = fed.path.read_bytes()
    fed.path.write_bytes(content[:-cut])
    fed.sequence.seek(1, 1)
    if content[:-cut].endswith((b"\r", b"\n")):
        fed.on_train_begin()
    else:
        with pytest.warns(UserWarning, match=r"fed.csv: 1 of \d rows are not whole, .* and are left out"):
            fed.on_train_begin()
    fed.on_train_batch_end(0)
    written = [key for key in [*EPOCH_0, (1, 0)] if key in keys(fed.path)]
    assert keys(fed.path) == [*written, (1, 1)]
    assert len(written) == content[: len(content) - cut + 1].count(b"\n") - 1


@pytest.mark.parametrize("damage", [b"0,3,1 2", b"0,3", b"\0" * 20, b'0,3,"1 2', b"x,3,1", b"\xff\xfe,1,2"])
def test_damaged_line_in_the_middle_is_left_out_and_told(fed, damage):
    lines = fed.path.read_bytes().splitlines(keepends=True)
    fed.path.write_bytes(b"".join([*lines[:3], damage + (b"\r\n" if damage != b"0,3,1 2" else b",9\r\n"), *lines[3:]]))
    with pytest.warns(UserWarning, match=r"fed.csv: \d+ of \d+ rows are not whole"):
        fed.on_train_begin()
    assert keys(fed.path)[:2] == EPOCH_0[:2]


def test_full_disk_keeps_what_was_fed_so_far_and_names_the_file(fed):
    before = fed.path.read_bytes()
    with full_disk(after=len(before) + 3), pytest.raises(OSError, match=r"'.*fed.csv'"):
        fed.on_train_batch_end(1)
    assert fed.path.read_bytes() == before
    fed.sequence.seek(1, 1)
    with full_disk(after=10), pytest.raises(OSError, match=r"'.*fed.csv'"):
        fed.on_train_begin()
    assert fed.path.read_bytes() == before


def test_log_is_whole_or_what_it_was(tmp_path):
    log = EpochLog(tmp_path / "log.csv")
    log.on_epoch_end(0, {"loss": 3.0})
    before = log.path.read_bytes()
    with full_disk(after=len(before) + 1), pytest.raises(OSError, match=r"'.*log.csv'"):
        log.on_epoch_end(1, {"loss": 2.0})
    assert log.path.read_bytes() == before
    log.path.write_bytes(before + b"1,2.")
    with pytest.warns(UserWarning, match=r"log.csv: 1 of 2 rows are not whole"):
        log.on_epoch_end(2, {"loss": 1.0})
    assert [row["epoch"] for row in read_rows(log.path, numbers=("epoch",))] == ["0", "2"]
    log.path.write_bytes(b"epo")
    with pytest.warns(UserWarning, match=r"log.csv: 1 of 1 rows are not whole"):
        log.on_epoch_end(0, {"loss": 1.0})
    assert len(read_rows(log.path, numbers=("epoch",))) == 1
