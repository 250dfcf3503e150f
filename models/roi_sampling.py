"""RoIs for training: proposals matched to the true boxes and sampled, inside the model.

In joint training the RoIs depend on the proposals of the step, so no loader can make their targets.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from detfeed import RoiTargets
from detfeed.models.proposals import (
    box_area,
    clip_boxes,
    encode_boxes,
    pairwise_intersection,
    pairwise_iou,
    top_scores,
)


@keras.saving.register_keras_serializable("detfeed")
class RoiSampler(keras.layers.Layer):
    """Draw the RoIs that a training step learns from, by the rules of a `detfeed.RoiTargets`.

    The draws come from a SeedGenerator. Its state is saved with the weights, so a resumed training draws the same.

    Args:
        rules: thresholds, numbers and delta weights. Ignored boxes count by their box, so `crowd` must be "box".
        seed: of the draws. None: another one each time.

    Call args:
        proposals: float32 (B, R, 4), xyxy pixels of the input; boxes without area are unused places.
        boxes: float32 (B, M, 4), true boxes, xyxy pixels of the input. M may be 0.
        class_ids: int32 (B, M), from 0; -1 in unused places.
        ignore: bool or int8 (B, M), true for regions in which nothing is to be learned.
        image_hw: int32 (B, 2), rows and columns of each image that are not padding.

    Returns:
        {"rois": float32 (B, S, 4), "roi_class_ids": int32 (B, S), "roi_deltas": float32 (B, S, 4), or (B, S, C, 4) if
        the rules have `num_classes`}, with the meaning that `RoiTargets` gives them: class id + 1 where foreground, 0
        where background, -1 in unused places. No gradient flows through any of them.

    Raises:
        ValueError: rules with crowd="mask".

    Source: Girshick 2015, section 2.3; agrees with `detfeed.RoiTargets`, which does the same in numpy.
    """

    def __init__(self, rules: RoiTargets, *, seed: int | None = None, name: str = "roi_sampler"):
        super().__init__(name=name, dtype="float32", autocast=False)
        if rules.uses_masks:
            raise ValueError(
                'RoiSampler expects rules with crowd="box", since masks do not travel to the model. '
                'Received: crowd="mask"'
            )
        self.rules = rules
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, proposals, boxes, class_ids, ignore, image_hw):
        rules = self.rules
        # One unused place more: the best of no boxes does not exist.
        boxes = ops.pad(boxes, [[0, 0], [0, 1], [0, 0]])
        class_ids = ops.pad(ops.cast(class_ids, "int32"), [[0, 0], [0, 1]], constant_values=-1)
        ignore = ops.pad(ops.cast(ignore, "bool"), [[0, 0], [0, 1]], constant_values=False)
        rois, states, match = match_rois(proposals, boxes, class_ids, ignore, image_hw, rules=rules)
        row, state = sample_rois(
            states,
            num_samples=rules.num_samples,
            positive_fraction=rules.positive_fraction,
            seed=self.seed_generator,
        )
        foreground, used = state == 1, state >= 0
        rois = ops.where(used[..., None], ops.take_along_axis(rois, row[..., None], axis=1), 0.0)
        match = ops.take_along_axis(match, row, axis=1)
        class_ids = ops.take_along_axis(class_ids, match, axis=1)
        boxes = ops.take_along_axis(clip_boxes(boxes, image_hw), match[..., None], axis=1)
        deltas = ops.where(foreground[..., None], encode_boxes(rois, boxes, rules.delta_weights), 0.0)
        if rules.num_classes is not None:
            of_class = class_ids[..., None] == ops.arange(rules.num_classes, dtype="int32")
            deltas = ops.where(of_class[..., None], deltas[..., None, :], 0.0)
        targets = {
            "rois": rois,
            "roi_class_ids": ops.where(foreground, class_ids + 1, ops.cast(state, "int32")),
            "roi_deltas": deltas,
        }
        return {name: ops.stop_gradient(target) for name, target in targets.items()}

    def save_own_variables(self, store):
        # Keras saves the weights of layers, not the state of their SeedGenerators.
        store["seed"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed"])


def match_rois(proposals, boxes, class_ids, ignore, image_hw, *, rules: RoiTargets):
    """Decide for every RoI whether it shows an object, and which one: `RoiTargets.match` for a batch.

    Args:
        proposals, boxes, class_ids, ignore, image_hw: see `RoiSampler`, but M is at least 1.
        rules: see `RoiSampler`.

    Returns:
        Three arrays. RoIs, float32 (B, R + M, 4): the proposals, clipped to the image, then the true boxes. States,
        int8 (B, R + M): 1 foreground, 0 background, -1 ignored; also -1 for proposals without area and for true boxes
        that are ignored, unused places or without area. Matches, int32 (B, R + M): row in `boxes` of the object with
        the highest IoU, the first among equals; of no meaning where the state is not 1.
    """
    boxes = clip_boxes(ops.convert_to_tensor(boxes, dtype="float32"), image_hw)
    present = ops.convert_to_tensor(class_ids) >= 0
    ignore = ops.logical_and(ops.cast(ignore, "bool"), present)
    objects = ops.logical_and(ops.logical_and(present, ops.logical_not(ignore)), box_area(boxes) > 0)
    proposals = clip_boxes(ops.convert_to_tensor(proposals, dtype="float32"), image_hw)
    rois = ops.concatenate([proposals, boxes], axis=1)
    candidates = ops.concatenate([box_area(proposals) > 0, objects], axis=1)

    iou = ops.where(objects[:, None, :], pairwise_iou(rois, boxes), 0.0)
    best, match = ops.max(iou, axis=-1), ops.cast(ops.argmax(iou, axis=-1), "int32")
    area = ops.where(candidates, box_area(rois), 1.0)
    share = pairwise_intersection(rois, boxes) / area[..., None]
    covered = ops.any(ops.logical_and(ignore[:, None, :], share >= rules.ignore_ioa), axis=-1)
    background = ops.logical_and(best >= rules.background_low, ops.logical_not(covered))
    state = ops.where(best >= rules.foreground_iou, 1, ops.where(background, 0, -1))
    return rois, ops.cast(ops.where(candidates, state, -1), "int8"), match


def sample_rois(states, *, num_samples: int, positive_fraction: float, seed):
    """Draw RoIs uniformly and without replacement: foreground up to its share, then background.

    Args:
        states: int8 (B, R), 1 foreground, 0 background, -1 ignored; R is at least 1.
        num_samples: S, RoIs to draw from each image; fewer where fewer are there.
        positive_fraction: at most this share of `num_samples` is foreground.
        seed: a keras.random.SeedGenerator or an int.

    Returns:
        rows int32 (B, S), of the RoIs drawn, 0 in unused places; and their states int8 (B, S), -1 in unused places.
        Foreground comes first, then background, then unused places.

    Source: Girshick 2015, section 2.3.
    """
    states = ops.convert_to_tensor(states)
    # The highest of random numbers: which ones these are is a uniform draw.
    luck = keras.random.uniform(ops.shape(states), dtype="float32", seed=seed)
    most = int(num_samples * positive_fraction)
    drawn = []
    for state, count in ((1, most), (0, num_samples)):
        if count:
            score, row = top_scores(ops.where(states == state, luck, -math.inf), count)
            drawn.append((score + 2.0 * state, row))  # foreground in [2, 3), background in [0, 1)
    scores, rows = (ops.concatenate(parts, axis=1) for parts in zip(*drawn, strict=True))
    scores, place = top_scores(scores, num_samples, fill=True)
    rows = ops.take_along_axis(rows, place, axis=1)
    used = scores >= 0
    state = ops.where(used, ops.where(scores >= 2, 1, 0), -1)
    return ops.where(used, rows, 0), ops.cast(state, "int8")
