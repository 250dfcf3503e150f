"""detfeed: a data feed for training object detectors in Keras.

Importing it needs no Keras: the Sequences are resolved on first use.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read when albumentations is imported, which otherwise asks the network for a newer release.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from detfeed.annotations import Annotations, concat
from detfeed.batches.ledger import Replace
from detfeed.batches.loader import BatchLoader
from detfeed.batches.samplers import ClassBalanced, LimitEmpty, Mix, RepeatFactor
from detfeed.errors import (
    AnnotationError,
    DetfeedError,
    ImageError,
    MissingImageError,
    RepeatedImageError,
    SampleError,
    WorkerError,
)
from detfeed.images.canvases import Fixed, ShortSide
from detfeed.proposals import Proposals, read_proposals
from detfeed.readers.coco import read_coco, write_coco
from detfeed.readers.csv import read_csv
from detfeed.readers.kitti import read_kitti
from detfeed.readers.lvis import read_lvis
from detfeed.readers.openimages import read_openimages
from detfeed.readers.table import BadBoxesWarning
from detfeed.readers.voc import read_voc
from detfeed.readers.yolo import read_yolo
from detfeed.recall import proposal_recall
from detfeed.sample import Sample
from detfeed.shapes import make_shapes
from detfeed.targets.anchor_targets import AnchorTargets, RoiTargets
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.matching import match_anchors, sample_anchors

if TYPE_CHECKING:
    from detfeed.callbacks import FeedMonitor, ResumeFeed
    from detfeed.sequence import AnchorTargetSequence, DetectionSequence, RoiTargetSequence

__version__ = "0.1.0.dev0"

__all__ = [
    "AnchorGrid",
    "AnchorTargetSequence",
    "AnchorTargets",
    "AnnotationError",
    "Annotations",
    "BadBoxesWarning",
    "BatchLoader",
    "ClassBalanced",
    "DetectionSequence",
    "DetfeedError",
    "FeedMonitor",
    "Fixed",
    "ImageError",
    "LimitEmpty",
    "MissingImageError",
    "Mix",
    "Proposals",
    "RepeatFactor",
    "RepeatedImageError",
    "Replace",
    "ResumeFeed",
    "RoiTargetSequence",
    "RoiTargets",
    "Sample",
    "SampleError",
    "ShortSide",
    "WorkerError",
    "concat",
    "make_shapes",
    "match_anchors",
    "proposal_recall",
    "read_coco",
    "read_csv",
    "read_kitti",
    "read_lvis",
    "read_openimages",
    "read_proposals",
    "read_voc",
    "read_yolo",
    "sample_anchors",
    "write_coco",
]

_NEED_KERAS = {
    "AnchorTargetSequence": "detfeed.sequence",
    "DetectionSequence": "detfeed.sequence",
    "FeedMonitor": "detfeed.callbacks",
    "ResumeFeed": "detfeed.callbacks",
    "RoiTargetSequence": "detfeed.sequence",
}


if not TYPE_CHECKING:  # a type checker takes a module with __getattr__ to have every name, misspelt ones too

    def __getattr__(name: str) -> Any:
        if name in _NEED_KERAS:
            return getattr(importlib.import_module(_NEED_KERAS[name]), name)
        raise AttributeError(f"module 'detfeed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
