"""Workers and their faults, which are real ones. No Keras here."""

import builtins
import contextlib
import ctypes
import errno
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from detfeed import Feed, SampleError, WorkerError
from detfeed.feeding import workers as workers_module
from detfeed.feeding.jobs import Job
from detfeed.feeding.workers import _State
from detfeed.processes import process, slots
from feeds import IDS, KINDS, LONG, alive, children, keys_of, make_loader, same, take, wait_until


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
        living = sorted(children() - before)
        if living:
            os.kill(rng.choice(living), signal.SIGKILL)

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


@pytest.fixture
def hanging(shapes, tmp_path, monkeypatch):
    """Make a loader one of whose batches hangs some times; it is late as soon as it hangs, instead of by the clock."""

    def make(times):
        def targets(sample):
            if sample.position == 5 and any(first_time(tmp_path, f"hung {attempt}") for attempt in range(times)):
                time.sleep(600)
            return {"position": np.array(sample.position)}

        def seconds_left(job, timeout):
            is_bad = 5 in job.loader.batches(job.key[0])[job.key[1]]
            hangs = is_bad and len(list(tmp_path.glob("hung *"))) > job.timeouts
            return 0.0 if hangs else 0.05

        monkeypatch.setattr(Job, "seconds_left", seconds_left)
        return make_loader(shapes, targets, shuffle=False, augment=None)

    return make


@pytest.mark.parametrize(
    ("owner", "name", "error", "after"),
    [
        (process, "bytearray", MemoryError(), 9),
        (process, "_receive_exactly", KeyboardInterrupt(), 12),
        (process, "_unpickle_answer", MemoryError(), 3),
        (slots, "_map", OSError(errno.ENOMEM, "Cannot allocate memory"), 2),
        (slots, "_view", MemoryError(), 20),
    ],
)
def test_no_batch_is_taken_for_another_after_a_failure_to_receive_one(shapes, monkeypatch, owner, name, error, after):
    loader = make_loader(shapes, augment=None)
    keys = keys_of(loader, epochs=3)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    calls = itertools.count()
    function = getattr(owner, name, None) or getattr(builtins, name)

    def failing(*arguments):
        if next(calls) == after:
            raise error
        return function(*arguments)

    monkeypatch.setattr(owner, name, failing, raising=False)
    feed = Feed(loader, workers=2, use_multiprocessing=True, max_queue_size=4)
    with pytest.warns(
        UserWarning, match=f"its answer could not be received .{type(error).__name__}.*(made|started) again"
    ) as w:
        batches = list(take(feed, keys))
    assert len(w) == 1 and next(calls) > after
    for key, batch in zip(keys, batches, strict=True):
        assert same(batch, loader.load(*key))
    feed.close()
    assert len(os.listdir("/proc/self/fd")) <= before  # less if an earlier test's were still open


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["_take_job", "_do", "_has_done", "_make", "_start_process", "_is_over"])
def test_thread_that_ends_by_anything_anywhere_leaves_nobody_waiting(shapes, monkeypatch, kind, error, name):
    function = getattr(_State, name)

    def failing(self, *arguments):
        monkeypatch.setattr(_State, name, function)
        raise error

    monkeypatch.setattr(_State, name, failing)
    feed = Feed(make_loader(shapes, augment=None), **{**kind, "workers": 2})
    monkeypatch.setattr(feed, "ahead", 0)  # and so a single worker
    with pytest.raises((WorkerError, MemoryError), match=r"KeyboardInterrupt|MemoryError|^$"):
        feed.get((0, 0))
    assert same(feed.get((0, 1)), feed.loader.load(0, 1))
    feed.close()


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_batch_that_hangs_is_made_again_by_another_worker(shapes, hanging, kind):
    loader = hanging(times=1)
    feed = Feed(loader, timeout=5, **kind)
    keys = keys_of(loader, epochs=1)
    with pytest.warns(UserWarning, match="took longer than 5 s. Its worker was replaced; the batch is made again") as w:
        batches = list(take(feed, keys))
    assert len(w) == 1
    assert sorted(p for _, y in batches for p in y["position"].tolist()) == list(range(len(shapes)))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_batch_that_hangs_twice_is_an_error_that_names_its_images(shapes, hanging, kind):
    loader = hanging(times=2)
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


