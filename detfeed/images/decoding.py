"""Decoding: the one place where the bytes of an image file become pixels.

simplejpeg decodes JPEGs, and cv2 all other formats. Both contain libjpeg-turbo and give the same pixels for a JPEG. But
libjpeg only warns about damage, and cv2 drops the warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal, get_args

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from detfeed.errors import ImageError, expect
from detfeed.images.files import read_bytes
from detfeed.images.headers import Header, ppm_header, read_header, tiff_tags
from detfeed.images.resizing import Image
from detfeed.images.segments import SOS, bytes_of, jpeg_segments, markers_of, png_chunks

Exif = Literal["auto", "apply", "ignore"]

# More than any camera makes (the largest phones' 200 megapixels). Decoded it takes 0.8 GB, and twice that on the way.
MAX_PIXELS = 2**28
# Each scan of a JPEG is a pass over the whole picture, and takes a few bytes of the file. Progressive files have about
# 10.
MAX_SCANS = 100
# Bytes of compressed texts in a PNG. cv2 inflates them all, up to 1000 bytes from one: 2 MB took it 8 s.
MAX_TEXT = 2**14
# Pixels of a tile of a TIFF, which may be larger than the picture, and which cv2 and libtiff allocate at once.
MAX_TILE = 2**22
# Warnings of libjpeg that concern no pixel: some cameras and programs write such files. libjpeg reports its first
# warning alone, so one of these may hide a warning about damage.
_HARMLESS = ("Invalid SOS parameters", "unknown JFIF revision", "Unknown Adobe color transform")
# Tags of TIFF.
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES = 258, 262, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 322, 323, 339


class UnsupportedPixels(ValueError):
    """An image is whole, but its pixels are of a kind that is not read."""


def read_image(
    path: str | os.PathLike[str],
    *,
    exif: Exif = "auto",
    annotated_hw: tuple[int, int] | None = None,
    at_least_hw: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    bits: int = 16,
    on_unturned: Callable[[Header], None] | None = None,
) -> Image:
    """Read an image file, or a URL that fsspec can read, as uint8 (H, W, 3) RGB; see `decode_image`.

    Raises:
        ImageError: as `decode_image`; or the file can't be read, or has more than 2**31 - 1 bytes.
    """
    return decode_image(
        read_bytes(path),
        name=os.fspath(path),
        exif=exif,
        annotated_hw=annotated_hw,
        at_least_hw=at_least_hw,
        max_pixels=max_pixels,
        bits=bits,
        on_unturned=on_unturned,
    )


def decode_image(
    data: NDArray[np.uint8],
    *,
    name: str = "image",
    exif: Exif = "auto",
    annotated_hw: tuple[int, int] | None = None,
    at_least_hw: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    bits: int = 16,
    on_unturned: Callable[[Header], None] | None = None,
) -> Image:
    """Decode the content of an image file to uint8 (H, W, 3) RGB.

    The format (JPEG, PNG, WebP, BMP, GIF, TIFF, binary PPM or PGM) is found in the content. Grey becomes three equal
    channels; CMYK is taken for inverted, as Adobe writes it; 16 bits are scaled to 8; of an animation the first picture
    counts. Alpha is dropped, with two exceptions: 8-bit TIFFs have their colours multiplied by it, and GIFs show their
    background where they are clear. 16-bit TIFFs with a plane for each channel are refused.

    A file that is cut short always raises. A damaged one does if its format shows it: PNG has checksums, and in a JPEG
    damage nearly always leaves bytes over or too few (64 random bytes in a row were noticed in 95 to 99 % of trials, a
    single flipped bit, which mostly changes little, in 17 to 37 %). The other formats rarely show it.

    Args:
        data: uint8 (bytes,). Bytes after the end of the picture do no harm.
        name: name of the image in errors.
        exif: whether the picture is turned by its EXIF orientation: "apply", "ignore", or "auto", which turns it unless
            only the stored picture has the annotated size.
        annotated_hw: height and width in pixels that the picture must have. None: any.
        at_least_hw: height and width in pixels that are enough: a JPEG is decoded at the smallest of 1/2, 1/4 and 1/8
            of its size that is no smaller than this. Its sides are the full ones, divided and rounded.
        max_pixels: a larger picture is refused before it is decoded. So is a TIFF whose tags leave its size open.
        bits: of 16-bit PNGs and TIFFs, the bits that their values use, 8 to 16: 12 scales 4095 to 255, for cameras
            whose 12 bits are stored in 16. Larger values become 255.
        on_unturned: called with the header if the orientation would turn the picture by a quarter, and "auto" does not
            since the annotated size is the stored one.

    Raises:
        ImageError: the content is no image, cut short, visibly damaged (half a picture is never returned), larger than
            `max_pixels`, or not of the annotated size.
        ValueError, TypeError: another `exif`, or `bits`.
    """
    if exif not in get_args(Exif):
        raise ValueError(f"Expected exif to be one of {get_args(Exif)}. Received: {exif!r}")
    check_bits(bits)
    header = read_header(data, name=name)
    if header.height * header.width > max_pixels:
        raise ImageError(
            f"{name}: expected at most {max_pixels} pixels, got {header.height} x {header.width}; make the picture "
            "smaller or leave the image out"
        )
    turned = _is_turned(header, name, exif, annotated_hw)
    if not turned and exif == "auto" and header.orientation >= 5 and on_unturned is not None:
        on_unturned(header)
    orientation = header.orientation if turned else 1
    shown_hw = header.oriented_hw if turned else header.stored_hw
    divisor = 1
    if header.format == "jpeg" and at_least_hw is not None:
        divisor = _reduction(shown_hw, at_least_hw)
    elif header.format == "tiff":
        # cv2 turns TIFFs even with IMREAD_IGNORE_ORIENTATION, so to ignore the orientation it is undone.
        orientation = 1 if turned else {6: 8, 8: 6}.get(header.orientation, header.orientation)
    try:
        if header.format == "jpeg":
            image = _decode_jpeg(data, header.stored_hw, divisor)
        elif header.format == "tiff":
            image = _decode_tiff(data, header.stored_hw, bits)
        elif header.format == "ppm":
            image = _decode_ppm(data)
        else:
            image = _decode_other(_without_texts(data) if header.format == "png" else data, {}, bits)
        image = _TURNS[orientation](image)
        if header.format != "jpeg" and image.shape[:2] != shown_hw:
            raise ValueError(f"decoded to {image.shape[:2]}, with a header of {shown_hw}")
    except UnsupportedPixels as error:
        raise ImageError(
            f"{name}: expected pixels of 8 or 16 bits in 1 to 4 channels, got {error}; convert the picture or leave it "
            "out"
        ) from error
    except (ValueError, RuntimeError, cv2.error) as error:
        raise ImageError(
            f"{name}: expected a whole image, got {len(data)} bytes that do not decode as {header.format} "
            f"({str(error).strip()}); replace the file or leave the image out"
        ) from error
    return image


def check_bits(bits: int) -> None:
    """Raise ValueError or TypeError unless a 16-bit picture can use so many bits."""
    expect(Integral, "a whole number", bits=bits)
    if not 8 <= bits <= 16:
        raise ValueError(f"Expected bits to be from 8 to 16. Received: {bits}")


def _is_turned(header: Header, name: str, exif: Exif, annotated_hw: tuple[int, int] | None) -> bool:
    """Whether to apply the orientation.

    Raises:
        ImageError: the picture then is not of the annotated size.
    """
    stored, oriented = header.stored_hw, header.oriented_hw
    turned = exif == "apply" or (exif == "auto" and annotated_hw in (None, oriented))
    if annotated_hw is None or annotated_hw == (oriented if turned else stored):
        return turned
    got = f"{stored}"
    if header.orientation > 1:
        got += f" as stored and {oriented} turned by its EXIF orientation {header.orientation}"
    advice = "correct the annotation or the image"
    if annotated_hw in (stored, oriented):
        advice = f'exif="auto" or exif="{"ignore" if turned else "apply"}" would fit'
    raise ImageError(f"{name}: expected the annotated height and width {annotated_hw}, got {got}; {advice}")


def _reduction(image_hw: tuple[int, int], at_least_hw: tuple[int, int]) -> int:
    """The divisor of the sides: 8, 4, 2 or 1."""
    for divisor in (8, 4, 2):
        if all(_divided(side, divisor) >= enough for side, enough in zip(image_hw, at_least_hw, strict=True)):
            return divisor
    return 1


def _divided(side: int, divisor: int) -> int:
    return (2 * side + divisor) // (2 * divisor)


def _decode_jpeg(data: NDArray[np.uint8], stored_hw: tuple[int, int], divisor: int) -> Image:
    _check_scans(data)
    height, width = (-(-side // divisor) for side in stored_hw)
    try:
        image = simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except ValueError as error:
        if not any(warning in str(error) for warning in _HARMLESS):
            raise
        return _decode_other(data, {})  # refuses files that are cut short, at least; decodes at full scale
    if image.shape[:2] != (height, width):
        raise ValueError(f"decoded to {image.shape[:2]}, with a header of {stored_hw}")
    # libjpeg rounds up. A last row that lies in the picture by less than half would shift all other rows.
    height, width = (_divided(side, divisor) for side in stored_hw)
    return np.ascontiguousarray(image[:height, :width])


def _check_scans(data: NDArray[np.uint8]) -> None:
    """Refuse a JPEG of more than MAX_SCANS scans; scans of a preview inside it or of a film behind it do not count."""
    scans = 0
    for kind, _, _ in jpeg_segments(bytes_of(data), find=markers_of(data)):
        scans += kind == SOS
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")


def _without_texts(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A PNG without its compressed texts if they are long, else the PNG itself.

    Raises:
        ValueError: a chunk is longer than the file: cv2 would allocate its length first, up to 4 GB.
    """
    texts: list[tuple[int, int]] = []
    for kind, at, length in png_chunks(bytes_of(data)):
        end = at + length + 4
        if end > len(data):
            break
        if kind in (b"zTXt", b"iTXt"):
            texts.append((at - 8, end))
        if kind == b"IEND":
            if sum(end - start for start, end in texts) <= MAX_TEXT:
                return data
            kept = np.ones(len(data), bool)
            for start, end in texts:
                kept[start:end] = False
            return data[kept]
    raise ValueError("cut short")


