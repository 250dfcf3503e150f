"""Workers and what can befall them. No Keras here; the faults are real ones."""

import concurrent.futures
import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest

from detfeed import AnchorGrid, AnchorTargets, BatchLoader, SampleError, ShortSide, WorkerError
from detfeed.feeding.feed import Feed

GRID = AnchorGrid(strides=(32,), cell_sizes_wh=(((32.0, 32.0), (64.0, 64.0)),), offset=0.5)
KINDS = [{"workers": 2}, {"workers": 2, "use_multiprocessing": True}]
IDS = ["threads", "processes"]


def make_loader(table, targets=None, **arguments):
    arguments = {"batch_size": 4, "resize": ShortSide(96), "augment": albumentations.HorizontalFlip(p=0.5), **arguments}
    return BatchLoader(table, targets or AnchorTargets(GRID), **arguments)


def same(batch, other):
    return all(np.array_equal(a[name], b[name]) for a, b in zip(batch, other, strict=True) for name in {**a, **b})


def keys_of(loader, epochs=2):
    return [(epoch, index) for epoch in range(epochs) for index in range(loader.num_batches)]


def take(feed, keys):
    """The batches of some keys, in order, with what follows as the guess."""
    for place, key in enumerate(keys):
        yield feed.get(key, keys[place + 1 :])


