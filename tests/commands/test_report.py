import json
import re

import cv2
import numpy as np
import pytest

from detfeed import make_shapes, read_coco, write_results
from detfeed.report import page


@pytest.fixture(autouse=True)
def without_library(monkeypatch):
    """Leave the charts' library out of pages: making it takes seconds."""
    monkeypatch.setattr(page, "chart_library", lambda: "")


@pytest.fixture
def run(detfeed, tmp_path):
    """Run `detfeed report`; its result, and what the page's script draws, if there is a page."""

    def call(*arguments):
        out = tmp_path / "page.html"
        result = detfeed("report", "--out", out, *arguments)
        found = re.search(r'id="data">(.*?)</script>', out.read_text("utf-8"), re.DOTALL) if out.exists() else None
        return result, json.loads(found[1]) if found else None

    return call


@pytest.fixture
def data(tmp_path):
    """Options that name training and validation data, and the validation data."""
    files = {}
    for name, boxes in (("train", [[10, 10, 30, 30]]), ("val", [[10, 10, 30, 30], [5, 6, 0, 10]])):
        folder = tmp_path / name
        folder.mkdir()
        pixels = np.random.default_rng(len(name)).integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / "0.png"), cv2.resize(pixels, (80, 60)))
        files[name] = folder / "a.json"
        content = {
            "images": [{"id": 1, "file_name": "0.png", "height": 60, "width": 80}],
            "categories": [{"id": 3, "name": "cat"}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": 3, "bbox": box} for number, box in enumerate(boxes)
            ],
        }
        files[name].write_text(json.dumps(content))
    options = {f"{prefix}coco": str(files[name]) for prefix, name in (("", "train"), ("val_", "val"))}
    options |= {f"{prefix}images": str(files[name].parent) for prefix, name in (("", "train"), ("val_", "val"))}
    return options


def options_of(settings):
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]


def fed_sizes(script):
    return {tuple(script["pictures"][number]["image"]) for number in script["gallery"]}


@pytest.mark.filterwarnings("ignore::detfeed.BadBoxesWarning")
def make_run(folder, data, **settings):
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(data | settings))
    val = read_coco(data["val_coco"], data["val_images"])
    write_results(folder / "detections.json", val, [np.array([[10, 10, 40, 40.0]])], [np.ones(1)], [np.zeros(1, int)])
    return folder


def test_a_page_is_written_with_the_sizes_and_anchors_asked_for(run, data, tmp_path):
    result, script = run(*options_of(data), "--short-side", 120, "--model", "c4", "--anchor-sizes", 60, "--pictures", 2)
    assert (result.status, result.stderr) == (0, "")
    assert re.fullmatch(rf"wrote {tmp_path}/page\.html, 0\.\d MB: no errors, 1 warning, \d notes\n", result.stdout)
    assert fed_sizes(script) == {(160, 120)}
    assert [script["pictures"][number]["data"] for number in script["gallery"]] == ["train", "val"]


@pytest.mark.filterwarnings("ignore::detfeed.BadBoxesWarning")
def test_a_run_alone_says_which_data_sizes_and_anchors(run, data, tmp_path):
    folder = make_run(tmp_path / "run", data, short_side=90, model="c4", anchor_sizes=[45.0])
    result, script = run("--run", folder)
    assert (result.status, result.stderr) == (0, "")
    assert fed_sizes(script) == {(120, 90)}
    found = [
        shape for number in script["gallery"] for shape in script["pictures"][number]["layers"].get("detections", [])
    ]
    assert [(shape["box"], shape["kind"]) for shape in found] == [([15, 15, 60, 60], "right")]
    ious = [
        shape["text"] for shape in script["pictures"][script["gallery"][0]]["layers"]["positives"] if "box" in shape
    ]
    assert all("level 0" in text for text in ious)


@pytest.mark.filterwarnings("ignore::detfeed.BadBoxesWarning")
def test_a_command_line_replaces_what_a_run_says(run, data, tmp_path):
    folder = make_run(tmp_path / "run", data | {"coco": "/nowhere/a.json"}, short_side=90, max_side=100)
    result, script = run("--run", folder, *options_of(data), "--short-side", 120)
    assert (result.status, result.stderr) == (0, "")
    assert fed_sizes(script) == {(160, 120)}


