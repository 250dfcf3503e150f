import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, ImageError, MissingImageError
from detfeed.readers.paths import NamedImages
from detfeed.readers.rows import ImageRow, ObjectRow, Rows


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((20, 40, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def of_files(on_problem=None):
    return Rows("some folder", where="{file}, line {place}", on_problem=on_problem)


def of_lines(on_problem=None):
    return Rows("list.csv", where="line {place} ({file})", on_problem=on_problem)


def to_object(line, fields):
    if not fields[1]:
        return None
    if fields[1] == "?":
        raise ValueError("expected a class, got '?'")
    return ObjectRow(fields[1], (0, 0, line, 10), line)


def test_no_files_no_lines_and_images_without_objects_are_ordinary(folder):
    assert len(of_files().to_annotations(["x"], invalid="clip")) == 0
    rows = of_lines()
    rows.add_lines([], NamedImages(str(folder)), to_object)
    assert len(rows.to_annotations([], invalid="clip", shares=True)) == len(rows) == 0
    rows = of_files()
    assert rows.add_file("a.txt", lambda file: ImageRow(str(folder / "a.png"), "a", []))
    table = rows.to_annotations(["x"], invalid="clip")
    assert (table.image_ids.tolist(), table.image_hw.tolist(), len(table.boxes)) == (["a"], [[20, 40]], 0)
    assert table.source == "some folder"


def test_objects_of_files_become_rows_with_classes_by_their_labels():
    rows = of_files()
    images = {
        "1.txt": ImageRow("b", "b", [ObjectRow(7, (0, 0, 0.5, 1), 1), ObjectRow(3, (0, 0, 1, 1), 2, True)], (10, 20)),
        "2.txt": ImageRow("a", "a", [ObjectRow(7, (0, 0.5, 1, 1), 1)], (30, 40)),
    }
    for file in images:
        assert rows.add_file(file, images.get)
    assert list(rows.labels) == [7, 3]
    table = rows.to_annotations(["three", "seven"], invalid="clip", labels=[3, 7], category_ids=[30, 70], shares=True)
    assert table.paths == ("b", "a")
    assert table.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 20, 10], [0, 15, 40, 30]]
    assert table.class_ids.tolist() == [1, 0, 1]
    assert table.ignore.tolist() == [False, True, False]
    assert table.category_ids.tolist() == [30, 70]
    table = rows.to_annotations(["3", "7"], invalid="clip", labels=[3, 7], shares=True)
    assert table.category_ids.tolist() == [1, 2]


def test_lines_name_images_in_any_order(folder):
    rows = of_lines()
    lines = [(2, ["b.png", "x"]), (3, ["a.png", "y"]), (5, ["b.png", "y"]), (6, ["a.png", ""])]
    rows.add_lines(lines, NamedImages(str(folder)), to_object)
    table = rows.to_annotations(["x", "y"], invalid="clip")
    assert table.image_ids.tolist() == ["b.png", "a.png"]
    assert table.boxes[:, 2].tolist() == [2, 5, 3]
    assert table.class_ids.tolist() == [0, 1, 1]


def test_files_that_cannot_be_read_are_reported_before_their_images_and_leave_no_labels(folder):
    def read(file):
        if file == "wrong.txt":
            raise MissingImageError("wrong.txt: expected an image, got none")
        return ImageRow(str(folder / file), file, [ObjectRow(file, (0, 0, 5, 5), 1)])

    told = []
    rows = of_files(lambda *problem: told.append(problem))
    added = [rows.add_file(file, read) for file in ("wrong.txt", "broken.png", "a.png")]
    assert added == [False, False, True]
    assert [(path, type(error)) for path, error in told] == [
        ("wrong.txt", MissingImageError),
        (str(folder / "broken.png"), ImageError),
    ]
    assert list(rows.labels) == ["a.png"]
    assert rows.to_annotations(["a.png"], invalid="clip").image_ids.tolist() == ["a.png"]
    for files, kind, more in (
        (["wrong.txt"], MissingImageError, "got none$"),
        (["broken.png", "wrong.txt", "a.png", "wrong.txt"], ImageError, "; and 2 more; detfeed check lists them all$"),
    ):
        rows = of_files()
        assert sum(rows.add_file(file, read) for file in files) == files.count("a.png")
        with pytest.raises(kind, match=more):
            rows.stop()
        with pytest.raises(kind, match=more):
            rows.to_annotations(["a.png"], invalid="clip")


def test_lines_that_cannot_be_read_leave_out_their_image_or_themselves(folder):
    told = []
    rows = of_lines(lambda path, error: told.append((path, str(error))))
    lines = [
        (1, ["a.png", "x"]), (2, ["b.png", "x"]), (3, []), (4, ["../a.png", "x"]), (5, ["a.png", "?"]),
        (6, ["broken.png", ""]), (7, ["a.png", "x"]),
    ]  # fmt: skip
    rows.add_lines(lines, NamedImages(str(folder)), lambda line, fields: to_object(line, fields or ["", "?"]))
    assert [path for path, _ in told] == [*["list.csv"] * 3, str(folder / "broken.png")]
    assert told[0][1] == "list.csv: expected a class, got '?' - at line 3"
    assert told[1][1].endswith('remove its ".." - at line 4')
    assert told[2][1] == "list.csv: expected a class, got '?' - at line 5"
    assert rows.to_annotations(["x"], invalid="clip").image_ids.tolist() == ["b.png"]
    rows = of_lines()
    rows.add_lines(lines[4:5], NamedImages(str(folder)), to_object)
    with pytest.raises(AnnotationError, match=r"^list\.csv: expected a class, got '\?' - at line 5$"):
        rows.stop()


@pytest.mark.parametrize("error", [ValueError("stop"), AnnotationError("stop")])
def test_errors_that_on_problem_raises_itself_are_not_reported_to_it(folder, error):
    told = []

    def stop(path, problem):
        told.append(path)
        raise error

    with pytest.raises(ValueError, match=r"^stop$"):
        of_lines(stop).add_lines([(1, ["a.png", "?"])], NamedImages(str(folder)), to_object)
    with pytest.raises(ValueError, match=r"^stop$"):
        of_files(stop).add_file("x.txt", lambda file: ImageRow(str(folder / "broken.png"), "x", []))
    assert told == ["list.csv", str(folder / "broken.png")]


def test_places_of_bad_boxes_have_the_form_of_the_reader(folder):
    rows = of_files()
    rows.add_file("{x}.txt", lambda file: ImageRow("a.png", "a", [ObjectRow("x", (5, 5, 5, 5), 3)], (10, 10)))
    with pytest.warns(UserWarning, match=r"- at \{x\}\.txt, line 3$"):
        rows.to_annotations(["x"], invalid="clip")
    rows = of_lines()
    rows.add_lines([(4, ["a.png", "x"])], NamedImages(str(folder)), lambda line, _: ObjectRow("x", (5, 5, 5, 5), line))
    with pytest.warns(UserWarning, match=r"- at line 4 \(.*a\.png\)$"):
        rows.to_annotations(["x"], invalid="clip")
