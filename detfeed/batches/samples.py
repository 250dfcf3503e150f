"""Samples: one image with its boxes, read, augmented and placed on its canvas."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations, IgnoreReason
from detfeed.augmentation.scene import Scene
from detfeed.batches.plan import Plan
from detfeed.boxes import EMPTY, Boxes
from detfeed.images.canvases import Resize, resized_hw_on
from detfeed.images.decoding import Exif, read_image
from detfeed.images.resizing import Image
from detfeed.mask_columns import NO_MASKS, MaskColumns
from detfeed.masks import LazyMasks
from detfeed.proposals import Proposals
from detfeed.sample import Sample, UsesMasks

if TYPE_CHECKING:
    from detfeed.augmentation.pipeline import Augmentation
    from detfeed.augmentation.scale import ScaleJitter


class SampleMaker:
    """Makes the samples of a data set, each a function of its position and generator.

    Args:
        annotations: the data set.
        plan: says which canvas an image is placed on, and which images ever come.
        resize, exif, bits, min_visibility, min_size: see `BatchArguments`.
        reduce: whether JPEGs are decoded at a fraction of their size where that is enough.
        augmentation: a pipeline, or None.
        scale: varies the size that images are fed at, or None.
        proposals: of the images, or None.
        uses_masks: whether anybody looks at masks, or at those of crowds.
    """

    def __init__(
        self,
        annotations: Annotations,
        plan: Plan,
        *,
        resize: Resize,
        exif: Exif,
        bits: int,
        min_visibility: float,
        min_size: float,
        reduce: bool,
        augmentation: Augmentation | None,
        scale: ScaleJitter | None,
        proposals: Proposals | None,
        uses_masks: UsesMasks,
    ) -> None:
        self._annotations = annotations
        self._plan = plan
        self._resize = resize
        self._exif: Exif = exif
        self._bits = bits
        self._min_visibility = min_visibility
        self._min_size = min_size
        self._reduce = reduce
        self._augmentation = augmentation
        self._scale = scale
        self._proposals = proposals
        self._num_others = 0 if augmentation is None else augmentation.num_others
        self._keypoints = annotations.keypoints
        if self._num_others and self._keypoints is not None:
            raise ValueError(
                "Expected augment without Mosaic, which moves no keypoints. Received one: leave it out, or read "
                "without keypoints=True"
            )
        if self._num_others and uses_masks is True and not annotations.ignore[list(annotations.masks)].all():
            raise ValueError(
                "Expected augment without Mosaic, which moves no masks, for targets that look at those of objects. "
                "Received one: leave it out, read without masks=True, or set uses_masks = False on the targets"
            )
        self._masks = MaskColumns.of(annotations.masks) if uses_masks and not self._num_others else NO_MASKS
        self._crowds_only = uses_masks == "crowds"
        self._pixels = True

    def without_pixels(self) -> SampleMaker:
        """A maker of the same samples that reads no files: images are black, of the annotated sizes.

        Boxes are moved as they are when images are fed, unless a transform looks at the pixels.
        """
        maker = copy.copy(self)
        maker._pixels = False
        return maker

    def make(self, position: int, rng: np.random.Generator, canvas: Image) -> Sample:
        """One sample.

        Args:
            position: of its image.
            rng: its generator.
            canvas: uint8 (H, W, 3); the image is written into its corner, and zeros beside it.

        Raises:
            ImageError: the image can't be read or is not of the annotated size.
        """
        input_hw = canvas.shape[0], canvas.shape[1]
        scene = self.read(position, input_hw)
        if self._augmentation is not None:
            scene = self._augment(scene, self._augmentation, rng)
        size_hw = resized_hw_on(self._resize, scene.frame_hw, input_hw)
        if self._scale is not None:
            window, size_hw = self._scale.place(scene.frame_hw, size_hw, input_hw, rng)
            scene = scene.cropped(window)
        scene = scene.placed(canvas, size_hw)
        reasons = self._reasons(scene)
        return Sample(
            image=scene.image,
            boxes=scene.boxes,
            class_ids=self._annotations.class_ids[scene.rows],
            ignore=reasons != IgnoreReason.NONE,
            image_id=self._annotations.image_id(position),
            position=position,
            input_hw=input_hw,
            rng=rng,
            proposals=scene.proposals[geometry.area(scene.proposals) > 0],
            masks=scene.masks,
            num_lost=self._count_lost(position, scene.rows),
            rows=scene.rows,
            ignore_reasons=reasons,
            keypoints=None if scene.keypoints is None else scene.keypoints.points,  # type: ignore[arg-type]
        )

    def read(self, position: int, input_hw: tuple[int, int] | None = None) -> Scene:
        """An image and its annotations as they stand in their files.

        Args:
            position: of the image.
            input_hw: the canvas that it will be fed on. None: its own.
        """
        height, width = self._annotations.image_hw[position].tolist()
        rows = self._annotations.rows(position)
        return Scene(
            image=self._read_image(position, input_hw or self._plan.canvas_hw(position)),
            frame_hw=(height, width),
            boxes=self._annotations.boxes[rows],
            rows=self.rows_of(position),
            visible=np.ones(rows.stop - rows.start),
            masks=self._fill_masks(rows, (height, width)),
            proposals=self._proposals_of(position),
            keypoints=self._keypoints and self._keypoints.take(self.rows_of(position)),
        )

    def rows_of(self, position: int) -> NDArray[np.int64]:
        """The rows in the table of an image's boxes, int64 (N,)."""
        rows = self._annotations.rows(position)
        return np.arange(rows.start, rows.stop)

    def _read_image(self, position: int, input_hw: tuple[int, int]) -> Image:
        height, width = self._annotations.image_hw[position].tolist()
        if not self._pixels:
            return np.zeros((height, width, 3), np.uint8)
        return read_image(
            self._annotations.paths[position],
            exif=self._exif,
            bits=self._bits,
            annotated_hw=(height, width),
            at_least_hw=resized_hw_on(self._resize, (height, width), input_hw) if self._reduce else None,
        )

    def _fill_masks(self, rows: slice, image_hw: tuple[int, int]) -> LazyMasks:
        """Masks of those boxes of an image that have one and are looked at, by their place among its boxes."""
        found = self._masks.rows[slice(*np.searchsorted(self._masks.rows, (rows.start, rows.stop)))]
        if self._crowds_only:
            found = found[self._annotations.ignore[found]]
        return LazyMasks({row - rows.start: partial(self._masks.fill, row, image_hw) for row in found.tolist()})

    def _proposals_of(self, position: int) -> Boxes:
        """The proposals of an image, clipped to it, without those outside."""
        if self._proposals is None:
            return EMPTY
        boxes = self._proposals.boxes[self._proposals.rows(position)]
        boxes = geometry.clip(boxes, self._annotations.image_hw[position])
        return boxes[geometry.area(boxes) > 0]

    def _augment(self, scene: Scene, augmentation: Augmentation, rng: np.random.Generator) -> Scene:
        if not self._num_others:
            return scene.augmented(augmentation, rng)
        positions = rng.choice(np.flatnonzero(self._plan.comes), self._num_others).tolist()
        others = _Others(self, positions, len(scene.boxes))
        return scene.augmented(augmentation, rng, others=others, other_rows=others.rows)

    def _reasons(self, scene: Scene) -> NDArray[np.uint8]:
        """Why boxes are ignored: the table's reasons, or too little of a box is left, or it is fed too small."""
        # With a tolerance, since boxes have been shares of the image's sides in between.
        hidden = (scene.visible < self._min_visibility - 1e-6) | (scene.visible <= 0)
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        small = sides.min(axis=1) < self._min_size - 1e-3
        reasons = self._annotations.ignore_reasons[scene.rows]
        reasons[(reasons == IgnoreReason.NONE) & hidden] = IgnoreReason.HIDDEN
        reasons[(reasons == IgnoreReason.NONE) & small] = IgnoreReason.SMALL
        return reasons

    def _count_lost(self, position: int, rows: NDArray[np.int64]) -> int:
        """How many objects of an image are not among some rows of the table."""
        own = self._annotations.rows(position)
        found = self._annotations.ignore[own].copy()
        found[rows[(rows >= own.start) & (rows < own.stop)] - own.start] = True
        return len(found) - int(np.count_nonzero(found))


class _Others(Sequence[Any]):
    """The images that a Mosaic puts beside one, each read when it is looked at; items are `Other`s.

    Attributes:
        rows: int64 (K,), rows in the table of all their boxes. The pipeline calls the first `first_place`, and so on.
    """

    def __init__(self, maker: SampleMaker, positions: list[int], first_place: int) -> None:
        self._maker = maker
        self._positions = positions
        ranges = [maker.rows_of(position) for position in positions]
        self._places = first_place + np.cumsum([0, *map(len, ranges)])
        self.rows = np.concatenate(ranges)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        from detfeed.augmentation.mosaic import Other

        scene = self._maker.read(self._positions[index]).whole()
        return Other(scene.image, scene.boxes, self._places[index] + np.arange(len(scene.boxes)))
