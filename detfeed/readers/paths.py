"""Paths: where a name out of an annotation file leads, which must be into its image folder, and what folders hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from detfeed.errors import AnnotationError, shorten
from detfeed.images.headers import SUFFIXES

_SUFFIXES = tuple(SUFFIXES)
# Characters of an image id that is a name; the ids of a set make a column as wide as the longest.
MAX_ID = 255

# What a name needs to be looked at for; few have it, and COCO has 118,000 names.
_ODD = re.compile(r"\.\.|[:\\\0]|^/", re.MULTILINE)


def path_inside(folder: str, name: str) -> str:
    """The path of an image, of its folder and the name that a file gives it.

    Links are not looked at: those in the folder are its owner's doing. The folder may be a URL, and a scheme such as
    `https://` is one that holds all of its kind.

    Raises:
        ValueError: the name is empty, leads out of the folder by "..", or is absolute or a URL and not below it.
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
    """The paths of images as `path_inside` gives them, of many names at once."""
    if all(names) and not _ODD.search("\n".join(names)):
        prefix = _prefix(folder)
        return [prefix + name for name in names]
    return [path_inside(folder, name) for name in names]


def to_id(name: str) -> str:
    """The image id that a name makes: `a//b.png` and `./a/b.png` are the image `a/b.png`.

    Raises:
        ValueError: it has more than `MAX_ID` characters.
    """
    image_id = os.path.normpath(name)
    if len(image_id) > MAX_ID:
        raise ValueError(f"expected a name of at most {MAX_ID} characters, got {len(image_id)}: {shorten(image_id)}")
    return image_id


class NamedImages:
    """Images that rows of a file name, each once, in the order in which they are named first.

    Attributes:
        ids: of the images, as `to_id`.
        paths: of the images.
    """

    def __init__(self, folder: str, suffix: str = "") -> None:
        """Args: the folder that names start from, and what their files' names have besides."""
        self.ids: list[str] = []
        self.paths: list[str] = []
        self._folder = folder
        self._suffix = suffix
        self._of_name: dict[str, int] = {}
        self._of_path: dict[str, int] = {}

    def position(self, name: str) -> int:
        """Row of the image that a name means.

        Raises:
            ValueError: the name is one that `path_inside` or `to_id` refuses.
        """
        position = self._of_name.get(name)
        if position is None:
            file = name and name + self._suffix
            path = path_inside(self._folder, file)
            image_id = to_id(file).removesuffix(self._suffix)
            # A name can be written in several ways: `a.png`, `./a.png`, and with the folder before it.
            position = self._of_path.setdefault(os.path.normpath(path), len(self.paths))
            self._of_name[name] = position
            if position == len(self.paths):
                self.ids.append(image_id)
                self.paths.append(path)
        return position


def list_folder(folder: str | os.PathLike[str], noun: str, hint: str = "") -> list[str]:
    """Names of the files and folders in a folder, sorted, but for those of macOS's archives.

    Such as `._a.png` beside a.png, which holds no picture.

    Args:
        folder: the folder.
        noun: what it is expected to be.
        hint: end of the message.

    Raises:
        AnnotationError: it is missing, no folder, or can't be listed, which is not to look like an empty one.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("._"))
    except OSError as error:
        raise AnnotationError(f"{os.fspath(folder)}: expected {noun}, got {error.strerror or error}{hint}") from error


def walk_images(folder: str) -> list[str]:
    """Paths of the image files in a folder and those below it, told by their suffixes, in no order.

    Links to folders are followed, and each folder is looked at once, so that they can't lead in circles.

    Raises:
        AnnotationError: a folder can't be listed, or a link that may be to one leads nowhere.
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
            folders.sort()  # so that of two ways to a folder it is always the same
            for name in names:
                path = os.path.join(parent, name)
                if is_image(name):
                    found.append(path)
                elif os.path.islink(path) and not os.path.exists(path):
                    raise AnnotationError(
                        f"{path}: expected a file or folder, got a link that leads nowhere; mend or remove it"
                    )
    except OSError as error:
        raise AnnotationError(
            f"{error.filename or folder}: expected a folder of images, got {error.strerror or error}"
        ) from error
    return found


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


def images_by_stem(names: Sequence[str]) -> dict[str, list[str]]:
    """The images among the names in a folder, by their names without suffix."""
    images: dict[str, list[str]] = {}
    for name in names:
        if is_image(name):
            images.setdefault(os.path.splitext(name)[0], []).append(name)
    return images


def image_of(file: str, stem: str, images: Mapping[str, list[str]], folder: str) -> str | None:
    """The image that an annotation file belongs to by its name; None if there is none.

    Args:
        file: the annotation file, for the message.
        stem: its name without suffix.
        images: of `images_by_stem`.
        folder: where they are, for the message.

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
    """Whether there is a link at a path that is missing, or on the way there, which leads nowhere."""
    while path and not os.path.lexists(path):
        path = os.path.dirname(path)
    return bool(path) and not os.path.exists(path)


def _prefix(folder: str) -> str:
    return folder if not folder or folder[-1] == os.sep else folder + os.sep
