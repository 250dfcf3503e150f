"""Scale: images fed at varying sizes.

Transforms run before an image is resized to its canvas, which would undo a change of scale. So the scale is drawn here,
and used when the image is resized.
"""

from __future__ import annotations

import dataclasses
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from detfeed.errors import expect


@dataclasses.dataclass(frozen=True)
class ScaleJitter:
    """Feed each sample at a random multiple of the size that `resize` gives its image.

    A smaller image is padded right and bottom, like all images. Of a larger one a window of the canvas's size is cut
    out at a random place.

    Args:
        low, high: limits of the factor, above 0; it is drawn uniformly between them.
        steps: number of factors to draw from instead, in equal steps from `low` to `high`. None: any factor.
    """

    low: float
    high: float
    steps: int | None = None

    def __post_init__(self) -> None:
        expect(Real, "a number", low=self.low, high=self.high)
        expect(Integral | None, "a whole number or None", steps=self.steps)
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
        """Draw the part of an image that is fed, and its size on the canvas, all in pixels.

        Args:
            image_hw: height and width of the image.
            resized_hw: height and width that `resize` gives it.
            input_hw: height and width of its canvas, no smaller than `resized_hw`.
            rng: the sample's generator.

        Returns:
            The part as x0, y0, x1, y1 in the image, and the height and width to resize it to.
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
    """A transform, and the scale at which images are fed.

    Attributes:
        transform: an albumentations transform, a Compose without box parameters, or a list of transforms.
        scale: None: images are fed at the size that `resize` gives them.
    """

    transform: Any
    scale: ScaleJitter | None = None
