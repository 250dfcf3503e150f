"""Sampling: which anchors or RoIs a loss is computed on, and the arguments that all of its users take."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import DeltaWeights
from detfeed.errors import expect, expect_each
from detfeed.targets.matches import IGNORED, NEGATIVE, POSITIVE, AnchorMatches
from detfeed.targets.regions import Regions

Crowd = Literal["mask", "box"]

Ints = NDArray[np.int64]


class Drawn(NamedTuple):
    """Anchors or RoIs drawn for a loss, in S places: the P positives first, then negatives, then unused places."""

    rows: NDArray[np.int32]  # [S], of the anchors or RoIs; 0 where unused
    state: NDArray[np.int8]  # [S], IGNORED where unused
    match: Ints  # [P], row of the box of each positive


def draw(
    matches: AnchorMatches,
    rng: np.random.Generator,
    num_samples: int,
    positive_fraction: float,
    *,
    regions: Regions | None = None,
) -> Drawn:
    """Draw as `sample_anchors` does, and fill `num_samples` places."""
    places, negatives = sample_anchors(
        matches, rng, num_samples=num_samples, positive_fraction=positive_fraction, regions=regions
    )
    p, q = len(places), len(negatives)
    rows = np.zeros(num_samples, np.int32)
    rows[:p] = matches.positive[places]
    rows[p : p + q] = negatives
    state = np.full(num_samples, IGNORED, np.int8)
    state[:p] = POSITIVE
    state[p : p + q] = NEGATIVE
    return Drawn(rows, state, matches.match[places])


def sample_anchors(
    matches: AnchorMatches,
    rng: np.random.Generator,
    *,
    num_samples: int = 256,
    positive_fraction: float = 0.5,
    regions: Regions | None = None,
) -> tuple[Ints, Ints]:
    """Draw the anchors that a loss is computed on, uniformly and without replacement.

    Args:
        matches: of one image.
        rng: the sample's generator.
        num_samples: how many to draw in all. Where there are fewer, all are drawn.
        positive_fraction: at most this share of them is positive; negatives fill up.
        regions: ignore regions that are still to be hidden in the matches. What is drawn is the same as if they were;
            but mostly the drawn anchors alone are looked at, some 500 of 250,000.

    Returns:
        int64 (P,), places of the drawn positives in `matches.positive`, and int64 (Q,), indices of the drawn negative
        anchors; P + Q <= num_samples.

    Source: Ren et al. 2015, section 3.1.3.
    """
    places = np.arange(len(matches.positive))
    most = int(num_samples * positive_fraction)
    if len(places) > most:
        places = np.sort(rng.choice(len(places), most, replace=False))
    return places, _draw_negatives(matches.states, rng, num_samples - len(places), regions)


def _draw_negatives(states: NDArray[np.int8], rng: np.random.Generator, wanted: int, regions: Regions | None) -> Ints:
    """Draw negative anchors uniformly, without replacement; all of them if there are fewer. Returns them ascending."""
    available = _count_negatives(states)
    if regions is not None and available - regions.most <= 4 * wanted:
        # The regions may leave so few that it takes the exact number to choose between the two ways.
        regions.hide(states)
        regions = None
        available = _count_negatives(states)
    if available <= 4 * wanted:
        negatives = np.flatnonzero(states == NEGATIVE)
        if len(negatives) > wanted:
            negatives = np.sort(rng.choice(negatives, wanted, replace=False))
        return negatives
    # Most anchors are negative, as a rule: draw among all, and keep the negatives, each once.
    drawn = np.zeros(0, np.int64)
    while len(drawn) < wanted:
        more = rng.integers(len(states), size=2 * (wanted - len(drawn)))
        more = more[states[more] == NEGATIVE]
        if regions is not None:
            more = more[~regions.holds(more)]
        drawn = np.concatenate([drawn, more])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return np.sort(drawn[:wanted])


def _count_negatives(states: NDArray[np.int8]) -> int:
    return len(states) - int(np.count_nonzero(states)) if len(states) else 0


def check_sampling(
    *, num_samples: int, positive_fraction: float, ignore_ioa: float, delta_weights: DeltaWeights, crowd: Crowd
) -> None:
    """Check the arguments that `AnchorTargets` and `RoiTargets` share.

    Raises:
        TypeError: a number is no number.
        ValueError: an argument is out of its range, or `crowd` is unknown.
    """
    expect(Integral, "a whole number", num_samples=num_samples)
    expect(Real, "a number", positive_fraction=positive_fraction, ignore_ioa=ignore_ioa)
    expect_each(Real, "four numbers", delta_weights=delta_weights)
    if num_samples < 1:
        raise ValueError(f"Expected num_samples to be at least 1. Received: {num_samples}")
    for name, share in (("positive_fraction", positive_fraction), ("ignore_ioa", ignore_ioa)):
        if not 0 < share <= 1:
            raise ValueError(f"Expected {name} to be above 0 and at most 1. Received: {share}")
    if len(delta_weights) != 4:
        raise ValueError(f"Expected delta_weights to be four numbers. Received: {delta_weights}")
    if crowd not in get_args(Crowd):
        raise ValueError(f"Expected crowd to be one of {get_args(Crowd)}. Received: {crowd!r}")
