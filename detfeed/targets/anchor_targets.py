"""Targets: what a detector is to learn from a sample.

A target function takes a `Sample` and returns a dict of arrays, `y`; or, as Keras has it, a tuple `(x, y)` or
`(x, y, sample_weight)` of such dicts, where `x` is added to the inputs. Arrays have no batch axis, and the same shapes
for all samples of a canvas.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import Boxes, Weights
from detfeed.masks import covered_boxes, sum_mask
from detfeed.sample import Arrays, Sample
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.matching import (
    COUNTS,
    IGNORED,
    NEGATIVE,
    POSITIVE,
    AnchorMatches,
    count_matches,
    match_anchors,
    sample_anchors,
)

Form = Literal["sampled", "dense"]
Crowd = Literal["mask", "box"]


class AnchorTargets:
    """Targets of a region proposal network, or of any detector on anchors that is class-agnostic.

    Args:
        anchors: the grid.
        form: "sampled" or "dense", see `__call__`.
        positive_iou, negative_iou, low_quality, ignore_ioa, straddle: see `matching.match_anchors`.
        num_samples, positive_fraction: see `matching.sample_anchors`; only for the sampled form.
        delta_weights: factors of dx, dy, dw, dh.
        crowd: whether ignore regions that have a mask (COCO's crowds) count by "mask" or, cheaper, by their "box".
        counts: whether x also gets match_counts int32 (5,), see `matching.COUNTS`.

    Raises:
        ValueError: unknown form or crowd, thresholds that are not 0 < negative_iou <= positive_iou <= 1, other numbers
            out of their range.
    """

    def __init__(
        self,
        anchors: AnchorGrid,
        *,
        form: Form = "sampled",
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        low_quality: bool = True,
        ignore_ioa: float = 0.5,
        straddle: float | None = None,
        num_samples: int = 256,
        positive_fraction: float = 0.5,
        delta_weights: Weights = (1.0, 1.0, 1.0, 1.0),
        crowd: Crowd = "mask",
        counts: bool = False,
    ) -> None:
        if form not in get_args(Form):
            raise ValueError(f"Expected form to be one of {get_args(Form)}. Received: {form!r}")
        if not 0 < negative_iou <= positive_iou <= 1:
            raise ValueError(
                "Expected 0 < negative_iou <= positive_iou <= 1. "
                f"Received: negative_iou={negative_iou}, positive_iou={positive_iou}"
            )
        if straddle is not None and straddle < 0:
            raise ValueError(f"Expected straddle to be at least 0, or None. Received: {straddle}")
        _check_sampling(num_samples, positive_fraction, ignore_ioa)
        self.anchors = anchors
        self.form = form
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.low_quality = low_quality
        self.ignore_ioa = ignore_ioa
        self.straddle = straddle
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.delta_weights = delta_weights
        self.uses_masks = _by_mask(crowd)
        self.counts = counts

    def __call__(self, sample: Sample) -> tuple[Arrays, Arrays] | tuple[Arrays, Arrays, Arrays]:
        """The targets of one sample, on the anchors of its canvas.

        Returns:
            `(x, y)` or `(x, y, sample_weight)`; x is empty but for the counts asked for.

            "sampled", S = num_samples: y has anchor_index int32 (S,), anchor_state int8 (S,) and anchor_deltas float32
            (S, 4). Positives come first, then negatives, then unused places with state -1 and index 0. Deltas are zero
            where the state is not 1.

            "dense": y has objectness float32 (A, 1), 1 where positive, and deltas float32 (A, 4); sample_weight has
            objectness float32 (A,), 0 where ignored and else 1, and deltas float32 (A,), 1 where positive. Few are
            positive: a focal loss is what suits them. The last axis of objectness is there because Keras's stock
            losses average over the last axis: with it their loss is one number an anchor, as the weights are.
        """
        matches = self.match(sample)
        x: Arrays = {}
        if self.counts:
            x["match_counts"] = count_matches(
                matches,
                sample.boxes,
                image_hw=sample.image_hw,
                ignore=sample.ignore,
                positive_iou=self.positive_iou,
            )
            x["match_counts"][COUNTS.index("lost")] += sample.num_lost
        if self.form == "dense":
            return x, *self._dense(sample, matches)
        return x, self._sampled(sample, matches)

    def match(self, sample: Sample) -> AnchorMatches:
        """The matcher's answer on one sample."""
        return match_anchors(
            self.anchors,
            sample.boxes,
            input_hw=sample.input_hw,
            image_hw=sample.image_hw,
            ignore=sample.ignore,
            masks=sample.masks if self.uses_masks else None,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            low_quality=self.low_quality,
            ignore_ioa=self.ignore_ioa,
            straddle=self.straddle,
        )

    def _sampled(self, sample: Sample, matches: AnchorMatches) -> Arrays:
        drawn = _draw(matches, sample.rng, self.num_samples, self.positive_fraction)
        p = len(drawn.match)
        deltas = np.zeros((self.num_samples, 4), np.float32)
        deltas[:p] = self._deltas(sample, drawn.rows[:p], drawn.match)
        return {"anchor_index": drawn.rows, "anchor_state": drawn.state, "anchor_deltas": deltas}

    def _dense(self, sample: Sample, matches: AnchorMatches) -> tuple[Arrays, Arrays]:
        positive = matches.states == POSITIVE
        deltas = np.zeros((len(positive), 4), np.float32)
        deltas[matches.positive] = self._deltas(sample, matches.positive, matches.match)
        y: Arrays = {"objectness": positive[:, None].astype(np.float32), "deltas": deltas}
        weight: Arrays = {
            "objectness": (matches.states != IGNORED).astype(np.float32),
            "deltas": positive.astype(np.float32),
        }
        return y, weight

    def _deltas(self, sample: Sample, index: NDArray[np.integer], match: NDArray[np.integer]) -> NDArray[np.float32]:
        anchors = self.anchors.anchors(sample.input_hw)[index]
        boxes = geometry.clip(sample.boxes[match], sample.image_hw)
        return geometry.encode_deltas(boxes, anchors, self.delta_weights)


class RoiTargets:
    """Targets of the second stage of Faster R-CNN: of the head that classifies and refines given proposals.

    Needs samples with proposals, so a loader with `proposals=`; without any, the objects' own boxes are all it draws.

    Args:
        foreground_iou: a RoI whose best IoU with an object is at least this is foreground.
        background_low: one whose best IoU is below `foreground_iou` and at least this is background; one below is
            ignored. 0.1 looks at hard background alone, as Fast R-CNN did.
        ignore_ioa: a RoI that is not foreground and of which an ignore region covers at least this share is ignored.
        num_samples: RoIs drawn from an image; fewer where fewer are there.
        positive_fraction: at most this share of `num_samples` is foreground; background fills up.
        num_classes: C, for deltas that are class-aware; None for one set of deltas, whatever the class.
        delta_weights: factors of dx, dy, dw, dh.
        crowd: as of `AnchorTargets`.

    Raises:
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
        delta_weights: Weights = (10.0, 10.0, 5.0, 5.0),
        crowd: Crowd = "mask",
    ) -> None:
        if not 0 <= background_low < foreground_iou <= 1:
            raise ValueError(
                "Expected 0 <= background_low < foreground_iou <= 1. "
                f"Received: background_low={background_low}, foreground_iou={foreground_iou}"
            )
        _check_sampling(num_samples, positive_fraction, ignore_ioa)
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"Expected num_classes to be at least 1, or None. Received: {num_classes}")
        self.foreground_iou = foreground_iou
        self.background_low = background_low
        self.ignore_ioa = ignore_ioa
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.num_classes = num_classes
        self.delta_weights = delta_weights
        self.uses_masks = _by_mask(crowd)

    def __call__(self, sample: Sample) -> tuple[Arrays, Arrays]:
        """The RoIs drawn from one sample, and what is to be learned from them.

        Returns:
            `(x, y)`, S = num_samples. x has rois float32 (S, 4), xyxy pixels of the canvas. y has roi_class_ids int32
            (S,), class id + 1 where foreground, 0 where background, -1 where unused; and roi_deltas float32 (S, 4), or
            with `num_classes` (S, C, 4), where row `class_id` holds the deltas. Foreground comes first, then
            background, then unused places; RoIs are zero where unused, deltas wherever there is nothing to regress.

        Raises:
            ValueError: a class id is not below `num_classes`.

        Source: Girshick 2015, section 2.3, with the objects' boxes among the proposals and any background below the
            foreground, as torchvision's and detectron2's RoI heads have it.
        """
        rois, matches = self.match(sample)
        drawn = _draw(matches, sample.rng, self.num_samples, self.positive_fraction)
        p = len(drawn.match)
        used = drawn.state != IGNORED
        chosen = np.zeros((self.num_samples, 4), np.float32)
        chosen[used] = rois[drawn.rows[used]]
        class_ids = sample.class_ids[drawn.match]
        roi_class_ids = drawn.state.astype(np.int32)  # background and unused are 0 and -1 both here and there
        roi_class_ids[:p] = class_ids + 1
        boxes = geometry.clip(sample.boxes[drawn.match], sample.image_hw)
        deltas = geometry.encode_deltas(boxes, chosen[:p], self.delta_weights)
        if self.num_classes is None:
            roi_deltas = np.zeros((self.num_samples, 4), np.float32)
            roi_deltas[:p] = deltas
        else:
            if (class_ids >= self.num_classes).any():
                raise ValueError(f"expected class ids below num_classes {self.num_classes}, got {class_ids.max()}")
            roi_deltas = np.zeros((self.num_samples, self.num_classes, 4), np.float32)
            roi_deltas[np.arange(p), class_ids] = deltas
        return {"rois": chosen}, {"roi_class_ids": roi_class_ids, "roi_deltas": roi_deltas}

    def match(self, sample: Sample) -> tuple[Boxes, AnchorMatches]:
        """Decide for every RoI whether it shows an object, and which one.

        A RoI's object is the one of its highest IoU, the first among equals. Ignore regions turn background to
        ignored, never foreground.

        Returns:
            The RoIs, float32 (R, 4): the proposals with area inside the image, then the boxes of the objects; and an
            AnchorMatches with RoIs for anchors.
        """
        boxes = geometry.clip(sample.boxes, sample.image_hw)
        objects = np.flatnonzero(~sample.ignore & (geometry.area(boxes) > 0))
        proposals = geometry.clip(sample.proposals, sample.image_hw)
        rois = np.concatenate([proposals[geometry.area(proposals) > 0], boxes[objects]])

        iou = geometry.iou(rois, boxes[objects])
        best = iou.max(axis=1, initial=0)
        covered = np.zeros(len(rois), bool)
        area = geometry.area(rois)
        for row in np.flatnonzero(sample.ignore).tolist():
            if self.uses_masks and row in sample.masks:
                shared = covered_boxes(sum_mask(sample.masks[row]), rois)
            else:
                shared = geometry.intersection(rois, boxes[row : row + 1])[:, 0].astype(np.float64)
            covered |= (shared / area).astype(np.float32) >= np.float32(self.ignore_ioa)
        states = np.full(len(rois), IGNORED, np.int8)
        states[(best >= np.float32(self.background_low)) & ~covered] = NEGATIVE
        positive = np.flatnonzero(best >= np.float32(self.foreground_iou))
        states[positive] = POSITIVE
        # Without objects nothing is positive, and there is nothing to take the argmax of.
        match = objects[iou[positive].argmax(axis=1)] if len(objects) else positive
        return rois, AnchorMatches(states, positive, match, best[positive])


def _check_sampling(num_samples: int, positive_fraction: float, ignore_ioa: float) -> None:
    if num_samples < 1:
        raise ValueError(f"Expected num_samples to be at least 1. Received: {num_samples}")
    for name, share in (("positive_fraction", positive_fraction), ("ignore_ioa", ignore_ioa)):
        if not 0 < share <= 1:
            raise ValueError(f"Expected {name} to be above 0 and at most 1. Received: {share}")


def _by_mask(crowd: str) -> bool:
    if crowd not in get_args(Crowd):
        raise ValueError(f"Expected crowd to be one of {get_args(Crowd)}. Received: {crowd!r}")
    return crowd == "mask"


class _Drawn(NamedTuple):
    """Anchors or RoIs drawn for a loss, in S places: the P positives first, then negatives, then unused places."""

    rows: NDArray[np.int32]  # (S,), of the anchors or RoIs; 0 where unused
    state: NDArray[np.int8]  # (S,), IGNORED where unused
    match: NDArray[np.int64]  # (P,), row of the box of each positive


def _draw(matches: AnchorMatches, rng: np.random.Generator, num_samples: int, positive_fraction: float) -> _Drawn:
    places, negatives = sample_anchors(matches, rng, num_samples=num_samples, positive_fraction=positive_fraction)
    p, q = len(places), len(negatives)
    rows = np.zeros(num_samples, np.int32)
    rows[:p] = matches.positive[places]
    rows[p : p + q] = negatives
    state = np.full(num_samples, IGNORED, np.int8)
    state[:p] = POSITIVE
    state[p : p + q] = NEGATIVE
    return _Drawn(rows, state, matches.match[places])
