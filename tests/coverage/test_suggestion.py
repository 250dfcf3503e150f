"""Suggested anchors cover more of images that they were not fitted to, or the given ones stay."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed import AnchorGrid, AnchorTargets, Annotations, Fixed, ShortSide, anchor_coverage, suggest_anchors
from detfeed.commands.anchor_options import add_anchor_options, chosen_grid
from detfeed.commands.parser import Parser
from detfeed.coverage import anchor_search
from detfeed.coverage.anchor_coverage import percent
from detfeed.coverage.anchor_search import Choice, factored

HW = (200, 300)


@pytest.fixture(autouse=True)
def few_objects(monkeypatch):
    monkeypatch.setattr(anchor_search, "NUM_OBJECTS", 300)


def table(seed, size, ratio, *, images=40, each=4, spread=0.1):
    """Images of one size with boxes whose sizes and ratios are spread about some."""
    rng = np.random.default_rng(seed)
    n = images * each
    side = size * np.exp(spread * rng.standard_normal(n))
    root = np.sqrt(ratio * np.exp(spread * rng.standard_normal(n)))
    sides = np.minimum(np.stack([side / root, side * root], axis=1), HW[::-1])
    start = rng.uniform(size=(n, 2)) * (np.array(HW[::-1]) - sides)
    boxes = np.minimum(np.concatenate([start, start + sides], axis=1), np.tile(HW[::-1], 2)).astype(np.float32)
    return Annotations(
        paths=tuple(f"{number}.jpg" for number in range(images)),
        image_ids=np.arange(images),
        image_hw=np.tile(np.int32([HW]), (images, 1)),
        boxes=boxes,
        class_ids=np.zeros(n, np.int32),
        ignore=np.zeros(n, bool),
        areas=np.prod(sides, axis=1).astype(np.float32),
        offsets=np.arange(0, n + 1, each),
        class_names=("a",),
        category_ids=np.array([1]),
    )


def share(data, grid, resize):
    return anchor_coverage(data, grid, resize=resize).all.positive


@pytest.mark.parametrize(
    "grid", [AnchorGrid.fpn(), AnchorGrid.c4(), AnchorGrid.detectron2_fpn(), AnchorGrid.keras_retinanet()]
)
def test_wide_objects_get_wide_anchors(grid):
    data = table(0, 90, 0.3)
    suggestion = suggest_anchors(data, grid, resize=Fixed(HW))
    assert suggestion.is_better
    unseen = table(1, 90, 0.3)
    assert share(unseen, suggestion.anchors, Fixed(HW)) > share(unseen, grid, Fixed(HW)) + 0.3
    assert suggestion.anchors.num_cell_anchors == grid.num_cell_anchors
    assert suggestion.anchors.strides == grid.strides
    assert suggestion.anchors.offset == grid.offset
    images = suggestion.num_fitted + len(suggestion.before.positions)
    assert (images, len(suggestion.after.positions)) == (len(data), len(data) - suggestion.num_fitted)
    line = suggestion.summary_line()
    assert f"{percent(suggestion.after.all.positive)} of objects" in line and suggestion.options in line


@settings(max_examples=10)
@given(
    seed=st.integers(0, 1000),
    size=st.floats(8, 150),
    ratio=st.floats(0.3, 3),
    spread=st.sampled_from([0.0, 0.3, 1.0]),
    grid=st.sampled_from([AnchorGrid.fpn(sizes=(16, 32, 64, 128, 256)), AnchorGrid.c4(sizes=(20, 40, 80))]),
)
def test_a_suggestion_is_never_worse_on_the_images_it_is_checked_on(seed, size, ratio, spread, grid):
    data = table(seed, size, ratio, images=20, spread=spread)
    suggestion = suggest_anchors(data, grid, resize=Fixed(HW), seed=seed)
    assert suggestion.anchors == (suggestion.after.anchors if suggestion.is_better else grid)
    checked = data.select(suggestion.before.positions)
    before, after = (anchor_coverage(checked, each, resize=Fixed(HW)) for each in (grid, suggestion.anchors))
    assert after.positive.sum() >= before.positive.sum()
    assert (after.positive * 1 - after.unmatched).sum() >= (before.positive * 1 - before.unmatched).sum()


def test_anchors_that_fit_stay():
    grid = AnchorGrid.fpn(sizes=(16, 60, 64, 128, 256), ratios=(0.7, 1.0, 1.4))
    data = table(0, 64, 1.0, spread=0.02)
    assert share(data, grid, Fixed(HW)) == 1
    suggestion = suggest_anchors(data, grid, resize=Fixed(HW))
    assert not suggestion.is_better
    assert suggestion.anchors is grid
    assert "none better were found" in suggestion.summary_line()
    assert "%" not in suggestion.summary_line()  # figures that differ by chance alone


@pytest.mark.parametrize(("size", "ratio", "kept"), [(20, 0.3, [3, 4]), (40, 2.0, [2, 3, 4]), (90, 1.0, [0, 2, 3, 4])])
def test_sizes_that_no_object_needs_stay_as_they_were(size, ratio, kept):
    suggestion = suggest_anchors(table(0, size, ratio, spread=0.05), AnchorGrid.fpn(), resize=Fixed(HW))
    assert suggestion.is_better
    assert [suggestion.choice.sizes[level] for level in kept] == [(2.0 ** (5 + level),) for level in kept]
    assert len(suggestion.choice.ratios) == 3


def test_anchors_of_a_cell_are_divided_otherwise_where_that_covers_much_more():
    data = table(0, 60, 1.0, spread=0.05)
    rng = np.random.default_rng(0)
    centre = (data.boxes[:, :2] + data.boxes[:, 2:]) / 2
    root = np.exp(0.4 * rng.standard_normal(len(centre)))
    half = np.stack([30 / root, 30 * root], axis=1)
    boxes = np.concatenate([centre - half, centre + half], axis=1).clip(0, [*HW[::-1]] * 2).astype(np.float32)
    grid = AnchorGrid.c4(sizes=(40, 60, 90), ratios=(1.0,), stride=4)
    suggestion = suggest_anchors(dataclasses.replace(data, boxes=boxes), grid, resize=Fixed(HW))
    assert len(suggestion.choice.ratios) == 3
    assert suggestion.anchors.num_cell_anchors == (3,)


def test_thresholds_are_those_of_the_targets():
    data = table(0, 80, 1.0, spread=0.4)
    loose = suggest_anchors(data, AnchorTargets(AnchorGrid.c4(sizes=(30,)), positive_iou=0.4), resize=Fixed(HW))
    strict = suggest_anchors(data, AnchorGrid.c4(sizes=(30,)), resize=Fixed(HW))
    assert loose.after.targets.positive_iou == 0.4
    assert loose.after.all.positive > strict.after.all.positive


def test_too_few_objects_are_said_and_the_given_anchors_stay():
    data = table(0, 30, 1.0, images=9)
    suggestion = suggest_anchors(data, AnchorGrid.c4(), resize=Fixed(HW))
    assert suggestion.anchors == AnchorGrid.c4()
    assert "it takes 20 objects to fit to" in suggestion.summary_line()
    assert (suggestion.python, suggestion.options) == ("", "")
    assert suggestion.to_dict()["sizes"] is None
    ignored = dataclasses.replace(table(0, 30, 1.0), ignore=np.ones(160, bool))
    assert suggest_anchors(ignored, AnchorGrid.c4(), resize=Fixed(HW)).choice is None


def test_validation_images_are_checked_on_and_the_others_all_fitted_to():
    suggestion = suggest_anchors(table(0, 50, 3.0), AnchorGrid.c4(), resize=Fixed(HW), check_on=table(1, 50, 3.0))
    assert suggestion.num_fitted == 40
    assert suggestion.before.positions.tolist() == list(range(40))


def test_the_same_seed_suggests_the_same(shapes):
    one, two, other = (suggest_anchors(shapes, AnchorGrid.c4(), resize=ShortSide(96), seed=seed) for seed in (1, 1, 2))
    assert one.choice == two.choice
    assert one.before.positions.tolist() != other.before.positions.tolist()


def test_a_class_that_loses_is_named():
    data = table(0, 20, 1.0)
    grid = AnchorGrid.c4(sizes=(20,), ratios=(1.0,))
    rare = np.arange(160) % 4 == 0
    boxes = data.boxes.copy()
    boxes[~rare, 2:] = np.minimum(boxes[~rare, :2] + np.float32([120, 120]), np.float32(HW[::-1]))
    boxes[~rare, :2] = boxes[~rare, 2:] - np.float32([120, 120])
    mixed = dataclasses.replace(
        data,
        boxes=boxes,
        class_ids=np.where(rare, 1, 0).astype(np.int32),
        class_names=("many", "few"),
        category_ids=np.array([1, 2]),
    )
    suggestion = suggest_anchors(mixed, AnchorTargets(grid, positive_iou=0.4), resize=Fixed(HW))
    ((old, new),) = suggestion.worse_classes()
    assert (old.name, new.name) == ("few", "few") and new.positive < old.positive


@settings(max_examples=30)
@given(
    grid=st.sampled_from([AnchorGrid.fpn(), AnchorGrid.c4(), AnchorGrid.keras_retinanet(), AnchorGrid.c4(stride=8)]),
    data=st.data(),
)
def test_what_is_printed_makes_the_grid(grid, data):
    each = data.draw(st.integers(1, 3))
    tenths = data.draw(st.lists(st.integers(40, 9000), min_size=each, max_size=each))
    sizes = tuple(tuple(number / 10 for number in sorted(tenths)) for _ in range(grid.num_levels))
    ratios = tuple(sorted(data.draw(st.lists(st.sampled_from([0.35, 0.5, 1.0, 2.5]), min_size=1, max_size=3))))
    choice = Choice(sizes, ratios)
    assert eval(choice.python(grid), {"AnchorGrid": AnchorGrid}) == choice.grid(grid)
    if grid in (AnchorGrid.fpn(), AnchorGrid.c4()):
        parser = Parser()
        add_anchor_options(parser)
        arguments = parser.parse_args(["--model", "c4" if grid.num_levels == 1 else "fpn", *choice.options().split()])
        assert chosen_grid(arguments) == choice.grid(grid)


def test_grids_are_taken_apart_into_sizes_and_ratios():
    assert factored(AnchorGrid.fpn()) == Choice(((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)), (0.5, 1.0, 2.0))
    assert factored(AnchorGrid.keras_retinanet()).sizes[0] == (32.0, 40.317, 50.797)
    assert factored(AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0), (40.0, 10.0)),))) is None


def test_tiny_and_narrow_anchors_can_be_bettered():
    grid = AnchorGrid.c4(sizes=(1, 2, 3), ratios=(1.0, 30.0), rounding=False)
    suggestion = suggest_anchors(table(0, 50, 2.0), grid, resize=Fixed(HW))
    assert suggestion.is_better


def test_any_grid_can_be_bettered_even_one_that_is_no_product():
    grid = AnchorGrid(strides=(8, 16), cell_sizes_wh=(((16.0, 16.0), (40.0, 10.0)), ((9.0, 9.0),) * 4), offset=0.5)
    suggestion = suggest_anchors(table(0, 50, 2.0), grid, resize=Fixed(HW))
    assert suggestion.is_better
    assert suggestion.anchors.num_cell_anchors == (2, 4)
