import json
import warnings
from functools import partial

import pytest

from detfeed import check, read_coco, read_lvis
from detfeed.readers.ignored_classes import mostly_ignored

NAMES = ("cat", "dog", "cow", "DontCare")


def write(folder, flags, *, width=30):
    """Write a file of an image whose boxes have the classes and flags given, such as ("cat", {"iscrowd": 1})."""
    annotations = [
        {
            "id": row + 1,
            "image_id": 1,
            "category_id": NAMES.index(name) + 1,
            "bbox": [row, 0, 5, 5],
            "area": 25,
            "segmentation": [],
            **flag,
        }
        for row, (name, flag) in enumerate(flags)
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 20, "width": width}]
    categories = [{"id": row + 1, "name": name} for row, name in enumerate(NAMES)]
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


@pytest.fixture(params=[read_coco, read_lvis])
def read(request, tmp_path):
    """A function that writes boxes, and reads them to the table and the warnings."""

    def write_and_read(flags, **arguments):
        write(tmp_path, flags)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            table = request.param(tmp_path / "a.json", tmp_path, **arguments)
        assert {one.filename for one in warned} <= {__file__}
        return table, [str(one.message) for one in warned]

    return write_and_read


CROWD, MARKED = {"iscrowd": 1}, {"ignore": 1}


def test_without_boxes_and_where_as_much_is_learned_as_ignored_nothing_is_said(read):
    for flags in ([], [("cat", {})], [("cat", CROWD), ("cat", {})], [("DontCare", CROWD)]):
        table, told = read(flags)
        assert (told, mostly_ignored(table)) == ([], [])


def test_classes_of_which_more_is_ignored_than_learned_are_one_warning_that_names_them(read, tmp_path):
    table, told = read([("dog", {}), ("cat", CROWD), ("cow", MARKED), ("cow", {}), ("cow", CROWD)])
    assert told == [
        f"{tmp_path / 'a.json'}: classes have more ignored boxes than objects: 'cat' (1 of 1), 'cow' (2 of 3); they "
        "are learned neither as objects nor as background; if iscrowd does not mean crowds, as CVAT writes it for each "
        f'mask, read with crowds="object" - at box 1 of image 1 ({tmp_path / "a.png"})'
    ]
    assert mostly_ignored(table) == [(0, 0, 1), (2, 1, 2)]


def test_advice_is_that_which_helps(read):
    _, (told,) = read([("cat", MARKED)])
    assert "'cat' (1 of 1)" in told
    assert "crowds=" not in told


def test_crowds_that_are_asked_for_as_objects_are_no_warning(read):
    assert read([("cat", CROWD), ("cow", MARKED)], crowds="object")[1] == []


def test_of_many_classes_the_first_are_named(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": n, "bbox": [n, 0, 5, 5], "iscrowd": 1} for n in range(1, 8)
        ],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, 8)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"'class 1' \(1 of 1\), .*'class 5' \(1 of 1\) and 2 more; "):
        read_coco(tmp_path / "a.json", tmp_path)


def test_boxes_that_the_policy_makes_ignored_count_as_the_table_has_them(read):
    far = {"bbox": [10, 10, 50, 5]}
    assert read([("cat", {}), ("cat", far)])[1][1:] == []
    _, told = read([("cat", far)], invalid="ignore")
    assert [("made ignore regions" in one, "more ignored boxes" in one) for one in told] == [
        (True, False),
        (False, True),
    ]


def test_check_says_it_once(tmp_path):
    write(tmp_path, [("cat", CROWD)])
    report = check(partial(read_coco, tmp_path / "a.json", tmp_path))
    kinds = [finding.kind for finding in report.findings]
    assert kinds.count("mostly-ignored-class") == 1
    assert "read-otherwise" not in kinds
