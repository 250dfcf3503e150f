"""Paths: the paths of the images that annotation files name, which stay in their folder, and lists of folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from detfeed.errors import AnnotationError, shorten
from detfeed.images.headers import SUFFIXES

_SUFFIXES = tuple(SUFFIXES)
# Characters of an image id that is a name. Each id takes as much memory as the longest one.
MAX_ID = 255

# Names with one of these are looked at closely. Few have one, and COCO has 118,000 names.
_ODD = re.compile(r"\.\.|[:\\\0]|^/", re.MULTILINE)


def path_inside(folder: str, name: str) -> str:
    """The path of an image in a folder.

    Links in the folder may lead anywhere: its owner made them.

    Args:
        folder: folder of the images, or its URL. A scheme such as `https://` is the folder of all its URLs.
        name: the name that a file gives the image.

    Raises:
        ValueError: the name is empty, leads out of the folder by "..", or is an absolute path or URL outside it.
    """
    if name and not _ODD.search(name):
        return f"{_prefix(folder)}{name}"
    if not name or "\0" in name:
        raise ValueError(f"expected the name of an image file, got {shorten(name)}")
    if ".." in name.replace("\\", "/").split("/"):
        raise ValueError(
            f'expected a path inside the image folder {folder or "."}, got {shorten(name)}; remove its ".."'
        )
    url = "://" in name
    if url or os.path.isabs(name) or name[0] == "\\" or name[1:3] in (":\\", ":/"):
        top = os.path.join(folder if url else os.path.abspath(folder), "")
        rest = name.removeprefix(top).lstrip("/")  # or joined, it would be absolute again
        if not (top and rest and name.startswith(top)) or "://" in rest:
            raise ValueError(
                f"expected a path inside the image folder {folder or '.'}, got the {'URL' if url else 'absolute path'} "
                f"{shorten(name)}; give the folder that it starts with as image folder"
            )
        name = rest
    return os.path.join(folder, name)


def paths_inside(folder: str, names: Sequence[str]) -> list[str]:
    """As `path_inside`, for many names at once."""
    if all(names) and not _ODD.search("\n".join(names)):
        prefix = _prefix(folder)
        return [prefix + name for name in names]
    return [path_inside(folder, name) for name in names]


def to_id(name: str) -> str:
    """The image id of a name: `a//b.png` and `./a/b.png` have the id `a/b.png`.

    Raises:
        ValueError: it has more than `MAX_ID` characters.
    """
    image_id = os.path.normpath(name)
    if len(image_id) > MAX_ID:
        raise ValueError(f"expected a name of at most {MAX_ID} characters, got {len(image_id)}: {shorten(image_id)}")
    return image_id


class NamedImages:
    """The images that the lines of a file name, each once, in the order in which they are named first.

    Attributes:
        ids: ids of the images; see `to_id`.
        paths: paths of the images.
    """

    def __init__(self, folder: str, suffix: str = "") -> None:
        """Begin without images.

        Args:
            folder: folder of the images, or its URL.
            suffix: end of the images' file names that the file leaves out, such as ".jpg".
        """
        self.ids: list[str] = []
        self.paths: list[str] = []
        self._folder = folder
        self._suffix = suffix
        self._of_name: dict[str, int] = {}
        self._of_path: dict[str, int] = {}

    def position(self, name: str) -> int:
        """The place in `paths` of the image with a name; a new image is added.

        Raises:
            ValueError: `path_inside` or `to_id` refuses the name.
        """
        position = self._of_name.get(name)
        if position is None:
            file = name and name + self._suffix
            path = path_inside(self._folder, file)
            image_id = to_id(file).removesuffix(self._suffix)
            # An image can be named in several ways: `a.png`, `./a.png`, or by its whole path.
            position = self._of_path.setdefault(os.path.normpath(path), len(self.paths))
            self._of_name[name] = position
            if position == len(self.paths):
                self.ids.append(image_id)
                self.paths.append(path)
        return position


def list_folder(folder: str | os.PathLike[str], noun: str, hint: str = "") -> list[str]:
    """Names of the files and folders in a folder, sorted.

    Files that macOS adds, such as `._a.png` beside a.png, are left out: they hold no picture.

    Args:
        folder: the folder.
        noun: what it is expected to be.
        hint: end of the message.

    Raises:
        AnnotationError: it is missing, no folder, or can't be listed.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("._"))
    except OSError as error:
        raise AnnotationError(f"{os.fspath(folder)}: expected {noun}, got {error.strerror or error}{hint}") from error


def walk_images(folder: str) -> list[str]:
    """Paths of the files in a folder and below it that have an image's suffix, in no order.

    Links to folders are followed. Each folder is listed once, so links can't lead in circles.

    Raises:
        AnnotationError: a folder can't be listed, or a link leads nowhere.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def stop(error: OSError) -> None:
        raise error

    try:
        for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()  # so that a folder with two ways to it is always listed by the same one
            for name in names:
                path = os.path.join(parent, name)
                if is_image(name):
                    found.append(path)
                elif os.path.islink(path) and not os.path.exists(path):
                    raise AnnotationError(
                        f"{path}: expected a file or folder, got a link that leads nowhere; correct or remove it"
                    )
    except OSError as error:
        raise AnnotationError(
            f"{error.filename or folder}: expected a folder of images, got {error.strerror or error}"
        ) from error
    return found


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


def images_by_stem(names: Sequence[str]) -> dict[str, list[str]]:
    """The images among the names in a folder, by name without suffix."""
    images: dict[str, list[str]] = {}
    for name in names:
        if is_image(name):
            images.setdefault(os.path.splitext(name)[0], []).append(name)
    return images


def image_of(file: str, stem: str, images: Mapping[str, list[str]], folder: str) -> str | None:
    """Name of the image that has an annotation file's name; None if there is none.

    Args:
        file: the annotation file, for the message.
        stem: its name without suffix.
        images: from `images_by_stem`.
        folder: folder of the images, for the message.

    Raises:
        AnnotationError: there are several.
    """
    names = images.get(stem, [])
    if len(names) > 1:
        raise AnnotationError(
            f"{file}: expected one image {stem!r}.* in {folder}, got {' and '.join(map(shorten, names))}; remove or "
            "rename all but one"
        )
    return names[0] if names else None


def leads_nowhere(path: str) -> bool:
    """Whether a missing path is a link that leads nowhere, or has one among its folders."""
    while path and not os.path.lexists(path):
        path = os.path.dirname(path)
    return bool(path) and not os.path.exists(path)


def _prefix(folder: str) -> str:
    return folder if not folder or folder[-1] == os.sep else folder + os.sep
