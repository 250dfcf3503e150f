import gc
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import detfeed.feeding.feed as feed_module
from detfeed import AnchorTargets, BatchLoader, Feed, Fixed, ShortSide
from detfeed.feeding.jobs import Job
from detfeed.processes.memory import Limit
from feeds import GRID, IDS, KINDS, children, keys_of, make_loader, same, take, wait_until


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("processes", [False, True], ids=IDS)
def test_batches_are_the_same_bits_whoever_makes_them_in_whatever_order(shapes, workers, processes):
    loader = make_loader(shapes)
    feed = Feed(loader, workers=workers, use_multiprocessing=processes)
    keys = keys_of(loader)
    shuffled = [keys[place] for place in np.random.default_rng(0).permutation(len(keys))]
    for order in (keys, shuffled):
        for key, batch in zip(order, take(feed, order), strict=True):
            assert same(batch, loader.load(*key))
    for key in shuffled:  # without a guess
        assert same(feed.get(key), loader.load(*key))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_wrong_guesses_and_many_askers_at_once_change_nothing(shapes, kind):
    loader = make_loader(shapes)
    feed = Feed(loader, max_queue_size=3, **kind)
    keys = keys_of(loader)
    failures = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(12):
            key = keys[rng.integers(len(keys))]
            guess = [keys[i] for i in rng.integers(len(keys), size=5)]
            if not same(feed.get(key, guess), loader.load(*key)):
                failures.append(key)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_no_more_is_made_ahead_than_asked_for(shapes):
    made = []

    class Counting(BatchLoader):
        def load(self, epoch, index, *arguments, **named):
            made.append((epoch, index))
            return super().load(epoch, index, *arguments, **named)

    loader = Counting(shapes, AnchorTargets(GRID), batch_size=4, resize=ShortSide(96))
    feed = Feed(loader, workers=2, max_queue_size=3)
    keys = keys_of(loader)
    feed.get(keys[0], keys[1:])
    assert wait_until(lambda: len(made) == 4)
    time.sleep(0.1)  # for a fifth
    assert sorted(made) == keys[:4]


def test_workers_live_across_epochs_and_end_with_close(shapes):
    def pid(sample):
        return {"pid": np.array(os.getpid())}

    loader = make_loader(shapes, pid)
    feed = Feed(loader, workers=2, use_multiprocessing=True)
    seen = {int(p) for _, y in take(feed, keys_of(loader, epochs=4)) for p in y["pid"]}
    assert 1 <= len(seen) <= 2 and seen <= children()
    feed.close()
    assert wait_until(lambda: not seen & children())
    again = feed.get((0, 0))[1]["pid"]
    assert not seen & set(again.tolist())
    feed.close()


def test_workers_end_with_the_feed_that_nobody_holds_any_more(shapes):
    loader = make_loader(shapes)
    before = children()
    feed = Feed(loader, workers=2, use_multiprocessing=True)
    batch = feed.get((0, 0), keys_of(loader)[1:])
    assert wait_until(lambda: len(children() - before) == 2)
    started = children() - before
    del feed
    gc.collect()
    assert wait_until(lambda: not started & children())
    assert same(batch, loader.load(0, 0))  # held batches outlive the workers


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_batch_whose_workers_were_ended_while_they_made_it_ahead_is_made_again(shapes, tmp_path, kind):
    waiting, begun = tmp_path / "waiting", tmp_path / "begun"

    def targets(sample):
        if sample.position in late:
            begun.touch()
            while waiting.exists():
                time.sleep(0.01)
        return {"position": np.array(sample.position)}

    first, second = keys_of(make_loader(shapes))[:2]
    late = set(make_loader(shapes).batches(0)[1].tolist())
    loader = make_loader(shapes, targets)
    feed = Feed(loader, **kind)
    waiting.touch()
    feed.get(first, [second])
    assert wait_until(begun.exists)
    feed.rest()
    waiting.unlink()
    assert same(feed.get(second), loader.load(*second))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_workers_that_a_garbage_collection_ends_while_they_are_asked_are_started_again(shapes, monkeypatch, kind):
    loader = make_loader(shapes)
    feed = Feed(loader, max_queue_size=2, **kind)

    def collected(*arguments):
        feed.rest()
        return Job(*arguments)

    monkeypatch.setattr(feed_module, "Job", collected)
    keys = keys_of(loader)[:4]
    for key, batch in zip(keys, take(feed, keys), strict=True):
        assert same(batch, loader.load(*key))
    assert same(feed.get((1, 0)), loader.load(1, 0))  # which was not expected


def test_held_batches_are_never_written_over(shapes):
    loader = make_loader(shapes)
    feed = Feed(loader, workers=2, use_multiprocessing=True)
    keys = keys_of(loader, epochs=5)
    held = [{"row": x["image"][-1, ::2], "state": y["anchor_state"][:1]} for x, y in take(feed, keys)]
    for key, parts in zip(keys, held, strict=True):
        x, y = loader.load(*key)
        assert np.array_equal(parts["row"], x["image"][-1, ::2])
        assert np.array_equal(parts["state"], y["anchor_state"][:1])


