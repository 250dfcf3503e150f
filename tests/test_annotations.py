import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from detfeed import AnnotationError, IgnoreReason, concat


def test_no_images_are_ordinary(annotate):
    empty = annotate([], [])
    assert len(empty) == 0
    assert repr(empty) == "Annotations(0 images, 0 boxes of which 0 ignored, 3 classes, from 'made up')"


def test_rows_of_an_image_are_its_boxes(annotate):
    table = annotate([(8, 8)] * 3, [[(0, 0, 1, 1)], [], [(0, 0, 2, 2), (0, 0, 3, 3)]])
    assert [table.boxes[table.rows(p), 2].tolist() for p in range(3)] == [[1], [], [2, 3]]
    assert table.image_id(2) == 102


def test_columns_are_read_only_and_survive_pickling(annotate):
    table = annotate([(8, 8)], [[(0, 0, 1, 1)]])
    with pytest.raises(ValueError, match="read-only"):
        table.boxes[0, 0] = 5
    copy = pickle.loads(pickle.dumps(table))
    assert copy.paths == table.paths
    np.testing.assert_array_equal(copy.boxes, table.boxes)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("boxes", np.zeros((1, 4)), r"`boxes` to be float32 \(1, 4\), got float64 \(1, 4\)"),
        ("class_ids", np.zeros(2, np.int32), r"`class_ids` to be int32 \(1,\), got int32 \(2,\)"),
        ("boxes", np.float32([[0, 0, np.nan, 1]]), "finite box corners, .*nan.* at box 0 of image 101"),
        ("boxes", np.float32([[5, 0, 1, 1]]), r"x0 <= x1 and y0 <= y1, got box \[5.0, 0.0, 1.0, 1.0\]"),
        (
            "boxes",
            np.float32([[3, 2, 3, 4]]),
            r"a box with area, got box \[3.0, 2.0, 3.0, 4.0\] .* at box 0 of image 101",
        ),
        (
            "boxes",
            np.float32([[-0.5, 2, 3, 4]]),
            r"a box inside its image, got .* height 8, width 8 - at box 0 of image",
        ),
        ("boxes", np.float32([[0, 2, 8, 8.25]]), r"a box inside its image, got box \[0.0, 2.0, 8.0, 8.25\]"),
        ("class_ids", np.int32([3]), "a known class, got .* of class 3 .* - at box 0 of image 101"),
        ("image_ids", np.array([7, 7]), "each image id once, got 2 images with id 7"),
        ("image_hw", np.int32([[4, 4], [0, 4]]), "sizes of at least 1 pixel, got height 0, width 4 - at image 101"),
        ("offsets", np.array([0, 2, 1]), "`offsets` to rise from 0 to 1"),
        ("masks", {1: np.int32([64])}, "masks of boxes 0 to 0, got 1"),
        ("masks", {0: np.int32([63])}, r"a mask of \[8, 8\] pixels, got runs over 63 - at box 0 of image 101"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_an_address(annotate, column, value, message):
    table = annotate([(8, 8)] * 2, [[], [(0, 0, 1, 1)]])
    with pytest.raises(AnnotationError, match=f"made up: expected {message}"):
        dataclasses.replace(table, **{column: value})


@pytest.fixture
def table(annotate):
    """Three images, two of them with boxes, one box with a mask."""
    table = annotate([(8, 8), (4, 4), (6, 6)], [[(0, 0, 1, 1), (0, 0, 2, 2)], [], [(0, 0, 3, 3)]])
    return dataclasses.replace(table, masks={1: np.int32([60, 4]), 2: np.int32([36])})


@pytest.fixture
def federated(table):
    return dataclasses.replace(
        table, neg_classes=np.int32([[0, 2], [1, 0], [1, 1]]), not_exhaustive_classes=np.int32([[2, 1]])
    )


def test_no_images_can_be_selected(table):
    for positions in ([], np.zeros(3, bool)):
        assert len(table.select(positions)) == len(table.select(positions).boxes) == 0
    assert len(table.select([]).select([])) == 0


def test_selected_images_come_in_the_order_asked_for_with_boxes_and_masks(table):
    chosen = table.select([2, 0])
    assert chosen.image_ids.tolist() == [102, 100]
    assert chosen.paths == (table.paths[2], table.paths[0])
    assert chosen.offsets.tolist() == [0, 1, 3]
    assert chosen.boxes[:, 2].tolist() == [3, 1, 2]
    assert chosen.class_ids.tolist() == [2, 0, 1]
    assert {row: runs.tolist() for row, runs in chosen.masks.items()} == {0: [36], 2: [60, 4]}
    assert table.select(np.array([True, False, True])).image_ids.tolist() == [100, 102]


def test_selecting_what_is_not_there_or_twice_is_an_error(table):
    with pytest.raises(IndexError, match="3 is out of bounds"):
        table.select([3])
    with pytest.raises(AnnotationError, match="each image id once, got 2 images with id 101"):
        table.select([1, 1])


def test_parts_are_disjoint_cover_all_and_depend_on_the_seed_alone(annotate):
    table = annotate([(4, 4)] * 20, [[(0, 0, 1, 1)]] * 20)
    for fractions, sizes in ((0.75, [15, 5]), ((0.5, 0.3, 0.2), [10, 6, 4]), (1.0, [20, 0]), ((0.0, 1.0), [0, 20])):
        parts = table.split(fractions, seed=3)
        assert [len(part) for part in parts] == sizes
        ids = [part.image_ids.tolist() for part in parts]
        assert sorted(itertools.chain(*ids)) == table.image_ids.tolist()
        assert all(part == sorted(part) for part in ids)
        assert ids == [part.image_ids.tolist() for part in table.split(fractions, seed=3)]
    assert table.split(0.5, seed=0)[0].image_ids.tolist() != table.split(0.5, seed=1)[0].image_ids.tolist()
    assert [len(part) for part in table.select([]).split(0.5)] == [0, 0]


@pytest.mark.parametrize("fractions", [1.5, -0.5, (0.5, 0.6), (), (1.5, -0.5), float("nan")])
def test_shares_that_do_not_add_up_are_refused(table, fractions):
    with pytest.raises(ValueError, match=r"Expected fractions .* Received: "):
        table.split(fractions)


def test_negative_seed_is_refused(table):
    with pytest.raises(ValueError, match=r"at least 0. Received: -1"):
        table.split(0.5, seed=-1)


def test_classes_of_one_new_name_become_one(table):
    assert table.rename_classes({}).class_names == table.class_names
    renamed = table.rename_classes({"class 0": "cat", "class 2": "class 1"})
    assert renamed.class_names == ("cat", "class 1")
    assert renamed.class_ids.tolist() == [0, 1, 1]
    assert renamed.category_ids.tolist() == [1, 2]
    swapped = table.rename_classes({"class 0": "class 1", "class 1": "class 0"})
    assert swapped.class_names == ("class 1", "class 0", "class 2")
    with pytest.raises(ValueError, match=r"Received: \['dog'\]"):
        table.rename_classes({"dog": "cat"})


def test_one_table_alone_is_itself(table):
    joined = concat([table])
    for name in ("paths", "image_ids", "boxes", "class_ids", "offsets", "class_names", "category_ids"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(table, name))
    with pytest.raises(ValueError, match="at least one table"):
        concat([])


def test_joined_tables_put_boxes_masks_and_classes_of_one_name_together(table):
    second = dataclasses.replace(
        table, image_ids=np.array([1, 2, 3]), class_names=("class 2", "new", "class 0"), source="second"
    )
    joined = concat([table, second])
    assert joined.source == "made up + second"
    assert joined.offsets.tolist() == [0, 2, 2, 3, 5, 5, 6]
    assert joined.class_names == ("class 0", "class 1", "class 2", "new")
    assert joined.class_ids.tolist() == [0, 1, 2, 2, 3, 0]
    assert joined.category_ids.tolist() == [1, 2, 3, 4]
    assert sorted(joined.masks) == [1, 2, 4, 5]
    parts = [joined.select(range(3)), joined.select(range(3, 6))]
    for part, original in zip(parts, (table, second), strict=True):
        np.testing.assert_array_equal(part.boxes, original.boxes)
        assert part.masks.keys() == original.masks.keys()


def test_category_ids_are_kept_where_tables_agree(table):
    first = dataclasses.replace(table, category_ids=np.array([3, 7, 90]))
    assert concat([first, first], new_ids=True).category_ids.tolist() == [3, 7, 90]
    assert concat([first, table], new_ids=True).category_ids.tolist() == [1, 2, 3]


def test_images_of_one_id_are_an_error_unless_numbered_anew(table):
    with pytest.raises(AnnotationError, match=r"each image id once, got 100 2 times; new_ids=True"):
        concat([table, table])
    assert concat([table, table], new_ids=True).image_ids.tolist() == [1, 2, 3, 4, 5, 6]
    named = dataclasses.replace(table, image_ids=np.array(["a", "b", "c"]))
    with pytest.raises(AnnotationError, match="all numbers or all names"):
        concat([table, named])
    assert concat([table.select([]), named]).image_ids.tolist() == ["a", "b", "c"]


def test_federated_pairs_follow_their_images_and_classes(federated):
    chosen = federated.select([2, 1])
    assert chosen.neg_classes.tolist() == [[1, 0], [1, 1]]
    assert chosen.not_exhaustive_classes.tolist() == [[0, 1]]
    joined = concat([federated, federated], new_ids=True)
    assert joined.neg_classes.tolist() == [[0, 2], [1, 0], [1, 1], [3, 2], [4, 0], [4, 1]]
    # Image 0 was seen to show no class 2 but not to show no class 0, so nothing is known of the two as one.
    assert federated.rename_classes({"class 2": "class 0"}).neg_classes.tolist() == [[1, 1]]
    none = np.zeros((0, 2), np.int32)
    bare = dataclasses.replace(federated, neg_classes=none, not_exhaustive_classes=none)
    for same in (bare.rename_classes({"class 1": "class 0"}), bare.select([1]), concat([bare])):
        assert same.neg_classes.shape == same.not_exhaustive_classes.shape == (0, 2)
    merged = federated.rename_classes({"class 1": "class 0"})
    assert merged.neg_classes.tolist() == [[0, 1], [1, 0]]
    assert merged.not_exhaustive_classes.tolist() == [[2, 0]]


def test_federated_and_other_tables_are_not_joined_unasked(table, federated):
    with pytest.raises(AnnotationError, match="all tables to be federated or none, got made up with neg_classes=None"):
        concat([federated, table], new_ids=True)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("neg_classes", np.int64([[0, 0]]), r"`neg_classes` to be int32 \(K, 2\), got int64 \(1, 2\)"),
        ("neg_classes", np.int32([[0, 0], [0, 3]]), r"got \[0, 3\] - at `neg_classes\[1\]`"),
        ("not_exhaustive_classes", None, "both of neg_classes and not_exhaustive_classes, or none, got one"),
    ],
)
def test_federated_pairs_that_do_not_fit_are_refused(federated, column, value, message):
    with pytest.raises(AnnotationError, match=message):
        dataclasses.replace(federated, **{column: value})


