"""Marks: boxes, hatching, dots, lines and masks, drawn into images; needs no display.

Images are uint8 (H, W, 3) RGB. Lines have the same width at every zoom. Marks differ in brightness or thickness as well
as in hue, for people who can't tell hues apart. Dark edges set them off from any photograph.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

YELLOW: Colour = (240, 228, 66)
ORANGE: Colour = (255, 150, 0)
BLUE: Colour = (110, 205, 255)
GREEN: Colour = (0, 200, 140)
PURPLE: Colour = (224, 130, 190)
RED: Colour = (255, 40, 30)
WHITE: Colour = (255, 255, 255)
GREY: Colour = (190, 190, 190)
DARK: Colour = (25, 25, 25)
PAPER: Colour = (45, 45, 45)
PADDING: Colour = (80, 80, 80)

SIDE = 640


def draw_boxes(
    image: Image, boxes: Boxes, colour: Colour, *, zoom: float = 1.0, thickness: int = 1, edge: float = 1.0
) -> None:
    """Draw the outlines of boxes into an image, with a dark line on either side.

    Args:
        image: drawn into; parts of boxes outside it are left out.
        boxes: float32 (N, 4), xyxy; N may be 0.
        zoom: pixels of `image` for each unit of `boxes`.
        thickness: of the coloured line in pixels. It lies inside the box: its outer edge is the box's edge.
        edge: opacity of the dark lines, 0 to 1. Below 1, many overlapping boxes don't blacken the picture.
    """
    # All dark lines first: otherwise the dark lines of one box would hide its neighbours' colours.
    edged = image.copy()
    _outline(edged, boxes, DARK, zoom, (-1, thickness))
    cv2.addWeighted(edged, edge, image, 1 - edge, 0, dst=image)
    _outline(image, boxes, colour, zoom, range(thickness))


def hatch_boxes(image: Image, boxes: Boxes, colour: Colour, *, zoom: float = 1.0) -> None:
    """Hatch boxes and outline them; see `draw_boxes` for the arguments."""
    height, width = image.shape[:2]
    inside = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in np.clip(_pixels(boxes, zoom), 0, (width, height, width, height)):
        inside[y0:y1, x0:x1] = True
    hatch_mask(image, inside, colour)
    draw_boxes(image, boxes, colour, zoom=zoom)


def hatch_mask(image: Image, inside: NDArray[np.bool_], colour: Colour) -> None:
    """Hatch the pixels of an image, in place, where `inside`, bool (H, W), is True."""
    phase = np.add(*np.ogrid[: image.shape[0], : image.shape[1]]) % 12
    image[inside & ((phase == 0) | (phase == 3))] = DARK
    image[inside & ((phase == 1) | (phase == 2))] = colour


def draw_dots(image: Image, centres: NDArray[np.floating], colour: Colour, *, zoom: float = 1.0) -> None:
    """Draw points, float (N, 2) xy, as dots 3 pixels wide with a dark rim."""
    for fill, reach in ((DARK, 2), (colour, 1)):
        for x, y in np.floor(centres * zoom).astype(int).tolist():
            cv2.rectangle(image, (x - reach, y - reach), (x + reach, y + reach), fill, -1)


def draw_points(image: Image, points: NDArray[np.floating], colour: Colour, *, zoom: float = 1.0) -> None:
    """Draw points, float (N, 2) xy, as discs 7 pixels wide with a dark rim."""
    for fill, radius in ((DARK, 4), (colour, 3)):
        for x, y in np.floor(points * zoom).astype(int).tolist():
            cv2.circle(image, (x, y), radius, fill, -1)


def fill_mask(image: Image, inside: NDArray[np.bool_], colour: Colour, *, share: float = 0.35) -> None:
    """Tint the pixels of an image, in place, where `inside`, bool (H, W), is True."""
    image[inside] = np.rint(image[inside] * (1 - share) + np.array(colour) * share)


def outline_mask(image: Image, mask: NDArray[np.uint8], colour: Colour) -> None:
    """Draw the outline of a mask, uint8 (H, W), 0 where it is not, between dark lines."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for line, thickness in ((DARK, 4), (colour, 2)):
        cv2.drawContours(image, outlines, -1, line, thickness)


def tie(image: Image, starts: NDArray[np.float32], ends: NDArray[np.float32], colour: Colour, zoom: float) -> None:
    """Draw a line from each start, float32 (P, 2) xy, to its end, and a dot at the start."""
    for line, thickness in ((DARK, 4), (colour, 2)):
        for start, end in np.floor(np.stack([starts, ends], axis=1) * zoom).astype(int).tolist():
            cv2.line(image, start, end, line, thickness)
    draw_dots(image, starts, colour, zoom=zoom)


def centres_of(boxes: Boxes) -> NDArray[np.float32]:
    """Centres of boxes, float32 (N, 2) xy."""
    return (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)


def canvas(image: Image, input_hw: tuple[int, ...], zoom: float) -> Image:
    """An image, uint8 (H, W, 3), on its canvas with hatched padding, `zoom` pixels for each of the canvas."""
    sizes = np.maximum(np.rint(np.array([image.shape[:2], input_hw]) * zoom), 1).astype(int)
    (height, width), canvas_hw = sizes.tolist()
    picture = np.full((*canvas_hw, 3), DARK, np.uint8)
    picture[np.add(*np.ogrid[: canvas_hw[0], : canvas_hw[1]]) % 12 < 4] = PADDING
    picture[:height, :width] = scaled(image, (height, width))
    return picture


def scaled(image: Image, size_hw: tuple[int, int]) -> Image:
    """An image at another height and width; one that shrinks is averaged over areas."""
    if image.shape[:2] == size_hw:
        return image
    way = cv2.INTER_AREA if size_hw[0] < image.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(image, size_hw[::-1], interpolation=way)  # type: ignore[return-value]


def zoom_to(input_hw: tuple[int, ...], side: int) -> float:
    """The zoom at which a canvas has `side` pixels at most; a whole number for a smaller canvas."""
    longest = max(input_hw)
    return float(side // longest) if longest <= side else side / longest


def _pixels(boxes: Boxes, zoom: float) -> NDArray[np.int64]:
    """First and one past the last column and row that each box covers, int (N, 4), at least one of each."""
    corners = np.rint(boxes * zoom).astype(np.int64)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    return corners


def _outline(image: Image, boxes: Boxes, colour: Colour, zoom: float, insets: Sequence[int]) -> None:
    """Draw a line of one pixel for each inset: that many pixels inside its box, -1 around it, if the box has room."""
    for x0, y0, x1, y1 in _pixels(boxes, zoom).tolist():
        for inset in insets:
            if inset <= 0 or min(x1 - x0, y1 - y0) > 2 * inset:
                cv2.rectangle(image, (x0 + inset, y0 + inset), (x1 - 1 - inset, y1 - 1 - inset), colour)
