"""Every block of Python in README and docs is a test, in a folder with a small data set."""

import doctest
import importlib.util
import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
from sybil import Lexeme, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from detfeed import make_shapes, read_coco
from readme import lay_out_coco, smaller

evaluate = PythonEvaluator()
evaluate_lines = DocTestEvaluator(doctest.NORMALIZE_WHITESPACE)


def evaluate_smaller(example):
    block = example.parsed
    example.parsed = Lexeme(smaller(block), block.offset, block.line_offset)
    evaluate(example)


def evaluate_session(example):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a session shows what is printed or raised, and goes on after a warning
        return evaluate_lines(example)


class PythonParser(PythonCodeBlockParser):
    """Of blocks of Python, made small, and of sessions, whose lines begin with >>>."""

    def __init__(self):
        super().__init__()
        self.codeblock_parser = CodeBlockParser("python", evaluate_smaller)
        self.doctest_parser = DocTestStringParser(evaluate_session)


# Files of few tests that take long: last, they would keep one process busy while the other has nothing left to do.
FIRST = ("tests/scripts", "tests/models", "docs", "README.md")


def pytest_collection_modifyitems(config, items):
    """Let the longest files be first; xdist, told not to, would begin with the files of most tests."""
    places = [config.rootpath / name for name in FIRST]
    items.sort(key=lambda item: not any(item.path.is_relative_to(place) for place in places))


def offer_installed(namespace):
    """For `<!-- skip: next if(not installed("torch") or backend() != "torch") -->`."""
    namespace["installed"] = lambda package: importlib.util.find_spec(package) is not None
    namespace["backend"] = lambda: os.environ.get("KERAS_BACKEND", "tensorflow")


pytest_collect_file = Sybil(
    parsers=[PythonParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["folder"],
    setup=offer_installed,
    teardown=dict.clear,  # what holds workers and models
).pytest()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """24 drawn images in two orientations, some without boxes, some with a crowd."""
    json = make_shapes(tmp_path_factory.mktemp("shapes"), num_images=24, image_hw=(96, 128), seed=0)
    return read_coco(json, json.parent / "images")


@pytest.fixture(scope="module")
def folder(shapes, tmp_path_factory):
    """A working folder, of one document, with the shapes as COCO, as VOC, and with proposals of them."""
    folder = tmp_path_factory.mktemp("document")
    images = Path(shapes.source).parent / "images"
    lay_out_coco(Path(shapes.source), images, folder)
    add_keypoints(folder / "instances_train2017.json")
    lay_out_voc(shapes, images, folder / "VOCdevkit" / "VOC2007")
    names = [Path(path).stem for path in shapes.paths]
    proposals = [{"image_id": name, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.5} for name in names]
    (folder / "runs" / "trainval").mkdir(parents=True)
    (folder / "runs" / "trainval" / "proposals.json").write_text(json.dumps(proposals))
    with pytest.MonkeyPatch.context() as patch:
        import keras

        from small_resnet50 import small_resnet50

        # `make wheel` runs the first example with ResNet50.
        patch.setattr(keras.applications, "ResNet50", small_resnet50)
        patch.chdir(folder)
        yield


def lay_out_voc(shapes, images, voc):
    """Write the shapes as a VOC folder."""
    shutil.copytree(images, voc / "JPEGImages")
    (voc / "Annotations").mkdir()
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    names = [Path(path).stem for path in shapes.paths]
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(names))
    for position, name in enumerate(names):
        rows = shapes.rows(position)
        objects = ""
        for (x0, y0, x1, y1), class_id in zip(shapes.boxes[rows].tolist(), shapes.class_ids[rows], strict=True):
            corners = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            objects += f"<object><name>{shapes.class_names[class_id]}</name><bndbox>{corners}</bndbox></object>"
        (voc / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")


def add_keypoints(file):
    """Give each object two keypoints: the first pixel and the centre of its box."""
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["keypoints"] = ["corner", "centre"]
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        one["keypoints"] = [x, y, 2, x + width / 2, y + height / 2, 1]
    file.write_text(json.dumps(content))
