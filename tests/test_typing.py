"""Type checkers find misspelt and mistyped arguments of the public surface, and no others."""

import enum
import inspect
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import detfeed

ROOT = Path(__file__).resolve().parents[1]
CALLS = ROOT / "tests" / "typed_calls.py"


def run_mypy(files):
    """Messages of mypy by file and line."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, files)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert not output.stderr
    found = {}
    for path, line, message in re.findall(r"^(.+?):(\d+): error: (.*)", output.stdout, re.MULTILINE):
        found.setdefault(((ROOT / path).resolve(), int(line)), []).append(message)
    return found


def run_pyright(files):
    """Messages of pyright by file and line."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson", *map(str, files)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    found = {}
    for diagnostic in json.loads(output.stdout)["generalDiagnostics"]:
        place = Path(diagnostic["file"]).resolve(), diagnostic["range"]["start"]["line"] + 1
        found.setdefault(place, []).append(diagnostic["message"])
    return found


def public_calls():
    """Every function, class and class method of the public surface, as users write it."""
    for name in detfeed.__all__:
        thing = getattr(detfeed, name)
        if inspect.ismodule(thing):
            yield from (f"{name}.{part}" for part, _ in inspect.getmembers(thing, inspect.isfunction) if part[0] != "_")
        elif not typing.is_typeddict(thing) and not (inspect.isclass(thing) and issubclass(thing, enum.Enum)):
            yield name
        if inspect.isclass(thing):
            members = vars(thing).items()
            yield from (f"{name}.{part}" for part, way in members if isinstance(way, classmethod) and part[0] != "_")


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def found(request, tmp_path_factory):
    """One checker's name, and its messages by line about typed_calls.py and by call about calls with nonsense=1."""
    generated = tmp_path_factory.mktemp("calls") / "generated_calls.py"
    calls = sorted(public_calls())
    # With its path in it: mypy's cache names the file in which it has found the same content before.
    head = f"import detfeed  # {generated}\n"
    generated.write_text(head + "".join(f"detfeed.{call}(nonsense=1)\n" for call in calls))
    run = {"mypy": run_mypy, "pyright": run_pyright}[request.param]
    by_file = {CALLS: {}, generated: {}}
    for (path, line), messages in run([CALLS, generated]).items():
        by_file[path][line] = " ".join(messages)
    return request.param, by_file[CALLS], {call: by_file[generated].get(row) for row, call in enumerate(calls, start=2)}


def test_wrong_calls_are_found_on_their_lines_and_right_ones_are_clean(found):
    checker, by_line, _ = found
    expected = {}
    for number, line in enumerate(CALLS.read_text().splitlines(), start=1):
        if marked := re.search(rf"  # wrong(?: to {checker})?: (.+)", line):
            expected[number] = marked[1]
    assert len(expected) > 20
    assert by_line.keys() == expected.keys()
    for line, text in expected.items():
        assert text in by_line[line], f"{line}: {by_line[line]}"


def test_no_public_call_takes_a_keyword_that_it_does_not_have(found):
    _, _, by_call = found
    assert {"AnchorTargetSequence.from_voc", "AnchorGrid.fpn", "read_coco", "recipes.lsj"} <= by_call.keys()
    assert [call for call, message in by_call.items() if "nonsense" not in (message or "")] == []
