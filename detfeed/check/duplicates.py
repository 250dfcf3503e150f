"""Duplicates: groups of images that are the same or look alike."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.check.pictures import Inspected, OnProgress, group_alike, inspect_images
from detfeed.images.files import is_url
from detfeed.splitting import joined, numbered


def group_duplicates(
    annotations: Annotations, *, workers: int | None = None, on_progress: OnProgress | None = None
) -> NDArray[np.int64]:
    """Group images that are the same or look alike, as `check` finds them, for `Annotations.split`.

    An image belongs to the group of each image that looks like it, so that a group may hold a whole video. An image
    that can't be decoded is alone, unless its file stands twice.

    Args:
        annotations: the table; P images. All of them are decoded.
        workers: number of threads. None: the number of cores.
        on_progress: called with the number of images done and of all images.

    Returns:
        int64 (P,), numbers of groups from 0, in the order in which they come first.

    Raises:
        ValueError: workers is below 1.
        DetfeedError: images are URLs, and the library that reads them is not installed.
    """
    return group_inspected(annotations, inspect_images(annotations.paths, workers=workers, on_progress=on_progress))


def group_inspected(annotations: Annotations, inspected: Sequence[Inspected]) -> NDArray[np.int64]:
    """`group_duplicates` of images that were inspected already.

    Args:
        annotations: the table; P images.
        inspected: P results of `inspect_images`.
    """
    files = numbered([path if is_url(path) else os.path.realpath(path) for path in annotations.paths])
    rows = [row for row, image in enumerate(inspected) if image.thumbnail]
    alike = np.arange(len(annotations))
    if rows:
        groups = group_alike(
            np.array([inspected[row].hash for row in rows], np.uint64),
            np.stack([np.frombuffer(inspected[row].thumbnail, np.uint8) for row in rows]),
        )
        alike[rows] = len(annotations) + groups
    return joined(files, numbered(alike))
