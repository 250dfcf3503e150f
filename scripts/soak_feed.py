#!/usr/bin/env python
"""Disturb a feed for an hour and compare every batch with that of an undisturbed run.

Between and during batches, workers are killed, stopped for good (they hang) or for a moment, the asking thread is
interrupted, the feed is closed, other places are gone to, batches are held while slots are used again, and this process
forks. At the end, no worker, file descriptor or shared memory may be left. The exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import albumentations
import numpy as np

from detfeed import (
    AnchorGrid,
    AnchorTargets,
    AnchorTargetSequence,
    Annotations,
    BatchLoader,
    DetectionSequence,
    ShortSide,
    WorkerError,
    make_shapes,
    read_coco,
)
from detfeed.commands.parser import Parser, positive, whole

EPOCHS = 20
# A batch that takes longer is a hang: the stacks of all threads are printed, and the run ends. A worker that is stopped
# for good while it starts is given up after 120 s, and that may happen to its successors.
GIVE_UP_S = 600
TIMEOUT_S = 5  # after which a worker that is stopped for good is replaced
HELD = 30  # the most batches that are held at a time
ANCHORS = AnchorGrid(strides=(16,), cell_sizes_wh=(((16.0, 16.0), (32.0, 32.0)),), offset=0.5)


class Interruption(BaseException):
    """As Ctrl-C: no `except Exception` catches it."""


def digest(batch: Any) -> str:
    """The bits of a batch."""
    total = hashlib.blake2b(digest_size=16)
    for part in batch:
        for name, array in sorted(part.items()):
            total.update(f"{name}{array.dtype}{array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def worker_pids() -> list[int]:
    """Processes that this process started."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in children.read_text().split()]
    return found


