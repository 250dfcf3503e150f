"""Processes: run any pickled task in a process of its own, and hand over arrays without a copy."""
