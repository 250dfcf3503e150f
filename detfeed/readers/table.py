"""Policies: what readers do about boxes that are merely bad, and about files that can't be read.

A box is bad if it has no area inside its image (zero or negative size, wholly outside), if it reaches out of the
image by more than half a pixel, or if it repeats a box of the same image, class, corners and ignore flag. What
reaches out by less is clipped and not spoken of. With `invalid`

- "clip", boxes are clipped to their image, and those without area inside it are dropped.
- "drop", all bad boxes are dropped.
- "ignore", bad boxes become ignore regions, clipped to their image; one whose corners are swapped becomes the
  region between them, and those that still have no area inside the image are dropped.
- "raise", the first one is an error.

Of boxes that repeat each other the first stays. One that is ignored already, such as a crowd, and reaches out is
clipped and stays whatever the policy, or its region would become background; only "clip" speaks of it. One warning, a
`BadBoxesWarning`, says what was done to how many boxes, and carries it kind by kind for programs.

Where a reader takes `on_problem`, an annotation file or an image that can't be read is left out, and told to it.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import MAX_SIDE, Annotations, repeated_rows
from detfeed.errors import AnnotationError, DetfeedError, ImageError, RepeatedImageError, shorten
from detfeed.images.headers import read_header
from detfeed.masks import Runs

Invalid = Literal["drop", "clip", "ignore", "raise"]
Kind = Literal["swapped-corners", "no-area", "outside", "larger-than-image", "partly-outside", "repeated"]
Effect = Literal["dropped", "clipped", "ignored"]
OnProblem = Callable[[str, DetfeedError], None]  # (path, error)

# Pixels that a box may reach out of its image without being bad: formats round, YOLO's and OpenImages' above all.
TOLERANCE = 0.5
# Bad boxes of a kind that are told one by one.
MAX_EXAMPLES = 10


@dataclasses.dataclass(frozen=True)
class BadBox:
    """A bad box as it stands in its file.

    Attributes:
        path, image_id: of its image.
        index: place among the boxes of its image in the file, from 0.
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
    """The bad boxes of a kind, and what was done to them.

    Attributes:
        kind: "swapped-corners" (a negative size), "no-area" (a size of zero), "outside" (wholly), "larger-than-image"
            (it reaches out at two opposite sides), "partly-outside", or "repeated"; each box is of one.
        effect: "dropped", "clipped" or made an ignore region.
        count: how many there are.
        examples: the first of them, at most `MAX_EXAMPLES`.
    """

    kind: Kind
    effect: Effect
    count: int
    examples: tuple[BadBox, ...]


class BadBoxesWarning(UserWarning):
    """A reader found bad boxes and followed its policy.

    Attributes:
        found: what it found and did, kind by kind.
    """

    found: tuple[BadBoxes, ...] = ()


def tell(on_problem: OnProblem | None, path: str, error: DetfeedError) -> None:
    """Tell of a file that can't be read; raises the error if there is nobody to be told."""
    if on_problem is None:
        raise error
    on_problem(path, error)


def tell_again(
    seen: dict[str, tuple[str, str]], image_id: str, file: str, where: str, on_problem: OnProblem | None
) -> bool:
    """Whether a list names an image that was named before; tells of it.

    Args:
        seen: file and place of each image so far; gets this one.
        image_id: of the image.
        file, where: the list, and the place in it.
        on_problem: as in `tell`.
    """
    if image_id not in seen:
        seen[image_id] = file, where
        return False
    first_file, first = seen[image_id]
    if first_file != file:
        first = f"{first} of {first_file}"
    error = RepeatedImageError(
        f"{file}: expected each image once, got {shorten(image_id)} again - at {where}, first at {first}; remove it; a "
        "`sampler` feeds images more often"
    )
    tell(on_problem, file, error)
    return True


