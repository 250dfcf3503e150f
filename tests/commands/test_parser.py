import argparse
import re

import pytest

from detfeed import AnnotationError
from detfeed.commands.parser import Parser, not_negative, positive, positive_share, share, whole


@pytest.fixture
def parser():
    parser = Parser(prog="draw")
    parser.add_argument("--colour", choices=("red", "green", "blue"), default="red")
    parser.add_argument("--size", type=whole(1), nargs=2)
    parser.add_argument("--fill", action="store_true")
    return parser


def last_line(capsys):
    """The one line on stderr."""
    printed = capsys.readouterr()
    assert printed.out == ""
    line, end = printed.err.split("\n")
    assert end == ""
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--colour", "gren"], "--colour: expected red, green or blue, got gren; did you mean green?"),
        (["--colour", "7"], "--colour: expected red, green or blue, got 7"),
        (["--colour", ""], "--colour: expected red, green or blue, got nothing"),
        (["--colour"], "--colour: expected one value, got none; see draw --help"),
        (["--size", "3"], "--size: expected 2 values, got another number; see draw --help"),
        (["--size", "3", "4.5"], "--size: expected a whole number of at least 1, got 4.5"),
        (["--fill=yes"], "--fill: expected no value, got 'yes'"),
        (["--color", "red"], "--color: expected an option of draw, got an unknown one; did you mean --colour?"),
        (["--x"], "--x: expected an option of draw, got an unknown one; see draw --help"),
        (["a.png"], "expected options, got a.png; see draw --help"),
        (["--col", "red"], "--col: expected an option of draw, got an unknown one"),  # no abbreviations
        (["a\nb\x1b[31m"], r"expected options, got a\nb\x1b[31m; see draw --help"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_status_2(parser, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(arguments)
    assert end.value.code == 2
    assert last_line(capsys).startswith(f"draw: {message}")


def test_missing_options_are_named(parser, capsys):
    parser.add_argument("--out", required=True)
    with pytest.raises(SystemExit) as end:
        parser.parse_args([])
    assert end.value.code == 2
    assert last_line(capsys) == "draw: expected --out, got none; see draw --help"


def test_commands_report_their_own_errors(capsys):
    parser = Parser(prog="tool")
    commands = parser.add_subparsers(metavar="COMMAND", prog="tool")
    commands.add_parser("measure").add_argument("--length", type=positive)
    for arguments, message in (
        (
            ["measure", "--lenght", "3"],
            "tool measure: --lenght: expected an option of tool measure, got an unknown one;",
        ),
        (["measure", "--length", "0"], "tool measure: --length: expected a number above 0, got 0"),
        (["mesure"], "tool: COMMAND: expected measure, got mesure; did you mean measure?"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
        assert last_line(capsys).startswith(message)
    assert parser.parse_args(["measure", "--length", "3"]).length == 3


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (argparse.ArgumentError(None, "--a: expected b, got c"), 2, "--a: expected b, got c"),
        (AnnotationError("a\n.json: expected b, got c"), 1, r"a\n.json: expected b, got c"),
        (FileNotFoundError(2, "No such file", "a"), 1, "[Errno 2] No such file: 'a'"),
    ],
)
def test_errors_about_arguments_and_data_end_in_one_line(parser, error, status, message, capsys):
    with pytest.raises(SystemExit) as end, parser.one_line_errors():
        raise error
    assert end.value.code == status
    assert last_line(capsys) == f"draw: {message}"


def test_other_errors_pass_through(parser):
    for error in (KeyError("a"), BrokenPipeError(32, "Broken pipe")):
        with pytest.raises(type(error)), parser.one_line_errors():
            raise error


@pytest.mark.parametrize(
    ("parse", "good", "bad", "expected"),
    [
        (whole(0), {"0": 0, "12": 12}, ["-1", "1.5", "", "a", "nan"], "a whole number of at least 0"),
        (positive, {"1e-3": 0.001}, ["0", "-1", "nan", "inf", "a"], "a number above 0"),
        (not_negative, {"0": 0, "2.5": 2.5}, ["-1", "nan", "inf", "a"], "a number of at least 0"),
        (share, {"0": 0, "1": 1}, ["1.1", "-0.1", "nan", "a"], "a number from 0 to 1"),
        (positive_share, {"0.001": 0.001, "1": 1}, ["0", "1.1", "nan", "a"], "a number above 0 and at most 1"),
    ],
)
def test_numbers_are_checked(parse, good, bad, expected):
    assert {text: parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(
            argparse.ArgumentTypeError, match=f"^expected {expected}, got {re.escape(text) or 'nothing'}$"
        ):
            parse(text)


@pytest.mark.parametrize("command", ["anchors", "check", "convert", "report", "show", "split"])
def test_the_help_of_an_option_is_understood_without_that_of_others(detfeed, command):
    result = detfeed(command, "--help")
    assert result.status == 0
    options = re.findall(r"^  (--[\w-]+)(?: [A-Z]+| \[\w \.\.\.\]| \w)*\s+(\S.*)", result.stdout, re.MULTILINE)
    assert len(options) > 20
    assert not [
        (name, text) for name, text in options if re.match(r"(of|in|where|whose|not|how many|these|its) ", text)
    ]
    assert "to write them" not in result.stdout
