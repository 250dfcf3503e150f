"""What is written as YOLO or VOC is read back as the same boxes, and what they can't hold is told."""

import dataclasses
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detfeed import Annotations, ImageError, Keypoints, concat, read_voc, read_yolo, write_voc, write_yolo
from detfeed.mask_columns import MaskColumns
from image_files import encode, noise

QUARTERS = st.integers(0, 400).map(lambda number: number / 4)


@st.composite
def boxes_inside(draw, side=100):
    x0, x1 = sorted(draw(st.lists(QUARTERS, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(QUARTERS, min_size=2, max_size=2, unique=True)))
    return (x0, y0, x1, y1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((100, 100, 3), number, np.uint8))
    return folder


def table_of(folder, boxes_of, class_names=("a", "b"), **columns):
    boxes = np.array([box for boxes in boxes_of for box in boxes], np.float32).reshape(-1, 4)
    table = Annotations(
        paths=tuple(str(folder / f"{number}.png") for number in range(len(boxes_of))),
        image_ids=np.array([str(number) for number in range(len(boxes_of))], str),
        image_hw=np.full((len(boxes_of), 2), 100, np.int32),
        boxes=boxes,
        class_ids=(np.arange(len(boxes)) % len(class_names)).astype(np.int32),
        ignore=np.zeros(len(boxes), bool),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        offsets=np.cumsum([0, *map(len, boxes_of)]).astype(np.int64),
        class_names=tuple(class_names),
        category_ids=np.arange(1, len(class_names) + 1),
    )
    return dataclasses.replace(table, **columns)


def told(write, *arguments, **options):
    """What a writer warns of."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        write(*arguments, **options)
    return [str(warning.message) for warning in warned]


def contents(table):
    """Boxes with class names and flags by image file, in order."""
    rows = map(table.rows, range(len(table)))
    return {
        os.path.basename(path): [
            (table.boxes[row].tolist(), table.class_names[table.class_ids[row]], bool(table.ignore[row]))
            for row in range(len(table.boxes))[span]
        ]
        for path, span in zip(table.paths, rows, strict=True)
    }


@pytest.mark.parametrize("write", [write_yolo, write_voc])
def test_table_without_images_is_written_and_read_back(pictures, tmp_path, write):
    told(write, table_of(pictures, []), tmp_path / "out")
    read = read_yolo if write is write_yolo else lambda root: read_voc(root, "train")
    if write is write_voc:
        assert read_voc(tmp_path / "out", "train", class_names=("a", "b")).class_names == ("a", "b")
    assert len(read(tmp_path / "out")) == 0


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(boxes_inside(), max_size=4, unique=True), min_size=1, max_size=3))
def test_boxes_are_read_back_equal(pictures, tmp_path_factory, boxes_of):
    out = tmp_path_factory.mktemp("out")
    table = table_of(pictures, boxes_of)
    told(write_yolo, table, out / "yolo")
    told(write_voc, table, out / "voc", whole_pixels=False)
    again = read_yolo(out / "yolo", invalid="raise")
    assert contents(again) == contents(table)
    assert again.class_names == table.class_names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*all boxes end at the first pixel")
        again = read_voc(out / "voc", "train", class_names=table.class_names, invalid="raise")
    assert contents(again) == contents(table)
    assert again.image_ids.tolist() == table.image_ids.tolist()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(boxes_inside(), min_size=1, max_size=6, unique=True))
def test_whole_pixels_move_corners_by_less_than_one_and_keep_the_area(pictures, tmp_path_factory, boxes):
    out = tmp_path_factory.mktemp("out") / "voc"
    table = table_of(pictures, [boxes], ignore=np.arange(len(boxes)) >= 0)
    messages = told(write_voc, table, out)
    moved = sum(any(value % 1 for value in box) for box in boxes)
    assert any("fractions of a pixel are left out" in message for message in messages) == bool(moved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two boxes may round to one
        again = read_voc(out, "train", class_names=table.class_names)
    assert again.ignore.all()
    written = (out / "Annotations" / "0.xml").read_text()
    assert written.count("<object>") == len(boxes)
    for box in again.boxes.tolist():
        assert all(float(value).is_integer() for value in box)
        assert min(np.abs(np.array(box) - other).max() for other in boxes) < 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True))
@example(["a\x85", "\u2028b\n"])
def test_class_names_are_read_back_equal_or_refused(pictures, tmp_path_factory, names):
    out = tmp_path_factory.mktemp("out")
    table = table_of(pictures, [[(0, 0, 5 + place, 5) for place in range(len(names))]], class_names=names)
    for write, read in ((write_yolo, read_yolo), (write_voc, lambda root: read_voc(root, class_names=tuple(names)))):
        try:
            told(write, table, out / write.__name__)
        except ValueError as error:
            assert "Received: " in str(error)
            assert not (out / write.__name__).exists()
            assert [name for name in names if name != name.strip() or not name.isprintable() or not name.strip()]
        else:
            assert contents(read(out / write.__name__)) == contents(table)


def test_splits_images_without_boxes_and_subfolders_are_read_back(tmp_path):
    for name in ("a/images/x.png", "b/x.png", "c/y.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(encode(noise(0), "PNG"))
    table = table_of(tmp_path, [[(1, 2, 30, 40)], [], [(0, 0, 80, 60)]], image_hw=np.int32([[60, 80]] * 3))
    table = dataclasses.replace(table, paths=tuple(str(tmp_path / f) for f in ("a/images/x.png", "b/x.png", "c/y.png")))
    train, val = table.select([0, 1]), table.select([2])
    told(write_yolo, {"train": train, "val": val}, tmp_path / "yolo", images="copy")
    told(write_voc, {"train": train, "val": val}, tmp_path / "voc")
    for part, split in ((train, "train"), (val, "val")):
        for again in (read_yolo(tmp_path / "yolo", split), read_voc(tmp_path / "voc", split)):
            assert [again.boxes[again.rows(place)].tolist() for place in range(len(again))] == [
                part.boxes[part.rows(place)].tolist() for place in range(len(part))
            ]
    assert not (tmp_path / "yolo" / "images" / "val" / "y.png").is_symlink()
    assert (tmp_path / "voc" / "JPEGImages" / "y.png").is_symlink()
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert content == {"train": "images/train", "val": "images/val", "names": {0: "a", 1: "b"}}


def test_what_is_lost_is_told(shapes, tmp_path):
    assert shapes.ignore.any()
    messages = "\n".join(told(write_yolo, shapes, tmp_path / "yolo"))
    count = int(shapes.ignore.sum())
    for text in ("ignored boxes are left out", "masks are left out", "areas other than", "image ids become the names"):
        assert text in messages
    assert count == 1 or f"the first of {count}" in messages
    assert len(read_yolo(tmp_path / "yolo").boxes) == len(shapes.boxes) - count
    messages = "\n".join(told(write_yolo, shapes, tmp_path / "all", ignored="object"))
    assert "ignored boxes are written as objects" in messages
    assert len(read_yolo(tmp_path / "all").boxes) == len(shapes.boxes)
    messages = "\n".join(told(write_voc, shapes, tmp_path / "voc"))
    assert "ignored boxes of all kinds are written as difficult" in messages
    assert read_voc(tmp_path / "voc").ignore.sum() == count


def test_order_of_classes_empty_classes_and_category_ids_are_told(pictures, tmp_path):
    table = table_of(pictures, [[(0, 0, 5, 5)]], class_names=("b", "a"), category_ids=np.array([3, 7]))
    messages = "\n".join(told(write_voc, table, tmp_path / "voc"))
    assert "classes are read back in the order of their names" in messages
    assert "classes without boxes are left out - at class 'a'" in messages
    assert "category ids become numbers from 0 on" in told(write_yolo, table, tmp_path / "yolo")[-1]
    table = dataclasses.replace(
        table, neg_classes=np.int32([[0, 1]]), not_exhaustive_classes=np.zeros((0, 2), np.int32)
    )
    assert "neg_classes" in "\n".join(told(write_yolo, table, tmp_path / "lvis"))


@pytest.mark.parametrize("write", [write_yolo, write_voc])
def test_nothing_is_written_over_and_an_error_leaves_nothing(pictures, tmp_path, write):
    table = table_of(pictures, [[(0, 0, 5, 5)]])
    out = tmp_path / "out"
    out.mkdir()
    (out / "x").write_text("mine")
    with pytest.raises(FileExistsError, match=f"got one that exists; give another name: '{out}'"):
        write(table, out)
    assert os.listdir(out) == ["x"]
    missing = dataclasses.replace(table, paths=(str(tmp_path / "none.png"),))
    with pytest.raises((ImageError, FileNotFoundError), match=r"none\.png"):
        write(missing, tmp_path / "new")
    assert os.listdir(tmp_path) == ["out"]
    (out / "x").unlink()
    told(write, table, out)  # an empty folder is as good as none
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("write", [write_yolo, write_voc])
def test_images_that_would_be_lost_or_mixed_up_are_refused(pictures, tmp_path, write):
    table = table_of(pictures, [[], []])
    cases = (
        ((str(pictures / "0.png"), str(pictures / "0.jpg")), "differ in more than their suffix"),
        ((str(pictures / "0.png"), str(pictures / "0.png")), "each once"),
        (("https://x.org/0.png", "https://x.org/1.png"), "download the images first"),
        ((str(tmp_path / ".a" / "0.png"), str(tmp_path / "1.png")), "not hidden"),
        ((str(tmp_path / "0.dat"), str(tmp_path / "1.png")), "the suffix of an image"),
    )
    for paths, message in cases:
        with pytest.raises(ValueError, match=message):
            write(dataclasses.replace(table, paths=paths), tmp_path / "out")
    with pytest.raises(ValueError, match="'link', 'copy'"):
        write(table, tmp_path / "out", images="move")
    with pytest.raises(ValueError, match="at least one table"):
        write({}, tmp_path / "out")
    with pytest.raises(ValueError, match="name of a split"):
        write({"../train": table}, tmp_path / "out")
    with pytest.raises(ValueError, match="in one order"):
        write({"train": table, "val": dataclasses.replace(table, class_names=("b", "a"))}, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_image_that_stands_in_two_splits_is_refused_by_voc_whose_splits_share_files(pictures, tmp_path):
    table = table_of(pictures, [[]])
    with pytest.raises(ValueError, match="each once"):
        write_voc({"train": table, "val": table}, tmp_path / "out")


def test_yolo_refuses_images_whose_shares_would_be_of_another_size(pictures, tmp_path):
    table = table_of(pictures, [[(0, 0, 5, 5)]], image_hw=np.int32([[50, 100]]))
    with pytest.raises(ValueError, match=r"0\.png, annotated \(50, 100\), which is \(100, 100\); correct it"):
        write_yolo(table, tmp_path / "out")
    (tmp_path / "0.jpg").write_bytes(encode(noise(0), "JPEG", orientation=6))
    table = dataclasses.replace(table, paths=(str(tmp_path / "0.jpg"),), image_hw=np.int32([[60, 80]]))
    with pytest.raises(ValueError, match=r"which is \(80, 60\) turned by EXIF orientation 6"):
        write_yolo(table, tmp_path / "out")
    with pytest.raises(ValueError, match="'drop', 'object'"):
        write_yolo(table, tmp_path / "out", ignored="keep")
    with pytest.raises(ValueError, match="train, val or test"):
        write_yolo({"minival": table}, tmp_path / "out")


def test_names_that_a_list_or_xml_cannot_hold_are_refused(pictures, tmp_path):
    for name, message in ((" a.png", "that a line can hold"), ("a\x01.png", "characters that XML has")):
        (tmp_path / name).write_bytes(encode(noise(0), "PNG"))
        table = table_of(pictures, [[]], paths=(str(tmp_path / name),))
        with pytest.raises(ValueError, match=message):
            write_voc(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_voc_is_written_and_read_back(data, tmp_path):
    folder = next(Path(data / "voc").rglob("Annotations")).parent
    table = read_voc(folder)
    assert not [message for message in told(write_voc, table, tmp_path / "voc") if "fractions" in message]
    again = read_voc(tmp_path / "voc")
    assert contents(again) == contents(table)
    told(write_yolo, table, tmp_path / "yolo", ignored="object")
    seen = contents(read_yolo(tmp_path / "yolo"))
    assert {name: [(box, label) for box, label, _ in rows] for name, rows in seen.items()} == {
        name: [(box, label) for box, label, _ in rows] for name, rows in contents(concat([table])).items()
    }


POINTS = st.tuples(QUARTERS, QUARTERS, st.integers(0, 2))


def keypoints_of(points, flips, names):
    points = np.array(points, np.float32).reshape(-1, len(flips), 3)
    return Keypoints(np.where(points[..., 2:] > 0, points, np.float32(0)), names, np.array(flips))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(boxes_inside(), POINTS, POINTS, POINTS), max_size=3), min_size=1, max_size=3),
    st.sampled_from([(0, 1, 2), (0, 2, 1)]),
    st.sampled_from([(), ("nose", "left eye", "right\x85eye"), ("0", "no", "- a")]),
)
def test_keypoints_are_read_back_equal(pictures, tmp_path_factory, objects_of, flips, names):
    out = tmp_path_factory.mktemp("out") / "yolo"
    objects_of = [list({item[0]: item for item in objects}.values()) for objects in objects_of]
    keypoints = keypoints_of([item[1:] for objects in objects_of for item in objects], flips, names)
    table = table_of(pictures, [[item[0] for item in objects] for objects in objects_of], keypoints=keypoints)
    messages = told(write_yolo, table, out)
    assert not any("keypoints" in message for message in messages)
    again = read_yolo(out, keypoints=True, invalid="raise")
    assert contents(again) == contents(table)
    np.testing.assert_array_equal(again.keypoints.points, keypoints.points)
    assert (again.keypoints.names, again.keypoints.flips.tolist()) == (names, list(flips))


@st.composite
def masks_inside(draw, side=100):
    """One to three polygons, or the runs of some pixels."""
    corner = st.tuples(QUARTERS, QUARTERS)
    polygons = st.lists(st.lists(corner, min_size=3, max_size=5), min_size=1, max_size=3)
    rows = draw(st.none() | st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=12))
    if rows is None:
        return draw(polygons)
    mask = np.zeros((side, side), np.uint8)
    for row, bits in enumerate(rows):
        mask[20 + row, 30:42] = [bits >> place & 1 for place in range(12)]
    ends = np.flatnonzero(np.diff(np.concatenate([[0], mask.reshape(-1, order="F"), [2]])))
    return np.diff([0, *ends]).astype(np.int32)


def columns_of(masks):
    """The columns of masks by row, each a list of polygons or an array of runs."""
    rows = np.array(sorted(masks), np.int64)
    runs = [masks[row] if isinstance(masks[row], np.ndarray) else np.zeros(0, np.int32) for row in rows.tolist()]
    polygons = [[] if isinstance(masks[row], np.ndarray) else masks[row] for row in rows.tolist()]
    flat = [np.float32(polygon) for one in polygons for polygon in one]
    return MaskColumns.made(
        rows,
        sizes_hw=np.full((len(rows), 2), 100),
        runs=np.concatenate([np.zeros(0, np.int32), *runs]),
        run_counts=np.array([*map(len, runs)], np.int64),
        points=np.concatenate([np.zeros((0, 2), np.float32), *flat]),
        point_counts=np.array([*map(len, flat)], np.int64),
        polygon_counts=np.array([*map(len, polygons)], np.int64),
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(masks_inside(), min_size=1, max_size=4))
def test_masks_are_read_back_equal_with_the_boxes_around_them(pictures, tmp_path_factory, masks):
    out = tmp_path_factory.mktemp("out") / "yolo"
    # Of different classes and with boxes far from their masks, so that none repeats another.
    boxes = [(60 + row, 70, 98, 99) for row in range(len(masks) + 1)]
    columns = columns_of(dict(enumerate(masks)))
    table = table_of(pictures, [boxes], class_names=[f"c{row}" for row in range(len(boxes))], masks=columns)
    messages = told(write_yolo, table, out)
    pixels = [columns.fill(row, (100, 100)) for row in range(len(masks))]
    without = sum(not one.any() for one in pixels)
    assert any("objects without a mask get their box as one" in message for message in messages)
    again = read_yolo(out, masks=True)
    assert again.class_ids.tolist() == table.class_ids.tolist()
    for row, mask in enumerate([*pixels, np.zeros((100, 100), np.uint8)]):
        box, given = again.boxes[row], table.boxes[row]
        found = again.masks.fill(row, (100, 100))
        if not mask.any():
            continue
        np.testing.assert_array_equal(found, mask)
        down, across = np.nonzero(found)
        assert box[0] <= across.min() + 0.5 and box[2] >= across.max() + 0.5
        assert box[1] <= down.min() + 0.5 and box[3] >= down.max() + 0.5
        assert (box != given).any()
    last = again.masks.fill(len(masks), (100, 100))
    assert last.astype(bool).sum() == last[70:99, 60 + len(masks) : 98].astype(bool).sum() == 29 * (38 - len(masks))
    assert any("boxes become those around their polygons" in message for message in messages) or without == len(masks)


def test_boxes_around_their_polygons_and_hundredths_beside_them_are_not_told(pictures, tmp_path):
    square = [(10, 20), (30, 20), (30, 50), (10, 50)]
    masks = columns_of({0: [square]})
    table = table_of(pictures, [[(10, 20.004, 30, 50)]], masks=masks)
    assert all("area" in message for message in told(write_yolo, table, tmp_path / "a"))
    again = read_yolo(tmp_path / "a", masks=True)
    assert [one.tolist() for one in again.masks.polygons(0)] == [[list(point) for point in square]]


def test_ignored_boxes_make_no_data_set_of_polygons(pictures, tmp_path):
    boxes = [(10, 20, 30, 50), (40, 40, 60, 60)]
    masks = columns_of({1: [[(40, 40), (60, 40), (60, 60)]]})
    table = table_of(pictures, [boxes], masks=masks, ignore=np.array([False, True]))
    messages = told(write_yolo, table, tmp_path / "a", ignored="object")
    assert any("masks are left out" in message for message in messages)
    assert len((tmp_path / "a/labels/train/0.txt").read_text().splitlines()[1].split()) == 5
    objects = dataclasses.replace(table, ignore=np.array([True, False]))
    assert not any("masks" in message for message in told(write_yolo, objects, tmp_path / "b"))
    assert len((tmp_path / "b/labels/train/0.txt").read_text().split()) == 7


def test_splits_of_which_one_has_keypoints_have_none_labelled_in_the_other(pictures, tmp_path):
    keypoints = keypoints_of([(10, 20, 2), (5, 5, 1)], [1, 0], ("left", "right"))
    train = table_of(pictures, [[(10, 20, 30, 50)]], keypoints=keypoints)
    val = table_of(pictures, [[(10, 20, 30, 50)]], masks=columns_of({0: [[(40, 40), (60, 40), (60, 60)]]}))
    messages = told(write_yolo, {"train": train, "val": val}, tmp_path / "a")
    assert any("masks are left out" in message for message in messages)
    assert read_yolo(tmp_path / "a", "val", keypoints=True).keypoints.points.tolist() == [[[0, 0, 0], [0, 0, 0]]]
    other = dataclasses.replace(val, keypoints=keypoints_of([(10, 20, 2), (5, 5, 1)], [0, 1], ("left", "right")))
    with pytest.raises(ValueError, match=r"Expected the same keypoints in all splits.*\[1, 0\].*\[0, 1\]"):
        write_yolo({"train": train, "val": other}, tmp_path / "b")
    none = dataclasses.replace(train, keypoints=Keypoints(np.zeros((1, 0, 3), np.float32), (), np.zeros(0, int)))
    told(write_yolo, none, tmp_path / "c")
    assert read_yolo(tmp_path / "c").boxes.tolist() == train.boxes.tolist()
