"""Report: a data set, what is fed of it, and a detector's run on it, as one HTML page without network."""

from detfeed.report.page import write_report

__all__ = ["write_report"]
