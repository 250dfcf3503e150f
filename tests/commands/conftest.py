"""Commands of `detfeed`, run in this process."""

from types import SimpleNamespace

import pytest

from detfeed.commands import cli


@pytest.fixture
def detfeed(capsys):
    """Run a command in this process; its exit status and what it printed."""

    def call(*arguments):
        capsys.readouterr()
        try:
            status = cli.main([*map(str, arguments)])
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return SimpleNamespace(status=status, stdout=printed.out, stderr=printed.err)

    return call
