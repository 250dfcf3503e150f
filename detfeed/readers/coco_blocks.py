"""Blocks: the annotations of a COCO file as columns, decoded two megabytes at a time, by several processes.

All annotations of a file decoded at once take as much memory as the file. Those of one block take a few megabytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import math
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import MAX_SIDE
from detfeed.masks import Runs, parse_runs
from detfeed.processes.helpers import Helpers, helper_count
from detfeed.processes.slots import Allocate, Parts
from detfeed.readers.coco_entries import (
    MASK,
    UNDECODED,
    Box,
    CocoFile,
    Content,
    Entries,
    Fault,
    KeypointBox,
    Number,
    decode_content,
    decode_entries,
    may_repeat_keys,
    quote_nan,
)
from detfeed.readers.json_files import repeated_key

BLOCK = 2**21  # bytes; with 8 MB, Python gives its memory back after each block, and reading takes a sixth longer
BLOCKS_A_PROCESS = 32  # one more process is started for so many blocks

# Where an array of objects may be cut, and where it ends if it is a value of the outermost object.
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_END = re.compile(rb'\}\s*\]\s*(?:,\s*"|\}\s*\Z)')
_BEGIN = re.compile(rb'"annotations"\s*:\s*\[')
_IMAGES = re.compile(rb'"images"\s*:\s*\[')
_NESTED = re.compile(rb"\[\s*\[")  # begins a list of lists; with space between in a file that is indented
_TAIL = 2**23  # bytes that may follow the annotations
_LONGEST_BEGIN = 64  # bytes that are searched again after a read, since it may end within the match
_STAND_IN = b'{"image_id": 0, "category_id": 0, "bbox": [0, 0, 0, 0], "id": "stands for all annotations"}'


class _Rle(msgspec.Struct, gc=False):
    counts: str | list[int]
    size: tuple[Number, Number]


_BOX = msgspec.json.Decoder(Box)
_BOXES = msgspec.json.Decoder(list[Box])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_RLE = msgspec.json.Decoder(_Rle)
_KEYPOINT_BOXES = msgspec.json.Decoder(list[KeypointBox])
_NUMBERS = msgspec.json.Decoder(list[float])
_POLYGONS = msgspec.json.Decoder(list[list[float]])

# What tools write where there is no mask.
_NO_MASK = (b"", b"null", b"[]", b"[[]]", b'""')

# Stands for an annotation that can't be read, so that all others keep their rows.
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


class Columns(NamedTuple):
    """N annotations; K of them have an RLE mask that is read, and there are Q polygons that are.

    Attributes:
        boxes: float64 (N, 4), x0, y0, width, height as written.
        image_ids: int64 (N,), or objects if some are texts.
        category_ids: int64 (N,).
        ids: the annotations' own ids, as image_ids; None for an annotation without one.
        crowd, ignore: bool (N,).
        areas: float64 (N,), NaN for an annotation without one.
        mask_rows: int64 (K,), the annotation of each mask.
        mask_sizes: int64 (K, 2), its height and width as written.
        mask_counts: int64 (K,), the number of its runs.
        mask_pixels: int64 (K,), the sum of its runs.
        runs: int32 (sum of mask_counts,), the runs of all masks.
        polygon_rows: int64 (Q,), the annotation of each polygon.
        polygon_counts: int64 (Q,), the number of its points.
        points: float32 (sum of polygon_counts, 2), x and y of the points of all polygons.
        keypoint_rows: int64 (J,), the annotations that have keypoints.
        keypoint_counts: int64 (J,), how many numbers these are.
        keypoints: float64 (sum of keypoint_counts,), x, y and visibility of each keypoint as written.
        fault_rows: int64 (F,), the annotations that have faults. The boxes of those that can't be read are zeros.
        fault_effects: int8 (F,), what each fault costs; see `coco_entries`.
        faults: bytes (F,), their messages in UTF-8.
    """

    boxes: NDArray[np.float64]
    image_ids: NDArray[Any]
    category_ids: NDArray[np.int64]
    ids: NDArray[Any]
    crowd: NDArray[np.bool_]
    ignore: NDArray[np.bool_]
    areas: NDArray[np.float64]
    mask_rows: NDArray[np.int64]
    mask_sizes: NDArray[np.int64]
    mask_counts: NDArray[np.int64]
    mask_pixels: NDArray[np.int64]
    runs: Runs
    polygon_rows: NDArray[np.int64]
    polygon_counts: NDArray[np.int64]
    points: NDArray[np.float32]
    keypoint_rows: NDArray[np.int64]
    keypoint_counts: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    fault_rows: NDArray[np.int64]
    fault_effects: NDArray[np.int8]
    faults: NDArray[np.bytes_]


def to_columns(boxes: Sequence[Box], faults: Sequence[Fault] = (), *, all_masks: bool = False) -> Columns:
    """Columns of annotations.

    Args:
        boxes: the annotations, with stand-ins for those that can't be read; see `with_stand_ins`.
        faults: of the annotations.
        all_masks: read the masks of all annotations, polygons too. False: the RLE masks of crowds.
    """
    flat = itertools.chain.from_iterable([box.bbox for box in boxes])
    crowd = _flags([box.iscrowd for box in boxes])
    rows, sizes, masks, faults = [], [], [], list(faults)
    polygon_rows, points = array("q"), [array("f")]
    for row in range(len(boxes)) if all_masks else np.flatnonzero(crowd).tolist():
        box = boxes[row]
        text = bytes(box.segmentation)
        kind = "an RLE mask, got one that does not parse"
        try:
            if text.startswith(b"{"):
                rle = _RLE.decode(text)
                masks.append(parse_runs(rle.counts, most=math.prod(map(int, rle.size)) + 1))
                rows.append(row)
                sizes.append(rle.size)
            elif all_masks and text not in _NO_MASK:
                kind = "polygons, got some that do not parse"
                polygons = _parse_polygons(text)
                points += polygons
                polygon_rows.extend([row] * len(polygons))
        except (ValueError, RecursionError) as error:
            where = f"at `annotations[{row}].segmentation` (image_id {box.image_id!r})"
            faults.append(Fault(row, f"expected {kind}: {error} - {where}", MASK))
    keypoint_rows, keypoints = array("q"), [array("d")]
    for row, box in enumerate(boxes if boxes and isinstance(boxes[0], KeypointBox) else ()):
        text = bytes(getattr(box, "keypoints", b""))
        if text not in _NO_MASK:
            try:
                numbers = array("d", _NUMBERS.decode(text))
                if len(numbers) % 3 or not all(map(math.isfinite, numbers)):
                    raise ValueError(f"expected x, y and visibility of each, got {len(numbers)} numbers")
            except (ValueError, RecursionError) as error:
                where = f"at `annotations[{row}].keypoints` (image_id {box.image_id!r})"
                kind = "keypoints, got some that do not parse"
                faults.append(Fault(row, f"expected {kind}: {error} - {where}", MASK))
                continue
            if numbers:
                keypoints.append(numbers)
                keypoint_rows.append(row)
    return Columns(
        boxes=np.fromiter(flat, np.float64, 4 * len(boxes)).reshape(-1, 4),
        image_ids=_ids([box.image_id for box in boxes]),
        category_ids=_ids([box.category_id for box in boxes]),
        ids=_ids([box.id for box in boxes]),
        crowd=crowd,
        ignore=_flags([box.ignore for box in boxes]),
        areas=np.array([box.area for box in boxes], np.float64),
        mask_rows=np.array(rows, np.int64),
        mask_sizes=np.array(sizes, np.int64).reshape(-1, 2),
        mask_counts=np.array([len(runs) for runs in masks], np.int64),
        mask_pixels=np.array([runs.sum(dtype=np.int64) for runs in masks], np.int64),
        runs=np.concatenate([np.empty(0, np.int32), *masks]),
        polygon_rows=np.array(polygon_rows),
        polygon_counts=np.array([len(polygon) // 2 for polygon in points[1:]], np.int64),
        points=np.concatenate(points).reshape(-1, 2),
        keypoint_rows=np.array(keypoint_rows),
        keypoint_counts=np.array(list(map(len, keypoints[1:])), np.int64),
        keypoints=np.concatenate(keypoints),
        fault_rows=np.array([fault.row for fault in faults], np.int64),
        fault_effects=np.array([fault.effect for fault in faults], np.int8),
        faults=np.array([fault.message.encode() for fault in faults], np.bytes_),
    )


def _parse_polygons(text: bytes) -> list[array[float]]:
    """The polygons of an annotation, as x and y of points in turn.

    Raises:
        ValueError: they are no lists of numbers, or one has less than three points or one that no image has.
    """
    # Some tools leave the outer brackets out.
    whole = text if _NESTED.match(text) else b"[%b]" % text
    polygons = [array("f", one) for one in _POLYGONS.decode(whole) if one]
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"expected x and y of at least 3 points, got {len(polygon)} numbers")
        if not (max(polygon) <= MAX_SIDE and min(polygon) >= -MAX_SIDE):
            raise ValueError(
                f"expected points from -{MAX_SIDE} to {MAX_SIDE}, got {min(polygon):g} to {max(polygon):g}"
            )
    return polygons


def with_stand_ins(read: Entries) -> list[Box]:
    """The annotations of a list, with a box without area in place of each that can't be read."""
    form = type(read.entries[0]) if read.entries else Box
    boxes: list[Box] = [form(0, 0, _NO_BOX)] * (len(read.entries) + len(read.faults))
    for row, box in zip(read.rows, read.entries, strict=True):
        boxes[row] = box
    for fault in read.faults:
        boxes[fault.row] = form(0 if fault.id is None else fault.id, 0, _NO_BOX)
    return boxes


