"""JSON lines: a line of JSON for each image, as Hugging Face's image folders and Ultralytics' NDJSON have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from detfeed.annotations import Annotations
from detfeed.errors import among, shorten
from detfeed.readers.bad_boxes import Invalid
from detfeed.readers.notes import Notes
from detfeed.readers.paths import NamedImages
from detfeed.readers.problems import OnProblem, StatedSize, tell_repeated
from detfeed.readers.rows import ImageRow, ObjectRow, Rows, with_address
from detfeed.readers.texts import MOST_OF_LIST, read_lines
from detfeed.readers.yolo_layouts import keypoints_of
from detfeed.readers.yolo_objects import Shape, boxed, outlined

METADATA = "metadata.jsonl"
_SPLITS = ("train", "val", "test")  # of NDJSON
_Box = Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)]
_T = TypeVar("_T")


class _Objects(msgspec.Struct):
    bbox: list[_Box] = []
    categories: list[int | str] | None = None
    category: list[int | str] | None = None


class _Image(msgspec.Struct):
    file_name: str
    width: float | None = None
    height: float | None = None
    objects: _Objects = msgspec.field(default_factory=_Objects)


class _Shapes(msgspec.Struct):
    boxes: list[list[float]] = []
    segments: list[list[float]] = []
    obb: list[list[float]] = []
    pose: list[list[float]] = []


class _Record(msgspec.Struct):
    type: str
    file: str = ""
    split: str = "train"
    width: float | None = None
    height: float | None = None
    class_names: dict[str, str] = {}
    kpt_shape: Any = None
    flip_idx: Any = None
    kpt_names: Any = None
    annotations: _Shapes = msgspec.field(default_factory=_Shapes)


class _Found(NamedTuple):
    """An image of a line: its name, its objects, and its height and width if the line has them."""

    name: str
    objects: list[ObjectRow]
    hw: tuple[int, int] | None


def read_image_folder(
    folder: str | os.PathLike[str],
    *,
    class_names: tuple[str, ...] | None = None,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read an image folder of Hugging Face's datasets with objects.

    metadata.jsonl has a line for each image: `file_name`, and `objects` with `bbox` (x, y, width and height in pixels)
    and `categories` or `category` (a name or number for each box). The image id is `file_name`. Sizes are read from the
    headers of the images, with their EXIF orientation applied; `width` and `height`, if they are there, must agree.

    Args:
        folder: folder that holds metadata.jsonl, such as the folder of a split.
        class_names: the classes in order; numbers are their places. None: all names or numbers in the file, sorted.
        invalid: policy for bad boxes; see `BadBoxesWarning`.
        on_problem: called with (path, error) for each line and image that can't be read; the image is left out. None:
            the error is raised.

    Raises:
        AnnotationError: the file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing or of an unknown format.

    Source: huggingface.co/docs/datasets/image_dataset.
    """
    folder = os.fspath(folder)
    source = os.path.join(folder, METADATA)

    def read_objects(line: int, text: str) -> _Found:
        image = _decode(text, _Image)
        labels = image.objects.categories if image.objects.category is None else image.objects.category
        if len(labels or ()) != len(image.objects.bbox):
            raise ValueError(
                f"expected a category for each of {len(image.objects.bbox)} boxes, got {len(labels or ())}"
            )
        objects = []
        for label, (x, y, w, h) in zip(labels or (), image.objects.bbox, strict=True):
            name = class_names[label] if class_names and type(label) is int and 0 <= label < len(class_names) else label
            if class_names is not None and name not in class_names:
                raise ValueError(f"expected a category among {among(class_names)}, got {label!r}")
            objects.append(ObjectRow(name, (x, y, x + w, y + h), line))
        return _Found(image.file_name, objects, _stated_hw(image))

    rows = _read(source, source, folder, read_objects, on_problem)
    if class_names is not None:
        return rows.to_annotations(class_names, invalid=invalid)
    numbers = sorted(label for label in rows.labels if type(label) is int)
    labels = [*numbers, *sorted(label for label in rows.labels if isinstance(label, str))]
    category_ids = numbers if len(numbers) == len(labels) else None
    return rows.to_annotations(list(map(str, labels)), invalid=invalid, labels=labels, category_ids=category_ids)


