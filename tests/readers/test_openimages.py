import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, ImageError, read_openimages

HEADINGS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
CLASSES = "/m/01g317,Person\n/m/0k4j,Car\n"


def box(image="00a1", label="/m/0k4j", corners="0.1,0.5,0.2,0.8", group=0):
    return f"{image},xclick,{label},1,{corners},0,1,{group},0,0\n"


@pytest.fixture
def read(tmp_path):
    for name in ("00a1", "00b2"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.zeros((20, 30, 3), np.uint8))

    def write_and_read(boxes, classes=CLASSES, **arguments):
        (tmp_path / "boxes.csv").write_text(boxes)
        (tmp_path / "classes.csv").write_text(classes)
        return read_openimages(tmp_path / "boxes.csv", tmp_path / "classes.csv", tmp_path, **arguments)

    return write_and_read


def test_file_of_headings_alone_is_ordinary(read):
    table = read(HEADINGS)
    assert len(table) == 0
    assert table.class_names == ("Person", "Car")


def test_shares_become_pixels_and_labels_names(read, tmp_path):
    table = read(HEADINGS + box("00b2") + box("00a1", "/m/01g317", "0,1,0,1") + box("00b2", corners="0.5,1,0.5,1"))
    assert table.image_ids.tolist() == ["00b2", "00a1"]
    assert table.paths[0] == str(tmp_path / "00b2.jpg")
    np.testing.assert_allclose(table.boxes, [[3, 4, 15, 16], [15, 10, 30, 20], [0, 0, 30, 20]], rtol=1e-6)
    assert table.class_ids.tolist() == [1, 1, 0]
    assert table.category_ids.tolist() == [1, 2]


def test_groups_are_ignore_regions_and_unknown_ones_are_not(read):
    table = read(HEADINGS + box(group=" 1") + box(corners="0,1,0,1") + box(corners="0,1,0,0.5", group=-1))
    assert table.ignore.tolist() == [True, False, False]


def test_columns_are_told_by_their_headings_and_classes_may_have_them_too(read):
    boxes = "IsGroupOf,YMax,YMin,XMax,XMin,LabelName,ImageID\n1,1,0.5,1,0,/m/0k4j,00a1\n"
    table = read(boxes, "LabelName,DisplayName\n" + CLASSES)
    assert table.boxes.tolist() == [[0, 10, 30, 20]]
    assert table.class_names == ("Person", "Car")


def test_rounding_out_of_the_image_is_clipped_without_a_word(read):
    assert read(HEADINGS + box(corners="-0.001,1.001,0,1.001")).boxes.tolist() == [[0, 0, 30, 20]]
    with pytest.warns(UserWarning, match=r"boxes\.csv: of 1 boxes 1 reaching .* - at line 2 \(.*00a1\.jpg\)") as said:
        read(HEADINGS + box(corners="0,1.1,0,1"))
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("", "expected headings ImageID, .*, got an empty file"),
        ("ImageID,LabelName\n", r"expected headings .*, got none of \['XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf'\]"),
        ("XMax," + HEADINGS + "0.5," + box(), r"expected each heading once, got \['XMax'\] again - at line 1"),
        (HEADINGS.replace("Source", "Depth,Depth") + box(), "expected 14 fields, got 13 - at line 2"),
        (HEADINGS + "00a1,x\n", "expected 13 fields, got 2 - at line 2"),
        (HEADINGS + box() + box(corners="0,x,0,1"), "expected a number, got 'x' - at line 3"),
        (HEADINGS + box(label="/m/0"), r"expected a class of .*classes\.csv, got '/m/0' - at line 2"),
        (HEADINGS + box("../00ff"), r"got '\.\./00ff\.jpg'; remove its .* - at line 2"),
        (HEADINGS + box(""), "the name of an image file, got '' - at line 2"),
        (HEADINGS + box("x" * 300), "a name of at most 255 characters, got 304: .* - at line 2"),
        *(
            (HEADINGS + box() + box(group=group), f"expected `IsGroupOf` to be 1, 0 or -1, got '{group}' - at line 3")
            for group in ("True", "1.0", "yes", "banana", "", "2")
        ),
    ],
)
def test_bad_file_is_an_error_with_an_address(read, boxes, message):
    with pytest.raises(AnnotationError, match=rf"boxes\.csv: .*{message}"):
        read(boxes)


def test_bad_classes_and_missing_images_are_errors(read):
    with pytest.raises(AnnotationError, match=r"classes\.csv: expected each class once, got '/m/0' again - at line 2"):
        read(HEADINGS, "/m/0,a\n/m/0,b\n")
    with pytest.raises(AnnotationError, match=r"classes\.csv: expected `LabelName,name`, got 1 fields - at line 1"):
        read(HEADINGS, "/m/0\n")
    with pytest.raises(AnnotationError, match=r"classes\.csv: expected the name of a class, got '' - at line 1"):
        read(HEADINGS, "/m/0,\n")
    with pytest.raises(ImageError, match=r"00c3\.jpg: expected an image file, got No such file"):
        read(HEADINGS + box("00c3"))


def test_ids_written_in_several_ways_are_one_image(read):
    table = read(HEADINGS + box("./00a1") + box("00a1", corners="0,1,0,1") + box(".//" * 1000 + "00a1", "/m/01g317"))
    assert table.image_ids.tolist() == ["00a1"]
    assert table.image_ids.dtype == "<U4"
    assert len(table.boxes) == 3


def test_rows_and_images_that_cannot_be_read_are_told_and_left_out(read, tmp_path):
    (tmp_path / "00c3.jpg").write_bytes((tmp_path / "00a1.jpg").read_bytes())
    (tmp_path / "00d4.jpg").write_bytes(b"no image")
    rows = [box("00c3"), box("00d4"), box("00b2", "/m/0"), box("00a1"), "00c3,1\n", box(""), box("00b2"), box("00e5")]
    told = []
    table = read(HEADINGS + "".join(rows), on_problem=lambda *problem: told.append(problem))
    assert table.image_ids.tolist() == ["00a1"]
    np.testing.assert_allclose(table.boxes, [[3, 4, 15, 16]], rtol=1e-6)
    assert [path.rsplit("/")[-1] for path, _ in told] == [*["boxes.csv"] * 3, "00d4.jpg", "00e5.jpg"]
    assert [str(error)[-6:] for _, error in told[:3]] == ["line 4", "line 6", "line 7"]


def test_corners_in_pixels_are_an_error_that_says_so(read):
    with pytest.raises(AnnotationError, match=r"expected shares of .*, got 17, as if in pixels.* - at line 2"):
        read(HEADINGS + box(corners="3,17,4,9"))
