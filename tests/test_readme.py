"""The Python of README and docs runs, on small data in the places that it names."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from detfeed import AnnotationError, BadBoxesWarning
from readme import README, ROOT, lay_out_coco, python_in, smaller
from small_resnet50 import small_resnet50

POLICIES = (ROOT / "docs" / "data.md").read_text()


@pytest.fixture
def folder(shapes, tmp_path, monkeypatch):
    """A working folder with the shapes as COCO, as VOC, and with proposals of them."""
    images = Path(shapes.source).parent / "images"
    lay_out_coco(Path(shapes.source), images, tmp_path)
    add_keypoints(tmp_path / "instances_train2017.json")
    voc = tmp_path / "VOCdevkit" / "VOC2007"
    shutil.copytree(images, voc / "JPEGImages")
    (voc / "Annotations").mkdir()
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    names, results = [], []
    for position, path in enumerate(shapes.paths):
        names.append(Path(path).stem)
        rows = shapes.rows(position)
        objects = ""
        for (x0, y0, x1, y1), class_id in zip(shapes.boxes[rows].tolist(), shapes.class_ids[rows], strict=True):
            corners = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            objects += f"<object><name>{shapes.class_names[class_id]}</name><bndbox>{corners}</bndbox></object>"
        (voc / "Annotations" / f"{names[-1]}.xml").write_text(f"<annotation>{objects}</annotation>")
        results.append({"image_id": names[-1], "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.5})
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(names))
    (tmp_path / "runs" / "trainval").mkdir(parents=True)
    (tmp_path / "runs" / "trainval" / "proposals.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)


def add_keypoints(file):
    """Give each object two keypoints: the first pixel and the centre of its box."""
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["keypoints"] = ["corner", "centre"]
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        one["keypoints"] = [x, y, 2, x + width / 2, y + height / 2, 1]
    file.write_text(json.dumps(content))


OPTIONAL = ("torch", "jax", "keras_hub", "grain")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if python_in(path.read_text())], ids=lambda path: path.stem
)
def test_python_of_a_document_runs(folder, document, capsys, monkeypatch):
    # `make wheel` runs the first example with ResNet50.
    monkeypatch.setattr(keras.applications, "ResNet50", small_resnet50)
    namespace = {}
    blocks = python_in(document.read_text())
    lacking = [
        {name for name in OPTIONAL if f"import {name}\n" in block or f"to_{name}(" in block}
        - {name for name in OPTIONAL if importlib.util.find_spec(name)}
        for block in blocks
    ]
    if all(lacking):
        pytest.skip(f"{', '.join(sorted(set.union(*lacking)))} not installed")
    for block, missing in zip(blocks, lacking, strict=True):
        if missing:
            continue
        exec(compile(smaller(block), document.name, "exec"), namespace)
    if document.stem == "loops":
        colour = namespace["colour"]
        assert 0.2 < float((colour.detach() if hasattr(colour, "detach") else colour).mean()) < 0.8
    if document.stem == "detectors":
        losses = namespace["history"].history["loss"]
        assert losses[-1] < 0.8 * losses[0]
        assert "AP50 " in capsys.readouterr().out
    if document.stem == "targets":
        assert namespace["x"]["rois"].shape == (2, 512, 4)
        assert namespace["y"]["roi_class_ids"].shape == (2, 512)
        masks = namespace["mask_targets"]["roi_masks"]
        assert masks.shape == (2, 64, 28, 28) and set(np.unique(masks)) <= {-1, 0, 1}
        _, heat = namespace["posed"][0]
        assert heat["heatmaps"].shape == (2, 64, 64, 2)
        assert heat["heatmaps"].max() > 0.85


def test_commands_of_the_documents_are_understood():
    text = "".join(path.read_text() for path in DOCUMENTS)
    commands = re.findall(r"scripts/(\w+)\.py (--.*)", text)
    assert len(commands) == 5
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
