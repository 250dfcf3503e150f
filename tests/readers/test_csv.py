import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, ImageError, read_csv


@pytest.fixture
def read(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))

    def write_and_read(boxes, classes="cow,0\ncat,1\n", image_dir=None, **arguments):
        for name, text in (("boxes.csv", boxes), ("classes.csv", classes)):
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_csv(tmp_path / "boxes.csv", tmp_path / "classes.csv", image_dir, **arguments)

    return write_and_read


def test_empty_file_and_image_without_objects_are_ordinary(read):
    assert len(read("")) == len(read("", "")) == 0
    table = read("a.png,,,,,\n")
    assert table.image_ids.tolist() == ["a.png"]
    assert table.boxes.shape == (0, 4)
    assert table.class_names == ("cow", "cat")


def test_boxes_images_and_classes_are_read_in_their_orders(read, tmp_path):
    table = read("sub/b.png,1,2,9.5,8,cat\r\na.png,0,0,30,20,cow\r\n\r\nsub/b.png,3,3,4,4,cow\r\n", "cow,7\ncat,3\n")
    assert table.paths == (str(tmp_path / "sub/b.png"), str(tmp_path / "a.png"))
    assert table.boxes.tolist() == [[1, 2, 9.5, 8], [3, 3, 4, 4], [0, 0, 30, 20]]
    assert table.class_names == ("cat", "cow")
    assert table.category_ids.tolist() == [3, 7]
    assert table.class_ids.tolist() == [0, 1, 1]
    assert table.image_hw.tolist() == [[20, 30]] * 2


def test_absolute_paths_are_fine_inside_the_image_folder_alone(read, tmp_path):
    line = f"{tmp_path}/a.png,1,2,3,4,cat\n"
    assert read(line).paths == (str(tmp_path / "a.png"),)
    with pytest.raises(AnnotationError, match=r"the image folder .*sub, got the absolute path .* - at line 1"):
        read(line, image_dir=tmp_path / "sub")


def test_a_byte_order_mark_and_quotes_are_understood(read):
    table = read(b'\xef\xbb\xbf"a.png",1,2,3,4,"cow, brown"\n', '"cow, brown",0\n')
    assert table.class_names == ("cow, brown",)


def test_bad_boxes_follow_the_policy_with_the_line_of_the_first(read):
    with pytest.warns(UserWarning, match=r"of 2 boxes 1 without area .* - at line 2 \(.*a.png\)") as said:
        assert read("a.png,1,1,2,2,cow\na.png,5,5,4,4,cow\n").boxes.tolist() == [[1, 1, 2, 2]]
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("a.png,1,2,3,4\n", "expected 6 fields, got 5 - at line 1"),
        ("a.png,,,,,\na.png,1,2,x,4,cow\n", "expected a number, got 'x' - at line 2"),
        ("a.png,1,2,,4,cow\n", "expected a number, got '' - at line 1"),
        ("a.png,1,2,nan,4,cow\n", "expected a number, got 'nan' - at line 1"),
        ("a.png,1,2,3,4,dog\n", r"expected a class among \['cow', 'cat'\], got 'dog' - at line 1"),
        ("../c.png,,,,,\n", "got '../c.png'; remove its \"..\" - at line 1"),
        (",1,2,3,4,cow\n", "the name of an image file, got '' - at line 1"),
        ('"a.png\n', "unexpected end of data - at line 1"),
        ("x" * 200_000, "field larger than field limit"),
        (b"\xff\xfe", "a CSV file of boxes in UTF-8, got"),
    ],
)
def test_bad_file_is_an_error_with_an_address(read, boxes, message):
    with pytest.raises(AnnotationError, match=rf"boxes\.csv: .*{message}"):
        read(boxes)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cow\n", "expected `class_name,id`, got 'cow' - at line 1"),
        ("cow,x\n", "expected `class_name,id`, got 'cow,x' - at line 1"),
        ("cow,1234567890\n", "expected `class_name,id`, got 'cow,1234567890' - at line 1"),
        (" ,0\n", "expected the name of a class, got ' ' - at line 1"),
        ("cow,0\ncow,1\n", "expected each class and each id once, got 'cow' 1 - at line 2"),
        ("cow,0\ncat,0\n", "expected each class and each id once, got 'cat' 0 - at line 2"),
    ],
)
def test_bad_file_of_classes_is_an_error_with_an_address(read, classes, message):
    with pytest.raises(AnnotationError, match=rf"classes\.csv: {message}"):
        read("", classes)


