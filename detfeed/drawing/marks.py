"""Drawing: pictures of samples and of a model's proposals, as arrays and PNG files; needs no display.

Images are uint8 (H, W, 3) RGB. A picture shows the canvas of a sample, with `zoom` pixels for each canvas pixel; lines
have the same width at every zoom. Marks differ in brightness or thickness as well as in hue, for people who can't tell
hues apart. Dark edges set them off from any photograph.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes
from detfeed.images.resizing import Image, resize_into
from detfeed.sample import Arrays, Sample
from detfeed.targets.matches import COUNTS, NEGATIVE, POSITIVE, AnchorMatches, count_matches
from detfeed.writing import replace_file

Colour = tuple[int, int, int]

YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (110, 205, 255)
PURPLE: Colour = (224, 130, 190)
RED: Colour = (255, 40, 30)
WHITE: Colour = (255, 255, 255)
GREY: Colour = (190, 190, 190)
DARK: Colour = (25, 25, 25)
PAPER: Colour = (45, 45, 45)
PADDING: Colour = (80, 80, 80)

SIDE = 640
GAP = 12
LINE_HEIGHT = 24
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.6


class Tile(NamedTuple):
    """A picture and the lines of text under it: ASCII, since cv2's fonts have no more, and red for an alert."""

    image: Image
    caption: tuple[str, ...] = ()
    alert: bool = False


class Key(NamedTuple):
    """An entry of a legend: a mark of the pictures, and its meaning."""

    mark: Literal["box", "thick", "tied", "dot", "hatch"]
    colour: Colour
    meaning: str


ANCHOR_KEYS = (
    Key("thick", YELLOW, "object (ground truth)"),
    Key("thick", RED, "object that no anchor matches"),
    Key("tied", BLUE, "sampled positive anchor, tied to its object's centre"),
    Key("dot", WHITE, "centre of a sampled negative anchor"),
    Key("hatch", PURPLE, "ignored region (neither positive nor negative)"),
    Key("hatch", PADDING, "padding"),
)
PROPOSAL_KEYS = (
    Key("thick", YELLOW, "object that a proposal finds"),
    Key("thick", RED, "object that none finds"),
    Key("thick", BLUE, "proposal on an object"),
    Key("box", GREY, "proposal on none"),
)


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


def unmatched_boxes(sample: Sample, matches: AnchorMatches) -> NDArray[np.bool_]:
    """Whether each box is an object that no positive anchor matches, and that teaches nothing; bool (N,)."""
    matched = np.zeros(len(sample.boxes), bool)
    matched[matches.match] = True
    return ~matched & ~sample.ignore


