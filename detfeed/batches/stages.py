"""Stages: what a loader does in which epochs, where arguments change in the course of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.augmentation.scale import Recipe, ScaleJitter
from detfeed.batches.ledger import Replace
from detfeed.batches.plan import Plan
from detfeed.batches.samplers import Sampler
from detfeed.batches.samples import SampleMaker
from detfeed.errors import expect
from detfeed.images.canvases import Fixed, Resize, ShortSide, resized_hw_on, told_apart
from detfeed.images.decoding import Exif
from detfeed.proposals import Proposals
from detfeed.sample import UsesMasks

if TYPE_CHECKING:
    from detfeed.augmentation.pipeline import Augmentation


class StageArguments(TypedDict, total=False):
    """What a `schedule` can change from an epoch on: keywords of `BatchArguments`, which documents them."""

    augment: Any
    sampler: Sampler | None
    resize: Resize
    min_visibility: float
    min_size: float
    reduce: bool | None


class Stage:
    """What a loader does in a range of epochs: which images make up its batches, and how their samples are made.

    Args:
        annotations, proposals: the data set.
        uses_masks: whether anybody looks at masks, or at those of crowds.
        exif, bits, on_error: see `BatchArguments`.
        planning: keywords of `Plan` that no stage changes.
        before: the stage before. Its images stay together in batches if only their size changes, so that the number
            of batches stays, too.
        augment, ...: see `BatchArguments`.

    Attributes:
        resize, min_size: as given.
        augmentation: a pipeline, or None.
        scale: varies the size that images are fed at, or None.
        plan: of its epochs.
        samples: makes its samples.
    """

    def __init__(
        self,
        annotations: Annotations,
        proposals: Proposals | None,
        *,
        uses_masks: UsesMasks,
        exif: Exif,
        bits: int,
        on_error: Literal["raise"] | Replace,
        planning: Mapping[str, Any],
        before: Stage | None = None,
        resize: Resize,
        augment: Any,
        sampler: Sampler | None,
        min_visibility: float,
        min_size: float,
        reduce: bool | None,
    ) -> None:
        _check(resize=resize, min_visibility=min_visibility, min_size=min_size)
        self._image_hw = annotations.image_hw
        self.resize = resize
        self.min_size = min_size
        self._augment = augment
        self._sampler = sampler
        self.augmentation: Augmentation | None
        self.scale: ScaleJitter | None
        if before is not None and augment is before._augment:
            self.augmentation, self.scale = before.augmentation, before.scale
        else:
            self.augmentation, self.scale = _to_augmentation(augment)
        _check_mosaic(self.augmentation, proposals, on_error)
        self.plan: Plan
        if before is not None and resize == before.resize and sampler is before._sampler:
            self.plan = before.plan
        else:
            like = None if before is None else before.plan
            self.plan = Plan(annotations, resize=resize, sampler=sampler, like=like, **planning)
        reused = before is not None and augment is before._augment and sampler is before._sampler
        if self.augmentation is not None and not reused:
            comes = np.flatnonzero(self.plan.comes)
            self.augmentation.check_fits(annotations.image_hw[comes], lambda row: annotations.paths[comes[row]])
        self.samples = SampleMaker(
            annotations,
            self.plan,
            resize=resize,
            exif=exif,
            bits=bits,
            min_visibility=min_visibility,
            min_size=min_size,
            reduce=augment is None if reduce is None else reduce,
            augmentation=self.augmentation,
            scale=self.scale,
            proposals=proposals,
            uses_masks=uses_masks,
        )

    def __getstate__(self) -> dict[str, Any]:
        # What these stand for is made; they may be functions that can't be pickled.
        return {**self.__dict__, "_augment": None, "_sampler": None}

    @property
    def augments(self) -> bool:
        """Whether an image may be fed in another way than as it is in its file."""
        return self.augmentation is not None or self.scale is not None

    def placed_hw(self, position: int) -> tuple[int, int]:
        """As `BatchLoader.placed_hw`."""
        height, width = self._image_hw[position].tolist()
        return resized_hw_on(self.resize, (height, width), self.plan.canvas_hw(position))


def make_stages(schedule: Mapping[int, StageArguments] | None, **arguments: Any) -> dict[int, Stage]:
    """The stages of a loader by their first epochs, ascending; the first begins with epoch 0.

    Args:
        schedule: arguments by the epoch from which they hold, instead of those before.
        arguments: of the first stage, and of all others but for what the schedule changes.

    Raises:
        ValueError: an epoch below 1, an argument that can't change or can't be used, or another number of batches.
        TypeError: a schedule of another type.
    """
    stages = {0: Stage(**arguments)}
    for epoch, changes in _checked(schedule or {}):
        arguments |= changes
        before = next(reversed(stages.values()))
        try:
            stages[epoch] = Stage(before=before, **arguments)
        except (ValueError, TypeError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"schedule[{epoch}]: {error}") from error
        num_batches, expected = stages[epoch].plan.num_batches, before.plan.num_batches
        if num_batches != expected:
            raise ValueError(
                f"schedule[{epoch}]: Expected as many batches in an epoch as before, {expected}, since Keras and the "
                f"place of a resumed run count on it. Received: {num_batches}, from {changes}. Choose a sampler that "
                "draws as many images (num_images=...), or end the fit there and go on with another sequence by "
                f"fit(other, initial_epoch={epoch})"
            )
    return stages


def check_learnable(stages: Mapping[int, Stage], *, area: bool) -> None:
    """Raise ValueError if TensorFlow would refuse a canvas of a later stage.

    TensorFlow learns from an epoch's batches 0 and 1 which sides vary (see `told_apart`). A fit may begin in any stage,
    and goes on to all later ones.

    Args:
        stages: by first epoch, ascending.
        area: whether an axis of a target is as long as the canvas is large, as that of all anchors.
    """
    epochs = list(stages)
    canvases = [stage.plan.canvases for stage in stages.values()]
    for place, following in enumerate(epochs[1:]):
        own, ahead = canvases[place], np.concatenate(canvases[place:])
        fixed = _varying(ahead) & ~_varying(own)
        if not area:
            fixed = fixed[:2]
        if fixed.any() or not told_apart(own).any():
            raise ValueError(
                "Expected a schedule whose canvases vary in height and width (and area, for dense targets) only where "
                "those before vary, since TensorFlow learns from the first two batches of a fit what varies. "
                f"Received: {own.tolist()} from epoch {epochs[place]} on, and {np.unique(ahead, axis=0).tolist()} "
                "with all after it. Keep the canvas and change the size of images on it (augment=recipes.lsj(...)), "
                f"or end the fit and go on with another sequence by fit(other, initial_epoch={following})"
            )


def _varying(canvases: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether heights, widths and areas of canvases (K, 2) vary; bool (3,)."""
    sides = np.concatenate([canvases, canvases.prod(axis=1, keepdims=True)], axis=1)
    varies: NDArray[np.bool_] = (sides != sides[:1]).any(axis=0)
    return varies


