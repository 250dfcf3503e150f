"""Pictures of a page: a thumbnail of each, and over it layers of shapes that can be switched and say their values."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed.images.resizing import Image

Layer = Literal["truth", "positives", "negatives", "ignored", "masks", "keypoints", "detections"]
Shape = dict[str, Any]

# The most bytes of a JPEG by the longest side of its thumbnail. Photographs of 480 pixels take 20 to 45 KB at quality
# 80; only noise and grass are compressed further. Base64 adds a third, so 150 large and 250 small ones are under 14 MB.
LARGE, SMALL = 480, 240
_MOST_BYTES = {LARGE: 48_000, SMALL: 14_000}
_QUALITIES = (80, 65, 50, 35, 20, 10)


class Pictures:
    """The pictures of a page, each with a number.

    Attributes:
        items: of each picture, in JSON's types, what the page's script draws.
        sources: the thumbnails as data URIs; several pictures may show one.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.sources: list[str] = []

    def add_source(self, image: Image, side: int) -> int:
        """Add a thumbnail of an image, uint8 (H, W, 3), whose longest side has at most `side` pixels; its number."""
        self.sources.append(f"data:image/jpeg;base64,{base64.b64encode(encode_thumbnail(image, side)).decode()}")
        return len(self.sources) - 1

    def add(
        self,
        source: int,
        *,
        image_hw: tuple[int, int],
        canvas_hw: tuple[int, int] | None = None,
        title: str,
        notes: Sequence[str] = (),
        layers: Mapping[Layer, Sequence[Shape]],
        **facts: Any,
    ) -> int:
        """Add a picture.

        Args:
            source: number of its thumbnail.
            image_hw: height and width in pixels of the image to which shapes refer.
            canvas_hw: likewise of the canvas on which the image lies at the top left. None: there is no padding.
            title, notes: texts beside it.
            layers: shapes by layer.
            facts: what the page sorts and chooses pictures by.

        Returns:
            Its number.
        """
        height, width = canvas_hw or image_hw
        item = {
            "source": source,
            "size": [int(width), int(height)],
            "image": [int(image_hw[1]), int(image_hw[0])],
            "title": title,
            "notes": list(notes),
            "layers": {name: list(shapes) for name, shapes in layers.items() if shapes},
            **facts,
        }
        self.items.append(item)
        return len(self.items) - 1


def encode_thumbnail(image: Image, side: int) -> bytes:
    """A JPEG of an image, uint8 (H, W, 3) RGB, shrunk so that its longest side has at most `side` pixels."""
    zoom = min(1.0, side / max(image.shape[:2]))
    if zoom < 1:
        height, width = (max(1, round(length * zoom)) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    bgr, data = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), b""
    for quality in _QUALITIES:
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1].tobytes()
        if len(data) <= _MOST_BYTES[side]:
            break
    return data


def box(corners: Iterable[float], text: str, kind: str = "", **facts: Any) -> Shape:
    """A box of corners x0 y0 x1 y1, with the text that it shows on hover and the kind that chooses its look."""
    return {"box": _rounded(corners), "text": text} | ({"kind": kind} if kind else {}) | facts


def dot(place: Iterable[float], text: str, kind: str = "") -> Shape:
    """A point x y."""
    return {"dot": _rounded(place), "text": text} | ({"kind": kind} if kind else {})


def tie(start: Iterable[float], end: Iterable[float]) -> Shape:
    """A line between two points x y."""
    return {"tie": _rounded([*start, *end])}


def outline(mask: NDArray[np.uint8], text: str, kind: str = "") -> Shape:
    """The outline of a mask, uint8 (H, W), as the path of an SVG; lines are straightened by up to a 500th of it."""
    contours, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = max(mask.shape) / 500
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, tolerance, True)[:, 0].tolist()
        if len(points) > 2:
            parts.append("M" + "L".join(f"{x} {y}" for x, y in points) + "Z")
    return {"path": "".join(parts), "text": text} | ({"kind": kind} if kind else {})


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 1) for value in values]


class Spread(NamedTuple):
    """Images chosen from a data set.

    Attributes:
        positions: ascending.
        words: how they were chosen.
    """

    positions: list[int]
    words: str


def spread(class_ids: NDArray[np.integer], offsets: NDArray[np.int64], count: int, *, seed: int) -> Spread:
    """Choose images: drawn with equal chances, and then some for classes that the draw left out.

    Args:
        class_ids: int (N,), the class of each box.
        offsets: int64 (P + 1,), the boxes of each image.
        count: how many to draw. As many again, at most a quarter, may be added.
        seed: of the draw.
    """
    total = len(offsets) - 1
    if total <= count:
        return Spread(list(range(total)), f"all {total} images")
    rng = np.random.default_rng(seed)
    drawn = set(rng.choice(total, count, replace=False).tolist())
    positions = np.repeat(np.arange(total), np.diff(offsets))
    seen = set(class_ids[np.isin(positions, list(drawn))].tolist())
    added: set[int] = set()
    for class_id in range(int(class_ids.max(initial=-1)) + 1):
        if class_id in seen or len(added) >= count // 4:
            continue
        candidates = positions[class_ids == class_id]
        if len(candidates):
            added.add(int(rng.choice(candidates)))
    words = f"{len(drawn)} of {total} images, drawn with equal chances (seed {seed})"
    if added:
        words += f", and {len(added)} more that show classes which the draw left out"
    return Spread(sorted(drawn | added), words)
