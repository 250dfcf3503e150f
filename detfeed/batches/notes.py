"""Notes: what is told of a batch beside its arrays."""

from __future__ import annotations

from typing import NamedTuple

from detfeed.batches.ledger import Replacement


class UnclearOrientation(NamedTuple):
    """An image that is fed as stored, though EXIF turns it and its boxes would fit the turned picture, too."""

    path: str
    image_id: int | str
    orientation: int

    @property
    def sentence(self) -> str:
        """For a warning."""
        return (
            f"{self.path} (image_id {self.image_id}) is fed as stored, since its annotated size is that of the stored "
            f"picture. But EXIF orientation {self.orientation} turns it, and its boxes fit both ways. If they were "
            'drawn on the turned picture, read COCO with exif="apply". If not, the sequence\'s exif="ignore" feeds all '
            "images as stored. `detfeed check` lists such images"
        )


Note = Replacement | UnclearOrientation
