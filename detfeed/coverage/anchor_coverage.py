"""AnchorCoverage: how well a grid of anchors covers the objects of a data set as it is fed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations
from detfeed.coverage.fed_objects import FedObjects, OnProgress, feed_objects
from detfeed.errors import expect
from detfeed.images.canvases import Resize
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.anchors import AnchorGrid
from detfeed.targets.joint_matching import match_jointly
from detfeed.targets.matches import NEGATIVE
from detfeed.targets.matching import match_anchors

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
HISTOGRAM = tuple(step / 10 for step in range(11))  # edges of the bins of IoUs
_SIZES = (16, 32, 64, 128, 256, 512)  # pixels: square roots of areas
_RATIOS = (0.25, 0.5, 0.71, 1.41, 2.0, 4.0)  # height / width


@dataclasses.dataclass(frozen=True)
class Group:
    """Some objects, and how well they are covered.

    Attributes:
        name: which objects.
        count: how many.
        median_iou: of their best IoUs; NaN if there are none.
        positive, low_quality, unmatched: shares of them; see `AnchorCoverage`. NaN if there are none.
    """

    name: str
    count: int
    median_iou: float
    positive: float
    low_quality: float
    unmatched: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AnchorCoverage:
    """How well anchors cover N objects of Q images; the answer of `anchor_coverage`.

    Ignored boxes are no objects. An object is what `AnchorTargets` makes of it: `positive` if an anchor with an IoU of
    at least `positive_iou` is to learn it; `low_quality` if only anchors with a lower IoU are, which are the best that
    there are; `unmatched` if none is.

    Attributes:
        targets: the grid and the rules.
        class_names: C names.
        num_images: images of the data set, of which Q were looked at.
        positions: int64 (Q,), rows of the images in their Annotations, ascending.
        num_positive, num_low_quality, num_negative: int64 (Q,), positive anchors of each image, those among them whose
            IoU is below `positive_iou`, and negative anchors. Ignore regions count by their boxes.
        rows: int64 (N,), rows of the objects in their Annotations.
        image: int64 (N,), the row in `positions` of each object's image.
        class_ids: int32 (N,).
        sides_wh: float32 (N, 2), width and height at which each object is fed, in pixels.
        best_iou: float32 (N,), its highest IoU with an anchor; 0 if it overlaps none.
        best_shape: int64 (N,), the shape of that anchor, counted level by level in the order of `cell_sizes_wh`.
        positive, low_quality, unmatched: bool (N,), one of them True for each object.
        num_ignored: boxes that are no objects, or too small or too well hidden to be any.
        num_lost: objects of which an augmentation left nothing.
    """

    targets: AnchorTargets
    class_names: tuple[str, ...]
    num_images: int
    positions: NDArray[np.int64]
    num_positive: NDArray[np.int64]
    num_low_quality: NDArray[np.int64]
    num_negative: NDArray[np.int64]
    rows: NDArray[np.int64]
    image: NDArray[np.int64]
    class_ids: NDArray[np.int32]
    sides_wh: NDArray[np.float32]
    best_iou: NDArray[np.float32]
    best_shape: NDArray[np.int64]
    positive: NDArray[np.bool_]
    low_quality: NDArray[np.bool_]
    num_ignored: int
    num_lost: int

    @property
    def anchors(self) -> AnchorGrid:
        """The grid."""
        return self.targets.anchors

    @property
    def unmatched(self) -> NDArray[np.bool_]:
        """bool (N,), objects that no anchor is to learn."""
        return ~(self.positive | self.low_quality)

    @property
    def level(self) -> NDArray[np.int64]:
        """int64 (N,), the level of the best anchor of each object."""
        counts = self.anchors.num_cell_anchors
        return np.arange(len(counts)).repeat(counts)[self.best_shape]

    @property
    def all(self) -> Group:
        """All objects."""
        return self._group("all", np.ones(len(self.rows), bool))

    def by_size(self) -> list[Group]:
        """Groups by the square root of the area at which objects are fed, in pixels."""
        sizes = np.sqrt(self.sides_wh.prod(axis=1, dtype=np.float64))
        return self._groups(np.digitize(sizes, _SIZES), _ranges(_SIZES))

    def by_ratio(self) -> list[Group]:
        """Groups by height / width."""
        ratios = self.sides_wh[:, 1].astype(np.float64) / self.sides_wh[:, 0]
        return self._groups(np.digitize(ratios, _RATIOS), _ranges(_RATIOS))

    def by_class(self) -> list[Group]:
        """Groups by class, in the order of `class_names`."""
        return self._groups(self.class_ids, self.class_names)

    def by_level(self) -> list[Group]:
        """Groups by the level that the best anchor of an object is on."""
        return self._groups(self.level, [f"stride {stride}" for stride in self.anchors.strides])

    def histogram(self) -> NDArray[np.int64]:
        """int64 (10,), objects whose best IoU is from 0 to 0.1, and so on."""
        # A bin holds its lower edge; 1 is in the last one.
        edges = np.array(HISTOGRAM[1:-1], np.float32)
        return np.bincount(np.digitize(self.best_iou, edges), minlength=10)

    def quantiles(self) -> dict[float, float]:
        """Quantiles of the best IoUs; without objects none."""
        if not len(self.best_iou):
            return {}
        return dict(zip(QUANTILES, np.quantile(self.best_iou, QUANTILES).tolist(), strict=True))

    def balance(self) -> dict[str, float]:
        """What a batch is made of to expect, as means over images.

        Returns:
            positive, low_quality and negative: anchors of an image. sampled_positive and sampled_negative: those that
            are drawn for the loss (`num_samples`, `positive_fraction`). without_positive: share of the images without a
            positive anchor. full: share of those with as many as the draw takes.
        """
        most = int(self.targets.num_samples * self.targets.positive_fraction)
        drawn = np.minimum(self.num_positive, most)
        negatives = np.minimum(self.num_negative, self.targets.num_samples - drawn)
        means = {
            "positive": self.num_positive,
            "low_quality": self.num_low_quality,
            "negative": self.num_negative,
            "sampled_positive": drawn,
            "sampled_negative": negatives,
            "without_positive": self.num_positive == 0,
            "full": self.num_positive >= most,
        }
        return {name: float(values.mean()) for name, values in means.items()}

    def misfits(self) -> dict[str, int]:
        """Objects without a true positive, by how their shape differs from those of the anchors.

        Returns:
            smaller, larger: than an anchor of the smallest or largest size could reach. elongated: likewise, flatter or
            narrower than the ratios. between: the others, which lie between anchors in shape or in place.
        """
        width, height = np.array(sum(self.anchors.cell_sizes_wh, ())).T
        own_w, own_h = self.sides_wh[~self.positive].T.astype(np.float64)
        # Of two boxes with one centre and one shape, the smaller has IoU times the area of the larger; if they have one
        # area, their ratios differ by no more than the square of 1 / IoU.
        least = self.targets.positive_iou
        areas, own_areas, ratios, own_ratios = width * height, own_w * own_h, height / width, own_h / own_w
        smaller = own_areas < least * areas.min()
        larger = own_areas > areas.max() / least
        elongated = (own_ratios < least**2 * ratios.min()) | (own_ratios > ratios.max() / least**2)
        elongated &= ~(smaller | larger)
        counts = {"smaller": smaller, "larger": larger, "elongated": elongated}
        counts["between"] = ~(smaller | larger | elongated)
        return {name: int(each.sum()) for name, each in counts.items()}

    def summary_line(self) -> str:
        """One line for a log, such as that of a training."""
        looked_at = len(self.positions)
        images = f" in {looked_at:,} of {self.num_images:,} images" if looked_at < self.num_images else ""
        if not len(self.rows):
            return f"anchors: no objects to cover{images}"
        every = self.all
        line = (
            f"anchors: {percent(every.positive)} of {every.count:,} objects{images} have an anchor with IoU "
            f"{self.targets.positive_iou:g}, "
        )
        if self.targets.low_quality:
            line += f"{percent(every.low_quality)} a low-quality match only, "
        return line + f"{percent(every.unmatched)} none"

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON; null where there is nothing to count."""
        return {
            "anchors": describe_grid(self.anchors),
            "rules": {
                name: getattr(self.targets, name)
                for name in ("positive_iou", "negative_iou", "low_quality", "straddle", "num_samples")
            },
            "images": len(self.positions),
            "images_in_all": self.num_images,
            "objects": len(self.rows),
            "ignored": self.num_ignored,
            "lost": self.num_lost,
            "best_iou": {
                "quantiles": {f"{quantile:g}": iou for quantile, iou in self.quantiles().items()},
                "histogram": {"edges": list(HISTOGRAM), "objects": self.histogram().tolist()},
            },
            "all": _to_json(self.all),
            **{
                f"by_{name}": [_to_json(group) for group in groups]
                for name, groups in (
                    ("size", self.by_size()),
                    ("ratio", self.by_ratio()),
                    ("class", self.by_class()),
                    ("level", self.by_level()),
                )
            },
            "without_true_positive": self.misfits(),
            "anchors_per_image": self.balance(),
            "positives_per_image": {
                f"{quantile:g}": number
                for quantile, number in zip(
                    QUANTILES, np.quantile(self.num_positive, QUANTILES, method="nearest").tolist(), strict=True
                )
            },
        }

    def __repr__(self) -> str:
        return f"AnchorCoverage({self.summary_line().removeprefix('anchors: ')})"

    def _groups(self, number: NDArray[np.integer], names: Sequence[str]) -> list[Group]:
        return [self._group(name, number == place) for place, name in enumerate(names)]

    def _group(self, name: str, chosen: NDArray[np.bool_]) -> Group:
        count = int(chosen.sum())
        if not count:
            return Group(name, 0, *[float("nan")] * 4)
        states = (self.positive, self.low_quality, self.unmatched)
        return Group(name, count, float(np.median(self.best_iou[chosen])), *(float(s[chosen].mean()) for s in states))


