"""Commands and tables of README and docs say what is so; sybil runs the Python (see conftest.py)."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from detfeed import AnnotationError, BadBoxesWarning
from detfeed.check.findings import KINDS
from readme import README, ROOT

POLICIES = (ROOT / "docs" / "data.md").read_text()


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_commands_of_the_documents_are_understood():
    text = "".join(path.read_text() for path in DOCUMENTS).replace("\\\n", " ")
    commands = re.findall(r"bin/python scripts/((?!bench)\w+)\.py ([^`\n]*)", text)
    assert {"train_rpn", "train_faster_rcnn", "predict", "visualize_anchors"} <= {script for script, _ in commands}
    for script, arguments in commands:
        importlib.import_module(script).build_parser().parse_args(arguments.split())


def test_check_in_the_readme_runs(folder, capsys):
    from detfeed.commands.cli import main

    (command,) = re.findall(r"detfeed (check .*)", README.split("lists annotations that")[0])
    command = command.replace("--split train ", "--split trainval ").replace(
        "--val-split val ", "--val-split trainval "
    )
    assert main(command.split()) == 1
    assert "leaked-images" in capsys.readouterr().out
    assert Path("clean.json").exists()


def test_table_of_policies_says_what_readers_do():
    from detfeed.readers.draft import Draft
    from detfeed.readers.table import to_annotations

    boxes = {
        "partly outside": [-3, 2, 9, 8],
        "corners swapped": [9, 8, 3, 4],
        "without area": [3, 3, 3, 8],
        "repeats one": [2, 2, 6, 6],
    }
    rows = [line.strip("| ").split(" | ") for line in POLICIES.splitlines() if line.startswith("| ")]
    for start, box in boxes.items():
        (row,) = (row for row in rows if row[0].startswith(start))
        for invalid, said in zip(("clip", "drop", "ignore", "raise"), row[1:], strict=True):
            given = {
                "paths": ["a.png"],
                "image_ids": np.array([1]),
                "image_hw": np.array([[10, 20]]),
                "boxes": np.array([[2, 2, 6, 6], box], float),
                "positions": np.zeros(2, int),
                "class_ids": np.zeros(2, np.int32),
                "ignore": np.zeros(2, bool),
                "class_names": ["a"],
                "category_ids": np.array([1]),
                "source": "file",
                "where": str,
            }
            if said == "error":
                with pytest.raises(AnnotationError):
                    to_annotations(Draft(**given), invalid=invalid)
                continue
            with pytest.warns(BadBoxesWarning) as warned:
                table = to_annotations(Draft(**given), invalid=invalid)
            assert len(table.boxes) == (1 if said == "dropped" else 2)
            assert table.ignore[1:].any() == ("ignored" in said)
            assert (warned[0].message.found[0].effect) == said.split(", ")[-1]


@pytest.mark.filterwarnings("ignore:.*classes have more ignored boxes")
def test_first_page_shows_what_its_commands_print(data, tmp_path, monkeypatch, capsys):
    from detfeed.commands import cli

    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2007").symlink_to(data / "voc" / "VOC2007")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "quickstart.md").read_text()
    shown = re.findall(r"^    \.venv/bin/(\S+) ([^\n]*)\n\n```text\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    commands = [arguments.split()[0] for _, arguments, _ in shown]
    assert commands == ["check", "split", "scripts/visualize_anchors.py"]
    for program, arguments, prints in shown:
        if program == "detfeed":
            cli.main(arguments.split())
        else:
            script, *rest = arguments.split()
            importlib.import_module(Path(script).stem).main(rest)
        printed = " ".join(capsys.readouterr().out.split())
        # A terminal gets a table in the middle, whose lines are other ones in a file.
        for part in re.split(r"^[^\w\n].*\n", prints, flags=re.MULTILINE):
            assert " ".join(part.split()) in printed


def test_every_kind_of_finding_is_listed_with_its_severity():
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| (error|warning|note) \| .*? \| (.*) \|", page, re.MULTILINE)
    listed = {kind: severity for severity, kinds in rows for kind in re.findall(r"`([\w-]+)`", kinds)}
    assert listed == {kind: severity for kind, (severity, _, _) in KINDS.items()}
