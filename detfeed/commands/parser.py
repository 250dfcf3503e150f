"""The parser of all command lines: its errors are one line each."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from detfeed.check.printing import printable
from detfeed.errors import DetfeedError, any_of

_N = TypeVar("_N", int, float)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line: the option, what was expected, what was given, what to do.

    Options can't be abbreviated: an abbreviation would become ambiguous, or mean another option, with the next option
    that is added.

    Args:
        settings: those of `argparse.ArgumentParser`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **{
                "usage": "%(prog)s [options]",  # all options in a row would fill half a screen
                "formatter_class": _Help,
                "epilog": "Defaults are in [brackets].",
                "allow_abbrev": False,
                "exit_on_error": False,
                **settings,
            }
        )

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]: argparse declares overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse all arguments; one that is unknown is an error here, so that a command reports its own."""
        try:
            namespace, unknown = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            self.error(
                f"{error.argument_name}: {self._reworded(error.message)}" if error.argument_name else error.message
            )
        if unknown:
            self.error(self._about_unknown(unknown[0]))
        return namespace, []

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and one line."""
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message:
            message = f"expected {missing}, got none; see {self.prog} --help"
        self.exit(2, f"{self.prog}: {printable(message)}\n")

    @contextlib.contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """End the program with one line on an error about arguments (status 2), or about data (status 1)."""
        try:
            yield
        except argparse.ArgumentError as error:
            self.error(str(error))
        except BrokenPipeError:
            raise
        except (DetfeedError, FloatingPointError, OSError) as error:
            self.exit(1, f"{self.prog}: {printable(str(error))}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"expected {any_of(known)}, got {value or 'nothing'}{_nearest(value, known)}"
            )

    def _reworded(self, message: str) -> str:
        """A message of argparse in the form "expected X, got Y; do Z"."""
        if message.startswith("expected ") and message.endswith(("argument", "arguments")):
            got = "none" if "one" in message else "another number"
            return f"{message.replace('argument', 'value')}, got {got}; see {self.prog} --help"
        return message.replace("ignored explicit argument", "expected no value, got")

    def _about_unknown(self, argument: str) -> str:
        name = argument.partition("=")[0]
        if not name.startswith("-"):
            return f"expected options, got {argument}; see {self.prog} --help"
        near = _nearest(name, self._option_string_actions)
        return f"{name}: expected an option of {self.prog}, got an unknown one{near or f'; see {self.prog} --help'}"


def run_program(main: Callable[[], int | None]) -> int:
    """Run a program whose output may be piped, or hold names that the terminal can't show.

    Args:
        main: the program; returns its exit status, None for 0.

    Returns:
        The exit status: that of `main`, 1 if the program behind the pipe has ended, 130 on an interrupt.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that can't be encoded does not end the printing
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the program behind the pipe has ended, as `head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at its end
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status or 0


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in columns that give an option of detfeed and its text one line of 80 characters."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, **{"max_help_position": 26, **settings})


def _nearest(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def whole(least: int) -> Callable[[str], int]:
    """A `type` of options: a whole number of at least `least`."""

    def parse(text: str) -> int:
        return _number(text, int, f"a whole number of at least {least}", lambda number: number >= least)

    return parse


def positive(text: str) -> float:
    """A `type` of options: a number above 0."""
    return _number(text, float, "a number above 0", lambda number: 0 < number < math.inf)


def positive_share(text: str) -> float:
    """A `type` of options: a number above 0 and at most 1."""
    return _number(text, float, "a number above 0 and at most 1", lambda number: 0 < number <= 1)


def not_negative(text: str) -> float:
    """A `type` of options: a number of at least 0."""
    return _number(text, float, "a number of at least 0", lambda number: 0 <= number < math.inf)


def share(text: str) -> float:
    """A `type` of options: a number from 0 to 1."""
    return _number(text, float, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def _number(text: str, kind: Callable[[str], _N], expected: str, fits: Callable[[_N], bool]) -> _N:
    with contextlib.suppress(ValueError):
        number = kind(text)
        if fits(number):
            return number
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text or 'nothing'}")
