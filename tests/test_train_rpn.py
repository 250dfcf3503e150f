"""The training script, end to end on a few small drawn images."""

import csv
import json

import cv2
import numpy as np
import pytest

import detfeed
import train_rpn

SMALL = ["--model", "c4", "--shapes", "8", "--short-side", "64", "--batch-size", "4"]


def rows_of(run):
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [*SMALL, "--shapes-dir", str(folder / "shapes"), "--out", str(folder / "run"), "--epochs", "1"]
    train_rpn.main(arguments)
    return folder / "run"


def test_run_leaves_settings_logs_weights_curves_and_proposals(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "settings.json",
        "log.csv",
        "tensorboard",
        "backup",
        "rpn.weights.h5",
        "curves.png",
        "proposals.json",
        "proposals.png",
        "recall.json",
    }
    assert json.loads((run / "settings.json").read_text())["learning_rate"] == 2e-4
    (row,) = rows_of(run)
    assert np.isfinite(float(row["loss"]))
    assert 0 <= float(row["AR@1000"]) <= 1
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


def test_evaluation_alone_gives_the_scores_of_the_run_again(run):
    before = json.loads((run / "recall.json").read_text())
    log = rows_of(run)
    (run / "recall.json").unlink()
    train_rpn.main(["--evaluate", str(run)])
    assert json.loads((run / "recall.json").read_text()) == pytest.approx(before, abs=1e-3, nan_ok=True)
    assert rows_of(run) == log


def test_resumed_run_goes_on_where_it_stopped(run, capsys):
    first = rows_of(run)
    train_rpn.main(["--resume", str(run), "--epochs", "2"])
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0] == first[0]


def test_folder_of_an_earlier_run_is_not_written_over(run, capsys):
    with pytest.raises(SystemExit):
        train_rpn.main([*SMALL, "--out", str(run)])
    assert f"go on with --resume {run}" in capsys.readouterr().err


def test_loss_that_is_not_finite_stops_the_run_and_names_the_images(tmp_path):
    arguments = [*SMALL, "--shapes-dir", str(tmp_path / "shapes"), "--out", str(tmp_path / "run"), "--epochs", "3"]
    with pytest.raises(FloatingPointError, match=r"after batch \d of epoch \d, of the images \d+ \(.*\.jpg\)"):
        train_rpn.main([*arguments, "--learning-rate", "1e30"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coco", "a.json"], "--coco needs --images"),
        (["--coco", "a.json", "--voc", "b"], "not both"),
        (["--resume", "nowhere"], "nowhere/settings.json: expected the settings of an earlier run"),
        (["--resume", "a", "--evaluate", "b"], "not both"),
        (["--images", "a"], "--images goes with --coco"),
        (["--split", "a"], "--split goes with --voc"),
        (["--val-coco", "a.json", "--val-images", "a", "--val-split", "b"], "not both"),
        (["--val-images", "a"], "--val-images goes with --val-coco"),
        (["--weight-decay", "0.1"], "goes with --optimizer adamw or sgd"),
        (["--validate-every", "0"], "invalid positive value: '0'"),
    ],
)
def test_arguments_that_do_not_go_together_are_told_at_once(arguments, message, capsys):
    with pytest.raises(SystemExit):
        train_rpn.main(arguments)
    assert message in capsys.readouterr().err
