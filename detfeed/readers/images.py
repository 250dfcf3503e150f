"""Images without annotations, as Annotations without boxes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from detfeed.annotations import Annotations
from detfeed.errors import AnnotationError
from detfeed.readers.many_files import read_files
from detfeed.readers.paths import walk_images
from detfeed.readers.problems import OnProblem, hw_if_read, tell_repeated
from detfeed.readers.rows import ImageRow, Rows

AnyPath = str | os.PathLike[str]


def read_images(source: AnyPath | Sequence[AnyPath], *, on_problem: OnProblem | None = None) -> Annotations:
    """Read images that nobody has annotated: in a folder and below it, or those of a list.

    The table has no boxes and no classes, and feeds a model like any other: `DetectionSequence(read_images(folder),
    targets=lambda sample: {}, shuffle=False)`. Sizes are read from the headers, with their EXIF orientation applied.

    Args:
        source: a folder, whose images are taken in the order of their names, and whose other files, hidden folders and
            files that macOS adds are left out; or an image; or a list of folders and images.
        on_problem: called with (path, error) for each image that can't be read; it is left out. None: the error is
            raised.

    Returns:
        The image id is the path below the folder; where a list is given, the path as it is written there.

    Raises:
        AnnotationError: there are no images; a folder can't be listed. A `RepeatedImageError`: one is named twice.
        ImageError: an image is missing or of an unknown format.
    """
    alone = isinstance(source, str | os.PathLike)
    sources = [os.fspath(source)] if alone else [os.fspath(one) for one in source]  # type: ignore[arg-type, union-attr]
    name = ", ".join(sources[:3]) + (", ..." if len(sources) > 3 else "")
    rows = Rows(name, where="{file}", on_problem=on_problem)
    seen: dict[str, tuple[str, str]] = {}
    named: list[tuple[str, str]] = []
    for place, one in enumerate(sources, start=1):
        for path in _images_of(one):
            image_id = os.path.relpath(path, one) if alone and path != one else path
            if not tell_repeated(seen, image_id, path, f"image source {place}", rows.add_problem):
                named.append((path, image_id))
    if not seen:
        raise AnnotationError(f"{name or 'read_images'}: expected images, got none")
    with read_files(hw_if_read, [(path, None) for path, _ in named]) as reads:
        for (path, image_id), read in zip(named, reads, strict=True):
            rows.add_file(path, partial(_to_image, image_id, read))
    return rows.to_annotations([], invalid="raise")


def _to_image(image_id: str, read: Callable[[], tuple[int, int] | None], path: str) -> ImageRow:
    return ImageRow(path, image_id, (), read())


def _images_of(source: str) -> list[str]:
    """The images of a folder, sorted; of anything else the thing itself, which may be an image without a suffix."""
    if not os.path.isdir(source):
        return [source]
    return sorted(walk_images(source))
