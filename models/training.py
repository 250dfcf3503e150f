"""Training: its schedule, and a run whose results stay in a folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import warnings
from pathlib import Path
from typing import Literal

import keras

from detfeed.callbacks import FeedMonitor, ResumeFeed
from detfeed.models.detections import DetectionModel
from detfeed.models.detector import save_description, trained_part
from detfeed.models.proposals import ProposalModel
from detfeed.models.run_callbacks import (
    FED,
    LOG,
    STEPS,
    Curves,
    EpochLog,
    FedImages,
    KeptMemory,
    Progress,
    SavedWeights,
    StepLog,
    ValidationScores,
)
from detfeed.models.scoring import main_figures
from detfeed.sequence import DetectionSequence

# As in Kingma & Ba and in torch. The loss is a mean over 256 anchors an image, so some gradients are about as small as
# Keras's 1e-7, which would shorten the first steps of their weights.
ADAM_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How, and for how long, a model is optimised. The defaults train from random weights in batches of two.

    A small data set gives few steps, and small batches give more of them: on 205 images of blood cells and in 10
    epochs, batches of two with warm-up and cosine decay get further than batches of eight at a constant 1e-4.

    Attributes:
        epochs: passes over the data.
        steps: largest number of optimiser steps. None: no limit but `epochs`.
        optimizer: "adam", "adamw" or "sgd" (with momentum 0.9).
        learning_rate: the highest learning rate.
        warmup_steps: steps in which the learning rate rises from 0 to its highest.
        decay: "cosine", which ends at a hundredth of the highest learning rate, or "none".
        weight_decay: weight decay of "adamw" and "sgd".
        clip_norm: largest global norm of the gradients. None: no limit.

    Raises:
        ValueError: unknown optimizer or decay.
    """

    epochs: int = 10
    steps: int | None = None
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 2e-4
    warmup_steps: int = 100
    decay: Literal["cosine", "none"] = "cosine"
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.decay not in ("cosine", "none"):
            raise ValueError(f'Expected decay to be "cosine" or "none". Received: {self.decay!r}')
        if self.optimizer not in ("adam", "adamw", "sgd"):
            raise ValueError(f'Expected optimizer to be "adam", "adamw" or "sgd". Received: {self.optimizer!r}')

    def total_steps(self, batches_per_epoch: int) -> int:
        """The number of optimiser steps of the whole training."""
        steps = self.epochs * batches_per_epoch
        return steps if self.steps is None else min(steps, self.steps)

    def build_rate(self, total_steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate: a number if it is constant, else Keras's schedule."""
        warmup = min(self.warmup_steps, total_steps - 1)
        if self.decay == "none" and not warmup:
            return self.learning_rate
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else self.learning_rate,
            max(total_steps - warmup, 1),
            alpha=0.01 if self.decay == "cosine" else 1.0,
            warmup_target=self.learning_rate if warmup else None,
            warmup_steps=warmup,
        )

    def build_optimizer(self, total_steps: int) -> keras.optimizers.Optimizer:
        """A new optimiser with the learning rate of `build_rate`."""
        rate = self.build_rate(total_steps)
        if self.optimizer == "adam":
            return keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON, global_clipnorm=self.clip_norm)
        if self.optimizer == "adamw":
            return keras.optimizers.AdamW(
                rate, weight_decay=self.weight_decay, epsilon=ADAM_EPSILON, global_clipnorm=self.clip_norm
            )
        return keras.optimizers.SGD(
            rate, momentum=0.9, weight_decay=self.weight_decay or None, global_clipnorm=self.clip_norm
        )


