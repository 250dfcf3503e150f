import json
import os

import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, EntryError, ImageError, MissingImageError, RepeatedImageError, read_coco, read_lvis
from detfeed.readers import coco_images

# Small files are mostly crowds soon; test_ignored_classes.py looks at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*classes have more ignored boxes than objects")


def entry(image_id=1, name="a.png", **more):
    return {"id": image_id, "file_name": name, "height": 20, "width": 30, **more}


def box(image_id=1, bbox=(1, 2, 3, 4), **more):
    return {"image_id": image_id, "category_id": 1, "bbox": list(bbox), **more}


@pytest.fixture(params=[read_coco, read_lvis])
def read(request, tmp_path):
    """Write a file and read it; returns the table and what was told: places or paths, and classes of errors."""

    def write_and_read(images, annotations=(), categories=({"id": 1, "name": "cat"},), image_dir=tmp_path, **arguments):
        content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
        (tmp_path / "a.json").write_text(json.dumps(content))
        told = []
        table = request.param(
            tmp_path / "a.json", image_dir, on_problem=lambda path, error: told.append((path, error)), **arguments
        )
        assert all(str(error).startswith(f"{path}: ") for path, error in told)
        return table, [(type(error), str(error).partition(" - at ")[2].split(" (")[0]) for _, error in told]

    return write_and_read


def draw(path, hw=(20, 30), orientation=1):
    """Write an image, as a JPEG with an EXIF orientation if that is not 1."""
    cv2.imwrite(str(path), np.zeros((*hw, 3), np.uint8))
    if orientation > 1:
        data = path.read_bytes()
        tags = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation]) + b"\0\0\0\0\0\0"
        block = b"Exif\0\0" + tags
        path.write_bytes(data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])


def test_file_without_images_is_ordinary(read):
    table, told = read([])
    assert (len(table), told) == (0, [])


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": -1, "width": -1}, {"height": ""}])
def test_size_that_the_file_does_not_give_is_that_of_the_image_as_people_see_it(read, tmp_path, size):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.jpg", orientation=6)
    images = [{"id": 1, "file_name": "a.png"} | size, {"id": 2, "file_name": "b.jpg"} | size]
    table, told = read(images, [box(1), box(2)])
    assert table.image_hw.tolist() == [[20, 30], [30, 20]]
    assert told == []


def test_image_without_a_size_that_cannot_be_opened_is_left_out_and_told(read, tmp_path):
    table, told = read([entry(1, height=None), entry(2, "b.png")], [box(1), box(2)])
    assert table.image_ids.tolist() == [2]
    assert [kind for kind, _ in told] == [ImageError]
    assert len(table.boxes) == 1


def test_no_other_image_is_opened(read):
    assert len(read([entry()], [box()])[0]) == 1  # a.png does not exist


def test_each_bad_entry_is_told_once_and_the_rest_is_read(read):
    images = [
        entry(1), {"file_name": "x.png"}, entry(3, "../3.png"), entry(4, None), entry(5), entry(5), entry(6), entry([]),
        7, entry(8, height="tall"), entry(9, "9.png"), entry(9, "other.png"), entry("b", "b.png"),
    ]  # fmt: skip
    annotations = [
        box(1), box(1, []), box(2), box(3), box(4), box(5), box(6), box(6, category_id=4), box(8), box(9), box("b"), 3,
        box(1, category_id="dog"), box(5, [1, 2, 3]),
    ]  # fmt: skip
    table, told = read(images, annotations)
    assert table.image_ids.tolist() == [5]
    assert table.boxes.tolist() == [[1, 2, 4, 6]]
    assert told == [
        (AnnotationError, "`images[1]`"),
        (AnnotationError, "`images[3].file_name`"),
        (AnnotationError, "`images[7].id`"),
        (AnnotationError, "`images[8]`"),
        (AnnotationError, "`images[9].height`"),
        (AnnotationError, "`images[2].file_name`"),
        (RepeatedImageError, "`images[5].id`, first at `images[4].id`"),
        (AnnotationError, "`images[10].id`"),
        (AnnotationError, "`images[11].id`, first at `images[10].id`"),
        (AnnotationError, "`images[12].id`"),
        (EntryError, "`annotations[1].bbox`"),
        (MissingImageError, "`annotations[2]`"),
        (AnnotationError, "`annotations[7]`"),
        (MissingImageError, "`annotations[10]`"),
        (EntryError, "`annotations[11]`"),
        (AnnotationError, "`annotations[12].category_id`"),
        (EntryError, "`annotations[13].bbox`"),
    ]


def test_category_that_is_not_clear_leaves_out_the_images_that_have_it(read):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "a"}, {"id": 2, "name": "b"}, {"id": 1, "name": "cat"}]
    categories.append({"id": 3})
    table, told = read([entry(1), entry(2, "b.png")], [box(1), box(2, category_id=2)], categories)
    assert table.image_ids.tolist() == [1]
    assert table.class_names == ("cat",)
    assert told == [
        (EntryError, "`categories[4]`"),
        (AnnotationError, "`categories[2].id`, first at `categories[1].id`"),
        (EntryError, "`categories[3].id`, first at `categories[0].id`"),
        (AnnotationError, "`annotations[1]`"),
    ]


@pytest.mark.parametrize(("of_image", "of_box"), [(0, "0"), (12, "000012"), ("0", 0), ("000012", 12)])
def test_ids_that_are_texts_here_and_numbers_there_are_the_same_if_that_is_unambiguous(read, of_image, of_box):
    images = [entry(of_image), entry("x" if isinstance(of_image, str) else 99, "b.png")]
    with pytest.warns(UserWarning, match=r"image ids that are .*; they are taken as the same - at `annotations\[0\]`"):
        table, told = read(images, [box(of_box)])
    assert table.offsets.tolist() == [0, 1, 1]
    assert told == []


