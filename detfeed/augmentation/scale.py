"""Scale: at what share of its size an image is fed, where that varies.

An augmentation comes before the image is resized onto its canvas, which would undo whatever scale it was given.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class ScaleJitter:
    """Feed images at a size drawn for each sample, relative to that which `resize` gives them.

    Smaller ones are padded right and bottom, as all are; of larger ones a window of the canvas's size is cut out, at a
    place that is drawn, too.

    Args:
        low, high: factors, above 0; drawn evenly from between them.
        steps: draw from so many factors, from `low` to `high` in equal steps, instead.
    """

    low: float
    high: float
    steps: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < np.inf:
            raise ValueError(f"Expected 0 < low <= high. Received: low={self.low}, high={self.high}")
        if self.steps is not None and self.steps < 2:
            raise ValueError(f"Expected steps to be at least 2, or None. Received: {self.steps}")

    def place(
        self,
        image_hw: tuple[int, int],
        resized_hw: tuple[int, int],
        input_hw: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        """Draw which part of an image is fed, and how large.

        Args:
            image_hw: height and width of the image, in pixels as they all are.
            resized_hw: those that `resize` gives it.
            input_hw: those of its canvas, which are no smaller.
            rng: the sample's generator.

        Returns:
            The part, x0, y0, x1, y1 in pixels of the image, and the height and width to give it.
        """
        if self.steps is None:
            factor = rng.uniform(self.low, self.high)
        else:
            factor = np.linspace(self.low, self.high, self.steps)[rng.integers(self.steps)]
        scale_hw = factor * np.array(resized_hw) / image_hw
        window_hw = np.clip(np.rint(input_hw / scale_hw), 1, image_hw).astype(int)
        placed_hw = np.clip(np.rint(window_hw * scale_hw), 1, input_hw).astype(int)
        placed_hw = np.where(window_hw < image_hw, input_hw, placed_hw)
        y0, x0 = rng.integers(np.array(image_hw) - window_hw + 1).tolist()
        height, width = window_hw.tolist()
        return (x0, y0, x0 + width, y0 + height), (int(placed_hw[0]), int(placed_hw[1]))


class Recipe(NamedTuple):
    """An augmentation that also says at what size images are fed.

    Attributes:
        transform: an albumentations transform, a Compose without box parameters, or a list of transforms.
        scale: None for the size that `resize` gives.
    """

    transform: Any
    scale: ScaleJitter | None = None
