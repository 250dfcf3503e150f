"""Showing: batches as they are fed, drawn from their arrays, beside what is true of their images."""

from __future__ import annotations

import dataclasses
import difflib
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detfeed.annotations import Annotations
from detfeed.batches.ledger import Replacement
from detfeed.batches.loader import BatchLoader
from detfeed.batches.notes import Note
from detfeed.drawing.marks import SIDE, zoom_to
from detfeed.drawing.picture import Picture, Truth
from detfeed.drawing.sheets import Key, contact_sheet, png, write_png
from detfeed.drawing.text import counted
from detfeed.errors import any_of, expect
from detfeed.processes.process import cores
from detfeed.sample import truth_of

OnProgress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sheet:
    """Pictures of what is fed; in a notebook it shows itself.

    Attributes:
        pictures: one for each image, in the order asked for.
        title: what they are of.
        side: longest side in pixels of the largest picture. All have one scale.
    """

    pictures: tuple[Picture, ...]
    title: str
    side: int = SIDE

    @property
    def num_objects(self) -> int:
        """Objects of all pictures that are not ignored."""
        return sum(int((~picture.truth.ignore).sum()) for picture in self.pictures)

    @property
    def num_unmatched(self) -> int:
        """Objects of all pictures without a positive."""
        return sum(int(picture.unmatched.sum()) for picture in self.pictures)

    def __repr__(self) -> str:
        return (
            f"Sheet({counted(len(self.pictures), 'image')}, {counted(self.num_objects, 'object')}, "
            f"{self.num_unmatched} without a positive)"
        )

    def draw(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The pictures packed on one, uint8 (H, W, 3) RGB, under the title and above a legend."""
        largest = np.max([picture.input_hw for picture in self.pictures] or [(SIDE, SIDE)], axis=0)
        zoom = zoom_to(tuple(largest.tolist()), self.side)
        keys: dict[Key, None] = {}
        for picture in self.pictures:
            keys |= dict.fromkeys(picture.keys())
        tiles = [picture.tile(zoom) for picture in self.pictures]
        return contact_sheet(tiles, legend=list(keys), title=self.title)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pictures as one PNG; its folder is made if missing.

        Raises:
            OSError: it can't be written.
        """
        write_png(path, self.draw())

    def _repr_png_(self) -> bytes:
        return png(self.draw())


class _Place(NamedTuple):
    """Where an image stands in an epoch: the number of its batch, its row there, and its position."""

    batch: int
    row: int
    position: int


def show(
    feed: Any,
    *,
    epoch: int | None = None,
    index: int | None = None,
    image_ids: Collection[int | str] | None = None,
    classes: Collection[str] | None = None,
    worst: bool = False,
    num_images: int = 12,
    among: int = 1000,
    side: int = SIDE,
    on_progress: OnProgress | None = None,
) -> Sheet:
    """Show what is fed, drawn from the arrays of the batches themselves.

    A picture has the image and its padding, the objects with their classes, ignored regions with their reason, masks
    and keypoints where the samples have some, and what the target's own method `show(picture, x, y)` draws: x and y are
    the arrays of one image, and sample_weight is a third argument where there is one. `AnchorTargets`, `RoiTargets`,
    `MaskTargets` and `PaddedBoxes` have such a method. Without one, the targets are not drawn.

    Args:
        feed: a sequence, `Feed` or `BatchLoader`.
        epoch: whose order and augmentation. None: the epoch where a sequence stands, else 0.
        index: of a batch, to see it alone. None: the images of the epoch in order.
        image_ids: only these images.
        classes: only images with an object of one of these classes; only such objects count for `worst`.
        worst: begin with the images with the most objects without a positive; among equals, with the largest share.
        num_images: pictures at most.
        among: for `worst`, how many images are made and compared, the first of the epoch.
        side: longest side in pixels of the largest picture.
        on_progress: for `worst`, told of the numbers of batches done and of all.

    Returns:
        A Sheet, which shows itself in a notebook, and has `draw` and `save`.

    Raises:
        TypeError: `feed` has no loader.
        ValueError: no such batch or class, an image that there is not or that the epoch does not feed, or `worst` with
            targets that have no `show` or name no positives there.
        SampleError: a sample can't be made.
    """
    loader = getattr(feed, "loader", feed)
    expect(BatchLoader, "a sequence, Feed or BatchLoader", feed=loader)
    epoch = int(getattr(feed, "epoch", 0)) if epoch is None else epoch
    places = _chosen(loader, epoch, index=index, image_ids=image_ids, class_ids=_class_ids(loader, classes))
    title = f"epoch {epoch}" if index is None else f"batch {index} of epoch {epoch}"
    if worst:
        compared = places[:among]
        of_all = "" if len(compared) == len(places) else f" of {len(places):,}"
        title = f"worst of {counted(len(compared), 'image')}{of_all} of {title}"
        places = _worst_first(loader, epoch, compared, _class_ids(loader, classes), on_progress)
    pictures = _pictures(loader, epoch, places[:num_images])
    if worst:
        for rank, picture in enumerate(pictures, start=1):
            picture.title = f"{rank}. {picture.title}"  # a sheet packs pictures in another order
    return Sheet(tuple(pictures), f"what is fed, {title}: {loader.annotations}", side)


def _chosen(
    loader: BatchLoader,
    epoch: int,
    *,
    index: int | None,
    image_ids: Collection[int | str] | None,
    class_ids: Sequence[int] | None,
) -> list[_Place]:
    """The places of an epoch that are asked for, in its order; those of images by id, in the order of the ids."""
    annotations = loader.annotations
    batches = loader.batches(epoch)
    if index is not None and not 0 <= index < len(batches):
        raise ValueError(f"Expected a batch from 0 to {len(batches) - 1}. Received: index={index}")
    places = [
        _Place(number, row, position)
        for number, batch in enumerate(batches)
        if index in (None, number)
        for row, position in enumerate(batch.tolist())
    ]
    if class_ids is not None:
        of_class = np.isin(annotations.class_ids, class_ids) & ~annotations.ignore
        shown = np.bincount(annotations.positions[of_class], minlength=len(annotations)) > 0
        places = [place for place in places if shown[place.position]]
    if image_ids is not None:
        by_id: dict[str, list[_Place]] = {}
        for place in places:
            by_id.setdefault(str(annotations.image_id(place.position)), []).append(place)
        for image_id in image_ids:
            if str(image_id) not in by_id:
                raise ValueError(_absent(annotations, str(image_id), epoch, index, class_ids))
        places = [place for image_id in image_ids for place in by_id[str(image_id)]]
    return places


def _absent(
    annotations: Annotations, image_id: str, epoch: int, index: int | None, class_ids: Sequence[int] | None
) -> str:
    """Why an image can't be shown."""
    known = [str(each) for each in annotations.image_ids.tolist()]
    if image_id in known:
        where = f"epoch {epoch}" if index is None else f"batch {index} of epoch {epoch}"
        of_class = "" if class_ids is None else " with an object of the classes"
        return f"Expected an image that {where} feeds{of_class}. Received: image id {image_id}, which it does not feed"
    near = difflib.get_close_matches(image_id, known, n=3)
    advice = f"; did you mean {any_of(near)}?" if near else ""
    return f"Expected ids of images of {annotations.source}. Received: {image_id}{advice}"


def _class_ids(loader: BatchLoader, classes: Collection[str] | None) -> list[int] | None:
    if classes is None:
        return None
    names = loader.annotations.class_names
    for name in classes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3) or names[:20]
            raise ValueError(f"Expected classes among {len(names)}, such as {any_of(near)}. Received: {name!r}")
    return [class_id for class_id, name in enumerate(names) if name in classes]


