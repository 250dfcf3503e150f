import json
import os

import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, ImageError, read_image_folder, read_ndjson


@pytest.fixture
def write(tmp_path):
    """Write lines of JSON beside images of 20 x 40 pixels."""

    def write(name, *lines, images=("a.png", "s/b.png")):
        for image in images:
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / image), np.zeros((20, 40, 3), np.uint8))
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / name).write_text("\n".join(texts))
        return tmp_path / name

    return write


def image_of(name, **objects):
    return {"file_name": name, "objects": objects}


def record(name, split="train", **annotations):
    return {"type": "image", "file": name, "split": split, "annotations": annotations}


HEAD = {"type": "dataset", "task": "detect", "class_names": {"1": "dog", "0": "cat"}}


def test_empty_files_and_images_without_boxes_are_ordinary(write, tmp_path):
    write("metadata.jsonl")
    assert len(read_image_folder(tmp_path)) == 0
    write("metadata.jsonl", image_of("a.png", bbox=[], categories=[]), {"file_name": "s/b.png"})
    table = read_image_folder(tmp_path)
    assert (table.image_ids.tolist(), len(table.boxes), table.class_names) == (["a.png", "s/b.png"], 0, ())
    assert len(read_ndjson(write("x.ndjson", HEAD))) == 0
    table = read_ndjson(write("x.ndjson", HEAD, record("a.png")))
    assert (len(table), len(table.boxes), table.class_names) == (1, 0, ("cat", "dog"))


@pytest.mark.parametrize("key", ["category", "categories"])
def test_boxes_of_an_image_folder_are_corner_and_size(write, tmp_path, key):
    write(
        "metadata.jsonl", image_of("a.png", bbox=[[1, 2, 3, 4.5], [0, 0, 40, 20]], **{key: ["dog", "cat"]}, id=[1, 2])
    )
    table = read_image_folder(tmp_path)
    assert table.boxes.tolist() == [[1, 2, 4, 6.5], [0, 0, 40, 20]]
    assert (table.class_names, table.class_ids.tolist()) == (("cat", "dog"), [1, 0])
    assert table.image_hw.tolist() == [[20, 40]]


def test_categories_that_are_numbers_are_places_of_names(write, tmp_path):
    write("metadata.jsonl", image_of("a.png", bbox=[[1, 2, 3, 4], [0, 0, 40, 20]], categories=[10, 2]))
    table = read_image_folder(tmp_path)
    assert (table.class_names, table.category_ids.tolist(), table.class_ids.tolist()) == (("2", "10"), [2, 10], [1, 0])
    write("metadata.jsonl", image_of("a.png", bbox=[[1, 2, 3, 4]], categories=[1]))
    assert read_image_folder(tmp_path, class_names=("cat", "dog")).class_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "expected a line of JSON, got '{': "),
        ("[" * 10**5, "expected a line of JSON, got"),
        ({"objects": {}}, "missing required field `file_name`"),
        (image_of("a.png", bbox=[[1, 2, 3]], categories=[1]), "length >= 4"),
        (image_of("a.png", bbox=[[1, 2, 3, 4]], categories=[]), "expected a category for each of 1 boxes, got 0"),
        (image_of("a.png", bbox=[[1, 2, 3, 4]], categories=["cow"]), r"among \['cat'\], got 'cow'"),
        (image_of("../x.png", bbox=[], categories=[]), 'remove its "\\.\\."'),
    ],
)
def test_bad_lines_are_errors_with_an_address_and_leave_out_their_image(write, tmp_path, line, message):
    write("metadata.jsonl", "", line, image_of("s/b.png", bbox=[], categories=[]))
    with pytest.raises(AnnotationError, match=rf"metadata\.jsonl: .*{message}.* - at line 2$"):
        read_image_folder(tmp_path, class_names=("cat",))
    told = []
    table = read_image_folder(tmp_path, class_names=("cat",), on_problem=lambda path, error: told.append(path))
    assert (table.image_ids.tolist(), told) == (["s/b.png"], [str(tmp_path / "metadata.jsonl")])


def test_images_that_repeat_or_are_missing_are_told(write, tmp_path):
    write("metadata.jsonl", image_of("a.png"), image_of("./a.png"), image_of("none.png"))
    told = []
    assert len(read_image_folder(tmp_path, on_problem=lambda path, error: told.append(os.path.basename(path)))) == 1
    assert told == ["metadata.jsonl", "none.png"]
    write("metadata.jsonl", image_of("none.png"))
    with pytest.raises(ImageError, match=r"none\.png: expected an image file, got No such file"):
        read_image_folder(tmp_path)


