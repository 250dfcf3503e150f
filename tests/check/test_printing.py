from functools import partial

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


def test_report_of_a_clean_set_is_two_lines(coco, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    print_report(check(coco()))
    assert capsys.readouterr().out.splitlines() == [
        "train: 1 images, 10 boxes of which 0 ignored, 1 classes, from set/a.json; objects are fed 533 to 533 pixels "
        "large, half of them under 533",
        "nothing to report",
    ]


def test_place_of_a_box_is_that_in_the_file_for_bad_boxes_and_among_those_kept_for_others(coco, tmp_path, capsys):
    coco([(encode(noise(0), "PNG"), [[70, 10, 20, 20], [-5, 5, 0, 9], BOX, [10, 10, 1, 40]])])
    print_report(check(partial(read_coco, tmp_path / "set" / "a.json", tmp_path / "set")))
    lines = capsys.readouterr().out
    assert "0.png: [70, 10, 90, 30], `annotations[0].bbox` (image_id 0)\n" in lines
    assert "0.png, box 2 of those kept: [10, 10, 11, 50]\n" in lines
