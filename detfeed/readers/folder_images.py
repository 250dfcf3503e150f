"""Folder images: the images in a folder, to which annotation files belong by their names."""

from __future__ import annotations

import os
from collections.abc import Collection

from detfeed.errors import AnnotationError, MissingImageError, shorten
from detfeed.readers.notes import Notes
from detfeed.readers.paths import ELSEWHERE, Near, is_image, walk_files

# Begins the note about such images.
LEFT_OVER = "images without "


class Images:
    """The images in a folder and below it."""

    def __init__(self, folder: str, stems: Collection[str], notes: Notes) -> None:
        """List a folder.

        Args:
            folder: the folder.
            stems: of all annotation files: their paths below their folder, without suffixes.
            notes: gets what is found in another place than where it should be.

        Raises:
            AnnotationError: it is missing or can't be listed.
        """
        self.folder = folder
        self._notes = notes
        self._others: dict[str, str] = {}  # files that are no images, by path without suffix
        self._of_stem: dict[str, list[str]] = {}
        for path in walk_files(folder, "a folder of images", "; see `image_dir`"):
            stem = os.path.splitext(path)[0]
            if is_image(os.path.basename(path)):
                self._of_stem.setdefault(stem, []).append(path)
            elif os.path.splitext(path)[1].lower() not in (".xml", ".txt", ".json"):
                self._others[stem] = path
        self._paths = {path for paths in self._of_stem.values() for path in paths}
        self._near, self._near_stems = Near(self._paths), Near(self._of_stem)
        self._claims = Near(stems)
        self._taken: set[str] = set()

    def of(self, file: str, stem: str, named: str = "") -> str:
        """Path, relative to the folder, of the image that an annotation file belongs to.

        Args:
            file: the annotation file, for messages.
            stem: its path below the folder of annotation files, without its suffix.
            named: the image that it names; may be empty.

        Raises:
            AnnotationError: there are several such images. A `MissingImageError` if there is none.
        """
        found = self._by_name(file, stem, named) or self._nearly(file, stem, named)
        self._taken.add(found)
        return found

    def leave_out(self, stem: str) -> None:
        """Leave out the images of an annotation file that can't be read, which is told elsewhere."""
        self._taken.update(self._of_stem.get(stem, []))

    def note_left_over(self, noun: str) -> None:
        """Note each image that no annotation file was found to belong to."""
        for path in sorted(self._paths - self._taken):
            self._notes.add(f"{LEFT_OVER}{noun} are left out", os.path.join(self.folder, path))

    def _by_name(self, file: str, stem: str, named: str) -> str | None:
        beside = os.path.join(os.path.dirname(stem), named)
        name = next((name for name in (beside, named) if name in self._paths), None)
        own = self._of_stem.get(stem, [])
        if name is not None and own and name not in own:
            raise AnnotationError(
                f"{file}: expected one image, got {shorten(named)} by its `filename` and {own[0]!r} by its own name, "
                f"which are both in {self.folder}; correct or remove `filename`, or rename the file"
            )
        if name is None and len(own) > 1:
            raise AnnotationError(
                f"{file}: expected one image {stem!r}.* in {self.folder}, got {' and '.join(map(shorten, own))}; "
                "remove or rename all but one"
            )
        return name or (own[0] if own else None)

    def _nearly(self, file: str, stem: str, named: str) -> str:
        """As `of`, where the image is in another folder or its name is written in another way."""
        found = [path for path in self._near.find(named) if self._may_be(os.path.splitext(path)[0], stem)]
        if len(found) != 1:
            near = [other for other in self._near_stems.find(stem) if self._may_be(other, stem)]
            found = [path for other in near for path in self._of_stem[other]] or found
        if len(found) == 1:
            self._notes.add(
                ELSEWHERE,
                f"{file}, whose image is {os.path.join(self.folder, found[0])}",
            )
            return found[0]
        got = " and ".join(map(shorten, found)) or "none"
        if not found and stem in self._others:
            got = f"{shorten(self._others[stem])}, whose format is not supported"
        expected = f"{shorten(named)} or {stem!r}.*" if named else f"{stem}.*"
        raise MissingImageError(f"{file}: expected an image {expected} in {self.folder}, got {got}")

    def _may_be(self, image: str, stem: str) -> bool:
        """Whether no other annotation file's name is as near to an image's, which may be that file's then."""
        return self._claims.find(image) in ([], [stem])
