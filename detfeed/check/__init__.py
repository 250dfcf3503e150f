"""Check: what is wrong with a data set, and the command line."""

from detfeed.check.dataset import check

__all__ = ["check"]
