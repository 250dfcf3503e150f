"""Sequences: what Keras's fit, evaluate and predict take. Thin: `loader` does the work."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import NDArray

from detfeed.anchors import AnchorGrid
from detfeed.annotations import Annotations
from detfeed.coco import read_coco
from detfeed.images import Resize
from detfeed.loader import Batch, BatchLoader, TargetFunction
from detfeed.proposals import Proposals
from detfeed.targets import AnchorTargets, Form, RoiTargets
from detfeed.voc import read_voc


class DetectionSequence(keras.utils.PyDataset):
    """Batches of images with the targets that a function of yours makes of each sample.

    `sequence[index]` is `(x, y)` or `(x, y, sample_weight)`, see `loader.BatchLoader.load`; it depends on
    `(seed, epoch, index)` alone. In `fit`, `epoch` moves on by one whenever all batches were fed (with
    use_multiprocessing: after each epoch of Keras's); a loop of your own sets it.

    Args:
        annotations: the data set.
        targets: function of a `Sample`; returns a dict of arrays, or a tuple of such dicts (see `targets`).
        batch_size: images in a batch. Batches hold images of one canvas; the last of each canvas may have fewer
            images, and never made-up ones.
        resize: `ShortSide` or `Fixed`.
        augment: an albumentations transform, a Compose without box parameters, or a list of transforms.
        shuffle: draw the order of samples and batches anew for each epoch. (Keras's own `fit(shuffle=True)`, its
            default, shuffles the batches once more.)
        seed: of all that is random.
        drop_last: leave out batches that are not full.
        min_visibility: an object of which an augmentation leaves less than this share becomes an ignore region.
        proposals: of the images of `annotations`, for `Sample.proposals`; see `proposals.read_proposals`.
        workers, use_multiprocessing, max_queue_size: Keras's own arguments; used on TensorFlow, where they lose
            nothing.

    Raises:
        ValueError: see `loader.BatchLoader`.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        targets: TargetFunction,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        min_visibility: float = 0.25,
        proposals: Proposals | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        if keras.backend.backend() != "tensorflow" and (workers > 1 or use_multiprocessing):
            # Seen with Keras 3.15.1 on JAX and torch: what its workers had ready after fit's first look at the data is
            # fed as the start of the first epoch, which then begins anew and ends that much too early.
            warnings.warn(
                f"Keras's workers feed some batches twice and others never on {keras.backend.backend()}: batches are "
                f"made in the main thread instead of by {workers} workers",
                stacklevel=2,
            )
            workers, use_multiprocessing = 1, False
        super().__init__(workers=workers, use_multiprocessing=use_multiprocessing, max_queue_size=max_queue_size)
        self.loader = BatchLoader(
            annotations,
            targets,
            batch_size=batch_size,
            resize=resize,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            min_visibility=min_visibility,
            proposals=proposals,
        )
        self.epoch = 0
        self._within_epoch = False
        self._asked: set[int] = set()

    @property
    def annotations(self) -> Annotations:
        """The data set."""
        return self.loader.annotations

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return self.loader.num_batches

    def __len__(self) -> int:
        return self.loader.num_batches

    def __getitem__(self, index: int) -> Batch:
        index = self._checked(index)
        epoch = self.epoch  # before the last batch is noted as asked for, which lets another thread move it on
        # Keras's workers may ask before it says that the epoch begins; looks from the main thread then don't count.
        if self._within_epoch or threading.current_thread() is not threading.main_thread():
            self._asked.add(index)
        return self.loader.load(epoch, index)

    def positions(self, index: int) -> NDArray[np.int64]:
        """Rows in `annotations` of the images of a batch of this epoch, int64 (B,)."""
        return self.loader.batches(self.epoch)[self._checked(index)]

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Expected a batch from 0 to {len(self) - 1}. Received: {index}")
        return index % len(self)

    def on_epoch_begin(self) -> None:
        """Called by Keras."""
        self._within_epoch = True

    def on_epoch_end(self) -> None:
        """Called by Keras; moves `epoch` on."""
        # Moved on here and not in on_epoch_begin, since Keras starts its workers before it calls that. Keras also calls
        # this before the first epoch, after a look at one batch or none, and in the midst of an epoch if there is a
        # `steps_per_epoch`: what counts is that every batch was asked for. Keras's own processes ask in a copy.
        complete = self.use_multiprocessing or len(self._asked) == len(self)
        if self._within_epoch and complete:
            self.epoch += 1
        if complete or not self._within_epoch:
            self._asked.clear()
        self._within_epoch = False


class AnchorTargetSequence(DetectionSequence):
    """Batches of images with anchor targets, for a region proposal network.

    Args:
        annotations: the data set.
        anchors: the grid that the model predicts on.
        batch_size, resize, augment, shuffle, seed, drop_last, min_visibility, workers, use_multiprocessing,
            max_queue_size: see `DetectionSequence`.
        targets: "sampled", `(x, y)` with at most 256 anchors an image, or "dense", `(x, y, sample_weight)` with all of
            them, for Keras's stock losses; see `targets.AnchorTargets`.
        matching: further arguments of `targets.AnchorTargets`, such as positive_iou or num_samples.
    """

    def __init__(
        self,
        annotations: Annotations,
        anchors: AnchorGrid,
        *,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        targets: Form = "sampled",
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        min_visibility: float = 0.25,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        **matching: Any,
    ) -> None:
        super().__init__(
            annotations,
            targets=AnchorTargets(anchors, form=targets, **matching),
            batch_size=batch_size,
            resize=resize,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            min_visibility=min_visibility,
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
        )
        self.anchors = anchors

    @classmethod
    def from_coco(
        cls,
        json: str | os.PathLike[str],
        image_dir: str | os.PathLike[str],
        anchors: AnchorGrid,
        **arguments: Any,
    ) -> Self:
        """A sequence over a COCO file: `AnchorTargetSequence(read_coco(json, image_dir), anchors, ...)`."""
        return cls(read_coco(json, image_dir), anchors, **arguments)

    @classmethod
    def from_voc(cls, root: str | os.PathLike[str], split: str | None, anchors: AnchorGrid, **arguments: Any) -> Self:
        """A sequence over a VOC folder: `AnchorTargetSequence(read_voc(root, split), anchors, ...)`."""
        return cls(read_voc(root, split), anchors, **arguments)


class RoiTargetSequence(DetectionSequence):
    """Batches of images with RoIs drawn from given proposals, for the second stage of Faster R-CNN.

    x has rois beside image and image_hw, and y roi_class_ids and roi_deltas; see `targets.RoiTargets`. Proposals follow
    the augmentation as boxes do.

    Args:
        annotations: the data set.
        proposals: of its images, from `read_proposals(path, annotations)`.
        batch_size, resize, augment, shuffle, seed, drop_last, min_visibility, workers, use_multiprocessing,
            max_queue_size: see `DetectionSequence`.
        sampling: arguments of `targets.RoiTargets`, such as num_samples or num_classes.
    """

    def __init__(
        self,
        annotations: Annotations,
        proposals: Proposals,
        *,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        min_visibility: float = 0.25,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        **sampling: Any,
    ) -> None:
        super().__init__(
            annotations,
            targets=RoiTargets(**sampling),
            batch_size=batch_size,
            resize=resize,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            min_visibility=min_visibility,
            proposals=proposals,
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
        )

    @property
    def proposals(self) -> Proposals | None:
        return self.loader.proposals
