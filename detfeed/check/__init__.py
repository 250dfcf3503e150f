"""Check: what is wrong with a data set."""

from detfeed.check.dataset import check
from detfeed.check.duplicates import group_duplicates

__all__ = ["check", "group_duplicates"]
