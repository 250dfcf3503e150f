"""Matching: which anchors show an object, which show background, and which neither.

Done without the IoU of every anchor with every box. Anchors of one shape lie on a grid, so the anchor of that shape
which overlaps a box most is the one nearest to it, and those that overlap it at least so much fill a window of the
grid: both have a closed form, and only the anchors in such windows are looked at.

Overlaps are computed in float64 from shapes and grid steps, and IoUs are compared as float32. So two anchors that hold
a box entirely, or that lie on it alike, are equally good, whatever rounding does to their corners.
"""

from __future__ import annotations

import functools
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
Ints = NDArray[np.int64]


class AnchorMatches(NamedTuple):
    """What `match_anchors` decided.

    Attributes:
        states: int8 (A,), POSITIVE 1, NEGATIVE 0 or IGNORED -1.
        positive: int64 (P,), indices of the positive anchors, ascending.
        match: int64 (P,), for each of them the row of its box in `boxes`.
        iou: float32 (P,), their IoU; below `positive_iou` for low-quality positives.
    """

    states: NDArray[np.int8]
    positive: Ints
    match: Ints
    iou: NDArray[np.float32]


class _Shapes(NamedTuple):
    """The S anchor shapes of a grid on an input, level by level; arrays are (2, S), x before y, or (S,)."""

    low: Floats  # corners of the anchor in row 0, column 0
    high: Floats
    size: Floats
    area: Floats
    step: Floats  # pixels from one anchor to the next, the same in x and y
    cells: Ints  # columns and rows
    first: Ints  # index of the anchor in row 0, column 0
    stride: Ints  # what one column and one row add to that index
    num_anchors: int


