"""Matching: which anchors show an object, which show background, and which neither.

The IoU of every anchor with every box is never computed. Anchors of one shape lie on a grid, so the anchor of that
shape with the highest IoU is the one nearest to the box, and the anchors that share enough with the box fill a window
of the grid. Both have a closed form. Only the anchors in these windows are looked at.

Overlaps are computed in float64 from shapes and grid steps, and IoUs are compared as float32. So two anchors that hold
a box entirely, or that lie on it alike, are equally good, whatever rounding does to their corners.

Letters in shapes: A anchors, N boxes, S anchor shapes, P positives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes
from detfeed.targets.anchor_shapes import AnchorShapes, Floats, Ints, shapes_of, shared_length
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.matches import IGNORED, POSITIVE, AnchorMatches
from detfeed.targets.regions import Regions

Floats32 = NDArray[np.float32]


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

    An anchor is what `match_objects` makes of it, but ignore regions turn negatives to ignored, never positives.

    Args:
        grid, boxes, input_hw, image_hw, ignore, positive_iou, negative_iou, low_quality, straddle: see `match_objects`.
        masks, ignore_ioa: see `Regions`.
    """
    matches = match_objects(
        grid,
        boxes,
        input_hw=input_hw,
        image_hw=image_hw,
        ignore=ignore,
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        low_quality=low_quality,
        straddle=straddle,
    )
    if ignore is not None:
        Regions(grid, boxes, ignore, input_hw=input_hw, masks=masks, ignore_ioa=ignore_ioa).hide(matches.states)
    return matches


def match_objects(
    grid: AnchorGrid,
    boxes: Boxes,
    *,
    input_hw: tuple[int, int],
    image_hw: tuple[int, int] | None = None,
    ignore: NDArray[np.bool_] | None = None,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    low_quality: bool = True,
    straddle: float | None = None,
) -> AnchorMatches:
    """Decide for every anchor whether it shows an object, and which one, whatever ignore regions cover.

    An anchor is positive if its best IoU is at least `positive_iou`, or (with `low_quality`) if no anchor has a higher
    IoU with some box, ties included, as long as that IoU is above 0. It is negative if its IoU with every box is below
    `negative_iou`, and ignored otherwise. The box of a positive anchor is the one of its highest IoU, the first among
    equals, even if another box made it positive.

    Args:
        grid: the anchors.
        boxes: float32 (N, 4), xyxy pixels of the input, inside the image; N may be 0. That they lie inside is trusted,
            and promised by `Sample`. A box without area matches nothing.
        input_hw: height and width of the input (the canvas) in pixels.
        image_hw: height and width of the true image in the input's top left corner; anchors centred outside it are
            ignored and take no part in matching. None: the image fills the input, and every anchor takes part.
        ignore: bool (N,), True for boxes that are ignore regions rather than objects. None: no box is.
        positive_iou, negative_iou: the thresholds, 0 < negative_iou <= positive_iou.
        low_quality: whether the best anchors of a box are positive whatever their IoU.
        straddle: pixels by which an anchor may reach out of the true image before it is ignored. None: any number.

    Source: Ren et al. 2015, section 3.1.2. Agrees with torchvision's Matcher wherever every box overlaps some anchor.
        There, a box with IoU 0 with every anchor makes every anchor positive; here it makes none positive.
    """
    shapes = shapes_of(grid, int(input_hw[0]), int(input_hw[1]))
    allowed = allowed_cells(shapes, input_hw, image_hw, straddle)
    corners = boxes.astype(np.float64)  # [N, 4]
    is_region = np.zeros(len(boxes), bool) if ignore is None else ignore
    objects = np.flatnonzero(~is_region & (corners[:, 2:] > corners[:, :2]).all(axis=1))

    states = np.zeros(shapes.num_anchors, np.int8)
    positive = match = np.zeros(0, np.int64)
    iou = np.zeros(0, np.float32)
    if len(objects):
        each = np.broadcast_to(allowed[:, :, None], (2, 2, len(objects), len(shapes.area)))
        best = best_of_shapes(shapes, each, corners[objects])
        found = find_overlaps(shapes, each, corners[objects], best, negative_iou, low_quality)
        enough = found.iou >= np.float32(negative_iou)
        states[found.anchor[enough]] = IGNORED
        good = found.iou >= np.float32(positive_iou)
        if low_quality:
            good |= found.iou >= found.highest[found.box]
        positive = distinct(found.anchor[good])
        states[positive] = POSITIVE
        row, iou = best_found(found, found.anchor, enough, positive)
        # Below the negative threshold not all overlaps were found, so the rest are compared with every box.
        rest = np.flatnonzero(row < 0)
        if len(rest):
            row[rest], iou[rest] = best_of_all(grid.anchors(input_hw)[positive[rest]], corners[objects])
        match = objects[row]
    _ignore_rest(shapes, states, allowed)
    return AnchorMatches(states, positive, match, iou)


