import collections
import dataclasses
import math
import pickle

import albumentations
import numpy as np
import pytest

from detfeed import BatchLoader, ClassBalanced, Fixed, LimitEmpty, Mix, RepeatFactor, Replace, ShortSide, concat
from detfeed.batches.ordering import draw_positions

BOX = (1, 1, 9, 9)


@pytest.fixture
def table(annotate):
    """Ten images: class 0 in eight of them, 1 in three, 2 in one; the last two have none, one of them a crowd."""
    classes_of = [[0], [0, 0], [0, 1], [0], [0], [0, 1], [0], [0, 1, 2], [], [2]]
    made = annotate(
        [(20, 30)] * 10, [[BOX] * len(c) for c in classes_of], ignore_of=[[False] * len(c) for c in classes_of]
    )
    ignore = np.zeros(len(made.boxes), bool)
    ignore[-1] = True
    class_ids = np.array([c for classes in classes_of for c in classes], np.int32)
    return dataclasses.replace(made, class_ids=class_ids, ignore=ignore)


def classes_of(table, position):
    rows = table.rows(position)
    return set(table.class_ids[rows][~table.ignore[rows]].tolist())


def positions(sample):
    return {"position": np.array(sample.position)}


def fed(loader, epochs):
    """Positions of each epoch."""
    return [np.concatenate(loader.batches(epoch)).tolist() for epoch in range(epochs)]


def test_samplers_take_sets_without_images_and_without_objects(annotate):
    nothing, empty = annotate([], []), annotate([(20, 30)] * 3, [[]] * 3)
    for sampler in (RepeatFactor(), ClassBalanced(), LimitEmpty(), LimitEmpty(0.5)):
        assert sampler(nothing).shape == (0,)
    assert RepeatFactor()(empty).tolist() == [1, 1, 1]
    assert ClassBalanced()(empty).tolist() == LimitEmpty(0.5)(empty).tolist() == [0, 0, 0]
    with pytest.raises(
        ValueError, match=r"at least one image a weight above 0. Received: all 3 weights are 0, from LimitEmpty"
    ):
        BatchLoader(empty, positions, batch_size=1, resize=Fixed((20, 30)), sampler=LimitEmpty())


def test_repeat_factor_is_that_of_a_slow_loop_over_the_papers_formula(table):
    for threshold in (0.001, 0.25, 0.5, 1):
        expected = []
        for image in range(len(table)):
            factors = [1.0]
            for c in classes_of(table, image):
                f = sum(c in classes_of(table, other) for other in range(len(table))) / len(table)
                factors.append(max(1, math.sqrt(threshold / f)))
            expected.append(max(factors))
        np.testing.assert_allclose(RepeatFactor(threshold)(table), expected, rtol=1e-12)
    assert RepeatFactor(0.4)(table)[7] == 2  # class 2 is in a tenth of the images


def test_class_balanced_is_the_chance_to_draw_a_class_and_then_an_image_of_it(table):
    expected = [
        sum(1 / sum(c in classes_of(table, other) for other in range(10)) / 3 for c in classes_of(table, image))
        for image in range(10)
    ]
    np.testing.assert_allclose(ClassBalanced()(table), 10 * np.array(expected), rtol=1e-12)
    np.testing.assert_allclose(ClassBalanced(60)(table), 60 * np.array(expected), rtol=1e-12)
    assert ClassBalanced()(table).sum() == pytest.approx(10)


def test_mix_gives_each_set_its_share_whatever_its_size(annotate, table):
    both = concat([table, annotate([(20, 30)] * 5, [[]] * 5)], new_ids=True)
    weights = Mix((10, 5), (3, 1), 40)(both)
    np.testing.assert_allclose(weights, [3] * 10 + [2] * 5)
    assert Mix((10, 0, 5), (1, 0, 0))(both).tolist() == [1.5] * 10 + [0] * 5
    loader = BatchLoader(both, positions, batch_size=4, resize=Fixed((20, 30)), sampler=Mix((10, 5), (3, 1)))
    counts = [sum(position < 10 for position in epoch) for epoch in fed(loader, 200)]
    assert {len(epoch) for epoch in fed(loader, 3)} == {15}
    assert np.mean(counts) == pytest.approx(11.25, abs=0.3)
    assert min(counts) >= 10
    with pytest.raises(ValueError, match=r"add up to the 10 images there are. Received: \(3, 4\)"):
        Mix((3, 4), (1, 1))(table)


