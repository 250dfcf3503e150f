"""RoiTargets: the targets of the second stage of Faster R-CNN."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes, DeltaWeights
from detfeed.errors import expect
from detfeed.masks import covered_boxes, sum_mask
from detfeed.sample import Arrays, Sample, UsesMasks
from detfeed.targets.matches import IGNORED, NEGATIVE, POSITIVE, AnchorMatches
from detfeed.targets.sampling import Crowd, Drawn, check_sampling, draw

if TYPE_CHECKING:
    from detfeed.drawing.picture import Picture


class RoiTargets:
    """Targets of the second stage of Faster R-CNN, the head that classifies and refines given proposals.

    Its samples need proposals, from a loader with `proposals=`. Without any it draws the objects' own boxes alone.

    Args:
        foreground_iou: a RoI is foreground if its best IoU with an object is at least this.
        background_low: a RoI is background if its best IoU is below `foreground_iou` and at least this; below this it
            is ignored. 0.1 keeps hard background alone, like Fast R-CNN.
        ignore_ioa: a RoI that is not foreground is ignored if an ignore region covers at least this share of it.
        num_samples: RoIs drawn from an image; all of them if there are fewer.
        positive_fraction: at most this share of `num_samples` is foreground; background fills up.
        num_classes: C, for class-aware deltas. None: one set of deltas, whatever the class.
        delta_weights: factors of dx, dy, dw, dh.
        crowd: see `AnchorTargets`.

    Raises:
        TypeError: a number is no number.
        ValueError: unknown crowd, thresholds that are not 0 <= background_low < foreground_iou <= 1, other numbers out
            of their range.
    """

    def __init__(
        self,
        *,
        foreground_iou: float = 0.5,
        background_low: float = 0.0,
        ignore_ioa: float = 0.5,
        num_samples: int = 512,
        positive_fraction: float = 0.25,
        num_classes: int | None = None,
        delta_weights: DeltaWeights = (10.0, 10.0, 5.0, 5.0),
        crowd: Crowd = "mask",
    ) -> None:
        expect(Real, "a number", foreground_iou=foreground_iou, background_low=background_low)
        expect(Integral | None, "a whole number or None", num_classes=num_classes)
        if not 0 <= background_low < foreground_iou <= 1:
            raise ValueError(
                "Expected 0 <= background_low < foreground_iou <= 1. "
                f"Received: background_low={background_low}, foreground_iou={foreground_iou}"
            )
        check_sampling(
            num_samples=num_samples,
            positive_fraction=positive_fraction,
            ignore_ioa=ignore_ioa,
            delta_weights=delta_weights,
            crowd=crowd,
        )
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"Expected num_classes to be at least 1, or None. Received: {num_classes}")
        self.foreground_iou = foreground_iou
        self.background_low = background_low
        self.ignore_ioa = ignore_ioa
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.num_classes = num_classes
        self.delta_weights = delta_weights
        self.uses_masks: UsesMasks = "crowds" if crowd == "mask" else False

    def __call__(self, sample: Sample) -> tuple[Arrays, Arrays]:
        """The RoIs drawn from one sample, and their classes and deltas.

        Args:
            sample: its boxes and proposals lie inside the image, and its proposals have area, as a loader promises.

        Returns:
            `(x, y)`, S = num_samples. x has rois float32 (S, 4), xyxy pixels of the canvas. y has roi_class_ids int32
            (S,), class id + 1 where foreground, 0 where background, -1 where unused; and roi_deltas float32 (S, 4), or
            with `num_classes` (S, C, 4) with the deltas in row `class_id`. Foreground comes first, then background,
            then unused places. RoIs are zero in unused places, deltas everywhere but in the foreground.

        Raises:
            ValueError: a class id is not below `num_classes`.

        Source: Girshick 2015, section 2.3. Like the RoI heads of torchvision and detectron2 it adds the objects' boxes
            to the proposals, and takes everything below the foreground for background.
        """
        return self.draw(sample)[1]

    def draw(self, sample: Sample) -> tuple[Drawn, tuple[Arrays, Arrays]]:
        """The RoIs drawn from one sample, and their targets as a call returns them."""
        rois, matches = self.match(sample)
        drawn = draw(matches, sample.rng, self.num_samples, self.positive_fraction)
        p = len(drawn.match)
        used = drawn.state != IGNORED
        chosen = np.zeros((self.num_samples, 4), np.float32)
        chosen[used] = rois[drawn.rows[used]]
        class_ids = sample.class_ids[drawn.match]
        roi_class_ids = drawn.state.astype(np.int32)  # background is 0 and unused is -1 in both
        roi_class_ids[:p] = class_ids + 1
        deltas = geometry.encode_deltas(sample.boxes[drawn.match], chosen[:p], self.delta_weights)  # [P, 4]
        if self.num_classes is None:
            roi_deltas = np.zeros((self.num_samples, 4), np.float32)
            roi_deltas[:p] = deltas
        else:
            if (class_ids >= self.num_classes).any():
                raise ValueError(f"expected class ids below num_classes {self.num_classes}, got {class_ids.max()}")
            roi_deltas = np.zeros((self.num_samples, self.num_classes, 4), np.float32)
            roi_deltas[np.arange(p), class_ids] = deltas
        return drawn, ({"rois": chosen}, {"roi_class_ids": roi_class_ids, "roi_deltas": roi_deltas})

    def show(self, picture: Picture, x: Arrays, y: Arrays) -> None:
        """Draw the targets of one image, decoded from its arrays; `detfeed.show` calls it."""
        foreground = y["roi_class_ids"] > 0
        class_ids = y["roi_class_ids"][foreground] - 1
        deltas = y["roi_deltas"][foreground]
        if self.num_classes is not None:
            deltas = deltas[np.arange(len(class_ids)), class_ids]
        rois = x["rois"][foreground]
        picture.positives(rois, geometry.decode_deltas(deltas, rois, self.delta_weights), class_ids)
        background = x["rois"][y["roi_class_ids"] == 0]
        picture.negatives(background)
        picture.note(f"RoIs sampled: {len(rois)} foreground, {len(background)} background")
        if len(rois) >= int(self.num_samples * self.positive_fraction):
            # Each object has a foreground RoI, its own box, and there were more of them than places.
            picture.unsampled(geometry.area(picture.truth.boxes) > 0)

    def match(self, sample: Sample) -> tuple[Boxes, AnchorMatches]:
        """Decide for every RoI whether it shows an object, and which one.

        A RoI's object is the one of its highest IoU, the first among equals. Ignore regions turn background to
        ignored, never foreground.

        Returns:
            The RoIs, float32 (R, 4): the sample's proposals, then the boxes of its objects with area; and an
            AnchorMatches with RoIs for anchors.
        """
        boxes = sample.boxes
        objects = np.flatnonzero(~sample.ignore & (geometry.area(boxes) > 0))
        rois = np.concatenate([sample.proposals, boxes[objects]])  # [R, 4]

        iou = geometry.iou(rois, boxes[objects])  # [R, objects]
        best = iou.max(axis=1, initial=0)  # [R]
        states = np.full(len(rois), IGNORED, np.int8)
        states[(best >= np.float32(self.background_low)) & ~self._covered(rois, sample)] = NEGATIVE
        positive = np.flatnonzero(best >= np.float32(self.foreground_iou))
        states[positive] = POSITIVE
        # Without objects nothing is positive, and argmax has no axis to look along.
        match = objects[iou[positive].argmax(axis=1)] if len(objects) else positive
        return rois, AnchorMatches(states, positive, match, best[positive])

    def _covered(self, rois: Boxes, sample: Sample) -> NDArray[np.bool_]:
        """Whether an ignore region covers at least `ignore_ioa` of each RoI; bool (R,)."""
        covered = np.zeros(len(rois), bool)
        area = geometry.area(rois)
        masks = sample.region_masks if self.uses_masks else {}
        for row in np.flatnonzero(sample.ignore).tolist():
            if row in masks:
                shared = covered_boxes(sum_mask(masks[row]), rois)
            else:
                shared = geometry.intersection(rois, sample.boxes[row : row + 1])[:, 0].astype(np.float64)
            covered |= (shared / area).astype(np.float32) >= np.float32(self.ignore_ioa)
        return covered
