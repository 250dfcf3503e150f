"""`detfeed convert` writes what is read, tells what is lost, and writes all or nothing."""

import json
import os

import numpy as np
import pytest

from detfeed import make_shapes, read_coco, read_voc, read_yolo
from written_formats import write_all


@pytest.fixture
def run(detfeed):
    return lambda *arguments: detfeed("convert", *arguments)


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("formats"))


@pytest.fixture
def coco(tmp_path):
    json = make_shapes(tmp_path / "shapes", num_images=4, image_hw=(96, 128), seed=0)
    return ("--coco", json, "--images", json.parent / "images")


def boxes(table):
    """Corners and class names by the name of the image, without ignored boxes, rounded to whole pixels."""
    found = {}
    for position, path in enumerate(table.paths):
        rows = range(len(table.boxes))[table.rows(position)]
        found[os.path.basename(path)] = sorted(
            (table.class_names[table.class_ids[row]], *table.boxes[row].round().tolist())
            for row in rows
            if not table.ignore[row]
        )
    return found


@pytest.mark.parametrize("name", ["coco", "lvis", "voc", "yolo", "csv", "kitti", "openimages", "imagefolder", "ndjson"])
def test_every_format_is_converted_to_every_other(run, formats, tmp_path, name):
    options = formats[name]
    for to, out in (("coco", "out.json"), ("yolo", "yolo"), ("voc", "voc")):
        result = run(*options, f"--to-{to}", tmp_path / out)
        assert result.status == 0, result.stderr
        count = 22 if name == "openimages" else 24  # it has no rows for images without boxes
        assert result.stdout.startswith(f"read train: {count} images, ")
        assert f"\nwrote train: {count} images, " in result.stdout
    table = read_coco(tmp_path / "out.json", json_folder(tmp_path / "out.json", formats))
    assert boxes(read_yolo(tmp_path / "yolo")) == boxes(read_voc(tmp_path / "voc")) == boxes(table)


def json_folder(path, formats):
    """The folder of the images of a COCO file that is written beside the set."""
    first = json.loads(path.read_text())["images"][0]["file_name"]
    root = os.path.dirname(formats["imagefolder"][1])
    return next(
        folder
        for folder in (root, *(os.path.join(root, name) for name in os.listdir(root)))
        if os.path.exists(os.path.join(folder, first))
    )


def test_training_and_validation_data_become_splits_of_one_set(run, coco, tmp_path):
    val = make_shapes(tmp_path / "val", num_images=3, image_hw=(96, 128), seed=1)
    both = (*coco, "--val-coco", val, "--val-images", val.parent / "images")
    result = run(*both, "--to-yolo", tmp_path / "yolo", "--copy")
    assert result.status == 0
    assert "wrote train: 4 images" in result.stdout
    assert "wrote val: 3 images" in result.stdout
    assert len(read_yolo(tmp_path / "yolo", "val")) == 3
    result = run(*both, "--to-coco", tmp_path / "out.json")
    assert (result.status, result.stdout) == (2, "")
    assert "--to-coco: expected one data set, got training and validation data; convert one at a time" in result.stderr


def test_losses_are_told_and_the_counts_are_those_of_what_is_read_back(run, coco, tmp_path):
    table = read_coco(coco[1], coco[3])
    result = run(*coco, "--to-yolo", tmp_path / "yolo")
    kept = len(table.boxes) - int(table.ignore.sum())
    assert f"wrote train: 4 images, {kept} boxes (0 ignored)" in result.stdout
    assert "warning: " in result.stderr
    assert "image ids become the names of the images" in result.stderr
    content = json.loads(coco[1].read_text())
    content["annotations"][0]["bbox"][0] += 0.25
    coco[1].write_text(json.dumps(content))
    result = run(*coco, "--to-voc", tmp_path / "voc")
    assert "fractions of a pixel are left out" in result.stderr
    assert "fractions" not in run(*coco, "--to-voc", tmp_path / "decimals", "--decimals").stderr
    assert "it lacks outlines and keypoints" in run(*coco, "--to-coco", tmp_path / "out.json").stdout


