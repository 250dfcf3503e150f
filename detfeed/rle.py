"""RLE: COCO's run-length encoded masks. Runs alternate between outside and inside, column by column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.int32]


def parse_runs(counts: str | list[int]) -> Runs:
    """Run lengths from a file: as they are, or from COCO's compressed string.

    Returns:
        int32 (K,), the first of pixels outside.

    Raises:
        ValueError: the string breaks off or holds other characters, or a length is negative.

    Source: rleFrString of pycocotools' maskApi.c: base 32 with a continuation bit, from the third on as differences.
    """
    runs: list[int] = []
    if isinstance(counts, str):
        value = shift = 0
        for character in counts:
            bits = ord(character) - 48
            if not 0 <= bits < 64:
                raise ValueError(f"expected characters from '0' to 'o', got {character!r}")
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                if bits & 16:
                    value -= 1 << shift
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
        if shift:
            raise ValueError("expected a whole string, got one that breaks off")
    else:
        runs = counts
    if runs and (min(runs) < 0 or max(runs) >= 2**31):
        raise ValueError(f"expected run lengths from 0 to 2147483647, got {min(runs)} to {max(runs)}")
    return np.array(runs, np.int32)


def fill_mask(runs: Runs, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask that runs describe, uint8 (H, W), 0 outside and 255 inside; runs must add up to H times W."""
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, runs).reshape(image_hw[::-1]).T)
