"""Drawing: what stands where in the pictures, and that it is what is fed."""

import dataclasses
from pathlib import Path

import albumentations
import numpy as np
import pytest

from detfeed import AnchorGrid, AnchorTargets, BatchLoader, Sample, ShortSide, drawing, make_shapes, read_coco
from detfeed.drawing import BLUE, DARK, GREY, PURPLE, RED, WHITE, YELLOW, Tile
from detfeed.images.decoding import read_image

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


def draw(sample: Sample, targets: AnchorTargets, *, side: int = 64) -> Tile:
    matches = targets.match(sample)
    return drawing.draw_anchors(
        sample, targets.anchors.anchors(sample.input_hw), matches, targets(sample)[1], side=side
    )


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=2).sum())


def test_image_without_boxes_shows_a_dot_on_each_sampled_negative_and_nothing_else():
    tile = draw(make_sample(), AnchorTargets(GRID, num_samples=3))
    assert count(tile.image, WHITE) == 3 * 9
    assert count(tile.image, DARK) == 3 * 16
    assert count(tile.image, BLACK) == 64 * 64 - 3 * 25
    assert tile.caption == (
        "image 7: 0 objects, 0 unmatched, 0 ignored regions",
        "sampled 0 of 0 positive anchors (0 low-quality), 3 negative; 0 ignored",
    )
    assert not tile.alert


def test_image_whose_boxes_are_all_ignored_shows_hatching_and_no_object():
    tile = draw(make_sample([(0, 0, 64, 64)], [True]), AnchorTargets(GRID))
    assert count(tile.image, PURPLE) > 64 * 64 / 8
    for colour in (WHITE, BLUE, YELLOW, RED):
        assert count(tile.image, colour) == 0
    assert tile.caption[0] == "image 7: 0 objects, 0 unmatched, 1 ignored region"
    assert tile.caption[1].endswith("0 negative; 16 ignored")
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


def test_outline_is_inside_the_box_up_to_its_edge_between_dark_lines():
    image = np.zeros((20, 30, 3), np.uint8)
    drawing.draw_boxes(image, np.array([[5, 4, 25, 16]], np.float32), YELLOW, thickness=2)
    middle = [tuple(pixel) for pixel in image[10].tolist()]
    left = [BLACK] * 4 + [DARK, YELLOW, YELLOW, DARK]
    assert middle == left + [BLACK] * 14 + left[::-1]
    column = [tuple(pixel) for pixel in image[:, 15].tolist()]
    top = [BLACK] * 3 + [DARK, YELLOW, YELLOW, DARK]
    assert column == top + [BLACK] * 6 + top[::-1]


def test_zoom_moves_the_edges_and_keeps_the_lines_thin():
    image = np.zeros((40, 40, 3), np.uint8)
    drawing.draw_boxes(image, np.array([[2, 2, 8, 8]], np.float32), YELLOW, zoom=4)
    columns = np.flatnonzero((image[20] == YELLOW).all(axis=1))
    assert columns.tolist() == [8, 31]


def test_box_smaller_than_a_pixel_is_one_pixel():
    image = np.zeros((9, 9, 3), np.uint8)
    drawing.draw_boxes(image, np.array([[4.1, 4.1, 4.3, 4.3]], np.float32), RED, thickness=3)
    assert np.argwhere((image == RED).all(axis=2)).tolist() == [[4, 4]]


def test_no_box_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    before = image.copy()
    none = np.zeros((0, 4), np.float32)
    drawing.draw_boxes(image, none, RED, edge=0.45)
    drawing.hatch_boxes(image, none, RED)
    drawing.draw_dots(image, none[:, :2], RED)
    np.testing.assert_array_equal(image, before)


def test_soft_edge_is_between_the_image_and_the_dark_line():
    image = np.full((9, 9, 3), 225, np.uint8)
    drawing.draw_boxes(image, np.array([[2, 2, 7, 7]], np.float32), BLUE, edge=0.5)
    assert image[4, 1].tolist() == [125] * 3
    assert image[4, 2].tolist() == list(BLUE)
    assert image[4, 4].tolist() == [225] * 3