def test_missing_files_are_errors_that_name_them(read, tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: expected an image file, got No such file"):
        read("none.png,,,,,\n")
    with pytest.raises(AnnotationError, match=r"a name of at most 255 characters, got 100000: .* - at line 1"):
        read("x" * 100_000 + ",,,,,\n")
    with pytest.raises(AnnotationError, match=r"none\.csv: expected a CSV file of classes, got No such file"):
        read_csv(tmp_path / "boxes.csv", tmp_path / "none.csv")


def test_paths_written_in_several_ways_are_one_image(read, tmp_path):
    many = "./" * 1000
    lines = [f"{name},1,2,{3 + k},4,cow\n" for k, name in enumerate(("a.png", "./a.png", f"{tmp_path}/a.png"))]
    table = read("".join([f"{many}a.png,,,,,\n", *lines]))
    assert table.image_ids.tolist() == ["a.png"]
    assert table.image_ids.dtype == "<U5"
    assert len(table.boxes) == 3


def test_rows_and_images_that_cannot_be_read_are_told_and_left_out(read, tmp_path):
    for name in ("c", "d", "e"):
        (tmp_path / f"{name}.png").write_bytes((tmp_path / "a.png").read_bytes() if name != "d" else b"no image")
    boxes = [
        "c.png,1,2,3,4,cow",
        "a.png,1,2,3,4,cow",
        "../x.png,1,2,3,4,cow",
        "d.png,1,2,3,4,cow",
        "c.png,1,2,x,4,cow",
        "sub/b.png,1,2,30.4,4,cat",
        "e.png,1",
        "c.png,1,2,3,4,dog",
        "none.png,,,,,",
        "sub/b.png,5,5,50,9,cat",
    ]
    told = []
    with pytest.warns(UserWarning, match=r"of 3 boxes 1 reaching .* - at line 10 \(.*sub/b\.png\)") as said:
        table = read("\n".join(boxes), on_problem=lambda *problem: told.append(problem))
    assert table.image_ids.tolist() == ["a.png", "sub/b.png"]
    assert table.class_ids.tolist() == [0, 1, 1]
    assert table.boxes.tolist() == [[1, 2, 3, 4], [1, 2, 30, 4], [5, 5, 30, 9]]
    (bad,) = said[0].message.found
    assert (bad.examples[0].path, bad.examples[0].image_id) == (str(tmp_path / "sub/b.png"), "sub/b.png")
    assert [str(error)[-9:].strip() for path, error in told if path == str(tmp_path / "boxes.csv")] == [
        *("at line 3", "at line 5", "at line 7", "at line 8")
    ]
    assert [path.rsplit("/")[-1] for path, _ in told[4:]] == ["d.png", "none.png"]


BOXES = [("a.png", 1, 2, 9, 8, "cow"), ("sub/b.png", 3, 4, 30, 20, "cat"), ("a.png", 0, 0, 5, 5, "cat")]
LAYOUTS = {
    "keras-retinanet": "{0},{1},{2},{3},{4},{5}",
    "with headings": "{0},{1},{2},{3},{4},{5}",
    "VoTT": '"{0}",{1},{2},{3},{4},"{5}"',
    "Roboflow": "{0},30,20,{5},{1},{2},{3},{4}",
    "SKU110K": "{0},{1},{2},{3},{4},{5},30,20",
}
HEADINGS = {
    "with headings": "Image Path, x1,y1,x2,y2,class_name",
    "VoTT": '"image","xmin","ymin","xmax","ymax","label"',
    "Roboflow": "filename,width,height,class,xmin,ymin,xmax,ymax",
}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_are_those_of_each_tool(read, layout, mark, end, separator):
    lines = [HEADINGS[layout]] if layout in HEADINGS else []
    lines += [LAYOUTS[layout].format(*box) for box in BOXES]
    table = read(mark + end.join(lines).replace(",", separator) + end, f"class_name,id{end}cow,0{end}cat,1{end}")
    assert table.image_ids.tolist() == ["a.png", "sub/b.png"]
    assert table.boxes.tolist() == [[1, 2, 9, 8], [0, 0, 5, 5], [3, 4, 30, 20]]
    assert [table.class_names[class_id] for class_id in table.class_ids] == ["cow", "cat", "cat"]


def test_classes_without_a_file_are_the_names_in_order(read, tmp_path):
    read("".join(f"{LAYOUTS['SKU110K'].format(*box)}\n" for box in BOXES))
    table = read_csv(tmp_path / "boxes.csv")
    assert table.class_names == ("cat", "cow")
    assert table.category_ids.tolist() == [1, 2]
    assert table.class_ids.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("headings", "wrong"),
    [("filename,xmin,ymin,xmax,ymax", "class"), ("a,x1,y1,x2,y2,class", "path"), ("path,x1,y1,x2,class", "y2")],
)
def test_headings_that_do_not_say_all_are_an_error(read, headings, wrong):
    with pytest.raises(AnnotationError, match=rf"boxes\.csv: expected headings path, x1, .* - at `{wrong}` of line 1"):
        read(f"{headings}\na.png,1,2,3,4,cow\n")


