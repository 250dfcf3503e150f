"""A detector: a trained model with what it needs to be used on pictures, and how it comes out of a run folder."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.boxes import Boxes
from detfeed.detections import Detections, predict_detections
from detfeed.errors import DetfeedError, shorten
from detfeed.images.canvases import Fixed, Resize, ShortSide
from detfeed.images.resizing import Image, resize_into
from detfeed.models.detections import DetectionModel
from detfeed.models.image_model import serialize_part
from detfeed.models.proposals import ProposalModel
from detfeed.readers.images import read_images
from detfeed.report.run import DETECTOR
from detfeed.sequence import DetectionSequence
from detfeed.writing import replace_file

PROPOSAL = "proposal"  # the class of what an RPN finds
_SIZES = {"short_side": ShortSide, "fixed": Fixed}

Picture = str | os.PathLike[str] | Image


class Found(NamedTuple):
    """What a detector finds in a picture, best first.

    Attributes:
        boxes: float32 (R, 4), xyxy pixels of the picture, clipped to it; a file is turned as its EXIF orientation says.
        scores: float32 (R,), probabilities.
        class_ids: int32 (R,), rows of the detector's `class_names`.
        class_names: R names.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    class_names: list[str]

    def best(self, *, min_score: float = 0.0, top: int | None = None) -> Found:
        """What has at least a score, and of that the `top` best."""
        kept = np.flatnonzero(self.scores >= min_score)[:top]
        names = [self.class_names[row] for row in kept.tolist()]
        return Found(self.boxes[kept], self.scores[kept], self.class_ids[kept], names)


class Detector:
    """A model that finds objects in pictures: `Detector(model, class_names, resize)(pictures)`.

    `load_detector` makes one from the folder of a training run.

    Args:
        model: a DetectionModel or a ProposalModel, trained.
        class_names: of its classes; of a ProposalModel, which knows none, nothing.
        resize: how large pictures are fed, as in training.

    Raises:
        ValueError: another number of names than the model has classes.
    """

    def __init__(
        self, model: DetectionModel | ProposalModel, class_names: Sequence[str], resize: Resize | None = None
    ) -> None:
        self.model = model
        self.class_names = (PROPOSAL,) if isinstance(model, ProposalModel) else tuple(class_names)
        self.resize = ShortSide(800, max_side=1333) if resize is None else resize
        expected = 1 if isinstance(model, ProposalModel) else model.faster_rcnn.num_classes
        if len(self.class_names) != expected:
            raise ValueError(f"Expected names of {expected} classes. Received: {self.class_names}")

    def __call__(
        self, pictures: Picture | Sequence[Picture], *, batch_size: int = 1, min_score: float = 0.0
    ) -> list[Found]:
        """Find objects in pictures.

        Args:
            pictures: paths of image files, and arrays uint8 (H, W, 3), RGB; one alone counts as a list of one.
            batch_size: how many files are fed at once. Files of one shape share a batch.
            min_score: what has a lower score is left out. A DetectionModel leaves out scores up to its own threshold.

        Returns:
            One Found for each picture.

        Raises:
            ImageError: a file is missing or no image. SampleError: its picture can't be decoded.
            TypeError: something is neither a path nor such an array.
            ValueError: a path is that of a folder.
        """
        alone = isinstance(pictures, str | os.PathLike | np.ndarray)
        listed: list[Any] = [pictures] if alone else list(pictures)
        for picture in listed:
            if not isinstance(picture, str | os.PathLike) and not _is_image(picture):
                got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else repr(picture)
                raise TypeError(f"Expected a path, or an array uint8 (H, W, 3) in RGB. Received: {got}")
            if not isinstance(picture, np.ndarray) and os.path.isdir(picture):
                raise ValueError(f"Expected a picture. Received: {os.fspath(picture)}, a folder; see find, read_images")
        files = [os.fspath(picture) for picture in listed if not isinstance(picture, np.ndarray)]
        of_file: dict[str, Found] = {}
        if files:
            table = read_images(list(dict.fromkeys(files)))
            found = self.find(table, batch_size=batch_size, verbose=False)
            of_file = dict(zip(table.paths, map(self.name, *found), strict=True))
        answers = [
            self._find_in_array(picture) if isinstance(picture, np.ndarray) else of_file[os.fspath(picture)]
            for picture in listed
        ]
        return [answer.best(min_score=min_score) for answer in answers]

    def find(
        self, annotations: Annotations, *, batch_size: int = 1, workers: int = 1, verbose: bool = True
    ) -> Detections:
        """Find objects in the images of a table, such as `read_images` gives, fed in batches by workers.

        Returns:
            As `predict_detections`, in the order of the table.

        Raises:
            SampleError: an image can't be read.
        """
        sequence = DetectionSequence(
            annotations,
            targets=lambda sample: {},
            shuffle=False,
            resize=self.resize,
            batch_size=batch_size,
            workers=workers,
        )
        try:
            return predict_detections(self.model, sequence, detect, verbose=verbose)
        finally:
            sequence.close()

    def _find_in_array(self, picture: Image) -> Found:
        image_hw = np.array([picture.shape[:2]])
        height, width = self.resize.resized_hw(image_hw)[0].tolist()
        canvas = np.zeros((1, *self.resize.padded_hw(image_hw)[0].tolist(), 3), np.uint8)
        resize_into(np.ascontiguousarray(picture), canvas[0, :height, :width])
        x = {"image": canvas, "image_hw": np.array([[height, width]], np.int32)}
        boxes, scores, class_ids = (np.asarray(part[0]) for part in detect(self.model, x))
        there = class_ids >= 0
        boxes = geometry.rescale(boxes[there], (height, width), picture.shape[:2])
        return self.name(boxes, scores[there], class_ids[there])

    def name(self, boxes: Boxes, scores: NDArray[np.float32], class_ids: NDArray[np.int32]) -> Found:
        """What is found in one picture, with the names of its classes."""
        return Found(boxes, scores, class_ids, [self.class_names[class_id] for class_id in class_ids.tolist()])


