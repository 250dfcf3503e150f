import subprocess
import sys

import pytest

import detfeed


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    "module",
    [
        "detfeed",
        "detfeed.batches.loader",
        "detfeed.augmentation.pipeline",
        "detfeed.shapes",
        "detfeed.recall",
        "detfeed.proposals",
        "detfeed.check.cli",
    ],
)
def test_importing_needs_no_keras(module):
    loaded = run(f"import sys, {module}; print(*(m for m in sys.modules if '.' not in m))")
    assert not {"keras", "tensorflow", "jax", "torch"} & set(loaded)


def test_importing_loads_albumentations_only_where_it_is_used():
    assert "albumentations" not in run("import sys, detfeed; print(*sys.modules)")


def test_every_public_name_resolves():
    for name in set(detfeed.__all__) - detfeed._LATE.keys():
        assert getattr(detfeed, name) is not None
    assert set(detfeed.__all__) <= set(dir(detfeed))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        detfeed.nonsense  # noqa: B018
