"""Proposals: the boxes that an RPN finds, best first and without duplicates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import ops

from detfeed.boxes import MAX_LOG_SCALE
from detfeed.models.rpn import RPN
from detfeed.targets.anchors import AnchorGrid


class ProposalModel(keras.Model):
    """A model that returns the proposals of an RPN: `ProposalModel(rpn).predict(sequence)`.

    Args:
        rpn: the RPN. Its weights are shared, not copied, so it can be trained further.
        pre_nms: number of anchors with the highest scores that each level contributes.
        post_nms: largest number of proposals of an image, over all levels.
        nms_iou: if two boxes of one level have a higher IoU than this, the one with the lower score is dropped.
        min_size: boxes with a side of fewer pixels after clipping are dropped.

    Call args:
        inputs: see `RPN`.

    Returns:
        {"boxes": float32 (B, post_nms, 4), xyxy pixels of the input, clipped to the image without its padding,
        "scores": float32 (B, post_nms), probabilities, highest first}. An image with fewer proposals has boxes of 0 and
        scores of -1 in the remaining places.

    Source: see `select_proposals`.
    """

    def __init__(
        self,
        rpn: RPN,
        *,
        pre_nms: int = 1000,
        post_nms: int = 1000,
        nms_iou: float = 0.7,
        min_size: float = 1e-3,
        name: str = "proposals",
    ):
        super().__init__(name=name)
        self.rpn = rpn
        self.pre_nms = pre_nms
        self.post_nms = post_nms
        self.nms_iou = nms_iou
        self.min_size = min_size
        self.built = True

    def call(self, inputs, training=None):
        height, width = ops.shape(inputs["image"])[1:3]
        anchors, num_anchors_per_level = place_anchors(self.rpn.anchors, height, width)
        outputs = self.rpn(inputs, training=training)
        boxes, scores = select_proposals(
            anchors,
            outputs["objectness"],
            outputs["deltas"],
            inputs["image_hw"],
            num_anchors_per_level,
            pre_nms=self.pre_nms,
            post_nms=self.post_nms,
            nms_iou=self.nms_iou,
            min_size=self.min_size,
        )
        return {"boxes": boxes, "scores": scores}


def place_anchors(grid: AnchorGrid, height, width):
    """The anchors of a grid on an input. Its size may be unknown until the graph runs.

    Args:
        grid: the grid.
        height, width: pixels of the input, each a Python int or (TensorFlow only) an int32 scalar.

    Returns:
        anchors: float32 (A, 4), xyxy pixels, the same bits as `grid.anchors((height, width))`.
        num_anchors_per_level: L numbers that add up to A: ints, or scalars if the arguments are scalars.
    """
    if isinstance(height, int) and isinstance(width, int):
        anchors = ops.convert_to_tensor(grid.anchors((height, width)), dtype="float32")
        return anchors, list(grid.num_anchors_per_level((height, width)))
    levels = []
    for level, stride in enumerate(grid.strides):
        # In float64 and rounded once at the end, as in AnchorGrid.
        rows, columns = -(-height // stride), -(-width // stride)
        x, y = ops.meshgrid(ops.arange(columns) * stride, ops.arange(rows) * stride)
        shifts = ops.cast(ops.stack([x, y, x, y], axis=-1), "float64")[:, :, None, :]
        cell_anchors = ops.convert_to_tensor(grid.cell_anchors(level), dtype="float64")
        levels.append(ops.reshape(ops.cast(shifts + cell_anchors, "float32"), (-1, 4)))
    return ops.concatenate(levels, axis=0), [ops.shape(anchors)[0] for anchors in levels]


def select_proposals(
    anchors,
    objectness,
    deltas,
    image_hw,
    num_anchors_per_level: Sequence,
    *,
    pre_nms: int = 1000,
    post_nms: int = 1000,
    nms_iou: float = 0.7,
    min_size: float = 1e-3,
):
    """Turn the outputs of an RPN into proposals.

    On each level the anchors with the highest scores are decoded and clipped to the image; boxes below `min_size` are
    dropped, and NMS drops duplicates. The best boxes of all levels remain. Anchors in the padding take part too: their
    boxes are clipped like others.

    Args:
        anchors: float32 (A, 4), xyxy pixels.
        objectness: float32 (B, A, 1), logits.
        deltas: float32 (B, A, 4), dx, dy, dw, dh.
        image_hw: int32 (B, 2), height and width of each image without its padding.
        num_anchors_per_level: L numbers that add up to A, each a Python int or an int32 scalar.
        pre_nms, post_nms, nms_iou, min_size: see `ProposalModel`.

    Returns:
        boxes float32 (B, post_nms, 4) and scores float32 (B, post_nms), as `ProposalModel` returns them.

    Source: agrees with torchvision's RegionProposalNetwork.filter_proposals.
    """
    logits, boxes = [], []
    start = 0
    for count in num_anchors_per_level:
        level_logits, index = _top(objectness[:, start : start + count, 0], pre_nms)
        index = index + start
        level_deltas = ops.take_along_axis(deltas, index[..., None], axis=1)
        logits.append(level_logits)
        boxes.append(decode_boxes(ops.take(anchors, index, axis=0), level_deltas))
        start = start + count
    logits, boxes = ops.stack(logits, axis=1), ops.stack(boxes, axis=1)  # (B, L, pre_nms), (B, L, pre_nms, 4)

    image_wh = ops.flip(ops.cast(image_hw, "float32"), axis=-1)
    boxes = ops.minimum(ops.maximum(boxes, 0.0), ops.tile(image_wh, (1, 2))[:, None, None, :])
    large = ops.all(boxes[..., 2:] - boxes[..., :2] >= min_size, axis=-1)
    logits = ops.where(large, logits, -math.inf)
    logits = ops.where(nms(boxes, logits, iou=nms_iou), logits, -math.inf)

    logits, index = _top(_merge_levels(logits), post_nms)
    boxes = ops.take_along_axis(_merge_levels(boxes), index[..., None], axis=1)
    found = logits > -math.inf
    return ops.where(found[..., None], boxes, 0.0), ops.where(found, ops.sigmoid(logits), -1.0)


def decode_boxes(anchors, deltas, weights: tuple[float, float, float, float] = (1, 1, 1, 1)):
    """Move and scale anchors by deltas: the inverse of `encode_deltas` of detfeed.boxes.

    Args:
        anchors: float32 (..., 4), xyxy pixels.
        deltas: float32 (..., 4), dx, dy, dw, dh. A dw or dh above log(1000 / 16) is cut to it.
        weights: the factors that the deltas were multiplied by when they were encoded.

    Returns:
        float32 (..., 4), xyxy pixels, not clipped.

    Source: Girshick et al. 2014, appendix C; agrees with torchvision's BoxCoder.decode.
    """
    anchors = ops.convert_to_tensor(anchors, dtype="float32")
    deltas = ops.convert_to_tensor(deltas, dtype="float32") / ops.convert_to_tensor(weights, dtype="float32")
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * ops.exp(ops.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return ops.concatenate([centre - half, centre + half], axis=-1)


def nms(boxes, scores, *, iou: float):
    """Exact greedy non-maximum suppression, with any number of leading axes.

    Args:
        boxes: float32 (..., N, 4), xyxy pixels; N may be 0.
        scores: float32 (..., N), in any order. Of equal scores the first ranks higher. A box with a score of -inf is
            absent: it is not kept and suppresses no other.
        iou: a box is dropped if its IoU with a kept box of a higher score is above this.

    Returns:
        bool (..., N), True for kept boxes.

    Source: agrees with torchvision.ops.nms.
    """
    boxes, scores = ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores)
    order = ops.arange(ops.shape(scores)[-1])
    mine, other = scores[..., None, :], scores[..., :, None]  # (..., 1, N), (..., N, 1)
    precedes = ops.logical_or(other > mine, ops.logical_and(other == mine, order[:, None] < order))  # (..., N, N)
    suppresses = ops.logical_and(precedes, _pairwise_iou(boxes) > iou)
    present = scores > -math.inf

    # A box is kept if no kept box suppresses it. This has one solution, the greedy one, since only boxes of higher rank
    # suppress. From any start, round n settles all boxes that depend on a chain of fewer than n others: few rounds do.
    def settle(keep, _):
        suppressed = ops.any(ops.logical_and(suppresses, keep[..., :, None]), axis=-2)
        return ops.logical_and(present, ops.logical_not(suppressed)), keep

    def unsettled(keep, before):
        return ops.any(ops.not_equal(keep, before))

    return ops.while_loop(unsettled, settle, settle(present, present))[0]


def _pairwise_iou(boxes):
    """IoU of float32 boxes (..., N, 4) with each other, (..., N, N); 0 for two boxes without area."""
    x0, y0, x1, y1 = ops.unstack(boxes, axis=-1)

    def overlap(low, high):
        ends = ops.minimum(high[..., :, None], high[..., None, :])
        return ops.maximum(ends - ops.maximum(low[..., :, None], low[..., None, :]), 0.0)

    intersection = overlap(x0, x1) * overlap(y0, y1)
    area = (x1 - x0) * (y1 - y0)
    union = area[..., :, None] + area[..., None, :] - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, 1.0), 0.0)


def _top(values, count: int):
    """The highest values of float32 (B, N) and their indices, both (B, count).

    If N is smaller than `count`, the remaining places have the value -inf and the index 0. The width is `count` even if
    N is unknown until the graph runs.
    """
    filler = ops.full((ops.shape(values)[0], count), -math.inf, dtype="float32")
    top, index = ops.top_k(ops.concatenate([values, filler], axis=1), count)
    return top, ops.where(top > -math.inf, ops.cast(index, "int32"), 0)


def _merge_levels(x):
    """(B, L, N, ...) to (B, L * N, ...)."""
    shape = ops.shape(x)
    return ops.reshape(x, (shape[0], shape[1] * shape[2], *shape[3:]))