def children():
    """Living processes that this one started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(stat.parent.name))
    return found


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


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
    time.sleep(0.1)
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
    started = children() - before
    assert len(started) == 2
    del feed
    gc.collect()
    assert wait_until(lambda: not started & children())
    assert same(batch, loader.load(0, 0))  # held batches outlive the workers


def test_worker_runs_each_library_in_one_thread_and_without_keras(shapes):
    def look(sample):
        import cv2

        return {
            "cv2": np.array(cv2.getNumThreads()),
            "omp": np.array(int(os.environ["OMP_NUM_THREADS"])),
            "keras": np.array("keras" in sys.modules),
        }

    feed = Feed(make_loader(shapes, look), workers=1, use_multiprocessing=True)
    y = feed.get((0, 0))[1]
    assert (y["cv2"] == 1).all() and (y["omp"] == 1).all() and not y["keras"].any()


def first_time(folder, name):
    """Whether this is the first call of all processes with this name."""
    try:
        os.close(os.open(Path(folder) / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def deaths(shapes, tmp_path, die, position=5):
    def targets(sample):
        if sample.position == position and first_time(tmp_path, "died"):
            die()
        return {"position": np.array(sample.position)}

    return make_loader(shapes, targets)


@pytest.mark.parametrize(
    ("die", "what"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
        (lambda: ctypes.string_at(0), "was killed by SIGSEGV"),
        (lambda: os._exit(3), "ended with status 3"),
    ],
    ids=["kill -9", "segmentation fault", "exit"],
)
def test_batch_of_a_worker_that_died_is_made_again_and_one_warning_says_so(shapes, tmp_path, die, what):
    loader = deaths(shapes, tmp_path, die)
    feed = Feed(loader, workers=2, use_multiprocessing=True)
    keys = keys_of(loader, epochs=1)
    message = f"A worker process {what} while it made batch . of epoch 0. .* made again"
    with pytest.warns(UserWarning, match=message) as caught:
        batches = list(take(feed, keys))
    assert len(caught) == 1
    (tmp_path / "died").unlink(missing_ok=True)
    for key, (_, y) in zip(keys, batches, strict=True):
        assert y["position"].tolist() == loader.batches(key[0])[key[1]].tolist()


def test_batch_that_kills_its_workers_three_times_is_an_error_that_names_its_images(shapes):
    def targets(sample):
        if sample.position == 5:
            os._exit(1)
        return {"position": np.array(sample.position)}

    loader = make_loader(shapes, targets, shuffle=False)
    feed = Feed(loader, workers=2, use_multiprocessing=True)
    keys = keys_of(loader, epochs=1)
    bad = next(key for key in keys if 5 in loader.batches(0)[key[1]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(WorkerError, match=rf"batch {bad[1]} of epoch 0, the last of 3 .*{shapes.paths[5]}"):
            feed.get(bad)
    assert len(caught) == 2
    good = next(key for key in keys if key != bad)
    assert feed.get(good)[1]["position"].tolist() == loader.batches(0)[good[1]].tolist()


def test_workers_killed_at_any_moment_lose_no_batch(shapes):
    loader = make_loader(shapes, augment=None)  # which starts in a third of the time
    feed = Feed(loader, workers=2, use_multiprocessing=True, max_queue_size=4)
    before = children()
    rng = np.random.default_rng(0)

    def kill(after):
        time.sleep(after)
        os.kill(rng.choice(sorted(children() - before)), signal.SIGKILL)

    keys = keys_of(loader, epochs=12)
    killers, last = [], 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for place, (key, batch) in enumerate(zip(keys, take(feed, keys), strict=True)):
            assert same(batch, loader.load(*key))
            if killers and killers[-1].is_alive():
                last = place
            elif place >= last + 6:  # more than are made ahead, so that none of them is hit three times
                killers.append(threading.Thread(target=kill, args=(0.05 * rng.random(),)))
                killers[-1].start()
                last = place
    for killer in killers:
        killer.join()
    assert 1 <= len(caught) <= len(killers)
    assert all("SIGKILL" in str(warning.message) for warning in caught)


def hanging(shapes, tmp_path, *, once):
    def targets(sample):
        if sample.position == 5 and (not once or first_time(tmp_path, "hung")):
            time.sleep(600)
        return {"position": np.array(sample.position)}

    # Without augmentation, since the start of a worker counts: that takes three times as long with it.
    return make_loader(shapes, targets, shuffle=False, augment=None)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_batch_that_hangs_is_made_again_by_another_worker(shapes, tmp_path, kind):
    loader = hanging(shapes, tmp_path, once=True)
    feed = Feed(loader, timeout=5, **kind)
    keys = keys_of(loader, epochs=1)
    with pytest.warns(UserWarning, match="took longer than 5 s. Its worker was replaced; the batch is made again") as w:
        batches = list(take(feed, keys))
    assert len(w) == 1
    assert sorted(p for _, y in batches for p in y["position"].tolist()) == list(range(len(shapes)))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_batch_that_hangs_twice_is_an_error_that_names_its_images(shapes, tmp_path, kind):
    loader = hanging(shapes, tmp_path, once=False)
    feed = Feed(loader, timeout=4, **kind)
    keys = keys_of(loader, epochs=1)
    bad = next(key for key in keys if 5 in loader.batches(0)[key[1]])
    with (
        pytest.warns(UserWarning, match="took longer than 4 s"),
        pytest.raises(WorkerError, match=rf"took longer than 4 s, 2 times\. .*{shapes.paths[5]}"),
    ):
        feed.get(bad)
    good = next(key for key in keys if key != bad)
    assert feed.get(good)[1]["position"].tolist() == loader.batches(0)[good[1]].tolist()


def test_error_in_a_worker_arrives_with_its_place_and_the_workers_traceback(shapes):
    def divide_by_nothing(sample):
        return {"x": np.array(1 // 0 if sample.position == 5 else 1)}

    loader = make_loader(shapes, divide_by_nothing, shuffle=False)
    feed = Feed(loader, workers=2, use_multiprocessing=True)
    index = next(i for i, batch in enumerate(loader.batches(3)) if 5 in batch)
    with pytest.raises(SampleError) as caught:
        feed.get((3, index))
    message = str(caught.value)
    for part in (shapes.paths[5], "position 5", "epoch 3", f"batch {index}", "ZeroDivisionError"):
        assert part in message
    assert "in a worker process" in str(caught.value.__cause__)
    assert "in divide_by_nothing" in str(caught.value.__cause__)


def test_process_that_can_not_be_started_is_an_error_and_no_hang(shapes, monkeypatch):
    def refuse(*arguments, **named):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    feed = Feed(make_loader(shapes), workers=2, use_multiprocessing=True)
    with pytest.raises(WorkerError, match="Could not start a worker process: Resource temporarily unavailable"):
        feed.get((0, 0))
    monkeypatch.undo()
    assert same(feed.get((0, 1)), feed.loader.load(0, 1))


def test_threads_of_ours_have_one_of_cv2_each_as_long_as_there_are_any(shapes):
    before = cv2.getNumThreads()
    feeds = [Feed(make_loader(shapes), workers=2) for _ in range(2)]
    for feed in feeds:
        feed.get((0, 0))
    assert cv2.getNumThreads() == 1
    feeds[0].close()
    assert cv2.getNumThreads() == 1
    feeds[1].close()
    assert cv2.getNumThreads() == before


def test_loader_that_can_not_be_sent_is_an_error_that_says_why(shapes):
    lock = threading.Lock()
    feed = Feed(make_loader(shapes, lambda s: {"x": np.array(lock.locked())}), workers=1, use_multiprocessing=True)
    with pytest.raises(
        TypeError, match=r"can be pickled.*cannot pickle '_thread.lock' object.*use_multiprocessing=False"
    ):
        feed.get((0, 0))


def test_loader_that_can_not_be_read_in_the_worker_is_an_error_and_no_hang(shapes):
    class Bad:
        def __call__(self, sample):
            return {}

        def __reduce__(self):
            return int, ("not a number",)

    feed = Feed(make_loader(shapes, Bad()), workers=1, use_multiprocessing=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="not a number"):
            feed.get((0, 0))


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
    loader = make_loader(shapes)
    before = children()
    feed = Feed(loader, workers=2, use_multiprocessing=True, max_queue_size=4)
    measured = []
    for epoch in range(50):
        for _ in take(feed, [(epoch, index) for index in range(loader.num_batches)]):
            pass
        if epoch in (14, 49):
            pids = [os.getpid(), *children() - before]
            measured.append(([memory_of(pid) for pid in pids], [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]))
    (memory, files), (memory_later, files_later) = measured
    assert files_later == files
    assert len(memory) == 3
    # A batch leaked an epoch would be 35 times 0.1 MB each, its slot 35 MB.
    assert max(np.subtract(memory_later, memory)) < 3


SCRIPT = """
import os, signal, sys, time
import numpy as np
from detfeed import BatchLoader, Fixed, read_coco
from detfeed.feeding.feed import Feed
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
table = read_coco({json!r}, {images!r})
def targets(sample):  # of the main module, which has no guard
    time.sleep(0.01)
    return {{"pid": np.array(os.getpid())}}