def test_boxes_of_ndjson_are_shares_of_a_split_with_polygons_boxed_and_told(write):
    file = write(
        "x.ndjson",
        HEAD,
        record("a.png", boxes=[[1, 0.5, 0.5, 0.25, 0.5]], pose=[[0, 0.5, 0.5, 1, 1, 0.1, 0.1, 2]]),
        record("b.png", segments=[[0, 0.25, 0.5, 0.5, 0.25, 0.75, 1]]),
        record("b.png", split="val", boxes=[[0, 0.5, 0.5, 1, 1]]),
        images=("images/train/a.png", "images/train/b.png", "images/val/b.png"),
    )
    with pytest.warns(UserWarning, match=r"polygons and rotated boxes are read as .* - at line 3$"):
        table = read_ndjson(file)
    assert table.boxes.tolist() == [[15, 5, 25, 15], [0, 0, 40, 20], [10, 5, 30, 20]]
    assert table.class_ids.tolist() == [1, 0, 0]
    val = read_ndjson(file, "val")
    assert [os.path.relpath(path, file.parent) for path in val.paths] == ["images/val/b.png"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"boxes": [[7, 0.5, 0.5, 1, 1]]}, r"expected a class among \[1, 0\], got 7"),
        ({"boxes": [[0, 0.5, 0.5, 1]]}, "expected a class with 4 numbers, got 4 numbers"),
        (
            {"boxes": [[0, 30, 20, 10, 10]]},
            "expected shares of the image's width and height, .*, got 30, as if in pixels",
        ),
        ({"segments": [[0, 0.5, 0.5, 1, 1e18, 0, 1]]}, "expected shares .*, got 1e\\+18, as if in pixels; .*"),
        ({"obb": [[0, 0.5, 0.5, 1, 1, 0, 1, -9, 1]]}, "expected shares .*, got -9, as if in pixels; .*"),
        ({"pose": [[0, 0.5, 0.5, 1, 9, 9, 9, 2]]}, "expected shares .*, got 9, as if in pixels; .*"),
        ({"segments": [[0, 0.5, 0.5, 1, 1]]}, "expected a class with 3 or more points, got 5 numbers"),
    ],
)
def test_bad_shapes_of_ndjson_are_errors_with_an_address(write, shapes, message):
    with pytest.raises(AnnotationError, match=rf"x\.ndjson: {message}.* - at line 2$"):
        read_ndjson(write("x.ndjson", HEAD, record("a.png", **shapes)), masks=True)


def test_keypoints_in_pixels_are_an_error_and_those_that_are_not_labelled_may_be_anything(write):
    pose = [0, 0.5, 0.5, 1, 1, 1e300, -7, 0, 0.25, 0.5, 2]
    keypoints = read_ndjson(write("x.ndjson", POSE, record("a.png", pose=[pose])), keypoints=True).keypoints
    assert keypoints.points.tolist() == [[[0, 0, 0], [10, 10, 2]]]
    pose[7] = 1
    file = write("x.ndjson", POSE, record("a.png", pose=[pose]))
    with pytest.raises(AnnotationError, match=r"expected shares .*, got 1e\+300, as if in pixels; .* - at line 2$"):
        read_ndjson(file, keypoints=True)
    assert len(read_ndjson(file).boxes) == 1


POSE = {**HEAD, "task": "pose", "kpt_shape": [2, 3], "flip_idx": [1, 0]}


