"""Check: what is wrong with a data set."""

from detfeed.check.dataset import check

__all__ = ["check"]