def test_number_of_images_of_one_id_is_that_ids_own(annotate):
    table = annotate([(8, 8)] * 5, [[]] * 5)
    with pytest.raises(AnnotationError, match=r"each image id once, got 2 images with id 1 - first at .*001\.png"):
        dataclasses.replace(table, image_ids=np.array([2, 1, 1, 2, 2]))
    one, two = table.select([0, 1]), table.select([1])
    with pytest.raises(AnnotationError, match=r"each image id once, got 100 2 times"):
        concat([one, one, two])


def test_category_ids_that_do_not_ascend_are_numbered_anew(table):
    odd = dataclasses.replace(table, category_ids=np.array([3, 1, 2]))
    assert concat([odd]).category_ids.tolist() == [1, 2, 3]
    twice = dataclasses.replace(table, category_ids=np.array([3, 3, 4]))
    assert concat([twice]).category_ids.tolist() == [1, 2, 3]


def test_ids_and_reasons_go_with_their_boxes(annotate):
    boxes = [(0, 0, 4, 4), (1, 1, 5, 5)]
    table = annotate([(8, 8)] * 2, [boxes, boxes[:1]], ignore_of=[[True, False], [True]])
    assert table.annotation_ids.tolist() == [1, 2, 3]
    assert table.ignore_reasons.tolist() == [IgnoreReason.MARKED, IgnoreReason.NONE, IgnoreReason.MARKED]
    reasons = np.array([IgnoreReason.GROUP, 0, IgnoreReason.CROWD], np.uint8)
    table = dataclasses.replace(table, annotation_ids=np.array([7, 5, 3]), ignore_reasons=reasons)
    part = table.select([1, 0])
    assert part.annotation_ids.tolist() == [3, 7, 5]
    assert part.ignore_reasons.tolist() == [IgnoreReason.CROWD, IgnoreReason.GROUP, IgnoreReason.NONE]
    both = concat([table, part], new_ids=True)
    assert both.annotation_ids.tolist() == [7, 5, 3, 3, 7, 5]
    assert both.ignore_reasons.tolist() == [*reasons, *part.ignore_reasons]
    merged = dataclasses.replace(part, boxes=np.tile(np.float32([0, 0, 4, 4]), (3, 1)), ignore=np.zeros(3, bool))
    merged = merged.rename_classes(dict.fromkeys(merged.class_names, "all"))
    assert merged.annotation_ids.tolist() == [3, 7]


