import os
import shutil
import warnings

import cv2
import numpy as np
import pytest

from detfeed import AnnotationError, ImageError, MissingImageError, RepeatedImageError, read_yolo

YAML = "path: .\ntrain: images/train\nval: [images/val, images/train]\nnames: [cat, dog]\n"


@pytest.fixture
def read(tmp_path):
    """Write labels by the name of their image, None for an image without a file of labels, and read them."""

    def write_and_read(labels, split="train", *, text=YAML, **arguments):
        for name, content in labels.items():
            image, label = tmp_path / "images" / f"{name}.png", tmp_path / "labels" / f"{name}.txt"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.zeros((20, 40, 3), np.uint8))
            if content is not None:
                label.write_text(content)
        (tmp_path / "data.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yolo(tmp_path / "data.yaml", split, **arguments)

    return write_and_read


def test_split_without_images_and_images_without_boxes_are_ordinary(read, tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert len(read({})) == 0
    table = read({"train/a": "", "train/b": None})
    assert table.image_ids.tolist() == ["images/train/a.png", "images/train/b.png"]
    assert table.boxes.shape == (0, 4)
    assert table.image_hw.tolist() == [[20, 40]] * 2


def test_centres_and_shares_become_corners_in_pixels(read):
    table = read({"train/a": "1 0.5 0.5 0.25 0.5\n\n0 0.5 0.5 1 1\n"})
    assert table.boxes.tolist() == [[15, 5, 25, 15], [0, 0, 40, 20]]
    assert table.class_ids.tolist() == [1, 0]
    assert table.class_names == ("cat", "dog")
    assert table.category_ids.tolist() == [0, 1]


def test_polygons_become_the_boxes_around_them_and_keypoints_are_left_out(read):
    polygon = "0 0.25 0.5 0.5 0.25 0.75 1\n"
    with pytest.warns(
        UserWarning, match=r"\(train\): polygons and rotated boxes are read as .*a\.txt, line 1$"
    ) as said:
        assert read({"train/a": polygon}).boxes.tolist() == [[10, 5, 30, 20]]
    assert said[0].filename == __file__
    pose = read({"train/a": "0 0.5 0.5 0.25 0.5 0.1 0.1 0.9 0.9\n"}, text=YAML + "kpt_shape: [2, 2]\n")
    assert pose.boxes.tolist() == [[15, 5, 25, 15]]


def test_names_may_be_numbered_with_gaps_and_are_never_taken_for_something_else(read):
    text = "train: images\nnames:\n  7: no\n  3: 2020-01-01\n"
    table = read({"a": "7 0.5 0.5 1 1\n"}, text=text)
    assert table.class_names == ("2020-01-01", "no")
    assert table.category_ids.tolist() == [3, 7]
    assert table.class_ids.tolist() == [1]


def test_splits_may_be_several_folders_or_lists_of_images(read, tmp_path):
    labels = {"train/a": "", "val/b": "", "val/deep/c": ""}
    val, deep = "images/val/b.png", "images/val/deep/c.png"
    assert read(labels, "val").image_ids.tolist() == [val, deep, "images/train/a.png"]
    (tmp_path / "list.txt").write_text(f"./{val}\n\n{tmp_path}/{deep}\n")
    text = YAML + "test: list.txt\n"
    assert read(labels, "test", text=text).image_ids.tolist() == [val, deep]
    os.rename(tmp_path / "list.txt", tmp_path / "images" / "list.txt")
    (tmp_path / "images" / "list.txt").write_text("val/b.png\n")
    assert read(labels, "test", text=YAML + "test: images/list.txt\n").image_ids.tolist() == [val]


def test_root_is_the_path_in_the_file_or_the_one_given(read, tmp_path):
    labels = {"train/a": "0 0.5 0.5 1 1\n"}
    assert read(labels, text=f"path: {tmp_path}\ntrain: images\nnames: [cat]\n").image_ids.tolist() == [
        "images/train/a.png"
    ]
    assert read(labels, text="path: /none\ntrain: images\nnames: [cat]\n", root=tmp_path).boxes.shape == (1, 4)
    # As Roboflow writes it.
    assert len(read(labels, text="train: ../images/train\nnames: [cat]\n")) == 1
    for entry in ("../", "."):
        whole = read(labels, text=f"train: {entry}\nnc: 1\nnames: [cat]\n")
        assert whole.image_ids.tolist() == ["images/train/a.png"]


def test_split_that_leads_out_of_the_root_is_told_or_refused(read, tmp_path):
    labels = {"train/a": "0 0.5 0.5 1 1\n"}
    (tmp_path / "inner").mkdir()
    text = f"path: {tmp_path}/inner\ntrain: ../images/train\nnames: [cat]\n"
    with pytest.raises(
        AnnotationError, match=r"inside the root, .*inner, got '../images/train', which leads to .* - at `train`"
    ):
        read(labels, text=text)
    for folder in ("images", "labels"):
        shutil.copytree(tmp_path / folder, tmp_path / "inner" / folder)
    with pytest.warns(UserWarning, match=r"begin with ../ are read without it - at `train`: .*inner/images/train, not"):
        assert read(labels, text=text).paths[0].startswith(f"{tmp_path}/inner/")


def test_file_in_the_current_folder_has_its_root_there(read, tmp_path, monkeypatch):
    read({"train/a": ""}, text="train: images\nnames: [cat]\n")
    monkeypatch.chdir(tmp_path)
    assert read_yolo("data.yaml").image_ids.tolist() == ["images/train/a.png"]


def test_circles_of_links_end(read, tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "images" / "train" / "loop").symlink_to(tmp_path / "images")
    assert read({"train/a": "", "b": ""}).image_ids.tolist() == ["images/train/a.png", "images/train/loop/b.png"]


def test_bad_boxes_follow_the_policy_with_the_line_of_the_first(read):
    with pytest.warns(UserWarning, match=r"of 2 boxes 1 reaching .* - at .*labels/train/a\.txt, line 2") as said:
        table = read({"train/a": "0 0.5 0.5 1 1.04\n0 0.5 0.5 1.5 1\n"}, invalid="ignore")
    assert table.boxes.tolist() == [[0, 0, 40, 20]] * 2
    assert table.ignore.tolist() == [False, True]
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("0 0.5 0.5 1\n", "a class with 4 numbers or with 3 or more points, got 3 numbers - at line 1"),
        ("0 0.5 0.5 1 1 0.9\n", "got 5 numbers; remove the fifth, .* - at line 1"),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9 0.2\n", "got 7 numbers - at line 1"),
        ("0 0.5 0.5 1 1_0\n", "expected a number, got '1_0' - at line 1"),
        ("0 0.5 0.5 1 1\n0 0.5 0.5 1 x\n", "expected a number, got 'x' - at line 2"),
        ("0 0.5 0.5 1 nan\n", "expected a number, got 'nan' - at line 1"),
        ("2 0.5 0.5 1 1\n", r"expected a class among \[0, 1\], got '2' - at line 1"),
        ("0.5 0.5 0.5 1 1\n", r"expected a class among \[0, 1\], got '0.5' - at line 1"),
    ],
)
def test_bad_labels_are_an_error_with_an_address(read, label, message):
    with pytest.raises(AnnotationError, match=rf"labels/train/a\.txt: .*{message}"):
        read({"train/a": label})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `names`, `path` and splits, got a NoneType"),
        ("cat", "expected `names`, `path` and splits, got a str"),
        ("a: [", "expected YAML, got a file that does not parse: while parsing"),
        ("[" * 2_000, "nested too deeply"),
        ("#" * 2**21, "expected a YAML file, got one of 2097152 bytes, more than 262144"),
        (b"\xff\xfe\x00", "expected a YAML file in UTF-8"),
        ("train: images\n", "a list of classes, or names by number, got a NoneType - at `names`"),
        ("train: images\nnames: [[cat]]\n", "a class's number and its name, got '0' and a list - at `names`"),
        ("train: images\nnames: {1234567890: cat}\n", "a class's number and its name, got '1234567890' and a str"),
        ("train: images\nnames: {0: cat, 0: dog}\n", "does not parse: a key stands twice .* line 2, column 8"),
        ("train: images\nnames: {0: cat, 00: dog}\n", r"its number again - at `names\[00\]`"),
        ("train: images\nnames: [cat, '']\n", r"with a name, got no name - at `names\[1\]`"),
        ("train: images\nnames:\n- cat\n- \n", r"with a name, got no name - at `names\[1\]`"),
        ("train: images\nnc: 3\nnames: [cat]\n", "expected as many classes as names, got '3' and 1 names - at `nc`"),
        ("train:\nnames: [cat]\n", "expected a path, got nothing - at `train`"),
        ("train:  # optional\nnames: [cat]\n", "expected a path, got nothing - at `train`"),
        ("train: [images, ' ']\nnames: [cat]\n", "expected a path, got nothing - at `train`"),
        ("train: images\nnames: {one: cat}\n", "a class's number and its name, got 'one' and a str - at `names`"),
        ("val: images\nnames: [cat]\n", r"expected a split 'train', got none; there are \['val'\]"),
        ("path: [1]\nnames: [cat]\n", "expected a text, got a list - at `path`"),
        ("path: none\nnames: [cat]\n", r"expected a folder, got .*none, which is none - at `path`; see `root`"),
        ("train: [[a]]\nnames: [cat]\n", "expected a path, got a list - at `train`"),
        (
            "train: none\nnames: [cat]\n",
            "expected a folder of images .*none, which is neither - at `train`; see `root`",
        ),
        ("train: ../../images\nnames: [cat]\n", 'remove its ".." - at `train`'),
        ("train: /etc\nnames: [cat]\n", "got the absolute path '/etc'; .* - at `train`"),
    ],
)
def test_bad_yaml_is_an_error_with_an_address(read, text, message):
    with pytest.raises(AnnotationError, match=rf"data\.yaml: .*{message}"):
        read({"train/a": ""}, text=text)


