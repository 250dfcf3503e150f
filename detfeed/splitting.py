"""Splitting: which part of a data set each image goes to, where some images stay together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def numbered(groups: Sequence[Hashable] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Groups as numbers from 0, in the order in which they come first: int64 (P,)."""
    numbers: dict[Hashable, int] = {}
    values = groups.tolist() if isinstance(groups, np.ndarray) else groups
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def joined(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups in which images are together that are so in either of two.

    Args:
        first, second: int64 (P,), the number of each image's group, from 0.

    Returns:
        int64 (P,), numbered from 0 in the order in which groups come first.
    """
    labels = np.arange(len(first))
    while True:  # the lowest number spreads to all that are together
        before = labels
        for groups in (first, second):
            lowest = np.full(groups.max(initial=-1) + 1, len(labels))
            np.minimum.at(lowest, groups, labels)
            labels = lowest[groups]
        if (labels == before).all():
            return numbered(labels)


def divide(
    counts: NDArray[np.int64], sizes: NDArray[np.int64], shares: Sequence[float], *, seed: int
) -> NDArray[np.int64]:
    """Divide groups at random into parts that have their shares of all images, and of the images of each class.

    The classes of which fewest groups are left come first, and of a class the largest groups. A part that lacks the
    class gets the group, that with the largest share first; then the one that lacks most of its share.

    Args:
        counts: int64 (G, K), images of each class in each group; K may be 0.
        sizes: int64 (G,), images in each group.
        shares: of the parts; they add up to 1. A share of 0 gets nothing.
        seed: not negative.

    Returns:
        int64 (G,), the part of each group.

    Source: Sechidis et al. 2011, iterative stratification; that a part that lacks a class comes first is ours.
    """
    share = np.array(shares, np.float64)
    wanted = share[:, None] * counts.sum(axis=0)  # images of each class that a part still lacks
    room = share * sizes.sum()
    lacking = np.broadcast_to(share[:, None] > 0, wanted.shape).copy()
    groups_left = (counts > 0).sum(axis=0)
    part = np.full(len(sizes), -1)
    shuffled = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    room[share == 0] = -np.inf
    wanted[share == 0] = -np.inf

    def give(group: int, to: int) -> None:
        part[group] = to
        room[to] -= sizes[group]
        (shown,) = np.nonzero(counts[group])
        wanted[to, shown] -= counts[group, shown]
        lacking[to, shown] = False
        groups_left[shown] -= 1

    while groups_left.any():
        rarest = int(np.where(groups_left > 0, groups_left, len(sizes) + 1).argmin())
        for group in order[(counts[order, rarest] > 0) & (part[order] < 0)].tolist():
            without = lacking[:, rarest]
            by = np.where(without, share, 0) if without.any() else wanted[:, rarest]
            best = np.flatnonzero(by == by.max())
            give(group, int(best[room[best].argmax()]))
    for group in order[part[order] < 0].tolist():
        give(group, int(room.argmax()))
    return part
