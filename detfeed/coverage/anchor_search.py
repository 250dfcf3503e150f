"""Search: sizes and ratios of anchors that objects of given shapes reach a high IoU with.

A table of IoUs is computed once, of each object with the best-placed anchor of every size and ratio to choose from on
every level. The search is then a choice of columns: one size or ratio is changed at a time, to what covers most
objects, until no change helps; from several starts.

Letters in shapes: N objects, L levels, G sizes to choose from, J ratios to choose from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.coverage.fed_objects import FedObjects
from detfeed.targets.anchor_shapes import Ints
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.joint_matching import highest_ious

Floats32 = NDArray[np.float32]

NUM_OBJECTS = 4000  # drawn to fit to: shares are exact to 1.6 %, and the table takes some 40 MB
# Height / width: what people write, dense enough that an object between two reaches 0.9 of its IoU.
_RATIOS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
_STEP = 2 ** (1 / 8)  # from one size to the next: halfway between two, an IoU is still 0.92
_SMALLEST = 4  # pixels
_MULTIPLES = (2, 16)  # smallest and largest size on a level, in strides. FPN has 8, RetinaNet 4 to 6.3.
_STARTS = 4  # drawn, beside the given grid and one spread evenly over the objects
_WORTH = 0.05  # the gain for which sizes and ratios are numbered otherwise than they were


class Choice(NamedTuple):
    """Sizes and ratios: what `AnchorGrid.fpn` takes.

    Attributes:
        sizes: for each level the square roots of areas in pixels, ascending.
        ratios: height / width, ascending.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]

    def grid(self, like: AnchorGrid) -> AnchorGrid:
        """The grid of these sizes and ratios on the levels of another."""
        return AnchorGrid.fpn(
            sizes=self.sizes, ratios=self.ratios, strides=like.strides, offset=like.offset, rounding=like.rounding
        )

    def python(self, like: AnchorGrid) -> str:
        """That grid as Python."""
        sizes = [f"{level[0]:g}" if len(level) == 1 else _tuple(level) for level in self.sizes]
        settings = {"sizes": f"({', '.join(sizes)})", "ratios": _tuple(self.ratios), "strides": str(like.strides)}
        name = "fpn"
        if like.num_levels == 1:
            name = "c4"
            settings = {"sizes": _tuple(self.sizes[0]), "ratios": _tuple(self.ratios), "stride": str(like.strides[0])}
        if like.offset:
            settings["offset"] = f"{like.offset:g}"
        if not like.rounding:
            settings["rounding"] = "False"
        return f"AnchorGrid.{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"

    def options(self) -> str:
        """The options of a command line."""
        sizes, ratios = (" ".join(f"{number:g}" for number in each) for each in (sum(self.sizes, ()), self.ratios))
        return f"--anchor-sizes {sizes} --anchor-ratios {ratios}"


def _tuple(numbers: tuple[float, ...]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)}{',' * (len(numbers) == 1)})"


def factored(grid: AnchorGrid) -> Choice | None:
    """The sizes and ratios that a grid is made of; None if it is no product of such."""
    ratios = sorted({round(height / width, 4) for width, height in sum(grid.cell_sizes_wh, ())})
    sizes = []
    for level in grid.cell_sizes_wh:
        own = sorted({float(f"{math.sqrt(width * height):.5g}") for width, height in level})
        if len(own) * len(ratios) != len(level):
            return None
        sizes.append(tuple(own))
    return Choice(tuple(sizes), tuple(ratios))