@functools.lru_cache(maxsize=64)
def _shapes(grid: AnchorGrid, height: int, width: int) -> _Shapes:
    cells = [grid.cell_anchors(level) for level in range(grid.num_levels)]
    level = np.repeat(np.arange(grid.num_levels), grid.num_cell_anchors)
    corners = np.concatenate(cells).T
    low, high = corners[:2], corners[2:]
    features = np.array(grid.feature_hw((height, width)))
    per_level = np.array(grid.num_anchors_per_level((height, width)))
    k = np.array(grid.num_cell_anchors)[level]
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

    An anchor is positive when its best IoU is at least `positive_iou`, or (with `low_quality`) when no anchor has a
    higher IoU with some box, ties included, as long as that IoU is above 0. It is negative when its IoU with every box
    is below `negative_iou`, and ignored otherwise. A positive anchor's box is the one of its highest IoU, the first
    among equals, also when another box made it positive. Ignore regions turn negatives to ignored, never positives.

    Args:
        grid: the anchors.
        boxes: float32 (N, 4), xyxy pixels of the input; N may be 0. Boxes are clipped to the image first; one without
            area after that matches nothing.
        input_hw: height and width of the input (the canvas) in pixels.
        image_hw: height and width of the true image in the input's top left corner; anchors centred outside it are
            ignored and take no part in matching. None: the image fills the input, and every anchor takes part.
        ignore: bool (N,), True for boxes that are ignore regions rather than objects. None: no box is.
        masks: by row of `boxes`, masks of ignore regions that have one: uint8 (H, W) at the size of the true image,
            from 0 to 255 for the share of a pixel that belongs to the region. The mask counts instead of the box.
        positive_iou, negative_iou: the thresholds, 0 < negative_iou <= positive_iou.
        low_quality: whether the best anchors of a box are positive whatever their IoU.
        ignore_ioa: an anchor of which an ignore region covers at least this share is ignored.
        straddle: pixels by which an anchor may reach out of the true image before it is ignored. None: any number.

    Returns:
        AnchorMatches.

    Source: Ren et al. 2015, section 3.1.2. Agrees with torchvision's Matcher wherever every box overlaps some anchor;
        there, a box at IoU 0 with every anchor makes every anchor positive, here it makes none.
    """
    limit_hw = input_hw if image_hw is None else image_hw
    shapes = _shapes(grid, int(input_hw[0]), int(input_hw[1]))
    allowed = _allowed(shapes, image_hw, limit_hw, straddle)
    clipped = geometry.clip(boxes, limit_hw).astype(np.float64)
    is_region = np.zeros(len(boxes), bool) if ignore is None else ignore
    objects = np.flatnonzero(~is_region & (clipped[:, 2:] > clipped[:, :2]).all(axis=1))

    states = np.zeros(shapes.num_anchors, np.int8)
    positive = match = np.zeros(0, np.int64)
    iou = np.zeros(0, np.float32)
    if len(objects):
        found = _find(shapes, allowed, clipped[objects], negative_iou, low_quality)
        enough = found.iou >= np.float32(negative_iou)
        states[found.anchor[enough]] = IGNORED
        good = found.iou >= np.float32(positive_iou)
        if low_quality:
            good |= found.iou >= found.highest[found.box]
        positive = np.unique(found.anchor[good])
        states[positive] = POSITIVE
        best, iou = _best_boxes(found, enough, positive, grid.anchors(input_hw), clipped[objects])
        match = objects[best]
    for row in np.flatnonzero(is_region):
        _ignore_region(shapes, states, clipped[row], ignore_ioa, None if masks is None else masks.get(int(row)))
    _ignore_rest(shapes, states, allowed)
    return AnchorMatches(states, positive, match, iou)


class _Found(NamedTuple):
    """M overlaps of an anchor and a box, by ascending box, and the highest of each of the N boxes."""

    anchor: Ints  # (M,)
    box: Ints  # (M,)
    iou: NDArray[np.float32]  # (M,)
    highest: NDArray[np.float32]  # (N,)


def _allowed(
    shapes: _Shapes, image_hw: tuple[int, int] | None, limit_hw: tuple[int, int], straddle: float | None
) -> Ints:
    """First and last column and row of the anchors that take part; int64 (2, 2, S): first or last, x or y."""
    first, last = np.zeros_like(shapes.cells), shapes.cells - 1
    if image_hw is not None:
        # Centred inside: low + high + 2 * step * cell < 2 * side. On the edge, give or take rounding, is outside.
        side = np.array([[image_hw[1]], [image_hw[0]]])
        inside = np.ceil((2 * side - shapes.low - shapes.high) / (2 * shapes.step) - 1e-9) - 1
        last = np.minimum(last, inside.astype(np.int64))
    if straddle is not None:
        side = np.array([[limit_hw[1]], [limit_hw[0]]])
        first = np.maximum(first, np.ceil((-straddle - shapes.low) / shapes.step - 1e-9).astype(np.int64))
        last = np.minimum(last, np.floor((side + straddle - shapes.high) / shapes.step + 1e-9).astype(np.int64))
    # None at all is from 0 to -1 or thereabouts, and never a number that a slice would count from the end.
    return np.stack([np.minimum(first, shapes.cells), np.maximum(last, -1)])


def _find(shapes: _Shapes, allowed: Ints, boxes: Floats, threshold: float, low_quality: bool) -> _Found:
    """All overlaps of at least `threshold`, and with `low_quality` those as high as the highest of their box."""
    low, high = boxes.T[:2, :, None], boxes.T[2:, :, None]  # (2, N, 1)
    # The nearest anchor of each shape has the highest overlap of that shape, in x and in y.
    wanted = (low + high - (shapes.low + shapes.high)[:, None]) / (2 * shapes.step)
    nearest = np.minimum(np.maximum(np.rint(wanted), allowed[0][:, None]), allowed[1][:, None])  # (2, N, S)
    shift = shapes.step * nearest
    most = np.minimum(shapes.size[:, None], high - low)
    best = _overlap(most, shapes.low[:, None] + shift, shapes.high[:, None] + shift, low, high)
    best *= (allowed[0] <= allowed[1]).all(axis=0)
    np.maximum(best, 0, out=best)
    both = shapes.area + np.prod(high - low, axis=0)  # (N, S), the areas of anchor and box
    shared = best[0] * best[1]
    ious = (shared / (both - shared)).astype(np.float32)
    highest = ious.max(axis=1)
    least = np.float32(threshold) if not low_quality else np.minimum(np.float32(threshold), highest)
    least = np.broadcast_to(least, highest.shape)

    box, shape = np.nonzero((ious >= least[:, None]) & (ious > 0))  # the pairs, W of them, by box
    # IoU >= t needs a shared area of t / (1 + t) times both areas; with the best overlap in y, that much in x.
    slack = 1 - 1e-6
    t = least[box].astype(np.float64) * slack
    needed = t / (1 + t) * both[box, shape]
    width = needed / best[1, box, shape]
    height = needed / best[0, box, shape]
    x, x_pair, x_overlap, x_start, x_count = _window(shapes, allowed, boxes, box, shape, 0, width)
    y, y_pair, y_overlap, _, _ = _window(shapes, allowed, boxes, box, shape, 1, height)
    # Every row of a window with every column of it.
    columns = x_count[y_pair]
    ends = np.cumsum(columns)
    place = np.arange(ends[-1] if len(ends) else 0)
    place += np.repeat(x_start[y_pair] - ends + columns, columns)
    shared = np.repeat(y_overlap, columns) * x_overlap[place]
    iou = (shared / (np.repeat(both[box, shape][y_pair], columns) - shared)).astype(np.float32)
    kept = np.flatnonzero(iou >= np.repeat(least[box][y_pair], columns))
    row_start = shapes.first[shape[y_pair]] + y * shapes.stride[1, shape[y_pair]]
    column_step = x * shapes.stride[0, shape[x_pair]]
    anchor = np.repeat(row_start, columns)[kept] + column_step[place[kept]]
    return _Found(anchor, np.repeat(box[y_pair], columns)[kept], iou[kept], highest)


def _window(
    shapes: _Shapes, allowed: Ints, boxes: Floats, box: Ints, shape: Ints, axis: int, needed: Floats
) -> tuple[Ints, Ints, Floats, Ints, Ints]:
    """The columns (axis 0) or rows (axis 1) in which each of W pairs of box and shape overlaps by at least `needed`.

    Returns:
        One entry a cell, pair after pair: its number, its pair, its overlap. One entry a pair: where its cells start
        among these, and how many they are.
    """
    low, high = boxes[box, axis], boxes[box, axis + 2]
    step = shapes.step[shape]
    anchor_low, anchor_high = shapes.low[axis, shape], shapes.high[axis, shape]
    # A cell too many costs nothing, one too few would be wrong: widened by more than rounding can do.
    first = np.ceil((low + needed - anchor_high) / step - 1e-6).astype(np.int64)
    last = np.floor((high - needed - anchor_low) / step + 1e-6).astype(np.int64)
    first = np.maximum(first, allowed[0, axis, shape])
    count = np.maximum(np.minimum(last, allowed[1, axis, shape]) - first + 1, 0)
    start = np.cumsum(count) - count
    pair = np.repeat(np.arange(len(box)), count)
    cell = np.arange(len(pair)) - np.repeat(start - first, count)
    shift = step[pair] * cell
    most = np.minimum(shapes.size[axis, shape], high - low)
    overlap = _overlap(most[pair], anchor_low[pair] + shift, anchor_high[pair] + shift, low[pair], high[pair])
    return cell, pair, np.maximum(overlap, 0), start, count


def _overlap(most: Floats, anchor_low: Floats, anchor_high: Floats, low: Floats, high: Floats) -> Floats:
    """Pixels that intervals share, at most `most`, the shorter of both; negative for a gap between them.

    The bound is exact where one interval holds the other; a difference of corners would be off by their rounding.
    """
    return np.minimum(most, np.minimum(anchor_high - low, high - anchor_low))


def _best_boxes(
    found: _Found, enough: NDArray[np.bool_], positive: Ints, anchors: Boxes, boxes: Floats
) -> tuple[Ints, NDArray[np.float32]]:
    """The box of highest IoU of each positive anchor, the first among equals.

    Returns:
        int64 (P,), rows of `boxes`, and float32 (P,), the IoUs.
    """
    place = np.searchsorted(positive, found.anchor)
    mine = np.flatnonzero(enough & (np.append(positive, -1)[place] == found.anchor))[::-1]
    # By rising IoU, and equals by falling box: of those written to one place the last one stays.
    order = mine[np.argsort(found.iou[mine], kind="stable")]
    best = np.full(len(positive), -1)
    iou = np.zeros(len(positive), np.float32)
    best[place[order]] = found.box[order]
    iou[place[order]] = found.iou[order]
    # Where no overlap is above the negative threshold, not all of them were found.
    rest = np.flatnonzero(best < 0)
    if len(rest):
        overlaps = geometry.iou(anchors[positive[rest]], boxes.astype(np.float32))
        best[rest] = overlaps.argmax(axis=1)
        iou[rest] = overlaps[np.arange(len(rest)), best[rest]]
    return best, iou


def _ignore_region(
    shapes: _Shapes, states: NDArray[np.int8], region: Floats, ignore_ioa: float, mask: NDArray[np.uint8] | None
) -> None:
    """Set to IGNORED the negative anchors of which `region`, float64 (4,), or its mask covers at least that share."""
    sums = None if mask is None else sum_mask(mask)
    for shape in range(len(shapes.area)):
        step = shapes.step[shape]
        cells, corners = [], []
        for axis in (0, 1):
            low, high = shapes.low[axis, shape], shapes.high[axis, shape]
            first = max(0, int((region[axis] - high) // step))
            last = min(int(shapes.cells[axis, shape]) - 1, int((region[axis + 2] - low) // step))
            cells.append(np.arange(first, last + 1))
            corners.append((low + step * cells[axis], high + step * cells[axis]))
        if sums is None:
            x, y = (
                np.maximum(
                    _overlap(
                        np.minimum(shapes.size[axis, shape], region[axis + 2] - region[axis]),
                        *corners[axis],
                        region[axis],
                        region[axis + 2],
                    ),
                    0,
                )
                for axis in (0, 1)
            )
            covered = np.outer(y, x)
        else:
            covered = covered_grid(sums, *corners)
        share = (covered / shapes.area[shape]).astype(np.float32)
        row, column = np.nonzero(share >= np.float32(ignore_ioa))
        anchor = (
            shapes.first[shape] + cells[1][row] * shapes.stride[1, shape] + cells[0][column] * shapes.stride[0, shape]
        )
        states[anchor[states[anchor] == NEGATIVE]] = IGNORED


def _ignore_rest(shapes: _Shapes, states: NDArray[np.int8], allowed: Ints) -> None:
    """Set to IGNORED the anchors that take no part."""
    if (allowed[0] == 0).all() and (allowed[1] == shapes.cells - 1).all():
        return
    for shape in range(len(shapes.area)):
        (first_x, first_y), (last_x, last_y) = allowed[:, :, shape]
        columns, rows = shapes.cells[:, shape]
        if first_x == first_y == 0 and last_x == columns - 1 and last_y == rows - 1:
            continue
        k = int(shapes.stride[0, shape])
        start = int(shapes.first[shape])
        view = np.lib.stride_tricks.as_strided(states[start:], (rows, columns), (k * columns, k))
        view[:first_y] = view[last_y + 1 :] = IGNORED
        view[:, :first_x] = view[:, last_x + 1 :] = IGNORED


COUNTS = ("positive", "low_quality", "unmatched", "ignored", "lost")


def count_matches(
    matches: AnchorMatches,
    boxes: Boxes,
    *,
    image_hw: tuple[int, int],
    ignore: NDArray[np.bool_] | None = None,
    positive_iou: float = 0.7,
) -> NDArray[np.int32]:
    """What happened in matching, in numbers.

    Args:
        matches: of `match_anchors` with these boxes; the other arguments as given to it: boxes float32 (N, 4), ignore
            bool (N,).

    Returns:
        int32 (5,), in the order of COUNTS: positive anchors; those of them below `positive_iou`, there because no
        anchor is better; objects with area that no positive anchor is matched with; ignored anchors; lost objects,
        without area in the image, which match nothing.
    """
    objects = np.ones(len(boxes), bool) if ignore is None else ~ignore
    has_area = geometry.area(geometry.clip(boxes, image_hw)) > 0
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


def sample_anchors(
    matches: AnchorMatches, rng: np.random.Generator, *, num_samples: int = 256, positive_fraction: float = 0.5
) -> tuple[Ints, Ints]:
    """Draw the anchors that a loss is computed on, uniformly and without replacement.

    Args:
        matches: of one image.
        rng: the sample's generator.
        num_samples: how many in all; fewer where fewer are there.
        positive_fraction: at most this share of them is positive; negatives fill up.

    Returns:
        int64 (P,), places in `matches.positive` of the positives drawn, and int64 (Q,), anchor indices of the
        negatives drawn; P + Q <= num_samples.

    Source: Ren et al. 2015, section 3.1.3.
    """
    places = np.arange(len(matches.positive))
    most = int(num_samples * positive_fraction)
    if len(places) > most:
        places = np.sort(rng.choice(len(places), most, replace=False))
    return places, _draw_negatives(matches.states, rng, num_samples - len(places))


def _draw_negatives(states: NDArray[np.int8], rng: np.random.Generator, wanted: int) -> Ints:
    """So many negative anchors, or all where there are fewer; uniformly, without replacement, ascending."""
    available = len(states) - np.count_nonzero(states) if len(states) else 0
    if available <= 4 * wanted:
        negatives = np.flatnonzero(states == NEGATIVE)
        if len(negatives) > wanted:
            negatives = np.sort(rng.choice(negatives, wanted, replace=False))
        return negatives
    # Draw among all anchors and keep the negatives, each once: almost all anchors are negative, as a rule.
    drawn = np.zeros(0, np.int64)
    while len(drawn) < wanted:
        more = rng.integers(len(states), size=2 * (wanted - len(drawn)))
        drawn = np.concatenate([drawn, more[states[more] == NEGATIVE]])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return np.sort(drawn[:wanted])
