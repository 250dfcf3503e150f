import os
import re

import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, MissingImageError, RepeatedImageError, read_voc

SIZE = "<size><width>30</width><height>20</height><depth>3</depth></size>"
CAT = (
    "<object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"
)


def item(name="dog", box=(3, 4, 9, 8), extra=""):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def voc(tmp_path):
    """Write a VOC folder of given XML bodies and read it."""
    root = tmp_path / "VOC"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)

    def write_and_read(bodies, split=None, **arguments):
        for name, body in bodies.items():
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{body}</annotation>")
            cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.zeros((20, 30, 3), np.uint8))
        return read_voc(root, split, **arguments)

    write_and_read.root = root
    return write_and_read


def test_image_without_objects_is_kept(voc):
    table = voc({"a": SIZE})
    assert len(table) == 1
    assert table.boxes.shape == (0, 4)
    assert table.class_names == ()


def test_corners_counted_from_one_become_edges(voc):
    table = voc({"a": SIZE + CAT})
    np.testing.assert_array_equal(table.boxes, np.float32([[0, 1, 30, 20]]))
    np.testing.assert_array_equal(table.image_hw, [[20, 30]])
    assert table.image_id(0) == "a"
    assert table.areas.tolist() == [30 * 19]


def test_corners_are_taken_as_edges_on_request(voc):
    np.testing.assert_array_equal(voc({"a": SIZE + CAT}, one_based=False).boxes, np.float32([[1, 2, 30, 20]]))


def test_difficult_becomes_an_ignore_flag_and_may_be_missing(voc):
    table = voc({"a": SIZE + item(extra="<difficult>1</difficult>") + item() + CAT})
    assert table.ignore.tolist() == [True, False, False]


@pytest.mark.parametrize("side", ["", "<height/>", *(f"<height>{text}</height>" for text in ("0", "-1", "None", " "))])
def test_size_that_is_not_known_is_read_from_the_image(voc, side):
    for body in ("", f"<size>{side}</size>", f"<size><width>30</width>{side}</size>"):
        np.testing.assert_array_equal(voc({"a": body + CAT}).image_hw, [[20, 30]])


def test_sizes_may_be_written_as_floats(voc):
    size = "<size><width>96.0</width><height>64.0</height></size>"
    np.testing.assert_array_equal(voc({"a": size + CAT}).image_hw, [[64, 96]])


@pytest.mark.parametrize("text", ["", " ", "Unspecified", "None", "null", "false", "False", "0", "0.0"])
def test_flag_that_says_nothing_is_not_set(voc, text):
    table = voc({"a": SIZE + item(extra=f"<truncated>{text}</truncated><difficult>{text}</difficult>")})
    assert table.ignore.tolist() == [False]
    assert voc({"a": SIZE + item(extra="<difficult>True</difficult>")}).ignore.tolist() == [True]


def lay_out(root, xml, images):
    """Write XML files, of paths by image that each names, and images."""
    for path, named in xml.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"<annotation><filename>{named}</filename>{SIZE}{CAT}</annotation>")
    for path in images:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), np.zeros((20, 30, 3), np.uint8))
    return root


@pytest.mark.parametrize("named", ["sub/a.jpg", "a.jpg", "sub\\a.jpg", ""])
def test_files_in_subfolders_are_found(tmp_path, named):
    xml = {"Annotations/b.xml": "b.jpg", "Annotations/sub/a.xml": named, "Annotations/sub/deep/c.xml": ""}
    images = [f"JPEGImages/{name}.jpg" for name in ("a", "b", "sub/a", "sub/deep/c")]
    lay_out(tmp_path, xml, images)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "default.txt").write_text("sub/a\nb\n")
    with pytest.warns(UserWarning, match=r": images without an XML file are left out - at .*JPEGImages/a\.jpg$"):
        table = read_voc(tmp_path)
    assert table.image_ids.tolist() == ["b", "sub/a", "sub/deep/c"]
    assert [os.path.relpath(path, tmp_path) for path in table.paths] == images[1:]
    table = read_voc(tmp_path, "default")
    assert table.image_ids.tolist() == ["sub/a", "b"]


