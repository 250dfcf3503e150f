"""The training script, end to end on a few small drawn images."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import pytest

import detfeed
import train_rpn
import training_run
from detfeed.models.run_callbacks import Progress
from detfeed.readers.formats import FORMATS, training_set, validation_set
from small_resnet50 import small_resnet50
from written_formats import write_all

SMALL = ["--model", "c4", "--shapes", "8", "--short-side", "64", "--batch-size", "4", "--epochs", "2"]


def rows_of(run):
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Every run is trained with the small backbone; `make wheel` and `make demo` train ResNet50.
COMMAND = "import small_resnet50, train_rpn; small_resnet50.use_small_resnet50(); train_rpn.main()"


@pytest.fixture(scope="module", autouse=True)
def small_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "ResNet50", small_resnet50)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [*SMALL, "--shapes-dir", str(folder / "shapes"), "--validate-every", "2", "--out", str(folder / "run")]
    train_rpn.main(arguments)
    return folder / "run"


def test_run_leaves_settings_logs_weights_curves_and_proposals(run):
    assert {path.name for path in run.iterdir()} == {
        "settings.json",
        "log.csv",
        "fed.csv",
        "tensorboard",
        "backup",
        "rpn.weights.h5",
        "rpn.best.weights.h5",
        "detector.json",
        "steps.csv",
        "curves.png",
        "proposals.json",
        "proposals.png",
        "recall.json",
    }
    assert json.loads((run / "settings.json").read_text())["epochs"] == 2
    first, second = rows_of(run)
    assert np.isfinite([float(row["loss"]) for row in (first, second)]).all()
    assert first["AR@1000"] == ""
    assert 0 <= float(second["AR@1000"]) <= 1
    for picture in ("curves.png", "proposals.png"):
        assert cv2.imread(str(run / picture)) is not None


def test_proposals_are_coco_results_in_pixels_of_the_image_files(run):
    results = json.loads((run / "proposals.json").read_text())
    val = run.parent / "shapes" / "val"
    table = detfeed.read_coco(val / "instances.json", val / "images")
    sizes = {table.image_id(p): table.image_hw[p] for p in range(len(table))}
    assert {result["image_id"] for result in results} == set(sizes)
    for result in results:
        x, y, width, height = result["bbox"]
        assert min(x, y) >= 0
        assert x + width <= sizes[result["image_id"]][1] + 0.02
        assert y + height <= sizes[result["image_id"]][0] + 0.02
    # The small side is 64 on the canvas and 120 in the file: some box must reach further than 64.
    assert max(result["bbox"][0] + result["bbox"][2] for result in results) > 90
    assert len(detfeed.read_proposals(run / "proposals.json", table).boxes) == len(results)


def test_evaluation_alone_gives_the_scores_of_the_run_again(run, tmp_path):
    train_rpn.main(["--evaluate", str(run), "--out", str(tmp_path / "again")])
    before, again = (json.loads((folder / "recall.json").read_text()) for folder in (run, tmp_path / "again"))
    assert {name for name, figure in again.items() if figure is None} == {
        "AR@100_large",
        "AR@300_large",
        "AR@1000_large",
    }
    exist = {name: figure for name, figure in before.items() if figure is not None}
    assert {name: again[name] for name in exist} == pytest.approx(exist, abs=1e-3)


def parse(*arguments):
    return training_run.parse_arguments(train_rpn.build_parser(), [*map(str, arguments)])


@pytest.fixture
def save(tmp_path):
    """Write the settings of a run with the arguments given; its folder."""

    def write(*arguments, out="earlier"):
        training_run.save_settings(parse(*arguments, "--out", tmp_path / out))
        return tmp_path / out

    return write


@pytest.mark.parametrize("format", FORMATS)
def test_resumed_and_evaluated_runs_read_what_the_run_read(save, tmp_path_factory, format):
    options = write_all(tmp_path_factory.mktemp("data"))[format]
    layout = {"voc": ("--zero-based",), "kitti": ("--annotation-dir", "label_2")}.get(format, ())
    data = (*options, *layout, "--invalid", "drop", f"--val-{format}", options[1])
    earlier = save(*data)
    for mode in ("--resume", "--evaluate"):
        arguments = parse(mode, earlier)
        for choose in (training_set, validation_set):
            again, first = choose(arguments), choose(parse(*data))
            assert (again.read.func, again.read.args, again.read.keywords) == (
                first.read.func, first.read.args, first.read.keywords,
            )  # fmt: skip
            assert len(again.read()) == len(first.read())
        assert arguments.out == earlier


def test_settings_of_a_run_before_other_formats_are_read(tmp_path):
    stored = {
        "coco": None, "images": None, "voc": "VOC", "split": "trainval", "invalid": "ignore", "fixed": None,
        "val_coco": None, "val_images": None, "val_voc": None, "val_split": "test", "shapes_dir": "runs/shapes",
        "learning_rate": 0.01,
    }  # fmt: skip
    (tmp_path / "settings.json").write_text(json.dumps(stored))
    arguments = parse("--resume", tmp_path)
    assert training_set(arguments).read.args == ("VOC",)
    assert training_set(arguments).read.keywords == {"split": "trainval", "invalid": "ignore"}
    assert validation_set(arguments).read.keywords == {"split": "test", "invalid": "ignore"}
    assert arguments.learning_rate == 0.01


def test_evaluation_on_other_data_forgets_the_validation_data_of_the_run(save):
    earlier = save("--voc", "VOC", "--split", "a", "--val-csv", "b.csv", "--classes", "c.csv", "--val-images", "s3://d")
    assert parse("--evaluate", earlier).val_csv == "b.csv"
    arguments = parse("--evaluate", earlier, "--val-voc", "other", "--val-split", "test")
    assert (arguments.val_csv, arguments.val_images, arguments.classes) == (None, None, None)
    assert (arguments.voc, arguments.split) == ("VOC", "a")
    assert validation_set(arguments).read.keywords == {"split": "test", "invalid": "clip"}


def test_other_training_data_replaces_all_data_of_the_run(save):
    earlier = save("--coco", "a", "--images", "s3://b", "--val-coco", "c", "--epochs", "3")
    arguments = parse("--resume", earlier, "--csv", "d", "--classes", "e")
    assert (arguments.coco, arguments.images, arguments.val_coco, arguments.csv) == (None, None, None, "d")
    assert validation_set(arguments) is None
    assert arguments.epochs == 3


@pytest.mark.parametrize("content", ["{", "3", "[1]"])
def test_settings_that_are_no_settings_are_an_error(tmp_path, content, capsys):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(SystemExit):
        train_rpn.main(["--resume", str(tmp_path)])
    line = capsys.readouterr().err
    assert (
        f"--resume: expected the settings of an earlier run in {tmp_path}/settings.json, got a file that is no" in line
    )
    assert line.count("\n") == 1


def test_resumed_run_ends_as_one_that_was_never_interrupted(run, tmp_path, monkeypatch):
    """Weights, optimiser, learning rate and order of the images go on where they were."""

    def interrupt(self, epoch, logs=None):
        begin(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    begin = Progress.on_epoch_begin
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_epoch_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_rpn.main(
                [*SMALL, "--shapes-dir", str(run.parent / "shapes"), "--validate-every", "2", "--out", str(tmp_path)]
            )
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["0"]
    train_rpn.main(["--resume", str(tmp_path)])
    for row, expected in zip(rows_of(tmp_path), rows_of(run), strict=True):
        assert row["epoch"] == expected["epoch"]
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)
    assert rows_of(tmp_path)[1]["AR@1000"]


def killed_in_the_midst_of_an_epoch(arguments, run, rows):
    """Run the script and kill it as soon as its fed.csv has so many rows."""
    with (run.parent / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    fed = run / "fed.csv"
    while process.poll() is None and not (fed.exists() and fed.read_text().count("\n") > rows):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, (run.parent / "output").read_text()


def planned(run, batch_size):
    """What fed.csv says of two epochs of which no batch was left out or trained on twice."""
    train = run.parent / "shapes" / "train"
    table = detfeed.read_coco(train / "instances.json", train / "images")
    loader = detfeed.BatchLoader(table, lambda s: {}, batch_size=batch_size, resize=detfeed.ShortSide(64, max_side=106))
    rows = [
        f"{epoch},{index},{' '.join(str(table.image_id(p)) for p in positions)}"
        for epoch in range(2)
        for index, positions in enumerate(loader.batches(epoch))
    ]
    return ["epoch,batch,image_ids", *rows]


def test_images_of_every_step_are_written_down(run):
    assert (run / "fed.csv").read_text().splitlines() == planned(run, batch_size=4)


def test_run_killed_in_the_midst_of_an_epoch_goes_on_with_exactly_the_batches_not_yet_trained(run, tmp_path):
    killed = tmp_path / "killed" / "run"
    killed.mkdir(parents=True)
    arguments = [*SMALL, "--shapes-dir", str(run.parent / "shapes"), "--batch-size", "1", "--validate-every", "2"]
    arguments += ["--backup-every", "3", "--workers", "2", "--learning-rate", "0.003", "--out", str(killed)]
    killed_in_the_midst_of_an_epoch(arguments, killed, rows=5)
    whole = planned(run, batch_size=1)
    assert len(whole) == 1 + 16
    before = (killed / "fed.csv").read_text().splitlines()
    assert before == whole[: len(before)] and 1 + 5 <= len(before) < 1 + 8
    train_rpn.main(["--resume", str(killed)])
    assert (killed / "fed.csv").read_text().splitlines() == whole
    assert [row["epoch"] for row in rows_of(killed)] == ["0", "1"]
    # It went on with what it had learned: a fresh one begins at 0.7 and more.
    assert float(rows_of(killed)[1]["loss"]) < 0.4


def test_folder_of_an_earlier_run_is_not_written_over(run, capsys):
    with pytest.raises(SystemExit):
        train_rpn.main([*SMALL, "--out", str(run)])
    assert f"go on with --resume {run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coco", "a.json"], "--coco: expected --images with it, got none"),
        (["--coco", "a.json", "--voc", "b"], "--voc: expected one data set, got --coco and --voc"),
        (
            ["--resume", "nowhere"],
            "--resume: expected the settings of an earlier run in nowhere/settings.json, got No such file or directory",
        ),
        (["--evaluate", "nowhere"], "--evaluate: expected the settings of an earlier run in nowhere/settings.json"),
        (["--resume", "a", "--evaluate", "b"], "--evaluate: expected no --resume with it, got both"),
        (["--images", "a"], "--images: expected --coco, --lvis, --csv, --openimages or --ndjson with it, got none"),
        (["--split", "a"], "--split: expected --voc, --yolo or --ndjson with it, got none"),
        (["--val-split", "a"], "--val-split: expected --voc, --yolo or --ndjson with it, got none"),
        (
            ["--val-coco", "a.json", "--val-images", "a", "--val-split", "b"],
            "--val-split: expected --val-voc, --val-yolo or --val-ndjson with it, got --val-coco",
        ),
        (
            ["--val-images", "a"],
            "--val-images: expected --val-coco, --val-lvis, --val-csv, --val-openimages or --val-ndjson with it",
        ),
        (["--weight-decay", "0.1"], "--weight-decay: expected --optimizer adamw or sgd with it, got adam"),
        (["--validate-every", "0"], "--validate-every: expected a whole number of at least 1, got 0"),
        (["--workers", "-1"], "--workers: expected a whole number of at least 0, got -1"),
        (["--seed", "-1"], "--seed: expected a whole number of at least 0, got -1"),
        (["--max-replaced", "1.5"], "--max-replaced: expected a number from 0 to 1, got 1.5"),
        (["--learning-rate", "fast"], "--learning-rate: expected a number of at least 0, got fast"),
        (["--short-side", "100", "--max-side", "50"], "--max-side: expected at least the shorter side, 100, got 50"),
        (["--fixed", "0", "5"], "--fixed: expected a whole number of at least 1, got 0"),
        (["--fixed", "9", "5", "--max-side", "9"], "--fixed: expected no --max-side with it, got both"),
        (["--repeat-factor", "0"], "--repeat-factor: expected a number above 0 and at most 1, got 0"),
        (
            ["--augment", "fliip"],
            "--augment: expected flip, ssd, lsj, multiscale or none, got fliip; did you",
        ),
        (["--shape", "9"], "--shape: expected an option of train_rpn.py, got an unknown one; did you mean --shapes?"),
        (["--coco", "a.json", "--images", "b"], "--images: expected a folder or URL, got b; there is no such folder"),
        (["--val-coco", "a.json", "--val-images", "b"], "--val-images: expected a folder or URL, got b"),
    ],
)
def test_wrong_arguments_end_the_script_at_once_with_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_rpn.py"])
    with pytest.raises(SystemExit) as end:
        train_rpn.main(arguments)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"train_rpn.py: {message}")
    assert line.count("\n") == 1
    assert not (tmp_path / "runs" / "rpn").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coco", "a.json", "--images", "."], "a.json: expected a COCO JSON file, got No such file"),
        (["--voc", "a"], "a/Annotations: expected a folder of XML files, got No such file"),
        (["--val-yolo", "a.yaml"], "a.yaml: expected a YAML file, got No such file"),
    ],
)
def test_data_that_cannot_be_read_ends_the_script_with_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_rpn.py"])
    with pytest.raises(SystemExit) as end:
        train_rpn.main(arguments)
    assert end.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith(f"train_rpn.py: {message}")
    assert line.count("\n") == 1
