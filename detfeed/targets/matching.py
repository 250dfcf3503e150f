"""Matching: which anchors show an object, which show background, and which neither.

The IoU of every anchor with every box is never computed. Anchors of one shape lie on a grid, so the anchor of that
shape with the highest IoU is the one nearest to the box, and the anchors that share enough with the box fill a window
of the grid. Both have a closed form. Only the anchors in these windows are looked at.

Overlaps are computed in float64 from shapes and grid steps, and IoUs are compared as float32. So two anchors that hold
a box entirely, or that lie on it alike, are equally good, whatever rounding does to their corners.

Letters in shapes: A anchors, N boxes, S anchor shapes, P positives.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes
from detfeed.masks import covered_grid, sum_mask
from detfeed.targets.anchors import AnchorGrid

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


class AnchorMatches(NamedTuple):
    """The answer of `match_anchors`.

    Attributes:
        states: int8 (A,), POSITIVE 1, NEGATIVE 0 or IGNORED -1.
        positive: int64 (P,), indices of the positive anchors, ascending.
        match: int64 (P,), for each positive anchor the row of its box in `boxes`.
        iou: float32 (P,), its IoU with that box; below `positive_iou` for low-quality positives.
    """

    states: NDArray[np.int8]
    positive: Ints
    match: Ints
    iou: Floats32


class _Shapes(NamedTuple):
    """The S anchor shapes of a grid on an input, level by level; x before y where there are two."""

    low: Floats  # [2, S], corners of the anchor in row 0, column 0
    high: Floats  # [2, S]
    size: Floats  # [2, S]
    area: Floats  # [S]
    step: Floats  # [S], pixels from one anchor to the next, the same in x and y
    cells: Ints  # [2, S], columns and rows
    first: Ints  # [S], index of the anchor in row 0, column 0
    stride: Ints  # [2, S], what one column and one row add to that index
    num_anchors: int

    def anchor(self, shape: Ints | int, x: Ints, y: Ints) -> Ints:
        """Indices of the anchors of a shape, or of one shape each, in columns x and rows y."""
        return self.first[shape] + x * self.stride[0, shape] + y * self.stride[1, shape]


@functools.lru_cache(maxsize=64)
def _shapes(grid: AnchorGrid, height: int, width: int) -> _Shapes:
    cells = [grid.cell_anchors(level) for level in range(grid.num_levels)]
    level = np.repeat(np.arange(grid.num_levels), grid.num_cell_anchors)  # [S]
    corners = np.concatenate(cells).T  # [4, S]
    low, high = corners[:2], corners[2:]
    features = np.array(grid.feature_hw((height, width)))  # [L, 2]
    per_level = np.array(grid.num_anchors_per_level((height, width)))  # [L]
    k = np.array(grid.num_cell_anchors)[level]  # [S], anchors a cell
    return _Shapes(
        low=low,
        high=high,
        size=high - low,
        area=np.prod(high - low, axis=0),
        step=np.array(grid.strides, np.float64)[level],
        cells=features[level].T[::-1],
        first=(np.cumsum(per_level) - per_level)[level] + np.concatenate([np.arange(len(c)) for c in cells]),
        stride=np.stack([k, k * features[level, 1]]),
        num_anchors=int(per_level.sum()),
    )


def match_anchors(
    grid: AnchorGrid,
    boxes: Boxes,
    *,
    input_hw: tuple[int, int],
    image_hw: tuple[int, int] | None = None,
    ignore: NDArray[np.bool_] | None = None,
    masks: Mapping[int, NDArray[np.uint8]] | None = None,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    low_quality: bool = True,
    ignore_ioa: float = 0.5,
    straddle: float | None = None,
) -> AnchorMatches:
    """Decide for every anchor whether it shows an object, and which one.

    An anchor is positive if its best IoU is at least `positive_iou`, or (with `low_quality`) if no anchor has a higher
    IoU with some box, ties included, as long as that IoU is above 0. It is negative if its IoU with every box is below
    `negative_iou`, and ignored otherwise. The box of a positive anchor is the one of its highest IoU, the first among
    equals, even if another box made it positive. Ignore regions turn negatives to ignored, never positives.

    Args:
        grid: the anchors.
        boxes: float32 (N, 4), xyxy pixels of the input, inside the image; N may be 0. That they lie inside is trusted,
            and promised by `Sample`. A box without area matches nothing.
        input_hw: height and width of the input (the canvas) in pixels.
        image_hw: height and width of the true image in the input's top left corner; anchors centred outside it are
            ignored and take no part in matching. None: the image fills the input, and every anchor takes part.
        ignore: bool (N,), True for boxes that are ignore regions rather than objects. None: no box is.
        masks: by row of `boxes`, the masks of ignore regions: uint8 (H, W) at the size of the true image, 0 to 255 for
            the share of a pixel that belongs to the region. A mask counts instead of its box.
        positive_iou, negative_iou: the thresholds, 0 < negative_iou <= positive_iou.
        low_quality: whether the best anchors of a box are positive whatever their IoU.
        ignore_ioa: an anchor is ignored if an ignore region covers at least this share of it.
        straddle: pixels by which an anchor may reach out of the true image before it is ignored. None: any number.

    Source: Ren et al. 2015, section 3.1.2. Agrees with torchvision's Matcher wherever every box overlaps some anchor.
        There, a box with IoU 0 with every anchor makes every anchor positive; here it makes none positive.
    """
    limit_hw = input_hw if image_hw is None else image_hw
    shapes = _shapes(grid, int(input_hw[0]), int(input_hw[1]))
    allowed = _allowed(shapes, image_hw, limit_hw, straddle)
    corners = boxes.astype(np.float64)  # [N, 4]
    is_region = np.zeros(len(boxes), bool) if ignore is None else ignore
    objects = np.flatnonzero(~is_region & (corners[:, 2:] > corners[:, :2]).all(axis=1))

    states = np.zeros(shapes.num_anchors, np.int8)
    positive = match = np.zeros(0, np.int64)
    iou = np.zeros(0, np.float32)
    if len(objects):
        found = _find(shapes, allowed, corners[objects], negative_iou, low_quality)
        enough = found.iou >= np.float32(negative_iou)
        states[found.anchor[enough]] = IGNORED
        good = found.iou >= np.float32(positive_iou)
        if low_quality:
            good |= found.iou >= found.highest[found.box]
        positive = np.unique(found.anchor[good])
        states[positive] = POSITIVE
        best, iou = _best_boxes(found, enough, positive, grid.anchors(input_hw), corners[objects])
        match = objects[best]
    for row in np.flatnonzero(is_region):
        _ignore_region(shapes, states, corners[row], ignore_ioa, None if masks is None else masks.get(int(row)))
    _ignore_rest(shapes, states, allowed)
    return AnchorMatches(states, positive, match, iou)


def _allowed(
    shapes: _Shapes, image_hw: tuple[int, int] | None, limit_hw: tuple[int, int], straddle: float | None
) -> Ints:
    """First and last column and row of the anchors that take part; int64 (2, 2, S): first or last, x or y."""
    first, last = np.zeros_like(shapes.cells), shapes.cells - 1  # [2, S]
    if image_hw is not None:
        # Centred inside: low + high + 2 * step * cell < 2 * side. A centre on the edge, give or take rounding, is
        # outside.
        side = np.array([[image_hw[1]], [image_hw[0]]])  # [2, 1]
        inside = np.ceil((2 * side - shapes.low - shapes.high) / (2 * shapes.step) - 1e-9) - 1
        last = np.minimum(last, inside.astype(np.int64))
    if straddle is not None:
        side = np.array([[limit_hw[1]], [limit_hw[0]]])
        first = np.maximum(first, np.ceil((-straddle - shapes.low) / shapes.step - 1e-9).astype(np.int64))
        last = np.minimum(last, np.floor((side + straddle - shapes.high) / shapes.step + 1e-9).astype(np.int64))
    # No cell at all is from 0 to -1 or the like, never a number that a slice would count from the end.
    return np.stack([np.minimum(first, shapes.cells), np.maximum(last, -1)])


class _Found(NamedTuple):
    """M overlaps of an anchor and a box, by ascending box, and the highest of each of the N boxes."""

    anchor: Ints  # [M]
    box: Ints  # [M]
    iou: Floats32  # [M]
    highest: Floats32  # [N]


def _find(shapes: _Shapes, allowed: Ints, boxes: Floats, threshold: float, low_quality: bool) -> _Found:
    """All IoUs of at least `threshold`; with `low_quality` also those as high as the highest of their box.

    Letters in shapes: W pairs of a box and an anchor shape, X and Y columns and rows of their windows, C cells of
    these, M cells that are kept.
    """
    best = _best_of_shapes(shapes, allowed, boxes)
    highest = best.iou.max(axis=1)  # [N]
    least = np.full(len(boxes), threshold, np.float32)  # [N]
    if low_quality:
        least = np.minimum(least, highest)

    box, shape = np.nonzero((best.iou >= least[:, None]) & (best.iou > 0))  # [W], by box
    areas = best.areas[box, shape]  # [W]
    # An IoU of t needs a shared area of t / (1 + t) times the sum of both areas. No anchor of the shape overlaps the
    # box more in y than the best one, so that area needs a certain overlap in x; likewise in y. A millionth is for
    # rounding.
    t = least[box].astype(np.float64) * (1 - 1e-6)
    shared = t / (1 + t) * areas
    columns = _window(shapes, allowed, boxes, box, shape, axis=0, needed=shared / best.overlap[1, box, shape])  # X
    rows = _window(shapes, allowed, boxes, box, shape, axis=1, needed=shared / best.overlap[0, box, shape])  # Y

    row, column = _cross(rows, columns)  # [C]
    shared = rows.overlap[row] * columns.overlap[column]
    iou = (shared / (areas[rows.pair][row] - shared)).astype(np.float32)
    kept = np.flatnonzero(iou >= least[box][rows.pair][row])  # [M]
    row, column = row[kept], column[kept]
    pair = rows.pair[row]
    anchor = shapes.anchor(shape[pair], columns.cell[column], rows.cell[row])
    return _Found(anchor, box[pair], iou[kept], highest)


class _Best(NamedTuple):
    """Of each box and anchor shape the anchor that overlaps the box most."""

    overlap: Floats  # [2, N, S], pixels shared in x and in y; 0 if no anchor of the shape takes part
    areas: Floats  # [N, S], area of the box plus area of the anchor
    iou: Floats32  # [N, S]


def _best_of_shapes(shapes: _Shapes, allowed: Ints, boxes: Floats) -> _Best:
    """The nearest anchor of each shape, which has the highest overlap of that shape both in x and in y."""
    low, high = boxes.T[:2, :, None], boxes.T[2:, :, None]  # [2, N, 1]
    first, last = allowed[:, :, None]  # [2, 1, S]
    # Where box and anchor have the same centre, in cells.
    wanted = (low + high - (shapes.low + shapes.high)[:, None]) / (2 * shapes.step)  # [2, N, S]
    shift = shapes.step * np.minimum(np.maximum(np.rint(wanted), first), last)  # [2, N, S]
    most = np.minimum(shapes.size[:, None], high - low)  # [2, N, S]
    overlap = _overlap(most, shapes.low[:, None] + shift, shapes.high[:, None] + shift, low, high)  # [2, N, S]
    overlap *= (allowed[0] <= allowed[1]).all(axis=0)
    np.maximum(overlap, 0, out=overlap)
    areas = shapes.area + np.prod(high - low, axis=0)  # [N, S]
    shared = overlap[0] * overlap[1]  # [N, S]
    return _Best(overlap, areas, (shared / (areas - shared)).astype(np.float32))


class _Window(NamedTuple):
    """The columns, or the rows, of the windows of W pairs, pair after pair: X of them in all."""

    cell: Ints  # [X], number of the column
    pair: Ints  # [X], its pair
    overlap: Floats  # [X], pixels shared in this direction
    starts: Ints  # [W], where each pair's columns start among the X
    counts: Ints  # [W], how many they are


def _window(
    shapes: _Shapes, allowed: Ints, boxes: Floats, box: Ints, shape: Ints, *, axis: int, needed: Floats
) -> _Window:
    """The columns (axis 0) or rows (axis 1) in which the anchors of each of W pairs overlap by at least `needed`."""
    low, high = boxes[box, axis], boxes[box, axis + 2]  # [W]
    step = shapes.step[shape]  # [W]
    anchor_low, anchor_high = shapes.low[axis, shape], shapes.high[axis, shape]  # [W]
    # One cell too many costs nothing, one too few would be wrong: the window is wider than rounding can make it narrow.
    first = np.ceil((low + needed - anchor_high) / step - 1e-6).astype(np.int64)
    last = np.floor((high - needed - anchor_low) / step + 1e-6).astype(np.int64)
    first = np.maximum(first, allowed[0, axis, shape])
    count = np.maximum(np.minimum(last, allowed[1, axis, shape]) - first + 1, 0)  # [W]
    start = np.cumsum(count) - count  # [W]
    pair = np.repeat(np.arange(len(box)), count)  # [X]
    cell = np.arange(len(pair)) - np.repeat(start - first, count)  # [X]
    shift = step[pair] * cell
    most = np.minimum(shapes.size[axis, shape], high - low)  # [W]
    overlap = _overlap(most[pair], anchor_low[pair] + shift, anchor_high[pair] + shift, low[pair], high[pair])
    return _Window(cell, pair, np.maximum(overlap, 0), start, count)


def _cross(rows: _Window, columns: _Window) -> tuple[Ints, Ints]:
    """Every row of a window with every column of it: places in `rows` and in `columns`, int64 (C,) each."""
    count = columns.counts[rows.pair]  # [Y], columns that go with each row
    start = np.cumsum(count) - count  # [Y], where the cells of each row start among the C
    row = np.repeat(np.arange(len(count)), count)  # [C]
    column = np.arange(len(row)) + np.repeat(columns.starts[rows.pair] - start, count)  # [C]
    return row, column


def _overlap(most: Floats, anchor_low: Floats, anchor_high: Floats, low: Floats, high: Floats) -> Floats:
    """Pixels that two intervals share, at most `most`, the length of the shorter one; negative for a gap between them.

    Where one interval holds the other, `most` is exact; a difference of corners would be off by their rounding.
    """
    return np.minimum(most, np.minimum(anchor_high - low, high - anchor_low))


def _best_boxes(
    found: _Found, enough: NDArray[np.bool_], positive: Ints, anchors: Boxes, boxes: Floats
) -> tuple[Ints, Floats32]:
    """The box of highest IoU of each positive anchor, the first among equals.

    Args:
        enough: bool (M,), whether an overlap reaches the negative threshold.
        positive: int64 (P,), ascending.

    Returns:
        int64 (P,), rows of `boxes`, and float32 (P,), the IoUs.
    """
    place = np.searchsorted(positive, found.anchor)  # [M]
    mine = np.flatnonzero(enough & (np.append(positive, -1)[place] == found.anchor))[::-1]
    # In order of rising IoU, and of falling box among equals: the last one written to a place stays there.
    order = mine[np.argsort(found.iou[mine], kind="stable")]
    best = np.full(len(positive), -1)  # [P]
    iou = np.zeros(len(positive), np.float32)
    best[place[order]] = found.box[order]
    iou[place[order]] = found.iou[order]
    # Below the negative threshold not all overlaps were found, so the rest are compared with every box.
    rest = np.flatnonzero(best < 0)
    if len(rest):
        overlaps = geometry.iou(anchors[positive[rest]], boxes.astype(np.float32))  # [rest, N]
        best[rest] = overlaps.argmax(axis=1)
        iou[rest] = overlaps[np.arange(len(rest)), best[rest]]
    return best, iou


def _ignore_region(
    shapes: _Shapes, states: NDArray[np.int8], region: Floats, ignore_ioa: float, mask: NDArray[np.uint8] | None
) -> None:
    """Set to IGNORED the negative anchors of which `region`, float64 (4,), or its mask covers at least that share."""
    sums = None if mask is None else sum_mask(mask)
    region = region if sums is None else sums.box
    # A share that float32 rounds to the threshold reaches it.
    threshold = np.float32(ignore_ioa)
    least = (float(threshold) + float(np.nextafter(threshold, np.float32(0)))) / 2
    for shape in range(len(shapes.area)):
        # An anchor that is covered by some share is so by at least that share in x, and in y.
        needed = least * (1 - 1e-6) * shapes.size[:, shape]  # [2]
        x, y = (_cells_on(shapes, shape, region, needed[axis], axis) for axis in (0, 1))  # [X], [Y]
        if len(x) == 0 or len(y) == 0:
            continue
        edges_x, edges_y = (_edges(shapes, shape, cells, axis) for axis, cells in ((0, x), (1, y)))
        if sums is not None:
            covered = covered_grid(sums, edges_x, edges_y)  # [Y, X]
        else:
            most = np.minimum(shapes.size[:, shape], region[2:] - region[:2])  # [2]
            shared_x = np.maximum(_overlap(most[0], *edges_x, region[0], region[2]), 0)  # [X]
            shared_y = np.maximum(_overlap(most[1], *edges_y, region[1], region[3]), 0)  # [Y]
            covered = np.outer(shared_y, shared_x)  # [Y, X]
        plane = _plane(shapes, states, shape)[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        plane[(covered >= least * shapes.area[shape]) & (plane == NEGATIVE)] = IGNORED


def _cells_on(shapes: _Shapes, shape: int, region: Floats, needed: float, axis: int) -> Ints:
    """Columns (axis 0) or rows (axis 1) in which anchors of a shape overlap a region by at least `needed` pixels."""
    low, high, step = shapes.low[axis, shape], shapes.high[axis, shape], shapes.step[shape]
    first = math.ceil((region[axis] + needed - high) / step - 1e-6)
    last = math.floor((region[axis + 2] - needed - low) / step + 1e-6)
    return np.arange(max(first, 0), min(last + 1, int(shapes.cells[axis, shape])))


def _edges(shapes: _Shapes, shape: int, cells: Ints, axis: int) -> tuple[Floats, Floats]:
    """The two edges, in x (axis 0) or y (axis 1), of the anchors of a shape in some columns or rows."""
    shift = shapes.step[shape] * cells
    return shapes.low[axis, shape] + shift, shapes.high[axis, shape] + shift


def _plane(shapes: _Shapes, states: NDArray[np.int8], shape: int) -> NDArray[np.int8]:
    """The states of the anchors of a shape, a view of `states`, (rows, columns)."""
    columns, rows = shapes.cells[:, shape]
    start, (across, down) = int(shapes.first[shape]), shapes.stride[:, shape]
    return np.lib.stride_tricks.as_strided(states[start:], (rows, columns), (down, across))


def _ignore_rest(shapes: _Shapes, states: NDArray[np.int8], allowed: Ints) -> None:
    """Set to IGNORED the anchors that take no part."""
    if (allowed[0] == 0).all() and (allowed[1] == shapes.cells - 1).all():
        return
    for shape in range(len(shapes.area)):
        (first_x, first_y), (last_x, last_y) = allowed[:, :, shape]
        columns, rows = shapes.cells[:, shape]
        if first_x == first_y == 0 and last_x == columns - 1 and last_y == rows - 1:
            continue
        plane = _plane(shapes, states, shape)
        plane[:first_y] = plane[last_y + 1 :] = IGNORED
        plane[:, :first_x] = plane[:, last_x + 1 :] = IGNORED


COUNTS = ("positive", "low_quality", "unmatched", "ignored", "lost")


def count_matches(
    matches: AnchorMatches,
    boxes: Boxes,
    *,
    ignore: NDArray[np.bool_] | None = None,
    positive_iou: float = 0.7,
) -> NDArray[np.int32]:
    """Count the results of matching.

    Args:
        matches: the answer of `match_anchors`.
        boxes, ignore, positive_iou: as given to `match_anchors`: float32 (N, 4) inside the image, and bool (N,).

    Returns:
        int32 (5,), in the order of COUNTS: positive anchors; low-quality ones, which are positive below `positive_iou`
        because no anchor is better; objects with area that no positive anchor matches; ignored anchors; lost objects,
        which have no area.
    """
    objects = np.ones(len(boxes), bool) if ignore is None else ~ignore
    has_area = geometry.area(boxes) > 0
    matched = np.zeros(len(boxes), bool)
    matched[matches.match] = True
    return np.array(
        [
            len(matches.positive),
            (matches.iou < np.float32(positive_iou)).sum(),
            (objects & has_area & ~matched).sum(),
            (matches.states == IGNORED).sum(),
            (objects & ~has_area).sum(),
        ],
        np.int32,
    )