@pytest.mark.parametrize("folders", [("", ""), ("a/", "a/"), ("a/b/", "a/b/")])
def test_xml_files_beside_their_images_need_no_layout(tmp_path, folders):
    xml, images = folders
    lay_out(tmp_path, {f"{xml}x.xml": "x.jpg", f"{xml}y.xml": "y.jpg"}, [f"{images}x.jpg", f"{images}y.jpg"])
    table = read_voc(tmp_path)
    assert [os.path.relpath(path, tmp_path) for path in table.paths] == [f"{images}x.jpg", f"{images}y.jpg"]


def test_images_in_another_folder_are_taken_if_they_are_unambiguous_and_told(tmp_path):
    lay_out(tmp_path, dict.fromkeys(("boxes/s/x.xml", "boxes/t/x.xml"), "x.jpg"), ["photos/s/x.jpg", "photos/t/x.jpg"])
    with pytest.warns(UserWarning, match=r"image is in another folder, .*/boxes/s/x\.xml, whose .* the first of 2$"):
        table = read_voc(tmp_path)
    assert [os.path.relpath(path, tmp_path) for path in table.paths] == ["photos/s/x.jpg", "photos/t/x.jpg"]
    os.remove(tmp_path / "photos/t/x.jpg")
    with pytest.raises(MissingImageError, match=r"expected an image 'x\.jpg' or 'boxes/t/x'\.\* in .*, got none"):
        read_voc(tmp_path)


def test_no_image_of_another_file_is_taken(tmp_path):
    lay_out(tmp_path, {"s/x.xml": "x.jpg", "t/x.xml": "x.jpg"}, ["t/x.jpg"])
    with pytest.raises(MissingImageError, match=r"s/x\.xml: expected an image 'x\.jpg' or 's/x'\.\* in .*, got none"):
        read_voc(tmp_path)
    told = []
    assert read_voc(tmp_path, on_problem=lambda path, error: told.append(path)).image_ids.tolist() == ["t/x"]
    assert told == [str(tmp_path / "s/x.xml")]


def test_lines_of_a_list_that_name_images_in_another_way_are_read_and_told(tmp_path):
    lay_out(tmp_path, {"Annotations/s/x.xml": "", "Annotations/Y.xml": ""}, ["JPEGImages/s/x.jpg", "JPEGImages/Y.jpg"])
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("x.jpg\ny\n")
    with pytest.warns(UserWarning, match=r"in another .*train\.txt, line 1: 'x\.jpg' is 's/x', the first of 2"):
        assert read_voc(tmp_path, "train").image_ids.tolist() == ["s/x", "Y"]


def test_image_of_a_format_that_is_not_supported_is_named(tmp_path):
    lay_out(tmp_path, {"Annotations/s/x.xml": "x.heic"}, ["JPEGImages/s/y.jpg"])
    (tmp_path / "JPEGImages/s/x.heic").touch()
    with pytest.raises(MissingImageError, match=r"x\.xml: .*, got 's/x\.heic', whose format is not supported"):
        read_voc(tmp_path)


def test_split_of_a_folder_without_lists_is_advised_to_be_read_itself(tmp_path):
    lay_out(tmp_path, {"train/x.xml": "x.jpg"}, ["train/x.jpg"])
    with pytest.raises(AnnotationError, match=r"there are \[\]; the folder .*/train can be read itself, without"):
        read_voc(tmp_path, "train")
    assert read_voc(tmp_path / "train").image_ids.tolist() == ["x"]


def test_boxes_of_parts_do_not_count(voc):
    part = "<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></part>"
    after = item(extra=part)
    np.testing.assert_array_equal(voc({"a": SIZE + after}).boxes, np.float32([[2, 3, 9, 8]]))


def test_classes_are_sorted_names_or_those_given(voc):
    bodies = {"a": SIZE + CAT, "b": SIZE + item("dog") + item("ant")}
    table = voc(bodies)
    assert table.class_names == ("ant", "cat", "dog")
    assert table.class_ids.tolist() == [1, 2, 0]
    assert voc(bodies, class_names=("dog", "cat", "ant", "cow")).class_ids.tolist() == [1, 0, 2]
    with pytest.raises(AnnotationError, match=r"b\.xml: expected one of \['cat'\], got 'dog' - at `object\[1\]/name`"):
        voc(bodies, class_names=("cat",))