def _worst_first(
    loader: BatchLoader,
    epoch: int,
    places: list[_Place],
    class_ids: Sequence[int] | None,
    on_progress: OnProgress | None,
) -> list[_Place]:
    """The places, those with the most objects without a positive first."""
    if not hasattr(loader.targets, "show"):
        raise ValueError(
            "Expected targets with a method show(picture, x, y), since worst looks for objects without a positive. "
            f"Received: {loader.targets!r}"
        )
    by_batch: dict[int, list[_Place]] = {}
    for place in places:
        by_batch.setdefault(place.batch, []).append(place)
    scores: dict[_Place, tuple[int, float]] = {}

    def score(index: int) -> list[tuple[_Place, tuple[int, float]]]:
        return [(place, _badness(picture, class_ids)) for place, picture in _batch(loader, epoch, by_batch[index])]

    with ThreadPoolExecutor(cores()) as pool:
        for done, scored in enumerate(pool.map(score, by_batch), start=1):
            scores |= dict(scored)
            if on_progress is not None:
                on_progress(done, len(by_batch))
    return sorted(places, key=lambda place: scores[place], reverse=True)


def _badness(picture: Picture, class_ids: Sequence[int] | None) -> tuple[int, float]:
    """How many objects have no positive, and their share."""
    if not picture.has_positives:
        raise ValueError("Expected targets whose show calls picture.positives(...). Received: some that do not")
    counts = ~picture.truth.ignore
    if class_ids is not None:
        counts = counts & np.isin(picture.truth.class_ids, class_ids)
    bad = int((picture.unmatched & counts).sum())
    return bad, bad / max(int(counts.sum()), 1)


def _pictures(loader: BatchLoader, epoch: int, places: Sequence[_Place]) -> list[Picture]:
    """Pictures of some places, in their order; a batch is made once."""
    by_batch: dict[int, list[_Place]] = {}
    for place in places:
        by_batch.setdefault(place.batch, []).append(place)
    made = {
        place: picture
        for of_batch in by_batch.values()
        for place, picture in _batch(loader, epoch, list(dict.fromkeys(of_batch)))
    }
    return [made[place] for place in places]


def _batch(loader: BatchLoader, epoch: int, places: Sequence[_Place]) -> Iterator[tuple[_Place, Picture]]:
    """Pictures of some places of one batch, from its arrays."""
    truths: list[tuple[int | str, Truth]] = []
    replaced: dict[int, str] = {}

    def note(told: Note) -> None:
        if isinstance(told, Replacement):
            replaced[told.position] = f"in place of {Path(told.path).name}, which can't be read"
        else:
            warnings.warn(told.sentence, stacklevel=2)

    batch = loader.load_plain(
        epoch,
        places[0].batch,
        report=note,
        on_sample=lambda sample: truths.append((sample.image_id, truth_of(sample, loader.annotations.class_names))),
    )
    for place in places:
        x, *rest = ({name: array[place.row] for name, array in part.items()} for part in batch)
        height, width = x["image_hw"].tolist()
        image_id, truth = truths[place.row]
        canvas_hw = x["image"].shape[0], x["image"].shape[1]
        picture = Picture(x["image"][:height, :width].copy(), canvas_hw, truth, title=f"image {image_id}")
        if place.position in replaced:
            picture.note(replaced[place.position])
        how = getattr(loader.targets, "show", None)
        if how is not None:
            try:
                how(picture, x, *rest)
            except Exception as error:
                error.add_note(f"in {type(loader.targets).__name__}.show, of image {image_id}")
                raise
        yield place, picture