def test_objects_named_in_yaml_are_never_made(read, tmp_path):
    text = f"names: !!python/object/apply:os.mkdir [{tmp_path}/made]\ntrain: images\n"
    with pytest.raises(AnnotationError):
        read({}, text=text)
    assert not (tmp_path / "made").exists()


def test_lists_do_not_lead_out_of_the_root(read, tmp_path):
    for line, message in (("../x.png", 'remove its ".."'), ("/etc/x.png", "got the absolute path '/etc/x.png'")):
        (tmp_path / "list.txt").write_text(line)
        with pytest.raises(AnnotationError, match=rf"list\.txt: .*{message}.* - at line 1"):
            read({}, text="train: list.txt\nnames: [cat]\n")


def test_missing_labels_and_images_are_errors_that_name_them(read, tmp_path):
    with pytest.raises(
        AnnotationError, match=r"expected label files of 1 images, got none, not even .*labels/train/a\.txt"
    ):
        read({"train/a": None})
    (tmp_path / "list.txt").write_text("images/none.png")
    with pytest.raises(ImageError, match=r"none\.png: expected an image file, got No such file"):
        read({}, text="train: list.txt\nnames: [cat]\n")
    with pytest.raises(AnnotationError, match=r"none\.yaml: expected a YAML file, got No such file"):
        read_yolo(tmp_path / "none.yaml")


