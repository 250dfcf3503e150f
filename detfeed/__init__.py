"""detfeed: a data feed for training object detectors in Keras.

These names are all that is public. Importing them needs no Keras: sequences and callbacks are imported on first use.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read when albumentations is imported, which otherwise asks the network for a newer release.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from detfeed.annotations import Annotations, IgnoreReason, concat
from detfeed.augmentation.scale import Recipe, ScaleJitter
from detfeed.average_precision import average_precision, voc_average_precision
from detfeed.batches.ledger import Replace
from detfeed.batches.loader import BatchLoader
from detfeed.batches.samplers import ClassBalanced, LimitEmpty, Mix, RepeatFactor
from detfeed.batches.stages import StageArguments
from detfeed.errors import (
    AnnotationError,
    DetfeedError,
    EntryError,
    ImageError,
    MissingImageError,
    RepeatedImageError,
    SampleError,
    WorkerError,
)
from detfeed.feeding.arguments import BatchArguments, FeedArguments, SequenceArguments
from detfeed.feeding.feed import Feed
from detfeed.images.canvases import Fixed, ShortSide
from detfeed.images.decoding import read_image
from detfeed.keypoints import Keypoints
from detfeed.proposals import Proposals
from detfeed.readers.bad_boxes import BadBoxesWarning
from detfeed.readers.coco import read_coco
from detfeed.readers.coco_results import write_results
from detfeed.readers.coco_writer import write_coco
from detfeed.readers.csv import read_csv
from detfeed.readers.images import read_images
from detfeed.readers.json_lines import read_image_folder, read_ndjson
from detfeed.readers.kitti import read_kitti
from detfeed.readers.lvis import read_lvis
from detfeed.readers.openimages import read_openimages
from detfeed.readers.proposals import read_proposals
from detfeed.readers.voc import read_voc
from detfeed.readers.voc_writer import write_voc
from detfeed.readers.yolo import read_yolo
from detfeed.readers.yolo_writer import write_yolo
from detfeed.recall import proposal_recall
from detfeed.sample import Sample
from detfeed.shapes import make_shapes
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.mask_targets import MaskTargets
from detfeed.targets.padded_boxes import PaddedBoxes
from detfeed.targets.roi_targets import RoiTargets

# Last, so that `detfeed.check` is the function: loading the package of that name first makes it the package.
# isort: split
from detfeed.check import check, group_duplicates

if TYPE_CHECKING:
    from detfeed.augmentation import recipes
    from detfeed.callbacks import FeedMonitor, ResumeFeed, ScoreDetections
    from detfeed.coverage.anchor_coverage import AnchorCoverage, anchor_coverage
    from detfeed.coverage.suggestion import AnchorSuggestion, suggest_anchors
    from detfeed.detections import predict_detections
    from detfeed.report.page import write_report
    from detfeed.sequence import AnchorTargetSequence, DetectionSequence, RoiTargetSequence
    from detfeed.showing import Sheet, show

__version__ = "0.1.0.dev0"

__all__ = [
    "AnchorCoverage",
    "AnchorGrid",
    "AnchorSuggestion",
    "AnchorTargetSequence",
    "AnchorTargets",
    "AnnotationError",
    "Annotations",
    "BadBoxesWarning",
    "BatchArguments",
    "BatchLoader",
    "ClassBalanced",
    "DetectionSequence",
    "DetfeedError",
    "EntryError",
    "Feed",
    "FeedArguments",
    "FeedMonitor",
    "Fixed",
    "IgnoreReason",
    "ImageError",
    "Keypoints",
    "LimitEmpty",
    "MaskTargets",
    "MissingImageError",
    "Mix",
    "PaddedBoxes",
    "Proposals",
    "Recipe",
    "RepeatFactor",
    "RepeatedImageError",
    "Replace",
    "ResumeFeed",
    "RoiTargetSequence",
    "RoiTargets",
    "Sample",
    "SampleError",
    "ScaleJitter",
    "ScoreDetections",
    "SequenceArguments",
    "Sheet",
    "ShortSide",
    "StageArguments",
    "WorkerError",
    "anchor_coverage",
    "average_precision",
    "check",
    "concat",
    "group_duplicates",
    "make_shapes",
    "predict_detections",
    "proposal_recall",
    "read_coco",
    "read_csv",
    "read_image",
    "read_image_folder",
    "read_images",
    "read_kitti",
    "read_lvis",
    "read_ndjson",
    "read_openimages",
    "read_proposals",
    "read_voc",
    "read_yolo",
    "recipes",
    "show",
    "suggest_anchors",
    "voc_average_precision",
    "write_coco",
    "write_report",
    "write_results",
    "write_voc",
    "write_yolo",
]

# Imported on first use: what needs Keras, albumentations, which takes a second, and what no worker process needs.
_LATE = {
    "AnchorCoverage": "detfeed.coverage.anchor_coverage",
    "AnchorSuggestion": "detfeed.coverage.suggestion",
    "AnchorTargetSequence": "detfeed.sequence",
    "DetectionSequence": "detfeed.sequence",
    "FeedMonitor": "detfeed.callbacks",
    "ResumeFeed": "detfeed.callbacks",
    "RoiTargetSequence": "detfeed.sequence",
    "ScoreDetections": "detfeed.callbacks",
    "Sheet": "detfeed.showing",
    "anchor_coverage": "detfeed.coverage.anchor_coverage",
    "predict_detections": "detfeed.detections",
    "recipes": "detfeed.augmentation.recipes",
    "show": "detfeed.showing",
    "suggest_anchors": "detfeed.coverage.suggestion",
    "write_report": "detfeed.report.page",
}


if not TYPE_CHECKING:  # to a type checker, a module with __getattr__ has every name, misspelt ones too

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module 'detfeed' has no attribute {name!r}")
        module = importlib.import_module(_LATE[name])
        return getattr(module, name, module)  # `recipes` is a module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
