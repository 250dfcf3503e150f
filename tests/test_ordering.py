import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed.ordering import batch_positions, sample_rng, told_apart

ONE = np.array([[32, 32]])


def test_no_positions_make_no_batches():
    assert batch_positions(np.zeros(0, np.int64), ONE, batch_size=4) == []


def test_order_of_positions_is_kept_without_shuffle():
    batches = batch_positions(np.zeros(5, np.int64), ONE, batch_size=2, shuffle=False)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_short_batch_is_dropped_on_request():
    batches = batch_positions(np.zeros(5, np.int64), ONE, batch_size=2, shuffle=False, drop_last=True)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3]]


@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.integers(1, 7),
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_position_comes_once_an_epoch_and_no_batch_mixes_canvases(canvas_ids, size, epoch, seed, shuffle):
    canvas_ids = np.array(canvas_ids, np.int64)
    canvases = np.array([[32, 64], [64, 32], [96, 64], [64, 64]])
    batches = batch_positions(canvas_ids, canvases, batch_size=size, epoch=epoch, seed=seed, shuffle=shuffle)
    assert sorted(np.concatenate([*batches, []]).tolist()) == list(range(len(canvas_ids)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len(set(canvas_ids[batch].tolist())) == 1
    expected = sum(-(-count // size) for count in np.bincount(canvas_ids, minlength=4))
    assert len(batches) == expected
    full = batch_positions(
        canvas_ids, canvases, batch_size=size, epoch=epoch, seed=seed, shuffle=shuffle, drop_last=True
    )
    assert [len(batch) for batch in full] == [size] * sum(count // size for count in np.bincount(canvas_ids))


def test_epochs_and_seeds_differ_and_each_is_the_same_again():
    def order(epoch, seed):
        batches = batch_positions(np.zeros(50, np.int64), ONE, batch_size=10, epoch=epoch, seed=seed)
        return np.concatenate(batches).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(epoch, seed)) for epoch in range(3) for seed in range(3)}) == 9


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_first_two_batches_tell_all_varying_sides_apart(shuffle):
    canvases = np.array([[64, 64], [64, 96], [96, 64], [64, 128]])
    canvas_ids = np.repeat(np.arange(4), [30, 3, 3, 4])
    for epoch in range(20):
        batches = batch_positions(canvas_ids, canvases, batch_size=2, epoch=epoch, shuffle=shuffle)
        first, second = (canvases[canvas_ids[batch[0]]] for batch in batches[:2])
        assert (first != second).all()
        assert first.prod() != second.prod()


def test_canvases_that_vary_in_width_alone_need_to_differ_in_width_alone():
    np.testing.assert_array_equal(told_apart(np.array([[64, 64], [64, 96]])), [[False, True], [True, False]])


def test_transposed_canvases_do_not_tell_areas_apart_if_areas_vary():
    assert not told_apart(np.array([[64, 96], [96, 64], [64, 64]])).any()
    assert told_apart(np.array([[64, 96], [96, 64]])).any()


def test_one_canvas_is_a_pair_with_itself():
    assert told_apart(ONE).all()


def test_generators_of_samples_are_independent_of_each_other():
    """default_rng([5, 2]) and default_rng([5, 2, 0]) are one stream; seeds made from spawn keys are not."""
    keys = [(0, 5, 2), (5, 2, 0), (5, 0, 2), (0, 2, 5), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = {key: sample_rng(*key).integers(2**62) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert draws[0, 5, 2] == sample_rng(0, 5, 2).integers(2**62)