def test_links_to_folders_are_followed(read, tmp_path):
    read({"train/a": "0 0.5 0.5 1 1\n"})
    elsewhere = tmp_path / "elsewhere"
    for kind in ("images", "labels"):
        (elsewhere / kind).mkdir(parents=True)
        (tmp_path / kind / "train" / "s").symlink_to(elsewhere / kind)
    (tmp_path / "images" / "train" / "a.png").rename(elsewhere / "images" / "b.png")
    (tmp_path / "labels" / "train" / "a.txt").rename(elsewhere / "labels" / "b.txt")
    table = read_yolo(tmp_path / "data.yaml")
    assert table.image_ids.tolist() == ["images/train/s/b.png"]
    assert table.class_ids.tolist() == [0]
    (tmp_path / "images" / "train" / "t").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match=r"train/t: expected a file or folder, got a link that leads nowhere"):
        read_yolo(tmp_path / "data.yaml")


def test_links_to_labels_that_lead_nowhere_are_no_images_without_boxes(read, tmp_path):
    read({"train/a": "0 0.5 0.5 1 1\n", "train/s/b": "0 0.5 0.5 1 1\n"})
    labels = tmp_path / "labels" / "train"
    for link, file in ((labels / "a.txt", "a.txt"), (labels / "s", "s/b.txt")):
        link.rename(tmp_path / "kept")
        link.symlink_to(tmp_path / "nowhere")
        with pytest.raises(AnnotationError, match=rf"train/{file}: expected a text file of boxes, got No such file"):
            read_yolo(tmp_path / "data.yaml")
        link.unlink()
        (tmp_path / "kept").rename(link)


