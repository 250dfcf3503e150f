"""Losses of an RPN, for targets of sampled anchors or of all anchors, and of a RoI head."""

from __future__ import annotations

from keras import ops


def sampled_rpn_loss(objectness, deltas, anchor_index, anchor_state, anchor_deltas, *, beta: float = 1 / 9):
    """Losses of an RPN on a sample of its anchors.

    Args:
        objectness: float (B, A, 1), logits.
        deltas: float (B, A, 4), predicted dx, dy, dw, dh.
        anchor_index: int32 (B, S), which anchors were sampled; anything where the state is -1.
        anchor_state: int8 (B, S), 1 positive, 0 negative, -1 unused. All may be unused.
        anchor_deltas: float32 (B, S, 4), target deltas; read only where the state is 1.
        beta: difference at which smooth L1 turns from a parabola into a line.

    Returns:
        (objectness_loss, box_loss), float32 scalars: binary cross-entropy averaged over all sampled anchors of the
        batch, and smooth L1 summed over the positive ones and divided by the number sampled (not of positives), so
        that an image without objects weighs no more than another. Both 0 if nothing was sampled.

    Source: Ren et al. 2015, section 3.1.2; agrees with torchvision's RegionProposalNetwork.compute_loss.
    """
    used = anchor_state >= 0
    positive = anchor_state > 0
    index = ops.where(used, ops.cast(anchor_index, "int32"), 0)
    logits = ops.take_along_axis(_float32(objectness)[..., 0], index, axis=1)
    deltas = ops.take_along_axis(_float32(deltas), index[..., None], axis=1)
    # ops.where, not a product with 0: unused places may hold NaN, and 0 * NaN is NaN.
    entropy = ops.where(used, _binary_cross_entropy(logits, _float32(positive)), 0.0)
    distance = _smooth_l1(ops.where(positive[..., None], deltas - _float32(anchor_deltas), 0.0), beta)
    count = ops.maximum(ops.sum(_float32(used)), 1.0)
    return ops.sum(entropy) / count, ops.sum(distance) / count


def dense_rpn_loss(
    objectness,
    deltas,
    target_objectness,
    target_deltas,
    objectness_weight,
    deltas_weight,
    *,
    beta: float = 1 / 9,
):
    """Losses of an RPN on all anchors. A weight of 0 leaves an anchor out.

    Args:
        objectness: float (B, A, 1), logits.
        deltas: float (B, A, 4), predicted dx, dy, dw, dh.
        target_objectness: float32 (B, A, 1), 1 for positive anchors and 0 for the others.
        target_deltas: float32 (B, A, 4), finite everywhere.
        objectness_weight: float32 (B, A), 0 for ignored anchors.
        deltas_weight: float32 (B, A), 0 for ignored and for negative anchors.
        beta: difference at which smooth L1 turns from a parabola into a line.

    Returns:
        (objectness_loss, box_loss), float32 scalars: both weighted sums, each divided by the sum of
        `objectness_weight`. With weights of 0 and 1 they equal `sampled_rpn_loss`. Both are 0 if all weights are 0.
    """
    objectness_weight, deltas_weight = _float32(objectness_weight), _float32(deltas_weight)
    entropy = _binary_cross_entropy(_float32(objectness), _float32(target_objectness))[..., 0]
    distance = ops.sum(_smooth_l1(_float32(deltas) - _float32(target_deltas), beta), axis=-1)
    total = ops.sum(objectness_weight)
    total = ops.where(total > 0, total, 1.0)
    return ops.sum(entropy * objectness_weight) / total, ops.sum(distance * deltas_weight) / total


def roi_loss(class_logits, box_deltas, roi_class_ids, roi_deltas, *, beta: float = 1 / 9):
    """Losses of a RoI head, over the RoIs of all images together.

    Args:
        class_logits: float (B, R, C + 1), background first.
        box_deltas: float (B, R, C, 4), predicted dx, dy, dw, dh of each class.
        roi_class_ids: int32 (B, R), class id + 1 where foreground, 0 where background, -1 in unused places. All may be
            unused.
        roi_deltas: float32 (B, R, 4), target deltas; or (B, R, C, 4), those of the RoI's class in its row. Read only
            where foreground.
        beta: difference at which smooth L1 turns from a parabola into a line.

    Returns:
        (class_loss, box_loss), float32 scalars: cross-entropy averaged over all used RoIs, and smooth L1 of the deltas
        of the true class, summed over foreground RoIs and divided by the number of all used RoIs, so that each
        foreground RoI weighs the same. Both are 0 if no RoI is used.

    Source: Girshick 2015, section 2.3; agrees with torchvision's fastrcnn_loss.
    """
    used = roi_class_ids >= 0
    foreground = roi_class_ids > 0
    place = ops.where(used, ops.cast(roi_class_ids, "int32"), 0)[..., None]
    logits = _float32(class_logits)
    entropy = ops.logsumexp(logits, axis=-1) - ops.take_along_axis(logits, place, axis=-1)[..., 0]
    row = ops.maximum(place - 1, 0)[..., None]
    roi_deltas = _float32(roi_deltas)
    if len(roi_deltas.shape) == 4:
        roi_deltas = ops.take_along_axis(roi_deltas, row, axis=2)[:, :, 0]
    difference = ops.take_along_axis(_float32(box_deltas), row, axis=2)[:, :, 0] - roi_deltas
    # ops.where, not a product with 0: unused places may hold NaN, and 0 * NaN is NaN.
    entropy = ops.where(used, entropy, 0.0)
    distance = _smooth_l1(ops.where(foreground[..., None], difference, 0.0), beta)
    count = ops.maximum(ops.sum(_float32(used)), 1.0)
    return ops.sum(entropy) / count, ops.sum(distance) / count


def _float32(x):
    return ops.cast(x, "float32")


def _binary_cross_entropy(logits, targets):
    return ops.softplus(logits) - logits * targets


def _smooth_l1(difference, beta: float):
    size = ops.abs(difference)
    return ops.where(size < beta, 0.5 / beta * size * size, size - 0.5 * beta)