def detect(model: DetectionModel | ProposalModel, x: Any) -> tuple[Any, Any, Any]:
    """What a model finds in a batch, as `predict_detections` asks for it. Proposals are of one class."""
    found = model.predict_on_batch(x)
    class_ids = found["class_ids"] if "class_ids" in found else np.where(found["scores"] >= 0, 0, -1)
    return found["boxes"], found["scores"], class_ids


def trained_part(model: DetectionModel | ProposalModel) -> keras.Model:
    """The part of a model that is compiled and trained, and whose weights are saved."""
    return model.rpn if isinstance(model, ProposalModel) else model.faster_rcnn


def weights_file(model: DetectionModel | ProposalModel, run_dir: Path, *, best: bool = False) -> Path:
    """Where a run keeps the weights after its last epoch, or after the one that was scored best."""
    stem = "rpn" if isinstance(model, ProposalModel) else "faster_rcnn"
    return run_dir / f"{stem}{'.best' if best else ''}.weights.h5"


def save_description(
    model: DetectionModel | ProposalModel, class_names: Sequence[str], resize: Resize, run_dir: Path
) -> None:
    """Write all of a detector but its weights into a run folder."""
    sizes = next(name for name, kind in _SIZES.items() if isinstance(resize, kind))
    description = {
        "model": serialize_part(model),
        "class_names": list(class_names),
        "resize": {sizes: dataclasses.asdict(resize)},
    }
    replace_file(run_dir / DETECTOR, (json.dumps(description, indent=2) + "\n").encode())


def load_detector(run_dir: str | os.PathLike[str], *, best: bool = True) -> Detector:
    """The detector that a training run has left in its folder; of an RPN one that finds proposals.

    Args:
        run_dir: the folder that `train`, `train_rpn.py` or `train_faster_rcnn.py` wrote into.
        best: take the weights after the epoch that was scored best, where there was a validation. False: the last.

    Raises:
        DetfeedError: the folder has no detector, or none whose weights were saved yet, or weights that can't be read.
    """
    folder = Path(run_dir)
    detector = read_description(folder)
    files = [weights_file(detector.model, folder, best=wanted) for wanted in ((True, False) if best else (False,))]
    saved = next((file for file in files if file.is_file()), None)
    if saved is None:
        raise DetfeedError(f"{files[-1]}: expected weights, got none; they are saved after each epoch of a training")
    try:
        trained_part(detector.model).load_weights(saved)
    except (OSError, ValueError, KeyError) as error:
        reason = shorten(str(error).partition("\n")[0])  # Keras lists each layer below
        others = weights_file(detector.model, folder)
        advice = (
            "resume the training" if saved == others else "take those of the last epoch: best=False (--checkpoint last)"
        )
        raise DetfeedError(
            f"{saved}: expected weights of the model in {DETECTOR}, got a file that does not load, {reason}; {advice}"
        ) from error
    return detector


def read_description(run_dir: Path) -> Detector:
    """A run's detector without its trained weights.

    Raises:
        DetfeedError: the folder has no description of a detector, or one that can't be read.
    """
    path = run_dir / DETECTOR
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        ((sizes, settings),) = description["resize"].items()
        model = keras.saving.deserialize_keras_object(description["model"])
        if not isinstance(model, DetectionModel | ProposalModel):
            raise TypeError(f"a model of type {type(model).__name__}")
        resize = _SIZES[sizes](**{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})
        return Detector(model, description["class_names"], resize)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        got = getattr(error, "strerror", None) or f"a file that describes none: {error}"
        raise DetfeedError(f"{path}: expected a detector, got {got}; give the folder of a training run") from error


def _is_image(picture: Any) -> bool:
    return (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
        and min(picture.shape[:2]) > 0
    )
