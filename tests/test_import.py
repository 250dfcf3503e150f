import os
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
        "detfeed.commands.cli",
    ],
)
def test_importing_needs_no_keras(module):
    loaded = run(f"import sys, {module}; print(*(m for m in sys.modules if '.' not in m))")
    assert not {"keras", "tensorflow", "jax", "torch"} & set(loaded)


@pytest.mark.parametrize("module", ["detfeed", "detfeed.commands.cli", "detfeed.readers.formats"])
def test_importing_loads_slow_packages_only_where_they_are_used(module):
    loaded = run(f"import sys, {module}; print(*sys.modules)")
    assert not {"PIL", "albumentations", "matplotlib", "rich", "typer"} & set(loaded)


NONE = "pip install 'detfeed[tensorflow]'; or take [jax] or [torch], and set KERAS_BACKEND to its name"


@pytest.mark.parametrize(
    ("module", "backend", "has", "advice"),
    [
        *((module, None, None, NONE) for module in ("sequence", "callbacks", "detections", "models")),
        ("sequence", "torch", None, "pip install 'detfeed[torch]'; or take [tensorflow] or [jax], and set KERAS_BACK"),
        ("sequence", None, "jax", "or set the environment variable KERAS_BACKEND=jax, which is installed"),
    ],
)
def test_installation_without_the_backend_says_what_to_install(module, backend, has, advice, tmp_path):
    without = [name for name in ("tensorflow", "jax", "torch") if name != has]
    code = f"""
import importlib.machinery
find_spec = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *rest: None if name in {without} else find_spec(name, *rest)
import detfeed.{module}
"""
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    env |= {"KERAS_HOME": str(tmp_path)} | ({"KERAS_BACKEND": backend} if backend else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"ImportError: Keras is set to the backend {backend or 'tensorflow'}, which is not installed"
    )
    assert advice in last


def test_importing_needs_nothing_that_windows_lacks():
    assert run("import sys; sys.modules.update(resource=None, fcntl=None); import detfeed.feeding.feed; print(1)") == [
        "1"
    ]


@pytest.mark.parametrize(
    "first",
    [
        "import detfeed.commands.cli",
        "from detfeed.commands import cli",
        "from detfeed.check.findings import Report",
        "",
    ],
)
def test_check_is_the_function_whatever_is_imported_before(first):
    code = f"""{first}
import detfeed, detfeed.commands.cli
from detfeed import check
from detfeed.check import check as again
from detfeed.commands.cli import main
from detfeed.commands import check as check_command, cli
print(detfeed.check is check is again is check_command.check, main is cli.main, check.__name__)
"""
    assert run(code) == ["True", "True", "check"]


def test_every_public_name_resolves():
    for name in set(detfeed.__all__) - detfeed._LATE.keys():
        assert getattr(detfeed, name) is not None
    assert set(detfeed.__all__) <= set(dir(detfeed))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        detfeed.nonsense  # noqa: B018