def anchor_coverage(
    annotations: Annotations,
    anchors: AnchorGrid | AnchorTargets,
    *,
    resize: Resize,
    augment: Any = None,
    seed: int = 0,
    min_visibility: float = 0.25,
    min_size: float = 1.0,
    max_images: int | None = None,
    on_progress: OnProgress | None = None,
) -> AnchorCoverage:
    """How well anchors cover the objects of a data set as it is fed, from annotations alone: no image is read.

    Every object is matched as `AnchorTargets` matches it. 100,000 images with 7 boxes each take half a minute; with an
    augmentation, some milliseconds an image more.

    Args:
        annotations: the data set; at least one image.
        anchors: the grid; or AnchorTargets, if its thresholds are not the usual ones.
        resize, augment, seed, min_visibility, min_size: as given to the sequence; see `BatchArguments`. What is looked
            at is epoch 0. Of a transform that looks at pixels, boxes may differ: it is shown black images.
        max_images: look at so many images at most, drawn at random. None: all.
        on_progress: a function of the numbers of images done and of all, for the part that takes longest.

    Raises:
        TypeError: `anchors` is neither, or another argument of another type.
        ValueError: no images, or an argument out of its range.
    """
    expect(AnchorGrid | AnchorTargets, "an AnchorGrid or AnchorTargets", anchors=anchors)
    fed = feed_objects(
        annotations,
        resize=resize,
        augment=augment,
        seed=seed,
        min_visibility=min_visibility,
        min_size=min_size,
        max_images=max_images,
        on_progress=None if augment is None else on_progress,
    )
    targets = AnchorTargets(anchors) if isinstance(anchors, AnchorGrid) else anchors
    return cover(targets, fed, annotations, on_progress=on_progress if augment is None else None)


