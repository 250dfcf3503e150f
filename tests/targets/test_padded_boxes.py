from typing import get_args

import albumentations
import numpy as np
import pytest

from detfeed import BatchLoader, Fixed, PaddedBoxes, Sample, SampleError, ShortSide
from detfeed.targets.padded_boxes import BoxForm


def make_sample(boxes, *, ignore=None, input_hw=(40, 80)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=np.zeros((30, 60, 3), np.uint8),
        boxes=boxes,
        class_ids=np.arange(len(boxes), dtype=np.int32),
        ignore=np.zeros(len(boxes), bool) if ignore is None else np.array(ignore, bool),
        image_id=42,
        position=0,
        input_hw=input_hw,
        rng=np.random.default_rng(0),
    )


def test_sample_without_boxes_is_padding_alone():
    y = PaddedBoxes(2)(make_sample([]))
    assert list(y) == ["boxes", "labels"]
    assert y["boxes"].dtype == np.float32 and y["boxes"].tolist() == [[-1] * 4] * 2
    assert y["labels"].dtype == np.int32 and y["labels"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("xyxy", (8, 4, 16, 24)),
        ("yxyx", (4, 8, 24, 16)),
        ("xywh", (8, 4, 8, 20)),
        ("center_xywh", (12, 14, 8, 20)),
        ("center_yxhw", (14, 12, 20, 8)),
        ("rel_xyxy", (0.1, 0.1, 0.2, 0.6)),
        ("rel_yxyx", (0.1, 0.1, 0.6, 0.2)),
        ("rel_xywh", (0.1, 0.1, 0.1, 0.5)),
        ("rel_center_xywh", (0.15, 0.35, 0.1, 0.5)),
    ],
)
def test_forms_on_paper_relative_ones_to_the_canvas(form, expected):
    # The canvas is 40 high and 80 wide, the image in its corner 30 and 60.
    y = PaddedBoxes(2, form=form)(make_sample([(8, 4, 16, 24)]))
    np.testing.assert_allclose(y["boxes"], [expected, [-1] * 4], rtol=1e-6)


@pytest.mark.parametrize("form", get_args(BoxForm))
def test_forms_are_those_of_keras(form):
    import keras

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (50, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 20, (50, 2))], axis=1).astype(np.float32)
    y = PaddedBoxes(50, form=form)(make_sample(boxes, input_hw=(48, 91)))
    expected = keras.utils.bounding_boxes.convert_format(boxes, "xyxy", form, height=48, width=91)
    np.testing.assert_allclose(y["boxes"], np.array(expected), rtol=1e-5, atol=1e-6)


def test_conversion_leaves_the_sample_alone():
    sample = make_sample([(8, 4, 16, 24)])
    for form in get_args(BoxForm):
        PaddedBoxes(1, form=form)(sample)["boxes"][:] = 0
    assert sample.boxes.tolist() == [[8, 4, 16, 24]]


def test_ignored_boxes_are_left_out_or_marked():
    sample = make_sample([(0, 0, 5, 5), (1, 1, 6, 6), (2, 2, 7, 7)], ignore=[False, True, False])
    y = PaddedBoxes(2)(sample)
    assert y["boxes"].tolist() == [[0, 0, 5, 5], [2, 2, 7, 7]] and y["labels"].tolist() == [0, 2]
    names = {"b": "boxes", "classes": "class_ids", "there": "mask", "is_crowd": "ignore"}
    y = PaddedBoxes(4, names=names, padding=0)(sample)
    assert list(y) == list(names)
    assert y["b"].tolist() == [[0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7], [0, 0, 0, 0]]
    assert y["classes"].tolist() == [0, 1, 2, 0]
    assert y["there"].dtype == y["is_crowd"].dtype == bool
    assert y["there"].tolist() == [True, True, True, False]
    assert y["is_crowd"].tolist() == [False, True, False, False]


def test_number_of_places_is_taken_from_the_data(annotate):
    boxes = [[(0, 0, 10, 10)] * 3, [(0, 0, 10, 10)], []]
    table = annotate([(50, 50)] * 3, boxes, ignore_of=[[False, True, True], [False], []])
    assert PaddedBoxes.for_annotations(table).num_boxes == 1
    padded = PaddedBoxes.for_annotations(table, names={"boxes": "boxes", "crowd": "ignore"}, form="yxyx", padding=0)
    assert (padded.num_boxes, padded.form, padded.padding) == (3, "yxyx", 0)
    assert PaddedBoxes.for_annotations(table, num_images=4).num_boxes == 4
    assert PaddedBoxes.for_annotations(annotate([(50, 50)], [[]])).num_boxes == 1


def test_too_few_places_are_an_error_with_the_number_and_the_image(annotate):
    table = annotate([(50, 50)] * 2, [[(0, 0, 10, 10)], [(i, i, i + 9, i + 9) for i in range(5)]])
    loader = BatchLoader(table, PaddedBoxes(3), batch_size=2, resize=Fixed((50, 50)), shuffle=False)
    with pytest.raises(
        SampleError, match=r"001\.png \(image_id 101.*at most 3 boxes, got 5 - at image 101; PaddedBoxes\(5"
    ):
        loader.load(0, 0)


def test_mosaic_has_places_enough(shapes):
    mosaic = albumentations.Mosaic(target_size=(192, 256), cell_shape=(96, 128), center_range=(0.5, 0.5), p=1)
    arguments = {"batch_size": 8, "resize": ShortSide(96), "augment": mosaic}
    loader = BatchLoader(shapes, PaddedBoxes.for_annotations(shapes, num_images=4), **arguments)
    most = 0
    for index in range(loader.num_batches):
        _, y = loader.load(0, index)
        most = max(most, (y["labels"] >= 0).sum(axis=1).max())
    assert most > PaddedBoxes.for_annotations(shapes).num_boxes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_boxes": 0}, "num_boxes to be at least 1. Received: 0"),
        ({"form": "xxyy"}, "form to be one of .*Received: 'xxyy'"),
        ({"names": {"boxes": "box"}}, "names to be a dict of some of .*Received: {'boxes': 'box'}"),
        ({"names": {"labels": "class_ids"}}, '"boxes" among them'),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PaddedBoxes(**{"num_boxes": 3, **arguments})
