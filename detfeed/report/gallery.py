"""Gallery: pictures of what is fed, made from the samples and targets themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.average_precision import DetectionColumns
from detfeed.batches.loader import BatchLoader
from detfeed.boxes import Boxes
from detfeed.errors import ImageError
from detfeed.report.pictures import LARGE, Layer, Pictures, Shape, box, dot, outline, tie
from detfeed.sample import Sample
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.matches import NEGATIVE, POSITIVE, AnchorMatches


def add_fed(
    pictures: Pictures,
    loader: BatchLoader,
    targets: AnchorTargets,
    positions: Sequence[int],
    *,
    name: str,
    class_numbers: Sequence[int],
    detections: Callable[[int], list[Shape]] | None = None,
) -> list[int]:
    """Add pictures of samples as they are fed in epoch 0.

    Args:
        pictures: gets them.
        loader: of the data set; its own target function is not called.
        targets: in the sampled form, drawn as training would draw them.
        positions: which images.
        name: of the data set.
        class_numbers: of each of its classes, the number in the page's list of the classes of all data sets.
        detections: gives the shapes of an image's detections on its canvas. Only for a loader that does not augment.

    Returns:
        The numbers of the pictures. Images that can't be read have none: they are findings of the check.
    """
    numbers = []
    for position in positions:
        with contextlib.suppress(ImageError):
            numbers.append(_add(pictures, loader, targets, position, name, class_numbers, detections))
    return numbers


def _add(
    pictures: Pictures,
    loader: BatchLoader,
    targets: AnchorTargets,
    position: int,
    name: str,
    class_numbers: Sequence[int],
    detections: Callable[[int], list[Shape]] | None,
) -> int:
    sample = loader.load_sample(0, position)
    matches = targets.match(sample)
    # Once, on a fresh sample: the targets are drawn from the sample's generator, as in training.
    y: Any = targets(sample)[1]
    names = loader.annotations.class_names
    unmatched = ~np.isin(np.arange(len(sample.boxes)), matches.match) & ~sample.ignore
    layers: dict[Layer, list[Shape]] = {
        "ignored": _regions(sample, names),
        "masks": [
            outline(sample.masks[row], f"mask of {_name(sample, row, names)}")
            for row in sample.masks
            if not sample.ignore[row]
        ],
        **_anchors(sample, targets, matches, y),
        "truth": [
            box(
                sample.boxes[row],
                f"{_name(sample, row, names)}, {_size(sample.boxes[row])}"
                + ("; no positive anchor" if unmatched[row] else f"; {_best(matches, row)}"),
                "unmatched" if unmatched[row] else "",
            )
            for row in np.flatnonzero(~sample.ignore).tolist()
        ],
        "keypoints": _keypoints(sample, loader.annotations),
    }
    if detections is not None:
        layers["detections"] = detections(position)
    path = loader.annotations.paths[position]
    num_objects, num_unmatched = int((~sample.ignore).sum()), int(unmatched.sum())
    height, width = loader.annotations.image_hw[position].tolist()
    return pictures.add(
        pictures.add_source(sample.image, LARGE),
        image_hw=sample.image_hw,
        canvas_hw=sample.input_hw,
        title=f"{name}: image {sample.image_id}",
        notes=[
            f"{num_objects} objects, {num_unmatched} without a positive anchor; "
            f"{(y['anchor_state'] == POSITIVE).sum()} of {len(matches.positive)} positive anchors sampled, "
            f"{(y['anchor_state'] == NEGATIVE).sum()} negative",
            f"{path}, {width} x {height}, fed {sample.image_hw[1]} x {sample.image_hw[0]} "
            f"on {sample.input_hw[1]} x {sample.input_hw[0]}",
        ],
        layers=layers,
        data=name,
        classes=sorted({class_numbers[class_id] for class_id in sample.class_ids.tolist()}),
        objects=num_objects,
        unmatched=num_unmatched,
    )


def _name(sample: Sample, row: int, names: Sequence[str]) -> str:
    return names[int(sample.class_ids[row])]


def _size(corners: Any) -> str:
    return f"{corners[2] - corners[0]:.0f} x {corners[3] - corners[1]:.0f} px"


def _best(matches: AnchorMatches, row: int) -> str:
    own = matches.iou[matches.match == row]
    return f"{len(own)} positive anchors, best IoU {own.max():.2f}"


def _regions(sample: Sample, names: Sequence[str]) -> list[Shape]:
    masks = sample.region_masks
    shapes = []
    for row in np.flatnonzero(sample.ignore).tolist():
        reason = IgnoreReason(int(sample.ignore_reasons[row])).name.lower()
        text = f"ignored ({reason}): {_name(sample, row, names)}, {_size(sample.boxes[row])}"
        shapes.append(outline(masks[row], text) if row in masks else box(sample.boxes[row], text))
    return shapes


def _anchors(sample: Sample, targets: AnchorTargets, matches: AnchorMatches, y: Any) -> dict[Layer, list[Shape]]:
    anchors = targets.anchors.anchors(sample.input_hw)
    index, state = y["anchor_index"], y["anchor_state"]
    levels = np.cumsum(targets.anchors.num_anchors_per_level(sample.input_hw))
    positives: list[Shape] = []
    for anchor in index[state == POSITIVE].tolist():
        place = int(np.searchsorted(matches.positive, anchor))
        row, iou = int(matches.match[place]), float(matches.iou[place])
        low = iou < targets.positive_iou
        text = (
            f"positive anchor, IoU {iou:.2f}{' (low quality)' if low else ''}, {_size(anchors[anchor])}, level "
            f"{int(np.searchsorted(levels, anchor, side='right'))}"
        )
        positives.append(tie(_centre(anchors[anchor]), _centre(sample.boxes[row])))
        positives.append(box(anchors[anchor], text, "low" if low else ""))
    negatives = [
        dot(_centre(anchors[anchor]), f"negative anchor, {_size(anchors[anchor])}")
        for anchor in index[state == NEGATIVE].tolist()
    ]
    return {"negatives": negatives, "positives": positives}


def _centre(corners: Any) -> tuple[float, float]:
    return float(corners[0] + corners[2]) / 2, float(corners[1] + corners[3]) / 2


def _keypoints(sample: Sample, annotations: Annotations) -> list[Shape]:
    points = annotations.keypoints
    names = () if points is None else points.names
    shapes = []
    for row, own in enumerate(sample.keypoints):
        for number, (x, y, visibility) in enumerate(own.tolist()):
            if visibility > 0:
                seen = "visible" if visibility > 1 else "hidden"
                name = names[number] if names else f"keypoint {number}"
                shapes.append(dot((x, y), f"{name} of {_name(sample, row, annotations.class_names)}, {seen}", seen))
    return shapes


def found_shapes(
    found: DetectionColumns, position: int, to_canvas: Callable[[Any], Boxes], names: Sequence[str]
) -> list[Shape]:
    """The detections of an image without a verdict; those of class -1 are proposals."""
    first, last = np.searchsorted(found.positions, (position, position + 1))
    return [
        box(
            corners,
            f"{'proposal' if class_id < 0 else names[class_id]}, score {score:.2f}, {_size(corners)}",
            score=round(float(score), 3),
        )
        for corners, score, class_id in zip(
            to_canvas(found.boxes[first:last]),
            found.scores[first:last].tolist(),
            found.class_ids[first:last].tolist(),
            strict=True,
        )
    ]
