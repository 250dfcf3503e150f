"""BatchLoader: annotations to batches. Pure and stateless: `load(epoch, index)` may run anywhere, in any order."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.batches.inputs import Inputs, arrange, check_inputs
from detfeed.batches.ledger import Replace, Replacement
from detfeed.batches.notes import Note
from detfeed.batches.ordering import sample_rng
from detfeed.batches.plan import Plan
from detfeed.batches.samplers import Sampler
from detfeed.batches.stages import Stage, StageArguments, check_learnable, make_stages
from detfeed.boxes import Boxes
from detfeed.errors import ImageError, SampleError, expect
from detfeed.images.canvases import Resize, fed_wh
from detfeed.images.decoding import Exif, check_bits
from detfeed.images.resizing import Image
from detfeed.proposals import Proposals
from detfeed.readers.notes import users_level
from detfeed.sample import Arrays, Sample

TargetFunction = Callable[[Sample], Any]
Batch = tuple[Any, ...]  # x, y and perhaps sample_weight: dicts of arrays, but for an x that is a bare array
Allocate = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]

MAX_ATTEMPTS = 8  # to replace an image that can't be read


class BatchLoader:
    """Makes the batches of an epoch, each a function of (seed, epoch, index) alone.

    It can't be changed once it is made: workers have copies of it. `schedule` says what changes in which epoch.

    Args:
        annotations: the data set; at least one image.
        targets: a target function. It takes a `Sample` and returns a dict of arrays, `y`; or, as Keras has it, a tuple
            `(x, y)` or `(x, y, sample_weight)` of such dicts, where `x` is added to the inputs. Arrays have no batch
            axis, and the same shapes for all samples of a canvas. `AnchorTargets` and `RoiTargets` are such functions.
        proposals: of the images of `annotations`, as `read_proposals` reads them; they become `Sample.proposals`.
        batch_size, resize, ...: see `BatchArguments`.

    Attributes:
        num_images: how many images ever come, which is up to the sampler.
        num_batches: in each epoch.
        canvases: int64 (K, 2), heights and widths in pixels, before a `schedule` changes them.
        canvas_ids: int64 (P,), the canvas of each image, likewise.

    Raises:
        ValueError: no images, or fewer than shards; batch_size below 1, negative seed, an `augment` that can't be used,
            a shard that does not exist, proposals of other images, another `exif` or `on_error`, a `sampler` that
            returns no weights, or a `schedule` that changes the number of batches.
        TypeError: an argument of another type.
    """

    def __init__(
        self,
        annotations: Annotations,
        targets: TargetFunction,
        *,
        proposals: Proposals | None = None,
        batch_size: int,
        resize: Resize,
        augment: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        min_visibility: float = 0.25,
        min_size: float = 1.0,
        shard: tuple[int, int] = (0, 1),
        exif: Exif = "auto",
        bits: int = 16,
        reduce: bool | None = None,
        sampler: Sampler | None = None,
        on_error: Literal["raise"] | Replace = "raise",
        inputs: Inputs | None = None,
        schedule: Mapping[int, StageArguments] | None = None,
    ) -> None:
        own = set(vars(self))  # of a subclass
        _check_arguments(targets, batch_size=batch_size, seed=seed, exif=exif, bits=bits, on_error=on_error)
        expect(Annotations, "an Annotations table", annotations=annotations)
        expect(Proposals | None, "a Proposals table or None", proposals=proposals)
        check_inputs(inputs)
        if proposals is not None:
            _check_proposals(proposals, annotations)
        self.annotations = annotations
        self.targets = targets
        self.proposals = proposals
        self.batch_size = batch_size
        self.seed = seed
        self.on_error = on_error
        self.inputs = inputs
        self._shuffle = shuffle
        self._stages = make_stages(
            schedule,
            annotations=annotations,
            proposals=proposals,
            uses_masks=getattr(targets, "uses_masks", True),
            exif=exif,
            bits=bits,
            on_error=on_error,
            planning={
                "batch_size": batch_size,
                "shuffle": shuffle,
                "seed": seed,
                "drop_last": drop_last,
                "shard": shard,
            },
            resize=resize,
            augment=augment,
            sampler=sampler,
            min_visibility=min_visibility,
            min_size=min_size,
            reduce=reduce,
        )
        plan = self._stages[0].plan
        self.canvases = plan.canvases
        self.canvas_ids = plan.canvas_ids
        self.num_batches = plan.num_batches
        self.num_images = int(np.logical_or.reduce([stage.plan.comes for stage in self._stages.values()]).sum())
        _warn_of_small_objects(annotations, self._stages.values())
        self._fixed = frozenset(vars(self).keys() - own)

    def __setattr__(self, name: str, value: Any) -> None:
        fixed: frozenset[str] = self.__dict__.get("_fixed", frozenset())
        # A subclass may have attributes of its own.
        if fixed and (type(self) is BatchLoader or name in fixed or name in StageArguments.__annotations__):
            raise AttributeError(
                f"Expected a loader that stays as it was made, since its workers have copies of it. Received: a new "
                f"{name}. Make another one, or let schedule={{epoch: {{...}}}} change arguments from an epoch on"
            )
        super().__setattr__(name, value)

    @property
    def image_bytes(self) -> int:
        """Bytes that the images of a batch take at most."""
        return 3 * self.batch_size * max(int(stage.plan.canvases.prod(axis=1).max()) for stage in self._stages.values())

    def check_learnable(self) -> None:
        """Raise ValueError if a `schedule` has canvases that TensorFlow would refuse in the middle of a fit."""
        check_learnable(self._stages, area=getattr(self.targets, "form", None) == "dense")

    def check_divisible(self, replicas: int) -> None:
        """Raise ValueError unless a model can be trained or scored on each batch, divided among so many replicas.

        `tf.distribute` gives each replica ceil(B / replicas) images of a batch of B, as long as there are any; Keras
        fails on a replica without images, and on a first batch that is not divided evenly.
        """
        leading, sizes = set(), set()
        for epoch in self._stages:
            batches = [len(batch) for batch in self.batches(epoch)]
            sizes.update(batches)
            leading.update(batches if self._shuffle else batches[:1])
        empty = {size for size in sizes if -(-size // replicas) * (replicas - 1) >= size}
        if refused := empty | {size for size in leading if size % replicas}:
            advice = f"a batch_size that is a multiple of {replicas}, and " if self.batch_size % replicas else ""
            received = ", ".join(map(str, sorted(refused)))
            raise ValueError(
                f"Expected batches that {replicas} replicas can share: each gets an image, and all as many of the "
                f"first batch, which may be any if shuffled. Received: batches of {received} images, with "
                f"batch_size={self.batch_size}. Use {advice}drop_last=True, since the last batch of each canvas may be "
                "short"
            )

    def stage(self, epoch: int) -> Stage:
        """What it does in an epoch."""
        return self._stages[max(first for first in self._stages if first <= epoch)]

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Positions of each batch of an epoch, int64 (B,)."""
        return self.stage(epoch).plan.epoch(epoch).positions

    def load(
        self,
        epoch: int,
        index: int,
        allocate: Allocate = np.empty,
        report: Callable[[Note], None] | None = None,
    ) -> Batch:
        """One batch.

        Args:
            epoch, index: which.
            allocate: makes the batch's arrays, of a shape and a dtype; their contents need not be cleared.
            report: gets a `Replacement` for each image that could not be read, and an `UnclearOrientation` for each
                of which the annotation does not tell which way EXIF turns it. None: warnings are issued.

        Returns:
            `(x, y)` or `(x, y, sample_weight)`, dicts of arrays with a batch axis B in front. x holds image, uint8
            (B, H, W, 3) RGB, padded right and bottom with zeros, and image_hw, int32 (B, 2), each image's true height
            and width in pixels on the canvas, besides what the target function puts there. With `inputs`, x is what
            that names.

        Raises:
            ValueError: `inputs` names an array that x does not have.
            SampleError: a sample could not be made; the message names image, position, epoch and batch.
        """
        x, *rest = self.load_plain(epoch, index, allocate, report)
        return (arrange(x, self.inputs), *rest)

    def load_plain(
        self,
        epoch: int,
        index: int,
        allocate: Allocate = np.empty,
        report: Callable[[Note], None] | None = None,
        on_sample: Callable[[Sample], None] | None = None,
    ) -> Batch:
        """One batch as `load` makes it, with x under its names here, whatever `inputs`.

        Args:
            epoch, index, allocate, report: see `load`.
            on_sample: gets each sample that is fed, in the order of the batch, before its targets are made.
        """
        report = report or _warn_of
        stage = self.stage(epoch)
        planned = stage.plan.epoch(epoch)
        places = list(zip(planned.positions[index].tolist(), planned.repeats[index].tolist(), strict=True))
        canvas_hw = stage.plan.canvas_hw(places[0][0])
        images = allocate((len(places), *canvas_hw, 3), np.uint8)
        image_hw = allocate((len(places), 2), np.int32)
        targets: list[tuple[Arrays, ...]] = []
        for row, (position, repeat) in enumerate(places):
            fed = position
            try:
                sample, unreadable = self._load_or_replace(epoch, position, repeat, images[row], report)
                fed = sample.position
                image_hw[row] = sample.image_hw
                if on_sample is not None:
                    on_sample(sample)
                targets.append(_split(self.targets(sample)))
                _check_alike(targets[-1], targets[0])
            except BaseException as error:
                if _is_ctrl_c(error):
                    raise
                # A SystemExit among them: a training that a target function ends would look like one that is done.
                raise self._sample_error(error, fed, epoch, index) from error
            for failed, text in unreadable:
                report(Replacement(epoch, index, failed, *self._name(failed), text, *self._name(fed)))
        x, *rest = (
            {name: _stack([parts[i][name] for parts in targets], allocate) for name in first}
            for i, first in enumerate(targets[0])
        )
        return ({"image": images, "image_hw": image_hw, **x}, *rest)

    def load_sample(self, epoch: int, position: int, canvas: Image | None = None, *, repeat: int = 0) -> Sample:
        """One sample, as target functions get it.

        Args:
            epoch, position: which.
            canvas: uint8 (H, W, 3) of the position's canvas size; the image is written into its corner, and zeros
                beside it. None: a new one.
            repeat: how often a `sampler` had it come in this epoch before.

        Raises:
            ImageError: the image can't be read or is not of the annotated size, whatever `on_error`.
        """
        stage = self.stage(epoch)
        if canvas is None:
            canvas = np.empty((*stage.plan.canvas_hw(position), 3), np.uint8)
        return stage.samples.make(position, sample_rng(self.seed, epoch, position, repeat), canvas, _warn_of)

    def placed_hw(self, position: int, *, epoch: int = 0) -> tuple[int, int]:
        """Height and width in pixels that an image has on its canvas, if no augmentation changes its shape."""
        return self.stage(epoch).placed_hw(position)

    def to_file(self, position: int, boxes: Boxes, *, epoch: int = 0) -> Boxes:
        """Boxes on an image's canvas, float32 (R, 4) xyxy, in pixels of the image file and clipped to it.

        Holds if no augmentation has changed the image.
        """
        height, width = self.annotations.image_hw[position].tolist()
        return geometry.rescale(boxes, self.placed_hw(position, epoch=epoch), (height, width))

    def _load_or_replace(
        self, epoch: int, position: int, repeat: int, canvas: Image, report: Callable[[Note], None]
    ) -> tuple[Sample, list[tuple[int, str]]]:
        """A sample, and the images that could not be read on the way to it: their positions and errors."""
        stage = self.stage(epoch)
        unreadable: list[tuple[int, str]] = []
        tried: int | None = position
        for attempt in range(1 + MAX_ATTEMPTS):
            rng = sample_rng(self.seed, epoch, position, repeat, attempt)
            if attempt:
                tried = _draw_other(stage.plan, position, [failed for failed, _ in unreadable], rng)
            if tried is None:
                break
            try:
                return stage.samples.make(tried, rng, canvas, report), unreadable
            except ImageError as error:
                if self.on_error == "raise":
                    raise
                unreadable.append((tried, str(error)))
        others = ", ".join(self.annotations.paths[failed] for failed, _ in unreadable[1:])
        reason = "There is no other image to replace it"
        if others:
            reason = f"None of the images drawn to replace it could be read either: {others}"
        raise ImageError(f"{unreadable[0][1]}. {reason}")

    def _name(self, position: int) -> tuple[str, int | str]:
        return self.annotations.paths[position], self.annotations.image_id(position)

    def _sample_error(self, error: BaseException, position: int, epoch: int, index: int) -> SampleError:
        path, image_id = self._name(position)
        advice = ""
        if isinstance(error, ImageError) and self.on_error == "raise":
            advice = "; or on_error=Replace() (--on-error replace) feeds others in place of such images"
        return SampleError(
            f"{path} (image_id {image_id}, position {position}, epoch {epoch}, batch {index}): "
            f"{type(error).__name__}: {error}{advice}"
        )


