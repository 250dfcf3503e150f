"""Keras models to feed: ResNet50, FPN, RPN. In keras.ops alone, so they run on TensorFlow, JAX and torch."""

if __name__ != "detfeed.models":
    # Under a second name each class would exist twice, and isinstance would be False between the two.
    raise ImportError(f"Expected the package to be imported as detfeed.models. Received: import {__name__}.")

from detfeed.models.backbone import CaffeNormalize, resnet50
from detfeed.models.fpn import UpsampleLike, fpn
from detfeed.models.losses import dense_rpn_loss, sampled_rpn_loss
from detfeed.models.proposals import ProposalModel, decode_boxes, nms, place_anchors, select_proposals
from detfeed.models.roi_align import roi_align, roi_levels
from detfeed.models.rpn import RPN, rpn_head

__all__ = [
    "RPN",
    "CaffeNormalize",
    "ProposalModel",
    "UpsampleLike",
    "decode_boxes",
    "dense_rpn_loss",
    "fpn",
    "nms",
    "place_anchors",
    "resnet50",
    "roi_align",
    "roi_levels",
    "rpn_head",
    "sampled_rpn_loss",
    "select_proposals",
]