def test_class_ids_are_the_same_in_all_splits(voc):
    main = voc.root / "ImageSets" / "Main"
    (main / "train.txt").write_text("a\n")
    (main / "val.txt").write_text("b\n")
    bodies = {"a": SIZE + CAT + item("dog"), "b": SIZE + item("dog")}
    train, val = voc(bodies, "train"), voc(bodies, "val")
    assert train.class_names == val.class_names == ("cat", "dog")
    assert val.class_ids.tolist() == [1]


def test_split_lists_the_images_and_their_order(voc):
    main = voc.root / "ImageSets" / "Main"
    (main / "train.txt").write_text("b\na\n")
    (main / "cat_val.txt").write_text("a  1\nb -1\n\n")
    bodies = {"a": SIZE, "b": SIZE, "c": SIZE}
    assert voc(bodies, "train").image_ids.tolist() == ["b", "a"]
    assert voc(bodies, "cat_val").image_ids.tolist() == ["a", "b"]
    assert voc(bodies).image_ids.tolist() == ["a", "b", "c"]
    (main / "bytes.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(AnnotationError, match=r"bytes\.txt: expected a list of images in UTF-8"):
        voc(bodies, "bytes")
    (main / "bytes.txt").unlink()
    with pytest.raises(AnnotationError, match=r"test\.txt: .* there are \['cat_val', 'train'\]"):
        voc(bodies, "test")


def test_image_is_the_one_named_or_else_that_of_the_same_name(voc):
    voc({"a": SIZE, "b": "<filename>nowhere.png</filename>" + SIZE})
    (voc.root / "Annotations" / "a.xml").write_text(f"<annotation><filename>b.jpg</filename>{SIZE}</annotation>")
    (voc.root / "JPEGImages" / "a.jpg").unlink()
    table = read_voc(voc.root)
    assert [path.rsplit("/")[-1] for path in table.paths] == ["b.jpg", "b.jpg"]
    (voc.root / "Annotations" / "c.xml").write_text("<annotation><filename>d.jpg</filename></annotation>")
    with pytest.raises(
        MissingImageError, match=r"c\.xml: expected an image 'd\.jpg' or 'c'\.\* in .*JPEGImages, got none"
    ):
        read_voc(voc.root)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<object>", r"expected XML, got a file that does not parse: .*line 1"),
        (SIZE + "<object><name>cat</name></object>", r"expected a bndbox, got none - at `object\[1\]`"),
        (SIZE + item(""), r"expected a name, got '' - at `object\[1\]/name`"),
        (SIZE + CAT + item(box=("x", 1, 2, 3)), r"expected a number, got 'x' - at `object\[2\]/bndbox/xmin`"),
        (SIZE + item(box=("nan", 1, 2, 3)), r"expected a number, got 'nan' - at `object\[1\]/bndbox/xmin`"),
        (
            "<size><width>30</width><height>1e99</height></size>",
            r"expected at most 1000000 pixels, got 1e\+99 - at `size/",
        ),
        ("<size><width>x</width><height>20</height></size>", r"expected a number, got 'x' - at `size/width`"),
        (
            "<a>" * 70 + "</a>" * 70,
            r"expected XML, got a file that does not parse: elements are nested more than 64 deep: line 1",
        ),
        (SIZE + item(extra="<difficult>no</difficult>"), r"expected a number, got 'no' - at `object\[1\]/difficult`"),
        (SIZE + "\n<a:object/>", r"expected XML, .*'a:object' has a prefix; remove it: line 2"),
    ],
)
def test_bad_file_is_an_error_with_an_address(voc, body, message):
    with pytest.raises(AnnotationError, match=r"a\.xml: " + message):
        voc({"a": body})


