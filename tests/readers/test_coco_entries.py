import json

import msgspec
import pytest

from detfeed import AnnotationError, read_coco
from detfeed.readers.coco_entries import (
    ENTRY,
    IMAGE,
    Box,
    Category,
    CocoFile,
    ImageEntry,
    decode_content,
    decode_entries,
    quote_nan,
)

BOX = {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}
IMAGE_ENTRY = {"id": 7, "file_name": "a.png", "height": 40, "width": 60}


def decode(entry, form, field):
    text = json.dumps([entry]).encode()
    return decode_entries(msgspec.json.decode(text, type=list[msgspec.Raw]), form, field)


def test_empty_list_is_ordinary():
    assert decode_entries([], Box, "annotations") == ([], [], [])
    content = decode_content(b'{"images": [], "annotations": [], "categories": []}', CocoFile)
    assert [list(found.entries) for found in content] == [[], [], []]


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("category_id", "2", 2),
        ("category_id", "2.0", 2),
        ("category_id", 2.0, 2),
        ("image_id", 7.0, 7),
        ("image_id", "7", "7"),
        ("id", 1.0, 1),
        ("id", [1], None),
        ("bbox", ["1", "2.5", 3, "4e0"], (1, 2.5, 3, 4)),
        ("bbox", "[1, 2, 3, 4]", (1, 2, 3, 4)),
        ("area", "12.5", 12.5),
        ("area", "", None),
        *((flag, text, 0) for flag in ("iscrowd", "ignore") for text in (None, False, "", "0", 0.0, "false", "None")),
        *((flag, text, 1) for flag in ("iscrowd", "ignore") for text in (True, "1", 1.0, "true")),
    ],
)
def test_values_of_another_type_are_read_where_their_meaning_is_clear(field, value, read):
    found = decode({**BOX, field: value, "segmentation": [[1, 2]]}, Box, "annotations")
    assert found.faults == []
    assert getattr(found.entries[0], field) == read
    assert bytes(found.entries[0].segmentation) == b"[[1, 2]]"


@pytest.mark.parametrize(
    ("field", "text", "effect"),
    [
        ("bbox", '{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "bbox": [1, 2, 3, 5]}', ENTRY),
        ("category_id", '{"category_id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}', IMAGE),
        ("image_id", '{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "x": {}, "image_id": 8}', IMAGE),
    ],
)
def test_key_that_stands_twice_with_different_values_is_a_fault(field, text, effect):
    found = decode_entries([msgspec.Raw(text.encode())], Box, "annotations")
    assert (found.entries, [fault.effect for fault in found.faults]) == ([], [effect])
    assert found.faults[0].message.startswith(f"expected one `{field}`, got several in {{")
    assert "at `annotations[0]`" in found.faults[0].message


@pytest.mark.parametrize(
    "text",
    [
        '{"image_id": 7, "category_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4], "bbox": [1.0, 2, 3, 4]}',
        '{"image_id": 7, "category_id": 2, "attributes": {"bbox": 1, "bbox": 2}, "bbox": [1, 2, 3, 4]}',
        '{"image_id": 7, "category_id": 2, "type": "bbox", "note": ["bbox", "\\"bbox\\""], "bbox": [1, 2, 3, 4]}',
        '{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "color": 1, "color": 2}',
    ],
)
def test_keys_that_stand_twice_and_mean_one_thing_are_none(text):
    assert decode_entries([msgspec.Raw(text.encode())], Box, "annotations") == ([Box(7, 2, (1, 2, 3, 4))], [0], [])


@pytest.mark.parametrize("segmentation", [None, {}, [], [[]], "", 0])
def test_segmentation_may_be_anything(segmentation):
    assert decode({**BOX, "iscrowd": None, "segmentation": segmentation}, Box, "annotations").faults == []


@pytest.mark.parametrize("value", [None, "", 0, -1, "0", "-1", "None", -1.0, "null", False])
def test_side_that_is_not_known_is_zero(value):
    assert decode({**IMAGE_ENTRY, "height": value}, ImageEntry, "images").entries[0].height == 0
    assert decode({"id": 7, "file_name": "a.png"}, ImageEntry, "images").entries[0].width == 0


