"""Callbacks of a training run: they watch its progress, score it, and write its logs."""

from __future__ import annotations

import csv
import ctypes
import io
import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from detfeed.models.detections import DetectionModel
from detfeed.models.detector import trained_part, weights_file
from detfeed.models.proposals import ProposalModel
from detfeed.models.scoring import main_figures, score
from detfeed.sequence import DetectionSequence
from detfeed.writing import append_lines, replace_file, replacing

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LOG, STEPS, FED, CURVES = "log.csv", "steps.csv", "fed.csv", "curves.png"


class Progress(keras.callbacks.Callback):
    """Stop training after the last step, and raise if a loss is not finite or an epoch was not fed whole.

    Args:
        sequence: the training batches.
        total_steps: number of the last step, counted from 1 over all epochs.
    """

    def __init__(self, sequence: DetectionSequence, total_steps: int) -> None:
        super().__init__()
        self.sequence = sequence
        self.total_steps = total_steps

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        # A resumed run may start in the middle of an epoch, but Keras counts the batches from 0 there too.
        self.done = self.first = self.sequence.loader.num_batches - len(self.sequence)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
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

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        expected = self.sequence.loader.num_batches
        if self.done < expected and not self.model.stop_training:
            raise RuntimeError(f"Expected {expected} batches in epoch {epoch}. Received: {self.done}")


class FedImages(keras.callbacks.Callback):
    """Write the image ids of each step into a CSV file. Steps that a resumed run repeats replace their earlier rows.

    Place it after ResumeFeed, which sets the sequence's cursor to the first batch after the restored model's.

    Args:
        sequence: the training batches.
        path: the file: columns epoch, batch and image_ids, separated by spaces.
    """

    def __init__(self, sequence: DetectionSequence, path: Path) -> None:
        super().__init__()
        self.sequence = sequence
        self.path = path

    def on_train_begin(self, logs: Any = None) -> None:
        write_rows(self.path, ("epoch", "batch", "image_ids"), _rows_before(self.path, self.sequence))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        sequence = self.sequence
        ids = [sequence.annotations.image_id(p) for p in sequence.positions(batch).tolist()]
        line = io.StringIO()
        csv.writer(line).writerow((sequence.epoch, _index(sequence, batch), " ".join(map(str, ids))))
        append_lines(self.path, line.getvalue())


class StepLog(keras.callbacks.Callback):
    """Write the losses of each step into a CSV file. Steps that a resumed run repeats replace their earlier rows.

    Keras reports means over the epoch so far; their differences are the losses of the steps.

    Args:
        sequence: the training batches.
        path: the file: columns epoch, batch and one for each loss.
    """

    def __init__(self, sequence: DetectionSequence, path: Path) -> None:
        super().__init__()
        self.sequence = sequence
        self.path = path
        self._columns: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        done = _rows_before(self.path, self.sequence)
        self._columns = list(done[0]) if done else []  # else they are those of the first step
        if done:
            write_rows(self.path, self._columns, done)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._images = 0
        self._sums: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._columns:
            self._columns = ["epoch", "batch", *logs]
            write_rows(self.path, self._columns, [])
        images = len(self.sequence.positions(batch))
        self._images += images
        sums = {name: logs[name] * self._images for name in self._columns[2:]}
        losses = [(total - self._sums.get(name, 0.0)) / images for name, total in sums.items()]
        self._sums = sums
        row = [str(self.sequence.epoch), str(_index(self.sequence, batch)), *(f"{loss:.6g}" for loss in losses)]
        append_lines(self.path, ",".join(row) + "\r\n")


def _rows_before(path: Path, sequence: DetectionSequence) -> list[dict[str, Any]]:
    """Rows of a file of steps that come before the place of a sequence: a resumed run repeats the others."""
    rows = read_rows(path, numbers=("epoch", "batch"))
    return [row for row in rows if (int(row["epoch"]), int(row["batch"])) < sequence.cursor]


def _index(sequence: DetectionSequence, batch: int) -> int:
    """The number in its epoch of a batch that Keras counts from where a resumed epoch starts."""
    return sequence.loader.num_batches - len(sequence) + batch


class ValidationScores(keras.callbacks.Callback):
    """Score validation images after an epoch, and add the most important figures to the epoch's logs.

    Args:
        model: the model in training, as a ProposalModel or DetectionModel.
        sequence: the validation images, as `score` takes them.
        run_dir: the folder that `score` writes into.
        every: epochs from one scoring to the next.
        last: number of the last epoch, from 1; it is always scored.

    Attributes:
        figures: all figures of this epoch, empty if it is not scored.
    """

    def __init__(
        self,
        model: ProposalModel | DetectionModel,
        sequence: DetectionSequence,
        run_dir: Path,
        *,
        every: int,
        last: int,
    ) -> None:
        super().__init__()
        self.scored = model
        self.sequence = sequence
        self.run_dir = run_dir
        self.every = every
        self.last = last
        self.figures: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.figures = {}
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.last:
            self.figures = score(self.scored, self.sequence, self.run_dir, verbose=0)
            main = {name: self.figures[name] for name in main_figures(self.scored)}
            logs.update({name: figure for name, figure in main.items() if not math.isnan(figure)})


