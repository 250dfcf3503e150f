"""Proposals: boxes in which a second stage looks for objects, read from a file and aligned with Annotations."""

from __future__ import annotations

import dataclasses
import math
import os
import zipfile
from typing import ClassVar, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.boxes import Boxes
from detfeed.columns import ImageColumns
from detfeed.errors import AnnotationError
from detfeed.readers.coco import decode_json
from detfeed.readers.paths import MAX_ID
from detfeed.readers.texts import open_file

Missing = Literal["raise", "allow"]
PositionOf = dict[int | str, int]

# The arrays of an npz file, and the kinds of numpy dtype that each may have.
_COLUMNS = {"image_ids": "iuU", "boxes": "fiu", "scores": "fiu", "offsets": "iu"}
_KINDS = {"iuU": "integers or strings", "fiu": "numbers", "iu": "integers"}
# Bytes of a file and of each array; a thousand boxes of each image of COCO are 4e9 as float64.
_MOST_BYTES = 2**34


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Proposals(ImageColumns):
    """Boxes that may hold an object, in columns: P images, R proposals of all images.

    The proposals of the image in row `position` are rows offsets[position] to offsets[position + 1] of boxes and
    scores. Arrays are made read-only. A proposal may reach out of its image, whose size the table does not hold:
    `Sample.proposals` are clipped.

    Attributes:
        image_ids: int64 or str (P,), the annotation file's ids of the images, each once.
        boxes: float32 (R, 4), xyxy pixels of the image as it is stored in the file; R may be 0.
        scores: float32 (R,), higher is better.
        offsets: int64 (P + 1,), from 0 to R.
        source: the file that this was read from, for messages.

    Raises:
        AnnotationError: columns that do not fit together, boxes or scores that are not finite, boxes that have x1 < x0
            or y1 < y0, image ids that stand twice.
    """

    image_ids: NDArray[np.generic]
    boxes: Boxes
    scores: NDArray[np.float32]
    offsets: NDArray[np.int64]
    source: str = "proposals"
    _noun: ClassVar[str] = "proposal"

    def __post_init__(self) -> None:
        images, count = len(self.image_ids), len(self.boxes)
        self._check_columns(
            {
                "boxes": ((count, 4), np.float32),
                "scores": ((count,), np.float32),
                "offsets": ((images + 1,), np.int64),
            }
        )
        self._check_rows(
            (
                (np.isfinite(self.boxes), "finite box corners"),
                (np.isfinite(self.scores), "finite scores"),
                (self.boxes[:, 2:] >= self.boxes[:, :2], "x0 <= x1 and y0 <= y1"),
            )
        )

    def _describe(self, row: int) -> str:
        return f"{super()._describe(row)} of score {self.scores[row]}"

    def __repr__(self) -> str:
        return f"Proposals({len(self)} images, {len(self.boxes)} boxes, from {self.source!r})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file that `read_proposals` reads; numpy appends `.npz` to a name without it."""
        np.savez(path, **{name: getattr(self, name) for name in _COLUMNS})


def read_proposals(path: str | os.PathLike[str], annotations: Annotations, *, missing: Missing = "raise") -> Proposals:
    """Read the proposals of a data set's images, matched by `image_id`.

    Proposals of one image keep their order.

    Args:
        path: a file that ends in `.npz`, with the arrays image_ids (Q,), boxes (R, 4) in xyxy pixels of the image
            file, scores (R,) and offsets (Q + 1,), as those of `Proposals`, its images in any order; or else a COCO
            results JSON file: a list of objects with image_id, bbox (left, top, width, height) and score, of which
            nothing else is read. JSON takes about 300 bytes of memory a proposal while it is read, npz about 40.
        annotations: the data set.
        missing: "raise" refuses a file without any proposal for some image, "allow" takes it.

    Returns:
        Proposals of the images of `annotations`, in their order.

    Raises:
        AnnotationError: the file is missing or not such a file, it has proposals of an image that is not in
            `annotations`, or none of one that is; the message names the first, and its place in the file.
        ValueError: unknown `missing`.
    """
    if missing not in get_args(Missing):
        raise ValueError(f"Expected missing to be one of {get_args(Missing)}. Received: {missing!r}")
    source = os.fspath(path)
    position_of = {image_id: position for position, image_id in enumerate(annotations.image_ids.tolist())}
    if source.endswith(".npz"):
        stored = _read_npz(source)
        ids = stored.image_ids.tolist()
        of_image = _positions(ids, position_of, source, "`image_ids[{}]`", annotations)
        positions = np.repeat(of_image, np.diff(stored.offsets))
        boxes, scores = stored.boxes, stored.scores
    else:
        noun = "a COCO results JSON file"
        open_file(source, noun, _MOST_BYTES).close()  # or a pipe would be waited for
        results = decode_json(source, list[_Result], noun)
        ids = [result.image_id for result in results]
        positions = _positions(ids, position_of, source, "`[{}].image_id`", annotations)
        with np.errstate(over="ignore"):  # infinite is refused below
            boxes = _boxes(results, source)
            scores = np.fromiter((result.score for result in results), np.float32, len(results))
    order = np.argsort(positions, kind="stable")
    proposals = Proposals(
        image_ids=annotations.image_ids,
        boxes=boxes[order],
        scores=scores[order],
        offsets=np.searchsorted(positions[order], np.arange(len(annotations) + 1)).astype(np.int64),
        source=source,
    )
    without = np.flatnonzero(np.diff(proposals.offsets) == 0)
    if missing == "raise" and len(without):
        first = int(without[0])
        raise AnnotationError(
            f"{source}: expected proposals for each of {len(annotations)} images, got none for {len(without)} of them, "
            f'the first with image_id {annotations.image_id(first)!r} ({annotations.paths[first]}); missing="allow" '
            "takes them as they are"
        )
    return proposals


