import json

import numpy as np
import pytest

from detfeed import AnnotationError, read_coco, read_lvis, write_coco


def lvis(**changes):
    url = "http://images.cocodataset.org"
    image = {"height": 20, "width": 30, "license": 1}
    content = {
        "info": {"version": "1"},
        "images": [
            {
                "id": 9,
                "coco_url": f"{url}/train2017/000000000009.jpg",
                "neg_category_ids": [5, 2],
                "not_exhaustive_category_ids": [],
                **image,
            },
            {
                "id": 4,
                "file_name": "val2017/000000000004.jpg",
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [5],
                **image,
            },
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 5, "bbox": [1, 2, 3, 4], "area": 7, "segmentation": [[1, 2, 3, 4]]}
        ],
        "categories": [
            {"id": 2, "name": "aerosol_can", "frequency": "c", "synset": "aerosol.n.02", "synonyms": ["spray_can"]},
            {"id": 5, "name": "alarm_clock", "frequency": "f"},
        ],
    }
    return {**content, **changes}


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        (tmp_path / "lvis.json").write_text(json.dumps(content))
        return read_lvis(tmp_path / "lvis.json", tmp_path)

    return write_and_read


def test_file_without_images_is_ordinary_and_federated(read):
    table = read({"images": [], "annotations": [], "categories": []})
    assert len(table) == 0
    assert table.neg_classes.shape == table.not_exhaustive_classes.shape == (0, 2)


def test_classes_an_image_was_annotated_for_are_kept(read, tmp_path):
    table = read(lvis())
    assert table.neg_classes.tolist() == [[0, 1], [0, 0]]
    assert table.not_exhaustive_classes.tolist() == [[1, 1]]
    assert table.boxes.tolist() == [[1, 2, 4, 6]]
    assert read_coco(write_plain(tmp_path), tmp_path).neg_classes is None


def write_plain(folder):
    (folder / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    return folder / "coco.json"


def test_image_is_the_one_named_or_that_of_its_address(read, tmp_path):
    table = read(lvis())
    assert table.paths == (
        str(tmp_path / "train2017" / "000000000009.jpg"),
        str(tmp_path / "val2017" / "000000000004.jpg"),
    )


def test_federated_table_is_written_and_read_back(read, tmp_path):
    table = read(lvis())
    again = read_lvis(tmp_path / "again.json", write_coco(table, tmp_path / "again.json"))
    assert again.paths == table.paths
    for name in ("neg_classes", "not_exhaustive_classes", "boxes", "class_ids", "image_ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("neg_category_ids", [7], r"a category in the file, got 7 - at `images\[1\].neg_category_ids` \(image_id 4\)"),
        ("not_exhaustive_category_ids", "all", r"got \"all\" - at `images\[1\].not_exhaustive_category_ids`"),
        ("file_name", "", r"the name of an image file, got '' - at `images\[1\].file_name`"),
        ("file_name", None, r"got null - at `images\[1\].file_name`"),
        ("height", "tall", r"got \"tall\" - at `images\[1\].height`"),
    ],
)
def test_bad_file_is_an_error_with_an_address(read, field, value, message):
    content = lvis()
    content["images"][1][field] = value
    with pytest.raises(AnnotationError, match=r"lvis\.json: .*" + message):
        read(content)


def test_images_that_are_left_out_take_their_classes_with_them(tmp_path):
    content = lvis()
    content["annotations"] += [{**content["annotations"][0], "id": 2, "image_id": 9, "category_id": 7}]
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    told = []
    table = read_lvis(tmp_path / "lvis.json", tmp_path, on_problem=lambda path, error: told.append(str(error)))
    assert len(told) == 1
    assert table.image_ids.tolist() == [4]
    assert table.neg_classes.tolist() == []
    assert table.not_exhaustive_classes.tolist() == [[0, 1]]
    assert table.neg_classes.dtype == table.not_exhaustive_classes.dtype == np.int32


def test_keypoints_are_read_and_written_if_asked_for(tmp_path):
    content = lvis()
    content["annotations"][0]["keypoints"] = [2, 3, 2, 0, 0, 0]
    content["categories"][1]["keypoints"] = ["left hand", "right hand"]
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    assert read_lvis(tmp_path / "lvis.json", tmp_path).keypoints is None
    table = read_lvis(tmp_path / "lvis.json", tmp_path, keypoints=True)
    assert table.keypoints.points.tolist() == [[[2.5, 3.5, 2], [0, 0, 0]]]
    assert (table.keypoints.names, table.keypoints.flips.tolist()) == (("left hand", "right hand"), [1, 0])
    assert table.neg_classes.tolist() == [[0, 1], [0, 0]]
    again = read_lvis(tmp_path / "again.json", write_coco(table, tmp_path / "again.json"), keypoints=True)
    assert again.keypoints.points.tolist() == table.keypoints.points.tolist()