def test_a_run_on_the_built_in_shapes_finds_them(run, tmp_path):
    for name in ("train", "val"):
        make_shapes(tmp_path / "shapes" / name, num_images=2, image_hw=(96, 128), seed=len(name))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"shapes_dir": str(tmp_path / "shapes"), "coco": None}))
    result, script = run("--run", folder)
    assert (result.status, result.stderr) == (0, "")
    assert fed_sizes(script) <= {(128, 96), (96, 128)}
    assert {script["pictures"][number]["data"] for number in script["gallery"]} == {"train", "val"}


@pytest.mark.filterwarnings("ignore::detfeed.BadBoxesWarning")
@pytest.mark.parametrize("given", [(), ("--anchor-sizes", 60)])
def test_the_check_holds_objects_against_the_smallest_anchor_of_the_run_or_the_command_line(run, data, tmp_path, given):
    folder = make_run(tmp_path / "run", data, model="c4", anchor_sizes=[90.0, 120.0], short_side=60)
    result, _ = run("--run", folder, *given)
    assert result.status == 0
    smallest = given[1] if given else 90
    assert (f"half of the smallest anchor ({smallest} pixels)" in (tmp_path / "page.html").read_text()) == (
        smallest > 2 * 30  # the size of the object
    )


@pytest.mark.filterwarnings("ignore::detfeed.BadBoxesWarning")
def test_other_data_is_fed_at_the_size_of_a_run_on_the_built_in_shapes(run, data, tmp_path):
    folder = make_run(tmp_path / "run", data)
    (folder / "settings.json").write_text(json.dumps({"shapes_dir": str(tmp_path / "shapes"), "coco": None}))
    result, script = run("--run", folder, *options_of(data))
    assert (result.status, result.stderr) == (0, "")
    assert fed_sizes(script) == {(128, 96)}


def test_a_run_on_shapes_that_were_fed_on_one_canvas_is_shown_on_it(run, tmp_path):
    make_shapes(tmp_path / "shapes" / "train", num_images=2, image_hw=(96, 128), seed=0)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"shapes_dir": str(tmp_path / "shapes"), "fixed": [64, 64]}))
    result, script = run("--run", folder)
    assert (result.status, result.stderr) == (0, "")
    assert all(script["pictures"][number]["size"] == [64, 64] for number in script["gallery"])


@pytest.mark.filterwarnings("ignore::detfeed.BadBoxesWarning")
@pytest.mark.parametrize("name", ["coco", "images", "val_coco", "val_images", "shapes_dir"])
def test_a_run_whose_data_is_not_found_says_where_to_start_the_command(run, data, tmp_path, monkeypatch, name):
    folder = make_run(tmp_path / "run", data)
    monkeypatch.chdir(tmp_path)
    settings = dict.fromkeys(data) if name == "shapes_dir" else data
    (folder / "settings.json").write_text(json.dumps(settings | {name: "elsewhere/it"}))
    result, script = run("--run", folder)
    assert (result.status, script) == (1, None)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(
        f"detfeed report: {folder}/settings.json: expected paths of the run's data, got elsewhere/it"
    )
    assert f"nothing is from {tmp_path} on; start the command in the folder where the training was" in result.stderr
    (folder / "settings.json").write_text(json.dumps(settings | {name: "/elsewhere/it"}))
    result, _ = run("--run", folder)
    assert "where nothing is; give the data with options, such as --coco and --images\n" in result.stderr
    assert run("--run", folder, *options_of(data))[0].status == 0  # what the command line names is there


def test_a_file_that_is_no_page_is_not_overwritten(run, data, tmp_path):
    (tmp_path / "page.html").write_text("precious")
    result, _ = run(*options_of(data))
    assert result.status == 2
    assert result.stderr == (
        f"detfeed report: --out: expected a new file or a page to replace, got {tmp_path}/page.html; "
        "give another name\n"
    )
    assert (tmp_path / "page.html").read_text() == "precious"


def test_a_page_is_replaced_by_the_next(run, data):
    for _ in range(2):
        result, script = run(*options_of(data))
        assert result.status == 0
        assert script is not None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "expected a data set, got none; give --coco"),
        (["--run", "nowhere"], 1, "nowhere: expected the folder of a run, with some of settings.json"),
        (["--coco", "a.json"], 2, "--coco: expected --images with it, got none"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, arguments, status, message):
    result, script = run(*arguments)
    assert (result.status, script) == (status, None)
    assert result.stderr.startswith(f"detfeed report: {message}")
    assert result.stderr.count("\n") == 1


def test_without_the_extra_a_line_says_what_to_install(run, data, monkeypatch):
    monkeypatch.undo()
    page.chart_library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    result, _ = run(*options_of(data))
    assert result.status == 1
    assert "pip install 'detfeed[report]'" in result.stderr
