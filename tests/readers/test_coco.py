import gc
import json
import math

import numpy as np
import pytest

from detfeed import AnnotationError, BadBoxesWarning, IgnoreReason, MissingImageError, concat, read_coco
from detfeed.masks import fill_mask
from detfeed.readers import coco

# Small files are mostly crowds soon; test_ignored_classes.py looks at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*classes have more ignored boxes than objects")


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
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 2, "name": "bicycle", "keypoints": ["bell"], "skeleton": [[1, 1]]},
        ],
    }
    return {**content, **changes}


def image(**changes):
    content = instances()
    content["images"][0] |= changes
    return content


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, **arguments):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "instances.json").write_text(text)
        return read_coco(tmp_path / "instances.json", tmp_path / "images", **arguments)

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
        ({"size": [10**30, 60], "counts": [2400]}, r"Expected `int` <= 9223372036854775807 - at `\$.size"),
        (
            {"size": [40, 60], "counts": [10**12]},
            "run lengths from 0 to 2147483647, got 1000000000000 to 1000000000000",
        ),
        ({"size": [40, 60], "counts": [2500, -100]}, "run lengths from 0 to 2147483647, got -100 to 2500"),
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
        (broken(category_id=4), r"a category_id among \[2, 90\], got 4 - at `annotations\[1\]` \(image_id 7\)"),
        (broken(image_id=8), r"image_id of an image in the file, .* - at `annotations\[1\]` \(image_id 8\)"),
        (
            broken(bbox=[1, 2, math.nan, 4]),
            r"got NaN - at `annotations\[1\].bbox\[2\]` \(image_id 7\)",
        ),
        (broken(bbox=[1, 2, -math.inf, 4]), r"got -Infinity - at `annotations\[1\].bbox\[2\]` \(image_id 7\)"),
        ('{"images": [{"id": []}], "images": 5}', r"expected `array`, got 5 - at `images`"),
        ('{"images": [], "more": ' + "[" * 100_000, "nested too deeply"),
        (
            [{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 1}],
            r"expected `object`, .*results file, which read_proposals",
        ),
        (
            image(file_name="../7.jpg"),
            r"inside the image folder .*images, got '../7.jpg'.* - at `images\[0\].file_name`",
        ),
        (image(file_name="/etc/7.jpg"), r"got the absolute path '/etc/7.jpg'; give .* - at `images\[0\].file_name`"),
        (image(file_name="C:\\7.jpg"), r"got the absolute path 'C:\\\\7.jpg'"),
        (image(id="7" * 300), r"`str` of length <= 255, got \"7+\.\.\. - at `images\[0\].id`"),
        (image(file_name=""), r"the name of an image file, got '' - at `images\[0\].file_name`"),
        (image(height=10**7), r"`int` <= 1000000, got 10000000 - at `images\[0\].height`"),
        (
            broken(image_id=10**19),
            r"`int` <= 9223372036854775807, got 10000000000000000000 - at `annotations\[1\].image_id`",
        ),
        (
            instances(images=[{"id": 7, "file_name": "a", "height": 0, "width": 2**40}]),
            r"`int` <= 1000000, got 1099511627776 - at `images\[0\].width`",
        ),
        (instances(images=instances()["images"] * 2), r"each image id once, got 7 again - at `images\[3\].id`"),
        (
            instances(categories=instances()["categories"] * 2),
            r"category id once, got .* - at `categories\[2\].id`, first",
        ),
        (
            instances(images=[*instances()["images"], {**instances()["images"][0], "id": "7"}]),
            r"texts, got 7 and '7' - at",
        ),
    ],
)
def test_bad_file_is_an_error_with_an_address(read, content, message):
    with pytest.raises(AnnotationError, match=r"instances\.json: .*" + message):
        read(content)


