"""Paths: the paths of the images that annotation files name, which stay in their folder, and lists of folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from detfeed.errors import AnnotationError, shorten
from detfeed.images.files import is_url
from detfeed.images.headers import SUFFIXES
from detfeed.readers.notes import Notes

_SUFFIXES = tuple(SUFFIXES)
# A note about an image that is found by `Near`.
ELSEWHERE = "the image is in another folder, or its name is written in another way"
_OPENED = (*_SUFFIXES, ".xml", ".txt")
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

    def __init__(self, folder: str, suffix: str = "", notes: Notes | None = None) -> None:
        """Begin without images.

        Args:
            folder: folder of the images, or its URL.
            suffix: end of the images' file names that the file leaves out, such as ".jpg".
            notes: gets the images that are found in another place than where their names say. None: they are not
                looked for.
        """
        self.ids: list[str] = []
        self.paths: list[str] = []
        self._folder = folder
        self._suffix = suffix
        self._notes = notes
        self._near: Near | None = None
        self._of_name: dict[str, int] = {}
        self._of_path: dict[str, int] = {}

    def position(self, name: str) -> int:
        """The place in `paths` of the image with a name; a new image is added.

        Raises:
            ValueError: `path_inside` or `to_id` refuses the name.
        """
        position = self._of_name.get(name)
        if position is None:
            file, path = self._find(name and name + self._suffix)
            image_id = to_id(file).removesuffix(self._suffix)
            # An image can be named in several ways: `a.png`, `./a.png`, or by its whole path.
            position = self._of_path.setdefault(os.path.normpath(path), len(self.paths))
            self._of_name[name] = position
            if position == len(self.paths):
                self.ids.append(image_id)
                self.paths.append(path)
        return position

    def near(self, path: str) -> list[str]:
        """Names of the images that may be meant by a path where nothing is: as near, or with another suffix."""
        if self._near is None:
            return []
        stem = os.path.splitext(path)[0]
        return self._near.find(path) or [name for suffix in _SUFFIXES for name in self._near.find(stem + suffix)]

    def _find(self, file: str) -> tuple[str, str]:
        """Name and path of an image: those that the name says, or those of the one image that is nearest to it."""
        path, problem = file, None
        try:
            path = path_inside(self._folder, file)
        except ValueError as error:
            problem = error
        if self._notes is None or not file or is_url(self._folder) or (problem is None and os.path.lexists(path)):
            if problem is not None:
                raise problem
            return file, path
        if self._near is None:
            start = len(_prefix(self._folder or "."))
            self._near = Near(path[start:] for path in walk_images(self._folder or "."))
        found = self._near.find(file)
        if len(found) == 1:
            path = os.path.join(self._folder, found[0])
            self._notes.add(ELSEWHERE, f"{shorten(file)}, whose image is {path}")
            return found[0], path
        if problem is not None:
            raise problem
        return file, path


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
    """Paths of the files in a folder and below it that have an image's suffix, in no order; see `walk_files`."""
    return [path for path in _walk(folder, "a folder of images", "") if is_image(os.path.basename(path))]


def walk_files(folder: str, noun: str, hint: str = "") -> list[str]:
    """Paths, relative to a folder, of the files in it and below it, sorted.

    Links to folders are followed. Each folder is listed once, so links can't lead in circles. Hidden folders, such as
    .ipynb_checkpoints, and files that macOS adds are left out.

    Args:
        folder: the folder.
        noun: what it is expected to be.
        hint: end of the message.

    Raises:
        AnnotationError: a folder is missing or can't be listed, or a link leads nowhere.
    """
    start = len(_prefix(folder))
    return sorted(path[start:] for path in _walk(folder, noun, hint))


def _walk(folder: str, noun: str, hint: str) -> list[str]:
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
            # Sorted, so that a folder with two ways to it is always listed by the same one.
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = os.path.join(parent, name)
                # The folder that a link should lead to would be lost; images and annotations are opened later.
                if not name.lower().endswith(_OPENED) and os.path.islink(path) and not os.path.exists(path):
                    raise AnnotationError(
                        f"{path}: expected a file or folder, got a link that leads nowhere; correct or remove it"
                    )
                if not name.startswith("._"):
                    found.append(path)
    except OSError as error:
        raise AnnotationError(
            f"{error.filename or folder}: expected {noun}, got {error.strerror or error}{hint}"
        ) from error
    return found


class Near:
    """Names that are there, found by names that are nearly the same.

    Names are nearly the same if they differ in the case of letters, in their folders, or in how they are written:
    "\\" for "/", percent-encoding, composed or decomposed accents.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Look among some names: paths relative to one folder."""
        self._names: dict[str, list[str]] = {}
        for name in names:
            self._names.setdefault(_plain(name).rpartition("/")[2], []).append(name)

    def find(self, name: str) -> list[str]:
        """The names that are nearest to a name: of those with the same last part, those with most parts in common.

        Returns:
            One name if it is unambiguous; several, sorted, or none otherwise.
        """
        plain = _plain(name)
        known = self._names.get(plain.rpartition("/")[2], [])
        if len(known) < 2:
            return known
        shares = [(_parts_in_common(plain, _plain(one)), _parts_in_common(name, one)) for one in known]
        return sorted(one for one, share in zip(known, shares, strict=True) if share == max(shares))


def _plain(name: str) -> str:
    """A name without what names that are nearly the same differ in."""
    return unicodedata.normalize("NFC", unquote(name).replace("\\", "/")).casefold()


def _parts_in_common(name: str, other: str) -> int:
    """How many parts of two paths are the same, counted from the end."""
    count = 0
    for one, two in zip(reversed(name.split("/")), reversed(other.split("/")), strict=False):
        if one != two:
            break
        count += 1
    return count


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


def leads_nowhere(path: str) -> bool:
    """Whether a missing path is a link that leads nowhere, or has one among its folders."""
    while path and not os.path.lexists(path):
        path = os.path.dirname(path)
    return bool(path) and not os.path.exists(path)


def _prefix(folder: str) -> str:
    return folder if not folder or folder[-1] == os.sep else folder + os.sep
