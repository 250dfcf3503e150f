"""Orientations: whether an annotation tells which picture its boxes lie on, the stored one or the one EXIF turns."""

from __future__ import annotations

from typing import Literal

import numpy as np

from detfeed.boxes import Boxes
from detfeed.images.headers import Header
from detfeed.readers.bad_boxes import TOLERANCE

Orientation = Literal["known", "ambiguous", "unclear"]


def orientation_of(header: Header, annotated_hw: tuple[int, ...], boxes: Boxes) -> Orientation:
    """What an annotation tells about an image that EXIF turns or mirrors, and whose annotated size fits.

    Args:
        header: of the image, with an orientation above 1.
        annotated_hw: height and width in pixels, those of the stored or of the turned picture.
        boxes: float32 (N, 4), xyxy pixels, inside of the annotated size.

    Returns:
        "ambiguous" if both pictures have the same size, which exif="auto" takes for the turned one; "unclear" if the
        size is that of the stored picture, which "auto" goes by, but all boxes fit the turned one, too: tools such as
        Label Studio write the stored size with boxes on the turned picture; else "known".
    """
    stored, turned = header.stored_hw, header.oriented_hw
    if stored == turned:
        return "ambiguous"
    fit_both = bool((boxes[:, 2:] <= np.array(turned[::-1]) + TOLERANCE).all())
    return "unclear" if annotated_hw == stored and len(boxes) and fit_both else "known"
