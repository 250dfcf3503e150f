"""Processes: run any pickled object in a process of its own, and hand over arrays without a copy."""
