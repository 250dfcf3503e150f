"""The scripts read the data set that their options name, in any format, or draw one."""

import argparse

import pytest

from data_arguments import add_data_arguments, choose_feed, choose_resize, read_training, read_validation
from detfeed import Fixed, RepeatFactor, ShortSide
from detfeed.readers.formats import FORMATS
from written_formats import write_all


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser, validation=True)
    return parser.parse_args([*map(str, arguments)])


@pytest.mark.parametrize("format", FORMATS)
def test_data_of_every_format_can_be_trained_and_scored_on(tmp_path, format):
    options = write_all(tmp_path)[format]
    arguments = parse(*options, f"--val-{format}", options[1])
    train, val = read_training(arguments), read_validation(arguments)
    assert len(train) == len(val) == (22 if format == "openimages" else 24)
    assert choose_resize(arguments) == ShortSide(800, max_side=1333)


def test_shapes_are_drawn_if_no_data_is_given(tmp_path):
    arguments = parse("--shapes-dir", tmp_path, "--shapes", 9)
    assert len(read_training(arguments)) == 9
    assert len(read_validation(arguments)) == 2
    assert read_training(arguments).paths[0].startswith(str(tmp_path / "train"))
    assert choose_resize(arguments) == ShortSide(96, max_side=159)


def test_no_validation_data_is_drawn_beside_data_that_is_given(tmp_path):
    write_all(tmp_path)
    assert read_validation(parse("--voc", tmp_path, "--shapes-dir", tmp_path / "shapes")) is None
    assert not (tmp_path / "shapes").exists()


def test_feed_is_what_the_options_say():
    assert choose_feed(parse()) == {
        "batch_size": 2, "resize": ShortSide(96, max_side=159), "augment": "flip", "seed": 0, "sampler": None,
    }  # fmt: skip
    options = ("--batch-size", 3, "--fixed", 64, 96, "--augment", "none", "--seed", 5, "--repeat-factor", 0.5)
    assert choose_feed(parse(*options)) == {
        "batch_size": 3, "resize": Fixed((64, 96)), "augment": None, "seed": 5, "sampler": RepeatFactor(0.5),
    }  # fmt: skip