def cover(
    targets: AnchorTargets, fed: FedObjects, annotations: Annotations, *, on_progress: OnProgress | None = None
) -> AnchorCoverage:
    """The coverage of objects as they are fed."""
    objects = np.flatnonzero(~fed.ignore)
    n, q = len(objects), len(fed.positions)
    best_iou, best_shape = np.zeros(n, np.float32), np.zeros(n, np.int64)
    positive, low_quality = np.zeros(n, bool), np.zeros(n, bool)
    counts = {name: np.zeros(q, np.int64) for name in ("num_positive", "num_low_quality", "num_negative")}
    done = 0
    for images, input_hw in _batches(fed):
        place = np.full(q, -1)
        place[images] = np.arange(len(images))
        mine = np.flatnonzero(place[fed.image[objects]] >= 0)
        matches = match_jointly(
            targets,
            fed.boxes[objects[mine]],
            place[fed.image[objects[mine]]],
            input_hw=input_hw,
            image_hw=fed.image_hw[images],
        )
        good = matches.iou >= np.float32(targets.positive_iou)
        best_iou[mine], best_shape[mine] = matches.highest, matches.shape
        positive[mine[matches.match[good]]] = True
        low_quality[mine[matches.match[~good]]] = True
        counts["num_positive"][images] = np.bincount(matches.image, minlength=len(images))
        counts["num_low_quality"][images] = np.bincount(matches.image[~good], minlength=len(images))
        counts["num_negative"][images] = matches.num_negative
        done += len(images)
        if on_progress is not None:
            on_progress(done, q)
    for image in np.unique(fed.image[fed.ignore]).tolist():
        counts["num_negative"][image] = _count_negatives(targets, fed, image)
    return AnchorCoverage(
        targets=targets,
        class_names=annotations.class_names,
        num_images=len(annotations),
        positions=fed.positions,
        rows=fed.rows[objects],
        image=fed.image[objects],
        class_ids=fed.class_ids[objects],
        sides_wh=(fed.boxes[:, 2:] - fed.boxes[:, :2])[objects],
        best_iou=best_iou,
        best_shape=best_shape,
        positive=positive,
        low_quality=low_quality & ~positive,
        num_ignored=len(fed.ignore) - n,
        num_lost=fed.num_lost,
        **counts,
    )