feed = Feed(BatchLoader(table, targets, batch_size=2, resize=Fixed((64, 64))), workers=2, use_multiprocessing=True)
keys = [(0, index) for index in range(feed.loader.num_batches)]
pids = set()
for place, key in enumerate(keys[:4]):
    pids |= set(feed.get(key, keys[place + 1:])[1]["pid"].tolist())
print(os.getpid(), *pids, flush=True)
{end}
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("raise ValueError('in the training loop')", 1),
        ("sys.exit(3)", 3),
        ("os._exit(4)", 4),
        ("time.sleep(100)  # interrupted", -signal.SIGINT),
        ("time.sleep(100)  # killed", -signal.SIGKILL),
        ("feed.get(keys[-1])  # killed while workers are at work", -signal.SIGKILL),
        ("child = os.fork() or time.sleep(8); time.sleep(100)  # killed with a fork that lives on", -signal.SIGKILL),
    ],
    ids=["exit", "exception", "sys.exit", "os._exit", "Ctrl-C", "kill -9", "kill -9 at work", "kill -9 with a fork"],
)
def test_no_worker_and_no_shared_memory_outlives_its_parent(shapes, tmp_path, end, status):
    script = tmp_path / "train.py"
    body = SCRIPT.format(json=shapes.source, images=str(Path(shapes.source).parent / "images"), end=end)
    if "at work" in end:
        body = body.replace("time.sleep(0.01)", f"time.sleep(30 if sample.position >= {len(shapes) - 8} else 0.01)")
        body = body.replace("resize=Fixed((64, 64))", "resize=Fixed((64, 64)), shuffle=False")
    script.write_text(textwrap.dedent(body))
    out, err = tmp_path / "out", tmp_path / "err"
    shm = set(os.listdir("/dev/shm"))
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen([sys.executable, str(script)], stdout=stdout, stderr=stderr, start_new_session=True)
    try:
        assert wait_until(lambda: "\n" in out.read_text() or process.poll() is not None, 30)
        pids = [int(pid) for pid in out.read_text().split()]
        assert len(pids) >= 2, err.read_text()
        if "#" in end:
            time.sleep(0.3)
            # Ctrl-C goes to the whole group, as a terminal does it.
            os.killpg(pids[0], signal.SIGINT) if status == -signal.SIGINT else os.kill(pids[0], signal.SIGKILL)
        assert process.wait(10) == status
        assert wait_until(lambda: not any(alive(pid) for pid in pids[1:]), 5)
        assert set(os.listdir("/dev/shm")) <= shm
        # Nothing but what the script itself says at its end.
        assert err.read_text().count("Traceback") == (status in (1, -signal.SIGINT)), err.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