def _warn_of(note: Note) -> None:
    warnings.warn(note.sentence, stacklevel=users_level())


def _check_arguments(
    targets: TargetFunction,
    *,
    batch_size: int,
    seed: int,
    exif: Exif,
    bits: int,
    on_error: Literal["raise"] | Replace,
) -> None:
    if not callable(targets):
        raise ValueError(f"Expected targets to be a function of a Sample. Received: {targets!r}")
    expect(Integral, "a whole number", batch_size=batch_size, seed=seed)
    if batch_size < 1:
        raise ValueError(f"Expected batch_size to be at least 1. Received: {batch_size}")
    if seed < 0:
        raise ValueError(f"Expected seed to be at least 0. Received: {seed}")
    check_bits(bits)
    if exif not in get_args(Exif):
        raise ValueError(f"Expected exif to be one of {get_args(Exif)}. Received: {exif!r}")
    if on_error != "raise" and not isinstance(on_error, Replace):
        raise ValueError(f'Expected on_error to be "raise" or Replace(...). Received: {on_error!r}')


def _check_proposals(proposals: Proposals, annotations: Annotations) -> None:
    if not np.array_equal(proposals.image_ids, annotations.image_ids):
        raise ValueError(
            "Expected proposals of the images of annotations, in their order, as read_proposals(path, annotations) "
            f"reads them. Received: {proposals} and {annotations}"
        )
    _warn_of_proposals_outside(proposals, annotations)


