"""YOLO objects: the numbers of a line of YOLO's label files, or of a list in Ultralytics' NDJSON, as objects."""

from __future__ import annotations

from collections.abc import Sequence

from detfeed.readers.rows import ObjectRow

# A share of a side that no label has, however bad: such numbers are pixels, or per cent.
LARGEST_SHARE = 2.0

Shape = tuple[int, int]  # how many keypoints, and how many numbers each has: x, y and perhaps visibility


def boxed(label: int, numbers: Sequence[float], place: int, shape: Shape = (0, 0)) -> ObjectRow:
    """An object of its box, centre and sizes, and of keypoints after it; all numbers are shares of the image's sides.

    Args:
        label: its class.
        numbers: four of the box, and those of the keypoints.
        place: of the object in its file.
        shape: of the keypoints; (0, 0) leaves out those there are.

    Raises:
        ValueError: there is another number of numbers, or those of the box or of a visible keypoint are no shares.
    """
    x, y, w, h = box = numbers[:4]
    check_shares(box)
    count, size = shape
    if count and len(numbers) != 4 + count * size:
        raise ValueError(
            f"expected {count} keypoints of {size} numbers after the box, got {max(len(numbers) - 4, 0)} numbers"
        )
    points: list[float] = []
    for at in range(4, 4 + count * size, size or 1):
        across, down = numbers[at : at + 2]
        seen = numbers[at + 2] if size == 3 else 2.0 * (across > 0 and down > 0)
        if seen > 0:  # in pixels, all would lie outside of the image, and so not be visible
            check_shares((across, down))
        points += [across, down, seen]
    return ObjectRow(label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), place, keypoints=points)


def outlined(label: int, numbers: Sequence[float], place: int, *, masks: bool, keypoints: int = 0) -> ObjectRow:
    """An object of the x and y of three or more points around it, and of the box around these.

    Args:
        label, place: as for `boxed`.
        numbers: of the points, shares of the image's sides.
        masks: keep the polygon.
        keypoints: how many keypoints objects have; it has none that is labelled.

    Raises:
        ValueError: a number is no share.
    """
    check_shares(numbers)
    x, y = numbers[::2], numbers[1::2]
    box = (min(x), min(y), max(x), max(y))
    return ObjectRow(label, box, place, polygon=numbers if masks else (), keypoints=[0.0] * (3 * keypoints))


def check_shares(numbers: Sequence[float]) -> None:
    """Raise a ValueError if one of the numbers is no share of a side, however bad a label."""
    largest = max(numbers, key=abs)
    if abs(largest) > LARGEST_SHARE:
        raise ValueError(
            f"expected shares of the image's width and height, from 0 to 1, got {largest:g}, as if in pixels; "
            "divide x and widths by the image's width, y and heights by its height"
        )
