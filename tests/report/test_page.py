"""The page: what it holds, before any browser looks at it."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from detfeed import AnchorGrid, ShortSide, check, read_coco, write_report
from detfeed import boxes as geometry
from detfeed.report import page

BOX = [10, 10, 30, 30]
SMALL = ShortSide(60)

pytestmark = pytest.mark.usefixtures("without_library")


@pytest.fixture
def write(tmp_path):
    """Write a page; its text and what its script draws."""

    def call(*data, **arguments):
        out = tmp_path / "page.html"
        arguments.setdefault("resize", SMALL)
        report = write_report(out, *data, **arguments)
        text = out.read_text(encoding="utf-8")
        (script,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
        return text, json.loads(script), report

    return call


def shapes_of(script, layer):
    return [shape for number in script["gallery"] for shape in script["pictures"][number]["layers"].get(layer, [])]


def test_every_finding_of_the_check_is_on_the_page(make_set, write):
    read = make_set([[(1, BOX), (1, [5, 5, 0, 10])], [(2, [70, 50, 30, 30])], []])
    text, _, report = write(read)
    expected = check(read, resize=SMALL).findings
    assert [one.kind for one in report.findings] == [one.kind for one in expected]
    assert re.findall(r'data-kind="([\w-]+)"', text) == [one.kind for one in expected]
    plain = html.unescape(text)
    for finding in expected:
        assert finding.what in plain
        assert finding.advice in plain
        assert all(one.detail in plain for one in finding.examples)


def test_a_box_without_area_is_marked_in_its_picture(make_set, write):
    _, script, _ = write(make_set([[(1, BOX)], [(1, BOX), (1, [5, 6, 0, 10])]]), num_images=0)
    marked = [
        (picture["title"], shape["box"])
        for picture in script["pictures"]
        for shape in picture["layers"]["truth"]
        if shape.get("kind") == "marked" and shape["box"][0] == shape["box"][2]
    ]
    assert marked == [("train: image 1", [5, 6, 5, 16])]


def test_images_that_are_the_same_are_shown_side_by_side(make_set, write):
    train, val = make_set([[(1, BOX)]], name="ab"), make_set([[(1, BOX)]], name="ba")  # of one seed
    text, script, _ = write(train, val, num_images=0)
    (pair,) = re.findall(r'class="pair" data-pictures="(\[\d+, \d+\])"', text)
    assert [script["pictures"][number]["title"] for number in json.loads(pair)] == ["val: image 0", "train: image 0"]


def test_hostile_names_stay_text(make_set, write, hostile, tmp_path):
    read = make_set([[(1, BOX), (2, BOX), (3, BOX), (1, [5, 5, 0, 9])]], class_names=hostile)
    text, script, _ = write(read, title=hostile[0])
    assert "</script><script>document" not in text
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert "\u2066" not in text
    assert text.count("<!--") == 0
    shown = " ".join(shape["text"] for shape in shapes_of(script, "truth"))
    assert hostile[0] in shown
    assert "\\u202egnp.\\u2066tac\"'><img src=x" in shown
    assert hostile[2] in shown


def test_a_page_names_nothing_to_fetch(make_set, write):
    text, _, _ = write(make_set([[(1, BOX)]]))
    fetched = re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)([^"'\s>]+)""", text)
    assert [one for one in fetched if not one.startswith("${")] == []
    assert "default-src 'none'" in text


def test_the_gallery_shows_what_is_fed(make_set, write):
    read = make_set([[(1, BOX), (2, [0, 0, 70, 55])]], crowds={(0, (0, 0, 70, 55))})
    _, script, _ = write(read, anchors=AnchorGrid.c4(sizes=(32,), stride=8), resize=ShortSide(120))
    (truth,) = shapes_of(script, "truth")
    assert truth["box"] == [20, 20, 80, 80]  # fed at twice the size of the file
    assert truth["text"].startswith("cat, 60 x 60 px")
    (region,) = shapes_of(script, "ignored")
    assert region["text"].startswith("ignored (crowd): dog")
    (number,) = script["gallery"]
    picture = script["pictures"][number]
    assert (picture["image"], picture["size"]) == ([160, 120], [160, 128])
    positives = [shape for shape in shapes_of(script, "positives") if "box" in shape]
    assert len(positives) == len([shape for shape in shapes_of(script, "positives") if "tie" in shape])
    assert len(positives) + len(shapes_of(script, "negatives")) <= 256
    best = max(float(re.search(r"IoU (\d\.\d+)", shape["text"])[1]) for shape in positives)
    assert f"best IoU {best:.2f}" in truth["text"]