def distinct(numbers: Ints) -> Ints:
    """As np.unique, in a third of the time for a few numbers."""
    numbers = np.sort(numbers)
    first = np.ones(len(numbers), bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return numbers[first]


def allowed_cells(
    shapes: AnchorShapes, input_hw: tuple[int, int], image_hw: tuple[int, int] | None, straddle: float | None
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
        height, width = input_hw if image_hw is None else image_hw
        side = np.array([[width], [height]])
        first = np.maximum(first, np.ceil((-straddle - shapes.low) / shapes.step - 1e-9).astype(np.int64))
        last = np.minimum(last, np.floor((side + straddle - shapes.high) / shapes.step + 1e-9).astype(np.int64))
    # No cell at all is from 0 to -1 or the like, never a number that a slice would count from the end.
    return np.stack([np.minimum(first, shapes.cells), np.maximum(last, -1)])


class Found(NamedTuple):
    """M overlaps of an anchor and a box, by ascending box, and the highest of each of the N boxes."""

    anchor: Ints  # [M]
    box: Ints  # [M]
    iou: Floats32  # [M]
    highest: Floats32  # [N]


def find_overlaps(
    shapes: AnchorShapes, allowed: Ints, boxes: Floats, best: BestOfShapes, threshold: float, low_quality: bool
) -> Found:
    """All IoUs of at least `threshold`; with `low_quality` also those as high as the highest of their box.

    Args:
        shapes: of the input that all boxes lie on; the boxes may be of several images that are fed on such an input.
        allowed: int64 (2, 2, N, S), for each box what `allowed_cells` says of its image.
        boxes: float64 (N, 4), with area.
        best: the answer of `best_of_shapes` for these.
        threshold, low_quality: see `match_objects`.

    Letters in shapes: W pairs of a box and an anchor shape, X and Y columns and rows of their windows, C cells of
    these, M cells that are kept.
    """
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
    needed = shared / best.overlap[::-1, box, shape]  # [2, W]
    columns, rows = _windows(shapes, allowed, boxes, box, shape, needed)  # X and Y

    row, column = _cross(rows, columns)  # [C]
    shared = rows.overlap[row] * columns.overlap[column]
    iou = (shared / (areas[rows.pair][row] - shared)).astype(np.float32)
    kept = np.flatnonzero(iou >= least[box][rows.pair][row])  # [M]
    row, column = row[kept], column[kept]
    pair = rows.pair[row]
    anchor = shapes.anchor(shape[pair], columns.cell[column], rows.cell[row])
    return Found(anchor, box[pair], iou[kept], highest)


class BestOfShapes(NamedTuple):
    """Of each box and anchor shape the anchor that overlaps the box most."""

    overlap: Floats  # [2, N, S], pixels shared in x and in y; 0 if no anchor of the shape takes part
    areas: Floats  # [N, S], area of the box plus area of the anchor
    iou: Floats32  # [N, S]


def best_of_shapes(shapes: AnchorShapes, allowed: Ints, boxes: Floats) -> BestOfShapes:
    """The nearest anchor of each shape, which has the highest overlap of that shape both in x and in y.

    Args:
        shapes, allowed, boxes: see `find_overlaps`.
    """
    low, high = boxes.T[:2, :, None], boxes.T[2:, :, None]  # [2, N, 1]
    first, last = allowed  # [2, N, S]
    # Where box and anchor have the same centre, in cells.
    wanted = (low + high - (shapes.low + shapes.high)[:, None]) / (2 * shapes.step)  # [2, N, S]
    shift = shapes.step * np.minimum(np.maximum(np.rint(wanted), first), last)  # [2, N, S]
    most = np.minimum(shapes.size[:, None], high - low)  # [2, N, S]
    overlap = shared_length(most, shapes.low[:, None] + shift, shapes.high[:, None] + shift, low, high)  # [2, N, S]
    overlap *= (allowed[0] <= allowed[1]).all(axis=0)
    np.maximum(overlap, 0, out=overlap)
    areas = shapes.area + np.prod(high - low, axis=0)  # [N, S]
    shared = overlap[0] * overlap[1]  # [N, S]
    return BestOfShapes(overlap, areas, (shared / (areas - shared)).astype(np.float32))


class _Window(NamedTuple):
    """The columns, or the rows, of the windows of W pairs, pair after pair: X of them in all."""

    cell: Ints  # [X], number of the column
    pair: Ints  # [X], its pair
    overlap: Floats  # [X], pixels shared in this direction
    starts: Ints  # [W], where each pair's columns start among the X
    counts: Ints  # [W], how many they are


def _windows(
    shapes: AnchorShapes, allowed: Ints, boxes: Floats, box: Ints, shape: Ints, needed: Floats
) -> tuple[_Window, _Window]:
    """The columns and the rows in which the anchors of each of W pairs overlap by at least `needed`, [2, W].

    Both at once, as 2 W pairs, since most of the time of so small arrays goes into the number of calls.
    """
    low, high = boxes[box, :2].T, boxes[box, 2:].T  # [2, W]
    step = shapes.step[shape]  # [W]
    anchor_low, anchor_high = shapes.low[:, shape], shapes.high[:, shape]  # [2, W]
    # One cell too many costs nothing, one too few would be wrong: the window is wider than rounding can make it narrow.
    first = np.ceil((low + needed - anchor_high) / step - 1e-6).astype(np.int64)
    last = np.floor((high - needed - anchor_low) / step + 1e-6).astype(np.int64)
    first = np.maximum(first, allowed[0][:, box, shape])
    count = np.maximum(np.minimum(last, allowed[1][:, box, shape]) - first + 1, 0).ravel()  # [2 W]
    start = count.cumsum() - count
    pair = np.arange(len(count)).repeat(count)  # [X + Y]
    cell = np.arange(len(pair)) - (start - first.ravel())[pair]
    most = np.minimum(shapes.size[:, shape], high - low)  # [2, W]
    edges = np.stack([most, anchor_low, anchor_high, low, high]).reshape(5, -1)[:, pair]  # [5, X + Y]
    shift = np.concatenate([step, step])[pair] * cell
    overlap = np.maximum(shared_length(edges[0], edges[1] + shift, edges[2] + shift, edges[3], edges[4]), 0)
    w = len(box)
    x = int(count[:w].sum())
    return (
        _Window(cell[:x], pair[:x], overlap[:x], start[:w], count[:w]),
        _Window(cell[x:], pair[x:] - w, overlap[x:], start[w:] - x, count[w:]),
    )


def _cross(rows: _Window, columns: _Window) -> tuple[Ints, Ints]:
    """Every row of a window with every column of it: places in `rows` and in `columns`, int64 (C,) each."""
    count = columns.counts[rows.pair]  # [Y], columns that go with each row
    start = np.cumsum(count) - count  # [Y], where the cells of each row start among the C
    row = np.repeat(np.arange(len(count)), count)  # [C]
    column = np.arange(len(row)) + np.repeat(columns.starts[rows.pair] - start, count)  # [C]
    return row, column


def best_found(found: Found, anchor: Ints, enough: NDArray[np.bool_], positive: Ints) -> tuple[Ints, Floats32]:
    """The box of highest IoU of each positive anchor among the overlaps that were found, the first among equals.

    Args:
        anchor: int64 (M,), the anchor of each overlap, told apart by image where there are several.
        enough: bool (M,), whether an overlap reaches the negative threshold.
        positive: int64 (P,), of these anchors, ascending.

    Returns:
        int64 (P,), rows of the boxes, and float32 (P,), the IoUs; -1 and 0 where no overlap reaches the threshold.
    """
    place = np.searchsorted(positive, anchor)  # [M]
    mine = np.flatnonzero(enough & (np.append(positive, -1)[place] == anchor))[::-1]
    # In order of rising IoU, and of falling box among equals: the last one written to a place stays there.
    order = mine[np.argsort(found.iou[mine], kind="stable")]
    best = np.full(len(positive), -1)  # [P]
    iou = np.zeros(len(positive), np.float32)
    best[place[order]] = found.box[order]
    iou[place[order]] = found.iou[order]
    return best, iou


def best_of_all(anchors: Boxes, boxes: Floats) -> tuple[Ints, Floats32]:
    """The box of highest IoU of each of R anchors, the first among equals: rows int64 (R,), and IoUs float32 (R,)."""
    overlaps = geometry.iou(anchors, boxes.astype(np.float32))  # [R, N]
    best = overlaps.argmax(axis=1)
    return best, overlaps[np.arange(len(best)), best]


def _ignore_rest(shapes: AnchorShapes, states: NDArray[np.int8], allowed: Ints) -> None:
    """Set to IGNORED the anchors that take no part."""
    for shape in np.flatnonzero((allowed[0] > 0).any(axis=0) | (allowed[1] < shapes.cells - 1).any(axis=0)).tolist():
        (first_x, first_y), (last_x, last_y) = allowed[:, :, shape].tolist()
        plane = shapes.plane(states, shape)
        plane[:first_y] = plane[last_y + 1 :] = IGNORED
        plane[:, :first_x] = plane[:, last_x + 1 :] = IGNORED
