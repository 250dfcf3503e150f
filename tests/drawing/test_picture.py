"""Pictures of targets: what stands where in them, and that it is what the arrays say."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed import AnchorGrid, AnchorTargets, IgnoreReason, MaskTargets, PaddedBoxes, RoiTargets, Sample
from detfeed.drawing.marks import BLUE, DARK, GREEN, ORANGE, PADDING, PURPLE, RED, WHITE, YELLOW, zoom_to
from detfeed.drawing.picture import Picture
from detfeed.drawing.sheets import Tile
from detfeed.showing import truth_of
from detfeed.targets.padded_boxes import OF_FASTER_RCNN, BoxForm

# One anchor of 16 x 16 pixels on each cell of 16 x 16.
GRID = AnchorGrid.fpn(sizes=(16,), ratios=(1.0,), strides=(16,), offset=0.5)
BLACK = (0, 0, 0)


def make_sample(boxes=(), ignore=None, *, image_hw=(64, 64), input_hw=(64, 64)) -> Sample:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=np.zeros((*image_hw, 3), np.uint8),
        boxes=boxes,
        class_ids=np.zeros(len(boxes), np.int32),
        ignore=np.zeros(len(boxes), bool) if ignore is None else np.array(ignore),
        image_id=7,
        position=0,
        input_hw=input_hw,
        rng=np.random.default_rng(0),
    )


def picture_of(sample, targets) -> Picture:
    """The picture of a sample's targets, without labels."""
    truth = truth_of(sample, ("thing",))._replace(labels=())
    picture = Picture(sample.image, sample.input_hw, truth, title=f"image {sample.image_id}")
    answer = targets(sample)
    x, *rest = answer if isinstance(answer, tuple) else ({}, answer)
    targets.show(picture, x, *rest)
    return picture


def draw(sample, targets, *, side: int = 64) -> Tile:
    return picture_of(sample, targets).tile(zoom_to(sample.input_hw, side))


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=2).sum())


def test_image_without_boxes_shows_a_dot_on_each_sampled_negative_and_nothing_else():
    tile = draw(make_sample(), AnchorTargets(GRID, num_samples=3))
    assert count(tile.image, WHITE) == 3 * 9
    assert count(tile.image, DARK) == 3 * 16
    assert count(tile.image, BLACK) == 64 * 64 - 3 * 25
    assert tile.caption == (
        "image 7: 0 objects, 0 without a positive",
        "anchors sampled: 0 positive, 3 negative",
    )
    assert not tile.alert


def test_image_whose_boxes_are_all_ignored_shows_hatching_and_no_object():
    tile = draw(make_sample([(0, 0, 64, 64)], [True]), AnchorTargets(GRID))
    assert count(tile.image, PURPLE) > 64 * 64 / 8
    for colour in (WHITE, BLUE, YELLOW, RED):
        assert count(tile.image, colour) == 0
    assert tile.caption[0] == "image 7: 0 objects, 0 without a positive, 1 ignored region"
    assert tile.caption[1].endswith("0 negative")
    assert not tile.alert


@pytest.mark.parametrize("zoom", [1, 2])
def test_crowd_that_is_ignored_by_its_mask_is_hatched_within_the_mask(zoom):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :20] = 255
    sample = dataclasses.replace(make_sample([(0, 0, 64, 64)], [True]), masks={0: mask})
    tile = draw(sample, AnchorTargets(GRID, num_samples=1), side=64 * zoom)
    inside, outside = tile.image[4:-4, 4 : 20 * zoom], tile.image[4:-4, 20 * zoom : -4]
    assert count(inside, PURPLE) > inside.shape[0] * inside.shape[1] / 8
    assert count(outside, PURPLE) == 0


def test_matched_box_is_yellow_and_its_anchors_are_tied_to_it():
    # Half on one anchor, half on the one below: an IoU of a third with either, the best there is.
    tile = draw(make_sample([(16, 24, 32, 40)]), AnchorTargets(GRID, num_samples=2, positive_fraction=1))
    assert tile.image[30, 16].tolist() == list(YELLOW)
    # On the way from the anchors' centres, (24, 24) and (24, 40), to the box's, (24, 32).
    assert tile.image[28, 24].tolist() == list(BLUE)
    assert tile.image[36, 24].tolist() == list(BLUE)
    assert count(tile.image, RED) == 0
    assert tile.caption[1] == "anchors sampled: 2 positive (2 low-quality), 0 negative"
    assert not tile.alert