def test_every_kind_of_image_is_found_and_files_of_macs_are_not(read, tmp_path):
    read({"train/a": "0 0.5 0.5 1 1\n"})
    image = tmp_path / "images" / "train" / "a.png"
    for name in ("b.TIF", "c.gif", "d.jpe", "e.Tiff", "f.dib", "._g.png", "h.txt"):
        image.with_name(name).write_bytes(image.read_bytes())
    assert [name[-5:] for name in read_yolo(tmp_path / "data.yaml").image_ids.tolist()] == [
        *("a.png", "b.TIF", "c.gif", "d.jpe", ".Tiff", "f.dib")
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("images\\train\\a.png", "data/images/train/a.png", "IMAGES/Train/A.PNG", "a.png", "../images/train/a.png"),
        *("/home/other/set/images/train/a.png", "C:\\set\\images\\train\\a.png", "images/train/%61.png"),
    ],
)
def test_image_that_is_not_where_its_name_says_is_read_if_it_is_unambiguous_and_told(read, tmp_path, name):
    (tmp_path / "list.txt").write_text(f"\n{name}\n")
    labels = {"train/a": "0 0.5 0.5 1 1\n", "train/b": ""}
    with pytest.warns(UserWarning, match=r"another way - at line 2 of .*list\.txt, .* is .*images/train/a\.png$"):
        table = read(labels, text="train: list.txt\nnames: [cat]\n")
    assert (table.image_ids.tolist(), len(table.boxes)) == (["images/train/a.png"], 1)
    with pytest.raises((ImageError, AnnotationError), match=r"a\.png"):
        (tmp_path / "list.txt").write_text("x/a.png")
        read(labels | {"val/a": ""}, text="train: list.txt\nnames: [cat]\n")


@pytest.mark.parametrize("line", ["0 20 10 8 6", "0 0.5 0.5 12 0.1", "0 1 1 40 1 40 20 1 20", "0 50.0 50.0 10.5 10.5"])
def test_labels_in_pixels_are_an_error_that_says_so(read, line):
    with pytest.raises(AnnotationError, match=r"a\.txt: expected shares of .* as if in pixels; divide x .* 2$"):
        read({"train/a": f"0 0.5 0.5 1 1\n{line}\n"})


def test_split_may_be_a_list_of_image_files(read):
    labels = {"train/b": "0 0.5 0.5 1 1\n", "train/a": "1 0.5 0.5 1 1\n", "train/c": ""}
    text = "train:\n- images/train/b.png\n- images/train/a.png\nnames: [cat, dog]\n"
    table = read(labels, text=text)
    assert table.image_ids.tolist() == ["images/train/b.png", "images/train/a.png"]
    assert table.class_ids.tolist() == [0, 1]


