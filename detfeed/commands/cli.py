"""The command line `detfeed`."""

from __future__ import annotations

from detfeed.commands.anchors import add_anchors
from detfeed.commands.check import add_check
from detfeed.commands.convert import add_convert
from detfeed.commands.parser import Parser, run_program
from detfeed.commands.report import add_report
from detfeed.commands.show import add_show
from detfeed.commands.split import add_split


def main(argv: list[str] | None = None) -> int:
    """Run the command that the arguments name.

    Args:
        argv: the arguments. None: those of the process.

    Returns:
        The exit status.

    Raises:
        SystemExit: arguments are wrong (status 2), or help was asked for (0).
    """
    parser = Parser(
        prog="detfeed",
        usage="detfeed COMMAND [options]",
        description="A data feed for training object detectors in Keras.",
        epilog="detfeed COMMAND --help describes a command.",
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="detfeed")
    add_check(commands)
    add_anchors(commands)
    add_convert(commands)
    add_report(commands)
    add_show(commands)
    add_split(commands)
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        parser.print_help()
        return 0

    def run() -> int:
        with arguments.parser.one_line_errors():
            status: int = arguments.run(arguments)
        return status

    return run_program(run)
