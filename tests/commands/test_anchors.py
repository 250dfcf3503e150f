"""`detfeed anchors` prints how well anchors fit, and anchors that fit better, in words that can be pasted."""

import json
import re
from pathlib import Path

import pytest

from detfeed import AnchorGrid, AnchorTargets, Fixed, ShortSide, anchor_coverage, suggest_anchors
from detfeed.coverage import anchor_search

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def few_objects(monkeypatch):
    monkeypatch.setattr(anchor_search, "NUM_OBJECTS", 300)


@pytest.fixture
def run(detfeed, shapes):
    given = ("--coco", shapes.source, "--images", Path(shapes.source).parent / "images")
    return lambda *arguments: detfeed("anchors", *given, *arguments)


def test_all_that_is_printed_is_what_coverage_says(run, shapes):
    result = run("--short-side", 96)
    assert (result.status, result.stderr) == (0, "")
    coverage = anchor_coverage(shapes, AnchorGrid.fpn(), resize=ShortSide(96, max_side=159))
    rows = {cells[0]: cells[1:] for line in result.stdout.splitlines() if len(cells := cells_of(line)) == 6}
    assert rows["all"][0] == str(len(coverage.rows))
    for group in (coverage.all, *coverage.by_size(), *coverage.by_ratio(), *coverage.by_class()):
        if group.count:
            assert rows[group.name][:2] == [str(group.count), f"{group.median_iou:.2f}"]
    bars = {cells[0]: cells[1] for line in result.stdout.splitlines() if len(cells := cells_of(line)) in (3, 4)}
    counts = coverage.histogram()
    assert bars["0.5 to 0.6"] == str(counts[5])
    verdict = result.stdout.splitlines()[-1]
    assert verdict.startswith("verdict: ") and verdict.endswith("--suggest looks for better ones")
    assert f"an image has {coverage.num_positive.mean():.1f} positive anchors" in result.stdout


def cells_of(line):
    return [cell.strip() for cell in re.split("[│┃]", line) if cell.strip()]


def test_what_is_suggested_can_be_pasted(run, shapes):
    result = run("--short-side", 96, "--model", "c4", "--suggest", "--json", "-")
    suggestion = json.loads(result.stdout)["suggestion"]
    found = suggest_anchors(shapes, AnchorGrid.c4(), resize=ShortSide(96, max_side=159))
    assert suggestion["better"] and suggestion["python"] == found.python
    assert eval(suggestion["python"], {"AnchorGrid": AnchorGrid}) == found.anchors
    printed = run("--short-side", 96, "--model", "c4", "--suggest")
    *_, verdict, python, options = printed.stdout.splitlines()
    assert verdict.startswith("verdict: ") and verdict.endswith(" with")
    assert (python.strip(), options.strip()) == (found.python, found.options)
    again = run("--short-side", 96, "--model", "c4", *options.split(), "--json", "-")
    assert json.loads(again.stdout)["train"]["anchors"]["cell_sizes_wh"] == [
        [list(size) for size in level] for level in found.anchors.cell_sizes_wh
    ]
    assert "read train: 24 images" in again.stderr


def test_validation_data_is_looked_at_and_checked_on(run, shapes, tmp_path):
    validation = ("--val-coco", shapes.source, "--val-images", Path(shapes.source).parent / "images")
    result = run(*validation, "--fixed", 64, 80, "--suggest", "--json", tmp_path / "report.json")
    assert result.status == 0
    assert "checked on 24 images; it was fitted to 24 others" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["train"] == report["val"]
    assert report["train"] == anchor_coverage(shapes, AnchorGrid.fpn(), resize=Fixed((64, 80))).to_dict()


def test_options_of_the_feed_reach_it(run, shapes):
    result = run(
        *("--short-side", 96, "--augment", "flip", "--at-most", 5, "--seed", 3, "--positive-iou", 0.5, "--json", "-")
    )
    report = json.loads(result.stdout)["train"]
    targets = AnchorTargets(AnchorGrid.fpn(), positive_iou=0.5)
    feed = {"resize": ShortSide(96, max_side=159), "augment": "flip", "max_images": 5, "seed": 3}
    assert report == anchor_coverage(shapes, targets, **feed).to_dict()


def test_a_set_without_objects_is_no_failure(detfeed, shapes, tmp_path):
    content = json.loads(Path(shapes.source).read_text())
    (tmp_path / "empty.json").write_text(json.dumps({**content, "annotations": []}))
    given = ("--coco", tmp_path / "empty.json", "--images", Path(shapes.source).parent / "images")
    result = detfeed("anchors", *given, "--short-side", 96, "--suggest")
    assert result.status == 0
    assert "verdict: no objects, so any anchors do" in result.stdout
    assert "anchors: none are suggested" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--anchor-sizes", 8, 16], "--anchor-sizes: expected as many for each of the 5 levels of fpn, got 2; give 5"),
        (["--negative-iou", 0.8], "--negative-iou: expected at most the IoU of a positive, 0.7, got 0.8"),
        (["--fixed", 64, 64, "--short-side", 64], "--fixed: expected no --short-side with it, got both"),
        (["--model", "c4", "--anchor-sizes", 0.5], "--anchor-sizes: AnchorGrid expects sizes that rounding leaves"),
        (["--anchor-ratios", 0], "--anchor-ratios: expected a number above 0, got 0"),
    ],
)
def test_wrong_arguments_are_one_line(run, arguments, said):
    result = run(*arguments)
    assert result.status == 2
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_a_report_that_cannot_be_written_ends_with_1(run, tmp_path):
    result = run("--short-side", 96, "--json", tmp_path / "absent" / "report.json")
    assert result.status == 1
    assert "report.json was not written" in result.stderr


def test_commands_of_the_manual_are_understood(detfeed):
    from detfeed.commands.anchors import add_anchors
    from detfeed.commands.parser import Parser

    commands = re.findall(r"detfeed (anchors --.*)", (ROOT / "docs" / "anchors.md").read_text())
    assert commands
    parser = Parser()
    add_anchors(parser.add_subparsers())
    for command in commands:
        parser.parse_args(command.split())


@pytest.mark.parametrize(("folder", "short_side"), [("bccd", 240), ("voc/VOC2007", 600)])
def test_real_data_gets_better_anchors_on_images_that_were_not_fitted_to(
    data, detfeed, monkeypatch, folder, short_side
):
    monkeypatch.setattr(anchor_search, "NUM_OBJECTS", 4000)
    options = ("--short-side", short_side, "--model", "c4", "--suggest", "--json", "-")
    result = detfeed("anchors", "--voc", data / folder, *options)
    suggestion = json.loads(result.stdout)["suggestion"]
    assert suggestion["better"]
    assert suggestion["after"]["all"]["positive"] > suggestion["before"]["all"]["positive"] + 0.05
