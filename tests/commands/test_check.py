import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detfeed import ShortSide, check, read_coco, read_voc, write_coco
from detfeed.commands import check as check_command
from full_disk import full_disk
from image_files import encode, noise

XML = (
    "<annotation>{size}<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>{x1}</xmax><ymax>50</ymax>"
    "</bndbox></object></annotation>"
)


@pytest.fixture
def run(detfeed):
    """Run `detfeed check`."""
    return lambda *arguments: detfeed("check", *arguments)


def refusal(result):
    """The one line that a command ends with whose arguments are wrong."""
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.startswith("detfeed check: ")
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    return result.stderr


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


def test_command_is_installed(run, voc):
    command = shutil.which("detfeed", path=Path(sys.executable).parent)
    assert command, "detfeed is not installed beside this Python"
    done = subprocess.run([command, "check", "--voc", voc(bad=True)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "damaged-image" in done.stdout
    done = subprocess.run([command, "check", "--voc"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "detfeed check: --voc: expected one value, got none; see detfeed check --help\n"


def test_help_lists_the_commands_and_describes_each_option_in_a_line(detfeed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ((), ("--help",)):
        result = detfeed(*arguments)
        assert (result.status, result.stderr) == (0, "")
        assert "    check     find what is wrong with a data set\n" in result.stdout
    for command, count in (("check", 41), ("convert", 40), ("split", 31)):
        lines = detfeed(command, "--help").stdout.splitlines()
        options = [line for line in lines if line.startswith("  -")]
        assert len(options) == count
        assert not [line for line in options if len(line.split("  ")) < 3], "an option whose help is on the next line"
        assert not [line for line in lines if line.startswith(20 * " ")], "help of two lines"


def test_unknown_command_is_named(detfeed):
    result = detfeed("chek", "--voc", "a")
    assert (result.status, result.stdout) == (2, "")
    known = "check, anchors, convert, report, show or split"
    assert result.stderr == f"detfeed: COMMAND: expected {known}, got chek; did you mean check?\n"


def test_interrupted_command_exits_130(run, voc, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_command, "check", interrupt)
    result = run("--voc", voc())
    assert (result.status, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_output_into_a_closed_pipe_ends_quietly(run, voc):
    code = "import sys; from detfeed.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "--voc", voc()], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_clean_set_exits_0(run, voc):
    result = run("--voc", voc(), "--short-side", 60)
    assert result.status == 0
    assert "train: 3 images, 3 boxes (0 ignored), 1 classes" in result.stdout
    assert "rare-class" in result.stdout


def test_findings_exit_1_and_are_printed_with_place_and_advice(run, voc):
    result = run("--voc", voc(bad=True))
    assert result.status == 1
    # Brackets are no markup.
    for text in ("error (train)", "damaged-image", "VOC1.png: expected a whole image", "partly-outside", "; clipped"):
        assert text in result.stdout
    assert "VOC0.png: [4, 4, 99, 50], " in result.stdout
    assert "> clip them in the file" in result.stdout


def test_annotations_that_cannot_be_read_as_a_whole_exit_2(run, voc, tmp_path):
    root = voc()
    arguments = ("--voc", root, "--split", "none")
    result = run(*arguments, "--write", tmp_path / "fixed.json")
    assert result.status == 2
    assert "expected a list of images, got no such file" in result.stdout
    assert "was not written: the annotations can't be read" in result.stderr
    assert not (tmp_path / "fixed.json").exists()
    # One that is wrong as a validation set counts as well.
    assert run("--voc", voc("good"), "--val-voc", root, "--val-split", "none").status == 2


def test_file_that_cannot_be_read_is_a_finding_and_the_rest_is_checked_and_written(run, voc, tmp_path):
    root = voc(bad=True)
    (root / "Annotations" / "VOC2.xml").write_text("<annotation>")
    result = run("--voc", root, "--write", tmp_path / "fixed.json")
    assert result.status == 1
    for text in (
        "unreadable-annotation, 1:",
        "partly-outside",
        "damaged-image",
        "; 1 file can't be read, or only in part",
    ):
        assert text in result.stdout
    assert "with 1 of 2 training images and 1 boxes, without the unreadable parts of 1 file;" in result.stderr
    assert read_coco(tmp_path / "fixed.json", root / "JPEGImages").image_ids.tolist() == ["VOC0"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
        (RuntimeError("[b]no\x1b\n"), "RuntimeError: [b]no\\x1b\\n"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_check_that_fails_exits_2_with_its_error_in_one_line(run, voc, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(check_command, "check", fail)
    result = run("--voc", voc())
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == f"the check failed: {message}\n"


def test_json_goes_to_a_file_or_alone_to_the_output(run, voc, tmp_path):
    root = voc(bad=True)
    result = run("--voc", root, "--json", "-")
    content = json.loads(result.stdout)
    assert result.status == content["status"] == 1
    assert "damaged-image" in [finding["kind"] for finding in content["findings"]]
    for name in ("report.json", "report", "report"):  # one that was written before is written over
        result = run("--voc", root, "--json", tmp_path / name)
        assert "damaged-image" in result.stdout
        assert json.loads((tmp_path / name).read_text()) == content


def test_cleaned_copy_is_written_without_images_that_cannot_be_fed(run, voc, tmp_path):
    root = voc(bad=True)
    result = run("--voc", root, "--write", tmp_path / "fixed.json")
    assert result.status == 1
    assert f"with 2 of 3 training images and 2 boxes; its file names start from {root / 'JPEGImages'}" in result.stderr
    table = read_coco(tmp_path / "fixed.json", root / "JPEGImages", invalid="raise")
    assert table.image_ids.tolist() == ["VOC0", "VOC2"]
    assert table.boxes.tolist() == [[4, 4, 80, 50], [4, 4, 60, 50]]
    run("--voc", root, "--write", tmp_path / "dropped.json", "--invalid", "drop")
    assert len(read_coco(tmp_path / "dropped.json", root / "JPEGImages").boxes) == 1
    assert run("--coco", tmp_path / "fixed.json", "--images", root / "JPEGImages").status == 0


def test_copy_has_the_file_names_of_the_input_whatever_is_left_out(run, tmp_path):
    for number, name in enumerate(["s1/a.png", "s2/c.png"]):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encode(noise(number), "PNG") if number == 0 else b"nonsense")
    write_set(tmp_path / "a.json", ["s1/a.png", "s2/c.png"])
    arguments = ("--images", tmp_path, "--short-side", 60)
    run("--coco", tmp_path / "a.json", *arguments, "--write", tmp_path / "fixed.json")
    assert [image["file_name"] for image in json.loads((tmp_path / "fixed.json").read_text())["images"]] == ["s1/a.png"]
    assert run("--coco", tmp_path / "fixed.json", *arguments).status == 0


def test_images_may_be_at_urls(run, tmp_path):
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
def test_no_input_is_written_over(run, tmp_path, option, through_a_link):
    write_set(tmp_path / "a.json", ["a.png"])
    write_set(tmp_path / "val.json", ["a.png"])
    (tmp_path / "link.json").symlink_to("val.json")
    content = (tmp_path / "a.json").read_text()
    target = tmp_path / ("link.json" if through_a_link else "a.json")
    arguments = ("--coco", tmp_path / "a.json", "--images", tmp_path, "--val-coco", tmp_path / "val.json")
    result = run(*arguments, option, target)
    line = refusal(result)
    assert f"{option}: expected a new file, got {target}, which is an input" in line
    assert ("keypoints" in line) == (option == "--write")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "val.json").read_text() == content


def test_report_and_copy_are_not_one_file(run, tmp_path):
    write_set(tmp_path / "a.json", ["a.png"])
    out = tmp_path / "out.json"
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--write", out, "--json", out)
    assert f"--json: expected a new file, got {out}" in refusal(result)
    assert not out.exists()


def test_message_and_help_say_what_a_copy_lacks(run, voc, tmp_path):
    result = run("--voc", voc(), "--write", tmp_path / "fixed.json")
    assert "The copy lacks outlines and keypoints without --masks and --keypoints, " in result.stderr
    assert "lacks outlines and keypoints without --masks and --keypoints" in " ".join(run("--help").stdout.split())


def test_names_that_the_output_cannot_show_are_escaped(run, tmp_path):
    """In a process of its own: the encoding is that of its standard output."""
    name = "\N{SNOWMAN}\x1b]0;PWNED\x07cat"
    write_set(tmp_path / "a.json", ["\N{SNOWMAN}.png", "b.png"], label=name)
    (tmp_path / "b.png").write_bytes(encode(noise(0), "PNG"))
    write = ("--write", tmp_path / "fixed.json")
    code = "import sys; from detfeed.commands.cli import main; sys.exit(main(sys.argv[1:]))"
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


def test_copy_is_written_though_the_report_cannot_be_printed(run, voc, tmp_path, monkeypatch):
    def fail(report):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(check_command, "print_report", fail)
    run("--voc", voc(), "--write", tmp_path / "fixed.json", "--json", tmp_path / "report.json")
    assert (tmp_path / "fixed.json").exists()
    assert (tmp_path / "report.json").exists()


def test_lines_are_neither_wrapped_nor_cut_outside_a_terminal(run, tmp_path, monkeypatch):
    folder = tmp_path / ("long " * 30).strip()
    folder.mkdir()
    write_set(tmp_path / "a.json", [f"{number}.png" for number in range(5)])
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("--coco", tmp_path / "a.json", "--images", folder).stdout.splitlines()
    start = lines.index("error (train) missing-image, 5: image files are missing")
    assert [line.partition(": ")[0] for line in lines[start + 1 : start + 4]] == [
        f"- {folder}/{number}.png" for number in range(3)
    ]
    assert lines[start + 4] == "- ..."
    assert lines[start + 5] == "> add the files, or leave these images out (--write)"


def test_terminal_gets_a_table(run, tmp_path, monkeypatch):
    write_set(tmp_path / "a.json", [f"{number}.png" for number in range(4)])
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in result.stdout.splitlines()]
    start = next(place for place, line in enumerate(lines) if "error (train)" in line)
    for line, texts in zip(
        lines[start:],
        (
            ["│ error (train)", "│     4 │ image files are missing"],
            ["│ missing-image", f"│ - {tmp_path}/0.png: expected"],
            [f"- {tmp_path}/1.png: expected"],
            [f"- {tmp_path}/2.png: expected"],
            ["- ..."],
            ["> add the files"],
        ),
        strict=False,
    ):
        assert all(text in line for text in texts)


def test_classes_of_one_name_are_counted_one_by_one(run, tmp_path):
    write_set(tmp_path / "a.json", ["a.png"], extra_classes=[{"id": 2, "name": "cat"}])
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path)
    assert "1 boxes (0 ignored), 2 classes" in result.stdout


@pytest.mark.parametrize("option", ["--write", "--json"])
def test_file_that_cannot_be_written_is_an_error(run, voc, tmp_path, option):
    result = run("--voc", voc(), option, tmp_path / "none" / "out.json")
    assert result.status == 2
    assert "out.json was not written: No such file or directory" in result.stderr


def test_fast_reads_headers_only(run, voc):
    assert "damaged-image" not in run("--voc", voc(bad=True), "--fast").stdout


def test_voc_folders_may_have_other_names_and_corners_count_from_zero(run, voc):
    root = voc(annotation_dir="annots", image_dir="images")
    arguments = ("--voc", root, "--annotation-dir", "annots", "--image-dir", "images", "--json", "-")
    assert json.loads(run(*arguments).stdout)["data"][0]["images"] == 3
    xml = root / "annots" / "VOC0.xml"
    xml.write_text(xml.read_text().replace("<xmin>5", "<xmin>0"))
    assert run(*arguments).status == 1
    assert run(*arguments, "--zero-based").status == 0


def test_validation_sets_are_compared(run, voc, tmp_path):
    root, other = voc(), voc("other", first=2)
    result = run("--voc", root, "--val-voc", other)
    assert result.status == 1
    assert "leaked-images" in result.stdout
    assert run("--voc", root, "--val-split", "some").status == 1
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
def test_every_format_is_read_with_the_policy_given(run, formats, format):
    whats = []
    for invalid in ("clip", "drop", "ignore"):
        content = json.loads(run(*formats[format], "--invalid", invalid, "--json", "-").stdout)
        assert content["data"][0]["images"] == (1 if format in ("csv", "openimages") else 3)
        (what,) = [each["what"] for each in content["findings"] if each["kind"] == "partly-outside"]
        whats.append(what.partition("; ")[2])
    assert whats == ["clipped to it", "dropped", "made ignore regions"]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_validation_data_of_every_other(run, formats, format):
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


def test_validation_data_takes_over_what_it_does_not_name(run, formats, tmp_path):
    for arguments in (
        (*formats["yolo"], "--split", "val", "--val-split", "train"),
        (*formats["csv"], "--val-csv", tmp_path / "boxes.csv"),
        (*formats["coco"], "--val-coco", tmp_path / "coco.json"),
        (*formats["coco"], "--val-csv", tmp_path / "boxes.csv", "--classes", tmp_path / "classes.csv"),
        (*formats["voc"], "--images", tmp_path / "images", "--val-lvis", tmp_path / "coco.json"),
    ):
        assert "leaked-images" in run(*arguments).stdout


def test_validation_split_of_yolo_is_val_if_none_is_given(run, formats, tmp_path):
    arguments = (*formats["yolo"], "--val-yolo", tmp_path / "data.yaml", "--json", "-")
    sources = [each["source"] for each in json.loads(run(*arguments).stdout)["data"]]
    assert [source.rpartition(" ")[2] for source in sources] == ["(train)", "(val)"]


def test_yolo_starts_from_root_if_it_is_given(run, formats, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data.yaml").rename(tmp_path / "elsewhere" / "data.yaml")
    arguments = ("--yolo", tmp_path / "elsewhere" / "data.yaml")
    assert run(*arguments).status == 2
    assert "train: 3 images" in run(*arguments, "--root", tmp_path).stdout


def test_folders_of_kitti_may_have_other_names(run, formats, tmp_path):
    (tmp_path / "label_2").rename(tmp_path / "texts")
    (tmp_path / "image_2").rename(tmp_path / "pictures")
    assert run(*formats["kitti"]).status == 2
    arguments = (*formats["kitti"], "--annotation-dir", "texts", "--image-dir", "pictures")
    result = run(*arguments, "--write", tmp_path / "fixed.json")
    assert "train: 3 images" in result.stdout
    assert f"its file names start from {tmp_path / 'pictures'}." in result.stderr


def test_how_images_are_fed_and_how_many_threads_look_is_passed_on(run, voc, monkeypatch):
    calls = []

    def note(train, val, **arguments):
        calls.append(arguments)
        return check(train, val, **arguments)

    monkeypatch.setattr(check_command, "check", note)
    root = voc()
    run("--voc", root)
    run("--voc", root, "--short-side", 300)
    run("--voc", root, "--max-side", 900, "--smallest-anchor", 20, "--workers", 3, "--fast")
    for call in calls:
        call.pop("on_progress")
        assert call.pop("image_dirs") == [str(root / "JPEGImages")]
        assert call.pop("max_examples") == 10
    usual = {"resize": ShortSide(800, max_side=1333), "smallest_anchor": 32, "workers": None, "fast": False}
    assert calls[0] == usual
    assert calls[1] == {**usual, "resize": ShortSide(300, max_side=499)}
    assert calls[2] == {"resize": ShortSide(800, max_side=900), "smallest_anchor": 20, "workers": 3, "fast": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "give --coco, --lvis, --voc, --yolo, --csv, --kitti, --openimages, --imagefolder or --ndjson",
        ),
        (("--voc", "a", "--max-side", "700"), "--max-side: expected at least the shorter side, 800, got 700"),
        (("--voc", "a", "--kitti", "b"), "--kitti: expected one data set, got --voc and --kitti; give one"),
        (("--coco", "a"), "--coco: expected --images with it, got none; give the folder"),
        (
            ("--openimages", "a", "--images", "."),
            "--openimages: expected --classes with it, got none; give its file of",
        ),
        (
            ("--voc", "a", "--images", "b"),
            "--images: expected --coco, --lvis, --csv, --openimages or --ndjson with it, got --voc;",
        ),
        (
            ("--voc", "a", "--images", "b", "--val-coco", "c", "--val-images", "d"),
            "--images: expected --coco, --lvis, --csv, --openimages or --ndjson with it, got --voc; leave --images out",
        ),
        (("--coco", "a", "--images", "b", "--classes", "c"), "--classes: expected --csv or --openimages with it, got"),
        (
            ("--coco", "a", "--images", ".", "--val-openimages", "c"),
            "--val-openimages: expected --classes with it, got",
        ),
        (("--coco", "a", "--images", "b"), "--images: expected a folder or URL, got b; there is no such folder"),
        (
            ("--voc", "a", "--val-coco", "b", "--val-images", "c"),
            "--val-images: expected a folder or URL, got c; there is no such folder",
        ),
        (
            ("--voc", "a", "--images", "b", "--val-csv", "c", "--classes", "d"),
            "--images: expected a folder or URL, got b",
        ),
        (
            ("--coco", "a", "--images", "b", "--annotation-dir", "c"),
            "--annotation-dir: expected --voc or --kitti with it, got --coco; leave --annotation-dir out",
        ),
        (("--yolo", "a", "--image-dir", "c"), "--image-dir: expected --voc or --kitti with it, got --yolo"),
        (("--kitti", "a", "--zero-based"), "--zero-based: expected --voc with it, got --kitti"),
        (("--voc", "a", "--root", "c"), "--root: expected --yolo with it, got --voc"),
        (("--voc", "a", "--val-lvis", "b"), "--val-lvis: expected --val-images with it, got none"),
        (
            ("--voc", "a", "--val-lvis", "b", "--val-kitti", "c"),
            "--val-kitti: expected one data set, got --val-lvis and",
        ),
        (("--kitti", "a", "--split", "b"), "--split: expected --voc, --yolo or --ndjson with it, got --kitti"),
        (("--voc", "a", "--val-coco", "b"), "--val-coco: expected --val-images with it, got none"),
        (
            ("--voc", "a", "--val-coco", "b", "--val-split", "c"),
            "--val-split: expected --val-voc, --val-yolo or --val-ndjson with it, got --val-coco",
        ),
        (
            ("--kitti", "a", "--val-split", "c"),
            "--val-split: expected --voc, --yolo or --ndjson with it, got --kitti",
        ),
        (
            ("--kitti", "a", "--val-images", "c"),
            "--val-images: expected --val-coco, --val-lvis, --val-csv, --val-openimages or --val-ndjson with it, got",
        ),
        (("--voc",), "--voc: expected one value, got none; see detfeed check --help"),
        (("--vco", "a"), "--vco: expected an option of detfeed check, got an unknown one; did you mean --voc?"),
        (
            ("--voc", "a", "--xyz=1"),
            "--xyz: expected an option of detfeed check, got an unknown one; see detfeed check",
        ),
        (("--voc", "a", "b"), "expected options, got b; see detfeed check --help"),
        (("--voc", "a", "--invalid", "clpi"), "--invalid: expected clip, drop or ignore, got clpi; did you mean clip?"),
        (("--voc", "a", "--short-side", "0"), "--short-side: expected a whole number of at least 1, got 0"),
        (("--voc", "a", "--workers", "many"), "--workers: expected a whole number of at least 1, got many"),
        (("--voc", "a", "--smallest-anchor", "-1"), "--smallest-anchor: expected a number of at least 0, got -1"),
        (("--voc", "a", "--fast=1"), "--fast: expected no value, got '1'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run, arguments, message):
    assert message in refusal(run(*arguments))


def test_copy_without_images_is_not_written(run, tmp_path):
    write_set(tmp_path / "a.json", ["none.png"])
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--write", tmp_path / "fixed.json")
    assert (result.status, (tmp_path / "fixed.json").exists()) == (2, False)
    assert "fixed.json was not written: no image can be fed" in result.stderr


@pytest.mark.parametrize("option", ["--write", "--json"])
def test_no_file_of_another_kind_is_overwritten(run, voc, option):
    root = voc()
    for path in (root / "JPEGImages" / "VOC0.png", root / "Annotations" / "VOC0.xml"):
        before = path.read_bytes()
        result = run("--voc", root, option, path)
        assert f"{option}: expected a new file or JSON to replace, got {path}" in refusal(result)
        assert path.read_bytes() == before


def test_annotations_of_images_that_are_not_in_a_coco_file_hide_nothing_else(run, tmp_path):
    write_set(tmp_path / "a.json", ["a.png", "b.png"])
    (tmp_path / "a.png").write_bytes(encode(noise(0), "PNG"))
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"] += [{"id": 7 + k, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]} for k in range(2)]
    (tmp_path / "a.json").write_text(json.dumps(content))
    fixed = tmp_path / "fixed.json"
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--write", fixed)
    assert result.status == 1
    assert "missing-image, 2: image files are missing" in result.stdout
    assert "got 9 - at `annotations[2]` (image_id 9), the first of 2" in result.stdout
    assert read_coco(fixed, tmp_path).image_ids.tolist() == [0]


@pytest.mark.parametrize("option", ["--write", "--json"])
@pytest.mark.parametrize("before", [None, "{}"])
def test_full_disk_leaves_no_part_of_a_file_and_what_was_there(run, voc, tmp_path, option, before):
    out = tmp_path / "out.json"
    root = voc()
    if before is not None and option == "--json":
        out.write_text(before)
    with full_disk(after=100):
        result = run("--voc", root, option, out)
    assert result.status == 2
    assert f"{out} was not written: File too large" in result.stderr
    assert out.exists() == (before is not None and option == "--json")
    assert [name for name in os.listdir(tmp_path) if "out.json" in name] == ["out.json"] * out.exists()


def test_images_that_no_annotation_names_are_a_finding_unless_the_other_set_names_them(run, tmp_path):
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(noise(number), "PNG"))
    (tmp_path / "damaged.png").write_bytes(b"nonsense")
    write_set(tmp_path / "a.json", names[:2])
    write_set(tmp_path / "val.json", names[2:])
    arguments = ("--coco", tmp_path / "a.json", "--images", tmp_path, "--short-side", 60)
    result = run(*arguments)
    assert result.status == 1
    assert "warning (train) unnamed-images, 2: " in result.stdout
    assert f"- {tmp_path}/2.png\n- {tmp_path}/3.png\n" in result.stdout
    assert run(*arguments, "--fast").status == 1
    result = run(*arguments, "--val-coco", tmp_path / "val.json")
    assert (result.status, "unnamed" in result.stdout) == (0, False)


def test_images_without_an_xml_file_are_told_once_and_those_of_unreadable_ones_as_such(run, voc):
    root = voc()
    (root / "Annotations" / "VOC0.xml").unlink()
    (root / "Annotations" / "VOC1.xml").write_text("<annotation>")
    result = run("--voc", root)
    assert "warning (train) unnamed-images, 1: " in result.stdout
    assert result.stdout.count("VOC0.png") == 1
    assert "VOC1.png" not in result.stdout
    assert "unnamed-images" not in run("--voc", root, "--split", "some").stdout


def test_json_has_every_example(run, tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(encode(noise(number), "PNG"))
    write_set(tmp_path / "a.json", [f"{number}.png" for number in range(12)], box=(70, 10, 20, 20))
    result = run("--coco", tmp_path / "a.json", "--images", tmp_path, "--json", "-")
    counts = {each["kind"]: (each["count"], len(each["examples"])) for each in json.loads(result.stdout)["findings"]}
    assert counts["partly-outside"] == (12, 12)
    assert all(count == shown for count, shown in counts.values())


def test_copy_lacks_duplicates_and_what_leaks_if_asked_for(run, tmp_path):
    files = {"a": noise(1), "b": noise(1), "c": noise(2), "d": noise(3), "e": noise(4)}
    for name, pixels in files.items():
        (tmp_path / f"{name}.png").write_bytes(encode(pixels, "PNG"))
    for name, pixels in (("d_again", noise(3)), ("c_again", noise(2))):
        (tmp_path / f"{name}.jpg").write_bytes(encode(pixels, "JPEG", quality=70))
    write_set(tmp_path / "a.json", ["a.png", "b.png", "c.png", "c_again.jpg", "d.png", "e.png"])
    write_set(tmp_path / "val.json", ["d_again.jpg"])
    arguments = ("--coco", tmp_path / "a.json", "--images", tmp_path, "--val-coco", tmp_path / "val.json")
    out = tmp_path / "out.json"
    for without, left in (
        ((), "a b c c_again d e"),
        (("identical",), "a c c_again d e"),
        (("similar",), "a b c d e"),
        (("leaked",), "a b c c_again e"),
        (("identical", "similar", "leaked"), "a c e"),
    ):
        options = [option for kind in without for option in ("--without", kind)]
        result = run(*arguments, "--write", out, *options)
        assert [Path(path).stem for path in read_coco(out, tmp_path).paths] == left.split()
        assert (f"without {6 - len(left.split())} {' or '.join(without)} images" in result.stderr) == bool(without)
    assert "--without: expected --write with it" in refusal(run(*arguments, "--without", "leaked"))
    line = refusal(run(*arguments[:4], "--write", out, "--without", "leaked"))
    assert "--without leaked: expected validation data with it" in line


def test_fast_copy_lacks_files_that_stand_in_both_sets(run, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode(noise(number), "PNG"))
    write_set(tmp_path / "a.json", ["0.png", "1.png", "./0.png"])
    write_set(tmp_path / "val.json", ["1.png"])
    arguments = ("--coco", tmp_path / "a.json", "--images", tmp_path, "--val-coco", tmp_path / "val.json", "--fast")
    out = tmp_path / "out.json"
    run(*arguments, "--write", out, "--without", "leaked", "--without", "identical")
    assert len(read_coco(out, tmp_path)) == 1
