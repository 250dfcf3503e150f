"""Targets: what a detector is to learn from a sample.

A target function takes a `Sample` and returns a dict of arrays, `y`; or, as Keras has it, a tuple `(x, y)` or
`(x, y, sample_weight)` of such dicts, where `x` is added to the inputs. Arrays have no batch axis, and the same shapes
for all samples of a canvas.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.anchors import AnchorGrid
from detfeed.boxes import Weights
from detfeed.matching import IGNORED, NEGATIVE, POSITIVE, AnchorMatches, match_anchors, sample_anchors
from detfeed.sample import Sample

Arrays = dict[str, NDArray[np.generic]]
Form = Literal["sampled", "dense"]


class AnchorTargets:
    """Targets of a region proposal network, or of any detector on anchors that is class-agnostic.

    Args:
        anchors: the grid.
        form: "sampled" or "dense", see `__call__`.
        positive_iou, negative_iou, low_quality, ignore_ioa, straddle: see `matching.match_anchors`.
        num_samples, positive_fraction: see `matching.sample_anchors`; only for the sampled form.
        delta_weights: factors of dx, dy, dw, dh.

    Raises:
        ValueError: unknown form, thresholds that are not 0 <= negative_iou <= positive_iou <= 1.
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
    ) -> None:
        if form not in get_args(Form):
            raise ValueError(f"Expected form to be one of {get_args(Form)}. Received: {form!r}")
        if not 0 <= negative_iou <= positive_iou <= 1:
            raise ValueError(
                "Expected 0 <= negative_iou <= positive_iou <= 1. "
                f"Received: negative_iou={negative_iou}, positive_iou={positive_iou}"
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

    def __call__(self, sample: Sample) -> Arrays | tuple[Arrays, Arrays, Arrays]:
        """The targets of one sample, on the anchors of its canvas.

        Returns:
            "sampled", S = num_samples: `y` with anchor_index int32 (S,), anchor_state int8 (S,) and anchor_deltas
            float32 (S, 4). Positives come first, then negatives, then unused places with state -1 and index 0. Deltas
            are zero where the state is not 1.

            "dense": `(x, y, sample_weight)`. x is empty; y has objectness float32 (A, 1), 1 where positive, and deltas
            float32 (A, 4); sample_weight has objectness float32 (A,), 0 where ignored, and deltas float32 (A,), 1 where
            positive. The last axis of objectness is there because Keras's stock losses average over the last axis:
            with it their loss is one number an anchor, as the weights are.
        """
        matches = self.match(sample)
        if self.form == "dense":
            return self._dense(sample, matches)
        return self._sampled(sample, matches)

    def match(self, sample: Sample) -> AnchorMatches:
        """The matcher's answer on one sample."""
        return match_anchors(
            self.anchors,
            sample.boxes,
            input_hw=sample.input_hw,
            image_hw=sample.image_hw,
            ignore=sample.ignore,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            low_quality=self.low_quality,
            ignore_ioa=self.ignore_ioa,
            straddle=self.straddle,
        )

    def _sampled(self, sample: Sample, matches: AnchorMatches) -> Arrays:
        places, negatives = sample_anchors(
            matches, sample.rng, num_samples=self.num_samples, positive_fraction=self.positive_fraction
        )
        p, q = len(places), len(negatives)
        index = np.zeros(self.num_samples, np.int32)
        index[:p] = matches.positive[places]
        index[p : p + q] = negatives
        state = np.full(self.num_samples, IGNORED, np.int8)
        state[:p] = POSITIVE
        state[p : p + q] = NEGATIVE
        deltas = np.zeros((self.num_samples, 4), np.float32)
        deltas[:p] = self._deltas(sample, index[:p], matches.match[places])
        return {"anchor_index": index, "anchor_state": state, "anchor_deltas": deltas}

    def _dense(self, sample: Sample, matches: AnchorMatches) -> tuple[Arrays, Arrays, Arrays]:
        positive = matches.states == POSITIVE
        deltas = np.zeros((len(positive), 4), np.float32)
        deltas[matches.positive] = self._deltas(sample, matches.positive, matches.match)
        y: Arrays = {"objectness": positive[:, None].astype(np.float32), "deltas": deltas}
        weight: Arrays = {
            "objectness": (matches.states != IGNORED).astype(np.float32),
            "deltas": positive.astype(np.float32),
        }
        return {}, y, weight

    def _deltas(self, sample: Sample, index: NDArray[np.integer], match: NDArray[np.integer]) -> NDArray[np.float32]:
        anchors = self.anchors.anchors(sample.input_hw)[index]
        return geometry.encode_deltas(sample.boxes[match], anchors, self.delta_weights)