def _checked(schedule: Mapping[int, StageArguments]) -> Iterable[tuple[int, StageArguments]]:
    """Epochs and what changes with them, in order."""
    expect(Mapping, "a dict of arguments by epoch, as {90: {'augment': None}}, or None", schedule=schedule)
    for epoch, changes in schedule.items():
        if not isinstance(epoch, Integral) or isinstance(epoch, bool) or epoch < 1:
            raise ValueError(f"Expected a schedule of epochs from 1 on. Received: {epoch!r}")
        if not isinstance(changes, Mapping):
            raise TypeError(f"Expected schedule[{epoch}] to be a dict of arguments. Received: {changes!r}")
        unknown = sorted(changes.keys() - StageArguments.__annotations__.keys())
        if unknown:
            raise ValueError(
                f"Expected schedule[{epoch}] to change some of {', '.join(StageArguments.__annotations__)}. "
                f"Received: {', '.join(map(str, unknown))}"
            )
    return sorted(schedule.items())


def _check(*, resize: Resize, min_visibility: float, min_size: float) -> None:
    expect(ShortSide | Fixed, "ShortSide(...) or Fixed(...)", resize=resize)
    expect(Real, "a number", min_visibility=min_visibility, min_size=min_size)
    if not 0 <= min_visibility <= 1:
        raise ValueError(f"Expected min_visibility to be a share from 0 to 1. Received: {min_visibility}")
    if not min_size >= 0:
        raise ValueError(f"Expected min_size to be a number of pixels, at least 0. Received: {min_size}")


def _to_augmentation(augment: Any) -> tuple[Augmentation | None, ScaleJitter | None]:
    """The pipeline and the variation of scale that an argument `augment` stands for."""
    if augment is None:
        return None, None
    # Imported only where it is used: albumentations takes a second.
    from detfeed.augmentation import recipes
    from detfeed.augmentation.pipeline import Augmentation

    recipe = recipes.named(augment) if isinstance(augment, str) else augment
    transform, scale = recipe if isinstance(recipe, Recipe) else (recipe, None)
    return Augmentation(transform), scale


def _check_mosaic(
    augmentation: Augmentation | None, proposals: Proposals | None, on_error: Literal["raise"] | Replace
) -> None:
    if augmentation is not None and augmentation.num_others and (proposals is not None or on_error != "raise"):
        raise ValueError(
            'Expected no proposals, and on_error="raise", with a Mosaic in augment: its other images bring no '
            f"proposals, and are not replaced. Received: {proposals} and on_error={on_error!r}"
        )
