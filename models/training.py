"""Training and scoring an RPN on what detfeed feeds."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from detfeed import Annotations, DetectionSequence, FeedMonitor, ResumeFeed, drawing, proposal_recall
from detfeed.images.decoding import read_image
from detfeed.models.proposals import ProposalModel

PICTURES = 6
# Of Kingma & Ba and of torch. Keras's 1e-7 damps the first steps of weights whose gradients are that small, which the
# mean over 256 anchors an image makes them.
ADAM_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an RPN is optimised. The defaults, with batches of two, train one from random weights.

    A small data set gives few steps, and small batches more of them: on 205 images of blood cells and in 10 epochs,
    batches of two with a warm-up and a cosine decay go further than batches of eight at a constant 1e-4.

    Attributes:
        epochs: passes over the data.
        steps: upper limit of optimiser steps in all. None: as many as the epochs have.
        optimizer: "adam", "adamw" or "sgd" (momentum 0.9).
        learning_rate: the highest.
        warmup_steps: steps over which it rises to that from 0.
        decay: "cosine", down to a hundredth over all steps, or "none".
        weight_decay: of "adamw" and "sgd".
        clip_norm: upper limit of the gradients' global norm. None: no limit.
    """

    epochs: int = 10
    steps: int | None = None
    optimizer: str = "adam"
    learning_rate: float = 2e-4
    warmup_steps: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimiser steps in all."""
        steps = self.epochs * batches_per_epoch
        return steps if self.steps is None else min(steps, self.steps)

    def build_optimizer(self, total_steps: int) -> keras.optimizers.Optimizer:
        """The optimiser with its learning rate schedule.

        Raises:
            ValueError: unknown optimizer or decay.
        """
        rate: Any = self.learning_rate
        warmup = min(self.warmup_steps, total_steps - 1)
        if self.decay == "cosine" or warmup:
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if warmup else self.learning_rate,
                max(total_steps - warmup, 1),
                alpha=0.01 if self.decay == "cosine" else 1.0,
                warmup_target=self.learning_rate if warmup else None,
                warmup_steps=warmup,
            )
        if self.decay not in ("cosine", "none"):
            raise ValueError(f'Expected decay to be "cosine" or "none". Received: {self.decay!r}')
        if self.optimizer == "adam":
            return keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON, global_clipnorm=self.clip_norm)
        if self.optimizer == "adamw":
            return keras.optimizers.AdamW(
                rate, weight_decay=self.weight_decay, epsilon=ADAM_EPSILON, global_clipnorm=self.clip_norm
            )
        if self.optimizer == "sgd":
            return keras.optimizers.SGD(
                rate, momentum=0.9, weight_decay=self.weight_decay or None, global_clipnorm=self.clip_norm
            )
        raise ValueError(f'Expected optimizer to be "adam", "adamw" or "sgd". Received: {self.optimizer!r}')


def train(
    model: ProposalModel,
    sequence: DetectionSequence,
    validation: DetectionSequence | None,
    run_dir: Path,
    *,
    recipe: Recipe,
    validate_every: int = 1,
    backup_every: int | None = None,
    verbose: int | str = "auto",
) -> dict[str, float]:
    """Fit an RPN and keep all that is worth keeping in a folder.

    Writes log.csv and curves.png (losses and recall by epoch), fed.csv (the ids of the images of each step as
    planned; the ledger of `sequence` says which were replaced), tensorboard/, backup/ (model and optimiser: training
    goes on from there if it exists, with the batch that follows), rpn.weights.h5, and what `score` writes.

    Args:
        model: its RPN is trained; compiled here.
        sequence: training batches.
        validation: images to score, in a sequence that does not shuffle; None: no scores.
        run_dir: the folder; made if it is missing.
        recipe: see `Recipe`.
        validate_every: score after every so many epochs, and after the last.
        backup_every: steps from backup to backup. None: one at the end of each epoch.
        verbose: Keras's own.

    Returns:
        The logs of the last epoch: losses, and the recall of `detfeed.proposal_recall`.

    Raises:
        FloatingPointError: the loss of a batch is not finite; the message names its images.
    """
    rpn = model.rpn
    run_dir.mkdir(parents=True, exist_ok=True)
    total = recipe.total_steps(len(sequence))
    rpn.compile(optimizer=recipe.build_optimizer(total))
    epochs = math.ceil(total / len(sequence))
    # Both bring back the same; one keeps it at the end of each epoch as well.
    backups = [
        keras.callbacks.BackupAndRestore(
            str(run_dir / "backup"), save_freq=save_freq, double_checkpoint=True, delete_checkpoint=False
        )
        for save_freq in (*([backup_every] if backup_every else []), "epoch")
    ]
    callbacks: list[keras.callbacks.Callback] = [_Progress(sequence, total)]
    if validation is not None:
        callbacks.append(_Recall(model, validation, run_dir, every=validate_every, last=epochs))
    log = run_dir / "log.csv"
    callbacks += [
        _Log(log),
        keras.callbacks.TensorBoard(str(run_dir / "tensorboard"), write_graph=False),
        FeedMonitor(sequence, verbose=bool(verbose)),
        # An epoch is done when it is scored and logged as well.
        *backups,
        ResumeFeed(sequence),
        _Fed(sequence, run_dir / "fed.csv"),
    ]
    with warnings.catch_warnings():
        # Of an epoch that is gone on with; that all of it was fed is what _Progress sees to.
        warnings.filterwarnings("ignore", message="Your input ran out of data", category=UserWarning)
        # Shuffled by the sequence already; and so Keras's batches are the sequence's, whose images can be named.
        history = rpn.fit(sequence, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=verbose)
    sequence.close()
    rpn.save_weights(run_dir / "rpn.weights.h5")
    if log.exists():
        draw_curves(log, run_dir / "curves.png")
    return {name: float(values[-1]) for name, values in history.history.items()}


def propose(
    model: ProposalModel, sequence: DetectionSequence, *, verbose: int | str = "auto"
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Proposals of every image of a sequence, in pixels of the image file.

    Args:
        model: the RPN with its choice of proposals.
        sequence: does not shuffle, augment or drop.
        verbose: Keras's own.

    Returns:
        Two lists in the order of the sequence's annotations: boxes float32 (R, 4) and scores float32 (R,), best first.
    """
    annotations = sequence.annotations
    order = np.concatenate([sequence.positions(index) for index in range(len(sequence))]).tolist()
    found = model.predict(sequence, verbose=verbose)
    boxes: list[NDArray[np.float32]] = [np.zeros((0, 4), np.float32)] * len(annotations)
    scores: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(annotations)
    for row, position in enumerate(order):
        present = found["scores"][row] >= 0
        scale = (annotations.image_hw[position] / sequence.loader.placed_hw(position))[[1, 0, 1, 0]]
        boxes[position] = (found["boxes"][row][present] * scale).astype(np.float32)
        scores[position] = found["scores"][row][present]
    return boxes, scores


