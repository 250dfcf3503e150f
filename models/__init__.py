"""Keras models to feed: ResNet50, FPN, RPN. In keras.ops alone, so they run on TensorFlow, JAX and torch."""

from models.backbone import CaffeNormalize, resnet50
from models.fpn import UpsampleLike, fpn
from models.losses import dense_rpn_loss, sampled_rpn_loss
from models.proposals import ProposalModel, decode_boxes, nms, place_anchors, select_proposals
from models.rpn import RPN, rpn_head

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
    "rpn_head",
    "sampled_rpn_loss",
    "select_proposals",
]