def test_bad_boxes_follow_the_policy_with_the_place_of_the_first(voc):
    bodies = {"a": SIZE + CAT, "b": SIZE + CAT + item(box=(9, 1, 2, 3)) + item(box=(0, 5, 9, 9)) + CAT}
    with pytest.warns(
        UserWarning,
        match=r"VOC: of 5 boxes 1 reaching .* clipped to it, 1 without area .* dropped, 1 repeating another dropped "
        r'\(invalid="clip"\); the first is \[8.0, 0.0, 2.0, 3.0\] .* - at .*b\.xml, `object\[2\]/bndbox`',
    ) as said:
        table = voc(bodies)
    assert said[0].filename == __file__
    assert table.boxes.tolist() == [[0, 1, 30, 20], [0, 1, 30, 20], [0, 4, 9, 9]]
    assert table.offsets.tolist() == [0, 1, 3]
    with pytest.raises(AnnotationError, match=r"got \[8.0, 0.0, 2.0, 3.0\]"):
        voc(bodies, invalid="raise")


def test_entities_are_refused_before_they_grow(voc):
    bomb = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(12))
    (voc.root / "Annotations" / "a.xml").write_text(
        f'<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a0 "ha">{bomb}]><annotation>&a12;</annotation>'
    )
    with pytest.raises(
        AnnotationError, match=r"a\.xml: .* a document type is declared, which may hold entities: line 1"
    ):
        read_voc(voc.root)


def test_image_that_stands_twice_in_a_list_is_an_error_at_the_second(voc):
    voc({"a": SIZE, "b": SIZE})
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n\n./a\n")
    message = r"Main/train\.txt: expected each image once, got 'a' again - at line 4, first at line 1; remove it; a"
    with pytest.raises(AnnotationError, match=message):
        read_voc(voc.root, "train")
    told = []
    table = read_voc(voc.root, "train", on_problem=lambda path, error: told.append(os.path.basename(path)))
    assert (table.image_ids.tolist(), told) == (["a", "b"], ["train.txt"])


def test_list_of_images_does_not_leave_the_folder(voc):
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("../../secret\n")
    with pytest.raises(AnnotationError, match=r"train\.txt: .* got '\.\./\.\./secret\.xml'; remove its .* - at line 1"):
        voc({"a": SIZE}, "train")


