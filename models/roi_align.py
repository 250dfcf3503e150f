"""RoIAlign: the features of boxes, read from a feature pyramid at points between its cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras import ops

CANONICAL_SIDE = 224  # pixels; a RoI of this side belongs on the level of stride 2 ** CANONICAL_LEVEL
CANONICAL_LEVEL = 4


def roi_align(
    features: Sequence,
    rois,
    *,
    strides: Sequence[int],
    output_size: int = 7,
    sampling_ratio: int = 2,
    aligned: bool = False,
):
    """Pool the features of RoIs into a grid of bins, each RoI on the level that suits its size.

    A bin is the mean of sampling_ratio x sampling_ratio points. The value at a point is interpolated bilinearly between
    the four cells around it; a point more than one cell outside the feature map counts as 0.

    Args:
        features: L feature maps, float (B, h, w, C), finest first.
        rois: float32 (B, R, 4), xyxy pixels of the input. Boxes of zeros (unused places) give finite features.
        strides: L consecutive powers of two: pixels of the input per cell of each level.
        output_size: P, bins along each side of a RoI.
        sampling_ratio: points along each side of a bin.
        aligned: whether coordinates are shifted by half a cell (detectron2's ROIAlignV2). With False, torchvision's
            default, a RoI is at least one cell wide and high.

    Returns:
        (B, R, P, P, C) in the dtype of the features, computed in float32. It can be differentiated by the features, not
        by the RoIs' choice of level.

    Source: He et al. 2017; agrees with torchvision's roi_align on one level and MultiScaleRoIAlign on several.
    """
    rois = ops.convert_to_tensor(rois, dtype="float32")
    level = roi_levels(rois, strides)
    cells, level_start, width, height = _flatten(features)
    grid = {"output_size": output_size, "sampling_ratio": sampling_ratio, "aligned": aligned}
    scaled = rois * _per_roi([1 / stride for stride in strides], level, "float32")[..., None]
    width = _per_roi(width, level, "int32")[..., None]
    height = _per_roi(height, level, "int32")[..., None]
    columns = _corners(scaled[..., 0], scaled[..., 2], width, **grid)
    rows = _corners(scaled[..., 1], scaled[..., 3], height, **grid)

    batch, num_rois = ops.shape(rois)[:2]
    image_start = ops.arange(batch, dtype="int32")[:, None] * ops.shape(cells)[1]
    start = image_start + _per_roi(level_start, level, "int32")  # (B, R)
    channels = cells.shape[-1]
    cells = ops.reshape(cells, (-1, channels))
    # One gather per corner, 16 by default, each as large as the result. All at once would need 16 times the memory.
    total = 0.0
    for row, row_weight in rows:
        row = (start[..., None] + row * width)[..., :, None]
        for column, column_weight in columns:
            index = ops.reshape(row + column[..., None, :], (-1,))
            weight = ops.reshape(row_weight[..., :, None] * column_weight[..., None, :], (-1, 1))
            total = total + weight * ops.cast(ops.take(cells, index, axis=0), "float32")
    pooled = ops.reshape(total / sampling_ratio**2, (batch, num_rois, output_size, output_size, channels))
    return ops.cast(pooled, features[0].dtype)


def roi_levels(rois, strides: Sequence[int]):
    """The level of a feature pyramid for each RoI: the finer, the smaller the RoI.

    Args:
        rois: float32 (..., 4), xyxy pixels of the input; RoIs without area are on the finest level.
        strides: L consecutive powers of two: pixels of the input per cell of each level.

    Returns:
        int32 (...), from 0 (the finest level) to L - 1.

    Source: Lin et al. 2017, equation 1; agrees with torchvision's LevelMapper, its epsilon of 1e-6 included.
    """
    rois = ops.convert_to_tensor(rois, dtype="float32")
    side = ops.sqrt((rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1]))
    level = ops.floor(CANONICAL_LEVEL + ops.log2(side / CANONICAL_SIDE) + 1e-6)
    first = int(math.log2(strides[0]))
    last = first + len(strides) - 1
    # Clipped as an integer too: a NaN, from a training that diverges, must not become an index out of range.
    return ops.clip(ops.cast(ops.clip(level, first, last), "int32"), first, last) - first


def _flatten(features: Sequence):
    """Feature maps (B, h, w, C) as one (B, S, C), and per level: the first of its S cells, its width and its height."""
    flat, starts, widths, heights = [], [], [], []
    start = 0
    for level in features:
        batch, height, width, channels = ops.shape(level)
        flat.append(ops.reshape(level, (batch, height * width, channels)))
        starts.append(start)
        widths.append(width)
        heights.append(height)
        start = start + height * width
    return ops.concatenate(flat, axis=1), starts, widths, heights


def _per_roi(values: Sequence, level, dtype: str):
    """Of one value per level, the one of each RoI's level."""
    return ops.take(ops.stack([ops.cast(value, dtype) for value in values]), level)


def _corners(start, end, size, *, output_size: int, sampling_ratio: int, aligned: bool):
    """Along one axis, the cells on both sides of each sample point, and their weights.

    Args:
        start, end: float32 (B, R), edges of the RoIs in cells.
        size: int32 (B, R, 1), cells of the feature map along this axis.

    Returns:
        A list of 2 * sampling_ratio pairs (cell int32 (B, R, P), weight float32 (B, R, P)).
    """
    # torchvision's order of operations: another one moves points by up to 1e-5 of a cell.
    if aligned:
        start, end = start - 0.5, end - 0.5
    length = end - start
    if not aligned:
        length = ops.maximum(length, 1.0)
    start, bin_length = start[..., None], length[..., None] / output_size
    bin_start = start + ops.arange(output_size, dtype="float32") * bin_length
    limit = ops.cast(size, "float32")
    corners = []
    for point in range(sampling_ratio):
        place = bin_start + (point + 0.5) * bin_length / sampling_ratio
        inside = ops.cast(ops.logical_and(place >= -1.0, place <= limit), "float32")
        place = ops.clip(place, 0.0, limit - 1.0)
        # As an integer too, for NaN: see roi_levels.
        low = ops.clip(ops.cast(place, "int32"), 0, size - 1)
        fraction = place - ops.cast(low, "float32")
        corners.append((low, (1.0 - fraction) * inside))
        corners.append((ops.minimum(low + 1, size - 1), fraction * inside))
    return corners