def test_each_positive_anchor_is_tied_to_its_object_and_says_their_iou(make_set, write):
    read = make_set([[(1, BOX), (2, [45, 5, 20, 40]), (1, [20, 35, 40, 20])]])
    _, script, _ = write(read, anchors=AnchorGrid.c4(sizes=(20, 30), stride=8), resize=SMALL)
    objects = {
        ((x0 + x1) / 2, (y0 + y1) / 2): (x0, y0, x1, y1)
        for x0, y0, x1, y1 in (shape["box"] for shape in shapes_of(script, "truth"))
    }
    positives = shapes_of(script, "positives")
    matched = set()
    for tie, anchor in zip(positives[::2], positives[1::2], strict=True):
        x0, y0, x1, y1 = anchor["box"]
        assert tie["tie"][:2] == pytest.approx([(x0 + x1) / 2, (y0 + y1) / 2], abs=0.1)
        truth = objects[tuple(tie["tie"][2:])]
        boxes = np.array([anchor["box"]], np.float32), np.array([truth], np.float32)
        iou = float(re.search(r"IoU (\d\.\d+)", anchor["text"])[1])
        assert iou == pytest.approx(float(geometry.iou(*boxes)[0, 0]), abs=0.006)
        matched.add(truth)
    assert len(matched) == 3


def test_objects_that_no_anchor_matches_are_told_from_others(make_set, write):
    _, script, _ = write(
        make_set([[(1, [0, 0, 20, 20]), (1, [30, 30, 4, 4])]]),
        anchors=AnchorGrid.c4(sizes=(32,), stride=64),
        resize=SMALL,
    )
    kinds = {tuple(shape["box"]): shape.get("kind") for shape in shapes_of(script, "truth")}
    assert kinds[30, 30, 34, 34] == "unmatched"
    assert script["pictures"][script["gallery"][0]]["unmatched"] == list(kinds.values()).count("unmatched")


def test_masks_are_drawn_where_they_are_read(shapes, write, tmp_path):
    def read():
        return read_coco(shapes.source, Path(shapes.source).parent / "images", masks=True).select(range(4))

    _, script, _ = write(read, resize=ShortSide(96), num_images=4)
    masks, objects = shapes_of(script, "masks"), shapes_of(script, "truth")
    assert len(masks) == len(objects) > 0
    assert all(shape["path"].startswith("M") for shape in masks)


def test_a_run_shows_the_class_learned_worst_and_the_worst_image(make_set, make_run, write):
    train = make_set([[(1, BOX), (2, BOX)]] * 2, name="t")
    val = make_set([[(1, BOX)], [(1, BOX), (2, [45, 20, 20, 20])]], name="v")
    right = ([10, 10, 40, 40], 0.75, 0)
    run = make_run(val(), [[right], [right, ([0, 0, 9, 9], 0.875, 0)]])
    text, script, _ = write(train, val, run=run)
    assert "dog is learned worst: AP 0.000, against" in text
    (number,) = [i for i, one in enumerate(script["pictures"]) if "missed" in one["title"]]
    worst = script["pictures"][number]
    assert worst["title"] == "image 1: 1 missed, 1 wrong"
    verdicts = {shape["text"] for shape in worst["layers"]["truth"]}
    assert verdicts == {"cat: found", "dog: missed"}
    found = {shape["text"]: shape["kind"] for shape in worst["layers"]["detections"]}
    assert found == {
        "cat, score 0.75: right": "right",
        "cat, score 0.88: wrong, no object left there": "wrong",
    }
    assert {one["title"] for one in script["charts"].values()} >= {
        "Losses",
        "Scores",
        "Precision and recall at IoU 0.5",
        "Confusion of classes",
    }
    fed = [shape for shape in shapes_of(script, "detections") if shape["kind"] == "right"]
    assert [shape["box"] for shape in fed] == [[10, 10, 40, 40]] * 2


CLASSES = ("bird", "cat", "dog", "fox")
AP50, TRAINED, SCORED, FOUND, MISSED, NO_OBJECT = range(1, 7)  # columns of the table of classes, behind the AP