def test_compressed_masks_are_those_pycocotools_writes(read):
    from pycocotools import mask

    pixels = np.asfortranarray(np.random.default_rng(0).random((40, 60)) < 0.5, np.uint8)
    rle = mask.encode(pixels)
    content = instances()
    content["annotations"][1]["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(fill_mask(read(content).masks[0], (40, 60)), pixels * 255)


def test_bad_boxes_follow_the_policy_with_the_place_of_the_first(read):
    content = instances()
    content["annotations"][0]["bbox"] = [25, 2, 30, 4]
    content["annotations"][1]["bbox"] = [5, 5, -3, 4]
    address = r"the first is \[25.0, 2.0, 55.0, 6.0\] .* - at `annotations\[0\].bbox` \(image_id 3\)"
    with pytest.warns(
        UserWarning, match=r"instances.json: of 3 boxes 1 reaching .* 1 without area .*" + address
    ) as said:
        table = read(content)
    (bad,) = [one for one in said if one.category is BadBoxesWarning]
    assert bad.filename == __file__
    assert table.boxes.tolist() == [[25, 2, 30, 6], [0, 0, 2, 2]]
    assert table.areas.tolist() == [7.5, 4]
    with pytest.raises(AnnotationError, match=r"expected a box with area, inside its image, got \[25.0"):
        read(content, invalid="raise")


def test_area_that_is_negative_or_missing_is_that_of_the_box(read):
    content = instances()
    content["annotations"][0]["area"] = -1
    assert read(content).areas.tolist() == [41, 12, 4]


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


def objects(count, **fields):
    return [
        {"id": n, "image_id": (7, 3, 5)[n % 3], "category_id": 2, "bbox": [n, 1, 2, 3], **fields} for n in range(count)
    ]


def test_ids_of_annotations_may_be_numbers_texts_or_missing_and_repeats_are_told(read):
    annotations = objects(4)
    for one in ("a", 1):
        annotations[1]["id"] = annotations[2]["id"] = one
        annotations[3].pop("id", None)
        with pytest.warns(UserWarning, match=r"ids repeat, .* - at `annotations\[2\]` \(image_id 5\), id 'a'|, id 1"):
            table = read(instances(annotations=annotations))
        assert table.annotation_ids.tolist() == ([0, -1, -1, -1] if one == "a" else [0, -1, 1, 1])
    annotations[2]["id"] = "17"
    assert sorted(read(instances(annotations=annotations)).annotation_ids.tolist()) == [-1, 0, 1, 17]


def test_ids_and_reasons_are_those_of_the_file_wherever_sorting_and_dropping_put_the_boxes(read):
    flags = [{}, {"iscrowd": 1}, {"ignore": 1}, {"iscrowd": 1, "ignore": 1}, {}, {}]
    annotations = [
        {**one, **flag, "id": 10 * n + 7} for n, (one, flag) in enumerate(zip(objects(6), flags, strict=True))
    ]
    annotations[0]["bbox"] = [1, 1, 0, 5]
    annotations[4]["bbox"] = [-5, 1, 12, 3]
    with pytest.warns(BadBoxesWarning):
        table = read(instances(annotations=annotations), invalid="ignore")
    assert table.annotation_ids.tolist() == [37, 17, 47, 27, 57]
    crowd, bad, marked = IgnoreReason.CROWD, IgnoreReason.BAD_BOX, IgnoreReason.MARKED
    assert table.ignore_reasons.tolist() == [crowd, crowd, bad, marked, 0]
    with pytest.warns(BadBoxesWarning):
        table = read(instances(annotations=annotations), invalid="ignore", crowds="object")
    assert table.ignore_reasons.tolist() == [marked, 0, bad, marked, 0]


@pytest.mark.parametrize("ids", [[4, -2, 3], [4, -2, 10**12], [2**63 - 1, -(2**63), 0], [5], ["a", 1]])
def test_ids_are_found_whether_they_lie_close_or_far_apart(ids):
    wanted = [*ids, *ids[::-1], *(i for i in (-(2**63), -1, 0, 5, 2**63 - 1) if i not in ids)]
    expected = [ids.index(i) if i in ids else -1 for i in wanted]
    dtype = np.int64 if all(isinstance(i, int) for i in wanted) else object
    assert coco._rows_of(np.array(wanted, dtype), ids).tolist() == expected


def test_garbage_collector_is_left_as_it_was(read):
    assert gc.isenabled()
    read(instances())
    assert gc.isenabled()
    gc.disable()
    try:
        read(instances())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_annotations_of_unknown_images_or_categories_are_left_out_with_the_others_of_their_image(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (5, 6, 7)]
    crowd = {"iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [0, 24]}}
    rows = [
        (5, 1, {}), (9, 1, crowd), (6, 1, crowd), (6, 3, {}), (9, 1, {}), (7, 1, {}), (6, 4, {}), (8, 3, {}),
    ]  # fmt: skip
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": [1, 2, 3, k + 1]} | more
        for k, (i, c, more) in enumerate(rows)
    ]
    path, told = tmp_path / "a.json", []
    for images_here in (images, []):
        content = {"images": images_here, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        path.write_text(json.dumps(content))
        told.clear()
        table = read_coco(path, "", on_problem=lambda *problem: told.append(problem))
        kinds = [MissingImageError, AnnotationError, MissingImageError] if images_here else [MissingImageError] * 5
        assert [type(error) for _, error in told] == kinds
        assert {file for file, _ in told} == {str(path)}
        assert table.image_ids.tolist() == ([5, 7] if images_here else [])
        assert table.boxes[:, 3].tolist() == ([3, 8] if images_here else [])
    path.write_text(json.dumps(content | {"images": images}))
    told.clear()
    read_coco(path, "", on_problem=lambda path, error: told.append(str(error).partition(" - ")))
    assert [place for *_, place in told] == [
        "at `annotations[1]` (image_id 9), the first of 2",
        "at `annotations[3]` (image_id 6), the first of 2",
        "at `annotations[7]` (image_id 8)",
    ]
    assert told[1][0] == f"{path}: expected a category_id among [1], got 3"
    with pytest.raises(MissingImageError, match=r"got 9 - at `annotations\[1\]` \(image_id 9\)"):
        read_coco(path, "")


IMAGES = '[{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]'
BOXES = '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}]'
CLASSES = '[{"id": 1, "name": "images"}]'
PARTS = [("images", IMAGES), ("annotations", BOXES), ("categories", CLASSES), ("info", '{"images": 3, "a": "\\"b"}')]


def written(parts, between=", "):
    return "{" + between.join(f'"{key}": {value}' for key, value in parts) + "}"


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(("key", "value"), [*PARTS, ("annotations", "[]"), ("images", "[]"), ("info", "3")])
def test_key_that_stands_twice_is_an_error_wherever_it_stands(tmp_path, place, key, value):
    path = tmp_path / "twice.json"
    path.write_text(written(PARTS))
    assert len(read_coco(path, tmp_path).boxes) == 1
    path.write_text(written([*PARTS[:place], (key, value), *PARTS[place:]], between=",\n"))
    with pytest.raises(
        AnnotationError, match=rf"twice.json: expected each key once, got '{key}' twice - at `top level`"
    ):
        read_coco(path, tmp_path)


def test_key_that_stands_twice_in_a_file_of_many_blocks_is_an_error(tmp_path):
    boxes = [f'{{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, {1 + n / 1e5}]}}' for n in range(60_000)]
    boxes = f"[{', '.join(boxes)}]"
    parts = [("images", IMAGES), ("annotations", boxes), ("categories", CLASSES)]
    path = tmp_path / "twice.json"
    path.write_text(written(parts))
    assert len(read_coco(path, tmp_path).boxes) == 60_000
    for key, value in (("annotations", BOXES), ("categories", CLASSES)):
        for place in (0, 3):
            path.write_text(written([*parts[:place], (key, value), *parts[place:]]))
            with pytest.raises(AnnotationError, match=f"got '{key}' twice"):
                read_coco(path, tmp_path)


def test_key_that_is_spelt_with_an_escape_is_the_same_key(tmp_path):
    path = tmp_path / "twice.json"
    path.write_text(written([*PARTS, ("\\u0069mages", IMAGES)]))
    with pytest.raises(AnnotationError, match="expected each key once, got 'images' twice"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize("name", ["a].png", 'a], \\"images\\": [.png'])
def test_brackets_in_the_names_of_images_are_no_key(tmp_path, name):
    path = tmp_path / "once.json"
    images = IMAGES.replace("a.png", name).replace('"id": 1,', '"id": 1, "tags": ["x", ["y"]],')
    parts = [("images", images), *PARTS[1:]]
    path.write_text(written(parts))
    assert len(read_coco(path, tmp_path)) == 1
    path.write_text(written([("images", images), *parts]))
    with pytest.raises(AnnotationError, match="expected each key once, got 'images' twice"):
        read_coco(path, tmp_path)


def masked(segmentations):
    annotations = [
        {**one, "segmentation": mask} for one, mask in zip(objects(len(segmentations)), segmentations, strict=True)
    ]
    for one in annotations:
        one["image_id"] = 3
    return instances(annotations=annotations)


TRIANGLE = [1.5, 1, 9, 2, 4, 8.25]


def test_masks_of_all_objects_are_read_only_if_asked_for(read):
    rle = {"counts": [5, 10, 585], "size": [20, 30]}
    content = masked([[TRIANGLE], [TRIANGLE, [2, 2, 5, 5, 2, 5, 1, 1]], rle, TRIANGLE, [], [[]], None])
    assert read(content).masks == {}
    table = read(content, masks=True)
    rows = {category: row for row, category in enumerate((table.annotation_ids).tolist())}
    masks = table.masks
    assert sorted(masks) == sorted(rows[n] for n in range(4))
    triangle = np.float32(TRIANGLE).reshape(-1, 2).tolist()
    assert [polygon.tolist() for polygon in masks.polygons(rows[0])] == [triangle]
    assert [len(polygon) for polygon in masks.polygons(rows[1])] == [3, 4]
    assert (masks[rows[2]].tolist(), masks.polygons(rows[2])) == ([5, 10, 585], [])
    assert [polygon.tolist() for polygon in masks.polygons(rows[3])] == [triangle]


@pytest.mark.parametrize("indent", [1, 4, "\t"])
def test_masks_of_an_indented_file_are_those_of_a_dense_one(read, indent):
    content = masked([[TRIANGLE], [TRIANGLE, TRIANGLE], TRIANGLE, {"counts": [5, 10, 585], "size": [20, 30]}, [], [[]]])
    dense, indented = (read(text, masks=True) for text in (json.dumps(content), json.dumps(content, indent=indent)))
    assert list(indented.masks) == list(dense.masks)
    for row in dense.masks:
        assert [one.tolist() for one in indented.masks.polygons(row)] == [
            one.tolist() for one in dense.masks.polygons(row)
        ]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 2, 3, 4]], "expected x and y of at least 3 points, got 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 points, got 7 numbers"),
        ([[1, 2, 3, 4, 5, 1e9]], r"points from -1000000 to 1000000, got 1 to 1e\+09"),
        ([["a", 2, 3, 4, 5, 6]], "Expected `float`, got `str`"),
        ("polygon", "polygons, got some that do not parse"),
        ({"counts": [5, 10], "size": [20, 30]}, r"height and width \(20, 30\), got size \(20, 30\) and 15 pixels"),
        ({"counts": [5, -10], "size": [20, 30]}, "RLE mask, got one that does not parse"),
    ],
)
def test_mask_that_cannot_be_read_is_told_and_costs_no_box(read, mask, message):
    content = masked([[TRIANGLE], mask])
    with pytest.raises(AnnotationError, match=message + r".* - at `annotations\[1\].segmentation` \(image_id 3\)"):
        read(content, masks=True)
    told = []
    table = read(content, masks=True, on_problem=lambda _, error: told.append(str(error)))
    assert len(told) == 1 and len(table.boxes) == 2
    assert table.annotation_ids[list(table.masks)].tolist() == [0]
    assert len(read(content).boxes) == 2