SMALL = """
import resource, sys, warnings
import numpy as np
from detfeed import BatchLoader, Fixed, read_coco
from detfeed.feeding.feed import Feed
table = read_coco({json!r}, {images!r})
loader = BatchLoader(table, lambda sample: {{}}, batch_size=4, resize=Fixed((512, 512)))
feed = Feed(loader, workers=2, use_multiprocessing=True)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
keys = [(0, index) for index in range(loader.num_batches)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for place, key in enumerate(keys):
        assert np.array_equal(feed.get(key, keys[place + 1:])[0]["image"], loader.load(*key)[0]["image"])
print(len(caught), *[str(w.message) for w in caught])
"""


@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
def test_batches_travel_another_way_where_shared_memory_is_refused_and_one_warning_says_so(shapes, limit):
    """The limit on file sizes holds for anonymous files as well, and makes their reservation fail."""
    code = SMALL.format(json=shapes.source, images=str(Path(shapes.source).parent / "images"), limit=limit)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("1 Could not get 4 MiB of shared memory" if limit == 1 << 20 else "0"), out


def test_full_dev_shm_is_no_matter(shapes):
    """A container's tiny /dev/shm: nothing of detfeed is in there."""
    code = SMALL.format(json=shapes.source, images=str(Path(shapes.source).parent / "images"), limit=1 << 30)
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm && "
    if subprocess.run(["unshare", "--mount", "sh", "-c", f"{mount} true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small /dev/shm here")
    command = f'{mount} exec "$0" -c "$1"'
    out = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, code], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith("0"), out


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_executor_of_somebody_else_makes_the_same_batches_and_stays_open(shapes, kind):
    loader = make_loader(shapes)
    if kind == "threads":
        executor = concurrent.futures.ThreadPoolExecutor(2)
    else:
        executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with executor:
        feed = Feed(loader, executor=executor)
        keys = keys_of(loader)
        for key, batch in zip(keys, take(feed, keys), strict=True):
            assert same(batch, loader.load(*key))
        feed.close()
        assert executor.submit(max, 1, 2).result() == 2


def test_executor_that_breaks_is_an_error_that_names_the_images(shapes):
    loader = make_loader(shapes, lambda sample: os._exit(1))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        feed = Feed(loader, executor=executor)
        first = shapes.paths[loader.batches(0)[0][0]]
        with pytest.raises(WorkerError, match=f"The executor failed at batch 0 of epoch 0: BrokenProcessPool.*{first}"):
            feed.get((0, 0))


def test_errors_of_samples_come_out_of_an_executor_as_they_are(shapes):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        feed = Feed(make_loader(shapes, lambda sample: 1 // 0), executor=executor)
        with pytest.raises(SampleError, match="ZeroDivisionError"):
            feed.get((0, 0))


def test_executor_that_does_not_answer_is_asked_again_and_then_an_error(shapes):
    class Silent(concurrent.futures.Executor):
        asked = 0

        def submit(self, function, /, *arguments, **named):
            self.asked += 1
            return concurrent.futures.Future()

    executor = Silent()
    feed = Feed(make_loader(shapes), executor=executor, timeout=0.2)
    with (
        pytest.warns(UserWarning, match="did not come from the executor within 0.2 s. It is asked for again"),
        pytest.raises(WorkerError, match=r"did not come from .* within 0.2 s, 2 times\. Its images: "),
    ):
        feed.get((0, 0))
    assert executor.asked == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"workers": -1}, "workers to be at least 0"),
        ({"max_queue_size": 0}, "max_queue_size to be above 0"),
        ({"timeout": 0}, "timeout to be above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(shapes, arguments, expected):
    with pytest.raises(ValueError, match=f"Expected {expected}. Received: {next(iter(arguments.values()))}"):
        Feed(make_loader(shapes), **arguments)