def test_ignore_decides_and_reasons_follow(annotate):
    table = annotate([(8, 8)], [[(0, 0, 4, 4), (1, 1, 5, 5), (2, 2, 6, 6)]], ignore_of=[[True, True, False]])
    reasons = np.array([IgnoreReason.CROWD, IgnoreReason.CROWD, IgnoreReason.NONE], np.uint8)
    table = dataclasses.replace(table, ignore_reasons=reasons)
    other = dataclasses.replace(table, ignore=np.array([True, False, True]))
    assert other.ignore_reasons.tolist() == [IgnoreReason.CROWD, IgnoreReason.NONE, IgnoreReason.MARKED]
    with pytest.raises(AnnotationError, match=r"`ignore_reasons` to be uint8 \(3,\), got uint8 \(2,\)"):
        dataclasses.replace(table, ignore_reasons=reasons[:2])
    with pytest.raises(AnnotationError, match=r"`annotation_ids` to be int64 \(3,\), got int32 \(3,\)"):
        dataclasses.replace(table, annotation_ids=np.arange(3, dtype=np.int32))


def test_boxes_that_come_to_repeat_each_other_become_one(annotate):
    same, other = (0, 0, 4, 4), (0, 0, 4, 5)
    table = annotate([(8, 8), (8, 8)], [[same, same, other, same], [(-0.0, 0, 4, 4), same]], classes=3)
    table = dataclasses.replace(
        table,
        class_ids=np.int32([0, 1, 0, 2, 1, 0]),
        areas=np.float32([1, 2, 3, 4, 5, 6]),
        masks={1: np.int32([1, 63]), 2: np.int32([2, 62]), 4: np.int32([3, 61])},
    )
    merged = table.rename_classes({"class 1": "class 0"})
    assert merged.offsets.tolist() == [0, 3, 4]
    assert merged.boxes.tolist() == np.float32([same, other, same, same]).tolist()
    assert merged.class_ids.tolist() == [0, 0, 1, 0]
    assert merged.areas.tolist() == [1, 3, 4, 5]
    assert {row: runs.tolist() for row, runs in merged.masks.items()} == {1: [2, 62], 3: [3, 61]}
    assert len(table.rename_classes({"class 1": "cat"}).boxes) == 6
    ignored = dataclasses.replace(table, ignore=np.array([False, True] * 3))
    assert len(ignored.rename_classes({"class 1": "class 0"}).boxes) == 6