def rows_of_classes(text):
    """The table of a run's classes: of each, the numbers in its columns, and what it is most often taken for."""
    found = {}
    for name, columns in re.findall(r'<td class="wide">(\w+)</td>(<td class="number">.*?)</tr>', text):
        *numbers, mistaken = re.findall("<td.*?>(.*?)</td>", columns)
        found[name] = [float(number) for number in numbers], mistaken
    return found


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("of_val", [("bird", "cat", "dog", "fox"), ("fox", "dog", "cat"), ("dog", "cat"), ("cat",)])
def test_classes_of_a_run_are_told_by_name_whatever_validation_data_lacks(make_set, make_run, write, of_val, says):
    # Of each class as many objects to train on as its place in the names.
    train = make_set([[(n, BOX)] for n in range(1, 5) for _ in range(n)], class_names=CLASSES, name="train")
    val = make_set([[(n, BOX)] for n in range(1, 1 + len(of_val))], class_names=of_val, name="val")
    as_scored = val().with_classes(CLASSES)
    # Each object is found, as its class but for the cat, which is taken for a bird; and a fox is seen beside each.
    ids = [CLASSES.index("bird" if name == "cat" else name) for name in of_val]
    away = ([50, 0, 60, 10], 0.875, CLASSES.index("fox"))
    run = make_run(as_scored, [[([10, 10, 40, 40], 0.75, class_id), away] for class_id in ids])
    if says:
        (run / "detector.json").write_text(json.dumps({"class_names": CLASSES}))
    text, script, _ = write(train, val, run=run)
    rows = rows_of_classes(text)
    assert sorted(rows) == sorted(of_val)
    for name, (numbers, mistaken) in rows.items():
        assert numbers[AP50] == pytest.approx({"cat": 0, "dog": 1}.get(name, numbers[AP50]))
        assert numbers[TRAINED] == 1 + CLASSES.index(name)
        assert (numbers[SCORED], numbers[FOUND], numbers[MISSED]) == (1, int(name != "cat"), 0)
        assert numbers[NO_OBJECT] == (len(of_val) if name == "fox" else 0)
        assert mistaken == ("bird (1)" if name == "cat" else "")
    told = sorted(shape["text"].partition(",")[0] for shape in shapes_of(script, "detections"))
    assert told == sorted(["fox"] * len(of_val) + ["bird" if name == "cat" else name for name in of_val])


def test_classes_that_validation_data_alone_has_are_missed_and_a_page_is_written(make_set, make_run, write):
    train = make_set([[(1, BOX)]], class_names=("cat",), name="train")
    val = make_set([[(1, BOX), (2, BOX)]], class_names=("dog", "cat"), name="val")
    run = make_run(val(), [[([10, 10, 40, 40], 0.75, 1)]])
    (run / "detector.json").write_text(json.dumps({"class_names": ["cat"]}))
    rows = rows_of_classes(write(train, val, run=run)[0])
    assert {name: (numbers[TRAINED], numbers[FOUND]) for name, (numbers, _) in rows.items()} == {
        "cat": (1, 1),
        "dog": (0, 0),
    }


def test_the_gallery_chooses_images_of_a_class_by_its_name_in_all_data(make_set, write):
    train = make_set([[(1, BOX)], [(2, BOX)]], class_names=("cat", "dog"), name="train")
    val = make_set([[(1, BOX)], [(2, BOX)], [(3, BOX)]], class_names=("dog", "emu", "cat"), name="val")
    text, script, _ = write(train, val)
    choices = re.findall(r'<option value="(\d+)">(.*?)</option>', text.partition('id="choose-class"')[2])
    assert [name for _, name in choices] == ["cat", "dog", "emu"]
    name_of = {int(number): name for number, name in choices}
    for number in script["gallery"]:
        picture = script["pictures"][number]
        drawn = {shape["text"].partition(",")[0] for shape in picture["layers"]["truth"]}
        assert {name_of[one] for one in picture["classes"]} == drawn


@pytest.mark.parametrize("sizes", [(20,), (45, 90), (150,)])
def test_objects_are_held_against_the_smallest_anchor_of_the_page(make_set, write, sizes):
    read = make_set([[(1, [1, 1, side, side]) for side in (6, 9, 11, 20, 24, 50)]])
    anchors = AnchorGrid.c4(sizes=sizes, ratios=(0.5, 1, 2))
    _, _, report = write(read, anchors=anchors, num_images=0)
    kind = "fed-below-half-an-anchor"
    (one,) = (one for one in report.findings if one.kind == kind)
    (other,) = (one for one in check(read, resize=SMALL, smallest_anchor=sizes[0]).findings if one.kind == kind)
    assert one == other
    assert f"half of the smallest anchor ({sizes[0]} pixels)" in one.what