def test_images_without_objects_are_left_out_or_have_their_share_and_are_others_in_each_epoch(annotate):
    many = annotate([(20, 30)] * 20, [[BOX]] * 8 + [[]] * 12)
    loader = BatchLoader(many, positions, batch_size=4, resize=Fixed((20, 30)), sampler=LimitEmpty())
    assert all(sorted(epoch) == list(range(8)) for epoch in fed(loader, 3))
    loader = BatchLoader(many, positions, batch_size=4, resize=Fixed((20, 30)), sampler=LimitEmpty(0.2))
    seen = set()
    for epoch in fed(loader, 30):
        assert len(epoch) == len(set(epoch)) == 10
        assert set(epoch) >= set(range(8))
        seen |= set(epoch)
    assert seen == set(range(20))
    for share in (0.61, 1):
        assert LimitEmpty(share)(many).tolist() == [1] * 20


def test_crowd_alone_is_no_object(table):
    assert LimitEmpty()(table).tolist() == [1] * 8 + [0] * 2
    assert ClassBalanced()(table)[9] == 0


@pytest.mark.parametrize("seed", range(12))
def test_each_position_comes_its_weight_rounded_down_or_up_and_as_many_in_each_epoch(seed):
    rng = np.random.default_rng(seed)
    weights = rng.choice([0, 0.02, 0.3, 1, 1.6, 2, 3.97], rng.integers(1, 40))
    canvas_ids = rng.integers(0, 4, len(weights))
    at_least = int(rng.integers(1, 5))
    counts, order = set(), set()
    for epoch in range(40):
        drawn, repeats = draw_positions(weights, canvas_ids, epoch=epoch, seed=seed, at_least=at_least)
        assert (np.diff(drawn) >= 0).all()
        times = np.bincount(drawn, minlength=len(weights))
        assert repeats.tolist() == [r for count in times for r in range(count)]
        assert (times >= np.floor(weights)).all() and (times <= np.ceil(weights)).all()
        counts.add(tuple(np.bincount(canvas_ids[drawn], minlength=4).tolist()))
        order.add(drawn.tobytes())
    (per_canvas,) = counts
    for canvas, count in enumerate(per_canvas):
        members = weights[(canvas_ids == canvas) & (weights > 0)]
        expected = max(round(members.sum()), min(at_least, len(members)))
        if (members % 1).any():
            expected = max(expected, np.floor(members).sum() + 1)  # or some would never come
        assert count == expected
    again, _ = draw_positions(weights, canvas_ids, epoch=39, seed=seed, at_least=at_least)
    np.testing.assert_array_equal(drawn, again)


def test_nothing_to_draw_draws_nothing():
    drawn, repeats = draw_positions(np.zeros(0), np.zeros(0, np.int64), epoch=0, seed=0)
    assert drawn.shape == repeats.shape == (0,)


def test_positions_come_on_average_as_often_as_their_weights_say():
    weights = np.concatenate([np.linspace(0.05, 2.95, 30), np.full(20, 0.5)])  # 55 in all
    epochs = 2000
    times = np.zeros(50)
    together = 0
    for epoch in range(epochs):
        drawn, _ = draw_positions(weights, np.zeros(50, np.int64), epoch=epoch, seed=1)
        times += np.bincount(drawn, minlength=50)
        together += (drawn >= 48).sum() == 2
    # Fractions that come or not: five standard deviations at most.
    assert (np.abs(times / epochs - weights) < 5 * 0.5 / np.sqrt(epochs)).all()
    assert 0.15 < together / epochs < 0.35  # and the draws of two are nearly independent


def test_rounding_of_a_repeat_factor_is_a_small_change_of_it_and_no_image_is_left_out(table):
    loader = BatchLoader(table, positions, batch_size=3, resize=Fixed((20, 30)), sampler=RepeatFactor(0.5))
    counts = collections.Counter()
    for epoch in fed(loader, 600):
        assert set(epoch) == set(range(10))
        counts.update(epoch)
    weights = RepeatFactor(0.5)(table)
    np.testing.assert_allclose([counts[p] / 600 for p in range(10)], weights, atol=0.15)


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_as_many_in_each_epoch_and_shard_and_march_in_step(shapes, drop_last):
    plans = {}
    for shard in range(2):
        loader = BatchLoader(
            shapes,
            positions,
            batch_size=3,
            resize=ShortSide(96),
            sampler=lambda annotations: np.linspace(0, 2.3, len(annotations)),
            drop_last=drop_last,
            shard=(shard, 2),
        )
        for epoch in range(20):
            plans[epoch, shard] = loader.batches(epoch)
            assert len(plans[epoch, shard]) == loader.num_batches
            for batch in plans[epoch, shard]:
                assert len(set(loader.canvas_ids[batch].tolist())) == 1
                assert len(batch) == 3 if drop_last else 1 <= len(batch) <= 3
    sizes = {sum(len(batch) for shard in range(2) for batch in plans[epoch, shard]) for epoch in range(20)}
    assert len(sizes) == 1
    for epoch in range(20):
        for one, other in zip(plans[epoch, 0], plans[epoch, 1], strict=True):
            assert loader.canvas_ids[one[0]] == loader.canvas_ids[other[0]]
        assert 0 not in np.concatenate(plans[epoch, 0] + plans[epoch, 1])


