"""Pictures of rectangles that are found again whatever a transform does to the pixels."""

import numpy as np

# Three rectangles, each alone in one colour channel, so that it is found again whatever is done to the pixels.
RECTANGLES = np.float32(
    [
        [[2, 2, 30, 30], [40, 4, 80, 20], [100, 0, 160, 25]],
        [[0, 40, 20, 110], [30, 45, 36, 50], [60, 40, 110, 90]],
        [[120, 60, 125, 100], [130, 95, 160, 120], [40, 100, 48, 106]],
    ]
)


def picture(rectangles):
    pixels = np.zeros((120, 160, 3), np.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(rectangles.astype(int)):
        pixels[y0:y1, x0:x1, channel] = 255
    return pixels


def found(pixels, channel):
    """Where a rectangle is seen, as a box; None if nowhere."""
    rows, columns = np.nonzero(pixels[:, :, channel] > 127)
    return None if len(rows) == 0 else np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
