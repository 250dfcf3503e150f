"""Feeding: which worker makes which batch, and when."""
