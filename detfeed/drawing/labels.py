"""Labels: a data set at a glance, as one picture: classes, sizes and places of boxes, and objects per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.drawing import text
from detfeed.drawing.marks import BLUE, GREY, PAPER, PURPLE, WHITE, Colour, Image
from detfeed.drawing.sheets import GAP

PANEL_HW = (300, 440)
ROW = 18  # pixels that a class takes
MOST_CLASSES = 30
_LINES: Colour = (75, 75, 75)


class Table(Protocol):
    """The columns of `Annotations` that are drawn."""

    @property
    def boxes(self) -> Boxes: ...
    @property
    def class_ids(self) -> NDArray[np.int32]: ...
    @property
    def ignore(self) -> NDArray[np.bool_]: ...
    @property
    def image_hw(self) -> NDArray[np.int32]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def positions(self) -> NDArray[np.int64]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...


def draw_labels(table: Table) -> Image:
    """Draw the labels of a data set; no image of it is read.

    Args:
        table: the data set; it may be empty.

    Returns:
        uint8 (H, W, 3) RGB with four panels: boxes of each class, the commonest first; width and height of objects as
        shares of their image; where the centres of objects are; and images by their number of objects. Ignored boxes
        are counted in the first alone.
    """
    objects = ~table.ignore
    sides = table.image_hw[table.positions[objects]][:, ::-1].astype(np.float64)  # [N, 2], width and height
    boxes = table.boxes[objects].astype(np.float64)
    wh = (boxes[:, 2:] - boxes[:, :2]) / sides
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / sides
    counts = np.bincount(table.positions[objects], minlength=len(table.image_hw))
    left, maps = [_classes(table), _per_image(counts)], [_sizes(wh), _places(centres)]
    # Few classes leave no room beside them for two maps, one under the other.
    tall = sum(map(len, left)) > len(maps[0]) + len(maps[1]) // 2
    strips = [_stacked(panels) for panels in ([left, maps] if tall else [left, maps[:1], maps[1:]])]
    height = max(strip.shape[0] for strip in strips)
    strips = [np.pad(strip, ((0, height - len(strip)), (0, 0), (0, 0)), constant_values=PAPER[0]) for strip in strips]
    head = _paper(text.LINE + GAP, sum(strip.shape[1] for strip in strips))
    line = (
        f"{text.counted(len(table.image_hw), 'image')}, {text.counted(int(objects.sum()), 'object')}, "
        f"{int((~objects).sum()):,} ignored, {len(table.class_names):,} classes"
    )
    text.write(head, line, GAP, GAP // 2, WHITE)
    return np.concatenate([head, np.concatenate(strips, axis=1)])


def _stacked(panels: Sequence[Image]) -> Image:
    return np.concatenate([np.pad(panel, ((0, GAP), (GAP, GAP), (0, 0)), constant_values=PAPER[0]) for panel in panels])


def _paper(height: int, width: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)


def _titled(title: str, height: int) -> Image:
    panel = _paper(height + text.LINE, PANEL_HW[1])
    text.write(panel, title, 0, 0, WHITE)
    return panel


def _classes(table: Table) -> Image:
    """Bars of the boxes of each class, objects and ignored ones."""
    number = len(table.class_names)
    counts = np.stack([np.bincount(table.class_ids[rows], minlength=number) for rows in (~table.ignore, table.ignore)])
    order = np.lexsort((np.arange(number), -counts.sum(axis=0), -counts[0]))
    shown = order if number <= MOST_CLASSES else order[: MOST_CLASSES - 1]
    rest = order[len(shown) :]
    names = [table.class_names[class_id] for class_id in shown]
    values = counts[:, shown]
    if len(rest):
        names.append(f"{len(rest)} more classes")
        values = np.concatenate([values, counts[:, rest].sum(axis=1, keepdims=True)], axis=1)
    title = "boxes of each class" + (": objects, and ignored in purple" if table.ignore.any() else "")
    panel = _titled(title, max(len(names), 1) * ROW)
    left, right = 150, 90
    longest = PANEL_HW[1] - left - right
    most = max(int(values.sum(axis=0).max(initial=0)), 1)
    for place, name in enumerate(names):
        top = text.LINE + place * ROW
        label = text.cut(name, left - 8, size=13)
        text.write(panel, label, left - 8 - text.width_of(label, size=13), top, WHITE, size=13)
        x = left
        for colour, value in ((BLUE, int(values[0, place])), (PURPLE, int(values[1, place]))):
            width = -(-longest * value // most)  # a class with a box has a pixel
            panel[top + 2 : top + ROW - 3, x : x + width] = colour
            x += width
        ignored = f" + {values[1, place]:,}" if values[1, place] else ""
        text.write(panel, f"{values[0, place]:,}{ignored}", x + 6, top, GREY, size=13)
    return panel


def _per_image(counts: NDArray[np.int64]) -> Image:
    """Bars of the numbers of images by their number of objects."""
    panel = _titled("images by their number of objects", 180)
    most = int(counts.max(initial=0))
    step = -(-(most + 1) // 40)  # at most 40 bars
    bars = np.bincount(counts // step, minlength=1)
    names = [f"{number * step:,}" for number in range(len(bars))]
    _draw_bars(panel[text.LINE :], bars, names)
    return panel


def _draw_bars(panel: Image, bars: NDArray[np.int64], names: Sequence[str]) -> None:
    """Upright bars with their values' scale, and names below as many as fit."""
    left, bottom = 60, panel.shape[0] - ROW - 2
    width = (panel.shape[1] - left) / len(bars)
    most = max(int(bars.max(initial=0)), 1)
    height = bottom - ROW
    for value in sorted({most, most // 2, 0}):
        y = bottom - round(height * value / most)
        panel[y, left:] = _LINES
        label = f"{value:,}"
        text.write(panel, label, left - 6 - text.width_of(label, size=13), y - 9, GREY, size=13)
    free, right = 0, panel.shape[1]
    for place, (value, name) in enumerate(zip(bars.tolist(), names, strict=True)):
        x0, x1 = (
            round(left + place * width),
            max(round(left + (place + 1) * width) - 1, round(left + place * width) + 1),
        )
        panel[bottom - -(-height * value // most) : bottom, x0:x1] = BLUE
        if x0 >= free and x0 + text.width_of(name, size=13) <= right:
            text.write(panel, name, x0, bottom + 2, GREY, size=13)
            free = x0 + text.width_of(name, size=13) + 10


def _sizes(wh: NDArray[np.float64]) -> Image:
    """A map of the widths and heights of objects as shares of their image, both by powers of two."""
    ticks = [2.0**-power for power in range(7, -1, -1)]
    bins = np.linspace(-7, 0, 43)
    inside = np.clip(np.log2(np.maximum(wh, 2.0**-9)), -7, -1e-9)
    counts, _, _ = np.histogram2d(inside[:, 1], inside[:, 0], bins=(bins, bins))
    names = [f"1/{round(1 / tick)}" if tick < 1 else "1" for tick in ticks]
    return _map("width (right) and height (up) of objects / image", counts[::-1], names, upward=True)


def _places(centres: NDArray[np.float64]) -> Image:
    """A map of the centres of objects within their image."""
    bins = np.linspace(0, 1, 43)
    counts, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], bins=(bins, bins))
    return _map("centres of objects within their image", counts, ["0", "1/4", "1/2", "3/4", "1"], upward=False)


def _map(title: str, counts: NDArray[np.float64], names: Sequence[str], *, upward: bool) -> Image:
    """A square map of counts, brighter where there are more, with names along both axes."""
    side = PANEL_HW[0]
    panel = _titled(title, side + ROW)
    left = 60
    # The root of the share: the few are seen beside the many.
    shares = np.sqrt(counts / max(counts.max(initial=0), 1))[:, :, None]
    cells = np.rint(np.array((15, 15, 20)) * (1 - shares) + np.array((255, 240, 120)) * shares).astype(np.uint8)
    near = np.arange(side) * len(cells) // side
    panel[text.LINE : text.LINE + side, left : left + side] = cells[near][:, near]
    free = 0
    for number, name in enumerate(names):
        along = round(side * number / (len(names) - 1))
        y = text.LINE + (side - along if upward else along)
        width = text.width_of(name, size=13)
        x = left + along - width * (number > 0) // (1 if number == len(names) - 1 else 2)
        text.write(panel, name, left - 6 - width, min(max(y - 9, text.LINE), text.LINE + side - ROW), GREY, size=13)
        if x >= free:
            text.write(panel, name, x, text.LINE + side + 1, GREY, size=13)
            free = x + width + 4
    return panel
