"""The built-in data set: coloured shapes on textured backgrounds, in COCO format, drawn, not downloaded."""

import json
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detfeed.errors import expect, expect_each
from detfeed.writing import replace_file

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice]  # rows, columns

# The gaps are on purpose: a reader that takes category ids for class ids fails on this data set already.
CATEGORIES = {1: "ellipse", 3: "rectangle", 7: "triangle", 18: "star"}
CATEGORY_IDS = tuple(CATEGORIES)

MIN_IMAGE_SIDE = 32
MAX_IMAGE_SIDE = 65500  # libjpeg's limit
MIN_OBJECT_SIDE = 8.0
MAX_OBJECT_SHARE = 0.6  # of the image's short side
MAX_OBJECTS = 8
MIN_VISIBLE = 0.4
SUBPIXELS = 4


def make_shapes(
    folder: str | Path,
    *,
    num_images: int = 200,
    image_hw: tuple[int, int] = (120, 160),
    seed: int = 0,
    jpeg_quality: int = 90,
) -> Path:
    """Draw a data set of ellipses, rectangles, triangles and stars, with COCO annotations.

    Writes ``folder/images/000001.jpg``, ... and ``folder/instances.json`` (``file_name`` is relative to
    ``images``). Files of these names are replaced; other files stay. Image i depends on (seed, i) alone, so a
    smaller data set is the beginning of a larger one with the same seed.

    An image has 1 to 8 objects with sides from about 8 pixels to 60 % of its short side, log-uniform. Objects may
    overlap (each stays at least 40 % visible) and reach over the image edge. About one image in 12 has no
    objects; one in 12 has a crowd (``iscrowd`` 1, RLE segmentation) and 0 to 4 objects; one in 4 is portrait,
    with ``image_hw`` swapped.

    A pixel belongs to a shape if the shape covers at least half of it. ``bbox`` (x, y, width, height; pixels)
    is tight around these pixels and ``area`` counts them, whether or not a later shape hides some; both end
    at the image edge. ``segmentation`` is the outline, clipped to the image. Category ids are 1, 3, 7 and 18.

    Args:
        folder: where to write; made if missing.
        num_images: at least 1.
        image_hw: (height, width) of the landscape images in pixels, each from 32 to 65500.
        seed: not negative.
        jpeg_quality: 1 to 100.

    Returns:
        Path of ``instances.json``.

    Raises:
        TypeError: a number is no whole number.
        ValueError: an argument is out of its range.
        OSError: a file cannot be written.
    """
    expect(Integral, "a whole number", num_images=num_images, seed=seed, jpeg_quality=jpeg_quality)
    expect_each(Integral, "(height, width) in whole pixels", image_hw=image_hw)
    if num_images < 1:
        raise ValueError(f"Expected num_images of at least 1. Received: num_images={num_images}")
    if len(image_hw) != 2 or min(image_hw) < MIN_IMAGE_SIDE or max(image_hw) > MAX_IMAGE_SIDE:
        raise ValueError(
            f"Expected image_hw with two sides from {MIN_IMAGE_SIDE} to {MAX_IMAGE_SIDE}. Received: image_hw={image_hw}"
        )
    if seed < 0:
        raise ValueError(f"Expected a seed of at least 0. Received: seed={seed}")
    if not 1 <= jpeg_quality <= 100:
        raise ValueError(f"Expected jpeg_quality from 1 to 100. Received: jpeg_quality={jpeg_quality}")

    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(num_images):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        pixels, objects = _draw_image(rng, image_hw)
        name = f"{i + 1:06d}.jpg"
        _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        (folder / "images" / name).write_bytes(jpeg.tobytes())
        height, width = pixels.shape[:2]
        images.append({"id": i + 1, "file_name": name, "height": height, "width": width})
        for fields in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, **fields})
    path = folder / "instances.json"
    instances = {
        "info": {"description": "Synthetic shapes drawn by detfeed", "seed": int(seed)},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name, "supercategory": "shape"} for key, name in CATEGORIES.items()],
    }
    replace_file(path, json.dumps(instances, separators=(",", ":")).encode())
    return path


