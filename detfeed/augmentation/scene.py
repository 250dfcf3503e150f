"""Scene: an image and all that lies on it, moved as one on its way from file to batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.boxes import EMPTY, Boxes
from detfeed.images.resizing import Image, flip, resize, resize_into
from detfeed.keypoints import Keypoints
from detfeed.masks import Mask, move_masks, select_masks

if TYPE_CHECKING:  # albumentations takes a second to import, and is not needed to hold a scene
    from detfeed.augmentation.mosaic import Other
    from detfeed.augmentation.pipeline import Augmentation

NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An image with its boxes, masks and proposals. Every operation returns a new scene in which all have moved alike.

    A kind of annotation that follows the image is one field here, and one line in each operation.

    Attributes:
        image: uint8 (H, W, 3) RGB; may be decoded at a fraction of its size, see `frame_hw`.
        frame_hw: height and width of the picture that boxes, masks and proposals are in pixels of. It is the image's
            own size after every operation.
        boxes: float32 (N, 4), xyxy pixels, with area and inside the frame; N may be 0.
        rows: int64 (N,), the row of each box in the table of annotations.
        visible: float64 (N,), the share of each box that is left of it, 1 for a whole one.
        masks: by row of `boxes`, uint8 (H, W), 0 to 255, of boxes that have one. Operations but `augmented` draw none:
            a mask is drawn and moved when somebody looks at it.
        proposals: float32 (R, 4), xyxy pixels, inside the frame; R may be 0.
        keypoints: of the boxes, or None.
    """

    image: Image
    frame_hw: tuple[int, int]
    boxes: Boxes
    rows: NDArray[np.int64]
    visible: NDArray[np.float64]
    masks: Mapping[int, Mask] = dataclasses.field(default_factory=dict)
    proposals: Boxes = dataclasses.field(default_factory=lambda: EMPTY)
    keypoints: Keypoints | None = None

    def whole(self) -> Self:
        """The scene in pixels of its image, whose decoded size its boxes, masks and proposals then follow."""
        image_hw = _image_hw(self.image)
        return self if image_hw == self.frame_hw else self._rescaled(self.image, image_hw)

    def resized(self, size_hw: tuple[int, int]) -> Self:
        """The scene at another height and width."""
        return self._rescaled(resize(self.image, size_hw), size_hw)

    def placed(self, canvas: Image, size_hw: tuple[int, int]) -> Self:
        """The scene at another height and width, its image in the top left corner of `canvas`, uint8 (H, W, 3).

        The rest of the canvas is set to zero. The scene's image is a view of the canvas.
        """
        height, width = size_hw
        corner = canvas[:height, :width]
        resize_into(self.image, corner)
        canvas[:height, width:] = 0
        canvas[height:] = 0
        return self._rescaled(corner, size_hw)

    def _rescaled(self, image: Image, size_hw: tuple[int, int]) -> Self:
        return dataclasses.replace(
            self,
            image=image,
            frame_hw=size_hw,
            boxes=geometry.rescale(self.boxes, self.frame_hw, size_hw),
            masks=move_masks(self.masks, functools.partial(resize, size_hw=size_hw)),
            proposals=geometry.rescale(self.proposals, self.frame_hw, size_hw),
            keypoints=self.keypoints and self.keypoints.rescaled(self.frame_hw, size_hw),
        )

    def cropped(self, window: tuple[int, int, int, int]) -> Self:
        """The part of the scene in a window, x0, y0, x1, y1 in whole pixels of the image.

        Boxes and proposals end at the window's edge; those without area in it are gone.
        """
        scene = self.whole()
        x0, y0, x1, y1 = window
        frame_hw = y1 - y0, x1 - x0
        corner = np.array([x0, y0, x0, y0], np.float32)
        boxes = geometry.clip(scene.boxes - corner, frame_hw)
        areas = geometry.area(boxes)
        inside = np.flatnonzero(areas > 0)
        proposals = geometry.clip(scene.proposals - corner, frame_hw)
        cut = dataclasses.replace(
            scene,
            image=scene.image[y0:y1, x0:x1],
            frame_hw=frame_hw,
            boxes=boxes,
            visible=scene.visible * (areas / geometry.area(scene.boxes)),
            masks=move_masks(scene.masks, functools.partial(_part, window=window)),
            proposals=proposals[geometry.area(proposals) > 0],
            keypoints=scene.keypoints and scene.keypoints.cropped(window),
        )
        return cut._select(inside)

    def flipped(self, *, axis: int = 0) -> Self:
        """The scene mirrored left to right (axis 0) or top to bottom (axis 1); doing it twice gives the scene back."""
        scene = self.whole()
        side = scene.frame_hw[1 - axis]
        return dataclasses.replace(
            scene,
            image=flip(scene.image, axis=axis),
            boxes=geometry.flip(scene.boxes, side, axis=axis),
            masks=move_masks(scene.masks, functools.partial(flip, axis=axis)),
            proposals=geometry.flip(scene.proposals, side, axis=axis),
            keypoints=scene.keypoints and scene.keypoints.flipped(side, axis=axis),
        )

    def augmented(
        self,
        augmentation: Augmentation,
        rng: np.random.Generator,
        *,
        others: Sequence[Other] = (),
        other_rows: NDArray[np.int64] = NO_ROWS,
    ) -> Self:
        """The scene as a pipeline leaves it.

        Args:
            augmentation: the pipeline.
            rng: the sample's generator.
            others: the images that a Mosaic puts beside this one; masks are left out then. The boxes of the scene are
                called 0 to N - 1 in the pipeline, those of the others N and up.
            other_rows: int64 (K,), the rows in the table of annotations of all boxes of the others.
        """
        scene = self.whole()
        moved = augmentation.moved(scene, rng)
        if moved is not None:
            return moved
        masks = {} if len(others) else scene.masks
        new = augmentation(
            scene.image,
            scene.boxes,
            rng,
            proposals=scene.proposals,
            masks=list(masks.values()),
            others=others,
            keypoints=None if len(others) else scene.keypoints,
        )
        mask_of = dict(zip(masks, new.masks, strict=True))
        visible = np.concatenate([scene.visible, np.ones(len(other_rows))])
        return dataclasses.replace(
            scene,
            image=new.image,
            frame_hw=_image_hw(new.image),
            boxes=new.boxes,
            rows=np.concatenate([scene.rows, other_rows])[new.rows],
            visible=visible[new.rows] * new.visible,
            masks={place: mask_of[row] for place, row in enumerate(new.rows.tolist()) if row in mask_of},
            proposals=new.proposals,
            keypoints=new.keypoints and new.keypoints.take(new.rows),
        )

    def _select(self, places: NDArray[np.int64]) -> Self:
        """The scene with some of its boxes, in that order."""
        return dataclasses.replace(
            self,
            boxes=self.boxes[places],
            rows=self.rows[places],
            visible=self.visible[places],
            masks=select_masks(self.masks, places),
            keypoints=self.keypoints and self.keypoints.take(places),
        )


def _part(mask: Mask, window: tuple[int, int, int, int]) -> Mask:
    x0, y0, x1, y1 = window
    return mask[y0:y1, x0:x1]


def _image_hw(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
