import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detfeed import ShortSide, read_coco, read_voc, write_coco
from detfeed.check.cli import app
from detfeed.check.dataset import check
from image_files import encode, noise

XML = (
    "<annotation>{size}<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>{x1}</xmax><ymax>50</ymax>"
    "</bndbox></object></annotation>"
)


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "200"})


def write_set(path, names, *, label="cat", box=(10, 10, 40, 40), extra_classes=()):
    """Write a COCO file of images of 60 x 80 with a box each."""
    images = [{"id": row, "file_name": name, "height": 60, "width": 80} for row, name in enumerate(names)]
    boxes = [{"id": row, "image_id": row, "category_id": 1, "bbox": box} for row in range(len(names))]
    classes = [{"id": 1, "name": label}, *extra_classes]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": classes}))


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
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
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
    assert "VOC0.png: [4, 4, 99, 50], " in result.stdout
    assert "> clip them in the file" in result.stdout


def test_annotations_that_cannot_be_read_as_a_whole_exit_2(voc, tmp_path):
    root = voc()
    arguments = ("--voc", root, "--split", "none")
    result = run(*arguments, "--write", tmp_path / "fixed.json")
    assert result.exit_code == 2
    assert "expected a list of images, got no such file" in result.stdout
    assert "was not written: the annotations can't be read" in result.stderr
    assert not (tmp_path / "fixed.json").exists()
    # One that is wrong as a validation set counts as well.
    assert run("--voc", voc("good"), "--val-voc", root, "--val-split", "none").exit_code == 2


