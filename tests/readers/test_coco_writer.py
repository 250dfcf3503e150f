import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from detfeed import read_coco, write_coco
from detfeed.keypoints import Keypoints
from detfeed.mask_columns import MaskColumns, join_masks
from tables import assert_same

# Small files are mostly crowds soon; test_ignored_classes.py looks at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*classes have more ignored boxes than objects")


def test_set_without_images_is_written_and_read_back(annotate, tmp_path):
    table = annotate([], [])
    write_coco(table, tmp_path / "empty.json")
    assert_same(read_coco(tmp_path / "empty.json", ""), table)


def test_drawn_set_is_written_and_read_back_column_for_column(shapes, tmp_path):
    assert shapes.masks
    folder = write_coco(shapes, tmp_path / "again.json")
    assert folder == os.path.dirname(shapes.paths[0])
    assert_same(read_coco(tmp_path / "again.json", folder), shapes)
    parent = os.path.dirname(folder)
    assert write_coco(shapes, tmp_path / "again.json", parent) == parent
    assert json.loads((tmp_path / "again.json").read_text())["images"][0]["file_name"] == "images/000001.jpg"
    assert_same(read_coco(tmp_path / "again.json", parent), shapes)


def test_any_clean_boxes_are_written_and_read_back(annotate, tmp_path):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 50, (200, 2, 2)), axis=1).reshape(-1, 4)
    table = annotate([(50, 50)] * 2, [corners[:150], corners[150:]], ignore_of=rng.random((2, 100)) < 0.3)
    write_coco(table, tmp_path / "again.json")
    assert_same(read_coco(tmp_path / "again.json", tmp_path), table)


def test_crowds_without_masks_come_back_ignored_and_masks_without_ignore_are_no_crowds(annotate, tmp_path):
    table = annotate([(8, 8)], [[(0, 0, 4, 4), (1, 1, 4, 4)]], ignore_of=[[True, False]])
    table = dataclasses.replace(table, masks={1: np.int32([60, 4])})
    write_coco(table, tmp_path / "x.json")
    first, second = json.loads((tmp_path / "x.json").read_text())["annotations"]
    assert (first["iscrowd"], first["ignore"]) == (0, 1)
    assert (second["iscrowd"], second["segmentation"]) == (0, {"counts": [60, 4], "size": [8, 8]})
    assert read_coco(tmp_path / "x.json", tmp_path).ignore.tolist() == [True, False]


def test_masks_of_objects_are_written_and_read_back(annotate, tmp_path):
    table = annotate([(8, 8)] * 2, [[(0, 0, 4, 4), (1, 1, 4, 4)], [(2, 2, 6, 6), (3, 3, 6, 6)]])
    polygons = MaskColumns.made(
        np.array([0, 3]),
        sizes_hw=np.full((2, 2), 8),
        points=np.random.default_rng(0).uniform(-1, 9, (10, 2)).astype(np.float32),
        point_counts=np.array([3, 3, 4]),
        polygon_counts=np.array([2, 1]),
    )
    both = join_masks([polygons.take(np.arange(3), 4), MaskColumns.of({0: np.int32([60, 4])})], [3, 1])
    ids = np.array([30, 20, 10, 40])
    table = dataclasses.replace(table, masks=both, annotation_ids=ids, ignore=ids == 20)
    write_coco(table, tmp_path / "x.json")
    again = read_coco(tmp_path / "x.json", tmp_path, masks=True)
    assert_same(again, table)
    assert [one.tolist() for one in again.masks.polygons(0)] == [one.tolist() for one in both.polygons(0)]
    assert again.masks.polygons(3) == [] and len(again.masks) == 2
    twice = dataclasses.replace(table, annotation_ids=np.array([7, 7, 8, 9]))
    write_coco(twice, tmp_path / "x.json")
    assert read_coco(tmp_path / "x.json", tmp_path).annotation_ids.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("boxes", [[], [(0, 0, 4, 4)]])
@pytest.mark.parametrize("names", [(), ("left", "right", "nose"), ("a", "b", "c")])
@pytest.mark.parametrize("flips", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_flips_of_keypoints_are_read_back_whatever_their_names(annotate, tmp_path, boxes, names, flips):
    points = np.full((len(boxes), 3, 3), 2, np.float32)
    table = annotate([(8, 8)], [boxes])
    table = dataclasses.replace(table, keypoints=Keypoints(points, names, np.array(flips)))
    write_coco(table, tmp_path / "x.json")
    again = read_coco(tmp_path / "x.json", tmp_path, keypoints=True).keypoints
    assert (again.names, again.flips.tolist(), again.points.tolist()) == (names, list(flips), points.tolist())


def test_keypoints_are_written_and_read_back(annotate, tmp_path):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 8, (3, 2, 3)).astype(np.float32)
    points[..., 2] = [[0, 2], [1, 2], [2, 0]]
    points[points[..., 2] == 0] = 0
    table = annotate([(8, 8)] * 2, [[(0, 0, 4, 4), (1, 1, 4, 4)], [(2, 2, 6, 6)]])
    table = dataclasses.replace(table, keypoints=Keypoints(points, ("left", "right"), np.array([1, 0])))
    write_coco(table, tmp_path / "x.json")
    again = read_coco(tmp_path / "x.json", tmp_path, keypoints=True)
    assert_same(again, table)
    plain = dataclasses.replace(table, keypoints=None)
    assert_same(read_coco(tmp_path / "x.json", tmp_path), plain)


