"""Command lines name data sets of every format."""

import argparse
import inspect
import re

import pytest

from detfeed import read_csv, read_kitti, read_openimages, read_voc, read_yolo
from detfeed.readers.formats import (
    FORMATS,
    LAYOUT,
    TRAINING,
    VALIDATION,
    add_training_options,
    add_validation_options,
    required,
    training_set,
    validation_set,
)
from written_formats import write_all


def parse(*arguments, **settings):
    parser = argparse.ArgumentParser()
    add_training_options(parser, **settings)
    add_validation_options(parser)
    return parser.parse_args([*map(str, arguments)])


def call(data_set):
    """The call of its reader."""
    return data_set.read.func, data_set.read.args, data_set.read.keywords


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("formats"))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_with_its_options_alone(options, format):
    train = training_set(parse(*options[format]))
    assert (train.format.name, train.path) == (format, options[format][1])
    assert len(train.read()) == (22 if format == "openimages" else 24)  # it lists no image without boxes
    assert "on_problem" in inspect.signature(train.read).parameters


@pytest.mark.parametrize("format", FORMATS)
def test_every_keyword_is_one_of_the_reader(format):
    known = inspect.signature(FORMATS[format].read).parameters
    assert set(FORMATS[format].keywords) <= set(LAYOUT)
    assert set(FORMATS[format].keywords.values()) <= set(known)
    assert set(FORMATS[format].needs) <= set(FORMATS[format].keywords)


def test_options_reach_the_reader(tmp_path):
    for arguments, expected in (
        (("--voc", "a"), (read_voc, ("a",), {})),
        (
            ("--voc", "a", "--split", "b", "--annotation-dir", "c", "--image-dir", "d", "--zero-based"),
            (read_voc, ("a",), {"split": "b", "annotation_dir": "c", "image_dir": "d", "one_based": False}),
        ),
        (("--yolo", "a", "--split", "b", "--root", "c"), (read_yolo, ("a",), {"split": "b", "root": "c"})),
        (("--csv", "a", "--classes", "b"), (read_csv, ("a",), {"classes_csv": "b"})),
        (("--kitti", "a", "--annotation-dir", "b"), (read_kitti, ("a",), {"label_dir": "b"})),
        (
            ("--openimages", "a", "--classes", "b", "--images", "file://c"),
            (read_openimages, ("a",), {"classes_csv": "b", "image_dir": "file://c"}),
        ),
    ):
        function, paths, keywords = expected
        assert call(training_set(parse(*arguments))) == (function, paths, {**keywords, "invalid": "clip"})
    assert call(training_set(parse("--kitti", "a", "--invalid", "raise")))[2] == {"invalid": "raise"}
    with pytest.raises(SystemExit):
        parse("--kitti", "a", "--invalid", "raise", invalid=("clip", "drop"))


def test_folder_of_roboflow_has_its_coco_file_and_images(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
    train, valid = tmp_path / "train", tmp_path / "valid"
    arguments = parse("--coco", train, "--val-coco", valid)
    for data_set, folder in ((training_set(arguments), train), (validation_set(arguments), valid)):
        assert call(data_set)[1:] == (
            (f"{folder}/_annotations.coco.json",),
            {"image_dir": str(folder), "invalid": "clip"},
        )
        assert data_set.image_dir == str(folder)
    assert call(training_set(parse("--coco", train, "--images", valid)))[2]["image_dir"] == str(valid)


def test_nothing_named_is_none_and_may_be_required():
    assert training_set(parse()) is None
    assert validation_set(parse()) is None
    with pytest.raises(argparse.ArgumentError, match="expected a data set, got none; give --coco, --lvis, "):
        required(training_set(parse()))


def test_arguments_without_options_for_validation_name_none():
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    arguments = parser.parse_args(["--voc", "a"])
    assert training_set(arguments).path == "a"
    assert validation_set(arguments) is None


def test_validation_data_takes_over_what_it_does_not_name(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    layout = ("--split", "s", "--annotation-dir", "c", "--invalid", "drop")
    keywords = {"annotation_dir": "c", "invalid": "drop"}
    assert call(validation_set(parse("--voc", "a", *layout, "--val-split", "v"))) == (
        read_voc, ("a",), {**keywords, "split": "v"},
    )  # fmt: skip
    assert call(validation_set(parse("--voc", "a", *layout, "--val-voc", "b"))) == (read_voc, ("b",), keywords)
    coco = ("--coco", "a.json", "--images", a, "--val-coco", "b.json")
    assert validation_set(parse(*coco)).read.keywords["image_dir"] == a
    assert validation_set(parse(*coco, "--val-images", b)).read.keywords["image_dir"] == b
    assert training_set(parse(*coco, "--val-images", b)).read.keywords["image_dir"] == a


def test_validation_split_of_yolo_is_val_unless_it_is_given():
    assert validation_set(parse("--yolo", "a", "--split", "b", "--val-yolo", "c")).read.keywords["split"] == "val"
    assert validation_set(parse("--val-yolo", "c", "--val-split", "d")).read.keywords["split"] == "d"


def test_validation_data_needs_no_folder_of_training_images(tmp_path):
    arguments = parse("--coco", "a", "--images", tmp_path / "gone", "--val-voc", "b")
    assert validation_set(arguments).path == "b"
    with pytest.raises(
        argparse.ArgumentError, match=r"--images: expected a folder or URL, got .*gone; there is no such"
    ):
        training_set(arguments)


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (("--coco", "a.json", "--images", "s3://b"), "s3://b"),
        (("--voc", "a"), "a/JPEGImages"),
        (("--voc", "a", "--image-dir", "b"), "a/b"),
        (("--kitti", "a"), "a/image_2"),
        (("--kitti", "a", "--image-dir", "b"), "a/b"),
        (("--csv", "a/b.csv", "--classes", "c"), "a"),
        (("--csv", "a/b.csv", "--classes", "c", "--images", "s3://d"), "s3://d"),
        (("--yolo", "a/b.yaml"), None),
    ],
)
def test_file_names_of_a_copy_start_from_the_folder_of_the_input(arguments, folder):
    assert training_set(parse(*arguments)).image_dir == folder


def test_all_options_are_among_the_names():
    assert set(vars(parse())) == {*TRAINING, *VALIDATION, "invalid"}


def test_help_gives_each_option_one_line_of_80_characters(monkeypatch):
    from detfeed.commands.parser import Parser

    monkeypatch.setenv("COLUMNS", "80")
    parser = Parser()
    add_training_options(parser)
    add_validation_options(parser)
    lines = parser.format_help().splitlines()
    options = [line for line in lines if line.startswith("  -")]
    assert len(options) == 1 + len(TRAINING) + len(VALIDATION) + 1
    assert all(re.fullmatch(r"  (-h, )?--[a-z-]+( [A-Z]+)? +[^ ].*", line) for line in options)
    assert not [line for line in lines if line.startswith(20 * " ")]
