"""Bad boxes: which boxes of a file are bad, what the policy `invalid` makes of them, and the warning about them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import IgnoreReason, repeated_rows
from detfeed.boxes import Boxes
from detfeed.errors import AnnotationError
from detfeed.readers.draft import Draft
from detfeed.readers.notes import users_level

Invalid = Literal["drop", "clip", "ignore", "raise"]
Kind = Literal["swapped-corners", "no-area", "outside", "larger-than-image", "partly-outside", "repeated"]
Effect = Literal["dropped", "clipped", "ignored"]

# Pixels by which a box may reach out of its image without being bad, since formats round; YOLO and OpenImages most.
TOLERANCE = 0.5

# What each policy does with a box that reaches out of its image: for programs, and in the warning's text.
_EFFECTS: dict[Invalid, tuple[Effect, str]] = {
    "clip": ("clipped", "clipped to it"),
    "drop": ("dropped", "dropped"),
    "ignore": ("ignored", "made ignore regions"),
}


@dataclasses.dataclass(frozen=True)
class BadBox:
    """A bad box as its file gives it.

    Attributes:
        path, image_id: of its image.
        index: number among the boxes of its image in the file, from 0.
        box: xyxy pixels, neither clipped nor rounded.
        where: its place in the file.
    """

    path: str
    image_id: int | str
    index: int
    box: tuple[float, float, float, float]
    where: str


@dataclasses.dataclass(frozen=True)
class BadBoxes:
    """The bad boxes of one kind that the policy treated alike.

    Attributes:
        kind: "swapped-corners" (a negative size), "no-area" (a size of zero), "outside" (wholly outside the image),
            "larger-than-image" (it reaches out at two opposite sides), "partly-outside", or "repeated". A box has one
            kind.
        effect: "dropped", "clipped" or "ignored" (made an ignore region).
        count: how many boxes.
        examples: all of them, each made when it is asked for.
    """

    kind: Kind
    effect: Effect
    count: int
    examples: Sequence[BadBox]


class _Examples(Sequence[BadBox]):
    """Bad boxes that are made when they are asked for: a file may have a million."""

    def __init__(self, make: Callable[[int], BadBox], places: NDArray[np.int64]) -> None:
        self._make = make
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        chosen = self._places[place]
        return _Examples(self._make, chosen) if isinstance(place, slice) else self._make(int(chosen))

    def __iter__(self) -> Iterator[BadBox]:
        return map(self._make, self._places.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


class BadBoxesWarning(UserWarning):
    """A reader found bad boxes and treated them by its policy `invalid`.

    A box is bad if it has no area inside its image (its size is zero or negative, or it lies wholly outside), if it
    reaches out of its image by more than half a pixel, or if it repeats a box of the same image, class, corners and
    ignore flag. Boxes that reach out by less are clipped without a warning. The policies:

    - "clip" clips boxes to their image, and drops boxes without area inside it.
    - "drop" drops all bad boxes.
    - "ignore" makes bad boxes ignore regions, clipped to their image; swapped corners are put in order first. Boxes
      that then have no area inside their image are dropped.
    - "raise" raises an `AnnotationError` about the first bad box.

    Of boxes that repeat each other all policies keep the first. A box that is an ignore region already, such as a
    crowd, and reaches out of its image is clipped and kept by all policies, since its region would otherwise become
    background; only "clip" reports it.

    Attributes:
        found: the bad boxes by kind and effect.
    """

    found: tuple[BadBoxes, ...] = ()


class _Verdicts(NamedTuple):
    """What a policy makes of N boxes; each is in at most one of empty, outside and repeated.

    Attributes:
        clipped: float32 (N, 4), clipped to their images.
        ignore: bool (N,), the ignore flags that the policy leaves.
        swapped: bool (N,), whether corners were put in order; only "ignore" does that.
        empty: bool (N,), without area inside the image.
        outside: bool (N,), reaching out of the image, or swapped.
        repeated: bool (N,), equal to an earlier box.
    """

    clipped: Boxes
    ignore: NDArray[np.bool_]
    swapped: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    repeated: NDArray[np.bool_]


def correct_boxes(draft: Draft, invalid: Invalid) -> Draft:
    """Apply a policy to the boxes of a draft, and warn about the bad ones.

    Args:
        draft: its boxes are sorted by image.
        invalid: the policy; see `BadBoxesWarning`.

    Returns:
        The draft with float32 boxes that lie inside their images and have area.

    Raises:
        AnnotationError: a bad box, and invalid="raise".
    """
    verdicts = _judge(draft, invalid)
    dropped = verdicts.empty | verdicts.repeated
    bad = dropped | verdicts.outside
    corrected = dataclasses.replace(
        draft, boxes=verdicts.clipped, ignore=verdicts.ignore, ignore_reasons=_reasons(draft, verdicts.ignore)
    )
    if not bad.any():
        return corrected
    _report(draft, verdicts, np.flatnonzero(bad), invalid)
    return corrected.take(np.flatnonzero(~(bad if invalid == "drop" else dropped)))


def _judge(draft: Draft, invalid: Invalid) -> _Verdicts:
    boxes, positions, ignore = draft.boxes, draft.positions, draft.ignore
    swapped = np.zeros(len(boxes), bool)
    if invalid == "ignore":
        swapped |= (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    inside = np.clip(boxes, 0, np.tile(draft.image_hw[:, ::-1], 2)[positions])
    clipped = inside.astype(np.float32)
    empty = geometry.area(clipped) <= 0
    reaching = _differ(boxes, inside)
    if invalid != "clip":
        reaching &= ~ignore
    outside = (reaching | swapped) & ~empty
    if invalid == "ignore":
        ignore = ignore | outside
    repeated = np.zeros(len(boxes), bool)
    compared = np.flatnonzero(~empty & ~outside if invalid == "drop" else ~empty)
    repeated[compared] = repeated_rows(
        positions[compared], draft.class_ids[compared], ignore[compared], clipped[compared]
    )
    return _Verdicts(clipped, ignore, swapped, empty, outside & ~repeated, repeated)


def _reasons(draft: Draft, ignore: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """The reasons of a draft's ignore regions, with one for those that a policy added to them."""
    added = ignore & ~draft.ignore
    if not added.any():
        return draft.ignore_reasons
    reasons: NDArray[Any] = draft.ignore.astype(np.uint8) if draft.ignore_reasons is None else draft.ignore_reasons
    return np.where(added, np.uint8(IgnoreReason.BAD_BOX), reasons)


