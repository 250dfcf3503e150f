"""Detections: the boxes with classes that a Faster R-CNN finds, best first and without duplicates."""

from __future__ import annotations

import math

import keras
from keras import ops

from detfeed.models.faster_rcnn import FasterRCNN
from detfeed.models.image_model import ImageModel, serialize_part
from detfeed.models.proposals import clip_boxes, decode_boxes, nms, top_scores


@keras.saving.register_keras_serializable("detfeed")
class DetectionModel(ImageModel):
    """A model that returns the detections of a Faster R-CNN: `DetectionModel(faster_rcnn).predict(sequence)`.

    Args:
        faster_rcnn: the detector. Its weights are shared, not copied, so it can be trained further.
        score_threshold: detections with a lower probability, or just this one, are dropped.
        nms_iou: if two boxes of one class have a higher IoU than this, the one with the lower score is dropped.
        max_detections: D, largest number of detections of an image, over all classes.
        pre_nms: largest number of boxes of an image, over all classes, that NMS looks at: those with the highest
            scores.
        min_size: boxes with a side of fewer pixels after clipping are dropped.

    Call args:
        inputs: {"image", "image_hw"} as for `FasterRCNN`; with "rois" these are classified instead of the proposals.
            True boxes are not looked at.

    Returns:
        {"boxes": float32 (B, D, 4), xyxy pixels of the input, clipped to the image without its padding, "scores":
        float32 (B, D), probabilities, highest first, "class_ids": int32 (B, D), from 0}. An image with fewer detections
        has boxes of 0, scores of -1 and class ids of -1 in the remaining places.

    Source: see `select_detections`.
    """

    def __init__(
        self,
        faster_rcnn: FasterRCNN,
        *,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        pre_nms: int = 1000,
        min_size: float = 1e-2,
        name: str = "detections",
    ):
        super().__init__(name=name)
        self.faster_rcnn = faster_rcnn
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections
        self.pre_nms = pre_nms
        self.min_size = min_size
        self.built = True

    def call(self, inputs, training=None):
        inputs = {name: inputs[name] for name in ("image", "image_hw", "rois") if name in inputs}
        outputs = self.faster_rcnn(inputs, training=training)
        boxes, scores, class_ids = select_detections(
            outputs["class_logits"],
            outputs["box_deltas"],
            outputs["rois"],
            inputs["image_hw"],
            delta_weights=self.faster_rcnn.roi_targets.delta_weights,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            pre_nms=self.pre_nms,
            min_size=self.min_size,
        )
        return {"boxes": boxes, "scores": scores, "class_ids": class_ids}

    def get_config(self):
        return {
            "faster_rcnn": serialize_part(self.faster_rcnn),
            "score_threshold": self.score_threshold,
            "nms_iou": self.nms_iou,
            "max_detections": self.max_detections,
            "pre_nms": self.pre_nms,
            "min_size": self.min_size,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("faster_rcnn")), **config)


def select_detections(
    class_logits,
    box_deltas,
    rois,
    image_hw,
    *,
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    score_threshold: float = 0.05,
    nms_iou: float = 0.5,
    max_detections: int = 100,
    pre_nms: int = 1000,
    min_size: float = 1e-2,
):
    """Turn the outputs of a RoI head into detections.

    Each RoI gives one box per class. Boxes are clipped to the image; those below the threshold and slivers are dropped;
    NMS is run within each class; the best of all classes remain.

    Args:
        class_logits: float32 (B, R, C + 1), background first; R is at least 1.
        box_deltas: float32 (B, R, C, 4), dx, dy, dw, dh of each class.
        rois: float32 (B, R, 4), xyxy pixels; boxes of 0 in unused places give no detection.
        image_hw: int32 (B, 2), (height, width) to clip to.
        delta_weights: factors with which the deltas were encoded.
        score_threshold, nms_iou, max_detections, pre_nms, min_size: see `DetectionModel`.

    Returns:
        boxes float32 (B, D, 4), scores float32 (B, D) and class_ids int32 (B, D), as DetectionModel returns them.

    Source: agrees with torchvision's RoIHeads.postprocess_detections as long as no more than `pre_nms` boxes of an
        image pass the threshold; torchvision has no such limit.
    """
    class_logits = ops.convert_to_tensor(class_logits, dtype="float32")
    batch, num_rois = ops.shape(class_logits)[:2]
    num_classes = class_logits.shape[-1] - 1
    scores = ops.softmax(class_logits, axis=-1)[..., 1:]
    boxes = decode_boxes(ops.convert_to_tensor(rois)[:, :, None, :], box_deltas, delta_weights)
    boxes = clip_boxes(boxes, image_hw)
    large = ops.all(boxes[..., 2:] - boxes[..., :2] >= min_size, axis=-1)
    scores = ops.where(ops.logical_and(large, scores > score_threshold), scores, -math.inf)

    # Of one image in one row: the classes of the first RoI, then those of the next.
    scores, place = top_scores(ops.reshape(scores, (batch, num_rois * num_classes)), pre_nms)
    boxes = ops.reshape(boxes, (batch, num_rois * num_classes, 4))
    boxes = ops.take_along_axis(boxes, place[..., None], axis=1)
    class_ids = place % num_classes
    kept = nms(boxes, scores, iou=nms_iou, groups=class_ids)

    scores, place = top_scores(ops.where(kept, scores, -math.inf), max_detections, fill=True)
    found = scores > -math.inf
    boxes = ops.take_along_axis(boxes, place[..., None], axis=1)
    class_ids = ops.take_along_axis(class_ids, place, axis=1)
    return ops.where(found[..., None], boxes, 0.0), ops.where(found, scores, -1.0), ops.where(found, class_ids, -1)