def _positions(
    ids: list[int | str], position_of: PositionOf, source: str, where: str, annotations: Annotations
) -> NDArray[np.int64]:
    """Rows in `annotations` of images; `where` says where in the file an id stands."""
    positions = np.fromiter((position_of.get(image_id, -1) for image_id in ids), np.int64, len(ids))
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        such_as = f" (such as {next(iter(position_of))!r})" if position_of else ""
        raise AnnotationError(
            f"{source}: expected the image_id of an image in {annotations.source}{such_as}, got {ids[unknown[0]]!r} - "
            f"at {where.format(unknown[0])}"
        )
    return positions


# Only the fields named here are decoded.
class _Result(msgspec.Struct, gc=False):
    image_id: int | str
    bbox: tuple[float, float, float, float]
    score: float


def _boxes(results: list[_Result], source: str) -> Boxes:
    xywh = np.array([result.bbox for result in results], np.float64).reshape(-1, 4)
    negative = np.flatnonzero((xywh[:, 2:] < 0).any(axis=1))
    if len(negative):
        place = int(negative[0])
        raise AnnotationError(
            f"{source}: expected a bbox of width and height of at least 0, got {xywh[place].tolist()} - at "
            f"`[{place}].bbox` (image_id {results[place].image_id!r})"
        )
    return geometry.from_xywh(xywh)


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    """An entry's array, once its header asks for no more memory than the entry has content.

    Raises:
        ValueError: it asks for more, and other exceptions.
    """
    info = archive.getinfo(name)
    with archive.open(info) as entry:
        version = np.lib.format.read_magic(entry)
        if version != (1, 0):
            raise ValueError(f"a header of version {version} - at `{name}`")
        shape, _, dtype = np.lib.format.read_array_header_1_0(entry)
    size = math.prod(shape) * max(dtype.itemsize, 1)
    if size > min(info.file_size, _MOST_BYTES) or (dtype.kind == "U" and dtype.itemsize > 4 * MAX_ID):
        raise ValueError(f"a header that asks for {dtype} {shape} of {info.file_size} bytes - at `{name}`")
    with archive.open(info) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)  # type: ignore[no-any-return]


def _read_npz(source: str) -> Proposals:
    """The file's proposals, in its own order of images."""
    with open_file(source, "an npz file", _MOST_BYTES) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.namelist()
                names = ", ".join(entry.removesuffix(".npy") for entry in entries)
                columns = {name: _read_array(archive, f"{name}.npy") for name in _COLUMNS if f"{name}.npy" in entries}
        except OSError as error:
            raise AnnotationError(f"{source}: expected an npz file, got {error.strerror or error}") from error
        except Exception as error:  # of a hostile file zipfile, zlib and numpy's parser of headers raise ten kinds
            raise AnnotationError(
                f"{source}: expected an npz file without pickled objects, got: {error or type(error).__name__}"
            ) from error
    if len(columns) < len(_COLUMNS):
        raise AnnotationError(f"{source}: expected the arrays {', '.join(_COLUMNS)}, got {names or 'none'}")
    for name, kinds in _COLUMNS.items():
        column = columns[name]
        num_axes = 2 if name == "boxes" else 1
        if column.dtype.kind not in kinds or column.ndim != num_axes:
            raise AnnotationError(
                f"{source}: expected {_KINDS[kinds]} with {num_axes} axes, got {column.dtype} {column.shape} - "
                f"at `{name}`"
            )
    with np.errstate(over="ignore"):  # infinite is refused below
        boxes = columns["boxes"].astype(np.float32, copy=False)
        scores = columns["scores"].astype(np.float32, copy=False)
    return Proposals(
        image_ids=columns["image_ids"],
        boxes=boxes,
        scores=scores,
        offsets=columns["offsets"].astype(np.int64, copy=False),
        source=source,
    )
