"""The house: CONTRIBUTING.md lists the floors, and no import goes up or in a circle."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import detfeed

ROOT = Path(__file__).resolve().parents[1]


def read_floors():
    """Floors of CONTRIBUTING.md and their height, the lowest 0."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"## The house\n.*?```\n(.*?)```", text, re.DOTALL)
    names = [line.split()[0] for line in block.splitlines()]
    return {name: height for height, name in enumerate(reversed(names))}


FLOORS = read_floors()
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("detfeed", "models", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.relative_to(ROOT).as_posix().startswith("detfeed/models/")  # a link to models/
}


def floor_of(module):
    parts = module.split(".")
    if parts[0] == "detfeed":
        return parts[1] if len(parts) > 1 else "detfeed"
    return parts[0]


def imports_of(module):
    """Modules of this project that a module imports anywhere in its code."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.level:
                names = ["relative." + name for name in names]
        for name in names:
            name = re.sub(r"^ *detfeed\.models\b", "models", name)
            name = name if name in MODULES else name.rpartition(".")[0]
            if name.split(".")[0] in ("detfeed", "models", "relative"):
                found.add(name)
            elif f"scripts.{name}" in MODULES:
                found.add(f"scripts.{name}")
    return found - {module}


def test_every_module_has_a_floor_and_every_floor_a_module():
    assert {floor_of(module) for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_goes_up(module):
    own = FLOORS[floor_of(module)]
    package = MODULES[module].name == "__init__.py"
    for imported in imports_of(module):
        assert imported in MODULES, f"{module} imports {imported}"
        inside = floor_of(imported) == floor_of(module)
        assert FLOORS[floor_of(imported)] < own or inside or package, f"{module} imports {imported}, which is above it"


def test_no_imports_go_in_a_circle():
    graph = {module: imports_of(module) - {module.rpartition(".")[0]} for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_every_public_name_is_in_a_document():
    documents = "".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    missing = [name for name in detfeed.__all__ if not re.search(rf"\b{name}\b", documents)]
    assert not missing


def test_no_document_sends_anybody_to_a_module():
    modules = {name.rpartition(".")[2] for name in MODULES if name.startswith("detfeed.")} - set(detfeed.__all__)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"^ *detfeed\.\S+(?=Error: )", "", path.read_text(), flags=re.MULTILINE)  # as Python prints them
        found = re.findall(r"\bdetfeed\.(\w+)", text)
        assert not [name for name in found if name in modules - {"models"}], path.name