def _draw_image(rng: np.random.Generator, image_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Return uint8 (H, W, 3) BGR and the annotations without their ids."""
    height, width = image_hw if rng.random() >= 1 / 4 else image_hw[::-1]
    image = _background(rng, height, width)
    kind = rng.random()
    objects: list[dict[str, Any]] = []
    topmost = np.full((height, width), -1, np.int8)  # index of the object that is seen at a pixel
    visible = np.zeros(MAX_OBJECTS + 1, np.int64)  # pixels of each object that are seen
    least = np.zeros(MAX_OBJECTS + 1)
    if kind < 1 / 12:
        count = 0
    elif kind < 2 / 12:
        count = int(rng.integers(0, 5))
        mask, category_id = _draw_crowd(rng, image)
        topmost[mask] = 0
        visible[0] = mask.sum()
        least[0] = MIN_VISIBLE * visible[0]
        objects.append(_annotation(mask, (0, 0), category_id, iscrowd=1, segmentation=_rle(mask)))
    else:
        count = int(rng.integers(1, MAX_OBJECTS + 1))

    largest = MAX_OBJECT_SHARE * min(height, width)
    for _ in range(count):
        for _attempt in range(8):  # after 8 the image is too full, and the object is left out
            category_id = CATEGORY_IDS[rng.integers(len(CATEGORY_IDS))]
            side = float(np.exp(rng.uniform(np.log(MIN_OBJECT_SIDE), np.log(largest))))
            outline = _outline(rng, category_id, side, largest)
            extent = outline.max(axis=0)
            # The centre keeps a quarter of the extent from the edge: at most a quarter of a side is cut off.
            outline += rng.uniform(extent / 4, (width, height) - extent / 4) - extent / 2
            window, coverage = _rasterise(outline, height, width)
            mask = coverage >= 0.5
            below = topmost[window][mask]
            left = visible - np.bincount(below[below >= 0], minlength=visible.size)
            if (left >= least).all():
                break
        else:
            continue
        _paint(rng, image[window], coverage, _contrasting_colour(rng, image[window], mask))
        topmost[window][mask] = len(objects)
        visible = left
        visible[len(objects)] = mask.sum()
        least[len(objects)] = MIN_VISIBLE * mask.sum()
        corner = (window[1].start, window[0].start)
        polygon = _clip_polygon(outline, width, height).round(2)
        objects.append(_annotation(mask, corner, category_id, iscrowd=0, segmentation=[polygon.ravel().tolist()]))
    return image.clip(0, 255).astype(np.uint8), objects


def _annotation(
    mask: Mask, corner: tuple[int, int], category_id: int, *, iscrowd: int, segmentation: Any
) -> dict[str, Any]:
    """Describe the object of a bool (h, w) mask whose top left pixel lies at `corner` (x, y) of the image."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return {
        "category_id": category_id,
        "bbox": [float(corner[0] + x), float(corner[1] + y), float(width), float(height)],
        "area": float(mask.sum()),
        "segmentation": segmentation,
        "iscrowd": iscrowd,
    }