def test_unmatched_box_is_red_and_raises_an_alert():
    # Both boxes have the same best anchor, which matches the larger one; nothing is left for the smaller.
    sample = make_sample([(16, 16, 32, 32), (20, 20, 28, 28)])
    targets = AnchorTargets(GRID)
    assert picture_of(sample, targets).unmatched.tolist() == [False, True]
    tile = draw(sample, targets)
    assert tile.image[24, 20].tolist() == list(RED)
    assert tile.image[19, 16].tolist() == list(YELLOW)
    assert tile.caption[0] == "image 7: 2 objects, 1 without a positive"
    assert tile.alert


def test_ignored_region_that_no_anchor_matches_is_not_an_unmatched_object():
    sample = make_sample([(16, 16, 32, 32), (20, 20, 28, 28)], [False, True])
    assert not picture_of(sample, AnchorTargets(GRID)).unmatched.any()


def test_padding_is_hatched_and_without_dots():
    tile = draw(make_sample(image_hw=(64, 32)), AnchorTargets(GRID))
    padding = tile.image[:, 32 + 8 :]
    assert count(padding, PADDING) + count(padding, DARK) == padding.shape[0] * padding.shape[1]
    assert tile.caption[1].endswith("8 negative")


@pytest.mark.parametrize(
    ("input_hw", "expected"), [((64, 48), (640, 480)), ((300, 200), (600, 400)), ((1280, 640), (640, 320))]
)
def test_small_images_grow_by_whole_numbers_and_large_ones_shrink_to_the_side(input_hw, expected):
    tile = draw(make_sample(image_hw=input_hw, input_hw=input_hw), AnchorTargets(GRID), side=640)
    assert tile.image.shape == (*expected, 3)


TARGETS = {
    "sampled": AnchorTargets(GRID),
    "few samples": AnchorTargets(GRID, num_samples=2),
    "dense": AnchorTargets(GRID, form="dense"),
    "for joint training": AnchorTargets(GRID, boxes=PaddedBoxes(8), counts=True),
    "other weights": AnchorTargets(GRID, delta_weights=(10, 10, 5, 5)),
    "rois": RoiTargets(),
    "rois of classes": RoiTargets(num_classes=3, num_samples=8),
    "masks": MaskTargets(size=7),
    **{f"boxes {form}": PaddedBoxes(8, form=form) for form in BoxForm.__args__},
    "boxes with all names": PaddedBoxes(8, names={"b": "boxes", "c": "class_ids", "m": "mask", "i": "ignore"}),
    "boxes of Faster R-CNN": PaddedBoxes(8, names=OF_FASTER_RCNN, padding=0),
}


@st.composite
def samples(draw_from) -> Sample:
    """Up to six boxes on half pixels in an image of 64 x 48 on a canvas of 64 x 64, some ignored, with proposals."""
    number = draw_from(st.integers(0, 6))
    corner = st.integers(0, 94)
    corners = [(draw_from(corner), draw_from(corner)) for _ in range(2 * number)]
    boxes = [
        [min(a, 92) / 2, b / 2, min(a + 2 + c, 96) / 2, (b + 2 + d) / 2]
        for (a, b), (c, d) in zip(corners[::2], corners[1::2], strict=True)
    ]
    sample = make_sample(np.clip(boxes, 0, [[48, 64, 48, 64]]) if boxes else (), image_hw=(64, 48))
    return dataclasses.replace(
        sample,
        class_ids=np.array(draw_from(st.lists(st.integers(0, 2), min_size=number, max_size=number)), np.int32),
        ignore=np.array(draw_from(st.lists(st.booleans(), min_size=number, max_size=number)), bool),
        ignore_reasons=None,
        proposals=sample.boxes * np.float32(0.9),
        masks={row: np.full((64, 48), 255, np.uint8) for row in range(number)},
        rng=np.random.default_rng(draw_from(st.integers(0, 9))),
    )


@settings(max_examples=15)
@pytest.mark.parametrize("targets", TARGETS.values(), ids=list(TARGETS))
@given(sample=samples())
def test_every_target_decodes_to_objects_of_its_image_and_to_nothing_else(targets, sample):
    picture = picture_of(sample, targets)
    assert picture.has_positives
    assert len(picture.strays) == 0
    assert not (picture.unmatched & sample.ignore).any()
    picture.tile(1.5)


@settings(max_examples=15)
@pytest.mark.parametrize("form", ["sampled", "dense"])
@given(sample=samples())
def test_objects_without_a_positive_are_those_that_matching_leaves_out(form, sample):
    targets = AnchorTargets(GRID, form=form, num_samples=6)
    matched = np.unique(targets.match(sample).match)
    expected = [
        not sample.ignore[row]
        and not any(sample.boxes[row].tolist() == sample.boxes[other].tolist() for other in matched)
        for row in range(len(sample.boxes))
    ]
    assert picture_of(sample, targets).unmatched.tolist() == expected