def _flags(numbers: list[int]) -> NDArray[np.bool_]:
    return np.frombuffer(bytes([number != 0 for number in numbers]), bool)


def _ids(ids: list[Any]) -> NDArray[Any]:
    try:
        return np.array(array("q", ids))
    except TypeError:
        return np.array(ids, object)


def join(blocks: list[Columns]) -> Columns:
    """The columns of several blocks, one after the other."""
    starts = np.cumsum([0, *(len(block.boxes) for block in blocks)]).tolist()
    blocks = [
        block._replace(
            mask_rows=block.mask_rows + start,
            polygon_rows=block.polygon_rows + start,
            keypoint_rows=block.keypoint_rows + start,
            fault_rows=block.fault_rows + start,
            faults=_moved(block.faults, start),
        )
        for start, block in zip(starts, [*blocks, to_columns([])], strict=True)
    ]
    return Columns(*map(np.concatenate, zip(*blocks, strict=True)))  # type: ignore[arg-type]


def _moved(faults: NDArray[np.bytes_], start: int) -> NDArray[np.bytes_]:
    """Messages of faults in a block that begins at an annotation of the file."""
    if not start or not len(faults):
        return faults
    return np.array([
        re.sub(rb"`annotations\[(\d+)\]", lambda row: b"`annotations[%d]" % (int(row[1]) + start), message)
        for message in faults.tolist()
    ])  # fmt: skip


