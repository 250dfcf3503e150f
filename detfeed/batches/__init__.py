"""Batches: which samples come when, and one batch of them."""
