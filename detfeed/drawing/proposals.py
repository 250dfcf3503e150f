"""Proposals: the best ones of an image and its objects, as a tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes
from detfeed.drawing.marks import BLUE, GREY, RED, SIDE, YELLOW, Image, canvas, draw_boxes, zoom_to
from detfeed.drawing.sheets import Key, Tile
from detfeed.drawing.text import counted

PROPOSAL_KEYS = (
    Key("thick", YELLOW, "object that a proposal finds"),
    Key("thick", RED, "object that no proposal finds"),
    Key("thick", BLUE, "proposal on an object"),
    Key("box", GREY, "proposal on no object"),
)


def draw_proposals(
    image: Image,
    boxes: Boxes,
    scores: NDArray[np.float32],
    truth: Boxes,
    *,
    top: int = 20,
    min_iou: float = 0.5,
    side: int = SIDE,
) -> Tile:
    """Draw the best proposals of an image, and its objects, red where no proposal finds them.

    Args:
        image: uint8 (H, W, 3).
        boxes: float32 (R, 4), xyxy pixels of `image`; R may be 0.
        scores: float32 (R,), in any order.
        truth: float32 (N, 4), the objects, without ignored regions; N may be 0.
        top: number of proposals to draw, those with the highest scores.
        min_iou: a proposal finds an object if their IoU is at least this.
        side: longest side of the picture in pixels; a smaller image is enlarged by a whole number.
    """
    boxes = boxes[np.argsort(-scores, kind="stable")[:top]]
    hits = geometry.iou(boxes, truth) >= min_iou
    found, hit = hits.any(axis=0), hits.any(axis=1)
    zoom = zoom_to(image.shape[:2], side)
    picture = canvas(image, image.shape[:2], zoom)
    draw_boxes(picture, boxes[~hit], GREY, zoom=zoom, edge=0.5)
    draw_boxes(picture, truth[found], YELLOW, zoom=zoom, thickness=2)
    draw_boxes(picture, truth[~found], RED, zoom=zoom, thickness=3)
    draw_boxes(picture, boxes[hit], BLUE, zoom=zoom, thickness=2)
    return Tile(
        picture,
        (f"{found.sum()} of {counted(len(truth), 'object')} found by the best {counted(len(boxes), 'proposal')}",),
    )
