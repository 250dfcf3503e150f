"""Augmentation: transforms that move images, boxes and all that lies on them alike."""
