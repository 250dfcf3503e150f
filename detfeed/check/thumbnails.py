"""Thumbnails: small pictures of the images in which something was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detfeed.annotations import Annotations
from detfeed.drawing.marks import RED, YELLOW, centres_of, draw_boxes, scaled, zoom_to
from detfeed.drawing.sheets import Tile
from detfeed.errors import DetfeedError
from detfeed.images.decoding import read_image
from detfeed.images.files import is_url

SIDE = 300
_LEAST = 16  # pixels


def draw_thumbnail(
    table: Annotations, image_id: int | str, *, row: int | None = None, caption: str = ""
) -> Tile | None:
    """An image of a data set with its boxes, small; None if it is not there, can't be read, or is at a URL.

    Args:
        table: the data set.
        image_id: the image.
        row: of a box among those of the image, to draw in red.
        caption: follows the name of the file.
    """
    found = np.flatnonzero(table.image_ids == image_id)
    if not len(found):
        return None
    position = int(found[0])
    path = table.paths[position]
    height, width = table.image_hw[position].tolist()
    try:
        image = None if is_url(path) else read_image(path, annotated_hw=(height, width))
    except (DetfeedError, OSError):
        return None
    if image is None:
        return None
    zoom = zoom_to(image.shape[:2], SIDE)
    small = scaled(image, (max(round(height * zoom), 1), max(round(width * zoom), 1))).copy()
    boxes = table.boxes[table.rows(position)]
    draw_boxes(small, boxes, YELLOW, zoom=zoom, thickness=2)
    if row is not None:
        centre, sides = centres_of(boxes[row : row + 1]), boxes[row : row + 1, 2:] - boxes[row : row + 1, :2]
        half = np.maximum(sides, np.float32(_LEAST / zoom)) * np.float32(0.5)  # a box of a pixel would not be seen
        draw_boxes(small, np.concatenate([centre - half, centre + half], axis=1), RED, zoom=zoom, thickness=3)
    return Tile(small, tuple(filter(None, (Path(path).name, caption))))
