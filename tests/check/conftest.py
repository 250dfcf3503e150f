"""Small data sets to check."""

import json

import pytest

from detfeed import read_coco
from image_files import encode, noise


@pytest.fixture
def coco(tmp_path):
    """Write a COCO set of given images, each a file's content and its boxes xywh, and give the function that reads it.

    Without any there is one image with ten boxes of the one class, of which there is nothing to say.
    """

    def make(images=None, *, name="set", sizes=None, names=None, class_names=("cat",), fields=(), invalid="clip"):
        if images is None:
            images = [(encode(noise(99), "PNG"), [[x, 5, 40, 40] for x in range(10)])]
        folder = tmp_path / name
        folder.mkdir()
        content = {"images": [], "annotations": []}
        content["categories"] = [{"id": i + 1, "name": label} for i, label in enumerate(class_names)]
        for number, (data, boxes) in enumerate(images):
            file_name = names[number] if names else f"{number}.png"
            if data is not None:
                (folder / file_name).write_bytes(data)
            height, width = sizes[number] if sizes else (60, 80)
            content["images"].append({"id": number, "file_name": file_name, "height": height, "width": width})
            for box in boxes:
                row = {"image_id": number, "category_id": 1, "bbox": box, **dict(fields)}
                content["annotations"].append(row)
        (folder / "a.json").write_text(json.dumps(content))
        return lambda: read_coco(folder / "a.json", folder, invalid=invalid)

    return make
