"""Charts: what they count."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from detfeed import AnchorGrid, ShortSide, check
from detfeed.report import charts
from tables import clean

BOXES = st.lists(
    st.tuples(st.floats(0, 19), st.floats(0, 9), st.floats(0.5, 20), st.floats(0.5, 10)).map(
        lambda b: (b[0], b[1], min(b[0] + b[2], 20), min(b[1] + b[3], 10))
    ),
    max_size=6,
    unique=True,
)


@hypothesis.given(BOXES)
def test_a_cell_has_the_share_of_objects_that_cover_its_centre(boxes):
    table = clean(boxes)  # on an image of 10 x 20
    shares = charts.covered_shares(table, cells=5)
    for y in range(5):
        for x in range(5):
            centre = (x + 0.5) * 4, (y + 0.5) * 2
            inside = [
                x0 <= centre[0] < x1 and y0 <= centre[1] < y1 for x0, y0, x1, y1 in table.boxes.astype(float).tolist()
            ]
            assert shares[y, x] == pytest.approx(np.mean(inside) if inside else 0)


def test_ignored_boxes_are_no_objects_of_any_chart(make_set):
    box = [10, 10, 20, 20]
    read = make_set([[(1, box), (2, [1, 1, 50, 50])], []], crowds={(0, (1, 1, 50, 50))})
    checked = check(read, resize=ShortSide(60)).checked
    counts = {row["class"]: row["objects"] for row in charts.class_bars(checked)["spec"]["data"]["values"]}
    assert counts == {"cat": 1, "dog": 0}
    grid = AnchorGrid.fpn()
    for one in (charts.size_lines(checked, grid), charts.ratio_lines(checked, grid)):
        rows = one["spec"]["data"]["values"]
        assert sum(row["objects"] for row in rows) == 1
        assert sum(row["share"] for row in rows) == pytest.approx(1)
    images = {row["objects"]: row["images"] for row in charts.count_bars(checked)["spec"]["data"]["values"]}
    assert images == {"0": 1, "1": 1}


@hypothesis.given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30))
def test_every_value_is_in_one_range(values):
    chart = charts._log_histogram("", "", {"train": np.array(values, np.float32)}, [], "")
    assert sum(row["objects"] for row in chart["spec"]["data"]["values"]) == len(values)
