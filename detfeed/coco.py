"""COCO: instances JSON files to Annotations."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

import msgspec
import numpy as np

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.masks import Runs, parse_runs

# Only the fields named here are decoded; the parser skips all others, polygons above all.
# What numpy's int64 holds, and more pixels than any image has.
_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=10**6)]


class _Image(msgspec.Struct, gc=False):
    id: _Id | str
    file_name: str
    height: _Side
    width: _Side


class _Box(msgspec.Struct, gc=False):
    image_id: _Id | str
    category_id: _Id
    bbox: tuple[float, float, float, float]
    id: int | str | None = None
    area: float | None = None
    segmentation: msgspec.Raw = msgspec.Raw()  # looked into for crowds only
    iscrowd: int = 0
    ignore: int = 0


class _Rle(msgspec.Struct, gc=False):
    counts: str | list[int]
    size: tuple[int, int]


class _Category(msgspec.Struct, gc=False):
    id: _Id
    name: str


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Box]
    categories: list[_Category]


def read_coco(json: str | os.PathLike[str], image_dir: str | os.PathLike[str]) -> Annotations:
    """Read a COCO instances file.

    Classes are numbered from 0 in the order of their category ids, which may have gaps. `iscrowd` and `ignore` make a
    box an ignore region, and the RLE masks of crowds are kept. Images without boxes are kept, in the order of the file.
    Boxes are taken as they stand.

    Args:
        json: the instances file.
        image_dir: folder that its file names start from. Images are not opened.

    Raises:
        AnnotationError: the file is missing or not such a file; the message names the place in it.
    """
    source = os.fspath(json)
    try:
        with open(source, "rb") as file:
            data = file.read()
    except OSError as error:
        raise AnnotationError(f"{source}: expected a COCO JSON file, got {error.strerror or error}") from error
    try:
        content = msgspec.json.decode(data, type=_File)
    except msgspec.ValidationError as error:
        raise AnnotationError(f"{source}: {explain_json(error, data)}") from None
    except msgspec.DecodeError as error:
        raise AnnotationError(f"{source}: expected JSON, got a file that does not parse: {error}") from None
    return _to_annotations(content, source, os.fspath(image_dir))


def _to_annotations(content: _File, source: str, image_dir: str) -> Annotations:
    categories = sorted(content.categories, key=lambda category: category.id)
    class_of = {category.id: row for row, category in enumerate(categories)}
    if len(class_of) != len(categories):
        raise AnnotationError(f"{source}: expected each category id once, got {[c.id for c in categories]}")
    position_of = {image.id: position for position, image in enumerate(content.images)}
    if len(position_of) != len(content.images):
        for place, image in enumerate(content.images):
            if position_of[image.id] != place:
                raise AnnotationError(
                    f"{source}: expected each image id once, got {image.id!r} again - at "
                    f"`images[{position_of[image.id]}].id`, first at `images[{place}].id`"
                )
    _check_annotations(content, source, position_of, class_of)
    masks = _read_masks(content, source, position_of)

    count = len(content.annotations)
    positions = np.fromiter((position_of[box.image_id] for box in content.annotations), np.int64, count)
    order = np.argsort(positions, kind="stable")
    xywh = np.array([box.bbox for box in content.annotations], np.float64).reshape(-1, 4)[order]
    areas = np.fromiter((np.nan if b.area is None else b.area for b in content.annotations), np.float64, count)[order]
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, which Annotations refuses
        boxes = geometry.from_xywh(xywh)
        areas_or_boxes = np.where(np.isnan(areas), xywh[:, 2] * xywh[:, 3], areas).astype(np.float32)
    ids = [image.id for image in content.images]
    row_of = {int(place): row for row, place in enumerate(order)} if masks else {}
    return Annotations(
        paths=tuple(os.path.join(image_dir, image.file_name) for image in content.images),
        image_ids=np.array(ids, np.int64) if all(isinstance(i, int) for i in ids) else np.array(ids, str),
        image_hw=np.array([(i.height, i.width) for i in content.images], np.int32).reshape(-1, 2),
        boxes=boxes,
        class_ids=np.fromiter((class_of[b.category_id] for b in content.annotations), np.int32, count)[order],
        ignore=np.fromiter((bool(b.iscrowd or b.ignore) for b in content.annotations), np.bool_, count)[order],
        areas=areas_or_boxes,
        offsets=np.searchsorted(positions[order], np.arange(len(ids) + 1)).astype(np.int64),
        class_names=tuple(category.name for category in categories),
        category_ids=np.array([category.id for category in categories], np.int64),
        masks={row_of[place]: runs for place, runs in masks.items()},
        source=source,
    )


def _check_annotations(
    content: _File, source: str, position_of: dict[int | str, int], class_of: dict[int, int]
) -> None:
    seen: set[int | str] = set()
    for place, box in enumerate(content.annotations):
        where = f"at `annotations[{place}]` (image_id {box.image_id!r})"
        if box.image_id not in position_of:
            raise AnnotationError(f"{source}: expected the image_id of an image in the file, got none such - {where}")
        if box.category_id not in class_of:
            raise AnnotationError(
                f"{source}: expected a category_id among {sorted(class_of)}, got {box.category_id} - {where}"
            )
        if box.bbox[2] < 0 or box.bbox[3] < 0:
            raise AnnotationError(
                f"{source}: expected a bbox of width and height of at least 0, got {list(box.bbox)} - {where}"
            )
        if box.id is not None:
            if box.id in seen:
                raise AnnotationError(f"{source}: expected each annotation id once, got {box.id!r} again - {where}")
            seen.add(box.id)


def _read_masks(content: _File, source: str, position_of: dict[int | str, int]) -> dict[int, Runs]:
    """Run lengths of the crowds' masks, by place in `annotations`; polygons and what is missing are left out."""
    masks = {}
    for place, box in enumerate(content.annotations):
        if not box.iscrowd or not bytes(box.segmentation).startswith(b"{"):
            continue
        where = f"at `annotations[{place}].segmentation` (image_id {box.image_id!r})"
        image = content.images[position_of[box.image_id]]
        try:
            rle = msgspec.json.decode(box.segmentation, type=_Rle)
            runs = parse_runs(rle.counts)
        except (msgspec.ValidationError, ValueError) as error:
            raise AnnotationError(
                f"{source}: expected an RLE mask, got one that does not parse: {error} - {where}"
            ) from None
        if rle.size != (image.height, image.width) or runs.sum(dtype=np.int64) != image.height * image.width:
            raise AnnotationError(
                f"{source}: expected an RLE mask of the image's height and width {image.height, image.width}, got "
                f"size {rle.size} and {runs.sum(dtype=np.int64)} pixels - {where}"
            )
        masks[place] = runs
    return masks


def explain_json(error: msgspec.ValidationError, data: bytes) -> str:
    """msgspec's message with the value it stumbled on and, for an annotation, the image it belongs to."""
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`")
    value: Any = msgspec.json.decode(data)
    owner = ""
    for key in re.findall(r"\[(\d+)\]|\.(\w+)", path):
        value = value[int(key[0])] if key[0] else value[key[1]]
        if isinstance(value, dict) and "image_id" in value:
            owner = f" (image_id {value['image_id']!r})"
    got = msgspec.json.encode(value).decode()
    got = got if len(got) <= 80 else got[:77] + "..."
    # The value says more than msgspec's "Expected `int`, got `str`".
    expected = message.partition(", got ")[0]
    verdict = f"e{expected[1:]}, got {got}" if expected.startswith("Expected") else f"{message} in {got}"
    return f"{verdict} - at `{path.lstrip('.') or 'top level'}`{owner}"
