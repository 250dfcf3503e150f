import resource
import sys

import pytest

from detfeed.processes.memory import tightest_limit

MB = 10**6


def draw(root, own, files):
    """Make a root folder with /proc/self/cgroup and files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/statm").write_text("100 50 20 1 0 30 0\n")
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return tightest_limit(root)


def test_without_proc_or_limits_there_is_none(tmp_path):
    assert tightest_limit(tmp_path) is None
    assert draw(tmp_path, "", {}) is None


def test_where_there_are_no_limits_of_processes_those_of_groups_count(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    limit = draw(tmp_path, "0::/\n", {"memory.max": 300 * MB, "memory.current": 100 * MB})
    assert limit.left == 200 * MB


CASES = {
    "version 2, own group": (
        "0::/user/job\n",
        {"user/job/memory.max": 300 * MB, "user/job/memory.current": 100 * MB},
        ("user/job/memory.max", 300 * MB, 200 * MB),
    ),
    "version 2, high below max": (
        "0::/job\n",
        {"job/memory.max": 300 * MB, "job/memory.high": 250 * MB, "job/memory.current": 100 * MB},
        ("job/memory.high", 250 * MB, 150 * MB),
    ),
    "version 2, a parent that is fuller": (
        "0::/user/job\n",
        {
            "user/job/memory.max": 300 * MB,
            "user/job/memory.current": 100 * MB,
            "user/memory.max": 900 * MB,
            "user/memory.current": 850 * MB,
            "memory.current": 10**12,
        },
        ("user/memory.max", 900 * MB, 50 * MB),
    ),
    "version 2, cached files can be taken back": (
        "0::/job\n",
        {
            "job/memory.max": 300 * MB,
            "job/memory.current": 290 * MB,
            "job/memory.stat": f"anon 5\ninactive_file {200 * MB}\nactive_file 3",
        },
        ("job/memory.max", 300 * MB, 210 * MB),
    ),
    "version 2, in a container that sees its own group as the outermost": (
        "0::/\n",
        {"memory.max": 300 * MB, "memory.current": 100 * MB},
        ("memory.max", 300 * MB, 200 * MB),
    ),
    "version 2, in a container that reads its path on the host": (
        "0::/docker/1234\n",
        {"memory.max": 300 * MB, "memory.current": 100 * MB},
        ("memory.max", 300 * MB, 200 * MB),
    ),
    "version 2, no limit": ("0::/job\n", {"job/memory.max": "max", "job/memory.current": 100 * MB}, None),
    "version 2, over its limit": (
        "0::/job\n",
        {"job/memory.high": 300 * MB, "job/memory.current": 310 * MB},
        ("job/memory.high", 300 * MB, 0),
    ),
    "version 1": (
        "5:cpu,cpuacct:/else\n4:memory:/docker/12\n0::/\n",
        {
            "memory/docker/12/memory.limit_in_bytes": 300 * MB,
            "memory/docker/12/memory.usage_in_bytes": 100 * MB,
            "memory/docker/12/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MB}",
            "memory/memory.limit_in_bytes": 9223372036854771712,
            "memory/memory.usage_in_bytes": 900 * MB,
        },
        ("memory/docker/12/memory.limit_in_bytes", 300 * MB, 220 * MB),
    ),
    "version 1, in a container": (
        "4:hugetlb,memory:/docker/12\n",
        {"memory/memory.limit_in_bytes": 300 * MB, "memory/memory.usage_in_bytes": 100 * MB},
        ("memory/memory.limit_in_bytes", 300 * MB, 200 * MB),
    ),
    "both versions": (
        "4:memory:/a\n0::/a\n",
        {"unified/a/memory.max": 300 * MB, "unified/a/memory.current": 100 * MB},
        ("unified/a/memory.max", 300 * MB, 200 * MB),
    ),
    "nonsense": ("x\n::\n0::/job\n", {"job/memory.max": "many", "job/memory.current": "few"}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_limit_that_leaves_least_is_found_in_a_drawn_tree_of_groups(tmp_path, case):
    own, files, expected = CASES[case]
    found = draw(tmp_path, own, files)
    assert found == (expected and (str(tmp_path / "sys/fs/cgroup" / expected[0]), *expected[1:]))


def test_limit_on_the_address_space_counts_too(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**44, hard))
    try:
        found = draw(tmp_path, "0::/job\n", {"job/memory.max": 2**50, "job/memory.current": 0})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert found == ("RLIMIT_AS", 2**44, 2**44 - 100 * resource.getpagesize())
