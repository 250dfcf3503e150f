import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed.splitting import divide, joined, numbered

SHARES = st.sampled_from([(0.8, 0.2), (0.7, 0.2, 0.1), (1.0,), (0.5, 0.0, 0.5)])


def test_no_groups_are_divided_into_nothing():
    empty = np.zeros(0, np.int64)
    assert divide(np.zeros((0, 3), np.int64), empty, (0.5, 0.5), seed=0).shape == (0,)
    assert joined(empty, empty).shape == numbered([]).shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_joined_groups_are_the_components_of_both(pairs):
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    sets = [{row} for row in range(len(pairs))]
    for one in range(len(pairs)):
        for other in range(one):
            if first[one] == first[other] or second[one] == second[other]:
                union = sets[one] | sets[other]
                for row in union:
                    sets[row] = union
    assert joined(first, second).tolist() == numbered([min(each) for each in sets]).tolist()


@given(st.integers(1, 60), st.integers(0, 4), SHARES, st.integers(0, 1000))
def test_every_part_with_a_share_gets_each_class_as_far_as_its_groups_go(num_groups, classes, shares, seed):
    rng = np.random.default_rng(seed)
    counts = (rng.random((num_groups, classes)) < 0.3).astype(np.int64)
    sizes = np.ones(num_groups, np.int64)
    parts = divide(counts, sizes, shares, seed=seed)
    assert parts.tolist() == divide(counts, sizes, shares, seed=seed).tolist()
    used = [part for part, share in enumerate(shares) if share]
    assert set(parts.tolist()) <= set(used)
    if classes == 1:
        for shown in counts.T:
            have = len(set(parts[shown > 0].tolist()))
            assert have == min(len(used), int(shown.sum()))
    if not classes:
        sizes_got = np.bincount(parts, minlength=len(shares))
        assert np.abs(sizes_got - np.array(shares) * num_groups).max() < 1 + 1e-9


def test_shares_of_images_and_of_classes_are_kept():
    rng = np.random.default_rng(0)
    counts = (rng.random((2000, 10)) < np.linspace(0.01, 0.5, 10)).astype(np.int64)
    parts = divide(counts, np.ones(2000, np.int64), (0.8, 0.1, 0.1), seed=1)
    assert np.abs(np.bincount(parts) / 2000 - [0.8, 0.1, 0.1]).max() < 0.02
    got = np.stack([counts[parts == part].sum(axis=0) for part in range(3)])
    assert np.abs(got - np.array([[0.8], [0.1], [0.1]]) * counts.sum(axis=0)).max() <= 2
    assert divide(counts, np.ones(2000, np.int64), (0.8, 0.1, 0.1), seed=2).tolist() != parts.tolist()


def test_a_class_of_two_groups_is_in_the_two_parts_with_the_largest_shares():
    counts = np.zeros((30, 1), np.int64)
    counts[[4, 9]] = 1
    parts = divide(counts, np.ones(30, np.int64), (0.1, 0.7, 0.2), seed=0)
    assert sorted(parts[[4, 9]].tolist()) == [1, 2]


@pytest.mark.parametrize("keep_classes", [False, True])
def test_tables_are_split_with_their_groups_whole(shapes, keep_classes):
    groups = [f"video {number // 4}" for number in range(len(shapes))]
    parts = shapes.split((0.5, 0.5), groups=groups, keep_classes=keep_classes)
    assert sorted(path for part in parts for path in part.paths) == sorted(shapes.paths)
    where = dict(zip(shapes.paths, groups, strict=True))
    assert not {where[path] for path in parts[0].paths} & {where[path] for path in parts[1].paths}
    with pytest.raises(ValueError, match=r"Expected groups of 24 images\. Received: 3"):
        shapes.split(0.5, groups=[1, 2, 3])


def test_parts_without_groups_and_classes_are_those_of_before(shapes):
    (part, _) = shapes.split(0.5, seed=3)
    assert (
        part.image_ids.tolist()
        == np.sort(shapes.image_ids[np.random.default_rng(np.random.SeedSequence(3)).permutation(24)[:12]]).tolist()
    )
    kept = shapes.split(0.5, seed=3, keep_classes=True)
    for each in kept:
        assert set(each.class_ids[~each.ignore].tolist()) == set(shapes.class_ids[~shapes.ignore].tolist())