def read_ndjson(
    file: str | os.PathLike[str],
    split: str = "train",
    *,
    image_dir: str | os.PathLike[str] | None = None,
    masks: bool = False,
    keypoints: bool = False,
    invalid: Invalid = "clip",
    on_problem: OnProblem | None = None,
) -> Annotations:
    """Read a data set in Ultralytics' NDJSON.

    The first line has `class_names` by number, each other one an image with its `file`, `split` and `annotations`.
    Boxes are read, and the boxes around polygons and rotated boxes, with a warning unless `masks` keeps these.
    Keypoints are left out unless `keypoints` asks for them. Images are not downloaded: they are SPLIT/`file`,
    images/SPLIT/`file` or any one image below `image_dir` of that name. The image id is `file`. Sizes are read from the
    headers of the images, with their EXIF orientation applied; `width` and `height`, if they are there, must agree.

    Args:
        file: the NDJSON file.
        split: which: "train", "val" or "test".
        image_dir: folder of the images. None: the file's folder.
        masks, keypoints: as for `read_yolo`; `kpt_shape`, `flip_idx` and `kpt_names` stand in the first line.
        invalid, on_problem: as in `read_image_folder`.

    Raises:
        AnnotationError: the file is missing or not what it should be; the message names file and line.
        ImageError: an image is missing or of an unknown format.

    Source: docs.ultralytics.com/datasets/detect, "Ultralytics NDJSON format".
    """
    source = os.fspath(file)
    folder = os.path.dirname(source) if image_dir is None else os.fspath(image_dir)
    name_of: dict[int, str] = {}
    head: dict[str, Any] = {}
    notes = Notes()

    def read_objects(line: int, text: str) -> _Found | None:
        record = _decode(text, _Record)
        if record.type == "dataset":
            name_of.update({int(number): name for number, name in record.class_names.items()})
            given = {name: getattr(record, name) for name in ("kpt_shape", "flip_idx", "kpt_names")}
            head.update({name: value for name, value in given.items() if value is not None})
        if record.type == "image" and record.split not in (*_SPLITS, split):
            notes.add(f"images of splits that are none of {', '.join(_SPLITS)} are left out", f"line {line}")
        if record.type != "image" or record.split != split:
            return None
        shapes = record.annotations
        around = [*shapes.segments, *shapes.obb]
        if around and not masks:
            notes.add("polygons and rotated boxes are read as the boxes around them", f"line {line}")
        shape = keypoints_of(head, source, Notes())[0] if keypoints else (0, 0)
        objects = [
            *(_box(values, line, name_of, shape) for values in shapes.boxes),
            *(_pose(values, line, name_of, shape) for values in shapes.pose),
            *(_around(values, line, name_of, masks, shape) for values in around),
        ]
        return _Found(record.file, objects, _stated_hw(record))

    places = (f"images/{split}", split, "images", "")
    top = next(place for place in places if os.path.isdir(os.path.join(folder, place)) or not place)
    rows = _read(source, f"{source} ({split})", os.path.join(folder, top), read_objects, on_problem)
    points = keypoints_of(head, source, notes)[1] if keypoints else None
    notes.warn(source)
    name_of = dict(sorted(name_of.items()))
    return rows.to_annotations(
        list(name_of.values()),
        invalid=invalid,
        labels=name_of,
        category_ids=list(name_of),
        shares=True,
        keypoints=points,
    )


def _box(values: list[float], line: int, name_of: dict[int, str], shape: Shape) -> ObjectRow:
    if len(values) != 5:
        raise ValueError(f"expected a class with 4 numbers, got {len(values)} numbers")
    none_labelled = [0.0] * (shape[0] * shape[1])
    return boxed(_known(values[0], name_of), [*values[1:], *none_labelled], line, shape)


def _pose(values: list[float], line: int, name_of: dict[int, str], shape: Shape) -> ObjectRow:
    if len(values) < 5:
        raise ValueError(f"expected a class with 4 numbers and keypoints, got {len(values)} numbers")
    return boxed(_known(values[0], name_of), values[1:], line, shape)


def _around(values: list[float], line: int, name_of: dict[int, str], masks: bool, shape: Shape) -> ObjectRow:
    if len(values) < 7 or len(values) % 2 == 0:
        raise ValueError(f"expected a class with 3 or more points, got {len(values)} numbers")
    return outlined(_known(values[0], name_of), values[1:], line, masks=masks, keypoints=shape[0])


def _known(number: float, name_of: dict[int, str]) -> int:
    if number not in name_of:
        raise ValueError(f"expected a class among {among(name_of)}, got {number:g}")
    return int(number)


def _read(
    source: str,
    name: str,
    folder: str,
    read_objects: Callable[[int, str], _Found | None],
    on_problem: OnProblem | None,
) -> Rows:
    """The images and objects of the lines of a file; `read_objects` gives what it finds in a line."""
    notes = Notes()
    images = NamedImages(folder, notes=notes)
    rows = Rows(name, where="{file}, line {place}", on_problem=on_problem)
    seen: dict[str, tuple[str, str]] = {}
    for line, text in _lines(source):
        try:
            found = read_objects(line, text)
            position = None if found is None else images.position(found.name)
        except ValueError as error:
            rows.add_problem(source, with_address(error, source, line))
            continue
        if found is None or position is None:
            continue
        stated = found.hw and StatedSize(found.hw, f"line {line} of {source}")
        image = ImageRow(images.paths[position], images.ids[position], found.objects, stated=stated)
        if not tell_repeated(seen, image.image_id, source, f"line {line}", rows.add_problem):
            rows.add_file(source, partial(_same, image))
    rows.stop()
    notes.warn(source)
    return rows


def _stated_hw(image: _Image | _Record) -> tuple[int, int] | None:
    height, width = image.height or 0, image.width or 0
    return (int(height), int(width)) if min(height, width) >= 1 else None


def _same(image: ImageRow, file: str) -> ImageRow:
    return image


def _lines(source: str) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(read_lines(source, "a file of JSON lines", MOST_OF_LIST), start=1):
        if text.strip():
            yield line, text


def _decode(text: str, form: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=form)
    except RecursionError:
        raise ValueError("expected a line of JSON, got one that is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"expected a line of JSON, got {shorten(text)}: {error}") from None
