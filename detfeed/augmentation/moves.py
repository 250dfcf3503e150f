"""Moves: flips and crops that a scene does by itself, for what albumentations would do in 0.4 ms more an image.

They are drawn as albumentations draws them: from the same random numbers come the same flips and crops.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import albumentations
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError


class Movable(Protocol):
    """What is moved: a `Scene`."""

    @property
    def frame_hw(self) -> tuple[int, int]: ...

    def flipped(self, *, axis: int = 0) -> Self: ...

    def cropped(self, window: tuple[int, int, int, int]) -> Self: ...


M = TypeVar("M", bound=Movable)


class Move(Protocol):
    """Something that is done to a scene or not, as is drawn."""

    def __call__(self, scene: M, drawn: random.Random) -> M: ...


def _is_done(p: float, drawn: random.Random) -> bool:
    """Whether a transform is done. (A Compose draws even where its p is 1; a transform does not.)"""
    return p > 0 and (p >= 1 or drawn.random() < p)


@dataclasses.dataclass(frozen=True)
class Flip:
    """A flip left to right (axis 0) or top to bottom (axis 1)."""

    p: float
    axis: int

    def __call__(self, scene: M, drawn: random.Random) -> M:
        return scene.flipped(axis=self.axis) if _is_done(self.p, drawn) else scene


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A crop of some height and width at a random place.

    Raises:
        CropSizeError: the image is smaller.
    """

    p: float
    crop_hw: tuple[int, int]

    def __call__(self, scene: M, drawn: random.Random) -> M:
        if not _is_done(self.p, drawn):
            return scene
        room = [side - cut for side, cut in zip(scene.frame_hw, self.crop_hw, strict=True)]
        if min(room) < 0:
            raise CropSizeError(
                f"Expected images of at least the crop's height and width {self.crop_hw}. Received: {scene.frame_hw}"
            )
        y, x = (int((more + 1) * drawn.random()) for more in room)
        return scene.cropped((x, y, x + self.crop_hw[1], y + self.crop_hw[0]))


@dataclasses.dataclass(frozen=True)
class Moves:
    """Moves one after the other, all or none."""

    p: float
    moves: tuple[Move, ...]

    def __call__(self, scene: M, drawn: random.Random) -> M:
        if drawn.random() < self.p:
            for move in self.moves:
                scene = move(scene, drawn)
        return scene


def moves_of(transform: Any) -> Move | None:
    """The move that does what an albumentations transform does; None where there is none.

    A transform of another class, subclasses included, may do anything.
    """
    make = _MOVES.get(type(transform))
    return None if make is None else make(transform)


def draw_from(rng: np.random.Generator) -> random.Random:
    """Python's generator of random numbers, which albumentations draws from, seeded from a sample's generator."""
    return random.Random(int(rng.integers(2**63)))


def _moves(compose: albumentations.Compose) -> Move | None:
    moves = [moves_of(part) for part in compose.transforms]
    known = [move for move in moves if move is not None]
    return Moves(compose.p, tuple(known)) if len(known) == len(moves) else None


def _random_crop(crop: albumentations.RandomCrop) -> Move | None:
    return None if crop.pad_if_needed else RandomCrop(crop.p, (crop.height, crop.width))


_MOVES: dict[type, Callable[[Any], Move | None]] = {
    albumentations.Compose: _moves,
    albumentations.HorizontalFlip: lambda flip: Flip(flip.p, axis=0),
    albumentations.VerticalFlip: lambda flip: Flip(flip.p, axis=1),
    albumentations.RandomCrop: _random_crop,
}