def test_masks_of_crowds_taken_as_objects_are_kept_if_asked_for(read):
    content = masked([{"counts": [5, 10, 585], "size": [20, 30]}])
    content["annotations"][0]["iscrowd"] = 1
    assert read(content, crowds="object").masks == {}
    assert len(read(content, crowds="object", masks=True).masks) == 1


def posed(*points, names=("nose", "left_eye", "right_eye"), **categories):
    found = objects(len(points))
    content = instances(annotations=[{**one, "keypoints": numbers} for one, numbers in zip(found, points, strict=True)])
    for category in content["categories"]:
        if category["id"] == 2:
            category["keypoints"] = names
        category.update(categories.get(category["name"], {}))
    return content


def test_keypoints_are_read_only_if_asked_for_and_are_those_of_their_boxes(read):
    one, two = [10, 12, 2, 3, 4, 1, 0, 0, 0], [900, 1, 2, 5, 6, 2, 7, 8, 1]
    content = posed(one, [], two)
    assert read(content).keypoints is None
    table = read(content, keypoints=True)
    assert (table.keypoints.names, table.keypoints.flips.tolist()) == (("nose", "left_eye", "right_eye"), [0, 2, 1])
    points = {key: table.keypoints.points[row].tolist() for row, key in enumerate(table.annotation_ids.tolist())}
    assert points[0] == [[10.5, 12.5, 2], [3.5, 4.5, 1], [0, 0, 0]]
    assert points[1] == [[0, 0, 0]] * 3
    assert points[2] == [[0, 0, 0], [5.5, 6.5, 2], [7.5, 8.5, 1]]
    part = table.select([2, 0])
    assert part.keypoints.points.shape == (len(part.boxes), 3, 3)
    both = concat([part, part], new_ids=True).keypoints.points
    np.testing.assert_array_equal(both[len(part.boxes) :], part.keypoints.points)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 2], "x, y and visibility of 3 keypoints, got another number"),
        ([1, 2], "x, y and visibility of each, got 2 numbers"),
        (["a"] * 9, "Expected `float`, got `str`"),
        ("points", "keypoints, got some that do not parse"),
    ],
)
def test_keypoints_that_cannot_be_read_are_told_and_cost_no_box(read, numbers, message):
    content = posed([10, 12, 2] * 3, numbers)
    with pytest.raises(AnnotationError, match=message + r".* - at `annotations\[1\].keypoints` \(image_id 3\)"):
        read(content, keypoints=True)
    told = []
    table = read(content, keypoints=True, on_problem=lambda _, error: told.append(str(error)))
    assert len(told) == 1 and len(table.boxes) == 2
    assert sorted(table.keypoints.points[:, 0, 2].tolist()) == [0, 2]
    assert len(read(content).boxes) == 2


