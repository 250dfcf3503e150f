import pytest

from detfeed import AnnotationError
from detfeed.readers.notes import Notes
from detfeed.readers.yolo_layouts import layout_file, names_of, read_layout, root_of, split_of


def test_empty_file_of_classes_has_none(tmp_path):
    (tmp_path / "classes.txt").touch()
    content, folder = read_layout(str(tmp_path / "classes.txt"), "train")
    assert (content, folder) == ({"names": [], "train": "."}, str(tmp_path))


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["data.yaml", "classes.txt", "hyp.yaml"], "data.yaml"),
        (["dataset.yaml", "classes.txt"], "dataset.yaml"),
        (["coco8.yaml", "notes.json"], "coco8.yaml"),
        (["obj.data", "obj.names"], "obj.data"),
        (["classes.txt", "notes.json"], "classes.txt"),
        (["labels/classes.txt"], "labels/classes.txt"),
    ],
)
def test_folder_has_the_file_that_describes_it(tmp_path, names, file):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert layout_file(str(tmp_path)) == str(tmp_path / file)
    assert layout_file(str(tmp_path / names[-1])) == str(tmp_path / names[-1])


def test_folder_without_such_a_file_or_with_several_is_an_error(tmp_path):
    with pytest.raises(
        AnnotationError, match=r"expected data\.yaml, obj\.data or classes\.txt in this folder, got none"
    ):
        layout_file(str(tmp_path))
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(AnnotationError, match=r"describes the data set, got 'a\.yaml' and 'b\.yaml'; give one"):
        layout_file(str(tmp_path))


def test_darknet_file_is_read_as_a_yaml_file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "obj.names").write_text("cat\nmy dog\n\n")
    (tmp_path / "train.txt").touch()
    file = tmp_path / "obj.data"
    file.write_text(
        "# ours\nclasses=2\ntrain  = build/data/train.txt\nvalid = data/none.txt\n\nnames = data/obj.names\n"
    )
    content, folder = read_layout(str(file), "train")
    assert folder == str(tmp_path)
    assert (content["train"], content["valid"]) == ("train.txt", "data/none.txt")
    assert names_of(content, str(file)) == {0: "cat", 1: "my dog"}
    file.write_text("classes 2\n")
    with pytest.raises(AnnotationError, match=r"obj\.data: expected `key = value`, got 'classes 2' - at line 1"):
        read_layout(str(file), "train")
    file.write_text("classes = 2\n")
    with pytest.raises(AnnotationError, match=r"obj\.data: expected a file of classes, got none - at `names`"):
        read_layout(str(file), "train")


@pytest.mark.parametrize(
    ("there", "split", "images"),
    [
        ("images/train", "train", "images/train"),
        ("valid/images", "val", "valid/images"),
        ("images", "train", "images"),
        ("", "train", "."),
    ],
)
def test_images_of_a_file_of_classes_lie_beside_it(tmp_path, there, split, images):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    (tmp_path / "classes.txt").write_text("cat\n")
    assert read_layout(str(tmp_path / "classes.txt"), split)[0] == {"names": ["cat"], split: images}


def test_all_images_are_not_the_validation_data(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(AnnotationError, match=r"expected images of the split 'val' in images/val or .*, got none"):
        read_layout(str(tmp_path / "classes.txt"), "val")


@pytest.mark.parametrize(("split", "key"), [("val", "valid"), ("val", "validation"), ("valid", "val")])
def test_other_names_of_splits_are_read_and_told(split, key):
    notes = Notes()
    assert split_of({"val": "", "valid": ""}, "val", "x.yaml", notes) == "val"
    notes.warn("nothing was noted")
    assert split_of({"train": "", key: ""}, split, "x.yaml", notes) == key
    with pytest.warns(UserWarning, match=f"`{key}` is read for the split '{split}' - at x.yaml$"):
        notes.warn("x.yaml")
    with pytest.raises(AnnotationError, match=rf"expected a split 'test', got none; there are \['{key}'\]"):
        split_of({key: ""}, "test", "x.yaml", notes)


def test_path_of_another_machine_is_the_folder_of_the_file_if_the_images_are_there(tmp_path):
    (tmp_path / "images").mkdir()
    content = {"path": "/content/set", "train": "images"}
    notes = Notes()
    assert root_of(content, str(tmp_path), "train", "x.yaml", notes) == str(tmp_path)
    with pytest.warns(UserWarning, match="`path` '/content/set' is no folder here, .* is taken"):
        notes.warn("x.yaml")
    with pytest.raises(AnnotationError, match="expected a folder, got /content/set, which is none - at `path`"):
        root_of(content | {"train": "none"}, str(tmp_path), "train", "x.yaml", notes)