def test_matched_box_is_yellow_and_its_anchors_are_tied_to_it():
    # Half on one anchor, half on the one below: an IoU of a third with either, the best there is.
    tile = draw(make_sample([(16, 24, 32, 40)]), AnchorTargets(GRID, num_samples=2, positive_fraction=1))
    assert tile.image[30, 16].tolist() == list(YELLOW)
    # On the way from the anchors' centres, (24, 24) and (24, 40), to the box's, (24, 32).
    assert tile.image[28, 24].tolist() == list(BLUE)
    assert tile.image[36, 24].tolist() == list(BLUE)
    assert count(tile.image, RED) == 0
    assert tile.caption[1] == "sampled 2 of 2 positive anchors (2 low-quality), 0 negative; 0 ignored"
    assert not tile.alert


def test_unmatched_box_is_red_and_raises_an_alert():
    # Both boxes have the same best anchor, which matches the larger one; nothing is left for the smaller.
    sample = make_sample([(16, 16, 32, 32), (20, 20, 28, 28)])
    targets = AnchorTargets(GRID)
    assert drawing.unmatched_boxes(sample, targets.match(sample)).tolist() == [False, True]
    tile = draw(sample, targets)
    assert tile.image[24, 20].tolist() == list(RED)
    assert tile.image[19, 16].tolist() == list(YELLOW)
    assert tile.caption[0] == "image 7: 2 objects, 1 unmatched, 0 ignored regions"
    assert tile.alert


def test_ignored_region_that_no_anchor_matches_is_not_an_unmatched_object():
    sample = make_sample([(16, 16, 32, 32), (20, 20, 28, 28)], [False, True])
    assert not drawing.unmatched_boxes(sample, AnchorTargets(GRID).match(sample)).any()


def test_padding_is_hatched_and_without_dots():
    tile = draw(make_sample(image_hw=(64, 32)), AnchorTargets(GRID))
    padding = tile.image[:, 32 + 8 :]
    assert count(padding, drawing.PADDING) + count(padding, DARK) == padding.shape[0] * padding.shape[1]
    assert tile.caption[1].endswith("8 negative; 8 ignored")


@pytest.mark.parametrize(
    ("input_hw", "expected"), [((64, 48), (640, 480)), ((300, 200), (600, 400)), ((1280, 640), (640, 320))]
)
def test_small_images_grow_by_whole_numbers_and_large_ones_shrink_to_the_side(input_hw, expected):
    tile = draw(make_sample(image_hw=input_hw, input_hw=input_hw), AnchorTargets(GRID), side=640)
    assert tile.image.shape == (*expected, 3)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> BatchLoader:
    path = make_shapes(tmp_path_factory.mktemp("shapes"), num_images=12, seed=3)
    return BatchLoader(
        read_coco(path, path.parent / "images"),
        AnchorTargets(AnchorGrid.fpn()),
        batch_size=4,
        resize=ShortSide(120),
        augment=albumentations.HorizontalFlip(p=0.5),
        seed=5,
    )


def test_drawn_anchors_and_image_are_those_of_the_batch_fed(loader: BatchLoader):
    targets = loader.targets
    for index, positions in enumerate(loader.batches(2)):
        x, fed = loader.load(2, index)
        for row, position in enumerate(positions.tolist()):
            sample = loader.load_sample(2, position)
            _, y = targets(sample)
            for name in fed:
                np.testing.assert_array_equal(y[name], fed[name][row])
            height, width = x["image_hw"][row]
            np.testing.assert_array_equal(sample.image, x["image"][row, :height, :width])