def test_file_that_cannot_be_read_is_a_finding_and_the_rest_is_checked_and_written(voc, tmp_path):
    root = voc(bad=True)
    (root / "Annotations" / "VOC2.xml").write_text("<annotation>")
    result = run("--voc", root, "--write", tmp_path / "fixed.json")
    assert result.exit_code == 1
    for text in ("unreadable-annotation, 1:", "partly-outside", "damaged-image", "; not all of 1 file can be read"):
        assert text in result.stdout
    assert "with 1 of 2 training images and 1 boxes, without what can't be read of 1 file;" in result.stderr
    assert read_coco(tmp_path / "fixed.json", root / "JPEGImages").image_ids.tolist() == ["VOC0"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
        (RuntimeError("[b]no\x1b\n"), "RuntimeError: [b]no\\x1b\\n"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_check_that_fails_exits_2_and_says_of_what_in_one_line(voc, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("detfeed.check.cli.check", fail)
    result = run("--voc", voc())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"the check failed: {message}\n"


def test_json_goes_to_a_file_or_alone_to_the_output(voc, tmp_path):
    root = voc(bad=True)
    result = run("--voc", root, "--json", "-")
    content = json.loads(result.stdout)
    assert result.exit_code == content["status"] == 1
    assert "damaged-image" in [finding["kind"] for finding in content["findings"]]
    for name in ("report.json", "report", "report"):  # one that was written before is written over
        result = run("--voc", root, "--json", tmp_path / name)
        assert "damaged-image" in result.stdout
        assert json.loads((tmp_path / name).read_text()) == content


def test_cleaned_copy_is_written_without_images_that_cannot_be_fed(voc, tmp_path):
    root = voc(bad=True)
    result = run("--voc", root, "--write", tmp_path / "fixed.json")
    assert result.exit_code == 1
    assert f"with 2 of 3 training images and 2 boxes; its file names start from {root / 'JPEGImages'}" in result.stderr
    table = read_coco(tmp_path / "fixed.json", root / "JPEGImages", invalid="raise")
    assert table.image_ids.tolist() == ["VOC0", "VOC2"]
    assert table.boxes.tolist() == [[4, 4, 80, 50], [4, 4, 60, 50]]
    run("--voc", root, "--write", tmp_path / "dropped.json", "--invalid", "drop")
    assert len(read_coco(tmp_path / "dropped.json", root / "JPEGImages").boxes) == 1
    assert run("--coco", tmp_path / "fixed.json", "--images", root / "JPEGImages").exit_code == 0


def test_copy_has_the_file_names_of_the_input_whatever_is_left_out(tmp_path):
    for number, name in enumerate(["s1/a.png", "s2/c.png"]):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encode(noise(number), "PNG") if number == 0 else b"nonsense")
    write_set(tmp_path / "a.json", ["s1/a.png", "s2/c.png"])
    arguments = ("--images", tmp_path, "--short-side", 60)
    run("--coco", tmp_path / "a.json", *arguments, "--write", tmp_path / "fixed.json")
    assert [image["file_name"] for image in json.loads((tmp_path / "fixed.json").read_text())["images"]] == ["s1/a.png"]
    assert run("--coco", tmp_path / "fixed.json", *arguments).exit_code == 0


def test_images_may_be_at_urls(tmp_path):
    (tmp_path / "images").mkdir()
    write_set(tmp_path / "a.json", ["a.png", "b.png"])
    (tmp_path / "images" / "a.png").write_bytes(encode(noise(0), "PNG"))
    url = f"file://{tmp_path}/images"
    result = run("--coco", tmp_path / "a.json", "--images", url, "--write", tmp_path / "fixed.json", "--json", "-")
    (finding,) = [each for each in json.loads(result.stdout)["findings"] if each["severity"] == "error"]
    assert (finding["kind"], finding["examples"][0]["file"]) == ("missing-image", f"{url}/b.png")
    assert f"its file names start from {url}." in result.stderr
    arguments = ("--coco", tmp_path / "fixed.json", "--images", url, "--val-coco", tmp_path / "a.json")
    assert "leaked-images" in run(*arguments, "--val-images", f"{url}/").stdout


@pytest.mark.parametrize("option", ["--write", "--json"])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_no_input_is_written_over(tmp_path, option, through_a_link):
    write_set(tmp_path / "a.json", ["a.png"])
    write_set(tmp_path / "val.json", ["a.png"])
    (tmp_path / "link.json").symlink_to("val.json")
    content = (tmp_path / "a.json").read_text()
    target = tmp_path / ("link.json" if through_a_link else "a.json")
    arguments = ("--coco", tmp_path / "a.json", "--images", tmp_path, "--val-coco", tmp_path / "val.json")
    result = run(*arguments, option, target)
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert f"{option} would overwrite" in said
    assert ("keypoints" in said) == (option == "--write")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "val.json").read_text() == content


def test_report_and_copy_are_not_one_file(tmp_path):
    write_set(tmp_path / "a.json", ["a.png"])
    out = tmp_path / "out.json"
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--write", out, "--json", out)
    assert (result.exit_code, out.exists()) == (2, False)


def test_message_and_help_say_what_a_copy_lacks(voc, tmp_path):
    result = run("--voc", voc(), "--write", tmp_path / "fixed.json")
    assert "Not in it: polygons of objects, keypoints, " in result.stderr
    assert "polygons of objects, keypoints" in " ".join(run("--help").stdout.replace("│", " ").split())


def test_names_that_the_output_cannot_show_are_escaped(tmp_path):
    """In a process of its own: the encoding is that of its standard output."""
    name = "\N{SNOWMAN}\x1b]0;PWNED\x07cat"
    write_set(tmp_path / "a.json", ["\N{SNOWMAN}.png", "b.png"], label=name)
    (tmp_path / "b.png").write_bytes(encode(noise(0), "PNG"))
    write = ("--write", tmp_path / "fixed.json")
    code = "import sys; from detfeed.check.cli import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", code, "check", "--coco", tmp_path / "a.json", "--images", tmp_path, *write]
    for terminal in ({}, {"FORCE_COLOR": "1", "COLUMNS": "400"}):
        done = subprocess.run(
            command, env={**os.environ, "PYTHONIOENCODING": "ascii", **terminal}, capture_output=True, check=False
        )
        assert done.returncode == 1, done.stderr
        assert b"\\u2603.png" in done.stdout
        assert rb"\x1b]0;PWNED\x07cat: 2 boxes" in done.stdout
        assert b"\x1b]0" not in done.stdout
        assert b"\x07" not in done.stdout
        assert (tmp_path / "fixed.json").exists()
        (tmp_path / "fixed.json").unlink()


