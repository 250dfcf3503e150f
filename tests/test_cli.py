import json
import shutil
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detfeed import read_coco, read_voc, write_coco
from detfeed.cli import app
from image_files import encode, noise

XML = (
    "<annotation>{size}<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>{x1}</xmax><ymax>50</ymax>"
    "</bndbox></object></annotation>"
)


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def voc(tmp_path):
    """Write a VOC folder of images of 60 x 80; `bad` adds one with a box that reaches out, and one damaged."""

    def write(name="VOC", *, bad=False, first=0, annotation_dir="Annotations", image_dir="JPEGImages"):
        root = tmp_path / name
        for folder in (annotation_dir, image_dir, "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        names = [f"{name}{number}" for number in range(3)]
        for number, stem in enumerate(names):
            data = encode(noise(first + number), "PNG")
            (root / image_dir / f"{stem}.png").write_bytes(data[:-30] if bad and number == 1 else data)
            x1 = 99 if bad and number == 0 else 60
            size = "<size><width>80</width><height>60</height></size>"
            (root / annotation_dir / f"{stem}.xml").write_text(XML.format(x1=x1, size=size))
        (root / "ImageSets" / "Main" / "some.txt").write_text("\n".join(names[2:]))
        return root

    return write


def test_wheel_installs_the_command():
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    assert EntryPoint("detfeed", scripts["detfeed"], "console_scripts").load() is app


def test_clean_set_exits_0(voc):
    result = run("--voc", voc(), "--short-side", 60)
    assert result.exit_code == 0
    assert "train: 3 images, 3 boxes of which 0 ignored, 1 classes" in result.stdout
    assert "rare-class" in result.stdout


def test_findings_exit_1_and_are_told_with_place_and_advice(voc):
    result = run("--voc", voc(bad=True))
    assert result.exit_code == 1
    # Brackets are no markup.
    for text in ("error (train)", "damaged-image", "VOC1.png: expected a whole image", "partly-outside", "; clipped"):
        assert text in result.stdout
    assert "box 0: [4, 4, 99, 50], " in result.stdout
    assert "> clip them in the file" in result.stdout


def test_unreadable_annotations_exit_2(voc, tmp_path):
    root = voc()
    (root / "Annotations" / "VOC1.xml").write_text("<annotation>")
    result = run("--voc", root, "--write", tmp_path / "fixed.json")
    assert result.exit_code == 2
    assert "expected XML, got a file that does not parse" in result.stdout
    assert "was not written: the annotations can't be read" in result.stderr
    assert not (tmp_path / "fixed.json").exists()
    # One that is wrong as a validation set counts as well.
    assert run("--voc", voc("good"), "--val-voc", root).exit_code == 2


def test_json_goes_to_a_file_or_alone_to_the_output(voc, tmp_path):
    root = voc(bad=True)
    result = run("--voc", root, "--json", "-")
    content = json.loads(result.stdout)
    assert result.exit_code == content["status"] == 1
    assert "damaged-image" in [finding["kind"] for finding in content["findings"]]
    result = run("--voc", root, "--json", tmp_path / "report.json")
    assert "damaged-image" in result.stdout
    assert json.loads((tmp_path / "report.json").read_text()) == content


def test_cleaned_copy_is_written_without_images_that_cannot_be_fed(voc, tmp_path):
    root = voc(bad=True)
    result = run("--voc", root, "--write", tmp_path / "fixed.json")
    assert result.exit_code == 1
    assert f"with 2 of 3 images and 2 boxes; its file names start from {root / 'JPEGImages'}" in result.stderr
    table = read_coco(tmp_path / "fixed.json", root / "JPEGImages", invalid="raise")
    assert table.image_ids.tolist() == ["VOC0", "VOC2"]
    assert table.boxes.tolist() == [[4, 4, 80, 50], [4, 4, 60, 50]]
    run("--voc", root, "--write", tmp_path / "dropped.json", "--invalid", "drop")
    assert len(read_coco(tmp_path / "dropped.json", root / "JPEGImages").boxes) == 1
    assert run("--coco", tmp_path / "fixed.json", "--images", root / "JPEGImages").exit_code == 0


@pytest.mark.parametrize("option", ["--write", "--json"])
def test_file_that_cannot_be_written_is_an_error(voc, tmp_path, option):
    result = run("--voc", voc(), option, tmp_path / "none" / "out.json")
    assert result.exit_code == 2
    assert "out.json was not written: No such file or directory" in result.stderr


def test_fast_reads_headers_only(voc):
    assert "damaged-image" not in run("--voc", voc(bad=True), "--fast").stdout


def test_voc_folders_may_have_other_names_and_corners_count_from_zero(voc):
    root = voc(annotation_dir="annots", image_dir="images")
    arguments = ("--voc", root, "--annotation-dir", "annots", "--image-dir", "images", "--json", "-")
    assert json.loads(run(*arguments).stdout)["data"][0]["images"] == 3
    xml = root / "annots" / "VOC0.xml"
    xml.write_text(xml.read_text().replace("<xmin>5", "<xmin>0"))
    assert run(*arguments).exit_code == 1
    assert run(*arguments, "--zero-based").exit_code == 0


def test_validation_sets_are_compared(voc, tmp_path):
    root, other = voc(), voc("other", first=2)
    result = run("--voc", root, "--val-voc", other)
    assert result.exit_code == 1
    assert "leaked-images" in result.stdout
    assert run("--voc", root, "--val-split", "some").exit_code == 1
    folder = write_coco(read_voc(other), tmp_path / "val.json")
    content = json.loads(
        run("--voc", root, "--val-coco", tmp_path / "val.json", "--val-images", folder, "--json", "-").stdout
    )
    assert [each["name"] for each in content["data"]] == ["train", "val"]
    assert "leaked-images" in [finding["kind"] for finding in content["findings"]]


def test_every_format_is_read(voc, tmp_path):
    images = voc() / "JPEGImages"
    label = "cat 0 0 0 5 5 60 50 0 0 0 0 0 0 0"
    for folder, ending, text in (("label_2", "txt", label), ("labels", "txt", "0 0.5 0.5 0.5 0.5")):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"VOC{number}.{ending}").write_text(text)
    shutil.copytree(images, tmp_path / "image_2")
    shutil.copytree(images, tmp_path / "images")
    write_coco(read_voc(images.parent), tmp_path / "coco.json")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images\nval: images\n")
    (tmp_path / "boxes.csv").write_text("VOC0.png,5,5,60,50,cat\n")
    (tmp_path / "classes.csv").write_text("cat,0\n")
    (tmp_path / "VOC0.jpg").write_bytes((images / "VOC0.png").read_bytes())
    headings = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"
    (tmp_path / "oi.csv").write_text(f"{headings}VOC0,cat,0.1,0.9,0.1,0.9,0\n")
    csv = ("--csv", tmp_path / "boxes.csv", "--classes", tmp_path / "classes.csv", "--images", images)
    for arguments, count in (
        (("--coco", tmp_path / "coco.json", "--images", images), 3),
        (("--lvis", tmp_path / "coco.json", "--images", images), 3),
        (("--yolo", tmp_path / "data.yaml"), 3),
        (("--yolo", tmp_path / "data.yaml", "--split", "val"), 3),
        (csv, 1),
        (("--kitti", tmp_path), 3),
        (("--openimages", tmp_path / "oi.csv", "--classes", tmp_path / "classes.csv", "--images", tmp_path), 1),
    ):
        result = run(*arguments, "--json", "-")
        assert result.exit_code == 0, arguments
        content = json.loads(result.stdout)
        assert content["data"][0]["images"] == count
    for arguments in (
        ("--yolo", tmp_path / "data.yaml", "--val-split", "val"),
        (*csv, "--val-csv", tmp_path / "boxes.csv"),
        ("--coco", tmp_path / "coco.json", "--images", images, "--val-coco", tmp_path / "coco.json"),
    ):
        assert "leaked-images" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of --coco"),
        (("--voc", "a", "--max-side", "700"), "--max-side must be at least --short-side, 800"),
        (("--voc", "a", "--kitti", "b"), "got --voc and --kitti"),
        (("--coco", "a"), "--coco needs --images"),
        (("--csv", "a"), "--csv needs --classes"),
        (("--voc", "a", "--images", "b"), "--images goes with --coco or --lvis or --csv"),
        (("--kitti", "a", "--split", "b"), "--split goes with --voc or --yolo"),
        (("--voc", "a", "--val-coco", "b"), "--val-coco needs --val-images"),
        (("--voc", "a", "--val-coco", "b", "--val-split", "c"), "give one of --val-coco"),
        (("--kitti", "a", "--val-split", "c"), "--val-split needs --voc"),
        (("--kitti", "a", "--val-images", "c"), "--val-images goes with --val-coco and --val-csv"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
