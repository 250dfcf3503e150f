"""Callbacks of a training run: they watch its progress, score it, and write its logs."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from detfeed.models.proposals import ProposalModel
from detfeed.models.scoring import score
from detfeed.sequence import DetectionSequence
from detfeed.writing import append_lines, replace_file, replacing


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
        rows = read_rows(self.path, numbers=("epoch", "batch"))
        done = [row for row in rows if (int(row["epoch"]), int(row["batch"])) < self.sequence.cursor]
        write_rows(self.path, ("epoch", "batch", "image_ids"), done)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        sequence = self.sequence
        ids = [sequence.annotations.image_id(p) for p in sequence.positions(batch).tolist()]
        index = sequence.loader.num_batches - len(sequence) + batch  # a resumed epoch may start in its middle
        line = io.StringIO()
        csv.writer(line).writerow((sequence.epoch, index, " ".join(map(str, ids))))
        append_lines(self.path, line.getvalue())


class ValidationRecall(keras.callbacks.Callback):
    """Score validation images after an epoch, and add their recall to the epoch's logs.

    Args:
        proposals: the model in training, as a ProposalModel.
        sequence: the validation images, as `score` takes them.
        run_dir: the folder that `score` writes into.
        every: epochs from one scoring to the next.
        last: number of the last epoch, from 1; it is always scored.
    """

    def __init__(
        self, proposals: ProposalModel, sequence: DetectionSequence, run_dir: Path, *, every: int, last: int
    ) -> None:
        super().__init__()
        self.proposals = proposals
        self.sequence = sequence
        self.run_dir = run_dir
        self.every = every
        self.last = last

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.last:
            logs.update(score(self.proposals, self.sequence, self.run_dir, verbose=0))


class EpochLog(keras.callbacks.Callback):
    """Append the logs of each epoch to a CSV file, with new columns where an epoch has new logs.

    keras.callbacks.CSVLogger keeps the columns of the first epoch and drops logs that only later epochs have.

    Args:
        path: the file. Rows of epochs that a resumed run repeats are replaced.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rows = [row for row in read_rows(self.path, numbers=("epoch",)) if int(row["epoch"]) < epoch]
        rows.append({"epoch": epoch, **logs})
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


def draw_curves(log: Path, picture: Path) -> None:
    """Draw the losses and recalls that EpochLog wrote, by epoch, as a PNG.

    Raises:
        ImportError: matplotlib is not installed; the extra `detfeed[train]` has it.
    """
    from matplotlib.figure import Figure

    rows = read_rows(log, numbers=("epoch",))
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axis, recall_axis = figure.subplots(1, 2)
    groups = (
        (loss_axis, "loss", ("loss", "objectness_loss", "box_loss")),
        (recall_axis, "recall", ("AR@100", "AR@1000", "recall@100", "recall@1000")),
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
    recall_axis.set_ylim(0, 1)
    with replacing(picture) as path:
        figure.savefig(path, dpi=120)
