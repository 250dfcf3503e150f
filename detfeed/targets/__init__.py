"""Targets: from a sample to the arrays that a detector learns from."""
