"""BatchLoader: annotations to batches. Pure and stateless: `load(epoch, index)` may run anywhere, in any order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.augmentation.scale import Recipe
from detfeed.batches.ledger import Replace, Replacement
from detfeed.batches.ordering import batch_positions, draw_positions, sample_rng
from detfeed.batches.samplers import Sampler
from detfeed.boxes import Boxes
from detfeed.errors import ImageError, SampleError
from detfeed.images.canvases import Resize, fed_wh, resized_hw_on
from detfeed.images.decoding import Exif, read_image
from detfeed.images.resizing import Image, resize, resize_into
from detfeed.masks import fill_mask
from detfeed.proposals import Proposals
from detfeed.sample import Arrays, Sample

TargetFunction = Callable[[Sample], Any]
Batch = tuple[Arrays, ...]
Allocate = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]

MAX_ATTEMPTS = 8  # to replace an image that can't be read


class BatchLoader:
    """Makes the batches of an epoch, each a function of (seed, epoch, index) alone.

    Args:
        annotations: the data set; at least one image.
        targets: a target function, see `targets`.
        proposals: of the images of `annotations`, as `read_proposals` reads them; they become `Sample.proposals`.
        batch_size, resize, ...: see `BatchArguments`.

    Raises:
        ValueError: no images, or fewer than shards; batch_size below 1, negative seed, an `augment` that can't be used,
            a shard that does not exist, proposals of other images, another `exif` or `on_error`, or a `sampler` that
            returns no such numbers.
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
        reduce: bool | None = None,
        sampler: Sampler | None = None,
        on_error: Literal["raise"] | Replace = "raise",
    ) -> None:
        if len(annotations) == 0:
            raise ValueError(f"Expected annotations with at least one image. Received: {annotations}")
        if not 0 <= min_visibility <= 1:
            raise ValueError(f"Expected min_visibility to be a share from 0 to 1. Received: {min_visibility}")
        if not min_size >= 0:
            raise ValueError(f"Expected min_size to be a number of pixels, at least 0. Received: {min_size}")
        if batch_size < 1:
            raise ValueError(f"Expected batch_size to be at least 1. Received: {batch_size}")
        if seed < 0:
            raise ValueError(f"Expected seed to be at least 0. Received: {seed}")
        shard_index, num_shards = shard
        if not 0 <= shard_index < num_shards:
            raise ValueError(f"Expected a shard (index, count) with 0 <= index < count. Received: {shard}")
        self._weights = None if sampler is None else _weights(sampler, annotations)
        if len(annotations) < num_shards or (
            self._weights is not None and max(self._weights.sum(), np.count_nonzero(self._weights)) < num_shards
        ):
            raise ValueError(f"Expected at least one image for each of {num_shards} shards. Received: {annotations}")
        if exif not in get_args(Exif):
            raise ValueError(f"Expected exif to be one of {get_args(Exif)}. Received: {exif!r}")
        if on_error != "raise" and not isinstance(on_error, Replace):
            raise ValueError(f'Expected on_error to be "raise" or Replace(...). Received: {on_error!r}')
        if not callable(targets):
            raise ValueError(f"Expected targets to be a function of a Sample. Received: {targets!r}")
        if proposals is not None and not np.array_equal(proposals.image_ids, annotations.image_ids):
            raise ValueError(
                "Expected proposals of the images of annotations, in their order, as read_proposals(path, annotations) "
                f"reads them. Received: {proposals} and {annotations}"
            )
        self.annotations = annotations
        self.num_images = len(annotations) if self._weights is None else int(np.count_nonzero(self._weights))
        self.targets = targets
        self.batch_size = batch_size
        self.resize = resize
        self.augment = None
        self.scale = None
        if augment is not None:
            # Imported only where it is used: it takes a second.
            from detfeed.augmentation.pipeline import Augmentation

            if isinstance(augment, str):
                from detfeed.augmentation.recipes import named

                augment = named(augment)
            if isinstance(augment, Recipe):
                augment, self.scale = augment
            self.augment = Augmentation(augment)
            if self.augment.num_others and (proposals is not None or on_error != "raise"):
                raise ValueError(
                    'Expected no proposals, and on_error="raise", with a Mosaic in augment: its other images bring no '
                    f"proposals, and are not replaced. Received: {proposals} and on_error={on_error!r}"
                )
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.min_visibility = min_visibility
        self.min_size = min_size
        self.proposals = proposals
        self.shard = (shard_index, num_shards)
        self.exif = exif
        self.reduce = augment is None if reduce is None else reduce
        self.on_error = on_error
        # Each canvas has an image for each shard, or a whole batch.
        self._at_least = num_shards * (batch_size if drop_last else 1)
        self.canvases, self._canvas_ids = _canvases(resize, annotations.image_hw, self._weights, self._at_least)
        self._plans: dict[int, _Planned] = {}
        self.num_batches = len(self.batches(0))
        if self.num_batches == 0:
            raise ValueError(
                f"Expected at least one full batch with drop_last=True. Received: {len(annotations)} images, "
                f"batch_size {batch_size} and {num_shards} shard(s)"
            )
        _warn_of_bad_boxes(annotations, annotations.boxes, annotations.offsets, annotations.source, "boxes")
        _warn_of_small_objects(annotations, resize, min_size)
        if proposals is not None:
            # A file rounds its numbers, so that reaching out a little is nothing to speak of.
            _warn_of_bad_boxes(
                annotations, proposals.boxes, proposals.offsets, proposals.source, "proposals", tolerance=1
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Positions of each batch of an epoch."""
        return self._plan(epoch).positions

    def _plan(self, epoch: int) -> _Planned:
        plans = self._plans
        plan = plans.get(epoch)
        if plan is None:
            positions = np.arange(len(self.annotations))
            repeats = np.zeros(len(positions), np.int64)
            if self._weights is not None:
                positions, repeats = draw_positions(
                    self._weights, self._canvas_ids, epoch=epoch, seed=self.seed, at_least=self._at_least
                )
            batches = batch_positions(
                self._canvas_ids[positions],
                self.canvases,
                batch_size=self.batch_size,
                epoch=epoch,
                seed=self.seed,
                shuffle=self.shuffle,
                drop_last=self.drop_last,
                shard=self.shard,
            )
            plan = _Planned([positions[batch] for batch in batches], [repeats[batch] for batch in batches])
            # load() asks for every batch of an epoch, and at its end for some of the next; threads share this.
            self._plans = {**{e: plans[e] for e in plans if abs(e - epoch) == 1}, epoch: plan}
        return plan

    def load(
        self,
        epoch: int,
        index: int,
        allocate: Allocate = np.empty,
        report: Callable[[Replacement], None] | None = None,
    ) -> Batch:
        """One batch.

        Args:
            epoch, index: which.
            allocate: makes the batch's arrays, of a shape and a dtype; their contents need not be cleared.
            report: told of each image that could not be read and was replaced. None: a warning tells.

        Returns:
            `(x, y)` or `(x, y, sample_weight)`, dicts of arrays with a batch axis B in front. x holds image, uint8
            (B, H, W, 3) RGB, padded right and bottom with zeros, and image_hw, int32 (B, 2), each image's true height
            and width in pixels on the canvas, besides what the target function puts there.

        Raises:
            SampleError: a sample could not be made; the message names image, position, epoch and batch.
        """
        plan = self._plan(epoch)
        positions, repeats = plan.positions[index], plan.repeats[index]
        images = allocate((len(positions), *self._canvas_hw(positions[0]), 3), np.uint8)
        image_hw = allocate((len(positions), 2), np.int32)
        targets = []
        for row, (position, repeat) in enumerate(zip(positions.tolist(), repeats.tolist(), strict=True)):
            fed = position
            try:
                sample, unreadable = self._load_or_replace(epoch, position, repeat, images[row])
                fed = sample.position
                image_hw[row] = sample.image_hw
                targets.append(_split(self.targets(sample)))
                _check_alike(targets[-1], targets[0])
            except Exception as error:
                advice = ""
                if isinstance(error, ImageError) and self.on_error == "raise":
                    advice = "; or on_error=Replace() feeds others in place of such images"
                raise SampleError(
                    f"{self.annotations.paths[fed]} (image_id {self.annotations.image_id(fed)}, position {fed}, epoch "
                    f"{epoch}, batch {index}): {type(error).__name__}: {error}{advice}"
                ) from error
            for failed, text in unreadable:
                replacement = Replacement(
                    epoch,
                    index,
                    failed,
                    self.annotations.paths[failed],
                    self.annotations.image_id(failed),
                    text,
                    self.annotations.paths[sample.position],
                    sample.image_id,
                )
                if report is None:
                    warnings.warn(replacement.sentence, stacklevel=2)
                else:
                    report(replacement)
        x, *rest = (
            {name: _stack([parts[i][name] for parts in targets], allocate) for name in first}
            for i, first in enumerate(targets[0])
        )
        return ({"image": images, "image_hw": image_hw, **x}, *rest)

    def placed_hw(self, position: int) -> tuple[int, int]:
        """Height and width in pixels that an image has on its canvas, if no augmentation changes its shape."""
        height, width = self.annotations.image_hw[position].tolist()
        return resized_hw_on(self.resize, (height, width), self._canvas_hw(position))

    def _canvas_hw(self, position: int) -> tuple[int, int]:
        height, width = self.canvases[self._canvas_ids[position]].tolist()
        return height, width

    def load_sample(self, epoch: int, position: int, canvas: Image | None = None, *, repeat: int = 0) -> Sample:
        """One sample, as target functions get it: read, augmented, resized, boxes and proposals clipped.

        Args:
            epoch, position: which.
            canvas: uint8 (H, W, 3) of the position's canvas size; the image is written into its corner, and zeros
                beside it. None: a new one.
            repeat: how often a `sampler` had it come in this epoch before.

        Raises:
            ImageError: the image can't be read or is not of the annotated size, whatever `on_error`.
        """
        rng = sample_rng(self.seed, epoch, position, repeat)
        return self._load_sample(position, rng, canvas, self._canvas_hw(position))

    def _load_or_replace(
        self, epoch: int, position: int, repeat: int, canvas: Image
    ) -> tuple[Sample, list[tuple[int, str]]]:
        """A sample, and the positions that could not be read on the way to it with what was wrong with them."""
        unreadable: list[tuple[int, str]] = []
        tried, input_hw = position, self._canvas_hw(position)
        for attempt in range(1 + MAX_ATTEMPTS):
            rng = sample_rng(self.seed, epoch, position, repeat, attempt)
            if attempt:
                left = np.ones(len(self.annotations), bool) if self._weights is None else self._weights > 0
                left[[failed for failed, _ in unreadable]] = False
                alike = left & (self._canvas_ids == self._canvas_ids[position])
                others = np.flatnonzero(alike if alike.any() else left)
                if len(others) == 0:
                    break
                tried = int(rng.choice(others))
            try:
                return self._load_sample(tried, rng, canvas, input_hw), unreadable
            except ImageError as error:
                if self.on_error == "raise":
                    raise
                unreadable.append((tried, str(error)))
        raise ImageError(
            f"{unreadable[0][1]}. Neither could be read what was drawn to replace it: "
            + (", ".join(self.annotations.paths[failed] for failed, _ in unreadable[1:]) or "there is nothing else")
        )

    def _load_sample(
        self, position: int, rng: np.random.Generator, canvas: Image | None, input_hw: tuple[int, int]
    ) -> Sample:
        annotations = self.annotations
        if canvas is None:
            canvas = np.empty((*input_hw, 3), np.uint8)
        annotated_hw = tuple(annotations.image_hw[position].tolist())
        image, boxes, kept = self._read(position, resized_hw_on(self.resize, annotated_hw, input_hw))
        proposals = geometry.EMPTY
        if self.proposals is not None:
            proposals = geometry.clip(self.proposals.boxes[self.proposals.rows(position)], annotated_hw)
            proposals = proposals[geometry.area(proposals) > 0]
        visible = np.ones(len(boxes))
        masks = self._masks(kept, annotated_hw)
        # Boxes are pixels of the whole image, however small it was decoded.
        image_hw = annotated_hw
        if self.augment is not None:
            if image.shape[:2] != annotated_hw:
                boxes, proposals = (_scaled(moved, annotated_hw, image.shape[:2]) for moved in (boxes, proposals))
                masks = {row: resize(mask, image.shape[:2]) for row, mask in masks.items()}
            others = self._others(rng, len(boxes))
            if others is not None:
                masks = {}
                kept = np.concatenate([kept, others.kept])
            new = self.augment(image, boxes, rng, proposals=proposals, masks=list(masks.values()), others=others or ())
            image, boxes, proposals, kept = new.image, new.boxes, new.proposals, kept[new.rows]
            visible = new.visible
            mask_of = dict(zip(masks, new.masks, strict=True))
            masks = {place: mask_of[row] for place, row in enumerate(new.rows.tolist()) if row in mask_of}
            image_hw = image.shape[:2]
        height, width = resized_hw_on(self.resize, image_hw, input_hw)
        if self.scale is not None:
            (x0, y0, x1, y1), (height, width) = self.scale.place(image_hw, (height, width), input_hw, rng)
            image_hw = (y1 - y0, x1 - x0)
            image = image[y0:y1, x0:x1]
            corner = np.array([x0, y0, x0, y0], np.float32)
            proposals, moved = (geometry.clip(those - corner, image_hw) for those in (proposals, boxes))
            inside = np.flatnonzero(geometry.area(moved) > 0)
            share = geometry.area(moved)[inside] / geometry.area(boxes)[inside]
            boxes, kept, visible = moved[inside], kept[inside], visible[inside] * share
            masks = {place: masks[row][y0:y1, x0:x1] for place, row in enumerate(inside.tolist()) if row in masks}
        placed = canvas[:height, :width]
        resize_into(image, placed)
        canvas[:height, width:] = 0
        canvas[height:] = 0
        boxes, proposals = (_scaled(moved, image_hw, (height, width)) for moved in (boxes, proposals))
        # A little less is as much: boxes have gone through shares of the image's sides and back.
        ignore = annotations.ignore[kept] | (visible < self.min_visibility - 1e-6) | (visible <= 0)
        ignore |= (boxes[:, 2:] - boxes[:, :2]).min(axis=1) < self.min_size - 1e-3
        return Sample(
            image=placed,
            boxes=boxes,
            class_ids=annotations.class_ids[kept],
            ignore=ignore,
            image_id=annotations.image_id(position),
            position=position,
            input_hw=input_hw,
            rng=rng,
            proposals=proposals[geometry.area(proposals) > 0],
            masks={row: resize(mask, (height, width)) for row, mask in masks.items()},
            num_lost=self._count_objects(position) - self._count_objects(position, kept),
        )

    def _read(self, position: int, placed_hw: tuple[int, int]) -> tuple[Image, Boxes, NDArray[np.int64]]:
        """An image that will be fed at some size; boxes with area inside it, in its pixels; their annotation rows."""
        annotations = self.annotations
        annotated_hw = tuple(annotations.image_hw[position].tolist())
        image = read_image(
            annotations.paths[position],
            exif=self.exif,
            annotated_hw=annotated_hw,
            at_least_hw=placed_hw if self.reduce else None,
        )
        rows = annotations.rows(position)
        boxes = geometry.clip(annotations.boxes[rows], annotated_hw)
        inside = np.flatnonzero(geometry.area(boxes) > 0)
        return image, boxes[inside], rows.start + inside

    def _others(self, rng: np.random.Generator, first_row: int) -> _Others | None:
        """The images that a Mosaic puts beside one, drawn evenly from all that a `sampler` lets come."""
        if self.augment is None or not self.augment.num_others:
            return None
        fed = np.arange(len(self.annotations)) if self._weights is None else np.flatnonzero(self._weights)
        return _Others(self, rng.choice(fed, self.augment.num_others).tolist(), first_row)

    def _count_objects(self, position: int, rows: NDArray[np.int64] | None = None) -> int:
        """How many objects an image has, among some rows of annotations."""
        own = self.annotations.rows(position)
        objects = own.start + np.flatnonzero(~self.annotations.ignore[own])
        return len(objects if rows is None else np.intersect1d(objects, rows))

    def _masks(self, rows: NDArray[np.int64], image_hw: tuple[int, int]) -> dict[int, Image]:
        """Masks of those of the given rows of the box columns that have one, by place in `rows`; uint8 (H, W)."""
        masks = self.annotations.masks
        if not masks or not getattr(self.targets, "uses_masks", True):
            return {}
        return {place: fill_mask(masks[row], image_hw) for place, row in enumerate(rows.tolist()) if row in masks}


class _Others(Sequence[Any]):
    """Images beside another, read when they are looked at; each is an `augment.Other`.

    Attributes:
        kept: int64 (K,), rows in annotations of all their boxes; the first is called `first_row`, and so on.
    """

    def __init__(self, loader: BatchLoader, positions: list[int], first_row: int) -> None:
        self._loader = loader
        self._positions = positions
        offsets = loader.annotations.offsets
        ranges = [np.arange(offsets[position], offsets[position + 1]) for position in positions]
        self._first_rows = first_row + np.cumsum([0, *map(len, ranges)])
        self.kept = np.concatenate(ranges)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        from detfeed.augmentation.pipeline import Other

        position = self._positions[index]
        image, boxes, kept = self._loader._read(position, self._loader.placed_hw(position))
        annotations = self._loader.annotations
        if image.shape[:2] != tuple(annotations.image_hw[position]):
            boxes = _scaled(boxes, tuple(annotations.image_hw[position].tolist()), image.shape[:2])
        return Other(image, boxes, kept - annotations.offsets[position] + self._first_rows[index])


class _Planned(NamedTuple):
    """An epoch as it is planned: for each batch its positions, and how often each came before, int64 (B,) both."""

    positions: list[NDArray[np.int64]]
    repeats: list[NDArray[np.int64]]


def _weights(sampler: Sampler, annotations: Annotations) -> NDArray[np.float64]:
    weights = np.asarray(sampler(annotations), np.float64)
    if weights.shape != (len(annotations),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"Expected sampler to return {len(annotations)} numbers, finite and not negative, one for each image. "
            f"Received: {weights.shape} {weights} from {sampler}"
        )
    if not weights.any():
        raise ValueError(f"Expected sampler to have any image come. Received: none of {annotations} by {sampler}")
    return weights


def _canvases(
    resize: Resize, image_hw: NDArray[np.int32], weights: NDArray[np.float64] | None, at_least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Canvases for the images that come, as `Resize.canvases` returns them; others get the nearest of these."""
    fed = np.ones(len(image_hw), bool) if weights is None else weights > 0
    canvases, ids = resize.canvases(image_hw[fed], at_least=at_least)
    canvas_ids = np.zeros(len(image_hw), np.int64)
    canvas_ids[fed] = ids
    if not fed.all():
        sides = resize.resized_hw(image_hw[~fed])
        canvas_ids[~fed] = np.abs(canvases - sides[:, None]).sum(axis=2).argmin(axis=1)
    return canvases, canvas_ids


def _scaled(boxes: Boxes, image_hw: tuple[int, int], new_hw: tuple[int, int]) -> Boxes:
    """Boxes of an image at another height and width."""
    scale = np.array([new_hw[1] / image_hw[1], new_hw[0] / image_hw[0]] * 2)
    return geometry.clip((boxes * scale).astype(np.float32), new_hw)


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


def _warn_of_small_objects(annotations: Annotations, resize: Resize, min_size: float) -> None:
    """Say once, before anything is fed, which objects `min_size` makes ignore regions, augmentation aside."""
    sides = fed_wh(annotations.boxes, annotations.offsets, annotations.image_hw, resize).min(axis=1)
    small = ~annotations.ignore & (sides > 0) & (sides < min_size)
    if small.any():
        row = int(np.argmax(small))
        warnings.warn(
            f"{annotations.source}: {int(small.sum())} of {len(small)} boxes are fed with a side under {min_size:g} "
            f"pixels, and ignored (min_size); the first is {annotations.boxes[row].tolist()} in "
            f"{annotations.paths[annotations._position(row)]}",
            stacklevel=3,
        )


def _warn_of_bad_boxes(
    annotations: Annotations,
    boxes: Boxes,
    offsets: NDArray[np.int64],
    source: str,
    noun: str,
    *,
    tolerance: float = 0,
) -> None:
    """Say once, before anything is fed, which boxes will not be fed as they stand.

    Args:
        annotations: whose images the boxes lie on.
        boxes, offsets: of boxes or proposals.
        source, noun: what to call the file and them.
        tolerance: pixels that a box may reach out of its image unmentioned.
    """
    limits = np.repeat(annotations.image_hw[:, ::-1], np.diff(offsets), axis=0)
    clipped = np.clip(boxes, 0, np.tile(limits, 2).astype(np.float32))
    empty = geometry.area(clipped) <= 0
    changed = (np.abs(clipped - boxes) > tolerance).any(axis=1) & ~empty
    for bad, what in (
        (empty, "have no area inside their image and are left out"),
        (changed, "are clipped to it"),
    ):
        if bad.any():
            position = int(np.searchsorted(offsets, np.argmax(bad), side="right")) - 1
            warnings.warn(
                f"{source}: {int(bad.sum())} of {len(bad)} {noun} {what}; the first is in "
                f"{annotations.paths[position]}",
                stacklevel=4,
            )
