import builtins
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import types
import weakref
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from detfeed.processes import process as process_module
from detfeed.processes import slots
from detfeed.processes.process import AnswerNotSent, Process, ProcessDied, ProcessTraceback, cores


class Task:
    """Runs any function of `allocate` and arguments, which is sent by value."""

    def __init__(self, function):
        self.function = cloudpickle.dumps(function)

    def run(self, allocate, *arguments):
        return pickle.loads(self.function)(allocate, *arguments)


@pytest.fixture
def start():
    """Start a process that runs a function; it is ended with the test."""
    processes = []

    def start_process(function):
        processes.append(Process(cloudpickle.dumps(Task(function))))
        return processes[-1]

    yield start_process
    for process in processes:
        process.end()


def test_answer_without_arrays_is_no_special_case(start):
    process = start(lambda allocate: ((), None))
    for _ in range(2):
        answer = process.call()
        assert (answer.arrays, answer.extra, answer.refused) == ((), None, "") and answer.seconds >= 0


def test_arrays_come_through_shared_memory_or_pickled_and_anything_besides(start):
    def squares(allocate, count, *, power=2):
        shared = allocate((count,), np.int64)
        shared[...] = np.arange(count) ** power
        return ({"shared": shared}, {"pickled": np.arange(3)}), {"pid": os.getpid()}

    process = start(squares)
    for count in (4, 100_000, 0):
        answer = process.call(count)
        shared, pickled = answer.arrays[0]["shared"], answer.arrays[1]["pickled"]
        assert shared.dtype == np.int64 and (shared == np.arange(count) ** 2).all()
        assert pickled.tolist() == [0, 1, 2]
        assert answer.extra["pid"] != os.getpid()
        if count:
            assert not shared.flags.owndata and shared.flags.writeable


def test_held_arrays_are_not_written_over_and_outlive_their_process(start):
    process = start(full)
    held = [process.call(value).arrays[0]["array"] for value in range(5)]
    process.end()
    assert [array.min() for array in held] == [array.max() for array in held] == list(range(5))


def test_task_runs_in_a_fresh_interpreter_that_does_not_run_the_main_module(start):
    def look(allocate):
        return (), (sys.argv[0], vars(sys.modules["__main__"]).get("__file__"), dict(os.environ))

    script, file, environment = start(look).call().extra
    assert (script, file) == ("-c", None)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"


def test_process_loads_neither_keras_nor_albumentations(start):
    loaded = start(lambda allocate: ((), set(sys.modules))).call().extra
    assert not {"keras", "tensorflow", "albumentations"} & loaded


def test_task_is_unpickled_once_and_keeps_its_state(start):
    class Counting:
        def __init__(self):
            self.calls = 0

        def run(self, allocate):
            self.calls += 1
            return (), self.calls

    task = Counting()
    process = Process(cloudpickle.dumps(task))
    try:
        assert [process.call().extra for _ in range(3)] == [1, 2, 3]
    finally:
        process.end()
    assert task.calls == 0


def test_error_of_a_task_is_raised_here_with_its_traceback_and_the_next_call_is_answered(start):
    def divide(allocate, number):
        allocate((10,), np.uint8)
        return (), 1 / number

    process = start(divide)
    with pytest.raises(ZeroDivisionError) as caught:
        process.call(0)
    assert isinstance(caught.value.__cause__, ProcessTraceback)
    assert "in a worker process" in str(caught.value.__cause__) and "in divide" in str(caught.value.__cause__)
    assert process.call(2).extra == 0.5


def test_error_that_can_not_be_pickled_comes_as_its_text(start):
    def fail(allocate):
        class Local(Exception):
            def __init__(self, first, second):
                super().__init__(f"{first} and {second}")

        raise Local("one", "two")

    with pytest.raises(RuntimeError, match=r"^Local: one and two$"):
        start(fail).call()


def test_task_that_can_not_be_unpickled_is_an_error_of_every_call():
    class Bad:
        def __reduce__(self):
            return int, ("not a number",)

    process = Process(cloudpickle.dumps(Bad()))
    try:
        for _ in range(2):
            with pytest.raises(ValueError, match="not a number"):
                process.call()
    finally:
        process.end()


def full(allocate, value):
    array = allocate((1000,), np.int32)
    array[...] = value
    return ({"array": array},), None


def fail_once(monkeypatch, owner, name, error):
    """Let the next call of a function fail."""
    function = getattr(owner, name, None) or getattr(builtins, name)

    def failing(*arguments, **named):
        monkeypatch.setattr(owner, name, function, raising=False)
        raise error

    monkeypatch.setattr(owner, name, failing, raising=False)


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), OSError(12, "Cannot allocate memory")])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (process_module, "_receive_exactly"),
        (process_module, "bytearray"),
        (process_module, "_unpickle_answer"),
        (slots, "_map"),
        (slots, "memoryview"),
        (slots, "_view"),
        (np, "frombuffer"),
        (process_module, "Answer"),
    ],
)
def test_failure_to_receive_an_answer_ends_the_process_and_loses_no_descriptor(start, monkeypatch, owner, name, error):
    before = len(os.listdir("/proc/self/fd"))
    process = start(full)
    process.load()
    fail_once(monkeypatch, owner, name, error)
    with pytest.raises(ProcessDied, match=f"^was ended because .* not be received .{type(error).__name__}") as caught:
        process.call(1)
    assert not str(error) or str(error) in str(caught.value)
    assert process.ended and process._popen.returncode is not None
    assert len(os.listdir("/proc/self/fd")) == before