def test_copy_is_written_though_the_report_cannot_be_printed(voc, tmp_path, monkeypatch):
    def fail(report):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("detfeed.check.cli._print", fail)
    run("--voc", voc(), "--write", tmp_path / "fixed.json", "--json", tmp_path / "report.json")
    assert (tmp_path / "fixed.json").exists()
    assert (tmp_path / "report.json").exists()


def test_lines_are_neither_wrapped_nor_cut_outside_a_terminal(tmp_path):
    folder = tmp_path / ("long " * 30).strip()
    folder.mkdir()
    write_set(tmp_path / "a.json", [f"{number}.png" for number in range(5)])
    arguments = ["check", "--coco", str(tmp_path / "a.json"), "--images", str(folder)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    lines = result.stdout.splitlines()
    start = lines.index("error (train) missing-image, 5: images that are not there")
    assert [line.partition(": ")[0] for line in lines[start + 1 : start + 4]] == [
        f"- {folder}/{number}.png" for number in range(3)
    ]
    assert lines[start + 4] == "- ..."
    assert lines[start + 5] == "> put the images there, or leave them out (--write)"


def test_terminal_gets_a_table(tmp_path):
    write_set(tmp_path / "a.json", [f"{number}.png" for number in range(4)])
    arguments = ["check", "--coco", str(tmp_path / "a.json"), "--images", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300", "FORCE_COLOR": "1"}, color=True)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in result.stdout.splitlines()]
    start = next(place for place, line in enumerate(lines) if "error (train)" in line)
    for line, texts in zip(
        lines[start:],
        (
            ["│ error (train)", "│     4 │ images that are not there"],
            ["│ missing-image", f"│ - {tmp_path}/0.png: expected"],
            [f"- {tmp_path}/1.png: expected"],
            [f"- {tmp_path}/2.png: expected"],
            ["- ..."],
            ["> put the images there"],
        ),
        strict=False,
    ):
        assert all(text in line for text in texts)


def test_classes_of_one_name_are_counted_one_by_one(tmp_path):
    write_set(tmp_path / "a.json", ["a.png"], extra_classes=[{"id": 2, "name": "cat"}])
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path)
    assert "1 boxes of which 0 ignored, 2 classes" in result.stdout


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


@pytest.fixture
def formats(voc, tmp_path):
    """Write one set of three images in each format, of one in CSV and OpenImages; the arguments that name them.

    The first image of each has a box that is half outside.
    """
    images = voc(bad=False) / "JPEGImages"
    (tmp_path / "VOC" / "Annotations" / "VOC0.xml").write_text(XML.format(x1=99, size=""))
    for folder, text in (("label_2", "cat 0 0 0 5 5 {} 50 0 0 0 0 0 0 0"), ("labels", "0 {} 0.5 0.5 0.5")):
        (tmp_path / folder).mkdir()
        for number, x in enumerate((99, 60, 60) if folder == "label_2" else (0.9, 0.5, 0.5)):
            (tmp_path / folder / f"VOC{number}.txt").write_text(text.format(x))
    shutil.copytree(images, tmp_path / "image_2")
    shutil.copytree(images, tmp_path / "images")
    write_set(tmp_path / "coco.json", [f"VOC{number}.png" for number in range(3)], box=(60, 5, 39, 45))
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images\nval: images\n")
    (tmp_path / "boxes.csv").write_text("VOC0.png,60,5,99,50,cat\n")
    (tmp_path / "classes.csv").write_text("cat,0\n")
    (tmp_path / "VOC0.jpg").write_bytes((images / "VOC0.png").read_bytes())
    headings = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"
    (tmp_path / "oi.csv").write_text(f"{headings}VOC0,cat,0.8,1.2,0.1,0.9,0\n")
    classes = ("--classes", tmp_path / "classes.csv")
    return {
        "coco": ("--coco", tmp_path / "coco.json", "--images", images),
        "lvis": ("--lvis", tmp_path / "coco.json", "--images", images),
        "voc": ("--voc", tmp_path / "VOC"),
        "yolo": ("--yolo", tmp_path / "data.yaml"),
        "csv": ("--csv", tmp_path / "boxes.csv", *classes, "--images", images),
        "kitti": ("--kitti", tmp_path),
        "openimages": ("--openimages", tmp_path / "oi.csv", *classes, "--images", tmp_path),
    }


FORMATS = ("coco", "lvis", "voc", "yolo", "csv", "kitti", "openimages")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_with_the_policy_given(formats, format):
    whats = []
    for invalid in ("clip", "drop", "ignore"):
        content = json.loads(run(*formats[format], "--invalid", invalid, "--json", "-").stdout)
        assert content["data"][0]["images"] == (1 if format in ("csv", "openimages") else 3)
        (what,) = [each["what"] for each in content["findings"] if each["kind"] == "partly-outside"]
        whats.append(what.partition("; ")[2])
    assert whats == ["clipped to it", "dropped", "made ignore regions"]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_validation_data_of_every_other(formats, format):
    data = [f"--val-{format}", formats[format][1]]
    classes = formats["csv"][2:4]
    if format in ("coco", "lvis", "csv", "openimages"):
        data += ["--val-images", formats[format][-1]]
    for train in FORMATS:
        needed = classes if format in ("csv", "openimages") and train not in ("csv", "openimages") else ()
        result = run(*formats[train], *data, *needed, "--json", "-")
        content = json.loads(result.stdout)
        assert [each["name"] for each in content["data"]] == ["train", "val"], (train, result.stdout)
        assert content["data"][1]["images"] == (1 if format in ("csv", "openimages") else 3)
        assert "leaked-images" in [finding["kind"] for finding in content["findings"]]


def test_validation_data_takes_over_what_it_does_not_name(formats, tmp_path):
    for arguments in (
        (*formats["yolo"], "--split", "val", "--val-split", "train"),
        (*formats["csv"], "--val-csv", tmp_path / "boxes.csv"),
        (*formats["coco"], "--val-coco", tmp_path / "coco.json"),
        (*formats["coco"], "--val-csv", tmp_path / "boxes.csv", "--classes", tmp_path / "classes.csv"),
        (*formats["voc"], "--images", tmp_path / "images", "--val-lvis", tmp_path / "coco.json"),
    ):
        assert "leaked-images" in run(*arguments).stdout


def test_validation_split_of_yolo_is_val_if_none_is_given(formats, tmp_path):
    arguments = (*formats["yolo"], "--val-yolo", tmp_path / "data.yaml", "--json", "-")
    sources = [each["source"] for each in json.loads(run(*arguments).stdout)["data"]]
    assert [source.rpartition(" ")[2] for source in sources] == ["(train)", "(val)"]


def test_yolo_starts_from_root_if_it_is_given(formats, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data.yaml").rename(tmp_path / "elsewhere" / "data.yaml")
    arguments = ("--yolo", tmp_path / "elsewhere" / "data.yaml")
    assert run(*arguments).exit_code == 2
    assert "train: 3 images" in run(*arguments, "--root", tmp_path).stdout


def test_folders_of_kitti_may_have_other_names(formats, tmp_path):
    (tmp_path / "label_2").rename(tmp_path / "texts")
    (tmp_path / "image_2").rename(tmp_path / "pictures")
    assert run(*formats["kitti"]).exit_code == 2
    arguments = (*formats["kitti"], "--annotation-dir", "texts", "--image-dir", "pictures")
    result = run(*arguments, "--write", tmp_path / "fixed.json")
    assert "train: 3 images" in result.stdout
    assert f"its file names start from {tmp_path / 'pictures'}." in result.stderr


def test_how_images_are_fed_and_how_many_threads_look_is_passed_on(voc, monkeypatch):
    calls = []

    def note(train, val, **arguments):
        calls.append(arguments)
        return check(train, val, **arguments)

    monkeypatch.setattr("detfeed.check.cli.check", note)
    root = voc()
    run("--voc", root)
    run("--voc", root, "--short-side", 300)
    run("--voc", root, "--max-side", 900, "--smallest-anchor", 20, "--workers", 3, "--fast")
    for call in calls:
        call.pop("on_progress")
    usual = {"resize": ShortSide(800, max_side=1333), "smallest_anchor": 32, "workers": None, "fast": False}
    assert calls[0] == usual
    assert calls[1] == {**usual, "resize": ShortSide(300, max_side=499)}
    assert calls[2] == {"resize": ShortSide(800, max_side=900), "smallest_anchor": 20, "workers": 3, "fast": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of --coco"),
        (("--voc", "a", "--max-side", "700"), "--max-side must be at least --short-side, 800"),
        (("--voc", "a", "--kitti", "b"), "got --voc and --kitti"),
        (("--coco", "a"), "--coco needs --images"),
        (("--csv", "a"), "--csv needs --classes"),
        (("--voc", "a", "--images", "b"), "--images goes with --coco or --lvis or --csv"),
        (("--voc", "a", "--images", "b", "--val-coco", "c", "--val-images", "d"), "--images goes with --coco"),
        (("--coco", "a", "--images", "b", "--classes", "c"), "--classes goes with --csv or --openimages"),
        (("--coco", "a", "--images", "b", "--val-csv", "c"), "--val-csv needs --classes"),
        (("--coco", "a", "--images", "b"), "--images: expected a folder, got b, which is none"),
        (("--coco", "a", "--images", "b", "--annotation-dir", "c"), "--annotation-dir goes with --voc or --kitti"),
        (("--yolo", "a", "--image-dir", "c"), "--image-dir goes with --voc or --kitti"),
        (("--kitti", "a", "--zero-based"), "--zero-based goes with --voc"),
        (("--voc", "a", "--root", "c"), "--root goes with --yolo"),
        (("--voc", "a", "--val-lvis", "b"), "--val-lvis needs --val-images"),
        (("--voc", "a", "--val-lvis", "b", "--val-kitti", "c"), "got --val-lvis and --val-kitti"),
        (("--kitti", "a", "--split", "b"), "--split goes with --voc or --yolo"),
        (("--voc", "a", "--val-coco", "b"), "--val-coco needs --val-images"),
        (("--voc", "a", "--val-coco", "b", "--val-split", "c"), "--val-split needs --voc"),
        (("--kitti", "a", "--val-split", "c"), "--val-split needs --voc"),
        (("--kitti", "a", "--val-images", "c"), "--val-images goes with --val-coco or --val-lvis"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_copy_without_images_is_not_written(tmp_path):
    write_set(tmp_path / "a.json", ["none.png"])
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--write", tmp_path / "fixed.json")
    assert (result.exit_code, (tmp_path / "fixed.json").exists()) == (2, False)
    assert "fixed.json was not written: there is no image that can be fed" in result.stderr


@pytest.mark.parametrize("option", ["--write", "--json"])
def test_no_file_of_another_kind_is_overwritten(voc, option):
    root = voc()
    for path in (root / "JPEGImages" / "VOC0.png", root / "Annotations" / "VOC0.xml"):
        before = path.read_bytes()
        result = run("--voc", root, option, path)
        assert result.exit_code == 2
        said = " ".join(result.stderr.replace("│", " ").split())
        assert f"{option} would overwrite" in said
        assert path.read_bytes() == before


def test_annotations_of_images_that_are_not_in_a_coco_file_hide_nothing_else(tmp_path):
    write_set(tmp_path / "a.json", ["a.png", "b.png"])
    (tmp_path / "a.png").write_bytes(encode(noise(0), "PNG"))
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"] += [{"id": 7 + k, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]} for k in range(2)]
    (tmp_path / "a.json").write_text(json.dumps(content))
    fixed = tmp_path / "fixed.json"
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--write", fixed)
    assert result.exit_code == 1
    assert "missing-image, 2: images that are not there" in result.stdout
    assert "got 9 - at `annotations[2]` (image_id 9), the first of 2" in result.stdout
    assert read_coco(fixed, tmp_path).image_ids.tolist() == [0]
