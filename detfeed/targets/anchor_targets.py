"""AnchorTargets: the targets of a region proposal network.

A target function takes a `Sample` and returns a dict of arrays, `y`; or, in Keras's form, a tuple `(x, y)` or
`(x, y, sample_weight)` of such dicts, where `x` is added to the inputs. Arrays have no batch axis, and the same shapes
for all samples of a canvas.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import DeltaWeights
from detfeed.errors import expect
from detfeed.sample import Arrays, Sample, UsesMasks
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.matches import COUNTS, IGNORED, NEGATIVE, POSITIVE, AnchorMatches, count_matches
from detfeed.targets.matching import match_objects
from detfeed.targets.padded_boxes import PaddedBoxes
from detfeed.targets.regions import Regions
from detfeed.targets.sampling import Crowd, check_sampling, draw

if TYPE_CHECKING:
    from detfeed.drawing.picture import Picture

Form = Literal["sampled", "dense"]


class AnchorTargets:
    """Targets of a region proposal network, or of any class-agnostic detector on anchors.

    Args:
        anchors: the grid.
        form: "sampled" or "dense", see `__call__`.
        positive_iou, negative_iou, low_quality, ignore_ioa, straddle: see `match_anchors`.
        num_samples, positive_fraction: see `sample_anchors`; only for the sampled form.
        delta_weights: factors of dx, dy, dw, dh.
        crowd: whether ignore regions that have a mask (COCO's crowds) count by "mask" or, cheaper, by their "box".
        boxes: what x also gets of the true boxes, for a model that samples RoIs from its own proposals, such as
            `models.FasterRCNN`. None: nothing.
        counts: whether x also gets match_counts int32 (5,): numbers of positive anchors, of low-quality ones among
            them, of objects that no anchor matches, of ignored anchors, and of lost objects.

    Raises:
        TypeError: `anchors` is no AnchorGrid, or a number is no number.
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
        delta_weights: DeltaWeights = (1.0, 1.0, 1.0, 1.0),
        crowd: Crowd = "mask",
        boxes: PaddedBoxes | None = None,
        counts: bool = False,
    ) -> None:
        expect(AnchorGrid, "an AnchorGrid", anchors=anchors)
        expect(PaddedBoxes | None, "PaddedBoxes or None", boxes=boxes)
        expect(Real, "a number", positive_iou=positive_iou, negative_iou=negative_iou)
        expect(Real | None, "a number of pixels or None", straddle=straddle)
        if form not in get_args(Form):
            raise ValueError(f"Expected form to be one of {get_args(Form)}. Received: {form!r}")
        if not 0 < negative_iou <= positive_iou <= 1:
            raise ValueError(
                "Expected 0 < negative_iou <= positive_iou <= 1. "
                f"Received: negative_iou={negative_iou}, positive_iou={positive_iou}"
            )
        if straddle is not None and straddle < 0:
            raise ValueError(f"Expected straddle to be at least 0, or None. Received: {straddle}")
        check_sampling(
            num_samples=num_samples,
            positive_fraction=positive_fraction,
            ignore_ioa=ignore_ioa,
            delta_weights=delta_weights,
            crowd=crowd,
        )
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
        self.uses_masks: UsesMasks = "crowds" if crowd == "mask" else False
        self.boxes = boxes
        self.counts = counts

    def __call__(self, sample: Sample) -> tuple[Arrays, Arrays] | tuple[Arrays, Arrays, Arrays]:
        """The targets of one sample, on the anchors of its canvas.

        Args:
            sample: its boxes lie inside the image, as a loader promises. Boxes without area match nothing.

        Returns:
            `(x, y)` or `(x, y, sample_weight)`; x is empty, or has what `boxes` returns and match_counts.

            "sampled", S = num_samples: y has anchor_index int32 (S,), anchor_state int8 (S,) and anchor_deltas float32
            (S, 4). Positives come first, then negatives, then unused places with state -1 and index 0. Deltas are zero
            where the state is not 1.

            "dense": y has objectness float32 (A, 1), 1 where positive, and deltas float32 (A, 4); sample_weight has
            objectness float32 (A,), 0 where ignored and else 1, and deltas float32 (A,), 1 where positive. Few anchors
            are positive, so use a focal loss. Objectness has its last axis for Keras's stock losses, which average over
            it: so their loss is one number an anchor, and so are the weights.
        """
        x: Arrays = {} if self.boxes is None else self.boxes(sample)
        if self.form == "sampled" and not self.counts:
            # Only the regions' anchors that are drawn matter.
            return x, self._sampled(sample, self._match_objects(sample), self._regions(sample))
        matches = self.match(sample)
        if self.counts:
            x["match_counts"] = count_matches(
                matches, sample.boxes, ignore=sample.ignore, positive_iou=self.positive_iou
            )
            x["match_counts"][COUNTS.index("lost")] += sample.num_lost
        if self.form == "dense":
            return x, *self._dense(sample, matches)
        return x, self._sampled(sample, matches)

    def match(self, sample: Sample) -> AnchorMatches:
        """The answer of `match_anchors` for one sample."""
        matches = self._match_objects(sample)
        self._regions(sample).hide(matches.states)
        return matches

    def show(self, picture: Picture, x: Arrays, y: Arrays, sample_weight: Arrays | None = None) -> None:
        """Draw the targets of one image, decoded from its arrays; `detfeed.show` calls it."""
        anchors = self.anchors.anchors(picture.input_hw)
        if self.form == "sampled":
            state = y["anchor_state"]
            positives, deltas = y["anchor_index"][state == POSITIVE], y["anchor_deltas"][state == POSITIVE]
            negatives = y["anchor_index"][state == NEGATIVE]
            picture.negatives(anchors[negatives])
            counts = f"anchors sampled: {len(positives)} positive{{}}, {len(negatives)} negative"
        else:
            weight = (sample_weight or {})["objectness"]
            positive = y["objectness"][:, 0] == 1
            positives, deltas = np.flatnonzero(positive), y["deltas"][positive]
            negative, ignored = int(((weight > 0) & ~positive).sum()), int((weight == 0).sum())
            counts = f"anchors: {len(positives)} positive{{}}, {negative:,} negative, {ignored:,} ignored"
        places = anchors[positives]
        boxes = geometry.decode_deltas(deltas, places, self.delta_weights)
        picture.positives(places, boxes)
        low = int((_paired_iou(places, boxes) < self.positive_iou - 1e-4).sum())
        picture.note(counts.format(f" ({low} low-quality)" if low else ""))
        if self.form == "sampled" and len(positives) >= int(self.num_samples * self.positive_fraction):
            # There may have been more positives than places for them.
            truth = picture.truth
            matches = match_objects(
                self.anchors,
                truth.boxes,
                input_hw=picture.input_hw,
                image_hw=picture.image_hw,
                ignore=truth.ignore,
                positive_iou=self.positive_iou,
                negative_iou=self.negative_iou,
                low_quality=self.low_quality,
                straddle=self.straddle,
            )
            picture.unsampled(np.isin(np.arange(len(truth.boxes)), matches.match))

    def _match_objects(self, sample: Sample) -> AnchorMatches:
        return match_objects(
            self.anchors,
            sample.boxes,
            input_hw=sample.input_hw,
            image_hw=sample.image_hw,
            ignore=sample.ignore,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            low_quality=self.low_quality,
            straddle=self.straddle,
        )

    def _regions(self, sample: Sample) -> Regions:
        return Regions(
            self.anchors,
            sample.boxes,
            sample.ignore,
            input_hw=sample.input_hw,
            masks=sample.region_masks if self.uses_masks else None,
            ignore_ioa=self.ignore_ioa,
        )

    def _sampled(self, sample: Sample, matches: AnchorMatches, regions: Regions | None = None) -> Arrays:
        drawn = draw(matches, sample.rng, self.num_samples, self.positive_fraction, regions=regions)
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
        anchors = self.anchors.anchors(sample.input_hw)[index]  # [P, 4]
        return geometry.encode_deltas(sample.boxes[match], anchors, self.delta_weights)


def _paired_iou(boxes: geometry.Boxes, others: geometry.Boxes) -> NDArray[np.float32]:
    """IoU of each box with the one in the same row, float32 (P,)."""
    shared = np.concatenate([np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])], axis=1)
    overlap = geometry.area(shared)
    return np.divide(overlap, geometry.area(boxes) + geometry.area(others) - overlap, dtype=np.float32)
