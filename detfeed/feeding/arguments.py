"""Arguments: what a sequence takes besides its data and its targets, said once and typed.

A sequence hands these keywords on as they are. Since they are declared here, a type checker finds a misspelt or
mistyped one, and an editor completes them. Defaults stand in the signatures of `BatchLoader`, `Feed`, `AnchorTargets`
and `RoiTargets`.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Literal, Required, TypedDict

from detfeed.batches.inputs import Inputs
from detfeed.batches.ledger import Replace
from detfeed.batches.samplers import Sampler
from detfeed.batches.stages import StageArguments
from detfeed.boxes import DeltaWeights
from detfeed.images.canvases import Resize
from detfeed.images.decoding import Exif
from detfeed.targets.sampling import Crowd


class BatchArguments(TypedDict, total=False):
    """How batches are made: the keywords of `BatchLoader`.

    Attributes:
        batch_size: images in a batch, at least 1. Batches hold images of one canvas; the last of each canvas may have
            fewer images, and never made-up ones.
        resize: `ShortSide` or `Fixed`.
        augment: an albumentations transform, a Compose without box parameters, a list of transforms, or a recipe: its
            name ("flip", "ssd", "lsj", "multiscale"), or what its function in `recipes` returns. None: no augmentation.
            The other images of a Mosaic are drawn from the same data set; with one among the transforms, crowds count
            by their boxes.
        shuffle: whether samples and batches come in an order drawn for each epoch. (Keras's own `fit(shuffle=True)`,
            its default, shuffles the batches once more.)
        seed: of all that is random, not negative.
        drop_last: leave out batches that are not full.
        min_visibility: an object of which an augmentation leaves less than this share of its box's area inside the
            image and uncovered becomes an ignore region: it is neither learned nor taught as background. One that is
            wholly covered always does.
        min_size: so does an object with a side of less than this many pixels as it is fed. (A stray click makes a box
            of one point. Thousands of anchors contain it and tie for its best IoU; as its best anchors they would all
            be positive.)
        shard: (index, count): of `count` loaders that are alike but for their index, each has its own images, together
            they have all, and all have the same number of batches, of the same canvas at each step. What does not fill
            a batch of each of them is spread over all, or left out by `drop_last`.
        exif: whether images are turned as their EXIF orientation says: "auto" (as the annotated size says, with a
            warning where that is the stored one and boxes fit the turned picture, too), "apply" or "ignore"; see
            `read_image`.
        bits: of 16-bit images, the bits that their values use, 8 to 16: 12 for cameras whose 12 bits are stored in 16.
        reduce: decode a JPEG at 1/2, 1/4 or 1/8 of its size where that is no smaller than it is fed. None: unless there
            is an `augment`, since what a crop leaves would then be enlarged again.
        sampler: how often each image comes in an epoch: `RepeatFactor`, `ClassBalanced`, `Mix`, `LimitEmpty`, or any
            function of `Annotations` that returns float64 (P,). None: once. An image that comes again in an epoch is
            augmented anew.
        on_error: what to do about an image that can't be read: "raise", or feed another one: `Replace()`. Errors of
            target functions and of `augment` always raise.
        inputs: x in the structure that the model takes. None: the dict of image, image_hw, and what the target function
            adds. "image": that array alone. `{"images": "image"}`: a dict of the model's names, each with the name here
            of the array it gets. Arrays that are not named are left out.
        schedule: what changes from which epoch on, counted from 0: `{90: {"augment": None}}` turns augmentation off
            for epoch 90 and all after it; see `StageArguments`. What no later entry changes stays. Another `resize`
            changes the size of images and canvases, and leaves images of a batch together.
    """

    batch_size: Required[int]
    resize: Required[Resize]
    augment: Any
    shuffle: bool
    seed: int
    drop_last: bool
    min_visibility: float
    min_size: float
    shard: tuple[int, int]
    exif: Exif
    bits: int
    reduce: bool | None
    sampler: Sampler | None
    on_error: Literal["raise"] | Replace
    inputs: Inputs | None
    schedule: Mapping[int, StageArguments] | None


class FeedArguments(TypedDict, total=False):
    """Who makes the batches: the keywords of `Feed`, of which the first three are Keras's own.

    Attributes:
        workers: threads or processes that make batches. Up to 1 thread is the asking one itself.
        use_multiprocessing: processes instead of threads.
        max_queue_size: how many batches are made ahead at most. Where memory is limited (control groups, RLIMIT_AS),
            what is ahead keeps to a quarter of what is left of it, with a warning.
        timeout: seconds that a batch may take its worker before that is replaced.
        executor: a `concurrent.futures.Executor` that makes the batches instead, here or on other machines.
    """

    workers: int
    use_multiprocessing: bool
    max_queue_size: int
    timeout: float
    executor: Executor | None


class SequenceArguments(BatchArguments, FeedArguments):
    """The keywords of every sequence: those of `BatchArguments` and of `FeedArguments`."""


class AnchorArguments(TypedDict, total=False):
    """How anchors are matched and sampled: keywords of `AnchorTargets`, which documents them."""

    positive_iou: float
    negative_iou: float
    low_quality: bool
    ignore_ioa: float
    straddle: float | None
    num_samples: int
    positive_fraction: float
    delta_weights: DeltaWeights
    crowd: Crowd
    counts: bool


class RoiArguments(TypedDict, total=False):
    """How RoIs are matched and sampled: keywords of `RoiTargets`, which documents them."""

    foreground_iou: float
    background_low: float
    ignore_ioa: float
    num_samples: int
    positive_fraction: float
    num_classes: int | None
    delta_weights: DeltaWeights
    crowd: Crowd


class AnchorSequenceArguments(SequenceArguments, AnchorArguments):
    """The keywords of `AnchorTargetSequence`: those of `SequenceArguments` and of `AnchorTargets`."""


class RoiSequenceArguments(SequenceArguments, RoiArguments):
    """The keywords of `RoiTargetSequence`: those of `SequenceArguments` and of `RoiTargets`."""
