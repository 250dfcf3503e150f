"""Proposals: COCO results JSON and npz files to Proposals of the images of Annotations."""

from __future__ import annotations

import math
import os
import zipfile
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.boxes import Boxes
from detfeed.errors import AnnotationError
from detfeed.proposals import Proposals
from detfeed.readers.json_files import decode_json
from detfeed.readers.paths import MAX_ID
from detfeed.readers.texts import open_file

Missing = Literal["raise", "allow"]
PositionOf = dict[int | str, int]

# The arrays of an npz file, and the kinds of numpy dtype that each may have.
_KINDS_OF = {"image_ids": "iuU", "boxes": "fiu", "scores": "fiu", "offsets": "iu"}
_KINDS = {"iuU": "integers or strings", "fiu": "numbers", "iu": "integers"}
# Bytes of a file and of each array; a thousand float64 boxes for each image of COCO take 4e9.
_MOST_BYTES = 2**34


def read_proposals(path: str | os.PathLike[str], annotations: Annotations, *, missing: Missing = "raise") -> Proposals:
    """Read the proposals of a data set's images, matched by `image_id`.

    Proposals of one image keep their order.

    Args:
        path: a file that ends in `.npz`, with the arrays of `Proposals`: image_ids (Q,) in any order, boxes (R, 4) in
            xyxy pixels of the image file, scores (R,) and offsets (Q + 1,). Any other file is read as COCO results
            JSON: a list of objects with image_id, bbox (left, top, width, height) and score; other fields are not read.
            While it is read, JSON takes about 300 bytes of memory a proposal, npz about 40.
        annotations: the data set.
        missing: whether each image needs a proposal: "raise" refuses a file that has none for some image.

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
        results = decode_json(source, list[_Result], "a COCO results JSON file", _MOST_BYTES)
        ids = [result.image_id for result in results]
        positions = _positions(ids, position_of, source, "`[{}].image_id`", annotations)
        with np.errstate(over="ignore"):  # `Proposals` refuses infinite numbers
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
            "accepts that"
        )
    return proposals


def _positions(
    ids: list[int | str], position_of: PositionOf, source: str, where: str, annotations: Annotations
) -> NDArray[np.int64]:
    """Rows in `annotations` of the images with these ids; `where` is the form of an id's place in the file."""
    positions = np.fromiter((position_of.get(image_id, -1) for image_id in ids), np.int64, len(ids))
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        such_as = f" (such as {next(iter(position_of))!r})" if position_of else ""
        raise AnnotationError(
            f"{source}: expected the image_id of an image in {annotations.source}{such_as}, got {ids[unknown[0]]!r} - "
            f"at {where.format(unknown[0])}"
        )
    return positions


# These are the only fields that are decoded.
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
    """An entry's array; a header that asks for more memory than the entry has content is refused.

    Raises:
        ValueError: such a header, or one of another version. Damaged entries raise other exceptions.
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
                columns = {name: _read_array(archive, f"{name}.npy") for name in _KINDS_OF if f"{name}.npy" in entries}
        except OSError as error:
            raise AnnotationError(f"{source}: expected an npz file, got {error.strerror or error}") from error
        except Exception as error:  # hostile files make zipfile, zlib and numpy raise ten kinds
            raise AnnotationError(
                f"{source}: expected an npz file without pickled objects, got: {error or type(error).__name__}"
            ) from error
    if len(columns) < len(_KINDS_OF):
        raise AnnotationError(f"{source}: expected the arrays {', '.join(_KINDS_OF)}, got {names or 'none'}")
    for name, kinds in _KINDS_OF.items():
        column = columns[name]
        num_axes = 2 if name == "boxes" else 1
        if column.dtype.kind not in kinds or column.ndim != num_axes:
            raise AnnotationError(
                f"{source}: expected {_KINDS[kinds]} with {num_axes} axes, got {column.dtype} {column.shape} - "
                f"at `{name}`"
            )
    with np.errstate(over="ignore"):  # `Proposals` refuses infinite numbers
        boxes = columns["boxes"].astype(np.float32, copy=False)
        scores = columns["scores"].astype(np.float32, copy=False)
    return Proposals(
        image_ids=columns["image_ids"],
        boxes=boxes,
        scores=scores,
        offsets=columns["offsets"].astype(np.int64, copy=False),
        source=source,
    )
