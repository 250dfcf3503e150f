"""`detfeed show` writes pictures of what is fed, and says how many objects have no positive."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from detfeed.commands.show import TARGETS
from detfeed.images.decoding import read_image


@pytest.fixture
def run(detfeed, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ("--coco", shapes.source, "--images", Path(shapes.source).parent / "images", "--short-side", 96)
    return lambda *arguments: detfeed("show", *data, *arguments)


def test_first_images_of_an_epoch_are_drawn_on_sheets(run):
    result = run("--number", 5, "--per-sheet", 4, "--epoch", 3)
    assert (result.status, result.stderr) == (0, "")
    *_, first, second, last = result.stdout.splitlines()
    assert [first, second] == ["runs/show/fed_epoch3_0.png", "runs/show/fed_epoch3_1.png"]
    assert read_image(first).shape[0] > read_image(second).shape[0] > 480
    assert re.fullmatch(r"5 images, \d+ objects, \d+ without a positive", last)


@pytest.mark.parametrize("targets", TARGETS)
def test_every_target_of_the_library_is_drawn(run, targets):
    result = run("--targets", targets, "--number", 2, "--out", "here")
    assert (result.status, result.stderr) == (0, "")
    assert re.fullmatch(r"2 images, \d+ objects, \d+ without a positive", result.stdout.splitlines()[-1])
    assert read_image("here/fed_epoch0_0.png").any()


def test_proposals_are_what_rois_are_drawn_from(run, shapes, tmp_path):
    found = [
        {"image_id": image_id, "category_id": 1, "bbox": [0, 0, 90, 90], "score": 1.0}
        for image_id in shapes.image_ids.tolist()
    ]
    (tmp_path / "proposals.json").write_text(json.dumps(found))
    alone, beside = (
        run("--targets", "rois", "--number", 2, "--out", out, *more)
        for out, more in (("a", ()), ("b", ("--proposals", "proposals.json")))
    )
    assert alone.status == beside.status == 0
    assert (read_image("a/fed_epoch0_0.png") != read_image("b/fed_epoch0_0.png")).any()
    refused = run("--proposals", "proposals.json")
    assert refused.status == 2
    assert "--proposals: expected --targets rois or masks with it, got anchors" in refused.stderr


OWN = """
import numpy as np

class Peaks:
    def __call__(self, sample):
        return {"number": np.array(len(sample.boxes))}

    def show(self, picture, x, y):
        picture.note(f"{y['number']} peaks")
        picture.positives(picture.truth.boxes[:1])

def silent(sample):
    return {}
"""


def test_a_users_own_target_is_drawn_if_it_says_how(run, tmp_path):
    (tmp_path / "own_targets_of_a_test.py").write_text(OWN)
    told = run("--targets", "own_targets_of_a_test:Peaks", "--number", 3, "--worst")
    assert (told.status, told.stderr) == (0, "")
    assert int(re.search(r"(\d+) without a positive", told.stdout)[1]) > 0
    silent = run("--targets", "own_targets_of_a_test:silent", "--number", 3)
    assert silent.status == 0
    assert "without a positive" not in silent.stdout
    assert "the targets are not drawn: own_targets_of_a_test:silent has no method show" in silent.stderr
    assert run("--targets", "own_targets_of_a_test:silent", "--worst").status == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ("--targets", "anchor"),
            2,
            "--targets: expected anchors, dense, rois, masks, boxes or MODULE:NAME, got anchor",
        ),
        (("--targets", "nothing:here"), 2, "expected nothing:here to be importable, got No module named 'nothing'"),
        (("--targets", "json:nothing"), 2, "expected json:nothing to be importable"),
        (("--targets", "json:__name__"), 2, "expected a function of a sample, got 'json'"),
        (("--image-id", "nothing"), 1, "nothing is shown: Expected ids of images"),
        (("--class", "nothing"), 1, "nothing is shown: Expected classes among"),
        (("--number", "0"), 2, "--number: expected a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_shown_is_named(run, tmp_path, arguments, status, message):
    result = run(*arguments)
    assert result.status == status
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_image_and_class_are_chosen_and_their_order_kept(run, shapes):
    wanted = [shapes.image_id(position) for position in (3, 1)]
    assert run("--image-id", *wanted).stdout.splitlines()[-1].startswith("2 images, ")
    name = shapes.class_names[0]
    shown = len(set(shapes.positions[(shapes.class_ids == 0) & ~shapes.ignore].tolist()))
    assert run("--class", name, "--number", 100).stdout.splitlines()[-1].startswith(f"{shown} images, ")


def test_labels_are_drawn_without_an_image_read(run, shapes, monkeypatch):
    monkeypatch.setattr("detfeed.batches.samples.read_image", None)
    result = run("--labels", "--out", "there")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "there/labels.png"
    assert len(np.unique(read_image("there/labels.png"))) > 10


def test_picture_that_cannot_be_written_ends_with_1(run, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("--out", "file", "--number", 1)
    assert result.status == 1
    assert "file" in result.stderr