def _decode_tiff(data: NDArray[np.uint8], stored_hw: tuple[int, int], bits: int) -> Image:
    tags = tiff_tags(data)
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
    if tile > max(MAX_TILE, stored_hw[0] * stored_hw[1]):
        raise ValueError(f"tiles of {tile} pixels in a picture of {stored_hw[0]} x {stored_hw[1]}")
    return _decode_other(data, tags, bits)


def _decode_ppm(data: NDArray[np.uint8]) -> Image:
    # Not by cv2, which scales by 255 or 65535 whatever the largest value.
    height, width, channels, largest, start = ppm_header(bytes_of(data))
    size = height * width * channels * (1 if largest < 256 else 2)
    if len(data) < start + size:
        raise ValueError("cut short")
    values = data[start : start + size].view(np.uint8 if largest < 256 else ">u2")
    if largest != 255:
        values = np.minimum(values * (255 / largest) + 0.5, 255).astype(np.uint8)
    image = values.reshape(height, width, channels)
    return np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)))


def _decode_other(data: NDArray[np.uint8], tags: dict[int, int], bits: int = 16) -> Image:
    if tags.get(_SAMPLE_FORMAT) == 3:
        raise UnsupportedPixels(f"float{tags.get(_BITS, 32)} pixels")
    # Not as RGB at once, which leaves 16-bit TIFFs in BGR (cv2 4.14). Nor as 8 bits, which drops the lower half of 16.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        if tags.get(_SAMPLES, 1) > 4:
            raise UnsupportedPixels(f"{tags[_SAMPLES]} channels")
        as_stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if tags else None
        if as_stored is not None and as_stored.dtype not in (np.uint8, np.uint16):
            raise UnsupportedPixels(f"{as_stored.dtype} pixels")
        raise ValueError("cv2 refuses it")
    if image.dtype == np.uint16:
        # cv2 4.14 leaves parts of pictures in planes uninitialised, and ignores that 0 may mean white.
        if tags.get(_PLANES) == 2 and tags.get(_SAMPLES, 1) > 1:
            raise UnsupportedPixels("16 bits with a plane for each channel")
        if tags.get(_PHOTOMETRIC) == 0:
            image = cv2.bitwise_not(image)
        image = cv2.convertScaleAbs(image, alpha=255 / (2**bits - 1))
    if image.dtype != np.uint8:
        raise UnsupportedPixels(f"{image.dtype} pixels")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def used_bits(data: NDArray[np.uint8]) -> int | None:
    """The bits that the largest value of a 16-bit picture, uint8 (bytes,), takes; None for another picture."""
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return None if image is None or image.dtype != np.uint16 else int(image.max()).bit_length()


# By EXIF orientation: from the stored picture to the upright one.
_TURNS: dict[int, Callable[[Image], Any]] = {
    1: lambda image: image,
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: lambda image: cv2.transpose(image),
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
