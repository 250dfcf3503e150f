"""The examples of the README, made small, and the data that they look for.

Run as a program, it tries the first example and the check with the detfeed that is installed: `make wheel` does so.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import detfeed

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
# Replaced because they would take long or need the network. Everything else stays.
SMALLER = {
    "AnchorGrid.fpn()": "AnchorGrid.c4()",
    "ShortSide(800, max_side=1333)": "ShortSide(64)",
    "ShortSide(600)": "__import__('detfeed').Fixed((64, 64))",  # one canvas, so that TensorFlow traces once
    "(256, 256": "(64, 64",
    "epochs=12": "epochs=1",
    "num_samples=256": "num_samples=8",
    "post_nms=300": "post_nms=20",
    "save_freq=1000": "save_freq=4",
    'weights="imagenet", ': "",
    '"retinanet_resnet50_fpn_coco"': '"./retinanet"',
    "(800, 800)": "(64, 64)",
}


def python_in(text: str) -> list[str]:
    """The blocks of Python in a Markdown text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def smaller(block: str) -> str:
    """A block of Python with the replacements of `SMALLER`."""
    for long, short in SMALLER.items():
        block = block.replace(long, short)
    return block


def lay_out_coco(instances: Path, images: Path, folder: Path) -> None:
    """Copy a COCO file and its images to where the examples look for them, inside a folder."""
    shutil.copy(instances, folder / "instances_train2017.json")
    shutil.copytree(images, folder / "train2017")


def main() -> None:
    """Run the first example and the check in an empty folder."""
    assert "site-packages" in Path(detfeed.__file__).parts, f"{detfeed.__file__} is not installed: it is the clone's"
    with tempfile.TemporaryDirectory() as folder:
        drawn = detfeed.make_shapes(Path(folder) / "drawn", num_images=8, image_hw=(96, 128), seed=0)
        lay_out_coco(drawn, drawn.parent / "images", Path(folder))
        os.chdir(folder)
        exec(compile(smaller(python_in(README)[0]), "README.md", "exec"), {})
        command = Path(sys.executable).with_name("detfeed")
        check = [command, "check", "--coco", "instances_train2017.json", "--images", "train2017"]
        code = subprocess.run(check).returncode
        assert code in (0, 1), f"detfeed check ended with {code}"
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
