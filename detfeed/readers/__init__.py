"""Readers: annotation files to Annotations, one module a format."""
