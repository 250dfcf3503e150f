"""Proposals: the boxes that an RPN finds, best first and without duplicates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import ops

from detfeed.boxes import MAX_LOG_SCALE
from detfeed.models.image_model import ImageModel, serialize_part
from detfeed.models.rpn import RPN
from detfeed.targets.anchors import AnchorGrid


@keras.saving.register_keras_serializable("detfeed")
class ProposalModel(ImageModel):
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
        boxes, scores = propose_boxes(
            self.rpn.anchors,
            self.rpn(inputs, training=training),
            inputs,
            pre_nms=self.pre_nms,
            post_nms=self.post_nms,
            nms_iou=self.nms_iou,
            min_size=self.min_size,
        )
        return {"boxes": boxes, "scores": scores}

    def get_config(self):
        return {
            "rpn": serialize_part(self.rpn),
            "pre_nms": self.pre_nms,
            "post_nms": self.post_nms,
            "nms_iou": self.nms_iou,
            "min_size": self.min_size,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("rpn")), **config)


def propose_boxes(grid: AnchorGrid, outputs, inputs, **limits):
    """Proposals from what an RPN returned for its inputs: `place_anchors`, then `select_proposals` with its limits."""
    anchors, num_anchors_per_level = place_anchors(grid, *ops.shape(inputs["image"])[1:3])
    objectness, deltas = outputs["objectness"], outputs["deltas"]
    return select_proposals(anchors, objectness, deltas, inputs["image_hw"], num_anchors_per_level, **limits)


def place_anchors(grid: AnchorGrid, height, width):
    """The anchors of a grid on an input. Its size may be unknown until the graph runs.

    Args:
        grid: the grid.
        height, width: pixels of the input, each a Python int or (TensorFlow only) an int32 scalar.

    Returns:
        Anchors, float32 (A, 4), xyxy pixels, the same bits as `grid.anchors((height, width))`; and L numbers of anchors
        a level, which add up to A: ints, or scalars if the arguments are scalars.
    """
    if isinstance(height, int) and isinstance(width, int):
        anchors = ops.convert_to_tensor(grid.anchors((height, width)), dtype="float32")
        return anchors, list(grid.num_anchors_per_level((height, width)))
    levels = []
    for level, stride in enumerate(grid.strides):
        # In float64 and rounded once at the end, as in AnchorGrid. Rounded up without negative numbers: ONNX rounds the
        # quotient of one towards 0.
        rows, columns = (height + (stride - 1)) // stride, (width + (stride - 1)) // stride
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
        level_logits, index = top_scores(objectness[:, start : start + count, 0], pre_nms)
        index = index + start
        level_boxes = decode_boxes(
            ops.take(anchors, index, axis=0), ops.take_along_axis(deltas, index[..., None], axis=1)
        )
        level_boxes = clip_boxes(level_boxes, image_hw)
        large = ops.all(level_boxes[..., 2:] - level_boxes[..., :2] >= min_size, axis=-1)
        level_logits = ops.where(large, level_logits, -math.inf)
        kept = nms(level_boxes, level_logits, iou=nms_iou)
        logits.append(ops.where(kept, level_logits, -math.inf))
        boxes.append(level_boxes)
        start = start + count
    logits, index = top_scores(ops.concatenate(logits, axis=1), post_nms, fill=True)
    boxes = ops.take_along_axis(ops.concatenate(boxes, axis=1), index[..., None], axis=1)
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


def encode_boxes(anchors, boxes, weights: tuple[float, float, float, float] = (1, 1, 1, 1)):
    """The deltas that move anchors onto boxes: detfeed.boxes.encode_deltas, and the inverse of decode_boxes.

    Args:
        anchors: float32 (..., 4), xyxy pixels.
        boxes: float32 (..., 4), xyxy pixels.
        weights: factors of dx, dy, dw, dh.

    Returns:
        float32 (..., 4), dx, dy, dw, dh; not finite where an anchor or a box has no area.

    Source: Girshick et al. 2014, appendix C; agrees with torchvision's BoxCoder.encode.
    """
    size, box_size = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + 0.5 * box_size) - (anchors[..., :2] + 0.5 * size)
    deltas = ops.concatenate([shift / size, ops.log(box_size / size)], axis=-1)
    return deltas * ops.convert_to_tensor(weights, dtype="float32")


def clip_boxes(boxes, image_hw):
    """The parts of boxes inside their images; boxes outside become empty, on the edge.

    Args:
        boxes: float32 (B, ..., 4), xyxy pixels.
        image_hw: int32 (B, 2), (height, width).

    Returns:
        float32 (B, ..., 4).
    """
    image_wh = ops.flip(ops.cast(image_hw, "float32"), axis=-1)
    limit = ops.reshape(ops.tile(image_wh, (1, 2)), (-1, *[1] * (len(boxes.shape) - 2), 4))
    return ops.minimum(ops.maximum(boxes, 0.0), limit)


def nms(boxes, scores, *, iou: float, groups=None):
    """Exact greedy non-maximum suppression, with any number of leading axes.

    Args:
        boxes: float32 (..., N, 4), xyxy pixels; N may be 0.
        scores: float32 (..., N), in any order. Of equal scores the first ranks higher. A box with a score of -inf is
            absent: it is not kept and suppresses no other.
        iou: a box is dropped if its IoU with a kept box of a higher score is above this.
        groups: int (..., N): boxes of different groups, such as classes, do not suppress each other. None: one group.

    Returns:
        bool (..., N), True for kept boxes.

    Source: agrees with torchvision.ops.nms.
    """
    boxes, scores = ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores)
    order = ops.arange(ops.shape(scores)[-1])
    mine, other = scores[..., None, :], scores[..., :, None]  # (..., 1, N), (..., N, 1)
    precedes = ops.logical_or(other > mine, ops.logical_and(other == mine, order[:, None] < order))  # (..., N, N)
    suppresses = ops.logical_and(precedes, pairwise_iou(boxes, boxes) > iou)
    if groups is not None:
        groups = ops.convert_to_tensor(groups)
        suppresses = ops.logical_and(suppresses, groups[..., None, :] == groups[..., :, None])
    present = scores > -math.inf

    # A box is kept if no kept box suppresses it. This has one solution, the greedy one, since only boxes of higher rank
    # suppress. From any start, round n settles all boxes that depend on a chain of fewer than n others: few rounds do.
    def settle(keep, _):
        suppressed = ops.any(ops.logical_and(suppresses, keep[..., :, None]), axis=-2)
        return ops.logical_and(present, ops.logical_not(suppressed)), keep

    def unsettled(keep, before):
        return ops.any(ops.not_equal(keep, before))

    return ops.while_loop(unsettled, settle, settle(present, present))[0]


def pairwise_intersection(boxes, others):
    """Shared area of every pair of float32 boxes (..., N, 4) and (..., M, 4): float32 (..., N, M)."""

    def shared(low, high):
        ends = ops.minimum(boxes[..., :, None, high], others[..., None, :, high])
        return ops.maximum(ends - ops.maximum(boxes[..., :, None, low], others[..., None, :, low]), 0.0)

    return shared(0, 2) * shared(1, 3)


def pairwise_iou(boxes, others):
    """IoU of every pair of float32 boxes (..., N, 4) and (..., M, 4): float32 (..., N, M); 0 where both are empty."""
    intersection = pairwise_intersection(boxes, others)
    union = box_area(boxes)[..., :, None] + box_area(others)[..., None, :] - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, 1.0), 0.0)


def box_area(boxes):
    """Areas in square pixels of boxes (..., 4) whose sides are not negative."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def top_scores(scores, count: int, *, fill: bool = False):
    """The highest of scores float32 (B, N), highest first, of equals the first first, and their places.

    Returns:
        scores float32 (B, K) and places int32 (B, K). K is the lower of `count` and N, or with `fill` always `count`:
        further scores are -inf then. Where a score is -inf, the place is 0.
    """
    if fill:
        filler = ops.full((ops.shape(scores)[0], count), -math.inf, dtype="float32")
        scores = ops.concatenate([scores, filler], axis=1)
    else:
        available = ops.shape(scores)[1]
        count = min(count, available) if isinstance(available, int) else ops.minimum(count, available)
    top, index = ops.top_k(scores, count)
    return top, ops.where(top > -math.inf, ops.cast(index, "int32"), 0)
