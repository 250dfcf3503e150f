"""Keras models to feed: ResNet50, FPN, RPN. They use keras.ops only, so they run on TensorFlow, JAX and torch."""

if __name__ != "detfeed.models":
    # Under a second name each class would exist twice, and isinstance would be False between the two.
    raise ImportError(f"Expected the package to be imported as detfeed.models. Received: import {__name__}.")

# First, since it says what to install where Keras has no backend.
import detfeed.backend  # noqa: F401

# isort: split
from detfeed.models.backbone import CaffeNormalize, resnet50
from detfeed.models.fpn import UpsampleLike, fpn
from detfeed.models.losses import dense_rpn_loss, sampled_rpn_loss
from detfeed.models.proposals import ProposalModel, decode_boxes, nms, place_anchors, select_proposals
from detfeed.models.rpn import RPN, rpn_head
from detfeed.models.scoring import propose, save_proposals, score
from detfeed.models.training import Schedule, train

__all__ = [
    "RPN",
    "CaffeNormalize",
    "ProposalModel",
    "Schedule",
    "UpsampleLike",
    "decode_boxes",
    "dense_rpn_loss",
    "fpn",
    "nms",
    "place_anchors",
    "propose",
    "resnet50",
    "rpn_head",
    "sampled_rpn_loss",
    "save_proposals",
    "score",
    "select_proposals",
    "train",
]