def _batches(fed: FedObjects) -> list[tuple[NDArray[np.int64], tuple[int, int]]]:
    """Images of one canvas each, a thousand at most: rows ascending, and the canvas."""
    canvases, canvas_of = np.unique(fed.canvas_hw, axis=0, return_inverse=True)
    batches = []
    for number, (height, width) in enumerate(canvases.tolist()):
        images = np.flatnonzero(canvas_of.reshape(-1) == number)
        batches += [(images[first : first + 1000], (height, width)) for first in range(0, len(images), 1000)]
    return batches


def _count_negatives(targets: AnchorTargets, fed: FedObjects, image: int) -> int:
    """The negative anchors of an image that has ignore regions, which cover some of them."""
    rows = slice(*np.searchsorted(fed.image, [image, image + 1]))
    (height, width), (input_h, input_w) = fed.image_hw[image].tolist(), fed.canvas_hw[image].tolist()
    matches = match_anchors(
        targets.anchors,
        fed.boxes[rows],
        input_hw=(input_h, input_w),
        image_hw=(height, width),
        ignore=fed.ignore[rows],
        positive_iou=targets.positive_iou,
        negative_iou=targets.negative_iou,
        low_quality=targets.low_quality,
        ignore_ioa=targets.ignore_ioa,
        straddle=targets.straddle,
    )
    return int(np.count_nonzero(matches.states == NEGATIVE))


def percent(share: float) -> str:
    """A share in percent that is 0 or 100 only if it is."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.{0 if share in (0, 1) else 1}f} %"


def describe_grid(grid: AnchorGrid) -> dict[str, Any]:
    """A grid in numbers, for JSON."""
    return {
        "strides": list(grid.strides),
        "cell_sizes_wh": [[list(size) for size in level] for level in grid.cell_sizes_wh],
        "offset": grid.offset,
        "rounding": grid.rounding,
    }


def _ranges(edges: Sequence[float]) -> list[str]:
    return [
        f"under {edges[0]:g}",
        *(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)),
        f"{edges[-1]:g} and more",
    ]


def _to_json(group: Group) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in dataclasses.asdict(group).items()}
