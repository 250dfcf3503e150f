"""Recipes: the augmentations of published training recipes, for `augment=`, by name or with other numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations
import numpy as np
from albumentations.augmentations.crops.transforms import BaseCrop
from albumentations.core.transforms_interface import BaseTransformInitSchema

from detfeed import boxes as geometry
from detfeed.augmentation.scale import Recipe, ScaleJitter

MEAN_COLOR = (123.0, 117.0, 104.0)  # ImageNet's, RGB


def named(name: str) -> Recipe:
    """The recipe of that name with its published numbers.

    Raises:
        ValueError: no recipe has that name.
    """
    if name not in RECIPES:
        raise ValueError(
            f"Expected augment to be one of {sorted(RECIPES)}, or an albumentations transform. Received: {name!r}"
        )
    return RECIPES[name]()


def flip(p: float = 0.5) -> Recipe:
    """Mirror half of the images.

    Source: Girshick 2015 (Fast R-CNN), which Ren et al. 2015 (Faster R-CNN), section 3.3, and nearly all later
        detectors follow.
    """
    return Recipe(albumentations.HorizontalFlip(p=p))


def ssd() -> Recipe:
    """SSD's changes of colour, zooming out, crops that overlap an object by a drawn IoU, and flips.

    Two things differ from SSD. Images keep their aspect ratio; SSD warps them onto its square. An object is ignored if
    a crop leaves too little of it (`min_visibility`); SSD drops objects whose centre is outside the crop.

    Source: Liu et al. 2016 (SSD), sections 2.2 and 3.6; torchvision's RandomPhotometricDistort, RandomZoomOut and
        RandomIoUCrop.
    """
    still = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    distortions = {
        "brightness": (0.875, 1.125),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    return Recipe(
        [
            *(albumentations.ColorJitter(**{**still, name: limits}, p=0.5) for name, limits in distortions.items()),
            ZoomOut(p=0.5),
            OverlappingCrop(p=1),
            albumentations.HorizontalFlip(p=0.5),
        ]
    )


def lsj(low: float = 0.1, high: float = 2.0) -> Recipe:
    """Large-scale jitter: flips, and images at 0.1 to 2 times the size that fits their canvas, padded or cut to it.

    Published with `resize=Fixed((1024, 1024))`.

    Source: Ghiasi et al. 2021 (Simple Copy-Paste), section 3; detectron2's ResizeScale and FixedSizeCrop.
    """
    return Recipe(albumentations.HorizontalFlip(p=0.5), ScaleJitter(low, high))


def multiscale(low: float = 0.8, steps: int = 6) -> Recipe:
    """Multi-scale training: flips, and images at one of a few sizes.

    With `resize=ShortSide(800, max_side=1333)` the short side is 640, 672, 704, 736, 768 or 800 pixels. If `max_side`
    limits an image, all of its sizes shrink alike; detectron2 limits each size on its own. All sizes use the canvases
    of the largest, so a compiled model sees no more shapes.

    Source: detectron2's ResizeShortestEdge with INPUT.MIN_SIZE_TRAIN = (640, 672, 704, 736, 768, 800).
    """
    return Recipe(albumentations.HorizontalFlip(p=0.5), ScaleJitter(low, 1.0, steps))


RECIPES: dict[str, Callable[[], Recipe]] = {"flip": flip, "ssd": ssd, "lsj": lsj, "multiscale": multiscale}


class ZoomOut(albumentations.Pad):
    """Put the image at a random place on a larger canvas of ImageNet's mean colour.

    Args:
        max_side: the canvas is at most so many times as high and wide as the image.
        p: the probability.

    Source: Liu et al. 2016, section 3.6; torchvision's RandomZoomOut.
    """

    class InitSchema(BaseTransformInitSchema):
        max_side: float

    def __init__(self, max_side: float = 4.0, p: float = 0.5) -> None:
        super().__init__(fill=MEAN_COLOR, p=p)
        self.max_side = max_side

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Called by albumentations."""
        height, width = params["shape"][:2]
        side = self.py_random.uniform(1, self.max_side)
        more_y, more_x = round(height * (side - 1)), round(width * (side - 1))
        top, left = self.py_random.randint(0, more_y), self.py_random.randint(0, more_x)
        return {"pad_top": top, "pad_bottom": more_y - top, "pad_left": left, "pad_right": more_x - left}


class OverlappingCrop(BaseCrop):
    """A crop whose best IoU with an object is at least a number drawn from 0, 0.1, 0.3, 0.5, 0.7 and 0.9, or no crop.

    The crop's sides are 0.3 to 1 times the image's, its aspect ratio is 0.5 to 2, and it holds the centre of an object.
    If none of 40 random crops fits, another number is drawn. An image without objects stays whole.

    Source: Liu et al. 2016, section 2.2; torchvision's RandomIoUCrop.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Called by albumentations."""
        height, width = params["shape"][:2]
        whole = (0, 0, width, height)
        boxes = np.asarray(data["bboxes"], np.float32)[:, :4] * np.array([width, height] * 2, np.float32)
        while len(boxes):
            least = self.py_random.choice([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
            if least == 1:
                break
            for _ in range(40):
                crop_h = max(1, int(height * self.py_random.uniform(0.3, 1)))
                crop_w = max(1, int(width * self.py_random.uniform(0.3, 1)))
                if not 0.5 <= crop_w / crop_h <= 2:
                    continue
                left, top = self.py_random.randint(0, width - crop_w), self.py_random.randint(0, height - crop_h)
                crop = np.array([[left, top, left + crop_w, top + crop_h]], np.float32)
                centers = (boxes[:, :2] + boxes[:, 2:]) / 2
                inside = ((centers > crop[:, :2]) & (centers < crop[:, 2:])).all(axis=1)
                if inside.any() and geometry.iou(boxes[inside], crop).max() >= least:
                    return {"crop_coords": (left, top, left + crop_w, top + crop_h)}
        return {"crop_coords": whole}
