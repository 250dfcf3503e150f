"""Scoring an RPN: its proposals for the images of a sequence, their recall, and pictures of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.detections import predict_detections
from detfeed.drawing.proposals import PROPOSAL_KEYS, draw_proposals
from detfeed.drawing.sheets import contact_sheet, write_png
from detfeed.images.decoding import read_image
from detfeed.models.proposals import ProposalModel
from detfeed.recall import proposal_recall
from detfeed.sequence import DetectionSequence
from detfeed.writing import replace_file

PICTURES = 6


def score(
    model: ProposalModel, sequence: DetectionSequence, run_dir: Path, *, verbose: int | str = "auto"
) -> dict[str, float]:
    """Score the proposals for the images of a sequence.

    Writes proposals.json (see `save_proposals`), recall.json, and proposals.png (see `draw_pictures`).

    Args:
        model, sequence, verbose: see `propose`.
        run_dir: folder to write into; made if it is missing.

    Returns:
        The recalls that `proposal_recall` returns.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    boxes, scores = propose(model, sequence, verbose=verbose)
    save_proposals(run_dir / "proposals.json", sequence.annotations, boxes, scores)
    recall = proposal_recall(sequence.annotations, boxes, scores)
    replace_file(run_dir / "recall.json", (json.dumps(recall, indent=2) + "\n").encode())
    draw_pictures(run_dir / "proposals.png", sequence.annotations, boxes, scores)
    return recall


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

    def detect(model, x):
        found = model.predict_on_batch(x)
        return found["boxes"], found["scores"], np.where(found["scores"] >= 0, 0, -1)  # one class, and padding

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
    for position in range(min(len(annotations), PICTURES)):
        rows = annotations.rows(position)
        truth = annotations.boxes[rows][~annotations.ignore[rows]]
        height, width = annotations.image_hw[position].tolist()
        image = read_image(annotations.paths[position], annotated_hw=(height, width))
        tiles.append(draw_proposals(image, boxes[position], scores[position], truth))
    write_png(path, contact_sheet(tiles, legend=PROPOSAL_KEYS))
