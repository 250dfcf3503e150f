"""scripts/visualize_anchors.py, as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import albumentations
import cv2
import msgspec
import numpy as np
import pytest

import detfeed
from detfeed import AnchorGrid, AnchorTargets, BatchLoader, ShortSide, read_coco
from detfeed.images.decoding import read_image
from detfeed.readers.bad_boxes import BadBoxesWarning

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

# Runs the script in its own process and says which of the heavy packages it has loaded.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, {scripts!r})
runpy.run_path({script!r}, run_name="__main__")
print("loaded", sorted({{"keras", "tensorflow", "matplotlib"}} & set(sys.modules)))
"""


def run(folder: Path, *arguments: str) -> list[str]:
    script = SCRIPTS / "visualize_anchors.py"
    code = RUN.format(scripts=str(SCRIPTS), script=str(script))
    command = [sys.executable, "-W", "error", "-c", code, str(script), "--shapes-dir", "shapes", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_built_in_shapes_make_readable_sheets_without_keras(tmp_path: Path):
    lines = run(tmp_path, "--shapes", "6", "--images-per-sheet", "4", "--sheets", "3", "--batch-size", "2")
    # Six images fill one sheet and a half; the third stays away.
    paths = [Path("runs/anchors/anchors_epoch0_0.png"), Path("runs/anchors/anchors_epoch0_1.png")]
    assert [Path(line) for line in lines[:2]] == paths
    assert sorted(path.name for path in (tmp_path / "runs/anchors").iterdir()) == [path.name for path in paths]
    first, second = (read_image(tmp_path / path) for path in paths)
    assert first.shape[1] == 3 * 640 + 4 * 12
    assert first.shape[0] > second.shape[0] > 480
    assert re.fullmatch(r"6 images, \d+ objects, \d+ matched by no anchor", lines[2])
    assert lines[-1] == "loaded []"


def test_objects_that_no_anchor_matches_are_warned_of(tmp_path: Path):
    # One huge anchor size: objects close to each other have the same best anchor.
    lines = run(
        tmp_path, "--shapes", "6", "--model", "c4", "--anchor-sizes", "300", "--augment", "none", "--out", "here"
    )
    assert Path(lines[0]) == Path("here/anchors_epoch0_0.png")
    found = re.fullmatch(r"6 images, \d+ objects, (\d+) matched by no anchor", lines[1])
    assert found
    assert int(found[1]) > 0
    assert lines[2].startswith(f"warning: nothing is learned from {found[1]} object")


@pytest.mark.parametrize(("unmatched", "told"), [(1, "1 object drawn"), (2, "2 objects drawn"), (0, None)])
def test_things_are_counted_in_words(tmp_path: Path, monkeypatch, capsys, unmatched, told):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import visualize_anchors

    sheet = SimpleNamespace(pictures=[], num_objects=unmatched, num_unmatched=unmatched)
    monkeypatch.setattr(visualize_anchors, "show", lambda *_, **__: sheet)
    visualize_anchors.main(["--shapes-dir", str(tmp_path), "--shapes", "1"])
    printed = capsys.readouterr().out
    objects = told.removesuffix(" drawn") if told else "0 objects"
    assert f"0 images, {objects}, {unmatched} matched by no anchor\n" in printed
    assert (f"nothing is learned from {told} in red" in printed) if told else "warning" not in printed


def test_what_is_drawn_is_what_training_is_fed(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import visualize_anchors

    sheets = []

    def show(*arguments, **options):
        sheets.append(detfeed.show(*arguments, **options))
        return sheets[-1]

    monkeypatch.setattr(visualize_anchors, "show", show)
    data = ["--shapes-dir", str(tmp_path), "--shapes", "6", "--out", str(tmp_path / "out")]
    visualize_anchors.main([*data, "--batch-size", "2", "--epoch", "3", "--seed", "4"])

    loader = BatchLoader(
        read_coco(tmp_path / "train" / "instances.json", tmp_path / "train" / "images"),
        AnchorTargets(AnchorGrid.fpn()),
        batch_size=2,
        resize=ShortSide(96, max_side=159),
        augment=albumentations.HorizontalFlip(p=0.5),
        seed=4,
    )
    fed = [loader.load(3, index) for index in range(loader.num_batches)]
    rows = [
        (x["image_hw"][row], x["image"][row], (y["anchor_state"][row] == 1).sum())
        for x, y in fed
        for row in range(len(x["image"]))
    ]
    (sheet,) = sheets
    for picture, ((height, width), image, positives) in zip(sheet.pictures, rows, strict=True):
        np.testing.assert_array_equal(picture.image, image[:height, :width])
        assert f"anchors sampled: {positives} positive" in picture.caption()[1]


@pytest.mark.parametrize("arguments", [("--sheets", "0"), ("--images-per-sheet", "0"), ("--epoch", "-1")])
def test_numbers_out_of_range_are_named(arguments: tuple[str, str], monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import visualize_anchors

    with pytest.raises(SystemExit) as end:
        visualize_anchors.main(list(arguments))
    assert end.value.code == 2
    option, number = arguments
    assert f"{option}: expected a whole number of at least {int(number) + 1}, got {number}" in capsys.readouterr().err


def test_policy_for_bad_boxes_and_the_recipe_are_the_users_choice(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import visualize_anchors

    (tmp_path / "instances.json").write_bytes(
        msgspec.json.encode(
            {
                "images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [70, 10, 20, 20]}],
                "categories": [{"id": 1, "name": "thing"}],
            }
        )
    )
    assert cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((60, 80, 3), np.uint8))
    data = ["--coco", str(tmp_path / "instances.json"), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        visualize_anchors.main([*data, "--invalid", "raise"])
    assert end.value.code == 1
    assert "got [70.0, 10.0, 90.0, 30.0] in an image of height 60 and width 80" in capsys.readouterr().err
    with (
        pytest.warns(UserWarning, match=r"more ignored boxes than objects: 'thing' \(1 of 1\)"),
        pytest.warns(BadBoxesWarning, match="1 reaching out of their image made ignore regions"),
    ):
        visualize_anchors.main([*data, "--invalid", "ignore", "--augment", "ssd", "--short-side", "64"])
    assert list((tmp_path / "out").glob("*.png"))