def test_dots_are_the_negatives_of_the_batch_fed(loader: BatchLoader):
    annotations = loader.annotations
    empty = next(p for p in range(len(annotations)) if not len(annotations.boxes[annotations.rows(p)]))
    index, row = next(
        (i, int(np.flatnonzero(batch == empty)[0])) for i, batch in enumerate(loader.batches(0)) if empty in batch
    )
    _, fed = loader.load(0, index)
    sample = loader.load_sample(0, empty)
    # Black, so that white is nothing but dots.
    sample.image[:] = 0
    anchors = loader.targets.anchors.anchors(sample.input_hw)
    tile = drawing.draw_anchors(
        sample, anchors, loader.targets.match(sample), loader.targets(sample)[1], side=max(sample.input_hw)
    )
    expected = np.zeros(tile.image.shape[:2], bool)
    for x0, y0, x1, y1 in anchors[fed["anchor_index"][row]]:
        x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
        expected[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
    np.testing.assert_array_equal((tile.image == WHITE).all(axis=2), expected)


def test_without_proposals_every_object_is_missed():
    none = np.zeros((0, 4), np.float32)
    image = np.zeros((32, 32, 3), np.uint8)
    truth = np.array([[4, 4, 20, 20]], np.float32)
    tile = drawing.draw_proposals(image, none, np.zeros(0, np.float32), truth, side=32)
    assert tile.image[12, 4].tolist() == list(RED)
    assert tile.caption == ("0 of 1 object found by the best 0 proposals",)


def test_without_objects_every_proposal_is_on_none():
    image = np.zeros((32, 32, 3), np.uint8)
    boxes = np.array([[4, 4, 20, 20]], np.float32)
    tile = drawing.draw_proposals(image, boxes, np.ones(1, np.float32), np.zeros((0, 4), np.float32), side=32)
    assert tile.image[12, 4].tolist() == list(GREY)
    assert tile.caption == ("0 of 0 objects found by the best 1 proposal",)


def test_only_the_best_proposals_count():
    image = np.zeros((64, 64, 3), np.uint8)
    truth = np.array([[2, 2, 22, 22], [40, 40, 60, 60]], np.float32)
    boxes = np.array([[41, 41, 61, 61], [4, 4, 24, 24], [2, 40, 22, 60]], np.float32)
    scores = np.array([0.1, 0.9, 0.5], np.float32)
    tile = drawing.draw_proposals(image, boxes, scores, truth, top=2, side=64)
    assert tile.image[12, 4].tolist() == list(BLUE)
    assert tile.image[18, 2].tolist() == list(YELLOW)
    assert tile.image[50, 40].tolist() == list(RED)
    assert tile.image[50, 2].tolist() == list(GREY)
    assert tile.caption == ("1 of 2 objects found by the best 2 proposals",)


def test_sheet_without_tiles_is_its_legend():
    sheet = drawing.contact_sheet([], legend=drawing.ANCHOR_KEYS)
    for key in drawing.ANCHOR_KEYS:
        assert count(sheet, key.colour) > 0


def test_sheet_puts_tiles_of_any_size_side_by_side_without_a_change():
    sizes = [(40, 300), (70, 200), (50, 300)]
    tiles = [Tile(np.full((*hw, 3), (100 + n, 0, 0), np.uint8), ("caption",)) for n, hw in enumerate(sizes)]
    sheet = drawing.contact_sheet(tiles, columns=2)
    for tile, (row, column) in zip(tiles, [(0, 0), (0, 1), (1, 0)], strict=True):
        places = np.argwhere((sheet == tile.image[0, 0]).all(axis=2))
        assert (places.max(axis=0) - places.min(axis=0) + 1).tolist() == list(tile.image.shape[:2])
        assert len(places) == tile.image.shape[0] * tile.image.shape[1]
        assert (places.min(axis=0) > [row * 70, column * 300]).all()


def test_caption_of_an_alert_is_red():
    picture = np.zeros((10, 300, 3), np.uint8)
    calm, alarmed = (drawing.contact_sheet([Tile(picture, ("HHHH",), alert)]).astype(int) for alert in (False, True))
    assert (calm[..., 0] == calm[..., 1]).all()
    assert (alarmed[..., 0] > alarmed[..., 1] + 100).any()


def test_png_reads_back_as_it_was_written(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    drawing.write_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), image)


def test_png_that_cannot_be_written_raises(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        drawing.write_png(tmp_path / "file" / "a.png", np.zeros((2, 2, 3), np.uint8))