def test_keypoints_of_ndjson_are_read_if_asked_for(write):
    pose = [1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.5, 2, 0.75, 0.25, 1]
    file = write("x.ndjson", POSE, record("a.png", pose=[pose], boxes=[[0, 0.5, 0.5, 1, 1]]), record("s/b.png"))
    assert read_ndjson(file).keypoints is None
    table = read_ndjson(file, keypoints=True)
    assert table.class_ids.tolist() == [0, 1]
    assert table.keypoints.points.tolist() == [[[0, 0, 0], [0, 0, 0]], [[10, 10, 2], [30, 5, 1]]]
    assert table.keypoints.flips.tolist() == [1, 0]
    pairs = {**POSE, "kpt_shape": [2, 2], "kpt_names": {"0": ["left", "right"], "1": ["left", "right"]}}
    del pairs["flip_idx"]
    boxes = [[0, 0.5, 0.5, 1, 1]]
    outline = [[1, 0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]
    file = write(
        "x.ndjson", pairs, record("a.png", boxes=boxes, segments=outline, pose=[[1, 0.5, 0.5, 0.5, 0.5, 0.25, 1, 0, 0]])
    )
    keypoints = read_ndjson(file, keypoints=True, masks=True).keypoints
    assert keypoints.points.tolist() == [[[0, 0, 0]] * 2, [[10, 20, 2], [0, 0, 0]], [[0, 0, 0]] * 2]
    assert (keypoints.names, keypoints.flips.tolist()) == (("left", "right"), [1, 0])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD, r"x\.ndjson: expected `kpt_shape: \[K, 2 or 3\]`"),
        ({**POSE, "kpt_shape": 5}, r"x\.ndjson: expected `kpt_shape: \[K, 2 or 3\]`.*got '5'"),
        ({**POSE, "kpt_shape": [3, 3]}, r"x\.ndjson: expected `kpt_shape: \[K, 2 or 3\]`.*got '\[3, 3\]'"),
        ({**POSE, "kpt_shape": [2, 2]}, "expected 2 keypoints of 2 numbers after the box, got 6 numbers - at line 2"),
    ],
)
def test_keypoints_of_another_number_or_without_their_shape_are_an_error(write, head, message):
    file = write("x.ndjson", head, record("a.png", pose=[[1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.5, 2, 0.75, 0.25, 1]]))
    with pytest.raises(AnnotationError, match=message):
        read_ndjson(file, keypoints=True)


def test_keypoints_without_flips_and_names_are_told(write):
    head = {name: value for name, value in POSE.items() if name != "flip_idx"}
    with pytest.warns(UserWarning, match=r"x\.ndjson: there is no flip_idx, .* - at `kpt_shape`"):
        keypoints = read_ndjson(write("x.ndjson", head, record("a.png")), keypoints=True).keypoints
    assert keypoints.flips.tolist() == [0, 1] and keypoints.points.shape == (0, 2, 3)


def test_polygons_and_rotated_boxes_of_ndjson_are_kept_if_asked_for(write):
    segment, rotated = [0, 0.25, 0.5, 0.5, 0.25, 0.75, 1], [1, 0.5, 0.1, 0.75, 0.5, 0.5, 0.9, 0.25, 0.5]
    table = read_ndjson(write("x.ndjson", HEAD, record("a.png", segments=[segment], obb=[rotated])), masks=True)
    assert table.boxes.tolist() == [[10, 5, 30, 20], [10, 2, 30, 18]]
    assert [one.tolist() for one in table.masks.polygons(0)] == [[[10, 10], [20, 5], [30, 20]]]
    assert [len(one) for one in table.masks.polygons(1)] == [4]
    assert table.masks.fill(0, (20, 40)).any()


def test_image_of_a_split_that_nobody_knows_is_told(write):
    file = write("x.ndjson", HEAD, record("a.png"), record("s/b.png", split="trian"))
    with pytest.warns(UserWarning, match=r"none of train, val, test are left out - at line 3$"):
        assert len(read_ndjson(file)) == 1
    assert len(read_ndjson(file, "trian")) == 1


def test_sizes_that_a_line_gives_are_those_of_the_image(write, tmp_path):
    right, wrong = {"width": 40, "height": 20.0}, {"width": 20, "height": 20}
    metadata = image_of("a.png", bbox=[[1, 2, 3, 4]], categories=[1])
    ndjson = record("a.png", boxes=[[0, 0.5, 0.5, 0.25, 0.5]])
    write("metadata.jsonl", metadata | right)
    assert read_image_folder(tmp_path).image_hw.tolist() == [[20, 40]]
    assert read_ndjson(write("x.ndjson", HEAD, ndjson | right)).image_hw.tolist() == [[20, 40]]
    write("metadata.jsonl", metadata | wrong)
    for read in (
        lambda: read_image_folder(tmp_path),
        lambda: read_ndjson(write("x.ndjson", HEAD, ndjson | wrong)),
    ):
        with pytest.raises(ImageError, match=r"expected height 20 and width 20, as line \d of .*, got 20 and 40"):
            read()
