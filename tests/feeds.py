"""Loaders, the batches of feeds, and the processes of this one, for tests of feeding."""

import os
import time
from pathlib import Path

import albumentations
import numpy as np

from detfeed import AnchorGrid, AnchorTargets, BatchLoader, ShortSide

GRID = AnchorGrid(strides=(32,), cell_sizes_wh=(((32.0, 32.0), (64.0, 64.0)),), offset=0.5)
KINDS = [{"workers": 2}, {"workers": 2, "use_multiprocessing": True}]
IDS = ["threads", "processes"]
LONG = 120.0  # seconds, a bound for waits that end early unless something is wrong


def make_loader(table, targets=None, **arguments):
    arguments = {"batch_size": 4, "resize": ShortSide(96), "augment": albumentations.HorizontalFlip(p=0.5), **arguments}
    return BatchLoader(table, targets or AnchorTargets(GRID), **arguments)


def same(batch, other):
    return all(np.array_equal(a[name], b[name]) for a, b in zip(batch, other, strict=True) for name in {**a, **b})


def keys_of(loader, epochs=2):
    return [(epoch, index) for epoch in range(epochs) for index in range(loader.num_batches)]


def take(feed, keys):
    """The batches of some keys, in order; each is asked for with the keys that follow it."""
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


def alive(pid):
    """Whether a process, of any parent, lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition):
    end = time.monotonic() + LONG
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
