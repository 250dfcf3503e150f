"""Memory: how much of it this process may still take, by the limits of its control groups and its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_UNLIMITED = 2**60  # cgroup v1 writes about 2**63 where there is no limit

# For each version: a group's files for limits and use, and what of that can be taken back, by its memory.stat.
_V2 = (("memory.max", "memory.high"), "memory.current", "inactive_file")
_V1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


class Limit(NamedTuple):
    """A limit on memory: its name, and how many bytes it allows in all, and still."""

    name: str
    total: int
    left: int


def tightest_limit(root: str | os.PathLike[str] = "/") -> Limit | None:
    """The limit that leaves this process the least memory; None without any.

    Those of its control groups, version 1 and 2, and of all groups that they are in, and `RLIMIT_AS`.

    Args:
        root: where proc and sys are.
    """
    limits = [*_group_limits(Path(root)), *_address_space(Path(root))]
    return min(limits, key=lambda limit: limit.left, default=None)


def _group_limits(root: Path) -> Iterator[Limit]:
    groups = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            # Both versions at once: version 2 is in a folder of its own.
            for mount in (groups, groups / "unified"):
                yield from _limits_in(mount, path, *_V2)
        elif "memory" in controllers.split(","):
            yield from _limits_in(groups / "memory", path, *_V1)


def _limits_in(mount: Path, path: str, limits: tuple[str, ...], used: str, reclaimable: str) -> Iterator[Limit]:
    """Limits of a group and of all that it is in. Inside a container, only the outermost folder may be there."""
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        current = _number(_read(folder / used))
        if current is not None:
            statistics = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
            current -= _number(statistics.get(reclaimable, "")) or 0
            for name in limits:
                total = _number(_read(folder / name))
                if total is not None and total < _UNLIMITED:
                    yield Limit(str(folder / name), total, max(total - current, 0))
        if folder == mount:
            break


def _address_space(root: Path) -> Iterator[Limit]:
    try:
        import resource
    except ImportError:  # Windows
        return
    total, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _number(_read(root / "proc" / "self" / "statm").partition(" ")[0])
    if total != resource.RLIM_INFINITY and pages is not None:
        yield Limit("RLIMIT_AS", total, max(total - pages * resource.getpagesize(), 0))


def _read(path: Path) -> str:
    """A file's text; nothing if it is missing, or may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """A whole number; None for anything else, as "max"."""
    return int(text) if text.strip().isdecimal() else None
