import numpy as np
import pytest

from detfeed.targets.matches import IGNORED, NEGATIVE, POSITIVE, AnchorMatches
from detfeed.targets.sampling import draw, sample_anchors


def made(num_positive, num_negative, num_ignored=0):
    """Matches with so many of each."""
    made_states = np.repeat(np.int8([POSITIVE, NEGATIVE, IGNORED]), [num_positive, num_negative, num_ignored])
    some = np.zeros(num_positive, np.int64)
    return AnchorMatches(made_states, np.arange(num_positive), some, some.astype(np.float32))


@pytest.mark.parametrize(
    ("have", "drawn"),
    [
        ((0, 0), (0, 0)),
        ((0, 10), (0, 8)),
        ((10, 0), (4, 0)),
        ((10, 100), (4, 4)),
        ((1, 100), (1, 7)),
        ((3, 2), (3, 2)),
        ((0, 0, 50), (0, 0)),
    ],
)
def test_half_positive_at_most_and_negatives_fill_up(have, drawn):
    matches = made(*have)
    positives, negatives = sample_anchors(matches, np.random.default_rng(0), num_samples=8)
    assert (len(positives), len(negatives)) == drawn
    assert len(np.unique(positives)) == len(positives)
    assert len(np.unique(negatives)) == len(negatives)
    assert (matches.states[negatives] == NEGATIVE).all()


@pytest.mark.parametrize("num_samples", [12, 36], ids=["drawn among all", "drawn from a list, where few are negative"])
def test_sampling_is_uniform_over_positives_and_negatives(num_samples):
    matches = made(20, 60, 20)
    counts = np.zeros(100)
    rng = np.random.default_rng(1)
    rounds = 4000
    for _ in range(rounds):
        positives, negatives = sample_anchors(matches, rng, num_samples=num_samples)
        counts[positives] += 1
        counts[negatives] += 1
    # Half of the samples are drawn from 20 positives, the other half from 60 negatives: within 5 standard deviations.
    for part in (counts[:20], counts[20:80]):
        chance = num_samples / 2 / len(part)
        assert np.abs(part / rounds - chance).max() < 5 * np.sqrt(chance * (1 - chance) / rounds)
    assert counts[80:].sum() == 0


def test_sampling_depends_on_the_generator_alone():
    matches = made(300, 5000)
    first, again, other = (sample_anchors(matches, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_drawn_positives_stand_before_negatives_and_unused_places_hold_nothing():
    drawn = draw(made(1, 2, 3), np.random.default_rng(0), 5, 0.5)
    assert drawn.rows.tolist() == [0, 1, 2, 0, 0]
    assert drawn.state.tolist() == [1, 0, 0, -1, -1]
    assert drawn.match.tolist() == [0]
    assert (drawn.rows.dtype, drawn.state.dtype) == (np.int32, np.int8)


def test_nothing_to_draw_leaves_every_place_unused():
    drawn = draw(made(0, 0, 4), np.random.default_rng(0), 3, 0.5)
    assert drawn.rows.tolist() == [0, 0, 0]
    assert drawn.state.tolist() == [-1, -1, -1]
    assert len(drawn.match) == 0