@pytest.mark.parametrize(("value", "side"), [(40.0, 40), ("40", 40), ("40.0", 40)])
def test_side_may_be_a_float_or_a_text(value, side):
    assert decode({**IMAGE_ENTRY, "height": value}, ImageEntry, "images").entries[0].height == side


def test_categories_may_have_ids_that_are_texts_and_names_that_are_numbers():
    assert decode({"id": "3", "name": 5}, Category, "categories").entries == [Category(3, "5")]


@pytest.mark.parametrize(
    ("entry", "effect", "message"),
    [
        (BOX | {"bbox": []}, ENTRY, "expected `array` of length 4, got [] - at `annotations[0].bbox` (image_id 7)"),
        (BOX | {"bbox": None}, ENTRY, "expected `array`, got null - at `annotations[0].bbox` (image_id 7)"),
        (BOX | {"bbox": [1, "", 3, 4]}, ENTRY, 'got "" - at `annotations[0].bbox[1]` (image_id 7)'),
        (BOX | {"bbox": ["1,5", 2, 3, 4]}, ENTRY, 'got "1,5" - at `annotations[0].bbox[0]` (image_id 7)'),
        (BOX | {"bbox": {"x": 1}}, ENTRY, 'got {"x":1} - at `annotations[0].bbox` (image_id 7)'),
        (BOX | {"bbox": [1, "NaN", 3, 4]}, ENTRY, "got NaN - at `annotations[0].bbox[1]` (image_id 7)"),
        ({"image_id": 7, "category_id": 2}, ENTRY, "required field `bbox` in"),
        (BOX | {"category_id": "cat"}, IMAGE, 'got "cat" - at `annotations[0].category_id` (image_id 7)'),
        ({"image_id": 7, "bbox": [1, 2, 3, 4]}, IMAGE, "required field `category_id` in"),
        (BOX | {"iscrowd": [1]}, IMAGE, "got [1] - at `annotations[0].iscrowd` (image_id 7)"),
        ({"category_id": 7, "bbox": [1, 2, 3, 4]}, ENTRY, "required field `image_id` in"),
        (BOX | {"image_id": 10**30}, ENTRY, "`annotations[0].image_id`"),
        (None, ENTRY, "expected `object`, got null - at `annotations[0]`"),
        ([1], ENTRY, "expected `object`, got [1] - at `annotations[0]`"),
    ],
)
def test_entry_that_cannot_be_read_is_a_fault_with_its_place(entry, effect, message):
    (fault,) = decode(entry, Box, "annotations").faults
    assert message in fault.message
    assert (fault.row, fault.effect) == (0, effect)


def test_numbers_that_json_does_not_know_become_texts_outside_of_texts():
    text = rb'[NaN, -Infinity, Infinity, "NaN, \"NaN", "a", {"Infinity": NaN}]'
    assert json.loads(quote_nan(text)) == ["NaN", "-Infinity", "Infinity", 'NaN, "NaN', "a", {"Infinity": "NaN"}]


@pytest.mark.parametrize(
    ("old", "new", "message", "left"),
    [
        (
            '"category_id": 2',
            '"category_id": 2, "category_id": 1',
            r"one `category_id`, got several .*annotations\[0\]",
            0,
        ),
        ('"bbox": [1,', '"bbox": [2, 2, 3, 4], "bbox": [1,', r"one `bbox`, got several .* - at `annotations\[0\]`", 1),
        ('"file_name": "a', '"file_name": "b.png", "file_name": "a', r"one `file_name`, got .* - at `images\[0\]`", 0),
    ],
)
def test_entries_whose_keys_stand_twice_are_told_and_left_out(tmp_path, old, new, message, left):
    content = {"images": [IMAGE_ENTRY], "annotations": [BOX], "categories": [{"id": 2, "name": "dog"}]}
    text = json.dumps(content)
    assert old in text
    (tmp_path / "a.json").write_text(text.replace(old, new))
    with pytest.raises(AnnotationError, match=rf"a\.json: expected {message}"):
        read_coco(tmp_path / "a.json", tmp_path)
    told = []
    table = read_coco(tmp_path / "a.json", tmp_path, on_problem=lambda path, error: told.append(str(error)))
    assert told and (len(table), len(table.boxes)) == (left, 0)
