"""What is read from the folder of a run."""

import json

import numpy as np
import pytest

from detfeed import AnnotationError, write_results
from detfeed.readers.coco_results import read_results
from detfeed.report.run import read_run, read_settings

BOX = [10, 10, 20, 20]


def test_detections_are_read_as_they_were_written(make_set, tmp_path):
    table = make_set([[(1, BOX)], [(2, BOX)], []])()
    boxes = [
        np.array([[1, 2, 3, 4.5], [5, 6, 7, 8]], np.float32),
        np.zeros((0, 4)),
        np.array([[0, 0, 9, 9]], np.float32),
    ]
    scores = [np.array([0.25, 0.75]), np.zeros(0), np.array([0.5])]
    class_ids = [np.array([1, 0]), np.zeros(0, int), np.array([1])]
    write_results(tmp_path / "results.json", table, boxes, scores, class_ids)
    results = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps(results[::-1]))  # any order of images
    found = read_results(tmp_path / "results.json", table)
    assert found.positions.tolist() == [0, 0, 2]
    assert found.boxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4.5], [0, 0, 9, 9]]
    assert found.scores.tolist() == [0.75, 0.25, 0.5]
    assert found.class_ids.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 7}, r"category_id of a class in .*a\.json \(such as 10\), got 7 - at `\[1\]\.category_id`"),
        ({"image_id": 9}, r"image_id of an image in .*a\.json .*got 9 - at `\[1\]\.image_id`"),
        ({"category_id": "cat"}, r"`\[1\]\.category_id`"),
    ],
)
def test_detections_of_other_data_are_refused_with_their_place(make_set, tmp_path, change, message):
    table = make_set([[(1, BOX)]])()
    row = {"image_id": 0, "category_id": 10, "bbox": BOX, "score": 0.5}
    (tmp_path / "results.json").write_text(json.dumps([row, row | change]))
    with pytest.raises(AnnotationError, match=message):
        read_results(tmp_path / "results.json", table)


def test_a_log_keeps_what_is_a_finite_number(make_set, make_run):
    table = make_set([[(1, BOX)]])()
    run = read_run(make_run(table, [[]], log="epoch,loss,AP\n0,2.5,\n1,nan,0.25\n2,inf\nx,1,1\n"), table)
    assert run.log == [{"epoch": 0, "loss": 2.5}, {"epoch": 1, "AP": 0.25}, {"epoch": 2}]
    assert run.classes
    assert run.scores["AP"] == 0.25


def test_the_best_proposals_of_each_image_are_read(make_set, tmp_path, monkeypatch):
    monkeypatch.setattr("detfeed.report.run.MOST_PROPOSALS", 2)
    table = make_set([[(1, BOX)], [(2, BOX)]])()
    results = [
        {"image_id": image_id, "category_id": 1, "bbox": BOX, "score": score}
        for image_id, score in [(1, 0.5), (0, 0.25), (1, 0.75), (1, 0.625), (0, 0.125)]
    ]
    (tmp_path / "proposals.json").write_text(json.dumps(results))
    (tmp_path / "recall.json").write_text('{"AR@100": 0.5, "AR@100_large": NaN}')
    run = read_run(tmp_path, table)
    assert not run.classes
    assert run.found.positions.tolist() == [0, 0, 1, 1]
    assert run.found.scores.tolist() == [0.25, 0.125, 0.75, 0.625]
    assert set(run.found.class_ids.tolist()) == {-1}


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"expected the folder of a run, with some of settings\.json"):
        read_settings(tmp_path)


@pytest.mark.parametrize("names", ["cat", {"cat": 1}, [1]])
def test_a_detector_whose_classes_are_no_names_is_refused(make_set, make_run, names):
    table = make_set([[(1, BOX)]])()
    run = make_run(table, [[]])
    (run / "detector.json").write_text(json.dumps({"class_names": names}))
    with pytest.raises(AnnotationError, match=r"detector\.json: expected a list of names at `\$\.class_names`, got "):
        read_run(run, table)


@pytest.mark.parametrize("content", ["[1]", "{", "\x00"])
def test_settings_that_are_no_object_are_refused(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(AnnotationError, match=r"settings\.json: expected a JSON object"):
        read_settings(tmp_path)
