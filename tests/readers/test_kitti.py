import os

import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, MissingImageError, read_kitti

CAR = "Car 0.00 0 -1.58 5.01 7.5 24.3 18 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
DONT_CARE = "DontCare -1 -1 -10 20.0 1.0 29.0 9.0 -1 -1 -1 -1000 -1000 -1000 -10\n"


@pytest.fixture
def read(tmp_path):
    for folder in ("label_2", "image_2"):
        (tmp_path / folder).mkdir()

    def write_and_read(texts, **arguments):
        for name, text in texts.items():
            (tmp_path / "label_2" / f"{name}.txt").write_text(text)
            cv2.imwrite(str(tmp_path / "image_2" / f"{name}.png"), np.zeros((20, 30, 3), np.uint8))
        return read_kitti(tmp_path, **arguments)

    return write_and_read


def test_no_files_and_empty_ones_are_ordinary(read):
    assert len(read({})) == 0
    table = read({"000000": ""})
    assert table.boxes.shape == (0, 4)
    assert table.image_hw.tolist() == [[20, 30]]


def test_boxes_are_fields_five_to_eight(read, tmp_path):
    table = read({"000001": CAR, "000000": CAR.replace("Car", "Van").rstrip() + " 0.9\n\n"})
    assert table.image_ids.tolist() == ["000000", "000001"]
    assert table.paths[1] == str(tmp_path / "image_2" / "000001.png")
    assert table.boxes.tolist() == np.float32([[5.01, 7.5, 24.3, 18]] * 2).tolist()
    assert table.class_names == ("Car", "Van", "DontCare")
    assert table.class_ids.tolist() == [1, 0]
    assert not table.ignore.any()


def test_dont_care_is_an_ignore_region_of_the_last_class(read):
    for arguments in ({}, {"class_names": ("Car",)}):
        table = read({"000000": DONT_CARE + CAR}, **arguments)
        assert table.ignore.tolist() == [True, False]
        assert table.class_names == ("Car", "DontCare")
        assert table.class_ids.tolist() == [1, 0]


def test_bad_boxes_follow_the_policy_with_the_line_of_the_first(read):
    with pytest.warns(UserWarning, match=r"of 2 boxes 1 reaching .* - at .*000000\.txt, line 2") as said:
        table = read({"000000": CAR + CAR.replace(" 24.3 ", " 44.3 ")})
    assert table.boxes[1, 2] == 30
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Car 1 2 3\n", "expected a class and 14 or 15 numbers, got 4 fields - at line 1"),
        (CAR + CAR.replace("24.3", "x"), "expected a number, got 'x' - at line 2"),
        (CAR.replace("24.3", "inf"), "expected a number, got 'inf' - at line 1"),
        (
            CAR.replace("Car", "Traffic Light"),
            r"expected one of \['Car', 'DontCare'\], got 'Traffic Light'",
        ),
        (CAR.replace("0.00", "x"), "expected a class and 14 or 15 numbers, got 15 fields - at line 1"),
        (CAR + CAR.replace("-1.59", "x"), "expected a number, got 'x' - at line 2"),
        (CAR.replace("Car", "Tram"), r"expected one of \['Car', 'DontCare'\], got 'Tram' - at line 1"),
    ],
)
def test_bad_file_is_an_error_with_an_address(read, text, message):
    with pytest.raises(AnnotationError, match=rf"000000\.txt: {message}"):
        read({"000000": text}, class_names=("Car",))


def test_missing_folders_and_images_are_errors_that_name_them(read, tmp_path):
    with pytest.raises(
        AnnotationError, match=r"labels: expected a folder of text files, got No such file .*; see `label_dir`"
    ):
        read({}, label_dir="labels")
    (tmp_path / "label_2" / "000009.txt").write_text(CAR)
    with pytest.raises(MissingImageError, match=r"000009\.txt: expected an image 000009\.\* in .*image_2, got none"):
        read({})


