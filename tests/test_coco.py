import json

import numpy as np
import pytest

from detfeed import AnnotationError, read_coco
from detfeed.masks import fill_mask


def instances(**changes):
    content = {
        "images": [
            {"id": 7, "file_name": "b/7.jpg", "height": 40, "width": 60, "license": 1},
            {"id": 3, "file_name": "3.jpg", "height": 20, "width": 30},
            {"id": 5, "file_name": "5.jpg", "height": 20, "width": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 7.5, "segmentation": [[1, 2]]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0.5, 0, 10.25, 4], "iscrowd": 1},
            {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 2, 2], "ignore": 1, "keypoints": [0, 0, 0]},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 2, "name": "bicycle", "supercategory": "vehicle"}],
    }
    return {**content, **changes}


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "instances.json").write_text(text)
        return read_coco(tmp_path / "instances.json", tmp_path / "images")

    return write_and_read


def test_file_without_images_is_ordinary(read):
    table = read({"images": [], "annotations": [], "categories": []})
    assert len(table) == 0
    assert table.boxes.shape == (0, 4)


def test_boxes_become_corners_in_the_order_of_images(read, tmp_path):
    table = read(instances())
    assert table.image_ids.tolist() == [7, 3, 5]
    assert table.paths[0] == str(tmp_path / "images" / "b" / "7.jpg")
    np.testing.assert_array_equal(table.image_hw, [[40, 60], [20, 30], [20, 30]])
    np.testing.assert_array_equal(table.boxes, np.float32([[0.5, 0, 10.75, 4], [1, 2, 4, 6], [0, 0, 2, 2]]))
    assert table.offsets.tolist() == [0, 1, 3, 3]


def test_category_ids_with_gaps_become_contiguous_classes(read):
    table = read(instances())
    assert table.class_names == ("bicycle", "toothbrush")
    assert table.category_ids.tolist() == [2, 90]
    assert table.class_ids.tolist() == [0, 1, 0]
    assert table.class_ids.dtype == np.int32


def test_crowds_and_ignore_become_ignore_flags(read):
    assert read(instances()).ignore.tolist() == [True, False, True]


def test_masks_of_crowds_are_kept_by_the_row_of_their_box(read):
    content = instances()
    runs = [40 * 10, 40 * 20, 40 * 30]
    content["annotations"][1]["segmentation"] = {"size": [40, 60], "counts": runs}
    table = read(content)
    assert {row: array.tolist() for row, array in table.masks.items()} == {0: runs}
    assert table.ignore[0]
    assert read(instances()).masks == {}


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [40, 60]}, "missing required field `counts`"),
        ({"size": [40, 60], "counts": [1, 2]}, r"height and width \(40, 60\), got size \(40, 60\) and 3 pixels"),
        ({"size": [60, 40], "counts": [2400]}, r"got size \(60, 40\) and 2400 pixels"),
        ({"size": [40, 60], "counts": "Q"}, "breaks off"),
    ],
)
def test_mask_that_does_not_fit_its_image_is_an_error_with_an_address(read, rle, message):
    content = instances()
    content["annotations"][1]["segmentation"] = rle
    with pytest.raises(AnnotationError, match=message + r".* - at `annotations\[1\].segmentation` \(image_id 7\)"):
        read(content)


def test_areas_are_the_files_or_else_the_boxes(read):
    np.testing.assert_array_equal(read(instances()).areas, np.float32([41, 7.5, 4]))


def test_image_ids_may_be_strings(read):
    table = read(
        {"images": [{"id": "a", "file_name": "a", "height": 1, "width": 1}], "annotations": [], "categories": []}
    )
    assert table.image_id(0) == "a"


def broken(**change):
    annotations = instances()["annotations"]
    annotations[1] = {**annotations[1], **change}
    return instances(annotations=[{k: v for k, v in a.items() if v is not None} for a in annotations])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"expected JSON, got a file that does not parse"),
        ([], r"expected `object`, got \[\] - at `top level`"),
        ({"images": []}, r"missing required field `annotations`"),
        (broken(bbox=[12, 5]), r"length 4.*, got \[12,5\] - at `annotations\[1\].bbox` \(image_id 7\)"),
        (broken(bbox=[1, 2, "x", 4]), r'got "x" - at `annotations\[1\].bbox\[2\]` \(image_id 7\)'),
        (broken(bbox=None), r"missing required field `bbox` in .* - at `annotations\[1\]` \(image_id 7\)"),
        (broken(bbox=[1, 2, -3, 4]), r"at least 0, got \[1.0, 2.0, -3.0, 4.0\] - at `annotations\[1\]` \(image_id 7\)"),
        (broken(category_id=4), r"a category_id among \[2, 90\], got 4 - at `annotations\[1\]` \(image_id 7\)"),
        (broken(image_id=8), r"image_id of an image in the file, .* - at `annotations\[1\]` \(image_id 8\)"),
        (broken(bbox=[1, 2, 1e39, 4]), r"finite box corners, got .*inf.* at box 0 of image 7"),
        (
            broken(image_id=10**19),
            r"`int` <= 9223372036854775807, got 10000000000000000000 - at `annotations\[1\].image_id`",
        ),
        (
            instances(images=[{"id": 7, "file_name": "a", "height": 0, "width": 2**40}]),
            r"`int` >= 1, got 0 - at `images\[0\].height`",
        ),
        (broken(id=1), r"each annotation id once, got 1 again - at `annotations\[1\]`"),
        (instances(images=instances()["images"] * 2), r"each image id once, got 7 again - at `images\[3\].id`"),
        (instances(categories=instances()["categories"] * 2), r"each category id once, got \[2, 2, 90, 90\]"),
    ],
)
def test_bad_file_is_an_error_with_an_address(read, content, message):
    with pytest.raises(AnnotationError, match=r"instances\.json: .*" + message):
        read(content)


def test_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(AnnotationError, match=r"none\.json: expected a COCO JSON file, got No such file"):
        read_coco(tmp_path / "none.json", tmp_path)


def test_real_coco_agrees_with_pycocotools(data, capsys):
    from pycocotools.coco import COCO

    file = data / "coco" / "annotations" / "instances_train2017.json"
    table = read_coco(file, data / "coco" / "train2017")
    coco = COCO(str(file))
    assert len(table) == 80
    assert len(table.boxes) == 705
    assert table.ignore.sum() == 6
    assert sorted(table.masks) == np.flatnonzero(table.ignore).tolist()
    crowds = [a for a in coco.dataset["annotations"] if a["iscrowd"]]
    areas = sorted(
        fill_mask(table.masks[r], tuple(table.image_hw[p])).sum() / 255
        for p in range(80)
        for r in table.masks
        if table.rows(p).start <= r < table.rows(p).stop
    )
    assert areas == sorted(coco.annToMask(crowd).sum() for crowd in crowds)
    assert table.category_ids.tolist() == sorted(coco.cats)
    for position in range(len(table)):
        theirs = coco.imgToAnns[table.image_id(position)]
        rows = table.rows(position)
        wanted = np.array([a["bbox"] for a in theirs], np.float64).reshape(-1, 4)
        wanted[:, 2:] += wanted[:, :2]
        np.testing.assert_array_equal(table.boxes[rows], wanted.astype(np.float32))
        assert table.category_ids[table.class_ids[rows]].tolist() == [a["category_id"] for a in theirs]
