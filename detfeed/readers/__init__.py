"""Readers: annotation files to Annotations, one module for each format."""
