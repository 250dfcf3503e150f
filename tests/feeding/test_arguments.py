"""Arguments are declared once more for type checkers: those declarations and the signatures agree."""

import inspect
import typing

import pytest

from detfeed import AnchorTargets, BatchLoader, RoiTargets, read_coco, read_voc
from detfeed.feeding import arguments
from detfeed.feeding.feed import Feed
from detfeed.readers.coco import CocoArguments
from detfeed.readers.voc import VocArguments

DATA = {
    "self",
    "annotations",
    "targets",
    "proposals",
    "loader",
    "anchors",
    "form",
    "boxes",  # which a sequence gives as it gives the form
    "json",
    "image_dir",
    "root",
    "split",
}


def keywords(function):
    """Name and type of what a function takes besides its data."""
    return {name: hint for name, hint in typing.get_type_hints(function).items() if name not in {*DATA, "return"}}


@pytest.mark.parametrize(
    ("form", "function"),
    [
        (arguments.BatchArguments, BatchLoader.__init__),
        (arguments.FeedArguments, Feed.__init__),
        (arguments.AnchorArguments, AnchorTargets.__init__),
        (arguments.RoiArguments, RoiTargets.__init__),
        (CocoArguments, read_coco),
        (VocArguments, read_voc),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_declared_keywords_are_those_of_the_function_with_their_types(form, function):
    declared = {name: hint for name, hint in typing.get_type_hints(form).items() if name not in DATA}
    assert declared == keywords(function)
    needed = {p.name for p in inspect.signature(function).parameters.values() if p.default is inspect.Parameter.empty}
    assert form.__required_keys__ == needed - DATA


def test_no_keyword_is_declared_for_two_purposes():
    names = [arguments.BatchArguments, arguments.FeedArguments, arguments.AnchorArguments]
    declared = [name for form in names for name in typing.get_type_hints(form)]
    assert len(declared) == len(set(declared))
