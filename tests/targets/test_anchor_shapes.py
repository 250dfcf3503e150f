import numpy as np
import pytest

from detfeed import AnchorGrid
from detfeed.targets.anchor_shapes import shapes_of

GRIDS = [AnchorGrid.fpn(), AnchorGrid.c4(), AnchorGrid.keras_retinanet(),
         AnchorGrid(strides=(7, 3), cell_sizes_wh=(((9.5, 4.0),), ((3.0, 2.5), (1.0, 8.0))), offset=0.3)]  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("input_hw", [(1, 1), (5, 130), (96, 131)])
def test_places_undo_indices_and_edges_are_those_of_the_anchors(grid, input_hw):
    shapes = shapes_of(grid, *input_hw)
    anchors = grid.anchors(input_hw)
    every = np.arange(len(anchors))
    shape, x, y = shapes.places(every)
    np.testing.assert_array_equal(shapes.anchor(shape, x, y), every)
    assert (x < shapes.cells[0, shape]).all() and (y < shapes.cells[1, shape]).all()
    (left, right), (top, bottom) = shapes.edges(shape, x, axis=0), shapes.edges(shape, y, axis=1)
    np.testing.assert_array_equal(np.stack([left, top, right, bottom], axis=1).astype(np.float32), anchors)


@pytest.mark.parametrize("grid", GRIDS)
def test_planes_are_views_of_each_anchor_once(grid):
    shapes = shapes_of(grid, 40, 50)
    values = np.zeros(shapes.num_anchors, np.int8)
    for shape in range(len(shapes.area)):
        plane = shapes.plane(values, shape)
        plane += 1
        np.testing.assert_array_equal(plane.shape, shapes.cells[::-1, shape])
    assert (values == 1).all()


def test_no_anchors_have_no_places():
    assert [len(part) for part in shapes_of(GRIDS[0], 40, 50).places(np.zeros(0, np.int64))] == [0, 0, 0]