def test_files_come_in_the_order_of_their_names_and_those_of_other_kinds_do_not_count(read, tmp_path, monkeypatch):
    read({"000002": CAR, "000000": CAR, "000001": ""})
    (tmp_path / "label_2" / "000000.txt").rename(tmp_path / "label_2" / "000000.TXT")
    for name in ("label_2/._000000.txt", "label_2/readme.md", "image_2/000000.aux", "image_2/._000001.png"):
        (tmp_path / name).write_bytes(b"\xff")
    walk = os.walk
    for backwards in (False, True):

        def walk_in_order(folder, backwards=backwards, **options):
            for parent, folders, names in walk(folder, **options):
                yield parent, folders, sorted(names, reverse=backwards)

        monkeypatch.setattr(os, "walk", walk_in_order)
        table = read_kitti(tmp_path)
        assert table.image_ids.tolist() == ["000000", "000001", "000002"]
        assert [path[-10:] for path in table.paths] == ["000000.png", "000001.png", "000002.png"]


def test_images_of_one_name_are_an_error(read, tmp_path):
    (tmp_path / "image_2" / "000000.JPG").touch()
    with pytest.raises(AnnotationError, match=r"000000\.txt: .* got '000000\.JPG' and '000000\.png'; remove"):
        read({"000000": CAR})


def test_files_and_images_that_cannot_be_read_are_told_and_left_out(read, tmp_path):
    read({"000000": CAR, "000001": DONT_CARE + CAR, "000002": CAR})
    (tmp_path / "label_2" / "000000.txt").write_text("Car 1 2\n")
    (tmp_path / "label_2" / "000003.txt").write_text(CAR)
    (tmp_path / "image_2" / "000002.png").write_bytes(b"no image")
    told = []
    table = read_kitti(tmp_path, on_problem=lambda *problem: told.append(problem))
    assert table.image_ids.tolist() == ["000001"]
    assert table.ignore.tolist() == [True, False]
    assert [path[-10:] for path, _ in told] == ["000000.txt", "000002.png", "000003.txt"]
    assert all(str(error).startswith(f"{path}: ") for path, error in told)


@pytest.mark.parametrize("score", ["", " 0.9"])
def test_classes_may_have_several_words(read, score):
    line = CAR.rstrip() + score + "\n"
    table = read(
        {"000000": line.replace("Car", "Traffic Light 3-way") + line}, class_names=("Car", "Traffic Light 3-way")
    )
    assert table.class_ids.tolist() == [1, 0]
    assert table.boxes.tolist() == np.float32([[5.01, 7.5, 24.3, 18]] * 2).tolist()


def test_files_in_subfolders_are_found(read, tmp_path):
    for name in ("s", "s/t"):
        for folder in ("label_2", "image_2"):
            (tmp_path / folder / name).mkdir()
    table = read({"b": CAR, "s/a": CAR, "s/t/b": DONT_CARE})
    assert table.image_ids.tolist() == ["b", "s/a", "s/t/b"]
    assert [os.path.relpath(path, tmp_path / "image_2") for path in table.paths] == ["b.png", "s/a.png", "s/t/b.png"]
    assert table.offsets.tolist() == [0, 1, 2, 3]


def test_image_in_another_folder_is_taken_and_one_without_labels_is_left_out_and_both_are_told(read, tmp_path):
    for name in ("label_2/s", "image_2/t"):
        (tmp_path / name).mkdir()
    read({"a": CAR, "b": CAR})
    (tmp_path / "label_2" / "a.txt").rename(tmp_path / "label_2" / "s" / "a.txt")
    (tmp_path / "image_2" / "a.png").rename(tmp_path / "image_2" / "t" / "a.png")
    (tmp_path / "label_2" / "b.txt").unlink()
    with (
        pytest.warns(UserWarning, match=r"image is in another folder, .*label_2/s/a\.txt, whose image is .*t/a\.png$"),
        pytest.warns(UserWarning, match=r"images without a text file are left out - at .*image_2/b\.png$"),
    ):
        assert read_kitti(tmp_path).image_ids.tolist() == ["s/a"]


def test_folders_may_have_the_names_of_fiftyone(read, tmp_path):
    read({"a": CAR})
    (tmp_path / "label_2").rename(tmp_path / "labels")
    (tmp_path / "image_2").rename(tmp_path / "data")
    assert read_kitti(tmp_path).paths == (str(tmp_path / "data" / "a.png"),)