def _differ(boxes: NDArray[np.floating], inside: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which boxes differ from their clipped ones by more than `TOLERANCE`, bool (N,)."""
    moved = np.ascontiguousarray(np.abs(boxes - inside) > TOLERANCE)
    # moved.any(axis=1), with the four bools of a row read as one uint32 (100 times as fast).
    differ: NDArray[np.bool_] = moved.view(np.uint32)[:, 0] != 0
    return differ


def _report(draft: Draft, verdicts: _Verdicts, bad: NDArray[np.int64], invalid: Invalid) -> None:
    """Warn about the boxes in the rows `bad`; with "raise", raise an AnnotationError about the first in the file."""
    file_rows = np.arange(len(draft.boxes)) if draft.file_rows is None else draft.file_rows
    first = bad[file_rows[bad].argmin()]
    height, width = draft.image_hw[draft.positions[first]].tolist()
    box = f"{draft.boxes[first].tolist()} in an image of height {height} and width {width}"
    place = draft.where(int(file_rows[first]))
    if invalid == "raise":
        expected = "each box once" if verdicts.repeated[first] else "a box with area, inside its image"
        raise AnnotationError(
            f'{draft.source}: expected {expected}, got {box} - at {place}; invalid="clip", "drop" or "ignore" goes on '
            "and reports"
        )
    effect, done = _EFFECTS[invalid]
    swapped = " or with swapped corners" if verdicts.swapped.any() else ""
    counts = {
        f"reaching out of their image{swapped} {done}": verdicts.outside.sum(),
        "without area inside their image dropped": verdicts.empty.sum(),
        "repeating another dropped": verdicts.repeated.sum(),
    }
    effects = ", ".join(f"{count} {text}" for text, count in counts.items() if count)
    warning = BadBoxesWarning(
        f'{draft.source}: of {len(draft.boxes)} boxes {effects} (invalid="{invalid}"); the first is {box} - at {place}'
    )
    warning.found = _found(draft, verdicts, bad, file_rows, effect)
    warnings.warn(warning, stacklevel=users_level())


def _found(
    draft: Draft, verdicts: _Verdicts, bad: NDArray[np.int64], file_rows: NDArray[np.int64], effect: Effect
) -> tuple[BadBoxes, ...]:
    """The bad boxes by kind and effect; `effect` is that of boxes that reach out of their image."""
    positions = draft.positions
    kinds = _kinds(
        draft.boxes[bad],
        draft.image_hw[positions[bad]],
        empty=verdicts.empty[bad],
        repeated=verdicts.repeated[bad],
    )
    effects = np.where(verdicts.outside[bad], effect, "dropped")
    starts = np.searchsorted(positions, positions[bad])

    def example(place: int) -> BadBox:
        row = int(bad[place])
        position = int(positions[row])
        return BadBox(
            path=draft.paths[position],
            image_id=draft.image_ids[position].item(),
            index=int(row - starts[place]),
            box=tuple(draft.boxes[row].tolist()),
            where=draft.where(int(file_rows[row])),
        )

    return tuple(
        BadBoxes(kind, effect, len(places), _Examples(example, places))
        for kind in get_args(Kind)
        for effect in get_args(Effect)
        if len(places := np.flatnonzero((kinds == kind) & (effects == effect)))
    )


def _kinds(
    boxes: NDArray[np.floating], sizes_hw: NDArray[np.int64], *, empty: NDArray[np.bool_], repeated: NDArray[np.bool_]
) -> NDArray[np.str_]:
    """The kind of each bad box: the first of these that it has."""
    low, high, limits = boxes[:, :2], boxes[:, 2:], sizes_hw[:, ::-1]
    kinds: dict[Kind, Any] = {
        "repeated": repeated,
        "swapped-corners": (high < low).any(axis=1),
        "no-area": (high == low).any(axis=1),
        "outside": ((high <= 0) | (low >= limits)).any(axis=1),
        "larger-than-image": ((low < -TOLERANCE) & (high > limits + TOLERANCE)).any(axis=1) & ~empty,
        "partly-outside": ~empty,
    }
    return np.select(list(kinds.values()), list(kinds), default="no-area")  # an area too small for float32