def signal_one(rng: np.random.Generator, number: int) -> int | None:
    """Send a signal to one of the workers; returns its process id."""
    pids = worker_pids()
    if not pids:
        return None
    pid = int(rng.choice(pids))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return pid


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise Interruption in this thread, somewhere in the block."""

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Soak:
    """One sequence under disturbance.

    Args:
        sequence: what is asked for batches.
        expected: the digest of each batch, by epoch and index.
        seed: of the disturbances.
    """

    def __init__(self, sequence: DetectionSequence, expected: list[list[str]], seed: int) -> None:
        self.sequence = sequence
        self.expected = expected
        self.rng = np.random.default_rng(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._held: list[tuple[str, Any, str]] = []
        self._disturbances: dict[str, tuple[float, Callable[[], None]]] = {
            "killed": (0.04, lambda: self._signal(signal.SIGKILL)),
            "paused": (0.03, self._pause),
            "stopped for good": (0.001, lambda: self._signal(signal.SIGSTOP)),
            "closed": (0.01, lambda: self.sequence.close()),
            "gone elsewhere": (0.02, self._seek),
            "forked": (0.004, self._fork),
        }
        self._epoch, self._index = 0, 0

    def run(self, seconds: float) -> None:
        """Ask for batches and disturb, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, (share, disturb) in self._disturbances.items():
                if self.rng.random() < share:
                    self.done[name] += 1
                    disturb()
            self._ask()
        self._held.clear()
        self.sequence.close()

    def _ask(self) -> None:
        where = f"batch {self._index} of epoch {self._epoch}"
        faulthandler.dump_traceback_later(GIVE_UP_S, exit=True)
        start = time.monotonic()
        try:
            if self.rng.random() < 0.05:
                self.done["interrupted"] += 1
                with interrupted_after(self.rng.exponential(0.005)):
                    batch = self.sequence[self._index]
            else:
                batch = self.sequence[self._index]
        except Interruption:
            return  # and ask for it again
        except WorkerError:
            self.done["given up after three deaths or two delays"] += 1
            return
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.slowest = max(self.slowest, time.monotonic() - start)
        self.done["batches"] += 1
        expected = self.expected[self._epoch][self._index]
        self._compare(where, batch, expected)
        self._hold(where, batch, expected)
        self._index += 1
        if self._index == len(self.expected[0]):
            self._go((self._epoch + 1) % EPOCHS, 0)

    def _compare(self, where: str, batch: Any, expected: str) -> None:
        if digest(batch) != expected:
            self.wrong.append(where)

    def _hold(self, where: str, batch: Any, expected: str) -> None:
        if self.rng.random() < 0.3:
            self._held.append((where, batch, expected))
        if len(self._held) > self.rng.integers(1, HELD):
            self.done["held and compared again"] += 1
            self._compare(*self._held.pop(int(self.rng.integers(len(self._held)))))

    def _go(self, epoch: int, index: int) -> None:
        self._epoch, self._index = epoch, index
        self.sequence.seek(epoch)

    def _seek(self) -> None:
        self._go(int(self.rng.integers(EPOCHS)), int(self.rng.integers(len(self.expected[0]))))

    def _signal(self, number: int) -> None:
        signal_one(self.rng, number)

    def _pause(self) -> None:
        pid = signal_one(self.rng, signal.SIGSTOP)
        time.sleep(self.rng.exponential(0.02))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _fork(self) -> None:
        """A child that compares a batch while this process goes on and uses its slots again."""
        if not self._held:
            return
        where, batch, expected = self._held.pop(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of forks of a process with threads
            pid = os.fork()
        if pid == 0:
            time.sleep(0.2)
            os._exit(digest(batch) != expected)
        del batch
        for _ in range(5):
            self._ask()
        _, status = os.waitpid(pid, 0)
        if status:
            self.wrong.append(f"{where}, in a fork")


def left_over(before: dict[str, int]) -> list[str]:
    """What is here now and was not before."""
    gc.collect()
    end = time.monotonic() + 10
    while (now := resources()) != before and time.monotonic() < end:
        time.sleep(0.1)
        gc.collect()
    return [f"{now[name] - before[name]} {name}" for name in now if now[name] > before[name]]


def resources() -> dict[str, int]:
    """Child processes, file descriptors and mapped slots of this process."""
    maps = Path("/proc/self/maps").read_text()
    return {
        "processes": len(worker_pids()),
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "slots": maps.count("memfd:detfeed"),
    }


def read_data(folder: Path) -> Annotations:
    make_shapes(folder, num_images=120, image_hw=(120, 160))
    return read_coco(folder / "instances.json", folder / "images")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--minutes", type=positive, default=60.0, help="in all [60]")
    parser.add_argument("--workers", type=whole(1), default=2, metavar="N", help="[2]")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the disturbances [0]")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # each fault is told; here they are counted
    with tempfile.TemporaryDirectory() as folder:
        annotations = read_data(Path(folder))
        settings: dict[str, Any] = {
            "batch_size": 8,
            "resize": ShortSide(96),
            "augment": [albumentations.HorizontalFlip(p=0.5), albumentations.Affine(rotate=10, p=0.5)],
        }
        loader = BatchLoader(annotations, AnchorTargets(ANCHORS), **settings)
        expected = [
            [digest(loader.load(epoch, index)) for index in range(loader.num_batches)] for epoch in range(EPOCHS)
        ]
        if len({one for epoch in expected for one in epoch}) < EPOCHS * loader.num_batches:
            sys.exit("Expected all batches to differ, so that no one passes for another.")
        rounds = max(1, round(arguments.minutes / 5))
        for number in range(rounds):
            processes = number % 4 < 3  # mostly
            before = resources()
            sequence = AnchorTargetSequence(
                annotations,
                ANCHORS,
                workers=arguments.workers,
                use_multiprocessing=processes,
                timeout=TIMEOUT_S,
                **settings,
            )
            soak = Soak(sequence, expected, arguments.seed + number)
            soak.run(arguments.minutes * 60 / rounds)
            report: dict[str, Any] = {
                "kind": "processes" if processes else "threads",
                **soak.done,
                "wrong": soak.wrong,
                "slowest_s": round(soak.slowest, 2),
            }
            del soak, sequence
            report["left"] = left_over(before)
            print(json.dumps(report), flush=True)
            if report["wrong"] or report["left"]:
                sys.exit(1)


if __name__ == "__main__":
    main()