def test_a_run_without_validation_data_says_what_is_missing(make_set, make_run, write):
    read = make_set([[(1, BOX)]])
    text, _, _ = write(read, run=make_run(read(), [[]]))
    assert "shows no detections of this run: there is no validation data" in text
    assert "nan" in text  # AP_small of metrics.json


def test_data_that_can_not_be_read_is_a_finding_on_a_page(tmp_path, write):
    (tmp_path / "a.json").write_text("{")
    text, script, report = write(lambda: read_coco(tmp_path / "a.json", tmp_path))
    assert report.status == 2
    assert 'data-kind="unreadable"' in text
    assert script["gallery"] == []


def test_a_run_is_shown_though_its_training_data_can_not_be_read(make_set, make_run, write, tmp_path):
    (tmp_path / "a.json").write_text("{")
    val = make_set([[(1, BOX)]])
    run = make_run(val(), [[([10, 10, 40, 40], 0.75, 0)]])
    text, script, _ = write(lambda: read_coco(tmp_path / "a.json", tmp_path), val, run=run)
    assert "cat is learned worst: AP 1.000." in text
    assert [shape["kind"] for shape in shapes_of(script, "detections")] == ["right"]


def test_damaged_images_are_left_out_of_the_gallery(make_set, write, tmp_path):
    read = make_set([[(1, BOX)], [(1, BOX)]])
    data = (tmp_path / "set" / "1.png").read_bytes()
    (tmp_path / "set" / "1.png").write_bytes(data[: len(data) // 2])
    for fast in (False, True):
        _, script, _ = write(read, fast=fast)
        assert [script["pictures"][number]["title"] for number in script["gallery"]] == ["train: image 0"]


def test_a_set_without_objects_has_a_page(make_set, write):
    text, script, _ = write(make_set([[], []]))
    assert len(script["gallery"]) == 2
    assert script["charts"] == {}
    assert 'data-kind="no-objects"' in text


def test_no_pictures_are_no_gallery(make_set, write):
    text, script, _ = write(make_set([[(1, BOX)] * 1]), num_images=0)
    assert script["gallery"] == []
    assert 'id="gallery"' not in text


@pytest.mark.parametrize("augment", [None, "flip"])
def test_the_stages_of_the_feed_are_timed_when_asked(make_set, write, augment):
    _, script, _ = write(make_set([[(1, BOX)]] * 3), augment=augment, num_timed=2)
    stages = {row["stage"]: row["ms"] for row in script["charts"]["speed"]["spec"]["data"]["values"]}
    augmented = ["augment"] if augment else []
    assert list(stages) == ["read the file", "decode", "resize and place", *augmented, "targets"]
    assert min(stages.values()) >= 0
    assert stages["decode"] > 0


def test_many_noisy_images_keep_a_page_small(annotate, write):
    noise = annotate([(400, 500)] * 10, [[[10, 10, 30, 30]]] * 10, suffix=".jpg")
    text, script, _ = write(noise, noise, resize=ShortSide(480), num_images=10)
    large, small = len(script["gallery"]), len(script["pictures"]) - len(script["gallery"])
    assert (large, small > 0) == (15, True)
    assert len(text) < 1e5 + 4 / 3 * (large * 48_000 + small * 14_000) + 20_000 * large
    # The most that a page of the defaults shows: the gallery, the worst images, and pictures of 30 kinds of findings.
    most = 5 * (page.PICTURES + page.VAL_PICTURES) // 4 + 24
    assert 4 / 3 * (most * 48_000 + 30 * 6 * 14_000) + 20_000 * most + 1e6 < 15e6


def test_numbers_below_zero_are_refused(make_set, write):
    with pytest.raises(ValueError, match=r"num_images and num_timed to be at least 0\. Received: -1 and 0"):
        write(make_set([[(1, BOX)]]), num_images=-1)


def test_without_the_extra_an_error_says_what_to_install(make_set, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    page.chart_library.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"vl_convert to be installed: pip install 'detfeed\[report\]'"):
        write_report(tmp_path / "page.html", make_set([[(1, BOX)]]))


def test_a_page_is_replaced_only_when_the_new_one_is_whole(make_set, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("before")
    read = make_set([[(1, BOX)]])
    with pytest.raises(Exception, match="expected the folder of a run"):
        write_report(out, read, run=tmp_path / "nothing")
    assert out.read_text() == "before"
