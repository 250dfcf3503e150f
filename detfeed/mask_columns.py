"""Mask columns: the masks of a table's boxes, as run lengths and polygons in flat arrays.

The masks of COCO's training set take 0.2 GB in columns (`scripts/bench_reading.py`), which are pickled as a few arrays
instead of millions of Python objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from detfeed.masks import Runs, fill_mask, parse_runs

# Polygons of so many boxes are moved at a time: the places of all their points at once would take twice their memory.
_AT_ONCE = 2**16


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MaskColumns(Mapping[int, Runs]):
    """Masks by row of the box columns: a mapping to the lengths of their runs, made of polygons when asked for.

    M masks of K runs and Q polygons with J points in all. A mask has either runs or polygons.

    Attributes:
        rows: int64 (M,), the box of each mask, ascending.
        sizes_hw: int32 (M, 2), height and width of the image of each mask; anything for one of runs.
        runs: int32 (K,); see `detfeed.masks`.
        run_offsets: int64 (M + 1,): the runs of mask m are run_offsets[m] to run_offsets[m + 1].
        points: float32 (J, 2), x and y in pixels of the image; they may lie outside of it.
        point_offsets: int64 (Q + 1,), the points of each polygon.
        polygon_offsets: int64 (M + 1,), the polygons of each mask, of which a pixel may be in any.
    """

    rows: NDArray[np.int64]
    sizes_hw: NDArray[np.int32]
    runs: Runs
    run_offsets: NDArray[np.int64]
    points: NDArray[np.float32]
    point_offsets: NDArray[np.int64]
    polygon_offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            getattr(self, field.name).setflags(write=False)

    @classmethod
    def of(cls, masks: Mapping[int, Runs]) -> MaskColumns:
        """Columns of masks that are given by their runs; columns as they are."""
        if isinstance(masks, MaskColumns):
            return masks
        rows = sorted(masks)
        counts = [len(masks[row]) for row in rows]
        return cls.made(
            np.array(rows, np.int64),
            runs=np.concatenate([np.zeros(0, np.int32), *(masks[row] for row in rows)]),
            run_counts=np.array(counts, np.int64),
        )

    @classmethod
    def made(
        cls,
        rows: NDArray[np.int64],
        *,
        sizes_hw: NDArray[np.integer] | None = None,
        runs: Runs | None = None,
        run_counts: NDArray[np.int64] | None = None,
        points: NDArray[np.float32] | None = None,
        point_counts: NDArray[np.int64] | None = None,
        polygon_counts: NDArray[np.int64] | None = None,
    ) -> Self:
        """Columns from how many runs, points and polygons there are of each; None: there are none."""
        none = np.zeros(len(rows), np.int64)
        return cls(
            rows=rows,
            sizes_hw=np.zeros((len(rows), 2), np.int32) if sizes_hw is None else sizes_hw.astype(np.int32),
            runs=np.zeros(0, np.int32) if runs is None else runs,
            run_offsets=_offsets(none if run_counts is None else run_counts),
            points=np.zeros((0, 2), np.float32) if points is None else points,
            point_offsets=_offsets(none[:0] if point_counts is None else point_counts),
            polygon_offsets=_offsets(none if polygon_counts is None else polygon_counts),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int | np.integer) and self._find(int(row)) >= 0

    def __getitem__(self, row: int) -> Runs:
        mask = self._mask(row)
        if not self._has_polygons(mask):
            return self.runs[self.run_offsets[mask] : self.run_offsets[mask + 1]]
        height, width = self.sizes_hw[mask].tolist()
        return _runs_of(self.polygons(row), (height, width))

    def polygons(self, row: int) -> list[NDArray[np.float32]]:
        """The polygons of a box's mask, float32 (K, 2) each, K > 2; none if it is given by runs.

        Raises:
            KeyError: the box has no mask.
        """
        first, last = self.polygon_offsets[(mask := self._mask(row)) : mask + 2].tolist()
        return [self.points[self.point_offsets[q] : self.point_offsets[q + 1]] for q in range(first, last)]

    def fill(self, row: int, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
        """The mask of a box, uint8 (H, W), 0 outside and 255 inside; polygons cover the pixels that COCO's API says.

        Raises:
            KeyError: the box has no mask.
        """
        # Not with pycocotools.mask.decode, whose masks are columns first: turning one of 480 x 640 pixels takes 1.3 ms.
        runs = _runs_of(self.polygons(row), image_hw) if self._has_polygons(self._mask(row)) else self[row]
        return fill_mask(runs, image_hw)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels that the runs of each mask cover in all, int64 (M,); those of its image for one of polygons."""
        sums = np.concatenate([[0], np.cumsum(self.runs, dtype=np.int64)])
        of_polygons = np.diff(self.polygon_offsets) > 0
        return np.where(of_polygons, self.sizes_hw.prod(axis=1, dtype=np.int64), np.diff(sums[self.run_offsets]))

    def take(self, rows: NDArray[np.integer], count: int) -> MaskColumns:
        """The masks of some boxes of `count`, each at most once, by their place among these."""
        if not len(self):
            return self
        place_of = np.full(count, -1)
        place_of[rows] = np.arange(len(rows))
        places = place_of[self.rows]
        if len(rows) == count and (places == self.rows).all():
            return self
        masks = np.argsort(places, kind="stable")
        masks = masks[np.searchsorted(places[masks], 0) :]
        return dataclasses.replace(self.only(masks), rows=places[masks])

    def only(self, masks: NDArray[np.int64]) -> MaskColumns:
        """Some of the masks, by their number among all, with their rows."""
        polygons, polygon_offsets = _ranges(self.polygon_offsets, masks)
        runs, run_offsets = _taken(self.runs, self.run_offsets, masks)
        points, point_offsets = _taken(self.points, self.point_offsets, polygons)
        return MaskColumns(
            self.rows[masks], self.sizes_hw[masks], runs, run_offsets, points, point_offsets, polygon_offsets
        )

    def _find(self, row: int) -> int:
        mask = int(np.searchsorted(self.rows, row))
        return mask if mask < len(self.rows) and self.rows[mask] == row else -1

    def _mask(self, row: int) -> int:
        mask = self._find(row)
        if mask < 0:
            raise KeyError(row)
        return mask

    def _has_polygons(self, mask: int) -> bool:
        return bool(self.polygon_offsets[mask] < self.polygon_offsets[mask + 1])