def search(targets: AnchorTargets, fed: FedObjects, *, seed: int) -> Choice | None:
    """The best sizes and ratios that are found, with the levels and the number of anchors a cell of a grid.

    How many sizes and how many ratios make up that number stays as it is, unless another way covers over 5 % more.

    Args:
        targets: the grid and the rules.
        fed: the objects; at least one that is not ignored.
        seed: of starts, and of the objects that are drawn to fit to.

    Returns:
        None if the levels have no room for so many sizes; see `_Table`.
    """
    rng = np.random.default_rng(seed)
    table = _Table(targets, fed, *_drawn(fed, targets.anchors.strides[-1], rng))
    given = factored(targets.anchors)
    counts = targets.anchors.num_cell_anchors
    own = None if given is None else len(given.ratios)
    divisors = [number for number in range(1, max(counts) + 1) if all(count % number == 0 for count in counts)]
    best: tuple[float, Choice] | None = None
    for num_ratios in sorted(divisors, key=lambda number: number != own):
        slots = _Slots(table, [count // num_ratios for count in counts], num_ratios)
        if not slots.fit:
            continue
        score, choice = slots.best(given if num_ratios == own else None, rng)
        if best is None or score > best[0] + _WORTH:
            best = score, choice
    return None if best is None else best[1]


def _drawn(fed: FedObjects, stride: int, rng: np.random.Generator) -> tuple[Boxes, NDArray[np.int64]]:
    """Objects to fit to: drawn with replacement from those that are fed, and each resized and moved a little.

    So they are a sample of a smoothed distribution of shapes and places. Without that, the search finds what fits the
    few objects of a small set as they happen to lie on the grid: of 155 objects of VOC it covered 67 % then, and of 77
    others 53 %; smoothed, 58 and 61 % (means of six splits, FPN, short side 600). Of 1,900 objects it takes away 0.5 %.

    A class is drawn by the square root of its number. By the number itself, a class of 7 % of the objects lost three
    quarters of its true positives for the sake of the others (platelets of BCCD, FPN, short side 240).

    Args:
        stride: the coarsest, within which they are moved.

    Returns:
        Boxes float32 (N, 4) with area and inside their images, and the row of each box's image, int64 (N,).

    Source: Scott 1992, section 6.3.1, of the bandwidth for two dimensions.
    """
    objects = np.flatnonzero(~fed.ignore)
    counts = np.bincount(fed.class_ids[objects])
    weights = 1 / np.sqrt(counts[fed.class_ids[objects]])
    drawn = objects[rng.choice(len(objects), NUM_OBJECTS, p=weights / weights.sum())]
    low, high = fed.boxes[drawn, :2].astype(np.float64), fed.boxes[drawn, 2:].astype(np.float64)
    sides = fed.boxes[objects, 2:].astype(np.float64) - fed.boxes[objects, :2]
    width = np.log(sides).std(axis=0) * len(objects) ** (-1 / 6)
    size = (high - low) * np.exp(width * rng.standard_normal(low.shape))
    limit = fed.image_hw[fed.image[drawn], ::-1]
    size = np.minimum(size, limit)
    start = np.clip((low + high - size) / 2 + rng.uniform(-stride / 2, stride / 2, low.shape), 0, limit - size)
    boxes = np.concatenate([start, np.minimum(start + size, limit)], axis=1).astype(np.float32)
    return boxes, fed.image[drawn]


def with_grid(targets: AnchorTargets, grid: AnchorGrid) -> AnchorTargets:
    """The same rules on another grid."""
    other = copy.copy(targets)
    other.anchors = grid
    return other


class _Table:
    """The highest IoUs of objects with anchors of every size and ratio to choose from on every level.

    Attributes:
        sizes: float64 (G,), ascending.
        ratios: float64 (J,), ascending.
        ranges: for each level the first and the last place in `sizes` of those to choose from. A feature map sees no
            more of an image than some multiple of its stride, whatever anchors it is given.
        ious: for each level float32 (J, sizes of the level, N).
        object_sizes, object_ratios: float64 (N,), square roots of areas in pixels, and height / width.
    """

    def __init__(self, targets: AnchorTargets, fed: FedObjects, boxes: Boxes, image: NDArray[np.int64]) -> None:
        grid = targets.anchors
        sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
        self.object_sizes = np.sqrt(sides.prod(axis=1))
        self.object_ratios = sides[:, 1] / sides[:, 0]
        self._threshold = np.float32(targets.positive_iou)
        given = factored(grid) or Choice((), ())
        own = [[math.sqrt(width * height) for width, height in level] for level in grid.cell_sizes_wh]
        largest = max(self.object_sizes.max(), _MULTIPLES[0] * grid.strides[-1], *map(max, own))
        steps = range(math.ceil(math.log(largest / _SMALLEST, _STEP)) + 1)
        regular = {float(round(_SMALLEST * _STEP**step)) for step in steps}
        self.sizes = np.array(sorted(regular.union(*given.sizes)))
        self.ratios = np.array(sorted({*_RATIOS, *given.ratios}))
        # Narrower anchors have a side that rounding could leave nothing of.
        smallest = max(_SMALLEST, 1.01 * math.sqrt(max(self.ratios[-1], 1 / self.ratios[0])))
        self.ranges: list[tuple[int, int]] = []
        for stride, areas in zip(grid.strides, own, strict=True):
            low, high = (float(multiple * stride) for multiple in _MULTIPLES)
            if grid.num_levels == 1:
                low, high = _SMALLEST, math.ceil(largest)
            low, high = min(low, *areas) - 1e-3, max(high, *areas) + 1e-3
            first, last = np.searchsorted(self.sizes, [max(low, smallest), high]).tolist()
            self.ranges.append((first, last - 1))
        every = Choice(
            tuple(tuple(self.sizes[first : last + 1].tolist()) for first, last in self.ranges),
            tuple(self.ratios.tolist()),
        ).grid(grid)
        height, width = fed.canvas_hw.max(axis=0).tolist()
        ious = highest_ious(
            with_grid(targets, every),
            boxes,
            image,
            input_hw=(height, width),  # those anchors of a canvas that lie on an image are the same on a larger canvas
            image_hw=fed.image_hw,
        )
        self.ious: list[Floats32] = [
            np.ascontiguousarray(part.T).reshape(len(self.ratios), -1, len(boxes))
            for part in np.split(ious, np.cumsum(every.num_cell_anchors)[:-1], axis=1)
        ]

    def score(self, ious: Floats32) -> NDArray[np.float64]:
        """The worth of best IoUs (..., N): the share of true positives, and a tenth of how near the others come."""
        near = np.minimum(ious, self._threshold).mean(axis=-1, dtype=np.float64) / float(self._threshold)
        return (ious >= self._threshold).mean(axis=-1) + 0.1 * near


class _Slots:
    """One way to divide the anchors of a cell into sizes and ratios: M sizes in all, which ascend over the levels.

    Attributes:
        fit: whether the levels have room for so many sizes.
    """

    def __init__(self, table: _Table, num_sizes: list[int], num_ratios: int) -> None:
        self._table = table
        self._num_sizes = num_sizes
        self._level = np.arange(len(num_sizes)).repeat(num_sizes)  # [M]
        first, last = np.array(table.ranges)[self._level].T
        slot = np.arange(len(first))
        # Places of their own for the sizes before and after each.
        self._low = np.maximum.accumulate(first - slot) + slot
        self._high = np.minimum.accumulate((last - slot)[::-1])[::-1] + slot
        self._ratio_low = np.arange(num_ratios)
        self._ratio_high = self._ratio_low + len(table.ratios) - num_ratios
        self.fit = bool((self._low <= self._high).all()) and num_ratios <= len(table.ratios)

    def best(self, given: Choice | None, rng: np.random.Generator) -> tuple[float, Choice]:
        """The best choice from several starts, and its score.

        Args:
            given: one start, with as many sizes and ratios; and what is kept of it where that is no worse.
            rng: draws starts.
        """
        table = self._table
        m, r = len(self._level), len(self._ratio_low)
        starts = [((np.arange(m) + 0.5) / m, (np.arange(r) + 0.5) / r)]
        starts += [(np.sort(rng.random(m)), np.sort(rng.random(r))) for _ in range(_STARTS)]
        states = [
            self._placed(np.quantile(table.object_sizes, sizes), np.quantile(table.object_ratios, ratios))
            for sizes, ratios in starts
        ]
        if given is not None:
            states.insert(0, self._placed(np.array(sum(given.sizes, ())), np.array(given.ratios)))
        found = [self._climbed(*state) for state in states]
        score, sizes, ratios = max(found, key=lambda each: each[0])
        if given is not None:
            sizes, ratios = self._nearer(score, sizes, ratios, *states[0])
        levels = np.split(table.sizes[sizes], np.cumsum(self._num_sizes)[:-1])
        return score, Choice(tuple(tuple(level.tolist()) for level in levels), tuple(table.ratios[ratios].tolist()))

    def _placed(self, sizes: NDArray[np.float64], ratios: NDArray[np.float64]) -> tuple[Ints, Ints]:
        """The places of sizes (M,) and ratios (R,), or the nearest that ascend within their ranges."""
        return (
            _ascending(_nearest(self._table.sizes, sizes), self._low, self._high),
            _ascending(_nearest(self._table.ratios, ratios), self._ratio_low, self._ratio_high),
        )

    def _climbed(self, sizes: Ints, ratios: Ints) -> tuple[float, Ints, Ints]:
        """The score and the places when no change of one size or ratio helps any more."""
        sizes, ratios, score = sizes.copy(), ratios.copy(), -1.0
        while True:
            before = score
            for places, candidates in self._changes(sizes, ratios):
                scores = candidates.scores
                if scores.max() > score + 1e-9:
                    score = float(scores.max())
                    places[candidates.slot] = candidates.first + int(scores.argmax())
            if score <= before:
                return score, sizes, ratios

    def _nearer(self, score: float, sizes: Ints, ratios: Ints, own_sizes: Ints, own_ratios: Ints) -> tuple[Ints, Ints]:
        """Places as near to those of the given grid as the score allows: what does not matter stays as it was."""
        sizes, ratios = sizes.copy(), ratios.copy()
        while True:  # a size may be in the way of the one before it
            before = [*sizes, *ratios]
            for places, candidates in self._changes(sizes, ratios):
                wanted = (own_sizes if places is sizes else own_ratios)[candidates.slot]
                good = candidates.first + np.flatnonzero(candidates.scores >= score - 1e-9)
                places[candidates.slot] = good[np.abs(good - wanted).argmin()]
            if before == [*sizes, *ratios]:
                return sizes, ratios

    def _changes(self, sizes: Ints, ratios: Ints) -> Iterator[tuple[Ints, _Candidates]]:
        """For each size, then for each ratio, what could stand in its place; the caller may change `sizes`, `ratios`.

        Yields:
            `sizes` or `ratios`, and the candidates for one place in it.
        """
        table = self._table
        of_ratios = [ious[ratios].max(axis=0) for ious in table.ious]  # of each level [sizes, N]
        for slot, level in enumerate(self._level.tolist()):
            others = [of_ratios[self._level[k]][sizes[k] - table.ranges[self._level[k]][0]] for k in _but(slot, sizes)]
            low = max(self._low[slot], sizes[slot - 1] + 1 if slot else 0)
            high = min(self._high[slot], sizes[slot + 1] - 1 if slot + 1 < len(sizes) else len(table.sizes))
            start = table.ranges[level][0]
            yield sizes, self._candidates(slot, int(low), others, of_ratios[level][low - start : high - start + 1])
        chosen = [
            table.ious[level][:, place - table.ranges[level][0]]
            for level, place in zip(self._level, sizes, strict=True)
        ]
        of_sizes = reduce(np.maximum, chosen)  # [J, N]
        for slot in range(len(ratios)):
            others = [of_sizes[ratios[k]] for k in _but(slot, ratios)]
            low = ratios[slot - 1] + 1 if slot else 0
            high = ratios[slot + 1] - 1 if slot + 1 < len(ratios) else len(table.ratios) - 1
            yield ratios, self._candidates(slot, int(low), others, of_sizes[low : high + 1])

    def _candidates(self, slot: int, first: int, others: list[Floats32], ious: Floats32) -> _Candidates:
        if others:
            ious = np.maximum(ious, reduce(np.maximum, others))
        return _Candidates(slot, first, self._table.score(ious))


class _Candidates(NamedTuple):
    """What could stand in a place: of a list of sizes or ratios those from one on, and their scores."""

    slot: int
    first: int
    scores: NDArray[np.float64]


def _but(slot: int, places: Ints) -> list[int]:
    return [other for other in range(len(places)) if other != slot]


def _nearest(ascending: NDArray[np.float64], values: NDArray[np.float64]) -> Ints:
    """Places of the numbers of a list that are nearest, as logarithms."""
    return np.abs(np.log(ascending) - np.log(values)[:, None]).argmin(axis=1)


def _ascending(places: Ints, low: Ints, high: Ints) -> Ints:
    """Places that each are above the one before, as near as that and their limits, which ascend likewise, allow."""
    slot = np.arange(len(places))
    return np.clip(np.maximum.accumulate(np.maximum(places, low) - slot) + slot, low, high)