Span = tuple[int, int]


@dataclasses.dataclass
class Pieces:
    """A file that is read in pieces; also the task of the processes that help to read it."""

    path: str
    all_masks: bool = False
    keypoints: bool = False
    _buffer: bytearray = dataclasses.field(default_factory=bytearray)

    def run(self, allocate: Allocate, *spans: Span) -> tuple[Parts, None]:
        """Read several pieces."""
        with no_collections():
            return tuple(self.read(span)._asdict() for span in spans), None

    def read(self, span: Span, *, looking_for_repeats: bool = False) -> Columns:
        """The columns of the annotations that lie in the file from one byte to another.

        Args:
            span: the bytes.
            looking_for_repeats: whether an annotation in which a key stands twice is a fault. msgspec takes the last
                value.

        Raises:
            One of `UNDECODED`: they are no list of JSON values.
            OSError: the file can't be read.
        """
        start, stop = span
        size = stop - start
        # The same memory for every block, since new memory costs page faults.
        if len(self._buffer) < size + 2:
            self._buffer = bytearray(size + size // 8 + 2)
        data = memoryview(self._buffer)[: size + 2]
        data[0], data[-1] = b"[]"
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            at = 1
            while at <= size:
                count = file.readinto(data[at:-1])
                if not count:
                    raise msgspec.DecodeError("the file has become shorter")
                at += count
        try:
            boxes = (_KEYPOINT_BOXES if self.keypoints else _BOXES).decode(data)
            if looking_for_repeats and may_repeat_keys(data, len(boxes)):
                raise msgspec.ValidationError("a key of an annotation may stand twice")
            return to_columns(boxes, all_masks=self.all_masks)
        except msgspec.DecodeError:
            read = decode_entries(
                _RAWS.decode(quote_nan(bytes(data))), KeypointBox if self.keypoints else Box, "annotations"
            )
            return to_columns(with_stand_ins(read), read.faults, all_masks=self.all_masks)


def read(
    path: str, form: type[CocoFile], *, all_masks: bool = False, keypoints: bool = False
) -> tuple[Content, Columns] | None:
    """Read a file block by block; a large file by several processes.

    Args:
        path: the file.
        form: what to decode to.
        all_masks: see `to_columns`.
        keypoints: read keypoints.

    Returns:
        The file's content without its annotations, and these as columns. None if the file can't be cut into blocks, see
        `cut`: then decode it as a whole.

    Raises:
        As `Pieces.read`. After one of `UNDECODED`, decode the file as a whole: either only a cut was wrong, or the
        error then names the place in the file.
    """
    pieces = Pieces(path, all_masks, keypoints)
    # The helpers are started before anything else, since it takes a while.
    with Helpers(pieces, helper_count(os.path.getsize(path), BLOCK * BLOCKS_A_PROCESS)) as helpers:
        found = cut(path, form)
        if found is None:
            return None
        content, spans = found
        # Keys that repeat are looked for in one block, since a tool that writes keys twice does so throughout, and
        # since it takes a third longer.
        blocks = helpers.share(
            spans,
            lambda number: pieces.read(spans[number], looking_for_repeats=number == 0),
            lambda arrays: Columns(**arrays),
        )
        return content, join(list(blocks))


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Switch the garbage collector off: what is decoded is no garbage, and looking for some takes 7 % of reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def cut(path: str, form: type[CocoFile]) -> tuple[Content, list[Span]] | None:
    """Find the blocks of a file's annotations.

    The cuts are found by regular expressions, so each is a guess. Two parses prove it: every block, in brackets, is a
    list of annotations; and the rest of the file, with one stand-in annotation between its halves, is valid JSON whose
    `annotations` is exactly that stand-in, and which has no key twice.

    Returns:
        The file's content without its annotations, and the first and last byte of each block. None if the rest of the
        file does not pass; for a block that does not, `Pieces.read` raises one of `UNDECODED`.

    Raises:
        OSError: the file can't be read.
    """
    with open(path, "rb") as file:
        head = _read_head(file)
        if head is None:
            return None
        start = len(head)
        size = file.seek(0, os.SEEK_END)
        last = file.seek(max(start, size - _TAIL))
        tail = file.read()
        end = _END.search(tail)
        if not end:
            return None
        try:
            foot = _STAND_IN + tail[end.start() + 1 :]
            content = decode_content(quote_nan(bytes(head + foot)), form)
        except UNDECODED:
            return None
        if content.annotations.entries != [_BOX.decode(_STAND_IN)] or _repeats_a_key(head, foot):
            return None
        return content, _spans(file, start, last + end.start() + 1)


def _repeats_a_key(head: bytearray, foot: bytes) -> bool:
    """Whether the outermost object of a file has a key twice."""
    # Images rarely hold arrays: what is up to the first bracket is all of them. Without them this takes no time at all,
    # with those of COCO's training set 4 % of reading it. If there are some, the shorter text does not parse.
    begin = _IMAGES.search(head)
    if begin:
        with contextlib.suppress(*UNDECODED):
            return bool(
                repeated_key(head[: begin.end()] + head[max(begin.end(), head.find(b"]", begin.end())) :] + foot)
            )
    return bool(repeated_key(head + foot))


def _read_head(file: BinaryIO) -> bytearray | None:
    """The bytes before the first annotation; None if no place looks like it."""
    head = bytearray()
    while data := file.read(_TAIL):
        seen = max(0, len(head) - _LONGEST_BEGIN)
        head += data
        begin = _BEGIN.search(head, seen)
        if begin:
            del head[begin.end() :]
            return head
    return None


def _spans(file: BinaryIO, start: int, stop: int) -> list[Span]:
    """Blocks of about `BLOCK` bytes, each of which ends where an annotation seems to end."""
    spans = []
    while start < stop:
        end = following = stop
        at, size = start + BLOCK, 2**16
        while at < stop:
            file.seek(at)
            gap = _BETWEEN.search(file.read(min(size, stop - at)))
            if gap:
                end, following = at + gap.start() + 1, at + gap.end() - 1
                break
            if at + size >= stop:
                break
            size *= 2
        spans.append((start, end))
        start = following
    return spans
