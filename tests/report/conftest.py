"""Data sets, runs and pages to look at."""

import json

import cv2
import numpy as np
import pytest

from detfeed import read_coco, write_results
from detfeed.report import page


@pytest.fixture(scope="session")
def hostile():
    """Names that would end a script, start one, turn the direction of text, or fill in a template."""
    return (
        "</script><script>document.title='caught'</script>",
        "\u202egnp.\u2066tac\"'><img src=x onerror=document.title='caught'>",
        "猫 & {{ 7*7 }} <!--",
    )


@pytest.fixture(scope="session")
def write_set():
    """Write a COCO set: each image a list of (class number from 1, box xywh); the function that reads it."""

    def write(folder, images, *, class_names=("cat", "dog"), image_hw=(60, 80), crowds=(), seed=0):
        folder.mkdir()
        content = {"images": [], "annotations": []}
        content["categories"] = [{"id": 10 * (i + 1), "name": label} for i, label in enumerate(class_names)]
        for number, boxes in enumerate(images):
            pixels = np.random.default_rng(seed + number).integers(0, 256, (6, 8, 3), np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(pixels, image_hw[::-1]))
            content["images"].append(
                {"id": number, "file_name": f"{number}.png", "height": image_hw[0], "width": image_hw[1]}
            )
            for class_number, box in boxes:
                row = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": 10 * class_number}
                crowd = int((number, tuple(box)) in crowds)
                content["annotations"].append(row | {"bbox": box, "iscrowd": crowd, "area": box[2] * box[3]})
        (folder / "a.json").write_text(json.dumps(content))
        return lambda **arguments: read_coco(folder / "a.json", folder, **arguments)

    return write


@pytest.fixture(scope="session")
def write_run():
    """Write the folder of a run with detections: per image (box xyxy, score, class id)."""

    def write(folder, annotations, detections, *, log="epoch,loss,AP\n0,2.5,\n1,1.5,0.25\n"):
        folder.mkdir()
        columns = [
            [np.array([one[part] for one in each], kind).reshape(shape) for each in detections]
            for part, kind, shape in ((0, np.float32, (-1, 4)), (1, np.float32, -1), (2, np.int64, -1))
        ]
        write_results(folder / "detections.json", annotations, *columns)
        (folder / "metrics.json").write_text(json.dumps({"AP": 0.25, "AP_small": float("nan")}))
        (folder / "log.csv").write_text(log)
        return folder

    return write


@pytest.fixture
def make_set(write_set, tmp_path):
    """`write_set` into a folder of some name; its images are others in a folder of other letters."""
    return lambda images, *, name="set", **arguments: write_set(
        tmp_path / name, images, seed=sum(map(ord, name)), **arguments
    )


@pytest.fixture
def make_run(write_run, tmp_path):
    """`write_run` into a new folder."""
    return lambda *arguments, **named: write_run(tmp_path / "run", *arguments, **named)


@pytest.fixture
def without_library(monkeypatch):
    """Leave the charts' library out of pages: making it takes seconds, and only a browser looks at it."""
    monkeypatch.setattr(page, "chart_library", lambda: "")