@pytest.mark.parametrize(
    ("owner", "name", "broken", "kind", "what"),
    [
        (subprocess, "Popen", BlockingIOError("Resource temporarily unavailable"), "process", "Resource temporarily"),
        (subprocess, "Popen", PermissionError(13, "Permission denied"), "process", "Permission denied"),
        (subprocess, "Popen", MemoryError(), "process", "MemoryError"),
        (process.socket, "socketpair", OSError(24, "Too many open files"), "process", "Too many open files"),
        (process, "Reader", MemoryError(), "process", "MemoryError"),
        (threading.Thread, "start", RuntimeError("can't start new thread"), "process", "can't start new thread"),
        (threading.Thread, "start", RuntimeError("can't start new thread"), "thread", "can't start new thread"),
        (threading.Thread, "start", MemoryError(), "thread", "MemoryError"),
        (sys, "executable", None, "process", "Expected sys.executable to be the path of Python. Received: None"),
        (sys, "executable", "", "process", "Expected sys.executable to be the path of Python. Received: ''"),
        (sys, "executable", "/no/such/file", "process", "No such file"),
        (sys, "executable", "/bin/false", "process", "3 died of it, the last: ended with status 1"),
    ],
)
def test_worker_that_can_not_be_started_by_anything_is_an_error_with_the_reason(
    shapes, monkeypatch, owner, name, broken, kind, what
):
    def refuse(*arguments, **named):
        raise broken

    monkeypatch.setattr(owner, name, refuse if isinstance(broken, BaseException) else broken)
    feed = Feed(make_loader(shapes, augment=None), workers=2, use_multiprocessing=kind == "process")
    keys = keys_of(feed.loader, epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker process ended with status 1 while it started")
        with pytest.raises(WorkerError, match=f"^Could not start a worker {kind}: .*{what}"):
            feed.get(keys[0], keys[1:])
    monkeypatch.undo()
    for key, batch in zip(keys, take(feed, keys), strict=True):  # those that were to be made ahead, too
        assert same(batch, feed.loader.load(*key))
    feed.close()  # before the next test breaks what its end needs


def test_worker_that_can_not_be_started_is_told_once_where_others_make_the_batches(shapes, monkeypatch):
    popen, started = subprocess.Popen, []

    def one(*arguments, **named):
        if started:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(True)
        return popen(*arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", one)
    feed = Feed(make_loader(shapes, augment=None), workers=2, use_multiprocessing=True)
    keys = keys_of(feed.loader)
    with pytest.warns(UserWarning, match="Could not start a worker process: Resource .* made by fewer workers") as w:
        assert all(same(batch, feed.loader.load(*key)) for key, batch in zip(keys, take(feed, keys), strict=True))
    assert len(w) == 1


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


SCRIPT = """
import os, signal, sys, time
import numpy as np
from detfeed import BatchLoader, Feed, Fixed, read_coco
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
table = read_coco({json!r}, {images!r})
def targets(sample):  # of the main module, which has no guard
    if {work} and sample.position >= len(table) - 8:
        print("ready", flush=True)
        time.sleep(600)
    return {{"pid": np.array(os.getpid())}}
loader = BatchLoader(table, targets, batch_size=2, resize=Fixed((64, 64)), shuffle=False)
feed = Feed(loader, workers=2, use_multiprocessing=True, max_queue_size=2)
keys = [(0, index) for index in range(loader.num_batches)]
pids = set()
for place, key in enumerate(keys[:4]):
    pids |= set(feed.get(key, keys[place + 1:])[1]["pid"].tolist())
print(os.getpid(), *pids, flush=True)
{end}
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("end", "send", "status"),
    [
        ("", None, 0),
        ("raise ValueError('in the training loop')", None, 1),
        ("sys.exit(3)", None, 3),
        ("os._exit(4)", None, 4),
        ("print('ready', flush=True); time.sleep(600)", signal.SIGINT, -signal.SIGINT),
        ("print('ready', flush=True); time.sleep(600)", signal.SIGKILL, -signal.SIGKILL),
        ("feed.get(keys[-1])", signal.SIGKILL, -signal.SIGKILL),  # a worker is ready when it is at work
        ("os.fork() and print('ready', flush=True); time.sleep(600)", signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["exit", "exception", "sys.exit", "os._exit", "Ctrl-C", "kill -9", "kill -9 at work", "kill -9 with a fork"],
)
def test_no_worker_and_no_shared_memory_outlives_its_parent(shapes, tmp_path, end, send, status):
    script = tmp_path / "train.py"
    images = str(Path(shapes.source).parent / "images")
    script.write_text(SCRIPT.format(json=shapes.source, images=images, end=end, work="feed.get" in end))
    out, err = tmp_path / "out", tmp_path / "err"
    shm = set(os.listdir("/dev/shm"))
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen([sys.executable, str(script)], stdout=stdout, stderr=stderr, start_new_session=True)
    try:
        last = "ready\n" if send else "\n"
        assert wait_until(lambda: last in out.read_text() or process.poll() is not None)
        pids = [int(word) for word in out.read_text().split() if word != "ready"]
        assert len(pids) >= 2, err.read_text()
        if send == signal.SIGINT:
            os.killpg(pids[0], send)  # a terminal sends it to the whole group
        elif send:
            os.kill(pids[0], send)
        assert process.wait(LONG) == status
        assert wait_until(lambda: not any(alive(pid) for pid in pids[1:]))
        assert set(os.listdir("/dev/shm")) <= shm
        # The script's own exception is the only one.
        assert err.read_text().count("Traceback") == (status in (1, -signal.SIGINT)), err.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


SMALL = """
import resource, sys, warnings
import numpy as np
from detfeed import BatchLoader, Feed, Fixed, read_coco
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
    """The limit on file sizes holds for anonymous files, too: their reservation fails."""
    code = SMALL.format(json=shapes.source, images=str(Path(shapes.source).parent / "images"), limit=limit)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("1 Could not get 4 MiB of shared memory" if limit == 1 << 20 else "0"), out


def test_full_dev_shm_is_no_matter(shapes):
    """Containers often have a tiny /dev/shm; detfeed puts nothing there."""
    code = SMALL.format(json=shapes.source, images=str(Path(shapes.source).parent / "images"), limit=1 << 30)
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm && "
    if subprocess.run(["unshare", "--mount", "sh", "-c", f"{mount} true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small /dev/shm here")
    command = f'{mount} exec "$0" -c "$1"'
    out = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, code], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith("0"), out


ENDS = """
import os, sys, threading, time, warnings
import cv2
import numpy as np
from detfeed import BatchLoader, Feed, Fixed, read_coco
from detfeed.feeding import workers
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
table = read_coco({json!r}, {images!r})
pixels = np.zeros((500, 500, 3), np.uint8)
def targets(sample):  # nearly always within cv2
    if {hang} and sample.position % 2:
        time.sleep(600)
    for _ in range(10):
        cv2.medianBlur(pixels, 9)
    return {{}}
loader = BatchLoader(table, targets, batch_size=2, resize=Fixed((64, 64)), shuffle=False)
feed = Feed(loader, workers=4, max_queue_size=50)
keys = [(epoch, 0) for epoch in range(50)]
if {hang}:
    threading.excepthook = print  # it is cancelled
    threading.Thread(target=feed.get, args=(keys[0], keys[1:]), daemon=True).start()
    while len(workers._threads()) < 4:
        time.sleep(0.01)
else:
    feed.get(keys[0], keys[1:])
{end}
"""


@pytest.mark.parametrize(
    ("end", "hang", "status"),
    [
        ("", False, 0),
        ("sys.exit(3)", False, 3),
        ("raise ValueError", False, 1),
        ("start = time.monotonic(); feed.close(); assert time.monotonic() - start < 5", False, 0),
        ("pid = os.fork(); pid and sys.exit(os.waitpid(pid, 0)[1])", False, 0),
        ("feed = None; feed2 = Feed(loader, workers=2); feed2.get(keys[0], keys[1:])", False, 0),
        (
            "workers.EXIT_SECONDS = 0.5; start = time.monotonic(); feed.close(); print(time.monotonic() < start + 1)",
            True,
            0,
        ),
        ("workers.EXIT_SECONDS = 0; sys.exit(3)", False, 3),
    ],
    ids=[
        "end",
        "sys.exit",
        "exception",
        "close",
        "fork",
        "collected",
        "a target hangs",
        "threads that are not awaited",
    ],
)
def test_program_that_uses_threads_ends_as_it_would_without_them(shapes, end, hang, status):
    images = str(Path(shapes.source).parent / "images")
    code = ENDS.format(json=shapes.source, images=images, end=end, hang=hang)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=False)
    assert run.returncode == status, run.stderr
    # From Python 3.13 on, a traceback of `-c` shows the line of the code, too.
    errors = [line for line in run.stderr.splitlines() if "Error" in line and not line.startswith(" ")]
    assert "terminate" not in run.stderr and errors == ["ValueError"] * (status == 1), run.stderr
    if hang:
        assert "True" in run.stdout


@pytest.mark.parametrize("kind", [{"workers": 0}, *KINDS], ids=["in place", *IDS])
@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_target_function_that_would_end_the_training_is_an_error_that_names_the_image(shapes, kind, end):
    def targets(sample):
        if sample.position == 5:
            raise end(0)
        return {}

    if end is KeyboardInterrupt and not kind["workers"]:
        pytest.skip("this is Ctrl-C, which ends the training")
    loader = make_loader(shapes, targets, augment=None)
    bad = next(index for index, batch in enumerate(loader.batches(0)) if 5 in batch)
    with pytest.raises(SampleError, match=f"{shapes.paths[5]} .*{end.__name__}: 0"):
        Feed(loader, **kind).get((0, bad))


@pytest.mark.parametrize("what", ["lambda", "lock", "file", "generator"])
def test_target_that_can_not_be_sent_is_an_error_at_once_that_names_it_and_the_image(shapes, what):
    def targets(sample):
        odd = {"lambda": lambda: 0, "lock": threading.Lock(), "file": sys.stderr, "generator": (i for i in ())}
        return {"fine": np.zeros(2), "odd": np.array(odd[what] if sample.position == 5 else None, object)}

    loader = make_loader(shapes, targets, augment=None, shuffle=False)
    feed = Feed(loader, workers=1, use_multiprocessing=True)
    bad = next(index for index, batch in enumerate(loader.batches(0)) if 5 in batch)
    with pytest.raises(
        SampleError, match=rf"{shapes.paths[5]} .*Error: .*(lambda|lock|TextIO|generator).* 'odd' can't"
    ):
        feed.get((0, bad))
    for index in range(loader.num_batches):
        if index != bad:
            assert same(feed.get((0, index)), loader.load(0, index))


def test_target_of_a_class_that_is_not_here_is_an_error_that_names_the_images(shapes):
    def targets(sample):
        if "only_there" not in sys.modules:
            module = sys.modules["only_there"] = types.ModuleType("only_there")
            module.Odd = type("Odd", (), {"__module__": "only_there"})
        return {"odd": np.array(sys.modules["only_there"].Odd(), object)}

    loader = make_loader(shapes, targets, augment=None)
    feed = Feed(loader, workers=1, use_multiprocessing=True)
    first = shapes.paths[loader.batches(0)[0][0]]
    with pytest.raises(
        WorkerError, match=rf"Batch 0 of epoch 0 can't be sent .*ModuleNotFoundError.*only_there.*{first}"
    ):
        feed.get((0, 0))


def test_start_of_a_worker_does_not_count_as_time_for_its_batch(shapes, monkeypatch):
    load = process.Process.load
    starting, begun = [], []

    def slow(self):
        starting.append(time.monotonic())
        assert wait_until(lambda: time.monotonic() > starting[0] + 3 * feed.timeout)  # as a slow import would be
        load(self)
        begun.append(time.monotonic())

    monkeypatch.setattr(process.Process, "load", slow)
    feed = Feed(make_loader(shapes, lambda sample: {}, augment=None), workers=1, use_multiprocessing=True, timeout=0.5)
    feed.get((0, 0))  # without a warning
    assert begun[0] - starting[0] > 1


@pytest.mark.parametrize("processes_of", [1, 2])
def test_process_that_never_gets_ready_is_an_error(shapes, monkeypatch, processes_of):
    popen = subprocess.Popen

    def stopped(*arguments, **named):
        started = popen(*arguments, **named)
        os.kill(started.pid, signal.SIGSTOP)
        return started

    monkeypatch.setattr(subprocess, "Popen", stopped)
    monkeypatch.setattr(workers_module, "START_SECONDS", 0.3)
    feed = Feed(make_loader(shapes), workers=processes_of, use_multiprocessing=True, timeout=0.3)
    with pytest.raises(WorkerError, match=r"Could not start a worker process: it was not ready within 0.3 s"):
        feed.get((0, 0), keys_of(feed.loader)[1:])
    feed.close()


def test_what_a_target_function_starts_ends_with_its_worker(shapes, tmp_path):
    def targets(sample):
        pid = os.fork() or time.sleep(600)
        shell = subprocess.Popen(["sleep", "600"])
        if sample.position == 5 and first_time(tmp_path, "died"):
            os._exit(1)
        return {"pids": np.array([pid, shell.pid])}

    loader = make_loader(shapes, targets, augment=None, shuffle=False)
    feed = Feed(loader, workers=1, use_multiprocessing=True, timeout=LONG)
    pids = set(feed.get((0, 0))[1]["pids"].ravel().tolist())
    assert all(alive(pid) for pid in pids)
    feed.close()
    assert wait_until(lambda: not any(alive(pid) for pid in pids))


def slots_in_use():
    """Numbers of the files whose memory is mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:detfeed" in line}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_closed_feed_gives_its_memory_back_at_once(shapes):
    gc.collect()
    before = slots_in_use()
    loader = make_loader(shapes, augment=None)
    gc.disable()
    try:
        feed = Feed(loader, workers=2, use_multiprocessing=True, max_queue_size=4)
        for batch in take(feed, keys_of(loader, epochs=1)):  # noqa: B007
            assert slots_in_use() - before
        feed.close()
        assert len(slots_in_use() - before) == 1  # that of `batch`
        del batch
        assert not slots_in_use() - before
    finally:
        gc.enable()


def test_fork_of_the_parent_keeps_its_batch(shapes):
    loader = make_loader(shapes, augment=None)
    feed = Feed(loader, workers=1, use_multiprocessing=True, max_queue_size=2)
    keys = keys_of(loader, epochs=3)
    batch = feed.get(keys[0], keys[1:])
    expected = loader.load(*keys[0])
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        pid = os.fork()
    if pid == 0:
        os.close(theirs)
        os.read(ours, 1)  # until the parent has closed its end
        os._exit(0 if same(batch, expected) else 1)
    os.close(ours)
    del batch
    for place, key in enumerate(keys[1:], 1):
        assert same(feed.get(key, keys[place + 1 :]), loader.load(*key))
    os.close(theirs)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def immortal(monkeypatch):
    """Workers that no signal ends, as in a frozen container; they are ended with the test."""
    started = []

    class Immortal(subprocess.Popen):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            started.append(self)

        def wait(self, timeout=None):
            assert timeout is not None, "nobody may wait for it without a limit"
            return super().wait(timeout)

    killpg = os.killpg
    monkeypatch.setattr(subprocess, "Popen", Immortal)
    monkeypatch.setattr(os, "killpg", lambda group, number: None)
    yield started
    for popen in started:
        with contextlib.suppress(ProcessLookupError):
            killpg(popen.pid, signal.SIGKILL)
        popen.wait(LONG)


def test_timeout_and_close_hold_against_a_worker_that_can_not_be_killed(shapes, immortal):
    def targets(sample):
        if sample.position == 5:
            os.kill(os.getpid(), signal.SIGSTOP)  # its other thread, too
        return {}

    loader = make_loader(shapes, targets, augment=None, shuffle=False)
    feed = Feed(loader, workers=1, use_multiprocessing=True, timeout=1.5)
    bad = next(index for index, batch in enumerate(loader.batches(0)) if 5 in batch)
    start = time.monotonic()
    with (
        pytest.warns(UserWarning, match=r"took longer than 1.5 s"),
        pytest.raises(WorkerError, match=r"took longer than 1.5 s, 2 times"),
    ):
        feed.get((0, bad))
    assert [popen.poll() for popen in immortal[:2]] == [None, None]
    good = (0, (bad + 1) % loader.num_batches)
    assert same(feed.get(good), loader.load(*good))
    feed.close()
    assert time.monotonic() - start < LONG / 2


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_workers_that_nobody_asks_end_and_start_again_unseen(shapes, monkeypatch, kind):
    monkeypatch.setattr(workers_module, "IDLE_SECONDS", 0.1)
    loader = make_loader(shapes, augment=None)
    keys = keys_of(loader)
    before, threads = children(), set(workers_module._threads())  # others' tests leave some that hang
    feeds = [Feed(loader, max_queue_size=3, **kind) for _ in range(2)]
    made = {}
    for feed in feeds:
        for place, key in enumerate(keys[:4]):
            assert same(feed.get(key, keys[place + 1 :]), loader.load(*key))
        assert wait_until(lambda: set(workers_module._threads()) <= threads and children() <= before)
        made[feed] = dict(feed._ahead)
    for feed in feeds:
        for place, key in enumerate(keys[4:8], 4):
            job = feed._ahead.get(key)
            assert key not in made[feed] or (job is made[feed][key] and job.result.done())  # kept
            assert same(feed.get(key, keys[place + 1 :]), loader.load(*key))


def is_interrupted(call, number):
    """Call, with an interrupt as of Ctrl-C at the place with this number; False if there are not so many.

    Python looks for signals where a function of Python's begins and after one of C's has returned. Places inside
    `Thread.start` are left out: Python's own lock may stay taken there.
    """

    def count(frame, event, argument):
        nonlocal number
        if event not in ("call", "c_return"):
            return
        while frame is not None:
            if frame.f_code is threading.Thread.start.__code__:
                return
            frame = frame.f_back
        number -= 1
        if number == 0:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        sys.setprofile(count)
        call()
        sys.setprofile(None)
    return number <= 0


# An interrupt leaves a file open that was just opened, and is lost in a garbage collection.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_interrupt_of_the_asking_thread_anywhere_leaves_nobody_waiting(shapes, monkeypatch, kind):
    monkeypatch.setattr(workers_module, "IDLE_SECONDS", 3.0)  # then workers end whose feed is interrupted in close
    loader = make_loader(shapes, lambda sample: {"position": np.array(sample.position)}, augment=None)
    keys = keys_of(loader)
    expected = {key: loader.load(*key) for key in keys}
    before, threads = children(), set(workers_module._threads())
    step = 499 if "use_multiprocessing" in kind else 7  # there are 1300 places, and in a longer wait more
    for number in itertools.count(1, step):
        feed = Feed(loader, max_queue_size=3, **kind)
        interrupted = is_interrupted(functools.partial(feed.get, keys[0], keys[1:]), number)
        for place, key in enumerate(keys[:3]):
            assert same(feed.get(key, keys[place + 1 :]), expected[key])
        is_interrupted(feed.close, number)
        if not interrupted:
            break
    assert number > 1000
    assert wait_until(lambda: set(workers_module._threads()) <= threads and children() <= before)
