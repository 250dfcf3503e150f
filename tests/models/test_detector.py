"""A detector on pictures, with a model that finds the same box everywhere. tests/scripts trains real ones."""

import json

import cv2
import numpy as np
import pytest

from detfeed import DetfeedError, Fixed, ShortSide
from detfeed.models import DetectionModel, Detector, load_detector


class OneBox(DetectionModel):
    """Finds the left half of each image with a score of 0.75, and a part of it with 0.25."""

    def predict_on_batch(self, x):
        height, width = x["image_hw"].T.astype(np.float32)
        boxes = np.zeros((len(height), 3, 4), np.float32)
        boxes[:, 0, 2:] = np.stack([width / 2, height], axis=1)
        boxes[:, 1, 2:] = np.stack([width / 4, height], axis=1)
        scores = np.tile(np.float32([0.75, 0.25, -1]), (len(height), 1))
        return {"boxes": boxes, "scores": scores, "class_ids": np.tile(np.int32([1, 0, -1]), (len(height), 1))}


@pytest.fixture(params=[ShortSide(32), Fixed((64, 64))])
def detector(request):
    model = object.__new__(OneBox)
    object.__setattr__(model, "faster_rcnn", type("Any", (), {"num_classes": 2}))
    return Detector(model, ("cat", "dog"), request.param)


@pytest.fixture
def pictures(tmp_path):
    sizes = [(40, 60), (80, 20), (33, 47)]
    paths = []
    for number, hw in enumerate(sizes):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), np.zeros((*hw, 3), np.uint8))
    return paths, sizes


def test_boxes_are_in_pixels_of_the_picture_and_classes_have_names(detector, pictures):
    paths, sizes = pictures
    arrays = [np.zeros((*hw, 3), np.uint8) for hw in sizes]
    for given in (paths, [str(path) for path in paths], arrays, [paths[0], arrays[1], paths[2]]):
        for found, (height, width) in zip(detector(given), sizes, strict=True):
            np.testing.assert_allclose(found.boxes, [[0, 0, width / 2, height], [0, 0, width / 4, height]], rtol=1e-5)
            assert found.class_names == ["dog", "cat"]
            assert found.scores.tolist() == [0.75, 0.25]


def test_one_picture_is_a_list_of_one_and_none_are_none(detector, pictures):
    assert len(detector(pictures[0][0])) == len(detector(np.zeros((9, 9, 3), np.uint8))) == 1
    assert detector([]) == []


def test_low_scores_are_left_out(detector, pictures):
    (found,) = detector(pictures[0][0], min_score=0.5)
    assert (len(found.boxes), found.class_ids.tolist(), found.class_names) == (1, [1], ["dog"])
    assert len(found.best(min_score=0.9).boxes) == 0
    assert detector(pictures[0][0])[0].best(top=1).scores.tolist() == [0.75]


def test_picture_named_twice_is_answered_twice(detector, pictures):
    path = pictures[0][0]
    first, second = detector([path, str(path)])
    np.testing.assert_array_equal(first.boxes, second.boxes)


@pytest.mark.parametrize("picture", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), 3])
def test_something_that_is_no_picture_is_an_error(detector, picture):
    with pytest.raises(TypeError, match="Expected a path, or an array uint8"):
        detector([picture])


def test_folder_is_no_picture(detector, tmp_path):
    with pytest.raises(ValueError, match="a folder; see find, read_images"):
        detector([tmp_path])


def test_detector_needs_a_name_for_each_class(detector):
    with pytest.raises(ValueError, match=r"Expected names of 2 classes. Received: \('cat',\)"):
        Detector(detector.model, ("cat",))


SIZES = {"fixed": {"input_hw": [64, 64]}}


@pytest.mark.parametrize(
    "content",
    [
        *(None, "{", "[]", "{}"),
        json.dumps({"resize": {"x": {}}, "model": None}),
        json.dumps({"resize": [1], "model": None}),
        json.dumps({"resize": SIZES, "model": None, "class_names": ["a"]}),
    ],
)
def test_folder_without_a_detector_is_an_error_with_an_address(tmp_path, content):
    if content is not None:
        (tmp_path / "detector.json").write_text(content)
    with pytest.raises(
        DetfeedError, match=r"detector.json: expected a detector, got .*; give the folder of a training"
    ):
        load_detector(tmp_path)
