"""Keras models to feed: ResNet50, FPN, RPN, Faster R-CNN. In keras.ops only, so on TensorFlow, JAX and torch alike."""

import sys

# First, since it says what to install where Keras has no backend.
import detfeed.backend  # noqa: F401

# isort: split
from detfeed.models.backbone import CaffeNormalize, resnet50, resnet50_stage5
from detfeed.models.detections import DetectionModel, select_detections
from detfeed.models.detector import Detector, Found, load_detector
from detfeed.models.faster_rcnn import FasterRCNN
from detfeed.models.fpn import UpsampleLike, fpn
from detfeed.models.losses import dense_rpn_loss, roi_loss, sampled_rpn_loss
from detfeed.models.proposals import ProposalModel, decode_boxes, encode_boxes, nms, place_anchors, select_proposals
from detfeed.models.roi_align import roi_align, roi_levels
from detfeed.models.roi_sampling import RoiSampler, match_rois, sample_rois
from detfeed.models.rpn import RPN, rpn_head
from detfeed.models.scoring import propose, save_proposals, score
from detfeed.models.training import Schedule, train

if __name__ != "detfeed.models":
    # In a clone the folder is found as `models`, too. That is a second name of the one package: a second package would
    # have each class again, and isinstance would be False between the two.
    for _name in [name for name in sys.modules if f"{name}.".startswith("detfeed.models.")]:
        sys.modules[_name.replace("detfeed.models", __name__, 1)] = sys.modules[_name]

__all__ = [
    "RPN",
    "CaffeNormalize",
    "DetectionModel",
    "Detector",
    "FasterRCNN",
    "Found",
    "ProposalModel",
    "RoiSampler",
    "Schedule",
    "UpsampleLike",
    "decode_boxes",
    "dense_rpn_loss",
    "encode_boxes",
    "fpn",
    "load_detector",
    "match_rois",
    "nms",
    "place_anchors",
    "propose",
    "resnet50",
    "resnet50_stage5",
    "roi_align",
    "roi_levels",
    "roi_loss",
    "rpn_head",
    "sample_rois",
    "sampled_rpn_loss",
    "save_proposals",
    "score",
    "select_detections",
    "select_proposals",
    "train",
]
