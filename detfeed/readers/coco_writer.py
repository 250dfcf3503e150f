"""COCO writer: Annotations to an instances JSON file."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detfeed.annotations import Annotations, IgnoreReason
from detfeed.keypoints import Keypoints, flips_of
from detfeed.mask_columns import MaskColumns
from detfeed.readers.written_images import common_folder, name_in
from detfeed.writing import replace_file

# What a table, and so a file that is written, does not hold of a COCO file.
NOT_WRITTEN = "outlines and keypoints without --masks and --keypoints, captions, info, licenses and supercategories"
# The fields of LVIS's files that hold a federated table's columns.
_LVIS_FIELDS = {"neg_classes": "neg_category_ids", "not_exhaustive_classes": "not_exhaustive_category_ids"}


def write_coco(
    annotations: Annotations, path: str | os.PathLike[str], image_dir: str | os.PathLike[str] | None = None
) -> str:
    """Write a COCO instances file that `read_coco` reads as the same table.

    Boxes that are ignored as crowds are written with `iscrowd`, other ignored boxes with `ignore`, masks as polygons or
    uncompressed RLE, as they were read; `masks=True` reads those of objects back. Boxes have their `annotation_ids` if
    each is above 0 and there once, else numbers from 1. A federated table gets LVIS's fields, for `read_lvis`. Corners
    and areas are written exactly, keypoints for `keypoints=True`, with `flip_idx` in the categories where names do not
    tell which change places in a mirrored image. Captions, info, licenses and supercategories are not written, since a
    table does not hold them.

    Args:
        annotations: the table. Its classes are read back in the order of their category ids.
        path: the file; an existing one is replaced when the new one is complete.
        image_dir: folder, or its URL, to which the images' `file_name` will be relative. None: the deepest folder that
            holds all images.

    Returns:
        The image folder, for `read_coco`.

    Raises:
        ValueError: an image outside `image_dir`, images at URLs of different kinds, or a repeated category id.
        OSError: the file can't be written.
    """
    table = annotations
    if len(set(table.category_ids.tolist())) < len(table.category_ids):
        raise ValueError(f"Expected each category id once. Received: {table.category_ids.tolist()}")
    image_dir = common_folder(table.paths) if image_dir is None else os.fspath(image_dir)
    categories = [
        {"id": category_id, "name": name} | ({} if table.keypoints is None else _of_keypoints(table.keypoints))
        for category_id, name in zip(table.category_ids.tolist(), table.class_names, strict=True)
    ]
    content = {"images": _images(table, image_dir), "annotations": _objects(table), "categories": categories}
    replace_file(os.fspath(path), msgspec.json.encode(content))
    return image_dir


def _of_keypoints(keypoints: Keypoints) -> dict[str, Any]:
    """What a category says of keypoints; `flip_idx`, which COCO does not know, where names don't tell the flips."""
    flips = keypoints.flips.tolist()
    return {"keypoints": keypoints.names} | ({} if flips_of(keypoints.names).tolist() == flips else {"flip_idx": flips})


def _images(table: Annotations, image_dir: str) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = [
        {"id": image_id, "file_name": name_in(image_dir, path), "height": height, "width": width}
        for path, image_id, (height, width) in zip(
            table.paths, table.image_ids.tolist(), table.image_hw.tolist(), strict=True
        )
    ]
    for column, field in _LVIS_FIELDS.items():
        pairs = getattr(table, column)
        if pairs is not None:
            for image in images:
                image[field] = []
            for position, class_id in pairs.tolist():
                images[position][field].append(int(table.category_ids[class_id]))
    return images


def _objects(table: Annotations) -> list[dict[str, Any]]:
    boxes = table.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    positions = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    own = table.annotation_ids
    numbered = len(np.unique(own)) == len(own) and own.min(initial=1) > 0
    annotation_ids = own if numbered else np.arange(1, len(own) + 1)
    crowd = table.ignore_reasons == IgnoreReason.CROWD
    columns = (
        annotation_ids, positions, table.category_ids[table.class_ids], boxes, table.areas, crowd, table.ignore & ~crowd
    )  # fmt: skip
    ids, sizes_hw = table.image_ids.tolist(), table.image_hw.tolist()
    objects = []
    masks, keypoints = MaskColumns.of(table.masks), _keypoints(table)
    for row, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        annotation_id, position, category_id, bbox, area, is_crowd, ignore = values
        item: dict[str, Any] = {
            "id": annotation_id,
            "image_id": ids[position],
            "category_id": category_id,
            "bbox": bbox,
            "area": area,
            "iscrowd": int(is_crowd),
        }
        if ignore:
            item["ignore"] = 1
        if row in masks:
            polygons = masks.polygons(row)
            runs = {"counts": [] if polygons else masks[row].tolist(), "size": sizes_hw[position]}
            item["segmentation"] = [polygon.reshape(-1).tolist() for polygon in polygons] or runs
        if keypoints is not None:
            item["keypoints"] = keypoints[row].reshape(-1).tolist()
            item["num_keypoints"] = int((keypoints[row, :, 2] > 0).sum())
        objects.append(item)
    return objects


def _keypoints(table: Annotations) -> NDArray[np.float64] | None:
    """Keypoints as COCO writes them, float64 (N, K, 3): as numbers of pixels, and zeros for those not labelled."""
    if table.keypoints is None:
        return None
    points = table.keypoints.points.astype(np.float64)
    points[..., :2] -= 0.5 * (points[..., 2:] > 0)
    return points
