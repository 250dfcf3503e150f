import argparse

import pytest

from detfeed import ShortSide
from detfeed.commands.parser import Parser
from detfeed.commands.sizes import add_size_options, choose_short_side


def choose(*arguments, **settings):
    parser = Parser()
    add_size_options(parser)
    return choose_short_side(parser.parse_args(arguments), **settings)


def test_longer_side_is_at_most_five_thirds_of_the_shorter_unless_it_is_given():
    assert choose() == ShortSide(800, max_side=1333)
    assert choose(default=96) == ShortSide(96, max_side=159)
    assert choose("--short-side", "300", default=96) == ShortSide(300, max_side=499)
    assert choose("--max-side", "900") == ShortSide(800, max_side=900)


def test_longer_side_is_not_below_the_shorter():
    with pytest.raises(argparse.ArgumentError, match="--max-side: expected at least the shorter side, 96, got 95"):
        choose("--max-side", "95", default=96)