def test_mapping_that_can_not_be_looked_after_is_not_left_behind(start, monkeypatch):
    def mappings():
        return Path("/proc/self/maps").read_text().count("memfd:detfeed")

    before = mappings()
    process = start(full)
    process.load()
    fail_once(monkeypatch, weakref, "finalize", MemoryError())
    with pytest.raises(ProcessDied):
        process.call(1)
    assert mappings() == before


def test_answer_to_another_call_is_refused(start):
    process = start(full)
    process.call(1)
    process._calls += 1  # as if an answer were still in the connection
    process_module._send(process._socket, process._calls, pickle.dumps(((2,), slots.Returned([], []))))
    with pytest.raises(ProcessDied, match="it is that of call 2 and not of call 3"):
        process.call(3)


@pytest.mark.parametrize("header", [b"\xff" * 16, b"\0" * 7 + b"\2" + b"\xff" * 8])
def test_header_that_makes_no_sense_ends_the_process(start, header):
    def overwrite(allocate):
        os.write(int(sys.argv[2]), header)
        return (), None

    with pytest.raises(ProcessDied, match="was ended because its answer could not be received"):
        start(overwrite).call()


def test_descriptor_that_finds_no_place_ends_the_process_and_says_so(start):
    process = start(full)
    process.load()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        with pytest.raises(ProcessDied, match="Too many open files"):
            process.call(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("what", ["lambda", "lock", "file", "generator"])
def test_answer_that_can_not_be_pickled_says_why_and_the_next_one_comes(start, what):
    def answer(allocate, what):
        array = allocate((1000,), np.int32)
        array[...] = 7
        odd = {"lambda": lambda: 0, "lock": threading.Lock(), "file": sys.stderr, "generator": (i for i in ())}
        return ({"array": array},), odd.get(what)

    process = start(answer)
    with pytest.raises(AnswerNotSent, match=r"it can't be pickled: .*(lambda|lock|TextIOWrapper|generator)"):
        process.call(what)
    for _ in range(3):
        assert (process.call("nothing").arrays[0]["array"] == 7).all()


def test_answer_that_can_not_be_unpickled_here_says_why(start):
    def answer(allocate):
        module = sys.modules["only_there"] = types.ModuleType("only_there")
        module.Odd = type("Odd", (), {"__module__": "only_there"})
        return (), module.Odd()

    process = start(answer)
    with pytest.raises(AnswerNotSent, match=r"it can't be unpickled here: ModuleNotFoundError: .*only_there"):
        process.call()
    assert process.ended


def test_error_whose_class_is_not_here_comes_as_its_text(start):
    def fail(allocate):
        module = sys.modules["only_there"] = types.ModuleType("only_there")
        module.Odd = type("Odd", (Exception,), {"__module__": "only_there"})
        raise module.Odd("so it is")

    with pytest.raises(RuntimeError, match=r"^Odd: so it is$"):
        start(fail).call()


def test_error_whose_text_fails_comes_as_its_name(start):
    def fail(allocate):
        class Mute(Exception):
            def __str__(self):
                raise ValueError

        raise Mute

    with pytest.raises(RuntimeError, match=r"^Mute$"):
        start(fail).call()


@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda allocate: os._exit(3), "ended with status 3"),
        (lambda allocate: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
        (lambda allocate: os.kill(os.getpid(), 40), "was killed by signal 40"),
    ],
)
def test_death_of_a_process_ends_its_call_and_says_how(start, die, how):
    with pytest.raises(ProcessDied, match=f"^{how}$"):
        start(die).call()


def test_death_of_a_process_is_noticed_while_a_fork_of_it_lives_on(start):
    def fork_and_die(allocate):
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    process = start(fork_and_die)
    with pytest.raises(ProcessDied, match=r"^was killed by SIGKILL$"):
        process.call()
    with pytest.raises(ProcessLookupError):
        for _ in range(6000):  # its fork is ended with it
            os.killpg(process._popen.pid, 0)
            time.sleep(0.02)


def test_killed_from_another_thread_a_process_ends_its_call(start):
    process = start(lambda allocate: time.sleep(600))
    killer = threading.Thread(target=process.kill)
    killer.start()
    with pytest.raises(ProcessDied, match="was killed by SIGKILL"):
        process.call()
    killer.join()


def test_process_that_can_not_be_started_leaves_no_open_socket(monkeypatch):
    def refuse(*arguments, **named):
        raise BlockingIOError("Resource temporarily unavailable")

    open_files = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BlockingIOError):
        Process(b"")
    assert not open_files or sorted(os.listdir("/proc/self/fd")) == open_files


def test_cores_are_those_this_process_may_use():
    assert 1 <= cores() <= os.cpu_count()