def memory_of(pid):
    """Private and shared memory of a process in MB."""
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_and_open_files_of_parent_and_workers_stay_flat_over_50_epochs(shapes):
    anchor_targets = AnchorTargets(GRID)

    def targets(sample):
        x, y = anchor_targets(sample)
        return x, {**y, "pid": np.array(os.getpid())}

    loader = make_loader(shapes, targets)
    before = children()
    feed = Feed(loader, workers=2, use_multiprocessing=True, max_queue_size=4)
    seen, keys = set(), keys_of(loader)
    while len(seen) < 2:  # until both have started and made a batch
        seen |= {pid for _, y in take(feed, keys) for pid in y["pid"].tolist()}
    measured = []
    for epoch in range(50):
        for _ in take(feed, [(epoch, index) for index in range(loader.num_batches)]):
            pass
        if epoch in (14, 49):
            pids = [os.getpid(), *children() - before]
            assert set(pids[1:]) == seen
            measured.append(([memory_of(pid) for pid in pids], [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]))
    (memory, files), (memory_later, files_later) = measured
    assert files_later == files
    # A batch leaked an epoch would be 35 times 0.1 MB each, its slot 35 MB.
    assert max(np.subtract(memory_later, memory)) < 3


def test_fork_of_the_parent_neither_ends_nor_uses_its_workers(shapes):
    loader = make_loader(shapes)
    feed = Feed(loader, workers=1, use_multiprocessing=True)
    feed.get((0, 0))
    expected = loader.load(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        pid = os.fork()
    if pid == 0:
        ok = same(feed.get((0, 1)), expected)
        feed.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert same(feed.get((0, 2)), loader.load(0, 2))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"workers": -1}, "workers to be at least 0"),
        ({"max_queue_size": 0}, "max_queue_size to be above 0"),
        ({"timeout": 0}, "timeout to be above 0"),
        ({"timeout": float("nan")}, "timeout to be above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(shapes, arguments, expected):
    with pytest.raises(ValueError, match=f"Expected {expected}. Received: {next(iter(arguments.values()))}"):
        Feed(make_loader(shapes), **arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"workers": "2"}, "workers to be a whole number. Received: '2'"),
        ({"workers": None}, "workers to be a whole number. Received: None"),
        ({"max_queue_size": 2.0}, "max_queue_size to be a whole number. Received: 2.0"),
        ({"timeout": None}, "timeout to be a number of seconds. Received: None"),
        ({"executor": 2}, "executor to be a concurrent.futures.Executor or None. Received: 2"),
    ],
)
def test_arguments_of_other_types_are_refused_at_once(shapes, arguments, expected):
    with pytest.raises(TypeError, match=f"Expected {expected}"):
        Feed(make_loader(shapes), **arguments)


@pytest.mark.parametrize("processes", [False, True])
def test_no_more_is_made_ahead_than_a_quarter_of_the_memory_left(shapes, monkeypatch, processes):
    def feed_with(left, targets=lambda sample: {}, **arguments):
        limit = Limit("/sys/fs/cgroup/memory.max", 300_000_000, left)
        monkeypatch.setattr(feed_module, "tightest_limit", lambda: limit)
        loader = BatchLoader(shapes, targets, batch_size=4, resize=Fixed((96, 128)), **arguments)
        return Feed(loader, workers=2, use_multiprocessing=processes)

    size = 4 * 96 * 128 * 3
    keys = [(0, index) for index in range(6)]
    feed = feed_with(4 * 3 * (size + 100))
    with pytest.warns(UserWarning, match=r"3 instead of 10 batches .* 0.1 MB, .* the 300 MB that .*memory.max .* 2 MB"):
        feed.get(keys[0], keys[1:])
    assert len(feed._ahead) == feed.ahead == 3
    feed.get(keys[1], keys[2:])  # told once
    feed.close()
    feed = feed_with(4 * 11 * size)
    feed.get(keys[0], keys[1:])
    assert feed.ahead == 10
    feed.close()
    feed = feed_with(0)
    with pytest.warns(UserWarning, match="1 instead of 10 batches"):
        feed.get(keys[0], keys[1:])
    feed.close()


def test_size_of_targets_counts_once_it_is_known(shapes, monkeypatch):
    size = 4 * 96 * 128 * 3
    monkeypatch.setattr(feed_module, "tightest_limit", lambda: Limit("RLIMIT_AS", 10**9, 4 * 10 * size + 9))
    large = np.zeros(96 * 128 * 3 * 4, np.uint8)  # four times the image
    loader = BatchLoader(shapes, lambda sample: {"large": large}, batch_size=4, resize=Fixed((96, 128)))
    feed = Feed(loader, workers=2)
    with pytest.warns(UserWarning, match=r"1 instead of 10 batches"):
        feed.get((0, 0), [(0, 1), (0, 2), (0, 3)])
    assert feed.ahead == 1
    feed.close()


def test_memory_is_no_concern_where_nothing_is_made_ahead(shapes, monkeypatch):
    monkeypatch.setattr(feed_module, "tightest_limit", lambda: Limit("RLIMIT_AS", 1, 0))
    Feed(BatchLoader(shapes, lambda sample: {}, batch_size=4, resize=Fixed((96, 128)))).get((0, 0))