def test_what_read_coco_could_not_read_back_is_not_written(annotate, tmp_path):
    table = annotate([(8, 8)], [[]])
    with pytest.raises(ValueError, match=r"Expected images in the folder .*other.* Received: .*000.png"):
        write_coco(table, tmp_path / "x.json", tmp_path / "other")
    with pytest.raises(ValueError, match=r"each category id once. Received: \[1, 1, 2\]"):
        write_coco(dataclasses.replace(table, category_ids=np.array([1, 1, 2])), tmp_path / "x.json")


def test_file_that_is_there_stays_whole_if_the_new_one_cannot_be_written(annotate, tmp_path, monkeypatch):
    table = annotate([(8, 8)], [[]])
    (tmp_path / "x.json").write_text("old")

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", fail)
        write_coco(table, tmp_path / "x.json")
    with pytest.raises(UnicodeEncodeError):
        write_coco(dataclasses.replace(table, class_names=("\udc80", "b", "c")), tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["000.png", "x.json"]
    with pytest.raises(FileNotFoundError):
        write_coco(table, tmp_path / "none" / "x.json")


def test_file_that_is_there_is_replaced_with_its_mode_and_through_links_and_pipes_stay(annotate, tmp_path):
    table = annotate([(8, 8)], [[]])
    (tmp_path / "x.json").write_text("old")
    (tmp_path / "x.json").chmod(0o600)
    (tmp_path / "link.json").symlink_to("x.json")
    write_coco(table, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o600
    assert_same(read_coco(tmp_path / "x.json", tmp_path), table)
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as executor:
        content = executor.submit((tmp_path / "pipe").read_bytes)
        write_coco(table, tmp_path / "pipe")
        assert content.result() == (tmp_path / "x.json").read_bytes()
    assert (tmp_path / "pipe").is_fifo()


def test_images_whose_names_begin_with_two_dots_are_in_their_folder(annotate, tmp_path):
    table = dataclasses.replace(annotate([(8, 8)], [[]]), paths=(str(tmp_path / "..a.png"),))
    write_coco(table, tmp_path / "x.json", tmp_path)
    assert read_coco(tmp_path / "x.json", tmp_path).paths == table.paths


@pytest.mark.parametrize(
    ("paths", "folder", "names"),
    [
        (["s3://bucket/train/a.png", "s3://bucket/train/b.png"], "s3://bucket/train", ["a.png", "b.png"]),
        (["s3://bucket/train/a.png", "s3://bucket/val/b.png"], "s3://bucket", ["train/a.png", "val/b.png"]),
        (["file:///data/train/a.png", "file:///other/b.png"], "file:///", ["data/train/a.png", "other/b.png"]),
        (["memory://a.png", "memory://b/b.png"], "memory://", ["a.png", "b/b.png"]),
        (["https://x.org/a.png?size=1", "https://x.org/b.png"], "https://x.org", ["a.png?size=1", "b.png"]),
    ],
)
def test_images_at_urls_are_written_and_read_back(annotate, tmp_path, paths, folder, names):
    table = dataclasses.replace(annotate([(8, 8)] * 2, [[], []]), paths=tuple(paths))
    assert write_coco(table, tmp_path / "x.json") == folder
    written = json.loads((tmp_path / "x.json").read_text())
    assert [image["file_name"] for image in written["images"]] == names
    assert read_coco(tmp_path / "x.json", folder).paths == tuple(paths)
    given = folder if folder.endswith("/") else folder + "/"
    assert write_coco(table, tmp_path / "again.json", given) == given
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "x.json").read_bytes()


@pytest.mark.parametrize(
    ("paths", "folder", "message"),
    [
        (["s3://bucket/a.png", "gs://bucket/b.png"], None, r"URLs of one kind\. Received: \['gs', 's3'\]"),
        (["s3://bucket/a.png", "/data/b.png"], None, r"URLs of one kind\. Received: \['', 's3'\]"),
        (["s3://bucket/a.png"] * 2, "s3://other", r"in the folder 's3://other'\. Received: s3://bucket/a\.png"),
        (["s3://bucket/a.png"] * 2, "s3://buck", r"in the folder 's3://buck'\."),
        (["s3://bucket/a.png"] * 2, "/data", r"in the folder '/data'\."),
        (["s3://bucket//a.png"] * 2, None, r"in the folder 's3://bucket'\."),
        (["s3://bucket/a/../b.png"] * 2, "s3://bucket/a", r"in the folder 's3://bucket/a'\."),
        (["/data/a.png"] * 2, "s3://bucket", r"in the folder 's3://bucket'\."),
    ],
)
def test_urls_that_read_coco_could_not_read_back_are_not_written(annotate, tmp_path, paths, folder, message):
    table = dataclasses.replace(annotate([(8, 8)] * 2, [[], []]), paths=tuple(paths))
    with pytest.raises(ValueError, match=message):
        write_coco(table, tmp_path / "x.json", folder)


def test_real_coco_is_written_and_read_back(data, tmp_path):
    table = read_coco(data / "coco" / "annotations" / "instances_train2017.json", data / "coco" / "train2017")
    write_coco(table, tmp_path / "again.json", data / "coco" / "train2017")
    assert_same(read_coco(tmp_path / "again.json", data / "coco" / "train2017"), table)
