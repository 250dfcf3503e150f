import numpy as np

from tables import draft

RUNS = np.int32([200])


def test_draft_without_images_or_boxes_is_ordinary():
    for sizes in ((), [(10, 20)]):
        empty = draft([], sizes=sizes).without_left_out().by_image()
        assert (len(empty.paths), empty.boxes.shape, empty.file_rows.tolist()) == (len(sizes), (0, 4), [])
    assert draft([[0, 0, 1, 1]], left_out=[0]).without_left_out().by_image().boxes.shape == (0, 4)


def test_boxes_are_sorted_by_image_in_the_order_of_the_file_and_those_of_none_are_left_out():
    boxes = [[row, 0, row + 1, 1] for row in range(5)]
    areas = np.arange(5.0)
    given = draft(boxes, positions=[1, -1, 0, 1, 0], sizes=[(10, 20)] * 2, areas=areas, masks={1: RUNS, 3: RUNS})
    by_image = given.by_image()
    assert by_image.boxes[:, 0].tolist() == by_image.areas.tolist() == by_image.file_rows.tolist() == [2, 4, 0, 3]
    assert by_image.positions.tolist() == [0, 0, 1, 1]
    assert list(by_image.masks) == [3]
    again = by_image.take(np.array([3, 1]))
    assert again.file_rows.tolist() == [3, 4]
    assert list(again.masks) == [0]


def test_images_that_are_left_out_take_boxes_and_pairs_with_them_and_others_move_up():
    pairs = {"neg_classes": np.int32([[2, 1], [0, 0], [1, 1]])}
    given = draft(
        [[0, 0, 1, 1]] * 4, positions=[2, 1, -1, 0], sizes=[(1, 2), (3, 4), (5, 6)], pairs=pairs, left_out={1}
    )
    left = given.without_left_out()
    assert left.paths == ["0.png", "2.png"]
    assert left.image_ids.tolist() == [0, 2]
    assert left.image_hw.tolist() == [[1, 2], [5, 6]]
    assert left.positions.tolist() == [1, -1, -1, 0]
    assert left.pairs["neg_classes"].tolist() == [[1, 1], [0, 0]]
    assert left.pairs["neg_classes"].dtype == np.int32
    assert not left.left_out
    assert left.without_left_out() is left