def test_categories_of_different_keypoints_are_an_error(read):
    content = posed([10, 12, 2] * 3)
    content["categories"].append({"id": 77, "name": "dog", "keypoints": ["tail"]})
    with pytest.raises(AnnotationError, match=r"same `keypoints` in all categories .* at the category 77"):
        read(content, keypoints=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keypoints", [1], r"expected a list of texts in `keypoints`, got '\[1\]' - at the category 2"),
        ("keypoints", ["\xff"], "expected a list of texts in `keypoints`, got .* - at the category 2"),
        ("keypoints", ["x"] * 1025, "expected at most 1024 keypoints of an object, got 1025"),
        ("flip_idx", [10**30], "expected a list of numbers in `flip_idx`, got .* - at the category 2"),
        ("flip_idx", "left", "expected a list of numbers in `flip_idx`, got '\"left\"' - at the category 2"),
        ("flip_idx", [1, 0], r"expected in `flip_idx` the numbers of 3 keypoints .* got \[1, 0\] - at `categories`"),
        ("flip_idx", [1, 2, 0], r"expected in `flip_idx` the numbers of 3 keypoints .* got \[1, 2, 0\]"),
    ],
)
def test_bad_keypoints_of_categories_are_an_error(tmp_path, field, value, message):
    content = posed([10, 12, 2] * 3)
    for category in content["categories"]:
        category.pop(field, None)
    content["categories"][1][field] = value
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False), encoding="latin-1")
    with pytest.raises(AnnotationError, match=message):
        read_coco(tmp_path / "a.json", tmp_path, keypoints=True)
    assert read_coco(tmp_path / "a.json", tmp_path).keypoints is None


