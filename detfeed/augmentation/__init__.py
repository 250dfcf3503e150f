"""Augmentation: transforms that move an image together with its boxes, masks and proposals."""
