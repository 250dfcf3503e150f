"""Images whose annotation does not tell which way EXIF turns them: who is warned, and how often."""

import concurrent.futures
import dataclasses
import multiprocessing
import warnings
from pathlib import Path

import albumentations
import numpy as np
import pytest

from detfeed import BatchLoader, Fixed, SampleError, show
from detfeed.batches.notes import UnclearOrientation
from detfeed.feeding.feed import Feed
from image_files import encode, noise

BOX = [3, 4, 15, 18]  # in a picture of 20 x 30 pixels as well as in one of 30 x 20


def position(sample):
    return {"position": np.array(sample.position)}


@pytest.fixture
def turned(annotate, tmp_path):
    """Six pictures of 20 x 30 pixels as stored, whose annotated size is that, and of which EXIF turns the last four."""

    def make(boxes=(BOX,), orientation=6, count=6):
        table = annotate([(20, 30)] * count, [list(boxes)] * count)
        paths = []
        for place in range(count):
            paths.append(str(tmp_path / f"{place}.jpg"))
            content = encode(noise(place, 20, 30), "JPEG", orientation=orientation if place > 1 else 1)
            (tmp_path / f"{place}.jpg").write_bytes(content)
        return dataclasses.replace(table, paths=tuple(paths))

    return make


def make_loader(table, **arguments):
    return BatchLoader(table, position, **{"batch_size": 2, "resize": Fixed((32, 32)), "shuffle": False, **arguments})


def noted(loader):
    found = []
    for index in range(loader.num_batches):
        loader.load(0, index, report=found.append)
    return found


def test_images_are_noted_whose_boxes_fit_both_ways(turned):
    found = noted(make_loader(turned()))
    assert [(note.image_id, note.orientation) for note in found] == [(102, 6), (103, 6), (104, 6), (105, 6)]
    assert all(isinstance(note, UnclearOrientation) for note in found)
    assert found[0].path.endswith("2.jpg")


@pytest.mark.parametrize(
    ("boxes", "orientation", "exif"),
    [
        ([[3, 4, 25, 18]], 6, "auto"),  # fits the stored picture alone
        ([], 6, "auto"),
        ([BOX], 1, "auto"),
        ([BOX], 3, "auto"),  # of the same size both ways
        ([BOX], 6, "ignore"),  # whoever says so knows
    ],
)
def test_images_are_not_noted_that_are_fed_as_they_were_annotated(turned, boxes, orientation, exif):
    assert noted(make_loader(turned(boxes, orientation), exif=exif)) == []


def test_images_annotated_as_exif_turns_them_are_not_noted(turned):
    table = turned()
    hw = np.array([[20, 30]] * 2 + [[30, 20]] * 4, np.int32)
    assert noted(make_loader(dataclasses.replace(table, image_hw=hw))) == []


def test_images_that_a_mosaic_puts_beside_others_are_noted(turned):
    # The first two images are upright: what is noted of their batch is of those beside them.
    loader = make_loader(turned(), augment=albumentations.Mosaic(target_size=(32, 32), cell_shape=(28, 28), p=1))
    found = []
    for epoch in range(4):
        loader.load(epoch, 0, report=found.append)
    assert found


def test_image_that_can_not_be_read_is_an_error_and_not_noted(turned):
    table = turned()
    path = Path(table.paths[2])
    path.write_bytes(path.read_bytes()[:-200])
    found = []
    with pytest.raises(SampleError, match=r"2\.jpg"):
        make_loader(table).load(0, 1, report=found.append)
    assert found == []


@pytest.fixture
def executor():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        yield executor


@pytest.mark.parametrize("way", ["in place", "threads", "processes", "executor"])
def test_feed_warns_once_in_the_asking_process_whoever_makes_the_batches(turned, way, request):
    arguments = {
        "in place": {},
        "threads": {"workers": 2},
        "processes": {"workers": 2, "use_multiprocessing": True},
        "executor": {},
    }[way]
    if way == "executor":
        arguments["executor"] = request.getfixturevalue("executor")
    feed = Feed(make_loader(turned()), **arguments)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for epoch in range(2):
            for index in range(3):
                feed.get((epoch, index), [(epoch, index + 1)] if index < 2 else [])
    feed.close()
    messages = [str(warning.message) for warning in warned]
    assert len(messages) == 1
    assert "2.jpg (image_id 102) is fed as stored" in messages[0]
    assert "EXIF orientation 6" in messages[0] and messages[0].endswith("further ones are not told")
    assert warned[0].filename == __file__


def test_loader_alone_warns_of_each(turned):
    with pytest.warns(UserWarning, match="is fed as stored") as warned:
        make_loader(turned()).load(0, 1)
    assert [warning.filename for warning in warned] == [__file__] * 2
    with pytest.warns(UserWarning, match=r"5\.jpg .*is fed as stored"):
        make_loader(turned()).load_sample(0, 5)


def test_show_draws_such_images_and_warns(turned):
    loader = make_loader(turned())
    with pytest.warns(UserWarning, match="is fed as stored") as warned:
        sheet = show(loader, image_ids=[102, 103])
    assert len(sheet.pictures) == 2
    assert len(warned) == 2
