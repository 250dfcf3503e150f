"""Showing: what is drawn is what is fed, and the images asked for are shown."""

import dataclasses
import os
import re
from types import SimpleNamespace

import albumentations
import numpy as np
import pytest

from detfeed import (
    AnchorGrid,
    AnchorTargets,
    BatchLoader,
    Feed,
    PaddedBoxes,
    RepeatFactor,
    Replace,
    SampleError,
    Sheet,
    ShortSide,
    show,
)
from detfeed.drawing.marks import RED, WHITE
from detfeed.drawing.sheets import png
from detfeed.images.decoding import read_image

GRID = AnchorGrid.fpn(sizes=(16, 32, 64, 128, 256))


def make_loader(annotations, targets=None, **arguments):
    arguments = {"batch_size": 4, "resize": ShortSide(96), "seed": 5, **arguments}
    return BatchLoader(annotations, targets or AnchorTargets(GRID), **arguments)


def ids(sheet):
    return [re.search(r"image (\w+)", picture.title)[1] for picture in sheet.pictures]


def test_images_are_those_of_the_batches_in_their_order(shapes):
    loader = make_loader(shapes, augment=albumentations.HorizontalFlip(p=0.5))
    sheet = show(loader, epoch=2, num_images=7)
    fed = [row for index in range(4) for row in zip(*loader.load(2, index)[0].values(), strict=True)]
    assert len(sheet.pictures) == 7
    for picture, (image, (height, width)) in zip(sheet.pictures, fed, strict=False):
        np.testing.assert_array_equal(picture.image, image[:height, :width])
        assert picture.input_hw == image.shape[:2]
    assert ids(sheet) == [str(shapes.image_id(p)) for batch in loader.batches(2) for p in batch][:7]


def test_dots_are_the_negatives_of_the_batch_fed(shapes):
    loader = make_loader(shapes)
    empty = next(p for p in range(len(shapes)) if not len(shapes.boxes[shapes.rows(p)]))
    (picture,) = show(loader, image_ids=[shapes.image_id(empty)]).pictures
    index, row = next((i, batch.tolist().index(empty)) for i, batch in enumerate(loader.batches(0)) if empty in batch)
    _, fed = loader.load(0, index)
    picture.image[:] = 0  # black, so that white is nothing but dots
    drawn = picture.tile(1).image
    expected = np.zeros(drawn.shape[:2], bool)
    for x0, y0, x1, y1 in GRID.anchors(picture.input_hw)[fed["anchor_index"][row]]:
        x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
        expected[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
    np.testing.assert_array_equal((drawn == WHITE).all(axis=2), expected)


def test_truth_is_the_sample_that_the_targets_saw_though_they_change_it(shapes):
    seen = []

    def targets(sample):
        seen.append((sample.image_id, sample.boxes.copy()))
        sample.boxes[:] = 0
        return {"number": np.array(len(sample.boxes))}

    sheet = show(make_loader(shapes, targets), index=1)
    for picture, (image_id, boxes) in zip(sheet.pictures, seen, strict=True):
        assert picture.title == f"image {image_id}"
        np.testing.assert_array_equal(picture.truth.boxes, boxes)
    assert not any(picture.has_positives or picture.unmatched.any() for picture in sheet.pictures)


def test_sequence_feed_and_loader_show_the_same_and_inputs_change_nothing(shapes):
    plain = make_loader(shapes)
    one = make_loader(shapes, inputs="image")
    sequence = SimpleNamespace(loader=plain, epoch=0)  # what show looks at; Keras takes seconds to import
    sheets = [show(each, index=0) for each in (plain, one, Feed(plain), sequence)]
    for sheet in sheets:
        for picture, first in zip(sheet.pictures, sheets[0].pictures, strict=True):
            np.testing.assert_array_equal(picture.tile(1).image, first.tile(1).image)
    sequence.epoch = 3
    assert show(sequence, num_images=1).title.startswith("what is fed, epoch 3")


def test_images_by_id_come_in_the_order_asked_for(shapes):
    wanted = [shapes.image_id(position) for position in (7, 2, 11)]
    assert ids(show(make_loader(shapes), image_ids=wanted)) == [str(each) for each in wanted]


def test_image_that_comes_several_times_is_shown_as_often(shapes):
    loader = make_loader(shapes, sampler=RepeatFactor(1.0))
    positions = np.concatenate(loader.batches(0))
    often = int(np.bincount(positions).argmax())
    sheet = show(loader, image_ids=[shapes.image_id(often)])
    assert len(sheet.pictures) == (positions == often).sum() > 1


def test_images_of_a_class_have_an_object_of_it(shapes):
    name = shapes.class_names[1]
    sheet = show(make_loader(shapes), classes=[name], num_images=100)
    rows = (shapes.class_ids == 1) & ~shapes.ignore
    assert sorted(ids(sheet)) == sorted(str(shapes.image_id(p)) for p in set(shapes.positions[rows].tolist()))


def test_worst_images_come_first(shapes):
    targets = AnchorTargets(AnchorGrid.c4(sizes=(300,)))
    loader = make_loader(shapes, targets)
    sheet = show(loader, worst=True, num_images=100)
    counts = [int(picture.unmatched.sum()) for picture in sheet.pictures]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 0
    assert len(counts) == len(shapes)
    assert sheet.num_unmatched == sum(counts)
    expected = {}
    for position in range(len(shapes)):
        sample = loader.load_sample(0, position)
        matched = np.isin(np.arange(len(sample.boxes)), targets.match(sample).match)
        expected[str(sample.image_id)] = int((~matched & ~sample.ignore).sum())
    assert expected == dict(zip(ids(sheet), counts, strict=True))


def test_worst_of_a_class_counts_that_class_alone_and_of_the_first_images_alone(shapes):
    loader = make_loader(shapes, AnchorTargets(AnchorGrid.c4(sizes=(300,))))
    sheet = show(loader, worst=True, classes=[shapes.class_names[0]], num_images=100)
    counts = [int((picture.unmatched & (picture.truth.class_ids == 0)).sum()) for picture in sheet.pictures]
    assert counts == sorted(counts, reverse=True)
    some = show(loader, worst=True, among=6, num_images=100)
    assert len(some.pictures) == 6
    assert "worst of 6 images of 24" in some.title


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_ids": [-7]}, "Expected ids of images of .*Received: -7"),
        ({"classes": ["squar"]}, "Expected classes among .*'squar'"),
        ({"index": 99}, "Expected a batch from 0 to"),
    ],
)
def test_what_there_is_not_is_named(shapes, arguments, message):
    with pytest.raises(ValueError, match=message):
        show(make_loader(shapes), **arguments)