def _background(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Draw a gradient, coarse coloured and fine grey noise, and lines that are no objects; float32 (H, W, 3)."""
    corners = rng.uniform(40, 215, 3) + rng.normal(0, 25, (2, 2, 3))
    image = _stretch(corners, height, width, cv2.INTER_LINEAR)
    for cell, strength in ((32, 14), (8, 9), (1, 5)):
        noise_hwc = (max(2, height // cell), max(2, width // cell), 1 if cell == 1 else 3)
        noise = rng.standard_normal(noise_hwc, np.float32) * np.float32(strength * rng.uniform(0.3, 1))
        image += noise if cell == 1 else _stretch(noise, height, width, cv2.INTER_CUBIC)
    mean = np.array(cv2.mean(image)[:3])
    for _ in range(rng.integers(0, 7)):
        points = rng.uniform((0, 0), (width, height), (2, 2)).round().astype(int).tolist()
        colour = (mean + rng.normal(0, 40, 3)).tolist()
        cv2.line(image, points[0], points[1], colour, int(rng.integers(1, 3)))
    return image


def _stretch(image: NDArray[Any], height: int, width: int, interpolation: int) -> Floats:
    return np.asarray(cv2.resize(image.astype(np.float32), (width, height), interpolation=interpolation), np.float32)


def _draw_crowd(rng: np.random.Generator, image: Floats) -> tuple[Mask, int]:
    """Draw a tight cluster of little shapes of one class; return their bool (H, W) mask and category id."""
    height, width = image.shape[:2]
    category_id = CATEGORY_IDS[rng.integers(len(CATEGORY_IDS))]
    spread = rng.uniform(0.07, 0.12) * min(height, width)
    middle = rng.uniform((width / 4, height / 4), (width * 3 / 4, height * 3 / 4))
    crowd = np.zeros((height, width), bool)
    for _ in range(rng.integers(12, 25)):
        outline = _outline(rng, category_id, rng.uniform(MIN_OBJECT_SIDE, 12), 12)
        extent = outline.max(axis=0)
        centre = (middle + rng.normal(0, spread, 2)).clip(extent / 2, (width, height) - extent / 2)
        outline += centre - extent / 2
        window, coverage = _rasterise(outline, height, width)
        mask = coverage >= 0.5
        _paint(rng, image[window], coverage, _contrasting_colour(rng, image[window], mask))
        crowd[window] |= mask
    return crowd, category_id


def _outline(rng: np.random.Generator, category_id: int, side: float, largest: float) -> NDArray[np.float64]:
    """Return a turned and squeezed outline, float64 (P, 2) xy, whose box begins at (0, 0).

    The geometric mean of the box's sides is `side`, unless one would leave MIN_OBJECT_SIDE to `largest`.
    """
    num_points = {"ellipse": 40, "rectangle": 4, "triangle": 3, "star": 10}[CATEGORIES[category_id]]
    angle = np.arange(num_points) * (2 * np.pi / num_points)
    radius = np.where(np.arange(num_points) % 2, 0.5, 1.0) if CATEGORIES[category_id] == "star" else 1.0
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    if CATEGORIES[category_id] == "rectangle":
        points = points @ np.array([[1, 1], [-1, 1]])  # squeeze along its sides, not its diagonals
    points[:, 1] *= rng.uniform(0.65, 1)
    turn = rng.uniform(0, 2 * np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points -= points.min(axis=0)
    extent = points.max(axis=0)
    scale = np.clip(side / np.sqrt(extent.prod()), MIN_OBJECT_SIDE / extent.min(), largest / extent.max())
    return np.asarray(points * scale)


def _rasterise(outline: NDArray[np.float64], height: int, width: int) -> tuple[Window, Floats]:
    """Return the image window around an outline, and the covered share of its pixels, float32 (h, w)."""
    x0, y0 = np.floor(outline.min(axis=0)).astype(int).clip(0)
    x1, y1 = np.ceil(outline.max(axis=0)).astype(int).clip(1, (width, height))
    fine = np.zeros(((y1 - y0) * SUBPIXELS, (x1 - x0) * SUBPIXELS), np.uint8)
    # cv2 puts the centre of a pixel at whole numbers; shift=8: in 256ths.
    points = (((outline - (x0, y0)) * SUBPIXELS - 0.5) * 256).round().astype(np.int32)
    cv2.fillPoly(fine, [points], 255, cv2.LINE_8, 8)
    # fillPoly fills every pixel that the outline crosses; half of such a pixel lies inside.
    cv2.polylines(fine, [points], True, 128, 1, cv2.LINE_8, 8)
    means = cv2.resize(fine, (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
    coverage: Floats = np.asarray(means / np.float32(255), np.float32)
    return (slice(int(y0), int(y1)), slice(int(x0), int(x1))), coverage


def _contrasting_colour(rng: np.random.Generator, pixels: Floats, mask: Mask) -> Floats:
    """Return the one of four random BGR colours that differs most from the pixels under the mask."""
    colours = rng.uniform(0, 255, (4, 3)).astype(np.float32)
    return np.asarray(colours[np.square(colours - pixels[mask].mean(axis=0)).sum(axis=1).argmax()])


def _paint(rng: np.random.Generator, pixels: Floats, coverage: Floats, colour: Floats) -> None:
    """Blend a lightly grained colour into float32 (h, w, 3) in place, with smooth or with hard edges."""
    alpha = coverage if rng.random() < 0.5 else (coverage >= 0.5).astype(np.float32)
    grained = colour + 5 * rng.standard_normal(pixels.shape, np.float32)
    pixels += alpha[..., None] * (grained - pixels)


def _clip_polygon(points: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Cut a polygon (P, 2) at the image edges.

    Source: Sutherland and Hodgman 1974.
    """
    for axis, sign, limit in ((0, -1, 0), (0, 1, width), (1, -1, 0), (1, 1, height)):
        beyond = sign * (points[:, axis] - limit)
        if (beyond <= 0).all():
            continue
        kept = []
        ends, ends_beyond = np.roll(points, -1, axis=0), np.roll(beyond, -1)
        for start, end, d0, d1 in zip(points, ends, beyond, ends_beyond, strict=True):
            if d0 <= 0:
                kept.append(start)
            if d0 * d1 < 0:
                kept.append(start + (end - start) * (d0 / (d0 - d1)))
        points = np.array(kept)
    return points


def _rle(mask: Mask) -> dict[str, Any]:
    """Encode a bool (H, W) mask as COCO's uncompressed RLE: column by column, zeros first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"counts": counts, "size": list(mask.shape)}
