import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed.batches.ordering import batch_positions, sample_rng
from detfeed.images.canvases import told_apart

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


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_shards_are_disjoint_and_whole_and_march_in_step(seed, shuffle):
    rng = np.random.default_rng(seed)
    num_shards, batch_size = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    members = rng.integers(num_shards, num_shards + 30, size=rng.integers(1, 4))
    canvas_ids = rng.permutation(np.repeat(np.arange(len(members)), members))
    canvases = np.array([[64, 96], [96, 64], [64, 64]])[: len(members)]
    for drop_last in (False, True):
        plans = [
            batch_positions(
                canvas_ids,
                canvases,
                batch_size=batch_size,
                seed=seed,
                shuffle=shuffle,
                drop_last=drop_last,
                shard=(shard, num_shards),
            )
            for shard in range(num_shards)
        ]
        fed = [int(p) for plan in plans for batch in plan for p in batch]
        assert len(fed) == len(set(fed))
        assert len({len(plan) for plan in plans}) == 1
        for step in zip(*plans, strict=True):
            assert len({int(canvas_ids[p]) for batch in step for p in batch}) == 1
            sizes = [len(batch) for batch in step]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
            assert max(sizes) <= (batch_size if batch_size > 1 or num_shards == 1 else 2)
        if drop_last:
            assert all(len(batch) == batch_size for plan in plans for batch in plan)
            step = batch_size * num_shards
            assert len(fed) == sum(count // step * step for count in members)
        else:
            assert len(fed) == len(canvas_ids)