def test_no_sampler_is_the_same_as_all_ones(shapes):
    one, other = (
        BatchLoader(shapes, positions, batch_size=4, resize=ShortSide(96), sampler=sampler)
        for sampler in (None, lambda annotations: np.ones(len(annotations)))
    )
    for epoch in range(3):
        for a, b in zip(one.batches(epoch), other.batches(epoch), strict=True):
            np.testing.assert_array_equal(a, b)


def test_image_that_comes_again_is_augmented_anew_and_the_same_wherever_it_is_made(annotate):
    table = annotate([(40, 60)] * 2, [[BOX]] * 2)
    loader = BatchLoader(
        table,
        positions,
        batch_size=16,
        resize=Fixed((20, 20)),
        augment=albumentations.RandomCrop(20, 20, p=1),
        sampler=lambda annotations: np.full(len(annotations), 8),
    )
    x, y = loader.load(0, 0)
    assert sorted(y["position"].tolist()) == [0] * 8 + [1] * 8
    assert len({image.tobytes() for image in x["image"]}) > 12
    again = pickle.loads(pickle.dumps(loader)).load(0, 0)
    np.testing.assert_array_equal(x["image"], again[0]["image"])
    images = {loader.load_sample(0, p, repeat=r).image.tobytes() for p in range(2) for r in range(8)}
    assert images == {image.tobytes() for image in x["image"]}


def test_images_that_never_come_have_no_say_in_the_canvases_and_replace_nothing(annotate, tmp_path):
    table = annotate([(20, 60), (60, 20), (20, 60), (20, 61), (20, 60)], [[BOX], [], [BOX], [BOX], []])
    loader = BatchLoader(table, positions, batch_size=2, resize=ShortSide(20), sampler=LimitEmpty(), on_error=Replace())
    assert loader.canvases.tolist() == [[32, 64]]
    assert loader.load_sample(0, 1).input_hw == (32, 64)  # it can be looked at all the same
    (tmp_path / "002.png").write_bytes(b"nothing")
    found = []
    for epoch in range(10):
        for index in range(loader.num_batches):
            loader.load(epoch, index, report=found.append)
    assert {r.replacement_path for r in found} == {table.paths[0], table.paths[3]}


def test_shards_that_would_stay_without_images_are_refused(table):
    def few(annotations):
        return np.eye(1, len(annotations))[0]

    with pytest.raises(ValueError, match="at least one image for each of 2 shards"):
        BatchLoader(table, positions, batch_size=4, resize=Fixed((20, 30)), sampler=few, shard=(0, 2))


@pytest.mark.parametrize(
    "weights", [[1, 2], np.full(10, np.nan), np.full(10, -0.1), np.full((10, 1), 1.0), np.full(10, np.inf)]
)
def test_sampler_that_returns_something_else_is_refused(table, weights):
    with pytest.raises(ValueError, match="return 10 numbers, finite and not negative, one for each image"):
        BatchLoader(table, positions, batch_size=4, resize=Fixed((20, 30)), sampler=lambda annotations: weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepeatFactor(0), "threshold to be above 0 and at most 1. Received: 0"),
        (lambda: ClassBalanced(0), "num_images to be at least 1, or None. Received: 0"),
        (lambda: Mix((1, 2), (1,)), r"a size and a share for each set. Received: \(1, 2\) and \(1,\)"),
        (lambda: Mix((1, 2), (1, -1)), r"not negative, and not all 0. Received: \(1, -1\)"),
        (lambda: Mix((1, 0), (1, 1)), "images in each set that has a share. Received: none in set 1"),
        (lambda: LimitEmpty(1.5), "a share from 0 to 1. Received: 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
