"""Resizing: pixels at another height and width, or mirrored."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def flip(image: Image, *, axis: int) -> Image:
    """An image, uint8 (H, W, 3), or a mask, uint8 (H, W), mirrored left to right (axis 0) or top to bottom (axis 1)."""
    return cv2.flip(image, 1 - axis)  # type: ignore[return-value]


def resize(image: Image, size_hw: tuple[int, int]) -> Image:
    """An image, uint8 (H, W, 3), or a mask, uint8 (H, W), at another height and width; see `resize_into`."""
    out = np.empty((*size_hw, *image.shape[2:]), np.uint8)
    resize_into(image, out)
    return out


def resize_into(image: Image, out: Image) -> None:
    """Resize an image into `out`, uint8 (h, w, 3) or (h, w), which may be a corner of a larger array.

    Interpolation is bilinear. An image that shrinks to half or less is averaged over areas, since bilinear sampling
    would skip pixels. (Averaging always would take six times as long for COCO's images, shrunk a little: cv2 4.14, one
    core of a Zen 3.)
    """
    height, width = out.shape[:2]
    if image.shape == out.shape:
        out[:] = image
        return
    halved = 2 * height <= image.shape[0] and 2 * width <= image.shape[1]
    cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_AREA if halved else cv2.INTER_LINEAR)