def train(
    model: ProposalModel | DetectionModel,
    sequence: DetectionSequence,
    validation: DetectionSequence | None,
    run_dir: Path,
    *,
    schedule: Schedule,
    validate_every: int = 1,
    backup_every: int | None = None,
    verbose: int | str = "auto",
) -> dict[str, float]:
    """Train an RPN or a Faster R-CNN, and keep its weights, logs and backups in a folder.

    The folder gets from the beginning:

    - detector.json: all of the model but its weights, for `load_detector`,
    - steps.csv: the losses of each step,
    - fed.csv: the planned image ids of each step (the ledger of `sequence` has those that were replaced),
    - backup/: model and optimiser; if there is one already, training continues with the batch after it.

    After each epoch it gets:

    - log.csv and curves.png: losses and scores of each epoch,
    - tensorboard/: the same logs for TensorBoard,
    - rpn.weights.h5 or faster_rcnn.weights.h5: the weights,
    - rpn.best.weights.h5 or faster_rcnn.best.weights.h5: those of the epoch that was scored best, by AR@100 or AP,
    - the files of `score`.

    Args:
        model: its RPN or its Faster R-CNN is compiled and trained.
        sequence: training batches.
        validation: images to score, in a sequence that does not shuffle. None: no scores.
        run_dir: the folder; made if it is missing.
        schedule: how to optimise, and for how long.
        validate_every: epochs from one scoring to the next; the last epoch is always scored.
        backup_every: steps from one backup to the next. None: a backup at the end of each epoch.
        verbose: as in Keras's fit.

    Returns:
        The logs of the last epoch: losses, and what `score` returns.

    Raises:
        FloatingPointError: the loss of a batch is not finite; the message names the images of the batch.
        RuntimeError: an epoch ended before all its batches were fed.
        ImportError: matplotlib, TensorBoard, or TensorFlow, through which Keras writes for it, is not installed.
    """
    _check_installed()
    trained = trained_part(model)
    run_dir.mkdir(parents=True, exist_ok=True)
    total_steps = schedule.total_steps(len(sequence))
    epochs = math.ceil(total_steps / len(sequence))
    fed = (validation or sequence).loader
    save_description(model, sequence.annotations.class_names, fed.stage(epochs - 1).resize, run_dir)
    trained.compile(optimizer=schedule.build_optimizer(total_steps))
    scores = None
    if validation is not None:
        scores = ValidationScores(model, validation, run_dir, every=validate_every, last=epochs)
    callbacks: list[keras.callbacks.Callback] = [
        Progress(sequence, total_steps),
        KeptMemory(),
        *([scores] if scores else []),
        EpochLog(run_dir / LOG, scores),
        SavedWeights(model, run_dir),
        Curves(run_dir, main_figures(model)),
        keras.callbacks.TensorBoard(str(run_dir / "tensorboard"), write_graph=False),
        FeedMonitor(sequence, verbose=bool(verbose)),
        # After scores and logs: an epoch that a backup holds has both.
        *_backups(run_dir / "backup", backup_every),
        ResumeFeed(sequence),
        FedImages(sequence, run_dir / FED),
        StepLog(sequence, run_dir / STEPS),
    ]
    with warnings.catch_warnings():
        # A resumed epoch is short and makes Keras warn; Progress checks that all of it was fed.
        warnings.filterwarnings("ignore", message="Your input ran out of data", category=UserWarning)
        # The sequence shuffles. If Keras did too, the number of a batch would not give its images.
        history = trained.fit(sequence, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=verbose)
    sequence.close()
    last = {name: float(values[-1]) for name, values in history.history.items()}
    return last | (scores.figures if scores else {})


def _check_installed() -> None:
    """Raise an ImportError before the run, instead of at its end, if a package for its pictures or logs is missing."""
    missing = [name for name in ("matplotlib", "tensorboard", "tensorflow") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"A training run needs {' and '.join(missing)}. Install with: pip install 'detfeed[train]'", name=missing[0]
        )


def _backups(folder: Path, every: int | None) -> list[keras.callbacks.Callback]:
    """A backup at the end of each epoch and, unless `every` is None, after every so many steps."""
    return [
        # Both callbacks use the same files, so it makes no difference which one restores them.
        keras.callbacks.BackupAndRestore(
            str(folder), save_freq=save_freq, double_checkpoint=True, delete_checkpoint=False
        )
        for save_freq in (*([every] if every else []), "epoch")
    ]