def test_outlines_and_keypoints_are_kept_on_request(run, coco, tmp_path):
    content = json.loads(coco[1].read_text())
    for category in content["categories"]:
        category["keypoints"] = ["left_end", "right_end"]
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
        one["keypoints"] = [x, y, 2, x + 1, y, 1]
    coco[1].write_text(json.dumps(content))
    assert run(*coco, "--masks", "--keypoints", "--to-coco", tmp_path / "kept.json").status == 0
    assert run(*coco, "--to-coco", tmp_path / "boxes.json").status == 0
    kept, boxes = (json.loads((tmp_path / name).read_text())["annotations"] for name in ("kept.json", "boxes.json"))
    for before, after in zip(content["annotations"], kept, strict=True):
        assert np.allclose(after["segmentation"], before["segmentation"])
        assert after["keypoints"] == before["keypoints"]
    assert not any("keypoints" in one or "segmentation" in one for one in boxes)
    told = run(*coco, "--masks", "--keypoints", "--to-voc", tmp_path / "voc").stderr
    assert "masks are left out" in told and "keypoints are left out" in told
    told = run(*coco, "--masks", "--keypoints", "--to-yolo", tmp_path / "pose").stderr
    assert "masks are left out" in told and "keypoints are left out" not in told
    points = read_coco(tmp_path / "kept.json", coco[3], keypoints=True)
    again = read_yolo(tmp_path / "pose", keypoints=True)
    assert again.keypoints.names == ("left_end", "right_end") and again.keypoints.flips.tolist() == [1, 0]
    objects = points.keypoints.points[~points.ignore]
    assert np.allclose(sorted(again.keypoints.points.tolist()), sorted(objects.tolist()))
    told = run(*coco, "--masks", "--to-yolo", tmp_path / "outlines").stderr
    assert "masks are left out" not in told and "boxes around them" not in told
    assert len(read_yolo(tmp_path / "outlines", masks=True).masks) == len(objects)
    assert "--voc" in run("--voc", tmp_path, "--masks", "--to-coco", tmp_path / "out.json").stderr


def test_what_cannot_be_read_is_an_error_or_is_left_out_and_named(run, coco, tmp_path):
    run(*coco, "--to-voc", tmp_path / "voc")
    (tmp_path / "voc" / "Annotations" / "000002.xml").write_text("<annotation>")
    result = run("--voc", tmp_path / "voc", "--to-coco", tmp_path / "out.json")
    assert result.status == 1
    assert "000002.xml: expected XML" in result.stderr
    assert not (tmp_path / "out.json").exists()
    result = run("--voc", tmp_path / "voc", "--to-coco", tmp_path / "out.json", "--skip-unreadable")
    assert result.status == 0
    assert "skipped: " in result.stderr
    assert "read train: 3 images" in result.stdout
    assert "1 file can't be read" in result.stdout
    assert "wrote train: 3 images" in result.stdout


def test_each_warning_is_said_once(run, coco, tmp_path):
    content = json.loads(coco[1].read_text())
    for one in content["annotations"]:
        one["iscrowd"] = 1
        one["segmentation"] = {"size": [96, 128], "counts": [96 * 128]}
    for image in content["images"]:
        image["height"], image["width"] = 96, 128
    coco[1].write_text(json.dumps(content))
    told = run(*coco, "--to-coco", tmp_path / "out.json").stderr
    assert told.count("classes have more ignored boxes than objects") == 1
    assert coco[1].name in told and "out.json" not in told


def test_nothing_is_written_over(run, coco, tmp_path):
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "x").touch()
    for option, out in (("--to-coco", coco[1]), ("--to-yolo", tmp_path / "yolo"), ("--to-voc", coco[1])):
        before = os.stat(out)
        result = run(*coco, option, out)
        assert (result.status, result.stdout) == (2, "")
        assert f"{option}: expected a new name, got {out}, which exists" in result.stderr
        assert os.stat(out).st_mtime_ns == before.st_mtime_ns


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(run, coco, tmp_path):
    content = json.loads(coco[1].read_text())
    content["images"][1]["height"] += 10
    coco[1].write_text(json.dumps(content))
    result = run(*coco, "--to-yolo", tmp_path / "yolo")
    assert result.status == 1
    assert "yolo was not written: Expected images of their annotated height and width" in result.stderr
    assert "wrote" not in result.stdout
    assert sorted(os.listdir(tmp_path)) == ["shapes"]
    assert run(*coco, "--to-coco", tmp_path / "none" / "x.json").status == 1


def test_options_that_do_not_go_together_are_refused(run, coco, tmp_path):
    out = tmp_path / "out"
    for arguments, message in (
        (coco, "expected one of --to-coco, --to-yolo and --to-voc, got none"),
        ((*coco, "--to-yolo", out, "--to-voc", out), "got --to-yolo and --to-voc"),
        ((*coco, "--to-coco", out, "--copy"), "--copy: expected --to-yolo or --to-voc with it, got --to-coco"),
        ((*coco, "--to-voc", out, "--ignored-as-objects"), "--ignored-as-objects: expected --to-yolo with it"),
        (("--to-voc", out), "expected a data set, got none"),
    ):
        result = run(*arguments)
        assert (result.status, result.stdout) == (2, "")
        assert message in result.stderr
        assert result.stderr.startswith("detfeed convert: ")
