from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest

from detfeed import Annotations

# No test depends on how fast the machine is.
hypothesis.settings.register_profile("detfeed", deadline=None)
hypothesis.settings.load_profile("detfeed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden():
    """Load a golden file by name; skip where they are absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden files are not here")
    return lambda name: np.load(folder / f"{name}.npz")


@pytest.fixture(scope="session")
def data():
    """Folder of real data; skip where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data is not here")
    return folder


@pytest.fixture
def annotate(tmp_path):
    """Make Annotations of one noise image a size; boxes, class ids and ignore flags as given."""

    def make(sizes_hw, boxes_of, *, ignore_of=None, classes=3, suffix=".png"):
        paths = []
        for number, (height, width) in enumerate(sizes_hw):
            paths.append(str(tmp_path / f"{number:03d}{suffix}"))
            pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
            cv2.imwrite(paths[-1], pixels)
        counts = [len(boxes) for boxes in boxes_of]
        boxes = np.array([box for boxes in boxes_of for box in boxes], np.float32).reshape(-1, 4)
        ignore = [False] * len(boxes) if ignore_of is None else [flag for flags in ignore_of for flag in flags]
        return Annotations(
            paths=tuple(paths),
            image_ids=np.arange(100, 100 + len(paths)),
            image_hw=np.array(sizes_hw, np.int32).reshape(-1, 2),
            boxes=boxes,
            class_ids=(np.arange(len(boxes)) % classes).astype(np.int32),
            ignore=np.array(ignore, bool),
            areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
            offsets=np.cumsum([0, *counts]).astype(np.int64),
            class_names=tuple(f"class {i}" for i in range(classes)),
            category_ids=np.arange(1, classes + 1),
            source="made up",
        )

    return make
