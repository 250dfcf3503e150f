"""Paths: where a name out of an annotation file leads, which must be into its image folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

# What a name needs to be looked at for; few have it, and COCO has 118,000 names.
_ODD = re.compile(r"\.\.|[:\\\0]|^/", re.MULTILINE)


def path_inside(folder: str, name: str) -> str:
    """The path of an image, of its folder and the name that a file gives it.

    Links are not looked at: those in the folder are its owner's doing.

    Raises:
        ValueError: the name is empty, leads out of the folder by "..", or is absolute and not below it.
    """
    if name and not _ODD.search(name):
        return f"{_prefix(folder)}{name}"
    if not name or "\0" in name:
        raise ValueError(f"expected the name of an image file, got {shorten(name)}")
    if ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f'expected a path inside the image folder {folder}, got {shorten(name)}; remove its ".."')
    if os.path.isabs(name) or name[0] == "\\" or name[1:3] in (":\\", ":/"):
        top = os.path.join(os.path.abspath(folder), "")
        if not name.startswith(top):
            raise ValueError(
                f"expected a path inside the image folder {folder}, got the absolute path {shorten(name)}; give the "
                "folder that it starts with as image folder"
            )
        name = name[len(top) :]
    return os.path.join(folder, name)


def paths_inside(folder: str, names: Sequence[str]) -> list[str]:
    """The paths of images as `path_inside` gives them, of many names at once."""
    if all(names) and not _ODD.search("\n".join(names)):
        prefix = _prefix(folder)
        return [prefix + name for name in names]
    return [path_inside(folder, name) for name in names]


def _prefix(folder: str) -> str:
    return folder if not folder or folder[-1] == os.sep else folder + os.sep


def shorten(text: str) -> str:
    """Text in quotes for a message, its middle left out if it is long."""
    return repr(text) if len(text) <= 80 else repr(f"{text[:40]}...{text[-37:]}")