def draw_anchors(
    sample: Sample, anchors: Boxes, matches: AnchorMatches, y: Arrays, *, positive_iou: float = 0.7, side: int = SIDE
) -> Tile:
    """Draw the targets of a region proposal network on a sample.

    The picture shows ignored regions, the centres of the sampled negatives, the sampled positives, each tied to the box
    that it matches, and the boxes. Boxes that no anchor matches are red.

    Args:
        sample: from `BatchLoader.load_sample`.
        anchors: float32 (A, 4), of the sample's canvas.
        matches: `AnchorTargets.match(sample)`.
        y: from `AnchorTargets.__call__(sample)` in sampled form: anchor_index int32 (S,), anchor_state int8 (S,).
        positive_iou: as given to AnchorTargets; the caption counts positives below it as low-quality.
        side: longest side of the picture in pixels. A smaller canvas is enlarged by a whole number.
    """
    picture, zoom = _canvas(sample.image, sample.input_hw, side)
    index, state = y["anchor_index"], y["anchor_state"]
    negatives, positives = index[state == NEGATIVE], index[state == POSITIVE]
    match = matches.match[np.searchsorted(matches.positive, positives)]
    unmatched = unmatched_boxes(sample, matches)
    matched = ~unmatched & ~sample.ignore

    _draw_regions(picture, sample, zoom)
    draw_dots(picture, _centres(anchors[negatives]), WHITE, zoom=zoom)
    draw_boxes(picture, anchors[positives], BLUE, zoom=zoom, edge=0.45)
    _tie(picture, _centres(anchors[positives]), _centres(sample.boxes[match]), BLUE, zoom)
    draw_boxes(picture, sample.boxes[matched], YELLOW, zoom=zoom, thickness=2)
    draw_boxes(picture, sample.boxes[unmatched], RED, zoom=zoom, thickness=3)
    counts = count_matches(matches, sample.boxes, ignore=sample.ignore, positive_iou=positive_iou)
    number_of = dict(zip(COUNTS, counts.tolist(), strict=True))
    objects, ignored = int((~sample.ignore).sum()), int(sample.ignore.sum())
    return Tile(
        picture,
        (
            f"image {sample.image_id}: {_count(objects, 'object')}, {number_of['unmatched']} unmatched, "
            f"{_count(ignored, 'ignored region')}",
            f"sampled {len(positives)} of {number_of['positive']} positive anchors "
            f"({number_of['low_quality']} low-quality), {len(negatives)} negative; {number_of['ignored']} ignored",
        ),
        alert=bool(unmatched.any()),
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
        side: see `draw_anchors`.
    """
    boxes = boxes[np.argsort(-scores, kind="stable")[:top]]
    hits = geometry.iou(boxes, truth) >= min_iou
    found, hit = hits.any(axis=0), hits.any(axis=1)
    picture, zoom = _canvas(image, image.shape[:2], side)
    draw_boxes(picture, boxes[~hit], GREY, zoom=zoom, edge=0.5)
    draw_boxes(picture, truth[found], YELLOW, zoom=zoom, thickness=2)
    draw_boxes(picture, truth[~found], RED, zoom=zoom, thickness=3)
    draw_boxes(picture, boxes[hit], BLUE, zoom=zoom, thickness=2)
    return Tile(
        picture,
        (f"{found.sum()} of {_count(len(truth), 'object')} found by the best {_count(len(boxes), 'proposal')}",),
    )


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 3, legend: Sequence[Key] = (), title: str = "") -> Image:
    """Put tiles side by side, row by row, under a title and above a legend.

    Args:
        tiles: pictures of any sizes; may be empty.
        columns: the most tiles of a row, at least 1.
        legend: entries that explain the marks.
        title: one line of ASCII.
    """
    columns = max(1, min(columns, len(tiles)))
    cell = max((tile.image.shape[1] for tile in tiles), default=0)
    width = max(columns * (cell + GAP), SIDE) + GAP
    strips = [_paper(GAP, width)]
    if title:
        strips.append(_paper(LINE_HEIGHT + GAP, width))
        _write(strips[-1], title, GAP, 0, width=width - 2 * GAP)
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        height = max(tile.image.shape[0] + LINE_HEIGHT * len(tile.caption) for tile in row)
        strip = _paper(height + GAP, width)
        for place, tile in enumerate(row):
            left = GAP + place * (cell + GAP)
            bottom, right = tile.image.shape[:2]
            strip[:bottom, left : left + right] = tile.image
            colour = RED if tile.alert else WHITE
            for line, text in enumerate(tile.caption):
                _write(strip, text, left, bottom + line * LINE_HEIGHT, width=cell, colour=colour)
        strips.append(strip)
    return np.concatenate([*strips, *_legend_strips(legend, width)])


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write an RGB image as PNG; its folder is made if missing.

    Raises:
        OSError: it can't be written.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    # Not imwrite, which returns False instead of raising.
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data.tobytes())


def _canvas(image: Image, input_hw: tuple[int, ...], side: int) -> tuple[Image, float]:
    """The image on its canvas with hatched padding, enlarged or shrunk to `side` at most, and the zoom."""
    longest = max(input_hw)
    zoom = float(side // longest) if longest <= side else side / longest
    sizes = np.maximum(np.rint(np.array([image.shape[:2], input_hw]) * zoom), 1).astype(int)
    (height, width), canvas_hw = sizes.tolist()
    picture = np.full((*canvas_hw, 3), DARK, np.uint8)
    picture[np.add(*np.ogrid[: canvas_hw[0], : canvas_hw[1]]) % 12 < 4] = PADDING
    resize_into(image, picture[:height, :width])
    return picture, zoom


def _draw_regions(picture: Image, sample: Sample, zoom: float) -> None:
    """Hatch the ignore regions of a sample, those with a mask inside their mask, and outline their boxes."""
    masks = sample.region_masks
    by_mask = list(masks)
    for row in by_mask:
        mask = cv2.resize(masks[row], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST) > 127
        hatch_mask(picture[: mask.shape[0], : mask.shape[1]], mask, PURPLE)
    draw_boxes(picture, sample.boxes[by_mask], PURPLE, zoom=zoom)
    hatch_boxes(picture, np.delete(sample.boxes, by_mask, axis=0)[np.delete(sample.ignore, by_mask)], PURPLE, zoom=zoom)


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


def _centres(boxes: Boxes) -> NDArray[np.float32]:
    """Centres of boxes, float32 (N, 2) xy."""
    return (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)


def _tie(image: Image, starts: NDArray[np.float32], ends: NDArray[np.float32], colour: Colour, zoom: float) -> None:
    """Draw a line from each start, float32 (P, 2) xy, to its end, and a dot at the start."""
    for line, thickness in ((DARK, 4), (colour, 2)):
        for start, end in np.floor(np.stack([starts, ends], axis=1) * zoom).astype(int).tolist():
            cv2.line(image, start, end, line, thickness)
    draw_dots(image, starts, colour, zoom=zoom)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _paper(height: int, width: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)


def _write(image: Image, text: str, x: int, y: int, *, width: int, colour: Colour = WHITE) -> None:
    """Write a line of text whose top left corner is (x, y), smaller where it would be wider than `width`."""
    scale = min(FONT_SCALE, FONT_SCALE * width / max(_text_width(text), 1))
    cv2.putText(image, text, (x, y + LINE_HEIGHT - 6), FONT, scale, colour, 1, cv2.LINE_AA)


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0])


def _legend_strips(legend: Sequence[Key], width: int) -> list[Image]:
    """The legend's entries from left to right, in as many lines as they need."""
    swatch_hw = LINE_HEIGHT + GAP // 2, 2 * LINE_HEIGHT
    strips: list[Image] = []
    left = width
    for key in legend:
        needed = swatch_hw[1] + GAP + _text_width(key.meaning)
        if left + needed > width - GAP:
            strips.append(_paper(LINE_HEIGHT + GAP, width))
            left = GAP
        swatch = strips[-1][: swatch_hw[0], left : left + swatch_hw[1]]
        _draw_mark(swatch, key)
        _write(strips[-1], key.meaning, left + swatch_hw[1] + GAP // 2, GAP // 4, width=width)
        left += needed + 2 * GAP
    return strips


def _draw_mark(swatch: Image, key: Key) -> None:
    """Fill a swatch, uint8 (h, w, 3), with the mark of a legend's entry."""
    swatch[:] = (110, 110, 110)
    height, width = swatch.shape[:2]
    frame = np.array([[4, 3, width - 4, height - 3]], np.float32)
    centre = _centres(frame)
    if key.mark == "dot":
        draw_dots(swatch, centre + np.array([[-10, 3], [0, -3], [10, 2]]), key.colour)
    elif key.mark == "hatch":
        hatch_boxes(swatch, frame, key.colour)
    elif key.mark == "tied":
        draw_boxes(swatch, frame, key.colour)
        reach = np.array([[12, 4]], np.float32)
        _tie(swatch, centre - reach, centre + reach, key.colour, 1)
    else:
        draw_boxes(swatch, frame, key.colour, thickness=3 if key.mark == "thick" else 1)
