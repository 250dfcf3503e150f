"""Calls of detfeed for type checkers; nothing here runs.

`test_typing.py` holds checkers to this file: each line with `# wrong: TEXT` must be found with TEXT in the message, and
no other line. Only pyright finds `# wrong to pyright: TEXT`, since mypy skips `detfeed.models`.
"""

from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

import detfeed
from detfeed import (
    AnchorGrid,
    AnchorTargets,
    AnchorTargetSequence,
    Annotations,
    BatchLoader,
    DetectionSequence,
    FeedMonitor,
    Fixed,
    Proposals,
    RepeatFactor,
    Replace,
    ResumeFeed,
    RoiTargets,
    RoiTargetSequence,
    Sample,
    ShortSide,
    StageArguments,
)
from detfeed.models import RPN, ProposalModel, Schedule

SMALL = Fixed((64, 64))


def count(sample: Sample) -> dict[str, NDArray[np.float32]]:
    return {"count": np.array([len(sample.boxes)], np.float32)}


def weighed(sample: Sample) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    return count(sample), count(sample), count(sample)


def right(data: Annotations, anchors: AnchorGrid, proposals: Proposals) -> None:
    train = AnchorTargetSequence(
        data,
        anchors,
        targets="dense",
        batch_size=2,
        resize=ShortSide(800, max_side=1333),
        augment=albumentations.HorizontalFlip(p=0.5),
        seed=1,
        shard=(0, 2),
        sampler=RepeatFactor(0.001),
        on_error=Replace(0.01, "replaced.jsonl"),
        workers=2,
        use_multiprocessing=True,
        positive_iou=0.5,
        straddle=None,
    )
    x, y = train[0][:2]
    print(x["image"].sum(), y["objectness"].sum())
    train.close()
    AnchorTargetSequence.from_coco("a.json", "images", anchors, batch_size=2, resize=SMALL, invalid="drop")
    AnchorTargetSequence.from_voc("VOC", "train", anchors, batch_size=2, resize=SMALL, annotation_dir="XML")
    DetectionSequence(data, targets=count, batch_size=2, resize=SMALL, augment="flip")
    DetectionSequence(data, targets=count, batch_size=2, resize=SMALL, augment="ssd", schedule={90: {"augment": None}})
    DetectionSequence(data, targets=weighed, batch_size=2, resize=SMALL, on_error="raise", timeout=60)
    DetectionSequence(data, targets=RoiTargets(), proposals=proposals, batch_size=2, resize=SMALL)
    RoiTargetSequence(data, proposals, batch_size=2, resize=SMALL, num_samples=64)
    BatchLoader(data, AnchorTargets(anchors, num_samples=64), batch_size=2, resize=SMALL).load(0, 0)
    detfeed.read_voc("VOC", "train", class_names=("cat", "dog"))
    detfeed.recipes.lsj(high=1.5)
    ProposalModel(RPN(anchors, weights="imagenet", frozen_stages=2), nms_iou=0.5)
    Schedule(epochs=3, optimizer="sgd")
    print(FeedMonitor(train).history, ResumeFeed(train).sequence)


def misspelt(data: Annotations, anchors: AnchorGrid, proposals: Proposals) -> None:
    from_coco, from_voc = AnchorTargetSequence.from_coco, AnchorTargetSequence.from_voc
    from_coco("a", "b", anchors, batch_size=2, resize=SMALL, positive_iuo=0.5)  # wrong: positive_iuo
    from_coco("a", "b", anchors, batch_size=2, resize=SMALL, annotation_dir="x")  # wrong: annotation_dir
    from_voc("a", "b", anchors, batch_size=2, resize=SMALL, anotation_dir="x")  # wrong: anotation_dir
    AnchorTargetSequence(data, anchors, batch_size=2, resize=SMALL, bacth_size=3)  # wrong: bacth_size
    AnchorTargetSequence(data, anchors, batch_size=2, resize=SMALL, positive_iuo=0.5)  # wrong: positive_iuo
    DetectionSequence(data, targets=count, batch_size=2, resize=SMALL, positive_iou=0.5)  # wrong: positive_iou
    DetectionSequence(data, targets=count, batch_size=2, resize=SMALL, use_multiprocesing=True)  # wrong: multiprocesing
    BatchLoader(data, count, batch_size=2, resize=SMALL, schedule={9: {"agument": None}})  # wrong: StageArguments
    RoiTargetSequence(data, proposals, batch_size=2, resize=SMALL, forground_iou=0.5)  # wrong: forground_iou
    BatchLoader(data, count, batch_size=2, resize=SMALL, workers=2)  # wrong: workers
    AnchorTargets(anchors, positive_iuo=0.5)  # wrong: positive_iuo
    RoiTargets(foreground=0.5)  # wrong: foreground
    AnchorGrid.fpn(size=(8, 16))  # wrong: size
    ShortSide(800, max_size=1333)  # wrong: max_size
    FeedMonitor(sequence=DetectionSequence(data, targets=count, batch_size=2, resize=SMALL), quiet=True)  # wrong: quiet
    detfeed.read_coco("a.json", "images", invalid="drop", on_problems=print)  # wrong: on_problems
    detfeed.read_voc("VOC", "train", anotation_dir="x")  # wrong: anotation_dir
    detfeed.reed_voc("VOC", "train")  # wrong: reed_voc
    detfeed.recipes.lsj(hihg=1.5)  # wrong: hihg
    RPN(anchors, wieghts="imagenet")  # wrong to pyright: wieghts
    ProposalModel(RPN(anchors), nms_iuo=0.5)  # wrong to pyright: nms_iuo
    Schedule(epoch=3)  # wrong to pyright: epoch


def mistyped(data: Annotations, anchors: AnchorGrid, proposals: Proposals) -> None:
    DetectionSequence(data, targets=count, batch_size=2, resize=SMALL, seed="1")  # wrong: seed
    DetectionSequence(data, targets=count, batch_size=2, resize=600)  # wrong: resize
    DetectionSequence(data, targets=count, resize=SMALL)  # wrong: batch_size
    DetectionSequence(data, targets=count, batch_size=2, resize=SMALL, on_error="replace")  # wrong: on_error
    BatchLoader(data, count, batch_size=2, resize=SMALL, schedule={9: StageArguments(min_size="8")})  # wrong: min_size
    AnchorTargetSequence(data, [32, 64], batch_size=2, resize=SMALL)  # wrong: AnchorGrid
    AnchorTargetSequence(data, anchors, targets="spares", batch_size=2, resize=SMALL)  # wrong: spares
    RoiTargetSequence(data, "proposals.json", batch_size=2, resize=SMALL)  # wrong: Proposals
    detfeed.read_coco("a.json", "images", invalid="keep")  # wrong: keep
    Schedule(optimizer="lion")  # wrong to pyright: lion