def score(
    model: ProposalModel, sequence: DetectionSequence, run_dir: Path, *, verbose: int | str = "auto"
) -> dict[str, float]:
    """Score the proposals of a sequence's images.

    Writes proposals.json (see `save_proposals`), recall.json, and proposals.png, the first images with their best
    proposals.

    Args:
        model, sequence, verbose: see `propose`.
        run_dir: folder to write into; made if it is missing.

    Returns:
        What `detfeed.proposal_recall` returns.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    boxes, scores = propose(model, sequence, verbose=verbose)
    save_proposals(run_dir / "proposals.json", sequence.annotations, boxes, scores)
    recall = proposal_recall(sequence.annotations, boxes, scores)
    (run_dir / "recall.json").write_text(json.dumps(recall, indent=2) + "\n")
    tiles = []
    for position in range(min(len(sequence.annotations), PICTURES)):
        rows = sequence.annotations.rows(position)
        truth = sequence.annotations.boxes[rows][~sequence.annotations.ignore[rows]]
        height, width = sequence.annotations.image_hw[position].tolist()
        image = read_image(sequence.annotations.paths[position], annotated_hw=(height, width))
        tiles.append(drawing.draw_proposals(image, boxes[position], scores[position], truth))
    drawing.write_png(run_dir / "proposals.png", drawing.contact_sheet(tiles, legend=drawing.PROPOSAL_KEYS))
    return recall


def save_proposals(
    path: Path,
    annotations: Annotations,
    boxes: list[NDArray[np.float32]],
    scores: list[NDArray[np.float32]],
) -> None:
    """Write proposals as a COCO results file; every category_id is 1, since an RPN knows no classes."""
    results = []
    for position in range(len(annotations)):
        image_id = annotations.image_id(position)
        for (x0, y0, x1, y1), score in zip(boxes[position].tolist(), scores[position].tolist(), strict=True):
            bbox = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
            results.append({"image_id": image_id, "category_id": 1, "bbox": bbox, "score": round(score, 5)})
    path.write_text(json.dumps(results))


def draw_curves(log: Path, picture: Path) -> None:
    """Draw losses and recall by epoch from a log.csv."""
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    groups = (
        (axes[0], "loss", ("loss", "objectness_loss", "box_loss")),
        (axes[1], "recall", ("AR@100", "AR@1000", "recall@100", "recall@1000")),
    )
    for axis, title, names in groups:
        for name in names:
            points = [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set_xlabel("epoch")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[1].set_ylim(0, 1)
    figure.savefig(picture, dpi=120)


class _Progress(keras.callbacks.Callback):
    """Stop after the last step, on a loss that is not finite, and on an epoch that was not fed whole."""

    def __init__(self, sequence: DetectionSequence, total_steps: int) -> None:
        super().__init__()
        self.sequence = sequence
        self.total_steps = total_steps

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        # A resumed run may begin in the midst of an epoch; Keras counts its batches from 0.
        self.done = self.first = self.sequence.loader.num_batches - len(self.sequence)

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            annotations = self.sequence.annotations
            images = [
                f"{annotations.image_id(p)} ({annotations.paths[p]})"
                for p in self.sequence.loader.batches(self.epoch)[self.first + batch].tolist()
            ]
            raise FloatingPointError(
                f"The loss is {logs['loss']} after batch {self.first + batch} of epoch {self.epoch}, of the images "
                f"{', '.join(images)}. Look at them, or lower the learning rate or clip_norm."
            )
        self.done = self.first + batch + 1
        if self.epoch * self.sequence.loader.num_batches + self.done >= self.total_steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self.done < self.sequence.loader.num_batches and not self.model.stop_training:
            raise RuntimeError(
                f"Epoch {epoch} ended after {self.done} of {self.sequence.loader.num_batches} batches: its data ended "
                "too early."
            )


class _Fed(keras.callbacks.Callback):
    """Write down which images each step was trained on; what a resumed run does again, it writes again."""

    def __init__(self, sequence: DetectionSequence, path: Path) -> None:
        super().__init__()
        self.sequence = sequence
        self.path = path

    def on_train_begin(self, logs=None):
        # After ResumeFeed, which knows what the restored model was trained on.
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.reader(file))[1:]
        rows = [row for row in rows if (int(row[0]), int(row[1])) < self.sequence.cursor]
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([("epoch", "batch", "image_ids"), *rows])

    def on_train_batch_end(self, batch, logs=None):
        sequence = self.sequence
        ids = [sequence.annotations.image_id(p) for p in sequence.positions(batch).tolist()]
        place = sequence.loader.num_batches - len(sequence) + batch  # in the epoch, which may have begun in its midst
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow((sequence.epoch, place, " ".join(map(str, ids))))


class _Recall(keras.callbacks.Callback):
    """Add the recall of a validation set to the logs of an epoch."""

    def __init__(
        self, proposals: ProposalModel, sequence: DetectionSequence, run_dir: Path, *, every: int, last: int
    ) -> None:
        super().__init__()
        self.proposals = proposals
        self.sequence = sequence
        self.run_dir = run_dir
        self.every = every
        self.last = last

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.last:
            logs.update(score(self.proposals, self.sequence, self.run_dir, verbose=0))


class _Log(keras.callbacks.Callback):
    """Append the logs of each epoch to a CSV file, whose columns grow where an epoch brings new ones.

    keras.callbacks.CSVLogger fixes its columns on the first epoch and drops what only later ones have.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        rows: list[dict[str, Any]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
        rows.append({"epoch": epoch, **(logs or {})})
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
