"""What notebooks show: tables and pictures, cheaply, and whatever state the files are in."""

import base64
import dataclasses
import importlib
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from detfeed import BatchLoader, PaddedBoxes, ShortSide, check
from detfeed.check.thumbnails import draw_thumbnail
from detfeed.drawing import html
from detfeed.drawing.marks import RED, YELLOW
from detfeed.images import decoding


class Parsed(HTMLParser):
    """The texts of cells, and whether each tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.pictures = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            source = dict(attributes)["src"].removeprefix("data:image/png;base64,")
            self.pictures.append(cv2.imdecode(np.frombuffer(base64.b64decode(source), np.uint8), cv2.IMREAD_COLOR))
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["td"]:
            self.cells.append(data)


def test_names_are_escaped():
    text = (
        html.table(("<a>",), [("<script>&", 3)])
        + html.paragraph("<b>")
        + html.picture(np.zeros((1, 1, 3), np.uint8), '"')
    )
    parsed = Parsed(text)
    assert "<script>" not in text and "<b>" not in text
    assert parsed.cells == ["<script>&", "3"]


def test_annotations_show_classes_and_labels_and_read_no_image(shapes, monkeypatch):
    monkeypatch.setattr(decoding, "read_image", None)
    parsed = Parsed(shapes._repr_html_())
    count = int(((shapes.class_ids == 0) & ~shapes.ignore).sum())
    assert [shapes.class_names[0], str(count)] == parsed.cells[parsed.cells.index(shapes.class_names[0]) :][:2]
    assert len(parsed.pictures) == 1
    assert repr(shapes).startswith("Annotations(24 images, ")
    assert len(Parsed(shapes.select([])._repr_html_()).pictures) == 1


def test_sample_shows_its_image_and_boxes(shapes):
    loader = BatchLoader(shapes, PaddedBoxes(99), batch_size=4, resize=ShortSide(96))
    for position in range(4):
        sample = loader.load_sample(0, position)
        parsed = Parsed(sample._repr_html_())
        assert len(parsed.pictures) == 1
        assert len(parsed.cells) == 7 * min(len(sample.boxes), 20)
        assert repr(sample).startswith("Sample(image=array(")


@pytest.fixture
def report(annotate, tmp_path):
    boxes = [[[1, 1, 30, 30], [2, 2, 9, 9]], [[1, 1, 30, 30]], [[5, 5, 20, 20]]]
    table = annotate([(60, 80)] * 3, boxes)
    with open(table.paths[0], "rb") as file:
        content = file.read()
    with open(table.paths[1], "wb") as file:
        file.write(content)  # images 0 and 1 are the same
    with open(table.paths[2], "wb") as file:
        file.write(b"no picture")
    return check(table)


def test_report_shows_its_findings_and_the_images_that_can_be_read(report):
    text = report._repr_html_()
    parsed = Parsed(text)
    for finding in report.findings:
        assert finding.kind in parsed.cells
    assert len(parsed.pictures) == 1
    assert repr(report).startswith("Report(findings=(")


def test_report_decodes_few_images_and_fails_on_none(report, monkeypatch):
    read = []

    def fail(path, **arguments):
        read.append(path)
        raise decoding.ImageError(path)

    # Not by its name: detfeed.check is a function.
    monkeypatch.setattr(importlib.import_module("detfeed.check.thumbnails"), "read_image", fail)
    assert draw_thumbnail(report.checked[0].annotations, 100) is None
    many = dataclasses.replace(report, findings=report.findings * 20)
    assert Parsed(many._repr_html_()).pictures == []
    assert 0 < len(read) <= 24


def test_report_of_annotations_that_cannot_be_read_shows_the_error(tmp_path):
    def read(**arguments):
        raise decoding.ImageError("a file that <can't> be read")

    text = check(read)._repr_html_()
    assert "&lt;can&#x27;t&gt;" in text
    assert Parsed(text).pictures == []


def test_thumbnail_shows_the_box_in_red_and_needs_a_file_that_is_there(shapes):
    tile = draw_thumbnail(shapes, shapes.image_id(3), row=0, caption="what")
    assert (tile.image == RED).all(axis=2).any() and (tile.image == YELLOW).all(axis=2).any()
    assert tile.caption[1] == "what"
    assert draw_thumbnail(shapes, -1) is None
    remote = dataclasses.replace(shapes, paths=tuple(f"memory://a/{n}.png" for n in range(len(shapes))))
    assert draw_thumbnail(remote, shapes.image_id(3)) is None