def test_missing_folders_are_errors_that_name_them(tmp_path):
    with pytest.raises(AnnotationError, match=r"none/Annotations: expected a folder of XML files"):
        read_voc(tmp_path / "none")
    with pytest.raises(AnnotationError, match=r": expected XML files in it or in Annotations, got none"):
        read_voc(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(AnnotationError, match=r"images: expected a folder of images"):
        read_voc(tmp_path, image_dir="images")


def test_real_voc_and_blood_cells_are_read_whole(data):
    voc = read_voc(data / "voc" / "VOC2007")
    assert len(voc) == 100
    assert len(voc.class_names) == 20
    assert len({voc.paths[p] for p in range(100) if voc.ignore[voc.rows(p)].any()}) == 30
    cells = read_voc(data / "bccd")
    assert (len(cells), len(cells.boxes)) == (364, 4888)
    splits = [read_voc(data / "bccd", split) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [205, 87, 72]
    assert cells.class_names == ("Platelets", "RBC", "WBC")


@pytest.mark.parametrize(
    ("folder", "arguments"),
    [("helmet", {"annotation_dir": "annotations"}), ("kangaroo", {"annotation_dir": "annots"})],
)
def test_other_folder_names_are_arguments(data, folder, arguments):
    table = read_voc(data / "dirt" / folder, image_dir="images", **arguments)
    assert len(table.boxes) > 0


@pytest.mark.parametrize(
    ("text", "tag"),
    [("<html><body></body></html>", "'html'"), ("<annotations><object/></annotations>", "'annotations'")],
)
def test_xml_of_another_kind_is_no_image_without_objects(voc, text, tag):
    voc({"a": SIZE})
    (voc.root / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(AnnotationError, match=rf"a\.xml: expected an element `annotation` .*, got {tag}"):
        read_voc(voc.root)
    (voc.root / "Annotations" / "a.xml").write_text("<a:annotation><a:object/></a:annotation>")
    with pytest.raises(AnnotationError, match="'a:annotation' has a prefix; remove it: line 1"):
        read_voc(voc.root)


def test_image_that_two_names_of_the_file_disagree_on_is_an_error(voc):
    with pytest.raises(
        AnnotationError,
        match=r"a\.xml: expected one image, got 'b\.jpg' by its `filename` and 'a\.jpg' by its own name, which are "
        "both in .*JPEGImages; correct or remove `filename`",
    ):
        voc({"a": f"<filename>b.jpg</filename>{SIZE}", "b": f"<filename>a.jpg</filename>{SIZE}"})


def test_images_of_one_name_are_told_apart_by_the_file_alone(voc):
    voc({"a": SIZE})
    (voc.root / "JPEGImages" / "a.bmp").touch()
    (voc.root / "JPEGImages" / "a.JSON").touch()
    with pytest.raises(AnnotationError, match=r"a\.xml: expected one image 'a'\.\* in .*, got 'a\.bmp' and 'a\.jpg'"):
        read_voc(voc.root)
    with pytest.warns(UserWarning, match=r"images without an XML file are left out - at .*a\.jpg"):
        table = voc({"a": f"<filename>a.bmp</filename>{SIZE}"})
    assert table.paths[0].endswith("a.bmp")


def test_files_beside_an_image_are_not_taken_for_it(voc):
    voc({"a": SIZE})
    for name in ("a.JSON", "a.aux", "a.txt", "._a.jpg"):
        (voc.root / "JPEGImages" / name).touch()
    (voc.root / "Annotations" / "._a.xml").write_bytes(b"\0\5\x16\7")
    (voc.root / "Annotations" / "readme.txt").touch()
    assert [path.rsplit("/")[-1] for path in read_voc(voc.root).paths] == ["a.jpg"]


def test_xml_files_in_capitals_count_and_two_of_one_name_are_an_error(voc):
    voc({"a": SIZE, "b": SIZE + CAT})
    (voc.root / "Annotations" / "b.xml").rename(voc.root / "Annotations" / "b.XML")
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("b\n")
    assert read_voc(voc.root).image_ids.tolist() == ["a", "b"]
    assert len(read_voc(voc.root, "train").boxes) == 1
    (voc.root / "Annotations" / "b.xml").touch()
    with pytest.raises(
        AnnotationError, match=r"Annotations: expected one XML file of a name, got 'b\.XML' and 'b\.xml'"
    ):
        read_voc(voc.root, "train")


def test_names_with_spaces_may_stand_in_lists_with_and_without_a_second_column(voc):
    names = ["my cat", "cat 1", "next\u2028line"]
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("my cat\r\ncat 1\r\nnext\u2028line")
    (voc.root / "ImageSets" / "Main" / "cat_train.txt").write_text("my cat -1\ncat 1  1\n./next\u2028line\t0")
    assert voc(dict.fromkeys(names, SIZE), "train").image_ids.tolist() == names
    assert read_voc(voc.root, "cat_train").image_ids.tolist() == names


def test_ids_of_a_list_are_short(voc):
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text(f"{'./' * 2000}a\n{'x' * 256}")
    with pytest.raises(
        AnnotationError, match=r"train\.txt: expected a name of at most 255 .*, got 256: .* - at line 2"
    ):
        voc({"a": SIZE}, "train")
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text(f"{'./' * 2000}a")
    assert voc({"a": SIZE}, "train").image_ids.dtype == "<U1"


def test_objects_without_a_name_give_no_class(voc):
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    assert voc({"a": SIZE + CAT, "b": SIZE + item(" ")}, "train").class_names == ("cat",)


def test_file_outside_the_split_that_does_not_parse_is_said_to_be_read_for_names_of_classes(voc):
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    told = []
    with pytest.raises(
        AnnotationError, match=r"b\.xml: expected XML, .*; the file is outside the split .* `class_names=` gives them"
    ):
        voc({"a": SIZE + CAT, "b": "<object>"}, "train")
    assert len(read_voc(voc.root, "train", class_names=("cat",)).boxes) == 1
    table = read_voc(voc.root, "train", on_problem=lambda path, error: told.append(path))
    assert table.class_names == ("cat",)
    assert [path.rsplit("/")[-1] for path in told] == ["b.xml"]


def test_files_and_images_that_cannot_be_read_are_told_and_left_out(voc):
    bodies = {"a": "<object>", "b": SIZE + item() + CAT, "c": item("x", ("?", 1, 2, 3)) + CAT, "d": CAT, "e": SIZE}
    told = []
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("\n".join([*bodies, "f"]))
    with pytest.raises(AnnotationError):
        voc(bodies)
    (voc.root / "JPEGImages" / "d.jpg").write_bytes(b"no image")
    (voc.root / "JPEGImages" / "e.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 reaching .* - at .*b\.xml, `object\[3\]/bndbox`"):
        (voc.root / "Annotations" / "b.xml").write_text(
            f"<annotation>{SIZE}{item()}{CAT}{item(box=(1, 1, 50, 20))}</annotation>"
        )
        table = read_voc(voc.root, "train", on_problem=lambda *problem: told.append(problem))
    assert table.image_ids.tolist() == ["b"]
    assert table.class_names == ("cat", "dog", "x")
    assert table.class_ids.tolist() == [1, 0, 1]
    assert [path.rsplit("/")[-1] for path, _ in told] == ["a.xml", "c.xml", "d.jpg", "e.xml", "f.xml"]
    assert all(str(error).startswith(f"{path}: ") for path, error in told)


def test_file_in_an_encoding_that_is_not_read_is_to_be_saved_as_utf8(tmp_path):
    (tmp_path / "a.xml").write_bytes("<?xml version='1.0' encoding='GBK'?><annotation>猫</annotation>".encode("gbk"))
    with pytest.raises(AnnotationError, match=r"a\.xml: .* encodings are not supported; save it as UTF-8"):
        read_voc(tmp_path)


@pytest.mark.parametrize(
    ("body", "tag", "place"),
    [
        (CAT.replace("<name>", "<name>dog</name><name>"), "name", "object[1]/name[2]"),
        (CAT.replace("<xmin>", "<xmin>5</xmin><xmin>"), "xmin", "object[1]/bndbox/xmin[2]"),
        (CAT.replace("</bndbox>", "</bndbox><bndbox><xmin>3</xmin></bndbox>"), "bndbox", "object[1]/bndbox[2]"),
        (CAT.replace("<difficult>", "<difficult>1</difficult><difficult>"), "difficult", "object[1]/difficult[2]"),
        (CAT + "<filename>a.jpg</filename><filename>b.jpg</filename>", "filename", "filename[2]"),
        ("<size><width>15</width><height>10</height></size>" + CAT, "size", "size[2]"),
        ("<size><width>15</width><width>30</width></size>", "width", "size/width[2]"),
    ],
)
def test_elements_that_stand_twice_and_differ_are_an_error(voc, body, tag, place):
    with pytest.raises(AnnotationError, match=f"expected one `{tag}`, got 2 that differ - at `{re.escape(place)}`"):
        voc({"a": body if tag == "width" else SIZE + body})


def test_elements_that_stand_twice_alike_are_one(voc):
    corners = CAT[CAT.index("<bndbox>") : CAT.index("</object>")]
    assert voc({"a": 2 * SIZE + CAT.replace(corners, 2 * corners)}).boxes.tolist() == [[0, 1, 30, 20]]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (b"salt & pepper", "in '.*salt & pepper.*'; write &amp; for &"),
        (b"a < b", "in '.*'; write &lt; for <"),
        ("Käse".encode("latin-1"), "XML in UTF-8, got the byte 0xe4 .*; as Latin-1 it is '.*'; save it as UTF-8"),
    ],
)
def test_xml_that_does_not_parse_is_shown_with_what_to_write(voc, name, hint):
    voc({"a": SIZE + CAT})
    file = voc.root / "Annotations" / "a.xml"
    file.write_bytes(file.read_bytes().replace(b"<name>cat", b"<name>" + name))
    with pytest.raises(AnnotationError, match=f"(?s)a.xml: expected .*{hint}"):
        read_voc(voc.root)


def test_images_listed_again_are_counted_with_the_other_errors(voc):
    voc({"a": SIZE + CAT, "b": SIZE})
    (voc.root / "Annotations" / "b.xml").write_text("<annotation>")
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("a\na\nb\na\n")
    with pytest.raises(RepeatedImageError, match=r"again - at line 2, first at line 1; .*; and 2 more; detfeed check"):
        read_voc(voc.root, "train")