@pytest.mark.parametrize(
    "name", ["b.png", "sub\\b.png", "Sub/B.PNG", "C:\\x\\sub\\b.png", "../sub/b.png", "/x/sub/b.png"]
)
def test_image_that_is_not_where_its_name_says_is_read_if_it_is_unambiguous_and_told(read, tmp_path, name):
    with pytest.warns(UserWarning, match=r"boxes\.csv: the image is in another .*, whose image is .*sub/b\.png$"):
        table = read(f"{name},1,2,3,4,cow\n")
    assert (table.image_ids.tolist(), table.paths) == (["sub/b.png"], (str(tmp_path / "sub/b.png"),))


def test_image_of_another_suffix_is_named(read, tmp_path):
    with pytest.raises(ImageError, match=r"a\.jpg: .*No such file or directory; there is 'a\.png': correct the name$"):
        read("a.jpg,1,2,3,4,cow\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").touch()
    with pytest.raises(ImageError, match=r"; there is 'a\.png' and 'x/a\.png': correct the name$"):
        read("y/a.png,1,2,3,4,cow\n")


STATED = "path,x1,y1,x2,y2,class,width,height\n"


@pytest.mark.parametrize("wrong", ["60,40", "30,21", "31,20"])
def test_size_that_the_file_gives_is_that_of_the_image_or_an_error(read, wrong):
    rows = {"right": "30,20", "of the stored picture": "30.0,20.0", "unknown": ",", "none": "None,-1", "zero": "0,0"}
    for size in rows.values():
        assert read(f"{STATED}a.png,1,2,3,4,cat,{size}\n").image_hw.tolist() == [[20, 30]]
    width, height = wrong.split(",")
    with pytest.raises(
        ImageError, match=rf"a\.png: expected height {height} and width {width}, as line 2 of .*boxes\.csv"
    ):
        read(f"{STATED}a.png,1,2,3,4,cat,{wrong}\n")
    with pytest.raises(ImageError, match=r"as line 1 of .* states, got 20 and 30"):
        read(f"a.png,1,2,3,4,cat,{wrong}\n")
    told = []
    table = read(
        f"{STATED}a.png,1,2,3,4,cat,{wrong}\nsub/b.png,1,2,3,4,cat,30,20\n", on_problem=lambda *one: told.append(one)
    )
    assert (table.image_ids.tolist(), len(told)) == (["sub/b.png"], 1)


def test_rows_of_an_image_that_give_it_two_sizes_are_an_error_at_the_second(read):
    with pytest.raises(AnnotationError, match=r"of line 2 of .*boxes\.csv, \(20, 30\), got \(40, 60\) - at line 3$"):
        read(f"{STATED}a.png,1,2,3,4,cat,30,20\na.png,5,6,7,8,cat,60,40\n")
    with pytest.raises(AnnotationError, match="expected a number, got 'wide' - at line 2"):
        read(f"{STATED}a.png,1,2,3,4,cat,wide,20\n")


@pytest.mark.parametrize("headings", ["path,x,y,w,h,label", "image,left,top,right,bottom,class", "a,b,c,d,e,f,g,h"])
def test_headings_that_are_not_known_are_an_error_for_the_whole_file(read, headings):
    told = []
    with pytest.raises(AnnotationError, match=r"headings path, x1.* - at `\w+` of line 1; .* x1/xmin/x_min"):
        read(f"{headings}\na.png,1,2,3,4,cat\n", on_problem=lambda *one: told.append(one))
    assert not told


def test_corners_that_are_shares_are_told_with_the_first(read):
    with pytest.warns(
        UserWarning, match=r"as if they were shares .* got \[0.5, 0.25, 1.0, 0.75\] - at line 1 \("
    ) as said:
        read("a.png,0.5,0.25,1.0,0.75,cat\na.png,0,0,0.5,0.5,cat\n")
    assert said[0].filename == __file__
    assert read("a.png,0,0,1,1,cat\na.png,3,3,5,5,cat\n").boxes.tolist() == [[0, 0, 1, 1], [3, 3, 5, 5]]


def test_first_error_says_how_many_more_there_are(read):
    with pytest.raises(AnnotationError, match=r"got 'x' - at line 1; and 2 more; detfeed check lists them all"):
        read("a.png,x,2,3,4,cat\na.png,x,2,3,4,cat\nsub/c.png,1,2,3,4,cat\n")
