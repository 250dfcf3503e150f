"""MaskTargets: the targets of Mask R-CNN's mask head."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detfeed.boxes import Boxes
from detfeed.errors import expect
from detfeed.masks import Mask, covered_grid, sum_mask
from detfeed.sample import Arrays, Sample, UsesMasks
from detfeed.targets.roi_targets import RoiTargets

if TYPE_CHECKING:
    from detfeed.drawing.picture import Picture


class MaskTargets:
    """Targets of Mask R-CNN: RoIs with their classes and deltas, and the object's mask inside each foreground RoI.

    Its samples need masks, from a reader with `masks=True`.

    Args:
        rois: draws the RoIs and makes their targets. None: `RoiTargets()`.
        size: M, height and width of a target in cells.

    Raises:
        TypeError: `size` is no whole number.
        ValueError: `size` is below 1.
    """

    uses_masks: UsesMasks = True

    def __init__(self, rois: RoiTargets | None = None, *, size: int = 28) -> None:
        expect(Integral, "a whole number", size=size)
        if size < 1:
            raise ValueError(f"Expected size to be at least 1. Received: {size}")
        self.rois = RoiTargets() if rois is None else rois
        self.size = size

    def __call__(self, sample: Sample) -> tuple[Arrays, Arrays]:
        """The targets of `rois` and roi_masks.

        Returns:
            `(x, y)` as `RoiTargets` returns them, S = num_samples. y has as well roi_masks int8 (S, M, M): in the
            foreground 1 for a cell of the RoI at least half of which is the object, else 0; -1 where nothing is to be
            learned: in RoIs that are no foreground, and those whose object has no mask.

        Raises:
            As `RoiTargets`.

        Source: He et al. 2017 (Mask R-CNN), section 3.1. A cell's share is exact; torchvision interpolates at its
            centre.
        """
        drawn, targets = self.rois.draw(sample)
        x, y = targets
        masks = np.full((self.rois.num_samples, self.size, self.size), -1, np.int8)
        for place, row in enumerate(drawn.match.tolist()):
            if row in sample.masks:
                masks[place] = cell_shares(sample.masks[row], x["rois"][place], self.size) >= 0.5
        return x, y | {"roi_masks": masks}

    def show(self, picture: Picture, x: Arrays, y: Arrays) -> None:
        """Draw the targets of one image, decoded from its arrays; `detfeed.show` calls it."""
        self.rois.show(picture, x, y)
        learned = (y["roi_masks"] >= 0).any(axis=(1, 2))
        picture.masks(y["roi_masks"][learned], x["rois"][learned])


def cell_shares(mask: Mask, roi: Boxes, size: int) -> NDArray[np.float64]:
    """The share of each cell of a RoI that a mask covers.

    Args:
        mask: uint8 (H, W), 0 to 255.
        roi: float32 (4,), xyxy pixels of the mask, with area; it may reach out of the mask.
        size: M, the number of cells in a row and a column.

    Returns:
        float64 (M, M).
    """
    x0, y0, x1, y1 = roi.astype(np.float64).tolist()
    x, y = (low + (high - low) / size * np.arange(size + 1) for low, high in ((x0, x1), (y0, y1)))
    covered = covered_grid(sum_mask(mask), (x[:-1], x[1:]), (y[:-1], y[1:]))
    return covered * (size * size / ((x1 - x0) * (y1 - y0)))
