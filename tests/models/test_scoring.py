"""Proposals and scores of a sequence, from a model that returns the same boxes for every image."""

import json
import math
import types

import cv2
import numpy as np
import pytest

import detfeed
from detfeed.models import propose, save_proposals, score


@pytest.fixture
def sequence(shapes):
    return detfeed.DetectionSequence(
        shapes, targets=lambda sample: {}, batch_size=5, resize=detfeed.ShortSide(48), shuffle=False
    )


@pytest.fixture
def model():
    """Finds one box of 12 x 24 pixels of the input in every image."""

    def predict_on_batch(x):
        boxes = np.zeros((len(x["image"]), 3, 4), np.float32)
        boxes[:, 0] = [6, 12, 18, 36]
        scores = np.full((len(x["image"]), 3), -1, np.float32)
        scores[:, 0] = 0.75
        return {"boxes": boxes, "scores": scores}

    return types.SimpleNamespace(predict_on_batch=predict_on_batch)


def test_proposals_are_in_pixels_of_the_files_in_the_order_of_the_annotations(model, sequence, shapes):
    boxes, scores = propose(model, sequence, verbose=0)
    assert len(boxes) == len(scores) == len(shapes)
    for position in range(len(shapes)):
        assert scores[position].tolist() == [0.75]
        np.testing.assert_allclose(boxes[position], [[12, 24, 36, 72]], rtol=0.02)


def test_images_without_proposals_are_no_results(shapes, tmp_path):
    none, one = np.zeros((0, 4), np.float32), np.array([[1, 2, 4, 8.126]], np.float32)
    boxes = [none] * (len(shapes) - 1) + [one]
    scores = [none[:, 0]] * (len(shapes) - 1) + [np.array([0.5], np.float32)]
    save_proposals(tmp_path / "proposals.json", shapes, boxes, scores)
    assert json.loads((tmp_path / "proposals.json").read_text()) == [
        {"image_id": shapes.image_id(len(shapes) - 1), "category_id": 1, "bbox": [1, 2, 3, 6.13], "score": 0.5}
    ]


def test_score_writes_proposals_recalls_and_pictures(model, sequence, tmp_path):
    recall = score(model, sequence, tmp_path / "new", verbose=0)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"proposals.json", "recall.json", "proposals.png"}
    written = json.loads((tmp_path / "new" / "recall.json").read_text())
    assert {name: math.nan if figure is None else figure for name, figure in written.items()} == pytest.approx(
        recall, nan_ok=True
    )
    assert cv2.imread(str(tmp_path / "new" / "proposals.png")) is not None
