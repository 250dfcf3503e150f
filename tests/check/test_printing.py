import dataclasses
from functools import partial

import numpy as np
import pytest

from detfeed import check, read_coco
from detfeed.check.printing import count_files, print_report, printable, say
from image_files import encode, noise
from reports import BOX


def test_control_characters_are_escaped_and_letters_stay():
    assert printable("a\nb\x1b[31m\N{SNOWMAN}é 日") == r"a\nb\x1b[31m☃é 日"


def test_messages_are_one_line_on_stderr(capsys):
    say("[bold]a\nb[/bold] " + 200 * "c")
    assert capsys.readouterr() == ("", "[bold]a\\nb[/bold] " + 200 * "c" + "\n")


def test_files_are_counted_in_words():
    assert [count_files(1), count_files(2)] == ["1 file", "2 files"]


def test_report_of_a_clean_set_is_three_lines(coco, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    print_report(check(coco()))
    assert capsys.readouterr().out.splitlines() == [
        f"train: 1 images, 10 boxes (0 ignored), 1 classes, from {tmp_path}/set/a.json; objects are fed 533 to 533 "
        "pixels large, half of them under 533",
        "  objects: cat 10",
        "verdict: no findings: it can be trained on",
    ]


@pytest.mark.parametrize("classes", [1, 2, 10, 11, 30])
def test_the_most_frequent_classes_are_named_with_their_objects(annotate, capsys, classes):
    counts = np.random.default_rng(classes).permutation(np.arange(1, classes + 1))
    class_ids = np.repeat(np.arange(classes), counts)
    boxes = [[[0, 0, 10, 10]] * len(class_ids)]
    names = tuple(f"class {number}\n" for number in range(classes))
    columns = {"class_ids": class_ids.astype(np.int32), "class_names": names, "category_ids": np.arange(classes) + 1}
    print_report(check(dataclasses.replace(annotate([(60, 80)], boxes), **columns), fast=True))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  objects: ")]
    expected = [f"class {class_id}\\n {counts[class_id]}" for class_id in np.argsort(-counts)]
    assert line == f"  objects: {', '.join([*expected[:10], *['...'] * (classes > 10)])}"


def test_place_of_a_box_is_that_in_the_file_for_bad_boxes_and_among_those_kept_for_others(coco, tmp_path, capsys):
    coco([(encode(noise(0), "PNG"), [[70, 10, 20, 20], [-5, 5, 0, 9], BOX, [10, 10, 1, 40]])])
    print_report(check(partial(read_coco, tmp_path / "set" / "a.json", tmp_path / "set")))
    lines = capsys.readouterr().out
    assert "0.png: [70, 10, 90, 30], `annotations[0].bbox` (image_id 0)\n" in lines
    assert "0.png, box 2 (as read, counted from 0): [10, 10, 11, 50]\n" in lines


def test_verdict_is_the_last_line_and_goes_by_the_worst_finding(coco, tmp_path, capsys):
    box = [[x, 5, 40, 40] for x in range(10)]
    cases = (
        ([(encode(noise(0), "PNG"), box), (encode(noise(1), "PNG"), [])], "verdict: 1 note: it can be trained on"),
        ([(encode(noise(0), "PNG"), box)] * 2, "verdict: 1 warning: it can be trained on, but"),
        ([(encode(noise(0), "PNG"), box), (None, box)], "verdict: 1 error: training would stop"),
    )
    for number, (images, verdict) in enumerate(cases):
        print_report(check(coco(images, name=f"set{number}")))
        assert capsys.readouterr().out.splitlines()[-1].startswith(verdict)
    print_report(check(partial(read_coco, tmp_path / "none.json", tmp_path)))
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: 1 error: the annotations can't be read"


def test_no_advice_is_given_where_there_is_nothing_to_do(coco, capsys):
    images = [(encode(noise(0), "PNG"), [[x, 5, 40, 40] for x in range(10)])]
    print_report(check(coco([*images, (encode(noise(1), "PNG"), [BOX])], fields={"ignore": 1})))
    lines = capsys.readouterr().out.splitlines()
    (place,) = (row for row, line in enumerate(lines) if line.startswith("note (train) ignored-boxes"))
    following = next(line for line in lines[place + 1 :] if not line.startswith("- "))
    assert not following.startswith(">")