def test_file_without_keypoints_has_none_of_each_box(read):
    content = instances(annotations=objects(2))
    for category in content["categories"]:
        category.pop("keypoints", None)
    assert read(content, keypoints=True).keypoints.points.shape == (2, 0, 3)
    assert read({"images": [], "annotations": [], "categories": []}, keypoints=True).keypoints.points.shape == (0, 0, 3)


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_masks_and_keypoints_are_read_however_the_file_is_indented(read, indent):
    polygon, runs = [[1, 1, 9, 1, 9, 9]], {"size": [20, 30], "counts": [30, 5, 565]}
    fields = [
        {"segmentation": polygon, "keypoints": [1, 2, 2]},
        {"segmentation": polygon[0]},
        {"segmentation": runs, "iscrowd": 1},
        {"segmentation": [], "keypoints": []},
        {"segmentation": [[]], "keypoints": None},
    ]
    found = [{"id": n, "image_id": 3, "category_id": 2, "bbox": [n, 0, 9, 9], **one} for n, one in enumerate(fields)]
    content = json.dumps(instances(annotations=found), indent=indent)
    content = content.replace("[]", "[ \n]")
    table = read(content, masks=True, keypoints=True)
    assert list(table.masks) == [0, 1, 2]
    assert [one.tolist() for one in table.masks.polygons(0)] == [[[1, 1], [9, 1], [9, 9]]]
    assert [one.tolist() for one in table.masks.polygons(1)] == [[[1, 1], [9, 1], [9, 9]]]
    assert table.keypoints.points[:, 0].tolist() == [[1.5, 2.5, 2], *[[0, 0, 0]] * 4]
