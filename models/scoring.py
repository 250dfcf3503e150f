"""Scoring a model: what it finds in the images of a sequence, how good that is, and pictures of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.average_precision import average_precision, gather
from detfeed.detections import Detections, predict_detections
from detfeed.drawing.detections import DETECTION_KEYS, compare_detections
from detfeed.drawing.proposals import PROPOSAL_KEYS, draw_proposals
from detfeed.drawing.sheets import contact_sheet, write_png
from detfeed.images.decoding import read_image
from detfeed.images.resizing import Image
from detfeed.models.detections import DetectionModel
from detfeed.models.detector import detect
from detfeed.models.proposals import ProposalModel
from detfeed.readers.coco_results import write_results
from detfeed.recall import proposal_recall
from detfeed.report.scoring import judge
from detfeed.sequence import DetectionSequence
from detfeed.writing import replace_file

PICTURES = 6
PROPOSAL_FIGURES = ("AR@100", "AR@1000", "recall@100", "recall@1000")
DETECTION_FIGURES = ("AP", "AP50", "AP75", "AR@100")


def main_figures(model: ProposalModel | DetectionModel) -> tuple[str, ...]:
    """Names of the figures of `score` to look at; the first decides which epoch is the best."""
    return DETECTION_FIGURES if isinstance(model, DetectionModel) else PROPOSAL_FIGURES


def score(
    model: ProposalModel | DetectionModel, sequence: DetectionSequence, run_dir: Path, *, verbose: int | str = "auto"
) -> dict[str, float]:
    """Score what a model finds in the images of a sequence.

    Of a ProposalModel, writes proposals.json (see `save_proposals`), recall.json, and proposals.png. Of a
    DetectionModel, writes detections.json (see `write_results`), metrics.json, and detections.png. A figure that does
    not exist, such as that of large objects where there are none, is null in these files.

    Args:
        model: trained.
        sequence: a sequence that does not augment or drop images.
        run_dir: folder to write into; made if it is missing.
        verbose: anything but 0 shows progress.

    Returns:
        What `proposal_recall`, or what `average_precision` returns. Federated annotations (LVIS) are scored by COCO's
        rules, as if every class was looked for in every image: compare runs by it, and score detections.json with the
        package lvis.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    annotations = sequence.annotations
    if not isinstance(model, DetectionModel):
        boxes, scores = propose(model, sequence, verbose=verbose)
        save_proposals(run_dir / "proposals.json", annotations, boxes, scores)
        figures = proposal_recall(annotations, boxes, scores)
        _write_figures(run_dir / "recall.json", figures)
        draw_pictures(run_dir / "proposals.png", annotations, boxes, scores)
        return figures
    found = predict_detections(model, sequence, detect, verbose=bool(verbose))
    write_results(run_dir / "detections.json", annotations, *found)
    figures = average_precision(dataclasses.replace(annotations, neg_classes=None, not_exhaustive_classes=None), *found)
    _write_figures(run_dir / "metrics.json", figures)
    _draw_detections(run_dir / "detections.png", annotations, found)
    return figures


def _write_figures(path: Path, figures: Mapping[str, float]) -> None:
    """Write figures as JSON, which has no NaN."""
    numbers = {name: None if math.isnan(figure) else figure for name, figure in figures.items()}
    replace_file(path, (json.dumps(numbers, indent=2, ensure_ascii=False) + "\n").encode())


def propose(
    model: ProposalModel, sequence: DetectionSequence, *, verbose: int | str = "auto"
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Proposals for every image of a sequence, in pixels of the image file.

    Args:
        model: a trained RPN in a ProposalModel.
        sequence: a sequence that does not augment or drop images.
        verbose: anything but 0 shows progress.

    Returns:
        Two lists in the order of the sequence's annotations: boxes float32 (R, 4) and scores float32 (R,), best first;
        R may be 0.
    """
    found = predict_detections(model, sequence, detect, verbose=bool(verbose))
    return found.boxes, found.scores


def save_proposals(
    path: Path,
    annotations: Annotations,
    boxes: list[NDArray[np.float32]],
    scores: list[NDArray[np.float32]],
) -> None:
    """Write proposals as a COCO results file. Every category_id is 1, since the proposals have no classes.

    Args:
        path: the file.
        annotations: the images, P of them.
        boxes, scores: P arrays each, as `propose` returns them.
    """
    results = []
    for position in range(len(annotations)):
        image_id = annotations.image_id(position)
        for (x0, y0, x1, y1), score in zip(boxes[position].tolist(), scores[position].tolist(), strict=True):
            bbox = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
            results.append({"image_id": image_id, "category_id": 1, "bbox": bbox, "score": round(score, 5)})
    replace_file(path, json.dumps(results).encode())


def draw_pictures(
    path: Path,
    annotations: Annotations,
    boxes: list[NDArray[np.float32]],
    scores: list[NDArray[np.float32]],
) -> None:
    """Draw the first images with their best proposals and their objects, as a PNG.

    Args:
        path, annotations, boxes, scores: see `save_proposals`.
    """
    tiles = []
    for position, image in _first_images(annotations):
        rows = annotations.rows(position)
        truth = annotations.boxes[rows][~annotations.ignore[rows]]
        tiles.append(draw_proposals(image, boxes[position], scores[position], truth))
    write_png(path, contact_sheet(tiles, legend=PROPOSAL_KEYS))


def _draw_detections(path: Path, annotations: Annotations, found: Detections) -> None:
    """Draw the first images with what was found beside the truth, as a PNG."""
    columns = gather(annotations, *found)
    judged = judge(annotations, columns)
    is_found = judged.found(len(annotations.boxes))
    names = annotations.class_names
    tiles = []
    for position, image in _first_images(annotations):
        rows = annotations.rows(position)
        first, last = np.searchsorted(columns.positions, (position, position + 1)).tolist()
        own = first + np.flatnonzero(judged.shown[first:last])
        tiles.append(
            compare_detections(
                image,
                columns.boxes[own].astype(np.float32),
                [f"{names[columns.class_ids[row]]} {columns.scores[row]:.2f}" for row in own.tolist()],
                (judged.right | judged.neutral)[own],
                truth=(
                    annotations.boxes[rows],
                    [names[class_id] for class_id in annotations.class_ids[rows].tolist()],
                    annotations.ignore[rows],
                ),
                found=is_found[rows],
            )
        )
    title = f"detections with a score of {judged.threshold:.2f} or more, where F1 is highest"
    write_png(path, contact_sheet(tiles, columns=2, legend=DETECTION_KEYS, title=title))


def _first_images(annotations: Annotations) -> Iterator[tuple[int, Image]]:
    for position in range(min(len(annotations), PICTURES)):
        height, width = annotations.image_hw[position].tolist()
        yield position, read_image(annotations.paths[position], annotated_hw=(height, width))