def _is_ctrl_c(error: BaseException) -> bool:
    """Whether the user interrupts: that reaches the main thread alone, and no process that ignores it."""
    is_main = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and is_main and signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def _draw_other(plan: Plan, position: int, failed: list[int], rng: np.random.Generator) -> int | None:
    """An image to feed in place of one that can't be read: of its canvas, or of any if that has no other."""
    left = plan.comes.copy()
    left[failed] = False
    alike = left & (plan.canvas_ids == plan.canvas_ids[position])
    others = np.flatnonzero(alike if alike.any() else left)
    return int(rng.choice(others)) if len(others) else None


def _split(targets: Any) -> tuple[Arrays, ...]:
    """A target function's answer as (x, y) or (x, y, sample_weight)."""
    parts = ({}, targets) if isinstance(targets, dict) else targets
    if not isinstance(parts, tuple) or len(parts) not in (2, 3) or not all(isinstance(p, dict) for p in parts):
        raise TypeError(
            "expected targets to return a dict of arrays, or a tuple (x, y) or (x, y, sample_weight) of such dicts, "
            f"got {type(targets).__name__}"
        )
    if {"image", "image_hw"} & parts[0].keys():
        raise ValueError(f"expected other names than image and image_hw in x, which has them, got {sorted(parts[0])}")
    return tuple({name: np.asarray(array) for name, array in part.items()} for part in parts)