def test_darknet_and_files_of_classes_are_read_with_and_without_their_folder(read, tmp_path):
    read({"train/a": "1 0.5 0.5 1 1\n"})
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for path in (tmp_path, tmp_path / "classes.txt"):
        table = read_yolo(path)
        assert (table.class_names, table.class_ids.tolist()) == (("cat", "dog"), [1])
    (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/classes.txt\nbackup = x\n")
    (tmp_path / "train.txt").write_text("data/images/train/a.png\n")
    for path in (tmp_path, tmp_path / "obj.data"):
        table = read_yolo(path)
        assert (table.image_ids.tolist(), table.class_ids.tolist()) == (["images/train/a.png"], [1])


def test_lists_are_cut_at_ends_of_lines_alone(read, tmp_path):
    names = ["images/a\u2028b.png", "images/c\x85d.png", "images/e\x0cf.png"]
    (tmp_path / "list.txt").write_text("\r\n".join(names))
    labels = {os.path.splitext(name)[0].removeprefix("images/"): "" for name in names}
    assert read(labels, text="train: list.txt\nnames: [cat]\n").image_ids.tolist() == names


def test_ids_are_short(read, tmp_path):
    name = f"{'d' * 200}/{'d' * 200}/a"
    with pytest.raises(AnnotationError, match=r"a\.png: expected a name of at most 255 characters, got 420"):
        read({f"train/{name}": ""}, text="train: images/train\nnames: [cat]\n")


def test_files_and_images_that_cannot_be_read_are_told_and_left_out(read, tmp_path):
    read({"train/a": "0 0.5 0.5 1 1\n", "train/b": None, "train/c": "1 0.5 0.5 1 1\n"})
    for name in ("a", "c"):
        image = tmp_path / "images" / "train" / f"{name}.png"
        image.with_stem(f"{name}2").write_bytes(image.read_bytes())
    (tmp_path / "labels" / "train" / "a2.txt").write_text("0 0.5\n")
    (tmp_path / "images" / "train" / "c2.png").write_bytes(b"no image")
    told = []
    table = read_yolo(tmp_path / "data.yaml", on_problem=lambda *problem: told.append(problem))
    assert [name[-5:] for name in table.image_ids.tolist()] == ["a.png", "b.png", "c.png"]
    assert table.offsets.tolist() == [0, 1, 1, 2]
    assert [path[-6:] for path, _ in told] == ["a2.txt", "c2.png"]
    assert all(str(error).startswith(f"{path}: ") for path, error in told)
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    (tmp_path / "images" / "train" / "c.png").write_bytes(b"no image")
    assert len(read_yolo(tmp_path / "data.yaml", on_problem=lambda *problem: None).boxes) == 0


def test_of_two_ways_to_a_folder_it_is_always_the_same(read, tmp_path, monkeypatch):
    read({"train/a": ""})
    images = tmp_path / "images" / "train"
    images.rename(tmp_path / "kept")
    images.mkdir()
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    for link in "ts":
        (images / link).symlink_to(tmp_path / "kept")
    (tmp_path / "labels" / "train" / "s").mkdir()
    (tmp_path / "labels" / "train" / "s" / "a.txt").touch()
    scan = os.scandir

    class Backwards:
        def __init__(self, folder):
            self.entries = sorted(scan(folder), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            return self

        def __next__(self):
            if not self.entries:
                raise StopIteration
            return self.entries.pop(0)

    monkeypatch.setattr(os, "scandir", Backwards)
    assert read_yolo(tmp_path / "data.yaml").image_ids.tolist() == ["images/train/s/a.png"]


LABELS = "0 0.5 0.5 1 1\n"


@pytest.mark.parametrize("split", ["images/train", "./images/train/", "images//train//", "../images/train/"])
def test_label_file_without_an_image_is_an_error(read, tmp_path, split):
    text = f"train: {split}\nnames: [cat]\n"
    assert len(read({"train/a": LABELS, "train/s/b": f"\n{LABELS}"}, text=text)) == 2
    folder = tmp_path / "images" / "train" / "s"
    (folder / "b.png").unlink()
    with pytest.raises(
        MissingImageError, match=r"train/s/b\.txt: expected an image b\.\* in .*images/train/s, got none"
    ):
        read_yolo(tmp_path / "data.yaml")
    (folder / "b.heic").touch()
    with pytest.raises(MissingImageError, match=r"images/train/s, got 'b\.heic', whose format is not supported"):
        read_yolo(tmp_path / "data.yaml")
    told = []
    assert len(read_yolo(tmp_path / "data.yaml", on_problem=lambda path, error: told.append(path))) == 1
    assert [os.path.relpath(path, tmp_path) for path in told] == ["labels/train/s/b.txt"]


def test_texts_without_labels_need_no_image(read, tmp_path):
    read({"train/a": LABELS})
    for name, content in {
        "classes.txt": "cat\ndog\n",
        "README.txt": "Exported on a Tuesday at 0.5 past four",
        "counts.txt": "1 2 3\n",
        "empty.txt": "\n",
        "latin.txt": b"caf\xe9",
        "._a.txt": LABELS,
        ".ipynb_checkpoints/a-checkpoint.txt": LABELS,
        "train.cache": LABELS,
    }.items():
        path = tmp_path / "labels" / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert len(read_yolo(tmp_path / "data.yaml")) == 1


@pytest.mark.parametrize("split", ["all", "all/", "./all//"])
def test_labels_beside_images_that_have_no_image_are_told(read, tmp_path, split):
    (tmp_path / "all").mkdir()
    cv2.imwrite(str(tmp_path / "all" / "a.png"), np.zeros((20, 40, 3), np.uint8))
    for name in ("a.txt", "b.txt"):
        (tmp_path / "all" / name).write_text(LABELS)
    (tmp_path / "all" / "classes.txt").write_text("cat\n")
    with pytest.warns(UserWarning, match=r"label files without an image are left out - at .*all/b\.txt$"):
        assert len(read({}, text=f"train: {split}\nnames: [cat]\n").boxes) == 1


def test_two_images_with_one_label_file_are_an_error(read, tmp_path):
    read({"train/a": LABELS, "train/b": None})
    images = tmp_path / "images" / "train"
    for name in "ab":
        cv2.imwrite(str(images / f"{name}.jpg"), np.zeros((20, 40, 3), np.uint8))
    with pytest.raises(AnnotationError, match=r"train/a\.txt: expected one image, got .*/a\.jpg and .*/a\.png; remove"):
        read_yolo(tmp_path / "data.yaml")
    (images / "a.jpg").write_text("none that can be read")
    told = []
    table = read_yolo(tmp_path / "data.yaml", on_problem=lambda path, error: told.append(os.path.basename(path)))
    assert told == ["a.jpg"]
    # b.png and b.jpg both have no boxes.
    assert [os.path.basename(path) for path in table.paths] == ["a.png", "b.jpg", "b.png"]


def test_images_that_stand_twice_are_an_error_at_the_second(read, tmp_path):
    text = "train: [images/train, list.txt]\nval: list.txt\nnames: [cat]\n"
    (tmp_path / "list.txt").write_text("images/train/b.png\n\n./images/train/./b.png\n")
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(
        AnnotationError, match=r"list\.txt: .* 'images/train/b\.png' again - at line 3, first at line 1;"
    ):
        read({"train/a": "", "train/b": ""}, "val", text=text)
    told = []
    table = read_yolo(tmp_path / "data.yaml", on_problem=lambda path, error: told.append(str(error)))
    assert [os.path.basename(path) for path in table.paths] == ["a.png", "b.png"]
    assert [error.partition(" - ")[2] for error in told] == [
        f"at line {line}, first at `train[0]` of {tmp_path}/data.yaml; remove it; a `sampler` feeds images more often"
        for line in (1, 3)
    ]


def test_root_may_be_a_relative_folder_named_images(read, tmp_path, monkeypatch):
    read({"a/x": "0 0.5 0.5 1 1\n"}, text="train: a\nnames: [cat]\npath: images\n")
    monkeypatch.chdir(tmp_path)
    assert len(read_yolo("data.yaml", root="images").boxes) == 1


def test_list_that_is_given_twice_names_its_images_twice(read, tmp_path):
    (tmp_path / "list.txt").write_text("images/train/a.png\n")
    told = []
    text = "train: [list.txt, list.txt]\nnames: [cat]\n"
    table = read({"train/a": LABELS}, text=text, on_problem=lambda path, error: told.append(type(error)))
    assert (len(table), told) == (1, [RepeatedImageError])


def test_polygons_are_kept_as_masks_if_asked_for(read):
    lines = "0 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.5 0.25 0.75 1\n"
    with pytest.warns(UserWarning, match="boxes around them"):
        assert read({"train/a": lines}).masks == {}
    table = read({"train/a": lines}, masks=True)
    assert list(table.masks) == [1]
    assert [one.tolist() for one in table.masks.polygons(1)] == [[[10, 10], [20, 5], [30, 20]]]
    box = table.boxes[1].astype(int).tolist()
    inside = table.masks.fill(1, (20, 40))
    assert inside[box[1] : box[3], box[0] : box[2]].sum() == inside.sum() > 0


def test_rotated_boxes_are_the_boxes_around_them_and_their_corners_are_kept_if_asked_for(read):
    rotated = "0 0.5 0.1 0.75 0.5 0.5 0.9 0.25 0.5\n"
    with pytest.warns(UserWarning, match=r"polygons and rotated boxes are read as the boxes around them.*line 1"):
        assert read({"train/a": rotated}).boxes.tolist() == [[10, 2, 30, 18]]
    assert len(read({"train/a": rotated}, masks=True).masks.polygons(0)[0]) == 4


POSE = YAML + "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n"


def test_keypoints_are_read_if_asked_for(read):
    lines = "0 0.5 0.5 0.5 0.5 0.25 0.5 2 0.75 0.25 1\n1 0.5 0.5 0.25 0.25 0 0 0 1.5 0.5 2\n"
    assert read({"train/a": lines}, text=POSE).keypoints is None
    keypoints = read({"train/a": lines}, text=POSE, keypoints=True).keypoints
    assert keypoints.points.tolist() == [[[10, 10, 2], [30, 5, 1]], [[0, 0, 0], [0, 0, 0]]]
    assert keypoints.flips.tolist() == [1, 0]
    pairs = "0 0.5 0.5 0.5 0.5 0.25 0.5 0 0\n"
    keypoints = read({"train/a": pairs}, text=POSE.replace("3]", "2]"), keypoints=True).keypoints
    assert keypoints.points.tolist() == [[[10, 10, 2], [0, 0, 0]]]
    assert read({"train/a": ""}, text=POSE, keypoints=True).keypoints.points.shape == (0, 2, 3)


@pytest.mark.parametrize("names", ["[left]", "{0: [left, right], 1: [tail, nose]}"])
def test_names_of_keypoints_that_are_not_those_of_all_classes_are_left_out_and_told(read, names):
    text = POSE.replace("flip_idx: [1, 0]\n", f"flip_idx: [1, 0]\nkpt_names: {names}\n")
    with pytest.warns(UserWarning, match=r"names of keypoints are left out, .* not 2 that .* - at `kpt_names`"):
        keypoints = read({"train/a": ""}, text=text, keypoints=True).keypoints
    assert (keypoints.names, keypoints.flips.tolist()) == ((), [1, 0])
    text = YAML + "kpt_shape: [2, 3]\nkpt_names: {0: [left, right], 1: [left, right]}\n"
    keypoints = read({"train/a": ""}, text=text, keypoints=True).keypoints
    assert (keypoints.names, keypoints.flips.tolist()) == (("left", "right"), [1, 0])


def test_boxes_and_keypoints_in_pixels_are_an_error_where_they_are_read(read):
    points = {"train/a": "0 0.5 0.5 0.5 0.5 10 10 2 30 5 1\n"}
    with pytest.raises(AnnotationError, match=r"expected shares .*, got 10, as if in pixels; .* - at .*line 1"):
        read(points, text=POSE, keypoints=True)
    assert len(read(points, text=POSE).boxes) == 1
    for arguments in ({}, {"keypoints": True}):
        with pytest.raises(AnnotationError, match=r"expected shares .*, got 20, as if in pixels"):
            read({"train/a": "0 20 10 15 5 0.1 0.1 2 0.3 0.5 1\n"}, text=POSE, **arguments)


def test_keypoints_of_another_number_or_without_their_shape_are_an_error(read):
    with pytest.raises(AnnotationError, match=r"2 keypoints of 3 numbers after the box, got 4 numbers - at .*line 1"):
        read({"train/a": "0 0.5 0.5 0.5 0.5 0.25 0.5 2 0.75\n"}, text=POSE, keypoints=True)
    for text in (
        YAML,
        POSE.replace("[1, 0]", "[1, 1]"),
        POSE.replace("[2, 3]", "[2, 4]"),
        POSE.replace("[1, 0]", "[5, 0]"),
        POSE.replace("[1, 0]", f"[{10**30}, 0]"),
        POSE.replace("[1, 0]", "[1, 0, 2]"),
        YAML + "kpt_shape: [1000000000000, 3]\n",
    ):
        with pytest.raises(AnnotationError, match=r"expected `kpt_shape: \[K, 2 or 3\]`"):
            read({"train/a": ""}, text=text, keypoints=True)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("0 .5 .5 .2 .2 .9", "got 5 numbers; remove the fifth, which is the confidence of a prediction - at line 1"),
        ("0 .5 .5 .2 .2 .4 .5 2 .5 .4 1", r"got a box and 2 keypoints, .* write `kpt_shape: \[2, 3\]`"),
        ("0 .5 .5 .2 .2 .4 .5 2 .5 .4 0 .1 .1 1", r"write `kpt_shape: \[3, 3\]`"),
    ],
)
def test_lines_of_predictions_and_of_poses_say_what_they_are(read, line, hint):
    with pytest.raises(AnnotationError, match=hint):
        read({"train/a": f"{line}\n"})