def test_ids_that_are_texts_here_and_numbers_there_are_not_guessed(read):
    _, told = read([entry("12"), entry("012", "b.png")], [box(12)])
    assert told == [(MissingImageError, "`annotations[0]`")]


def test_box_that_fits_only_the_turned_picture_tells_which_way_boxes_were_drawn(read, tmp_path):
    for name, orientation in (("a.jpg", 6), ("b.jpg", 6), ("c.jpg", 3), ("d.jpg", 8)):
        draw(tmp_path / name, orientation=orientation)
    images = [entry(i, f"{name}.jpg") for i, name in enumerate("abcde")]
    tall, wide, small = (1, 2, 15, 26), (1, 2, 25, 15), (1, 2, 3, 4)
    boxes = [box(0, tall), box(0, small), box(1, small), box(2, small), box(3, tall), box(3, wide), box(4, small)]
    with pytest.warns(UserWarning) as warned:
        table, _ = read(images, boxes)
    assert table.image_hw.tolist() == [[30, 20], [20, 30], [20, 30], [20, 30], [20, 30]]
    assert table.boxes[0].tolist() == [1, 2, 16, 28]
    assert sum("boxes fit only the picture as its EXIF orientation turns it" in str(w.message) for w in warned) == 1


def test_setting_says_which_way_boxes_were_drawn(read, tmp_path):
    draw(tmp_path / "a.jpg", orientation=6)
    images, boxes = [entry(1, "a.jpg")], [box(1, (8, 10, 8, 8))]
    for exif, hw in (("auto", [20, 30]), ("ignore", [20, 30]), ("apply", [30, 20])):
        table, _ = read(images, boxes, exif=exif)
        assert table.image_hw.tolist() == [hw]
    assert table.boxes.tolist() == [[8, 10, 16, 18]]
    with pytest.raises(ValueError, match=r"exif to be one of \('auto', 'apply', 'ignore'\). Received: 'turn'"):
        read(images, boxes, exif="turn")


def test_crowds_are_ignore_regions_or_objects(read):
    mask = {"size": [20, 30], "counts": [0, 600]}
    boxes = [box(1, iscrowd=1, segmentation=mask), box(1, (2, 2, 3, 3)), box(1, (5, 5, 3, 3), ignore=1)]
    table, _ = read([entry()], boxes)
    assert table.ignore.tolist() == [True, False, True]
    assert list(table.masks) == [0]
    table, told = read([entry()], boxes, crowds="object")
    assert table.ignore.tolist() == [False, False, True]
    assert (table.masks, told) == ({}, [])
    with pytest.raises(ValueError, match=r"crowds to be one of \('ignore', 'object'\). Received: 'objects'"):
        read([entry()], boxes, crowds="objects")


def test_mask_that_cannot_be_read_leaves_its_box_an_ignore_region(read):
    masks = [{"size": [20, 30], "counts": "~"}, {"size": [20, 31], "counts": [620]}]
    table, told = read([entry()], [box(1, (n, 1, 2, 3), iscrowd=1, segmentation=masks[n]) for n in (0, 1)])
    assert table.ignore.tolist() == [True, True]
    assert table.masks == {}
    assert told == [(EntryError, f"`annotations[{n}].segmentation`") for n in (0, 1)]


def test_images_are_found_under_names_that_are_written_in_another_way_if_that_is_unambiguous(read, tmp_path):
    files = [
        "s/a.png",
        "b.png",
        "my cat.png",
        "caf\u00e9.png",
        "C.PNG",
        "d/x.png",
        "e/x.png",
        "g.png",
        "a\\b.png",
        "h.png",
        "e/i.png",
    ]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw(tmp_path / name)
    names = {
        "s\\a.png": "s/a.png",
        "/home/me/data/b.png": "b.png",
        "my%20cat.png": "my cat.png",
        "cafe\u0301.png": "caf\u00e9.png",
        "c.png": "C.PNG",
        "f/x.png": "f/x.png",  # d/x.png or e/x.png
        "u/g.png": "u/g.png",  # both can't be g.png
        "v/g.png": "v/g.png",
        "a\\b.png": "a\\b.png",
        "../up/h.png": "h.png",
        "d/i.png": "d/i.png",  # not e/i.png, since there is a folder d
    }
    with pytest.warns(UserWarning, match=r"name is written in another way - at `images\[0\].file_name`: .* of 6") as w:
        table, told = read([entry(row, name) for row, name in enumerate(names)])
    assert len(w) == 1
    assert table.paths == tuple(str(tmp_path / name) for name in names.values())
    assert told == []


def test_of_many_images_few_are_looked_for(read, tmp_path, monkeypatch):
    monkeypatch.setattr(coco_images, "PROBES", 3)
    for row in range(9):
        draw(tmp_path / f"{row}.png")
    looked_for = []
    exists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: looked_for.append(path) or exists(path))
    names = [f"{row}.png" for row in range(9)]
    assert read([entry(row, name) for row, name in enumerate(names)])[1] == []
    assert len(looked_for) == 3
    names[0] = "x\\0.png"
    with pytest.warns(UserWarning, match=r"name is written in another way - at `images\[0\]"):
        assert read([entry(row, name) for row, name in enumerate(names)])[0].paths[0] == str(tmp_path / "0.png")


def test_images_at_urls_and_in_folders_that_do_not_exist_are_not_looked_for(read, tmp_path, monkeypatch):
    monkeypatch.setattr(coco_images, "walk_files", None)
    draw(tmp_path / "0.png")
    for folder in ("https://host/images", str(tmp_path / "none")):
        assert read([entry(1, "x\\0.png")], image_dir=folder)[0].paths[0].startswith(folder)
