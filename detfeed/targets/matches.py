"""Matches: what anchors or RoIs show, and counts of it. Letters in shapes: A anchors, N boxes, P positives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class AnchorMatches(NamedTuple):
    """The answer of `match_anchors`.

    Attributes:
        states: int8 (A,), POSITIVE 1, NEGATIVE 0 or IGNORED -1.
        positive: int64 (P,), indices of the positive anchors, ascending.
        match: int64 (P,), for each positive anchor the row of its box in `boxes`.
        iou: float32 (P,), its IoU with that box; below `positive_iou` for low-quality positives.
    """

    states: NDArray[np.int8]
    positive: NDArray[np.int64]
    match: NDArray[np.int64]
    iou: NDArray[np.float32]


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
