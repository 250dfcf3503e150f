"""Keypoints: named points of objects, such as the joints of a person, and how they move with their image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import AnnotationError

Points = NDArray[np.float32]

# Of an object in a file; whole-body sets have 133. A number in a file must not make a column of gigabytes.
MAX_KEYPOINTS = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Keypoints:
    """K keypoints of each of N boxes.

    Attributes:
        points: float32 (N, K, 3): x and y in pixels, in which the centre of the first pixel is at 0.5 as it is for
            boxes; and visibility, 0 not labelled or outside of the image, 1 labelled but hidden, 2 visible. A point
            of visibility 0 has x and y 0.
        names: K names, or none.
        flips: int64 (K,), the keypoint that each becomes in a mirrored image, where left is right.

    Raises:
        AnnotationError: points, names and flips that do not fit together, or `flips` that do not undo themselves.
    """

    points: Points
    names: tuple[str, ...]
    flips: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.flips)
        if self.points.ndim != 3 or self.points.shape[1:] != (count, 3) or self.points.dtype != np.float32:
            raise AnnotationError(
                f"expected keypoints to be float32 (N, {count}, 3), got {self.points.dtype.name} {self.points.shape}"
            )
        if self.names and len(self.names) != count:
            raise AnnotationError(f"expected {count} names of keypoints or none, got {len(self.names)}")
        known = count == 0 or (self.flips.min() >= 0 and self.flips.max() < count)
        if not known or (self.flips[self.flips] != np.arange(count)).any():
            raise AnnotationError(f"expected pairs of keypoints that become each other, got {self.flips.tolist()}")
        self.points.setflags(write=False)
        self.flips.setflags(write=False)

    def take(self, places: NDArray[np.integer]) -> Self:
        """The keypoints of some boxes, in that order."""
        return self._with(self.points[places])

    def rescaled(self, from_hw: Sequence[int], to_hw: Sequence[int]) -> Self:
        """The keypoints in an image of another height and width."""
        factor = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0], 1], np.float32)
        return self._with(self.points * factor)

    def cropped(self, window: tuple[int, int, int, int]) -> Self:
        """The keypoints in a window, x0, y0, x1, y1; those outside are not visible."""
        x0, y0, x1, y1 = window
        return self._with(self.points - np.array([x0, y0, 0], np.float32)).inside((y1 - y0, x1 - x0))

    def flipped(self, side: int, *, axis: int) -> Self:
        """The keypoints mirrored along x (axis 0) or y (axis 1), where the image has `side` pixels."""
        points = self.points[:, self.flips].copy()
        points[..., axis] = side - points[..., axis]
        return self._with(points)._zeroed()

    def inside(self, image_hw: Any) -> Self:
        """The keypoints, of which those outside of an image, or of each box's image (2, N, 1), are not visible."""
        x, y = self.points[..., 0], self.points[..., 1]
        points = self.points.copy()
        height, width = image_hw
        points[~((x >= 0) & (x <= width) & (y >= 0) & (y <= height)), 2] = 0
        return self._with(points)._zeroed()

    def _zeroed(self) -> Self:
        return self._with(np.where(self.points[..., 2:] > 0, self.points, np.float32(0)))

    def _with(self, points: Points) -> Self:
        return dataclasses.replace(self, points=points)


def flips_of(names: Sequence[str]) -> NDArray[np.int64]:
    """The keypoint that each becomes in a mirrored image, by names with left and right, int64 (K,)."""
    place_of = {name: place for place, name in enumerate(names)}

    def mirrored(name: str) -> str:
        for one, other in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
            if one in name:
                return name.replace(one, other)
            if other in name:
                return name.replace(other, one)
        return name

    flips = [place_of.get(mirrored(name), place) for place, name in enumerate(names)]
    return np.array([other if flips[other] == place else place for place, other in enumerate(flips)], np.int64)
