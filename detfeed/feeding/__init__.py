"""Feeding: who makes which batch when."""
