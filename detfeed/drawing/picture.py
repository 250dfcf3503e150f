"""Picture: what a detector is told about one image, recorded layer by layer and drawn over the image.

A target draws itself: its method `show(picture, x, y)` gets the arrays of one image as they were fed, and calls the
methods of the picture with what they mean in pixels of the canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import EMPTY, Boxes
from detfeed.drawing import text
from detfeed.drawing.marks import (
    BLUE,
    DARK,
    GREEN,
    ORANGE,
    PADDING,
    PURPLE,
    RED,
    WHITE,
    YELLOW,
    Colour,
    Image,
    canvas,
    centres_of,
    draw_boxes,
    draw_dots,
    draw_points,
    fill_mask,
    hatch_boxes,
    hatch_mask,
    outline_mask,
    tie,
)
from detfeed.drawing.sheets import Key, Tile
from detfeed.drawing.text import counted

# A target decodes to a box that is an object's own but for rounding, or to a wrong one.
SAME_IOU = 0.9
TAG_SIZE, TAG_WIDTH, TAG_HEIGHT = 13, 180, 18

TRUTH_KEYS = (
    Key("thick", YELLOW, "object (ground truth)"),
    Key("hatch", PURPLE, "ignored region (neither positive nor negative)"),
    Key("hatch", PADDING, "padding"),
)
POSITIVE_KEYS = (
    Key("thick", RED, "object without a positive"),
    Key("tied", BLUE, "positive, tied to the centre of its object"),
)
# Keys of layers that only some pictures have, by the layer.
KEYS = {
    "negatives": Key("dot", WHITE, "centre of a sampled negative"),
    "unsampled": Key("thick", ORANGE, "object whose positives were not sampled this time"),
    "strays": Key("thick", GREEN, "target that is no object of the image"),
    "masks": Key("fill", BLUE, "mask to learn"),
    "heat": Key("fill", BLUE, "heat to learn"),
    "points": Key("point", WHITE, "point to learn"),
    "keypoints": Key("point", YELLOW, "keypoint (ground truth)"),
}


class Truth(NamedTuple):
    """What is true of an image: N boxes, in pixels of the canvas.

    Attributes:
        boxes: float32 (N, 4), xyxy.
        ignore: bool (N,), True for a region in which nothing is to be learned.
        class_ids: int32 (N,).
        labels: N texts beside the boxes, or none: the class, and why it is ignored.
        masks: by row of the boxes, uint8 (H, W), 0 to 255.
        keypoints: float32 (N, K, 3), x, y and visibility; K may be 0.
        num_lost: objects that are not among the boxes.
    """

    boxes: Boxes
    ignore: NDArray[np.bool_]
    class_ids: NDArray[np.int32]
    labels: Sequence[str] = ()
    masks: Mapping[int, NDArray[np.uint8]] = {}
    keypoints: NDArray[np.float32] = np.zeros((0, 0, 3), np.float32)
    num_lost: int = 0


class Picture:
    """One image as it is fed, and what a target's `show` records of it.

    Everything is in pixels of the canvas, before `tile` zooms it. Methods may be called several times.

    Args:
        image: uint8 (H, W, 3), without padding.
        input_hw: height and width of the canvas that it lies on, top left.
        truth: what is true of it.
        title: begins the caption.
    """

    def __init__(self, image: Image, input_hw: tuple[int, int], truth: Truth, *, title: str = "") -> None:
        self.image = image
        self.input_hw = input_hw
        self.truth = truth
        self.title = title
        self._places: list[Boxes] = []
        self._boxes: list[Boxes] = []
        self._tied: list[NDArray[np.bool_]] = []
        self._match: list[NDArray[np.int64]] = []  # row of the truth, -1 for none
        self._found = np.zeros(len(truth.boxes), bool)
        self._unsampled = np.zeros(len(truth.boxes), bool)
        self._negatives: list[Boxes] = []
        self._masks: list[tuple[NDArray[np.int8], Boxes]] = []
        self._heat: list[NDArray[np.floating]] = []
        self._points: list[NDArray[np.floating]] = []
        self._notes: list[str] = []

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def positives(
        self, places: Boxes, boxes: Boxes | None = None, class_ids: NDArray[np.integer] | None = None
    ) -> None:
        """Record places at which the detector is to find an object.

        Args:
            places: float32 (P, 4), xyxy: anchors, RoIs, cells; P may be 0.
            boxes: float32 (P, 4), the boxes that it is to answer with, as the arrays decode. None: the places.
            class_ids: int (P,), the classes that it is to answer with. None: it is asked for no class.
        """
        decoded = places if boxes is None else boxes
        truth = self.truth
        iou = geometry.iou(decoded, truth.boxes)
        iou[:, truth.ignore] = 0
        if class_ids is not None:
            iou[class_ids[:, None] != truth.class_ids] = 0
        best = iou.max(axis=1, initial=0)
        good = best >= SAME_IOU
        match = np.where(good, iou.argmax(axis=1) if iou.size else 0, -1)
        # Objects of the very same box share their positives: nobody can tell them apart.
        self._found |= (iou[good] >= best[good, None] - 1e-3).any(axis=0)
        self._places.append(places)
        self._boxes.append(decoded)
        self._tied.append(np.full(len(places), boxes is not None))
        self._match.append(match)

    def negatives(self, places: Boxes) -> None:
        """Record places that are fed as background, float32 (M, 4)."""
        self._negatives.append(places)

    def unsampled(self, rows: NDArray[np.bool_]) -> None:
        """Record which of the truth's boxes have positives that were not sampled this time, bool (N,)."""
        self._unsampled |= rows

    def masks(self, masks: NDArray[np.integer], places: Boxes) -> None:
        """Record masks to learn, int (P, M, M), 1 for the cells of the object in each place, float32 (P, 4)."""
        self._masks += [(mask, place) for mask, place in zip(masks, places, strict=True)]

    def heat(self, values: NDArray[np.floating]) -> None:
        """Record a map to learn over the whole canvas, float (h, w), 0 to 1."""
        self._heat.append(values)

    def points(self, points: NDArray[np.floating]) -> None:
        """Record points to learn, float (K, 2), x and y."""
        self._points.append(points)

    def note(self, line: str) -> None:
        """Add a line to the caption."""
        self._notes.append(line)

    @property
    def has_positives(self) -> bool:
        """Whether the target has said where its positives are; else nobody knows which objects have none."""
        return bool(self._places)

    @property
    def unmatched(self) -> NDArray[np.bool_]:
        """Whether each of the truth's boxes is an object without a positive, bool (N,)."""
        if not self.has_positives:
            return np.zeros(len(self.truth.boxes), bool)
        return ~self._found & ~self.truth.ignore & ~self._unsampled

    @property
    def strays(self) -> Boxes:
        """Boxes that the arrays decode to and that are no object of the image, float32 (S, 4)."""
        if not self.has_positives:
            return EMPTY
        return np.concatenate(self._boxes)[np.concatenate(self._match) < 0]

    def keys(self) -> list[Key]:
        """The legend's entries for the layers that the picture has."""
        keys = [TRUTH_KEYS[0], *(POSITIVE_KEYS if self.has_positives else ())]
        present = {
            "negatives": sum(map(len, self._negatives)),
            "unsampled": (self._unsampled & ~self._found).any(),
            "strays": len(self.strays),
            "masks": len(self._masks),
            "heat": len(self._heat),
            "points": len(self._points),
            "keypoints": (self.truth.keypoints[:, :, 2:] > 0).any(),
        }
        return [*keys, *(KEYS[layer] for layer, there in present.items() if there), *TRUTH_KEYS[1:]]

    def caption(self) -> tuple[str, ...]:
        """The lines under the picture."""
        truth, unmatched = self.truth, self.unmatched
        parts = [counted(int((~truth.ignore).sum()), "object")]
        if self.has_positives:
            parts.append(f"{int(unmatched.sum())} without a positive")
        if truth.ignore.any():
            parts.append(counted(int(truth.ignore.sum()), "ignored region"))
        if truth.num_lost:
            parts.append(f"{truth.num_lost} lost")
        if len(self.strays):
            parts.append(f"{counted(len(self.strays), 'target')} that are no object")
        return (": ".join(filter(None, (self.title, ", ".join(parts)))), *self._notes)

    def tile(self, zoom: float) -> Tile:
        """The picture with `zoom` pixels for each pixel of the canvas, and its caption."""
        drawn = canvas(self.image, self.input_hw, zoom)
        for values in self._heat:
            _tint(drawn, values, BLUE)
        self._draw_masks(drawn, zoom)
        self._draw_regions(drawn, zoom)
        for places in self._negatives:
            draw_dots(drawn, centres_of(places), WHITE, zoom=zoom)
        self._draw_positives(drawn, zoom)
        self._draw_objects(drawn, zoom)
        for points in self._points:
            draw_points(drawn, points, WHITE, zoom=zoom)
        seen = self.truth.keypoints[self.truth.keypoints[:, :, 2] > 0]
        draw_points(drawn, seen[:, :2], YELLOW, zoom=zoom)
        self._write_labels(drawn, zoom)
        return Tile(drawn, self.caption(), alert=bool(self.unmatched.any() or len(self.strays)))

    def _draw_masks(self, drawn: Image, zoom: float) -> None:
        """Tint masks to learn, and outline those of the truth."""
        height, width = drawn.shape[:2]
        inside = np.zeros((height, width), bool)
        for mask, place in self._masks:
            x0, y0, x1, y1 = np.rint(place * zoom).astype(int).tolist()
            cells = (mask > 0).astype(np.uint8)
            whole = cv2.resize(cells, (max(x1 - x0, 1), max(y1 - y0, 1)), interpolation=cv2.INTER_NEAREST) > 0
            part = inside[max(y0, 0) : y1, max(x0, 0) : x1]
            part |= whole[max(-y0, 0) :, max(-x0, 0) :][: part.shape[0], : part.shape[1]]
        fill_mask(drawn, inside, BLUE, share=0.5)
        for row in self.truth.masks:
            if not self.truth.ignore[row]:
                outline_mask(drawn, self._zoomed_mask(row, zoom).astype(np.uint8), YELLOW)

    def _zoomed_mask(self, row: int, zoom: float) -> NDArray[np.bool_]:
        mask = self.truth.masks[row]
        return cv2.resize(mask, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST) > 127  # type: ignore[return-value]

    def _draw_regions(self, drawn: Image, zoom: float) -> None:
        """Hatch the ignored regions, those with a mask inside their mask, and outline their boxes."""
        boxes, ignore = self.truth.boxes, self.truth.ignore
        by_mask = [row for row in self.truth.masks if ignore[row]]
        for row in by_mask:
            mask = self._zoomed_mask(row, zoom)
            part = drawn[: mask.shape[0], : mask.shape[1]]
            hatch_mask(part, mask[: part.shape[0], : part.shape[1]], PURPLE)
        draw_boxes(drawn, boxes[by_mask], PURPLE, zoom=zoom)
        hatch_boxes(drawn, np.delete(boxes, by_mask, axis=0)[np.delete(ignore, by_mask)], PURPLE, zoom=zoom)

    def _draw_positives(self, drawn: Image, zoom: float) -> None:
        if not self.has_positives:
            return
        places, match = np.concatenate(self._places), np.concatenate(self._match)
        draw_boxes(drawn, places, BLUE, zoom=zoom, edge=0.45)
        tied = np.concatenate(self._tied) & (match >= 0)
        tie(drawn, centres_of(places[tied]), centres_of(self.truth.boxes[match[tied]]), BLUE, zoom)
        stray = np.concatenate(self._tied) & (match < 0)
        tie(drawn, centres_of(places[stray]), centres_of(np.concatenate(self._boxes)[stray]), GREEN, zoom)

    def _draw_objects(self, drawn: Image, zoom: float) -> None:
        boxes = self.truth.boxes
        for colour, rows, thickness in self._coloured():
            if colour != PURPLE:
                draw_boxes(drawn, boxes[rows], colour, zoom=zoom, thickness=thickness)
        draw_boxes(drawn, self.strays, GREEN, zoom=zoom, thickness=2)

    def _coloured(self) -> list[tuple[Colour, NDArray[np.bool_], int]]:
        """Colours of the truth's boxes, which boxes have each, and how thick their lines are."""
        ignore, unmatched = self.truth.ignore, self.unmatched
        waiting = self._unsampled & ~self._found & ~ignore
        return [
            (PURPLE, ignore, 1),
            (YELLOW, ~ignore & ~unmatched & ~waiting, 2),
            (ORANGE, waiting, 2),
            (RED, unmatched, 3),
        ]

    def _write_labels(self, drawn: Image, zoom: float) -> None:
        """Write each label at its box, those in red first; one for which no place is free is left out."""
        if not self.truth.labels:
            return
        taken: list[tuple[int, int, int, int]] = []
        for colour, rows, _ in reversed(self._coloured()):
            for row in np.flatnonzero(rows).tolist():
                label = text.cut(self.truth.labels[row], TAG_WIDTH, size=TAG_SIZE)
                size = text.width_of(label, size=TAG_SIZE) + 6, TAG_HEIGHT
                place = _free_place(self.truth.boxes[row] * zoom, size, drawn.shape[:2], taken)
                if label and place is not None:
                    x0, y0, x1, y1 = place
                    taken.append(place)
                    under = drawn[y0:y1, x0:x1]
                    fill_mask(under, np.ones(under.shape[:2], bool), DARK, share=0.8)
                    text.write(drawn, label, x0 + 3, y0 + 1, colour, size=TAG_SIZE)


def _tint(drawn: Image, values: NDArray[np.floating], colour: Colour) -> None:
    """Tint a picture by a map over all of it, float (h, w), 0 to 1."""
    height, width = drawn.shape[:2]
    over = cv2.resize(np.clip(values, 0, 1).astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    share = 0.75 * over[:, :, None]
    drawn[:] = np.rint(drawn * (1 - share) + np.array(colour) * share)


def _free_place(
    box: NDArray[np.float32],
    size_wh: tuple[int, int],
    picture_hw: tuple[int, ...],
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    """A rectangle of a size at a box, inside the picture and off what is taken; None if there is none."""
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    (width, height), (bottom, right) = size_wh, picture_hw
    for top in (y0 - height, y0, y1, y1 - height):
        for left in (x0, x1 - width):
            left = min(max(left, 0), right - width)
            place = left, top, left + width, top + height
            if left >= 0 and top >= 0 and top + height <= bottom and not any(_overlap(place, other) for other in taken):
                return place
    return None


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