def join_masks(parts: Sequence[MaskColumns], counts: Sequence[int]) -> MaskColumns:
    """The masks of several tables, one after the other, which have so many boxes."""
    starts = np.cumsum([0, *counts[:-1]])

    def joined(name: str) -> NDArray[Any]:
        columns = [getattr(part, name) for part in parts]
        if not name.endswith("offsets"):
            return np.concatenate(columns)
        firsts = np.cumsum([0, *(column[-1] for column in columns)])
        return np.concatenate(
            [*(column[:-1] + first for column, first in zip(columns, firsts, strict=False)), firsts[-1:]]
        )

    columns = {field.name: joined(field.name) for field in dataclasses.fields(MaskColumns) if field.name != "rows"}
    rows = np.concatenate([part.rows + start for part, start in zip(parts, starts.tolist(), strict=True)])
    return MaskColumns(rows=rows, **columns)


def _runs_of(polygons: Sequence[NDArray[np.float32]], image_hw: tuple[int, int]) -> Runs:
    """The runs of the pixels that are in any of the polygons."""
    flat: Any = [polygon.reshape(-1).astype(np.float64) for polygon in polygons]  # the stubs know no lists of arrays
    merged: Any = pycocotools.mask.merge(pycocotools.mask.frPyObjects(flat, *image_hw))
    return parse_runs(merged["counts"].decode())


def _offsets(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _ranges(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of all values of the chosen ranges, and the offsets of these ranges among them."""
    counts = np.diff(offsets)[chosen]
    moved = _offsets(counts)
    return np.repeat(offsets[chosen] - moved[:-1], counts) + np.arange(moved[-1]), moved


def _taken(
    values: NDArray[Any], offsets: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The values of the chosen ranges, and their offsets."""
    moved = _offsets(np.diff(offsets)[chosen])
    taken = np.empty((int(moved[-1]), *values.shape[1:]), values.dtype)
    for first in range(0, len(chosen), _AT_ONCE):
        some = chosen[first : first + _AT_ONCE]
        taken[moved[first] : moved[first + len(some)]] = values[_ranges(offsets, some)[0]]
    return taken, moved


NO_MASKS = MaskColumns.of({})