def test_object_whose_positives_were_not_sampled_is_orange_and_no_alert():
    # Two objects with an anchor each, and room for one positive.
    tile = draw(make_sample([(0, 0, 16, 16), (32, 32, 48, 48)]), AnchorTargets(GRID, num_samples=2))
    assert count(tile.image, ORANGE) > 0
    assert count(tile.image, RED) == 0
    assert not tile.alert


@pytest.mark.parametrize("name", ["sampled", "dense", "rois", "boxes xyxy", "boxes rel_center_xywh"])
def test_targets_that_are_off_are_green_and_raise_an_alert(name):
    class Off:
        """Writes boxes half a side too far to the right."""

        def __call__(self, sample):
            answer = TARGETS[name](sample)
            y = answer[1] if isinstance(answer, tuple) else answer
            for key in y:
                if "deltas" in key:
                    y[key][..., 0] += 5  # of 10 an anchor's width for RoIs
                if key == "boxes":
                    y[key][0, :2] *= 0.5
            return answer

        def show(self, *arguments):
            TARGETS[name].show(*arguments)

    picture = picture_of(make_sample([(16, 16, 32, 32)]), Off())
    assert len(picture.strays) > 0
    assert picture.unmatched.tolist() == [True]
    tile = picture.tile(1)
    assert count(tile.image, GREEN) > 0
    assert "that are no object" in tile.caption[0]
    assert tile.alert


def test_class_that_is_fed_wrong_is_found():
    sample = make_sample([(16, 16, 32, 32)])
    y = PaddedBoxes(2)(sample)
    y["labels"][0] = 1
    picture = Picture(sample.image, sample.input_hw, truth_of(sample, ("a", "b")))
    PaddedBoxes(2).show(picture, {}, y)
    assert (len(picture.strays), picture.unmatched.tolist()) == (1, [True])


def test_masks_to_learn_are_tinted_where_their_cells_are():
    sample = dataclasses.replace(make_sample([(16, 16, 48, 48)]), masks={0: np.zeros((64, 64), np.uint8)})
    sample.masks[0][16:32, 16:48] = 255  # the upper half
    tile = draw(sample, MaskTargets(size=4))
    assert (tile.image[20:28, 20:28, 2] > 100).all()
    assert not tile.image[36:44, 36:44].any()


def test_a_users_own_target_says_how_it_is_drawn():
    class Heatmap:
        def __call__(self, sample):
            heat = np.zeros((4, 4, 1), np.float32)
            heat[1, 2] = 1
            return {"heat": heat}

        def show(self, picture, x, y):
            picture.heat(y["heat"][..., 0])
            picture.points(np.array([[8, 8]]))
            picture.note("a peak")

    tile = draw(make_sample([(32, 16, 48, 32)]), Heatmap())
    assert (tile.image[20:28, 36:44, 2] > 150).all()
    assert count(tile.image[:16, :16], WHITE) > 9
    assert tile.caption == ("image 7: 1 object", "a peak")
    assert count(tile.image, RED) == 0 and not tile.alert  # it names no positives


@pytest.mark.parametrize(("reason", "by_mask"), [(IgnoreReason.CROWD, True), (IgnoreReason.HIDDEN, False)])
def test_region_is_hatched_where_it_counts_by_its_mask_or_its_box(reason, by_mask):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    sample = make_sample([(0, 0, 64, 64)], [True])
    sample = dataclasses.replace(sample, masks={0: mask}, ignore_reasons=np.array([reason], np.uint8))
    tile = draw(sample, AnchorTargets(GRID, num_samples=1))
    assert (count(tile.image[4:-4, 36:-4], PURPLE) == 0) == by_mask


def test_labels_name_the_class_and_why_a_region_is_ignored_and_none_lies_on_another():
    sample = dataclasses.replace(
        make_sample([(2, 20, 60, 60), (4, 22, 58, 58)], [False, True]), ignore_reasons=np.array([0, 7], np.uint8)
    )
    truth = truth_of(sample, ("Küche",))
    assert truth.labels == ["Küche", "Küche: ignored, hidden"]
    picture = Picture(sample.image, sample.input_hw, truth)
    assert count(picture.tile(8).image, YELLOW) > 0


def test_keypoints_are_drawn_where_they_are_labelled():
    points = np.array([[[10, 10, 2], [40, 40, 0]]], np.float32)
    sample = dataclasses.replace(make_sample([(0, 0, 64, 64)]), keypoints=points)
    tile = draw(sample, PaddedBoxes(1))
    assert tile.image[10, 10].tolist() == list(YELLOW)
    assert tile.image[40, 40].tolist() == list(BLACK)
