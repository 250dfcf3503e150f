"""Small image files of every kind, made in memory."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def picture(height=24, width=40):
    """Smooth, so that lossy formats keep it: red grows to the right, green downwards, blue with neither."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(255, 0, height)[:, None], (1, width))
    return np.stack([red, green, np.full((height, width), 90.0)], axis=2).round().astype(np.uint8)


def noise(seed, height=60, width=80):
    """Different for each seed, and smooth, so that it can be known again however it is stored."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(pixels, format, mode=None, orientation=None, **options):
    """Pixels as the bytes of a file, written by Pillow after a change of mode, with an EXIF orientation."""
    image = Image.fromarray(pixels)
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    out = io.BytesIO()
    (image.convert(mode, palette=Image.Palette.ADAPTIVE) if mode else image).save(out, format, **options)
    return out.getvalue()


def png(width, height, rows, *, kind=2, bits=8, before=b"", after=b""):
    """A PNG put together by hand: `rows` are its filtered rows; chunks may be added before and after the picture."""
    start = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + start
        + before
        + png_chunk(b"IDAT", zlib.compress(rows))
        + after
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _files():
    pixels = picture()
    rgba = np.dstack([pixels, np.tile(np.arange(40, dtype=np.uint8) * 6, (24, 1))])
    deep = pixels.astype(np.uint16) * 257
    first, second = Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())
    animation = io.BytesIO()
    first.save(animation, "WEBP", save_all=True, append_images=[second], lossless=True)
    return {
        "jpeg": encode(pixels, "JPEG", quality=95),
        "jpeg progressive": encode(pixels, "JPEG", quality=95, progressive=True),
        "jpeg restarts": encode(pixels, "JPEG", quality=95, restart_marker_blocks=1),
        "jpeg turned": encode(pixels, "JPEG", quality=95, orientation=6),
        "jpeg cmyk": encode(pixels, "JPEG", "CMYK", quality=95),
        "png": encode(pixels, "PNG"),
        "png alpha": encode(rgba, "PNG"),
        "png palette": encode(pixels, "PNG", "P"),
        "png turned": encode(pixels, "PNG", orientation=6),
        "png 16 bit": cv2.imencode(".png", deep[..., ::-1])[1].tobytes(),
        "webp": encode(pixels, "WEBP", quality=95),
        "webp lossless": encode(pixels, "WEBP", lossless=True),
        "webp alpha": encode(rgba, "WEBP", lossless=True, exact=True),
        "webp turned": encode(pixels, "WEBP", lossless=True, orientation=6),
        "webp animation": animation.getvalue(),
        "bmp": encode(pixels, "BMP"),
        "bmp from the top": _bmp_from_the_top(pixels),
        "gif": encode(pixels, "GIF", "P"),
        "tiff": encode(pixels, "TIFF"),
        "tiff lzw": encode(pixels, "TIFF", compression="tiff_lzw"),
        "tiff 16 bit": cv2.imencode(".tiff", deep[..., ::-1])[1].tobytes(),
        "ppm": encode(pixels, "PPM"),
        "tiff turned": encode(pixels, "TIFF", tiffinfo={0x0112: 6}),
    }


def _bmp_from_the_top(pixels):
    """With a negative height its rows come in the order in which they are seen."""
    content = bytearray(encode(pixels[::-1].copy(), "BMP"))
    content[22:26] = struct.pack("<i", -len(pixels))
    return bytes(content)


FILES = _files()
