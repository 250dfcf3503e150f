"""The training script of Faster R-CNN and predict.py, end to end on a few small drawn images."""

import csv
import json
import os
import shutil

import cv2
import keras
import numpy as np
import pytest

import detfeed
import predict
import train_faster_rcnn
import train_rpn
from detfeed.models import load_detector
from detfeed.models.run_callbacks import Progress
from small_resnet50 import small_resnet50

SMALL = [
    *("--shapes", "8", "--fixed", "64", "64", "--batch-size", "2", "--epochs", "2", "--anchor-sizes", "8", "16", "32"),
    *("64", "128", "--roi-samples", "16", "--train-proposals", "30", "--proposals", "20", "--workers", "0"),
]


def rows_of(file):
    with file.open(newline="") as content:
        return list(csv.DictReader(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs that was stopped in the midst of the second and resumed."""
    folder = tmp_path_factory.mktemp("runs")

    def interrupt(self, batch, logs=None):
        end(self, batch, logs)
        if self.epoch == 1 and batch == 1:
            raise KeyboardInterrupt

    end = Progress.on_train_batch_end
    arguments = [*SMALL, "--shapes-dir", str(folder / "shapes"), "--backup-every", "1", "--out", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "ResNet50", small_resnet50)
        with patch.context() as stopped, pytest.raises(KeyboardInterrupt):
            stopped.setattr(Progress, "on_train_batch_end", interrupt)
            train_faster_rcnn.main(arguments)
        shutil.copytree(folder / "run", folder / "stopped")
        train_faster_rcnn.main(["--resume", str(folder / "run")])
        yield folder / "run"


def test_run_that_is_stopped_leaves_weights_curves_and_the_loss_of_each_step(run):
    stopped = run.parent / "stopped"
    for name in ("faster_rcnn.weights.h5", "detector.json", "settings.json", "curves.png", "log.csv"):
        assert (stopped / name).is_file(), name
    steps = [(int(row["epoch"]), int(row["batch"])) for row in rows_of(stopped / "steps.csv")]
    # The callback that stops the run comes before the one that writes the step.
    assert steps == [*((0, batch) for batch in range(len(steps) - 1)), (1, 0)]


def test_resumed_run_has_each_step_once_and_scores_each_epoch(run):
    steps = rows_of(run / "steps.csv")
    half = len(steps) // 2
    assert [(int(row["epoch"]), int(row["batch"])) for row in steps] == [(e, b) for e in range(2) for b in range(half)]
    parts = ("rpn_objectness_loss", "rpn_box_loss", "roi_class_loss", "roi_box_loss")
    for row in steps:
        assert float(row["loss"]) == pytest.approx(sum(float(row[part]) for part in parts), rel=1e-3)
    first, second = rows_of(run / "log.csv")
    assert 0 <= float(first["AP"]) <= float(first["AP50"]) <= 1
    assert {"AP/triangle", "AP/star"} <= second.keys()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["AP_large"] is None, "there are no large objects"
    assert metrics["AP"] == pytest.approx(float(second["AP"]))
    for picture in ("curves.png", "detections.png"):
        assert cv2.imread(str(run / picture)) is not None


def test_detections_are_coco_results_that_score_as_the_run_says(run):
    val = run.parent / "shapes" / "val"
    table = detfeed.read_coco(val / "instances.json", val / "images")
    results = json.loads((run / "detections.json").read_text())
    position = {table.image_id(p): p for p in range(len(table))}
    found = [[one for one in results if position[one["image_id"]] == p] for p in range(len(table))]
    boxes = [np.array([one["bbox"] for one in of]).reshape(-1, 4) @ np.eye(4) for of in found]
    for array in boxes:
        array[:, 2:] += array[:, :2]
    names = {number: row for row, number in enumerate(table.category_ids.tolist())}
    again = detfeed.average_precision(
        table,
        boxes,
        [[one["score"] for one in of] for of in found],
        [[names[one["category_id"]] for one in of] for of in found],
    )
    assert again["AP50"] == pytest.approx(json.loads((run / "metrics.json").read_text())["AP50"])


def test_run_is_evaluated_with_its_best_weights(run, tmp_path, capsys):
    train_faster_rcnn.main(["--evaluate", str(run), "--out", str(tmp_path)])
    expected = max(float(row["AP"]) for row in rows_of(run / "log.csv"))
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == pytest.approx(expected, abs=1e-3)
    assert " - " in capsys.readouterr().out, "a figure that does not exist"


def test_last_weights_score_alike_where_validation_classes_have_another_order(run, tmp_path):
    val = run.parent / "shapes" / "val"
    content = json.loads((val / "instances.json").read_text())
    content["categories"].reverse()
    (tmp_path / "reversed.json").write_text(json.dumps(content))
    data = ["--val-coco", str(tmp_path / "reversed.json"), "--val-images", str(val / "images")]
    train_faster_rcnn.main(["--evaluate", str(run), "--checkpoint", "last", "--out", str(tmp_path / "out"), *data])
    before, again = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / "out"))
    assert again["AP50"] == pytest.approx(before["AP50"], abs=1e-3)


def test_new_pictures_are_predicted_as_json_csv_and_pictures(run, tmp_path, capsys):
    images = run.parent / "shapes" / "val" / "images"
    (tmp_path / "bad.jpg").write_bytes((images / "000001.jpg").read_bytes()[:900])
    files = {name: str(tmp_path / "out" / name) for name in ("a.json", "a.csv", "drawn")}
    options = ["--json", files["a.json"], "--csv", files["a.csv"], "--draw", files["drawn"], "--min-score", "0.05"]
    assert predict.main([str(run), str(images), str(tmp_path / "bad.jpg"), *options]) == 1
    printed = capsys.readouterr()
    assert f"{images}/000002.jpg: " in printed.out
    assert f": {tmp_path}/bad.jpg: expected a whole image" in printed.err
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    detector = load_detector(run)
    assert len(content) == 2 == len(list((tmp_path / "out" / "drawn").iterdir()))
    for one in content:
        (found,) = detector(one["file"], min_score=0.05)
        np.testing.assert_allclose([o["box"] for o in one["objects"]], found.boxes.reshape(-1, 4), atol=0.01)
        assert [o["class"] for o in one["objects"]] == found.class_names
    rows = rows_of(tmp_path / "out" / "a.csv")
    assert len(rows) == sum(len(one["objects"]) for one in content) > 0


def test_validation_class_that_was_not_trained_ends_the_script_with_one_line(run, tmp_path, capsys):
    val = run.parent / "shapes" / "val"
    content = json.loads((val / "instances.json").read_text())
    used = content["annotations"][0]["category_id"]
    next(one for one in content["categories"] if one["id"] == used)["name"] = "cube"
    (tmp_path / "other.json").write_text(json.dumps(content))
    data = ["--val-coco", str(tmp_path / "other.json"), "--val-images", str(val / "images")]
    with pytest.raises(SystemExit):
        train_faster_rcnn.main(["--evaluate", str(run), "--out", str(tmp_path / "out"), *data])
    line = capsys.readouterr().err
    assert "expected boxes of the classes ['ellipse', 'rectangle', 'triangle', 'star'], got some of ['cube']" in line


def other_class(run, file):
    """The training data of the run with another name for a class."""
    train = run.parent / "shapes" / "train"
    content = json.loads((train / "instances.json").read_text())
    content["categories"][0]["name"] = "cube"
    file.write_text(json.dumps(content))
    return ["--coco", str(file), "--images", str(train / "images")]


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (train_rpn, [], "expected a run of train_rpn.py, got RUN, one of train_faster_rcnn.py; use that script"),
        (train_faster_rcnn, ["--model", "c4", "--anchor-sizes", "8", "16"], "expected the strides of --model"),
        (train_faster_rcnn, ["--anchor-sizes", "8", "16", "32", "64", "99"], "expected the anchors of the run in RUN"),
        (train_faster_rcnn, ["--stride-in-1x1"], "expected the --stride-in-1x1 of the run in RUN, False, got True"),
        (train_faster_rcnn, ["--batch-size", "3"], "expected 4 batches an epoch, as the run had, got 3"),
        (train_faster_rcnn, ["CLASSES"], "expected the classes of the run in RUN, ['ellipse', "),
    ],
)
def test_run_that_can_not_be_resumed_so_stays_as_it_is(run, tmp_path, capsys, script, options, message):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    options = other_class(run, tmp_path / "other.json") if options == ["CLASSES"] else options
    with pytest.raises(SystemExit):
        script.main(["--resume", str(run), *options])
    assert f"--resume: {message.replace('RUN', str(run))}" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_run_is_not_evaluated_as_one_of_another_model(run, capsys):
    with pytest.raises(SystemExit):
        train_rpn.main(["--evaluate", str(run)])
    assert "--evaluate: expected a run of train_rpn.py, got" in capsys.readouterr().err


def test_validation_data_without_images_is_an_error(run, tmp_path, capsys):
    (tmp_path / "none.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(SystemExit):
        train_faster_rcnn.main(
            ["--evaluate", str(run), "--val-coco", str(tmp_path / "none.json"), "--val-images", str(tmp_path)]
        )
    assert f"{tmp_path / 'none.json'}: expected validation images, got none" in capsys.readouterr().err


def test_names_of_classes_are_printed_as_they_are(capsys):
    names = ("[/red] a", "[bold]star", ":dog:", "a [x1]", "猫")
    train_faster_rcnn.print_precision({f"AP/{name}": 0.5 for name in names})
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_drawings_and_files_never_replace_pictures(run, tmp_path, capsys):
    shutil.copy(next((run.parent / "shapes" / "val" / "images").iterdir()), tmp_path / "p.png")
    before = (tmp_path / "p.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for options in (["--draw", str(tmp_path)], ["--draw", str(tmp_path / "link")], ["--json", str(tmp_path / "p.png")]):
        with pytest.raises(SystemExit):
            predict.main([str(run), str(tmp_path / "p.png"), *options])
        assert f"{options[0]}: expected " in capsys.readouterr().err
    assert (tmp_path / "p.png").read_bytes() == before


def test_picture_that_is_named_twice_is_found_once(run, tmp_path, capsys):
    shutil.copy(next((run.parent / "shapes" / "val" / "images").iterdir()), tmp_path / "p.jpg")
    assert predict.main([str(run), str(tmp_path), str(tmp_path / "p.jpg")]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("p.jpg: ") == 1 and not printed.err


def test_file_name_that_is_not_utf_8_is_written_as_python_has_it(run, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    path = os.path.join(os.fsencode(folder), b"\xff.jpg")
    shutil.copy(next((run.parent / "shapes" / "val" / "images").iterdir()), path)
    files = [tmp_path / "a.json", tmp_path / "a.csv"]
    assert predict.main([str(run), str(folder), "--json", str(files[0]), "--csv", str(files[1])]) == 0
    assert "\\udcff.jpg: " in capsys.readouterr().out
    (one,) = json.loads(files[0].read_text())
    assert os.fsencode(one["file"]) == path
    assert files[1].read_text().startswith("file,class")


@pytest.mark.parametrize(
    ("best", "advice"), [(True, "take those of the last epoch: best=False"), (False, "resume the training")]
)
def test_weights_that_do_not_load_are_an_error_that_says_which_others_do(run, tmp_path, best, advice):
    shutil.copy(run / "detector.json", tmp_path)
    name = "faster_rcnn.best.weights.h5" if best else "faster_rcnn.weights.h5"
    (tmp_path / name).write_bytes((run / name).read_bytes()[:9999])
    with pytest.raises(detfeed.DetfeedError, match=rf"{tmp_path}/{name}: expected weights of the model.*{advice}"):
        load_detector(tmp_path, best=best)