def test_image_that_the_epoch_does_not_feed_is_an_error_that_says_so(shapes):
    loader = make_loader(shapes, shard=(0, 2))
    fed = set(np.concatenate(loader.batches(0)).tolist())
    missing = next(position for position in range(len(shapes)) if position not in fed)
    with pytest.raises(ValueError, match="an image that epoch 0 feeds"):
        show(loader, image_ids=[shapes.image_id(missing)])


def test_worst_needs_targets_that_name_their_positives(shapes):
    def silent(sample):
        return {}

    with pytest.raises(ValueError, match="a method show"):
        show(make_loader(shapes, silent), worst=True)
    silent.show = lambda picture, x, y: picture.note("nothing")
    with pytest.raises(ValueError, match=r"picture\.positives"):
        show(make_loader(shapes, silent), worst=True)


def test_feed_of_another_type_is_an_error():
    with pytest.raises(TypeError, match="a sequence, Feed or BatchLoader"):
        show([1, 2])


def test_show_that_fails_says_of_which_image(shapes):
    def targets(sample):
        return {"one": np.ones(1)}

    targets.show = lambda picture, x, y: y["two"]
    with pytest.raises(KeyError) as failed:
        show(make_loader(shapes, targets), index=0)
    assert re.match(r"in function.show, of image \w+", failed.value.__notes__[0])


def test_image_that_is_fed_in_place_of_another_is_shown_and_named(shapes, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    table = dataclasses.replace(shapes, paths=(str(broken), *shapes.paths[1:]))
    with pytest.raises(SampleError, match="broken"):
        show(make_loader(table), image_ids=[shapes.image_id(0)])
    (picture,) = show(make_loader(table, on_error=Replace()), image_ids=[shapes.image_id(0)]).pictures
    assert picture.title != f"image {shapes.image_id(0)}"
    assert picture.caption()[1] == "in place of broken.png, which can't be read"


def test_sheet_is_of_one_scale_and_shows_itself(shapes, tmp_path):
    sheet = show(make_loader(shapes, PaddedBoxes.for_annotations(shapes)), num_images=5, side=128)
    assert repr(sheet) == f"Sheet(5 images, {sheet.num_objects} objects, 0 without a positive)"
    sheet.save(tmp_path / "new" / "sheet.png")
    np.testing.assert_array_equal(read_image(os.fspath(tmp_path / "new" / "sheet.png")), sheet.draw())
    assert sheet._repr_png_() == png(sheet.draw())
    assert not any((picture.tile(1).image == RED).all(axis=2).any() for picture in sheet.pictures)


def test_sheet_without_pictures_is_its_title():
    assert Sheet((), "nothing").draw().shape[2] == 3
