"""A toy detector whose predictions are the truth: what is scored, and what is mapped, is known."""

import albumentations
import keras
import numpy as np
import pytest

from detfeed import (
    DetectionSequence,
    Fixed,
    PaddedBoxes,
    Replace,
    ScoreDetections,
    ShortSide,
    average_precision,
    predict_detections,
    voc_average_precision,
)

FIGURES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
FIGURES += ["AR@1", "AR@10", "AR@100", "AR@100_small", "AR@100_medium", "AR@100_large"]


class Oracle(keras.Model):
    """Predicts the boxes that x brings, with scores that a weight scales; learns the weight."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        there = keras.ops.cast(x["labels"] >= 0, "float32")
        return {"boxes": x["boxes"], "labels": x["labels"], "scores": there * self.scale}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred["scores"] - 2.0))


def detect(model, x):
    found = model.predict_on_batch(x)
    return found["boxes"], found["scores"], found["labels"]


def make(table, **arguments):
    padded = PaddedBoxes(30)
    arguments = {"batch_size": 5, "resize": ShortSide(64, max_side=100), "shuffle": False, **arguments}
    return DetectionSequence(table, targets=lambda sample: (padded(sample), {}), **arguments)


def compiled():
    model = Oracle()
    model.compile(optimizer="sgd")
    return model


@pytest.mark.parametrize("arguments", [{}, {"shuffle": True}, {"workers": 2}, {"resize": Fixed((50, 70))}])
def test_boxes_come_back_in_pixels_of_the_file_and_in_its_order(shapes, arguments):
    sequence = make(shapes, **arguments)
    sequence.seek(1, 2)
    found = predict_detections(Oracle(), sequence, detect, verbose=False)
    assert sequence.cursor == (1, 2) and sequence.epoch == 1
    for position in range(len(shapes)):
        rows = shapes.rows(position)
        there = ~shapes.ignore[rows]
        np.testing.assert_allclose(found.boxes[position], shapes.boxes[rows][there], atol=2e-5)
        assert found.class_ids[position].tolist() == shapes.class_ids[rows][there].tolist()
        assert found.scores[position].tolist() == [1] * there.sum()
    assert all(boxes.dtype == np.float32 for boxes in found.boxes)
    sequence.close()


def test_boxes_come_back_exactly_where_the_scale_is_a_power_of_two(annotate):
    table = annotate([(40, 64)], [[(3, 5, 17, 33), (0, 0, 64, 40)]])
    for size in (20, 80):
        found = predict_detections(Oracle(), make(table, resize=ShortSide(size)), detect, verbose=False)
        assert found.boxes[0].tolist() == table.boxes.tolist()


def test_detections_are_clipped_to_their_image(annotate):
    table = annotate([(40, 60)], [[]])
    sequence = make(table, resize=Fixed((100, 100)))  # the image is placed at 67 x 100

    def anywhere(model, x):
        return [[(-9, 10, 150, 98)]], [[0.5]], [[2]]

    found = predict_detections(None, sequence, anywhere, verbose=False)
    assert found.boxes[0].tolist() == [[0, np.float32(10 * 40 / 67), 60, 40]]
    assert found.class_ids[0].tolist() == [2]


def test_images_without_detections_are_empty(annotate):
    table = annotate([(40, 60)] * 2, [[], [(1, 1, 5, 5)]])
    found = predict_detections(None, make(table), lambda model, x: ([[], []],) * 3, verbose=False)
    assert [boxes.shape for boxes in found.boxes] == [(0, 4)] * 2
    assert average_precision(table, *found)["AP"] == 0


def test_predictions_that_are_the_truth_score_one(shapes):
    found = predict_detections(Oracle(), make(shapes), detect, verbose=False)
    scores = average_precision(shapes, *found)
    assert scores["AP"] == scores["AR@100"] == pytest.approx(1)
    assert voc_average_precision(shapes, *found)["AP50_area"] == pytest.approx(1)


def test_what_detect_returns_is_checked(annotate):
    sequence = make(annotate([(40, 60)] * 2, [[], []]))
    for answer, message in (
        (None, "each of 2 entries for a batch of 2 images. Received: NoneType"),
        (([], [], []), r"Received: 3 things of \[0, 0, 0\] entries"),
        (([[], []], [[], []]), r"Received: 2 things of \[2, 2\] entries"),
        (([[[1, 2, 3]], []], [[1], []], [[1], []]), r"Received: \(1, 3\), \(1,\) and int.* for .*000\.png"),
        (([[], [[1, 2, 3, 4]]], [[], [1]], [[], [0.5]]), r"float.* for .*001\.png"),
        (([[], [[1, 2, 3, 4]]], [[], [1]], [[], [np.nan]]), r"float.* for .*001\.png"),
        (([[], []], [[], [1]], [[], []]), r"Received: \(0, 4\), \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_detections(None, sequence, lambda model, x, answer=answer: answer, verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augment": albumentations.HorizontalFlip()}, "does not augment.*without augment"),
        ({"augment": "multiscale"}, "does not augment"),
        ({"drop_last": True, "batch_size": 7}, "each of its 24 images once.*feeds 21 of them, 21 times.*drop_last"),
        ({"shard": (0, 2)}, "each of its 24 images once.*feeds 12 of them"),
        ({"sampler": lambda table: np.full(len(table), 2.0)}, "feeds 24 of them, 48 times"),
        ({"on_error": Replace()}, "images it plans to.*without on_error"),
    ],
)
def test_sequences_that_cannot_be_scored_are_refused_with_what_to_use(shapes, arguments, message):
    sequence = make(shapes, **{"resize": Fixed((64, 64)), **arguments})
    with pytest.raises(ValueError, match=message):
        ScoreDetections(sequence, detect)
    with pytest.raises(ValueError, match=message):
        predict_detections(Oracle(), sequence, detect)


def test_figures_are_in_the_logs_for_other_callbacks(shapes, tmp_path, capsys):
    sequence = make(shapes)
    score = ScoreDetections(make(shapes, workers=2), detect)
    best = tmp_path / "best.weights.h5"
    model = compiled()
    history = model.fit(
        sequence,
        epochs=4,
        callbacks=[
            score,
            keras.callbacks.ModelCheckpoint(
                best, monitor="val_AP", mode="max", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.EarlyStopping(monitor="val_AP50", mode="max", patience=2),
        ],
        verbose=0,
    ).history
    assert best.exists()
    assert history["val_AP"] == pytest.approx([1] * 3)  # no better for two epochs
    assert [name for name in history if name.startswith("val_")] == [f"val_{name}" for name in FIGURES]
    assert list(score.scores) == [*FIGURES, *[f"AP/{name}" for name in shapes.class_names]]
    assert average_precision(shapes, *score.detections) == pytest.approx(score.scores, nan_ok=True)
    assert capsys.readouterr().out == ""
    score.sequence.close()


def test_scores_follow_the_model_and_stand_between_scorings(annotate):
    boxes = [[(10 * i, 0, 10 * i + 8, 9) for i in range(4)]]
    table = annotate([(10, 60)], boxes, classes=1)
    asked = []

    def ever_more(model, x):
        asked.append(len(asked))
        found, scores, labels = detect(model, x)
        return found[:, : len(asked)], scores[:, : len(asked)], labels[:, : len(asked)]

    score = ScoreDetections(make(table), ever_more, every=3, score=voc_average_precision)
    model = compiled()
    history = model.fit(make(table), epochs=6, callbacks=[score], verbose=0).history
    assert history["val_AP50_area"] == pytest.approx([0.25] * 3 + [0.5] * 2 + [0.75])  # epochs 0, 3 and the last
    history = model.fit(make(table), epochs=8, initial_epoch=6, callbacks=[score], verbose=0).history
    assert history["val_AP50_area"] == pytest.approx([1, 1])
    assert len(asked) == 5


def test_progress_is_shown_where_fit_shows_its_own(annotate, capsys):
    table = annotate([(10, 60)], [[(0, 0, 9, 9)]])
    compiled().fit(make(table), callbacks=[ScoreDetections(make(table), detect)], verbose=1)
    assert "val_AP: 1.0" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"every to be at least 1\. Received: 0"):
        ScoreDetections(make(table), detect, every=0)