def read_hw(path: str, on_problem: OnProblem | None) -> tuple[int, int] | None:
    """Height and width of an image from its header, turned as EXIF says; None if `on_problem` was told of it.

    Raises:
        ImageError: it is missing, of an unknown format or of over `MAX_SIDE` pixels a side, and there is no
            `on_problem`.
    """
    try:
        height, width = read_header(path).oriented_hw
        if max(height, width) > MAX_SIDE:
            raise ImageError(f"{path}: expected at most {MAX_SIDE} pixels a side, got height {height}, width {width}")
        return height, width
    except ImageError as error:
        if os.sep == "/" and "\\" in path and isinstance(error.__cause__, FileNotFoundError):
            error = ImageError(f'{error}; its name has a "\\", which parts no folders here: write "/" in its place')
        tell(on_problem, path, error)
        return None


def to_annotations(
    *,
    paths: Sequence[str],
    image_ids: NDArray[np.generic],
    image_hw: Sequence[tuple[int, int] | None],
    boxes: NDArray[np.float64],
    positions: NDArray[np.int64],
    class_ids: NDArray[np.int32],
    ignore: NDArray[np.bool_],
    class_names: Sequence[str],
    category_ids: NDArray[np.int64],
    source: str,
    invalid: Invalid,
    where: Callable[[int], str],
    areas: NDArray[np.float64] | None = None,
    masks: Mapping[int, Runs] | None = None,
    **columns: Any,
) -> Annotations:
    """Make the table of what a reader read; every reader ends here, called by its user.

    Args:
        image_hw: height and width of each image. None: it is left out, with its boxes.
        boxes: float64 (N, 4), finite, xyxy pixels, in any order of images.
        positions: int64 (N,), each box's image; -1 if it is of none and left out.
        where: place of a row of `boxes` in the file, for messages.
        areas: float64 (N,), square pixels; NaN or negative, and None: those of the boxes.
        masks: by row of `boxes`.
        columns: further ones of `Annotations`, which are pairs of an image and a class.

    Raises:
        AnnotationError: a bad box and invalid="raise", or columns that `Annotations` refuses.
        ValueError: unknown `invalid`.
    """
    if invalid not in get_args(Invalid):
        raise ValueError(f"Expected invalid to be one of {get_args(Invalid)}. Received: {invalid!r}")
    order = np.argsort(positions, kind="stable")
    num_rows = len(order)
    if positions.min(initial=0) < 0:
        order = order[positions[order] >= 0]
    if None in image_hw:
        known = np.array([size is not None for size in image_hw], bool)
        order = order[known[positions[order]]]
        moved_to = np.cumsum(known) - 1
        positions = moved_to[positions]
        for name, pairs in columns.items():
            pairs = pairs[known[pairs[:, 0]]]
            columns[name] = np.stack([moved_to[pairs[:, 0]], pairs[:, 1]], axis=1).astype(pairs.dtype)
        paths = [path for path, size in zip(paths, image_hw, strict=True) if size is not None]
        image_ids, image_hw = image_ids[known], [size for size in image_hw if size is not None]
    sizes_hw = np.array(image_hw, np.int64).reshape(-1, 2)
    large = np.flatnonzero((sizes_hw > MAX_SIDE).any(axis=1))
    if len(large):
        raise AnnotationError(
            f"{source}: expected images of at most {MAX_SIDE} pixels a side, got height and width "
            f"{sizes_hw[large[0]].tolist()} - at {paths[large[0]]}"
        )
    boxes, positions, class_ids, ignore = boxes[order], positions[order], class_ids[order], ignore[order]
    given = boxes
    swapped = np.zeros(len(boxes), bool)
    if invalid == "ignore":
        swapped |= (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)

    exact = np.clip(boxes, 0, np.tile(sizes_hw[:, ::-1], 2)[positions])
    clipped = exact.astype(np.float32)
    empty = geometry.area(clipped) <= 0
    moved = np.ascontiguousarray(np.abs(boxes - exact) > TOLERANCE)
    # Any of four: seen as one number, a hundredth of the time of any(axis=1).
    reaching: NDArray[np.bool_] = moved.view(np.uint32)[:, 0] != 0
    if invalid != "clip":
        reaching &= ~ignore
    outside = (reaching | swapped) & ~empty
    if invalid == "ignore":
        ignore = ignore | outside
    repeated = np.zeros(len(boxes), bool)
    compared = np.flatnonzero(~empty & ~outside if invalid == "drop" else ~empty)
    repeated[compared] = repeated_rows(positions[compared], class_ids[compared], ignore[compared], clipped[compared])
    outside &= ~repeated

    bad = empty | outside | repeated
    if bad.any():
        row = int(np.flatnonzero(bad)[order[bad].argmin()])
        height, width = sizes_hw[positions[row]].tolist()
        first = f"{given[row].tolist()} in an image of height {height} and width {width} - at {where(int(order[row]))}"
        if invalid == "raise":
            expected = "each box once" if repeated[row] else "a box with area, inside its image"
            raise AnnotationError(
                f'{source}: expected {expected}, got {first}; invalid="clip", "drop" or "ignore" goes on and reports'
            )
        done = {"clip": "clipped to it", "drop": "dropped", "ignore": "made ignore regions"}[invalid]
        effects = [
            f"{count} {what}"
            for count, what in (
                (
                    outside.sum(),
                    f"reaching out of their image{' or with swapped corners' if swapped.any() else ''} {done}",
                ),
                (empty.sum(), "without area inside their image dropped"),
                (repeated.sum(), "repeating another dropped"),
            )
            if count
        ]
        warning = BadBoxesWarning(
            f'{source}: of {len(bad)} boxes {", ".join(effects)} (invalid="{invalid}"); the first is {first}'
        )
        # What reaches out is treated as the policy says; what has no area or repeats another is dropped by all of them.
        milder: Effect = {"clip": "clipped", "drop": "dropped", "ignore": "ignored"}[invalid]  # type: ignore[assignment]
        rows = np.flatnonzero(bad)
        kinds = _kinds(given[rows], sizes_hw[positions[rows]], empty=empty[rows], repeated=repeated[rows])
        effects_of = np.where(outside[rows], milder, "dropped")
        starts = np.searchsorted(positions, positions)

        def example(row: int) -> BadBox:
            return BadBox(
                path=paths[positions[row]],
                image_id=image_ids[positions[row]].item(),
                index=int(row - starts[row]),
                box=tuple(given[row].tolist()),
                where=where(int(order[row])),
            )

        warning.found = tuple(
            BadBoxes(kind, effect, len(some), tuple(map(example, some[:MAX_EXAMPLES].tolist())))
            for kind in get_args(Kind)
            for effect in get_args(Effect)
            if len(some := rows[(kinds == kind) & (effects_of == effect)])
        )
        warnings.warn(warning, stacklevel=3)

    kept = ~(bad if invalid == "drop" else empty | repeated)
    order = order[kept]
    own = geometry.area(clipped[kept])
    if areas is not None:
        with np.errstate(over="ignore"):
            stated = areas[order].astype(np.float32)
        np.copyto(own, stated, where=(stated >= 0) & np.isfinite(stated))
    place_of = np.full(num_rows, -1)
    place_of[order] = np.arange(len(order))
    return Annotations(
        paths=tuple(paths),
        image_ids=image_ids,
        image_hw=sizes_hw.astype(np.int32),
        boxes=clipped[kept],
        class_ids=class_ids[kept],
        ignore=ignore[kept],
        areas=own,
        offsets=np.searchsorted(positions[kept], np.arange(len(paths) + 1)).astype(np.int64),
        class_names=tuple(class_names),
        category_ids=category_ids,
        masks={int(place_of[row]): runs for row, runs in (masks or {}).items() if place_of[row] >= 0},
        source=source,
        **columns,
    )


def _kinds(
    boxes: NDArray[np.float64], sizes_hw: NDArray[np.int64], *, empty: NDArray[np.bool_], repeated: NDArray[np.bool_]
) -> NDArray[np.str_]:
    """The kind of each bad box: the first in this order that it is."""
    low, high, limits = boxes[:, :2], boxes[:, 2:], sizes_hw[:, ::-1]
    kinds: dict[Kind, Any] = {
        "repeated": repeated,
        "swapped-corners": (high < low).any(axis=1),
        "no-area": (high == low).any(axis=1),
        "outside": ((high <= 0) | (low >= limits)).any(axis=1),
        "larger-than-image": ((low < -TOLERANCE) & (high > limits + TOLERANCE)).any(axis=1) & ~empty,
        "partly-outside": ~empty,
    }
    return np.select(list(kinds.values()), list(kinds), default="no-area")  # of so little that float32 has none left
