"""Sheets: pictures packed on one, all at their scale, with lines of text under each, a title and a legend."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from detfeed.drawing import text
from detfeed.drawing.marks import (
    PAPER,
    RED,
    SIDE,
    WHITE,
    Colour,
    Image,
    centres_of,
    draw_boxes,
    draw_dots,
    draw_points,
    fill_mask,
    hatch_boxes,
    tie,
)
from detfeed.writing import replace_file

GAP = 12


class Tile(NamedTuple):
    """A picture and the lines of text under it, red for an alert. A line that is too long is broken."""

    image: Image
    caption: tuple[str, ...] = ()
    alert: bool = False


class Key(NamedTuple):
    """An entry of a legend: a mark of the pictures, and its meaning."""

    mark: Literal["box", "thick", "tied", "dot", "hatch", "fill", "point"]
    colour: Colour
    meaning: str


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 3, legend: Sequence[Key] = (), title: str = "") -> Image:
    """Pack tiles under a title and above a legend, each as large as it is.

    Tiles of one size stand row by row. Of tiles of several sizes the higher come first, and lower ones fill the space
    beside them.

    Args:
        tiles: pictures of any sizes; may be empty.
        columns: how many of the widest tiles a row holds at most, at least 1.
        legend: entries that explain the marks.
        title: broken into lines where it is too long.
    """
    blocks = _with_captions(tiles)
    places, packed_hw = pack([block.shape[:2] for block in blocks], columns=columns, gap=GAP)
    width = max(packed_hw[1], SIDE) + 2 * GAP
    body = _paper(packed_hw[0] + GAP, width)
    for block, (top, left) in zip(blocks, places, strict=True):
        body[top : top + block.shape[0], GAP + left : GAP + left + block.shape[1]] = block
    lines = text.wrap(title, width - 2 * GAP) if title else []
    head = _paper(GAP + text.LINE * len(lines) + (GAP // 2 if lines else 0), width)
    for number, line in enumerate(lines):
        text.write(head, line, GAP, GAP // 2 + text.LINE * number, WHITE)
    return np.concatenate([head, body, *_legend_strips(legend, width)])


def pack(
    sizes_hw: Sequence[tuple[int, ...]], *, columns: int, gap: int = 0
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Places of rectangles beside and under each other, close together.

    Args:
        sizes_hw: height and width of each.
        columns: how many of the widest a row holds at most.
        gap: pixels between two of them.

    Returns:
        For each its top and left, and height and width of the whole.
    """
    if not sizes_hw:
        return [], (0, 0)
    columns = max(1, min(columns, len(sizes_hw)))
    widths = sorted({size[1] for size in sizes_hw}, reverse=True)[:_MOST_WIDTHS]
    least = sum(size[1] for size in sizes_hw) * columns / len(sizes_hw)  # as wide as rows of so many on average
    rows = [
        sum(row) + gap * (number - 1)
        for number in range(columns, columns + 3)
        for row in itertools.combinations_with_replacement(widths, number)
        if number <= _MOST_COLUMNS
    ]
    widest = columns * widths[0] + gap * (columns - 1)
    limits = sorted({width for width in rows if max(least, widths[0]) <= width <= widest} | {widest}, reverse=True)
    places = list(range(len(sizes_hw)))
    orders = [sorted(places, key=lambda place: -sizes_hw[place][side]) for side in (0, 1)]
    if len(set(sizes_hw)) > 1:
        rng = np.random.default_rng(0)
        orders += [rng.permutation(places).tolist() for _ in range(_TRIES // len(places))]
    packings = [_packed(sizes_hw, order, limit, gap) for limit in limits for order in orders]
    found, whole = min(packings, key=lambda packing: packing[1][0] * packing[1][1])
    # Rectangles of one size keep their order.
    for size in set(sizes_hw):
        alike = [place for place in places if sizes_hw[place] == size]
        for place, at in zip(alike, sorted(found[place] for place in alike), strict=True):
            found[place] = at
    return found, whole


_MOST_WIDTHS, _MOST_COLUMNS = 4, 6
_TRIES = 480  # of random orders, for one picture; 12 of two orientations then fill 92 % of a sheet, else 85 %


def _packed(
    sizes_hw: Sequence[tuple[int, ...]], order: Sequence[int], limit: int, gap: int
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Each rectangle as high up as it fits, then as far left; see `pack`."""
    places = [(0, 0)] * len(sizes_hw)
    edges = [(0, limit + gap, 0)]  # of what is free: left, right and top of each stretch, from left to right
    bottom = right = 0
    for place in order:
        height, width = sizes_hw[place]
        fitting = [
            (max(edge[2] for edge in edges if edge[0] < left + width + gap and edge[1] > left), left)
            for left, _, _ in edges
            if left + width <= limit
        ]
        top, left = min(fitting)
        taken = left, left + width + gap, top + height + gap
        edges = [part for edge in edges for part in _beside(edge, taken)]
        edges = sorted([*edges, taken])
        places[place] = top, left
        bottom, right = max(bottom, top + height), max(right, left + width)
    return places, (bottom, right)


def _beside(edge: tuple[int, int, int], taken: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """What is left and right of a stretch that is taken."""
    left, right, top = edge
    parts = [(left, min(right, taken[0]), top), (max(left, taken[1]), right, top)]
    return [part for part in parts if part[0] < part[1]]


def _with_captions(tiles: Sequence[Tile]) -> list[Image]:
    """Each picture with its caption under it. All get the same room for it, so that pictures of a size make rows."""
    captions = [
        [line for each in tile.caption for line in text.wrap(each, max(tile.image.shape[1], _NARROWEST))]
        for tile in tiles
    ]
    room = text.LINE * max(map(len, captions), default=0)
    blocks = []
    for tile, lines in zip(tiles, captions, strict=True):
        height, width = tile.image.shape[:2]
        block = _paper(height + room, max(width, _NARROWEST if lines else 0))
        block[:height, :width] = tile.image
        for number, line in enumerate(lines):
            text.write(block, line, 0, height + number * text.LINE, RED if tile.alert else WHITE)
        blocks.append(block)
    return blocks


_NARROWEST = 160  # pixels that a caption gets at least


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write an RGB image as PNG; its folder is made if missing.

    Raises:
        OSError: it can't be written.
    """
    # Not imwrite, which returns False instead of raising.
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, png(image))


def png(image: Image) -> bytes:
    """An RGB image, uint8 (H, W, 3), as the content of a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _paper(height: int, width: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)


def _legend_strips(legend: Sequence[Key], width: int) -> list[Image]:
    """The legend's entries from left to right, in as many lines as they need."""
    swatch_hw = text.LINE + GAP // 2, 2 * text.LINE
    strips: list[Image] = []
    left = width
    for key in legend:
        needed = swatch_hw[1] + GAP + text.width_of(key.meaning)
        if left + needed > width - GAP:
            strips.append(_paper(text.LINE + GAP, width))
            left = GAP
        _draw_mark(strips[-1][: swatch_hw[0], left : left + swatch_hw[1]], key)
        text.write(strips[-1], key.meaning, left + swatch_hw[1] + GAP // 2, GAP // 4 + 2, WHITE)
        left += needed + 2 * GAP
    return strips


def _draw_mark(swatch: Image, key: Key) -> None:
    """Fill a swatch, uint8 (h, w, 3), with the mark of a legend's entry."""
    swatch[:] = (110, 110, 110)
    height, width = swatch.shape[:2]
    frame = np.array([[4, 3, width - 4, height - 3]], np.float32)
    centre = centres_of(frame)
    if key.mark == "dot":
        draw_dots(swatch, centre + np.array([[-10, 3], [0, -3], [10, 2]]), key.colour)
    elif key.mark == "hatch":
        hatch_boxes(swatch, frame, key.colour)
    elif key.mark == "fill":
        fill_mask(swatch, np.ones((height, width), bool), key.colour, share=0.5)
    elif key.mark == "point":
        draw_points(swatch, centre, key.colour)
    elif key.mark == "tied":
        draw_boxes(swatch, frame, key.colour)
        reach = np.array([[12, 4]], np.float32)
        tie(swatch, centre - reach, centre + reach, key.colour, 1)
    else:
        draw_boxes(swatch, frame, key.colour, thickness=3 if key.mark == "thick" else 1)
