"""Ordering: which samples make up which batch of which epoch, and the generator of one sample.

Pure functions of (seed, epoch): nothing here remembers where it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Spawn keys of length 2 belong to samples, (epoch, position); those of length 1 to an epoch's order.


def sample_rng(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The generator of one sample in one epoch, independent of all others and of who asks."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, position)))


def told_apart(canvases: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs of canvases show all that varies between canvases; bool (K, K).

    Keras on TensorFlow learns shapes from batches 0 and 1 alone: a side in which these two agree is fixed for good,
    and a later batch with another side fails. So they must differ in height if heights vary at all, likewise in
    width, and in area (which the number of anchors follows but for rounding).

    Args:
        canvases: int64 (K, 2), heights and widths. With one canvas nothing varies, and it is a pair with itself.
    """
    sides = np.concatenate([canvases, canvases.prod(axis=1, keepdims=True)], axis=1)
    varies = (sides != sides[:1]).any(axis=0)
    return ((sides[:, None] != sides[None]) | ~varies).all(axis=2)


def batch_positions(
    canvas_ids: NDArray[np.int64],
    canvases: NDArray[np.int64],
    *,
    batch_size: int,
    epoch: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
) -> list[NDArray[np.int64]]:
    """The batches of one epoch: every position once, and only positions of one canvas in a batch.

    Args:
        canvas_ids: int64 (P,), for each position the canvas it is placed on; P may be 0.
        canvases: int64 (K, 2), heights and widths.
        batch_size: positions in a batch; the last batch of each canvas may have fewer.
        epoch, seed: of the shuffle.
        shuffle: whether samples and batches come in an order drawn for the epoch, or in that of positions.
        drop_last: leave out batches that are not full.

    Returns:
        A list of int64 arrays of positions. How many there are does not depend on seed and epoch. The first two are
        on canvases that tell all varying sides apart (see `told_apart`), where there are such two.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    positions = rng.permutation(len(canvas_ids)) if shuffle else np.arange(len(canvas_ids))
    batches = []
    for canvas in np.unique(canvas_ids):
        members = positions[canvas_ids[positions] == canvas]
        batches += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
    if drop_last:
        batches = [batch for batch in batches if len(batch) == batch_size]
    if shuffle:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    else:
        batches.sort(key=lambda batch: batch[0])
    _lead_with_a_telling_pair(batches, canvas_ids, canvases)
    return batches


def _lead_with_a_telling_pair(
    batches: list[NDArray[np.int64]], canvas_ids: NDArray[np.int64], canvases: NDArray[np.int64]
) -> None:
    """Move two batches that tell the canvases apart to the front, the rest keeping its order."""
    first_of: dict[int, int] = {}
    for place, batch in enumerate(batches):
        first_of.setdefault(int(canvas_ids[batch[0]]), place)
    if len(first_of) < 2:
        return
    apart = told_apart(canvases)
    pairs = [(i, j) for a, i in first_of.items() for b, j in first_of.items() if i < j and apart[a, b]]
    if pairs:
        i, j = min(pairs)
        batches[:2], batches[2:] = (
            [batches[i], batches[j]],
            batches[:i] + batches[i + 1 : j] + batches[j + 1 :],
        )