def test_classes_of_another_table_keep_their_boxes_and_numbers(annotate):
    table = annotate([(8, 8)], [[(0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3)]])
    first, second, third = table.class_names
    given = table.with_classes((third, "new", second, first))
    assert given.class_names == (third, "new", second, first)
    assert [given.class_names[i] for i in given.class_ids] == [table.class_names[i] for i in table.class_ids]
    numbers = dict(zip(table.class_names, table.category_ids.tolist(), strict=True))
    new = dict(zip(given.class_names, given.category_ids.tolist(), strict=True))
    assert new == {**numbers, "new": new["new"]}
    assert new["new"] not in numbers.values()


def test_classes_without_boxes_may_be_left_out_others_not(annotate):
    table = annotate([(8, 8)], [[(0, 0, 1, 1)]])
    used = table.class_names[table.class_ids[0]]
    assert table.with_classes([used]).class_ids.tolist() == [0]
    with pytest.raises(AnnotationError, match=rf"expected boxes of the classes \['x'\], got some of \['{used}'\]"):
        table.with_classes(["x"])
    with pytest.raises(ValueError, match="Expected each name once"):
        table.with_classes([used, used])


def test_federated_classes_move_with_the_classes(annotate):
    table = annotate([(8, 8)] * 2, [[(0, 0, 1, 1)], []])
    pairs = {"neg_classes": np.int32([[1, 0], [0, 2]]), "not_exhaustive_classes": np.int32([[0, 1]])}
    names = table.class_names
    given = dataclasses.replace(table, **pairs).with_classes((names[2], names[0]))
    assert given.neg_classes.tolist() == [[1, 1], [0, 0]]
    assert given.not_exhaustive_classes.tolist() == []