def _stack(arrays: list[NDArray[Any]], allocate: Allocate) -> NDArray[Any]:
    return np.stack(arrays, out=allocate((len(arrays), *arrays[0].shape), np.result_type(*arrays)))


def _check_alike(parts: tuple[Arrays, ...], first: tuple[Arrays, ...]) -> None:
    """Nothing of a sample may be lost where a batch is made of its like."""
    shapes, expected = (
        [{name: array.shape for name, array in part.items()} for part in sample] for sample in (parts, first)
    )
    if shapes != expected:
        raise ValueError(
            f"expected targets of the names and shapes of the batch's first image, {expected}, got {shapes}; pad them "
            "to a fixed size"
        )


def _warn_of_small_objects(annotations: Annotations, stages: Iterable[Stage]) -> None:
    """Warn once, before anything is fed, of objects that `min_size` makes ignore regions, augmentation aside."""
    for resize, min_size in dict.fromkeys((stage.resize, stage.min_size) for stage in stages):
        sides = fed_wh(annotations.boxes, annotations.offsets, annotations.image_hw, resize).min(axis=1)
        small = ~annotations.ignore & (sides < min_size)
        if small.any():
            row = int(np.argmax(small))
            warnings.warn(
                f"{annotations.source}: {int(small.sum())} of {len(small)} boxes are fed with a side under "
                f"{min_size:g} pixels, and ignored (min_size); the first is {annotations.boxes[row].tolist()} in "
                f"{annotations.paths[annotations.position_of(row)]}",
                stacklevel=3,
            )


def _warn_of_proposals_outside(proposals: Proposals, annotations: Annotations) -> None:
    """Warn once, before anything is fed, of proposals that reach out of their image by over a pixel."""
    limits = np.tile(annotations.image_hw[:, ::-1], 2)[proposals.positions]
    clipped = np.clip(proposals.boxes, 0, limits.astype(np.float32))
    empty = geometry.area(clipped) <= 0
    # A file rounds its numbers, so that reaching out a little is nothing to speak of.
    outside = (np.abs(clipped - proposals.boxes) > 1).any(axis=1) & ~empty
    for bad, effect in (
        (empty, "have no area inside their image and are left out"),
        (outside, "are clipped to it"),
    ):
        if bad.any():
            warnings.warn(
                f"{proposals.source}: {int(bad.sum())} of {len(bad)} proposals {effect}; the first is in "
                f"{annotations.paths[proposals.position_of(int(np.argmax(bad)))]}",
                stacklevel=4,
            )
