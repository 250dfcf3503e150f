"""What tests ask of a report."""

from pathlib import Path

from detfeed.check.findings import KINDS

BOX = [10, 10, 40, 40]


def found(report, *kinds):
    """Findings by kind, without those that any small set has."""
    usual = {"rare-class", "absent-class", "no-boxes"} - set(kinds)
    return {finding.kind: finding for finding in report.findings if finding.kind not in usual}


def one(report, kind):
    """The only finding, of that kind."""
    by_kind = found(report, kind)
    assert list(by_kind) == [kind]
    severity, what, advice = KINDS[kind]
    assert (by_kind[kind].severity, by_kind[kind].advice) == (severity, advice)
    assert by_kind[kind].what.startswith(what)
    return by_kind[kind]


def names(finding):
    return [Path(example.file).stem for example in finding.examples]
