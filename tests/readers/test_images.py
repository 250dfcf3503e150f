"""Images that nobody has annotated, as a table."""

import os

import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, BatchLoader, Fixed, ImageError, RepeatedImageError, read_images


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them in a subfolder, beside files that are none."""
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name, hw in (("b/a.png", (4, 6)), ("c.JPG", (8, 3)), (".hidden/d.png", (2, 2)), ("._c.jpg", (2, 2))):
        cv2.imencode(os.path.splitext(name)[1], np.full((*hw, 3), 9, np.uint8))[1].tofile(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_images_of_a_folder_come_in_the_order_of_their_names_without_boxes(folder):
    table = read_images(folder)
    assert table.image_ids.tolist() == ["b/a.png", "c.JPG"]
    assert table.image_hw.tolist() == [[4, 6], [8, 3]]
    assert (len(table.boxes), table.class_names) == (0, ())


def test_they_are_fed_like_any_others(folder):
    loader = BatchLoader(read_images(folder), lambda sample: {}, batch_size=2, resize=Fixed((8, 8)), shuffle=False)
    x, _ = loader.load(0, 0)
    assert x["image_hw"].tolist() == [[5, 8], [8, 3]]


def test_listed_images_and_folders_are_named_as_they_are_written(folder):
    table = read_images([folder / "c.JPG", folder / "b"])
    assert table.image_ids.tolist() == [f"{folder}/c.JPG", f"{folder}/b/a.png"]


def test_one_image_alone_is_named_as_it_is_written(folder):
    assert read_images(folder / "c.JPG").image_ids.tolist() == [f"{folder}/c.JPG"]


def test_image_that_is_named_twice_is_an_error(folder):
    with pytest.raises(RepeatedImageError, match=r"c.JPG: expected each image once, got .* - at image source 2"):
        read_images([folder, folder / "c.JPG"])


def test_no_images_are_an_error(tmp_path):
    for none in (tmp_path, [tmp_path], []):
        with pytest.raises(AnnotationError, match="expected images, got none"):
            read_images(none)


def test_image_that_is_missing_or_none_is_an_error_or_handed_to_on_problem(folder):
    for path in (folder / "missing.png", folder / "notes.txt"):
        with pytest.raises(ImageError, match=rf"{path.name}: expected an image"):
            read_images([folder, path])
        told = {}
        assert len(read_images([folder, path], on_problem=told.__setitem__)) == 2
        assert list(told) == [str(path)]