class SavedWeights(keras.callbacks.Callback):
    """Save the weights after each epoch, and those of the best epoch in a file of their own.

    Place it after EpochLog, whose file says what was the best before.

    Args:
        model: the model in training, as a ProposalModel or DetectionModel.
        run_dir: the folder of the run, with its log.csv.
    """

    def __init__(self, model: ProposalModel | DetectionModel, run_dir: Path) -> None:
        super().__init__()
        self.saved = model
        self.run_dir = run_dir

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._save(best=False)
        name = main_figures(self.saved)[0]
        rows = read_rows(self.run_dir / LOG, numbers=("epoch",))
        figures = [float(row[name]) for row in rows if row.get(name)]
        if name in logs and logs[name] >= max(figures, default=0.0):
            self._save(best=True)

    def _save(self, *, best: bool) -> None:
        with replacing(weights_file(self.saved, self.run_dir, best=best)) as path:
            trained_part(self.saved).save_weights(path)


class KeptMemory(keras.callbacks.Callback):
    """Keep the memory that a step frees for the next one, where the C library is glibc.

    TensorFlow's data sets let glibc give freed memory back to the system at once, and each step then gets it again page
    by page: of the CPU time of a step of the RPN (4 images of 96x128, 2 cores) that is a quarter.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._first:  # TensorFlow has made its data set by then
            self._first = False
            change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
            if change is not None:
                change(M_MMAP_THRESHOLD, 2**30)
                change(M_TRIM_THRESHOLD, 2**31 - 1)


class Curves(keras.callbacks.Callback):
    """Draw the curves of a run after each epoch.

    Args:
        run_dir: the folder of the run, with its log.csv and steps.csv.
        figures: names of the columns of log.csv to draw beside the losses.
    """

    def __init__(self, run_dir: Path, figures: Sequence[str]) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.figures = figures

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        draw_curves(self.run_dir, self.figures)


class EpochLog(keras.callbacks.Callback):
    """Append the logs of each epoch to a CSV file, with new columns where an epoch has new logs.

    keras.callbacks.CSVLogger keeps the columns of the first epoch and drops logs that only later epochs have.

    Args:
        path: the file. Rows of epochs that a resumed run repeats are replaced.
        scores: has more figures of the epoch. None: there are none.
    """

    def __init__(self, path: Path, scores: ValidationScores | None = None) -> None:
        super().__init__()
        self.path = path
        self.scores = scores

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rows = [row for row in read_rows(self.path, numbers=("epoch",)) if int(row["epoch"]) < epoch]
        figures = self.scores.figures if self.scores else {}
        # An empty field for a figure that does not exist, such as recall of large objects where there are none.
        rows.append({"epoch": epoch, **logs, **{k: v for k, v in figures.items() if not math.isnan(v)}})
        write_rows(self.path, dict.fromkeys(name for row in rows for name in row), rows)


def read_rows(path: Path, *, numbers: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a CSV file by column, none if it is missing. Rows that are not whole are left out, with a warning.

    A full disk or a loss of power leaves such rows.

    Args:
        path: the file; its first row names the columns.
        numbers: columns that hold whole numbers.
    """
    if not path.exists():
        return []
    content = path.read_text(encoding="utf-8", errors="replace")
    rows = []
    lines = csv.reader(io.StringIO(content, newline=""), strict=True)
    damaged = 0
    while True:
        try:
            rows.append(next(lines))
        except StopIteration:
            break
        except csv.Error:
            damaged += 1
    if rows and not content.endswith("\n"):
        rows.pop()
        damaged += 1
    columns, *rows = rows or [[]]
    whole = [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
    whole = [row for row in whole if all(row.get(name, "").isdecimal() for name in numbers)]
    damaged += len(rows) - len(whole)
    if damaged:
        warnings.warn(
            f"{path}: {damaged} of {len(whole) + damaged} rows are not whole, as a full disk or a loss of power leaves "
            "them, and are left out",
            stacklevel=3,
        )
    return whole


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file, whole or not at all."""
    content = io.StringIO()
    writer = csv.DictWriter(content, list(columns))
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, content.getvalue().encode())


def draw_curves(run_dir: Path, figures: Sequence[str]) -> None:
    """Draw the losses of a run by step and by epoch, and its scores by epoch, as curves.png.

    Args:
        run_dir: the folder, with log.csv of EpochLog and steps.csv of StepLog.
        figures: names of scores.

    Raises:
        ImportError: matplotlib is not installed; the extra `detfeed[train]` has it.
    """
    from matplotlib.figure import Figure

    epochs = read_rows(run_dir / LOG, numbers=("epoch",))
    steps = read_rows(run_dir / STEPS, numbers=("epoch", "batch"))
    picture = Figure(figsize=(10, 4), layout="constrained")
    loss_axis, score_axis = picture.subplots(1, 2)
    if steps:
        per_epoch = 1 + max(int(row["batch"]) for row in steps)
        x = np.array([int(row["epoch"]) + (int(row["batch"]) + 1) / per_epoch for row in steps])
        y = np.array([float(row["loss"]) for row in steps])
        loss_axis.plot(x, y, color="0.8", linewidth=0.8, label="loss of a step")
        window = max(1, len(y) // 50)
        if window > 1:
            smooth = np.convolve(y, np.ones(window) / window, mode="valid")
            loss_axis.plot(x[window - 1 :], smooth, color="0.4", linewidth=1, label=f"mean of {window} steps")
        loss_axis.set_ylim(0, 1.2 * float(np.quantile(y, 0.98)) or None)
    losses = [name for name in (steps[0] if steps else ()) if name.endswith("loss")]
    for axis, title, names in ((loss_axis, "loss", losses), (score_axis, "score on validation images", figures)):
        for name in names:
            points = [(int(row["epoch"]) + 1, float(row[name])) for row in epochs if row.get(name)]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set_xlabel("epoch")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    score_axis.set_ylim(0, 1)
    with replacing(run_dir / CURVES) as path:
        picture.savefig(path, dpi=120)
