"""Ordering: which samples make up which batch of which epoch, and the generator of one sample.

Pure functions of (seed, epoch): nothing here remembers where it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detfeed.images.canvases import told_apart

# The length of a spawn key tells its purpose: 1, an epoch's order; 2, a sample, (epoch, position); 3, a sample that
# comes again in an epoch; 4, an image fed in place of a sample; 5, the draw of a sampler for an epoch.


def sample_rng(seed: int, epoch: int, position: int, repeat: int = 0, attempt: int = 0) -> np.random.Generator:
    """The generator of one sample in one epoch, independent of all others and of who asks.

    Args:
        seed, epoch, position: of the sample.
        repeat: how often the position came in this epoch before.
        attempt: number of the attempt to replace the sample; 0 for the sample itself.
    """
    key: tuple[int, ...] = (epoch, position)
    if attempt:
        key = (epoch, position, repeat, attempt)
    elif repeat:
        key = (epoch, position, repeat)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_positions(
    weights: NDArray[np.float64],
    canvas_ids: NDArray[np.int64],
    *,
    epoch: int,
    seed: int,
    at_least: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the positions of an epoch, each as often as its weight says on average.

    A position with weight w comes floor(w) or ceil(w) times. How many positions of a canvas come is the same in all
    epochs: the sum of their weights, rounded (up, where a fraction would never come otherwise). So the number of
    batches is the same, too. The fractions of the weights are scaled for that, canvas by canvas, by less than one image
    in all; none becomes 0.

    Args:
        weights: float64 (P,), not negative; all 1 gives every position once.
        canvas_ids: int64 (P,), for each position the canvas it is placed on.
        epoch, seed: of the draw.
        at_least: how many positions of a canvas come at least, if it has any with a weight. Weights grow where they
            don't suffice, but no position comes more than once for this.

    Returns:
        Positions, int64 (D,), ascending; and int64 (D,), how often each has come in this epoch before.

    Source: systematic sampling with unequal probabilities, Madow 1949, in an order drawn for each epoch.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, 0, 0, 0, 0)))
    times = np.floor(weights).astype(np.int64)
    for canvas in np.unique(canvas_ids[weights > 0]):
        members = np.flatnonzero((canvas_ids == canvas) & (weights > 0))
        total = max(round(weights[members].sum()), min(at_least, len(members)))
        shares = weights[members] - times[members]
        more = total - int(times[members].sum())
        if shares.sum() > 1e-6:
            more = max(more, 1)
        shares = _adding_up_to(more, shares)
        times[members[shares == 1]] += 1
        members, shares = members[shares % 1 > 0], shares[shares % 1 > 0]
        if len(members):
            # Steps of one over the shares laid end to end, from a random start, fall into each by its length.
            order = rng.permutation(len(members))
            start = rng.integers(2**24) / 2**24
            ends = start + np.cumsum(shares[order])
            ends[-1] = start + round(shares.sum())  # exactly
            times[members[order]] += np.diff(np.floor(ends), prepend=0).astype(np.int64)
    positions = np.repeat(np.arange(len(weights)), times)
    return positions, np.arange(len(positions)) - np.repeat(np.cumsum(times) - times, times)


def _adding_up_to(total: int, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares scaled in common so that they add up to `total`, at most 1 each; at least `total` of them are not 0."""
    scaled = np.zeros_like(shares)
    free = shares > 0
    while total > 0 and free.any():
        scaled[free] = shares[free] * (total / shares[free].sum())
        full = free & (scaled >= 1)
        if not full.any():
            break
        scaled[full] = 1
        free &= ~full
        total -= int(np.count_nonzero(full))
    return scaled


def batch_positions(
    canvas_ids: NDArray[np.int64],
    canvases: NDArray[np.int64],
    *,
    batch_size: int,
    epoch: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> list[NDArray[np.int64]]:
    """The batches of one epoch: every position once, and only positions of one canvas in a batch.

    Of several shards, each position is in one. All have the same number of batches, and at each step batches of one
    canvas, as processes that train together need them.

    Args:
        canvas_ids: int64 (P,), for each position the canvas it is placed on; P may be 0.
        canvases: int64 (K, 2), heights and widths.
        batch_size: positions in a batch; the last batch of each canvas may have fewer.
        epoch, seed: of the shuffle.
        shuffle: whether samples and batches come in an order drawn for the epoch, or in that of positions.
        drop_last: leave out batches that are not full; of several shards, steps in which any is not full.
        shard: (index, count), which of how many shards. Each canvas needs at least `count` positions then; where
            the positions don't fill all batches, the last are of nearly equal sizes.

    Returns:
        A list of int64 arrays of positions. How many there are does not depend on seed, epoch and the shard's index.
        The first two are on canvases that tell all varying sides apart (see `told_apart`), where there are such two.
    """
    shard_index, num_shards = shard
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    positions = rng.permutation(len(canvas_ids)) if shuffle else np.arange(len(canvas_ids))
    steps = []
    for canvas in np.unique(canvas_ids):
        members = positions[canvas_ids[positions] == canvas]
        if drop_last:
            members = members[: len(members) // (batch_size * num_shards) * batch_size * num_shards]
        steps += _split(members, batch_size, num_shards)
    # Steps and not batches, whose order would be another one in each shard.
    if shuffle:
        steps = [steps[i] for i in rng.permutation(len(steps))]
    else:
        steps.sort(key=lambda step: step[0][0])
    batches = [step[shard_index] for step in steps]
    _lead_with_a_telling_pair(batches, canvas_ids, canvases)
    return batches


def _split(members: NDArray[np.int64], batch_size: int, num_shards: int) -> list[list[NDArray[np.int64]]]:
    """Steps of a batch for each shard. No batch is empty, and but for a single one at the end none exceeds its size."""
    step_size = batch_size * num_shards
    full, rest = divmod(len(members), step_size)
    if 0 < rest < num_shards:
        # Too few for a step of their own: the last two steps share what there is, or, of one image each, the last.
        full -= 1
    cut = full * step_size
    steps = [np.split(step, num_shards) for step in members[:cut].reshape(full, step_size)]
    left = members[cut:]
    num_steps = min(-(-len(left) // step_size), len(left) // num_shards)
    parts = np.array_split(left, num_steps * num_shards) if num_steps else []
    return steps + [parts[start : start + num_shards] for start in range(0, len(parts), num_shards)]


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