def test_polygons_of_lines_that_are_left_out_are_not_told(read):
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(
            {"train/a": "0 .1 .1 .5 .5 .1 .5\n0 .1 x .2 .2\n", "train/b": "0 .5 .5 .2 .2\n"},
            on_problem=lambda *one: told.append(one),
        )
    assert len(told) == 1


@pytest.mark.parametrize(
    ("folder", "hint"),
    [
        ("Images/train", "there is 'images'|see `root`"),
        ("images/TRAIN", "there is 'train'"),
        ("images\\\\train", 'write "/"'),
    ],
)
def test_split_that_is_nearly_there_is_named(read, folder, hint):
    with pytest.raises(AnnotationError, match=f"which is neither - at `train`; .*({hint})"):
        read({"train/a": "0 .5 .5 .2 .2\n"}, text=f"path: .\ntrain: {folder}\nnames: [cat]\n".replace("\\\\", "\\"))


def test_images_listed_again_and_labels_without_images_are_counted_with_the_other_errors(read, tmp_path):
    read({"train/a": "0 .5 .5 .2 .2\n", "train/b": "0 .5 .5 .2 .2\n"})
    (tmp_path / "labels" / "train" / "c.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "labels" / "train" / "b.txt").write_text("0 x .5 .2 .2\n")
    text = YAML.replace("train: images/train", "train: [images/train, images/train/a.png]")
    with pytest.raises(MissingImageError, match=r"c\.txt: .*; and 2 more; detfeed check lists them all$"):
        read({}, text=text)
