"""Small files that decode to something large: each is refused, or decoded to its stated size, in little memory."""

import os
import pickle
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from detfeed.errors import ImageError
from detfeed.images.decoding import MAX_TEXT, decode_image
from image_files import FILES, picture, png, png_chunk

LARGE = 30_000  # 0.9 gigapixels, below the limit of cv2's own
ROWS = (b"\0" + bytes(30)) * 10
BLACK = zlib.compress(bytes(LARGE * 10_000), 9)  # a third of the large picture, so that memory is really taken
IHDR_LARGE = png_chunk(b"IHDR", struct.pack(">IIBBBBB", LARGE, LARGE, 8, 2, 0, 0, 0))
SMALL_WEBP, LARGE_WEBP = (
    cv2.imencode(".webp", np.zeros((side, side, 3), np.uint8))[1].tobytes() for side in (10, 6000)
)
SMALL_JPEG = cv2.imencode(".jpg", np.zeros((10, 10, 3), np.uint8))[1].tobytes()


def tiff(*entries, data=BLACK):
    """A TIFF of one directory of entries (tag, kind, count, value); a value of None is the place of the data."""
    place = 8 + 2 + 12 * len(entries) + 4
    out = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        value = place if value is None else value
        out += struct.pack("<HHI", tag, kind, count)
        out += struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
    return out + bytes(4) + data


def side(number, *, kind=4, count=1):
    return [(256, kind, count, number), (257, kind, count, number)]


STRIP = [(258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, None), (277, 3, 1, 1), (278, 4, 1, LARGE),
         (279, 4, 1, len(BLACK))]  # fmt: skip
TILED = [*side(10), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]


def tiles(length, *, kind=4):
    return [*TILED, (322, kind, 1, length), (323, kind, 1, length), (324, 4, 1, None), (325, 4, 1, len(BLACK))]


def frame_control(width, height):
    return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0))


def bmp(header):
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + 320, 0, 0, 14 + len(header)) + header + bytes(320)


def windows_bmp(width, height):
    return bmp(struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0))


def gif(width, height, *, left=0):
    return (
        b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
        + b"," + struct.pack("<HHHHB", left, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
    )  # fmt: skip


def three(number):
    return struct.pack("<I", number)[:3]


def webp(side, flags, *chunks):
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, flags) + 2 * three(side - 1) + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated_webp(side, frame):
    content = bytes(6) + 2 * three(side - 1) + three(100) + b"\0" + frame
    return webp(10, 2, b"ANIM" + struct.pack("<IIH", 6, 0, 0), b"ANMF" + struct.pack("<I", len(content)) + content)


def two_sizes(first, second):
    """A JPEG with two frame headers, of that side each."""
    at = SMALL_JPEG.index(b"\xff\xc0")
    end = at + 2 + int.from_bytes(SMALL_JPEG[at + 2 : at + 4], "big")
    start = SMALL_JPEG[at:end]
    headers = [start[:5] + struct.pack(">HH", number, number) + start[9:] for number in (first, second)]
    return SMALL_JPEG[:at] + b"".join(headers) + SMALL_JPEG[end:]


HOSTILE = {
    "tiff, size twice, the large one first": tiff(*side(LARGE), *side(10), *STRIP),
    "tiff, size twice, the large one last": tiff(*side(10), *side(LARGE), *STRIP),
    "tiff, size twice, by turns": tiff(*sum(zip(side(LARGE), side(10), strict=True), ()), *STRIP),
    "tiff, size twice, the large one at the end": tiff(*side(10), *STRIP, *side(LARGE)),
    "tiff, signed size and another": tiff(*sum(zip(side(LARGE, kind=9), side(10), strict=True), ()), *STRIP),
    "tiff, size of two numbers and another": tiff(*side(LARGE, count=2), *side(10), *STRIP),
    "tiff, size of 64 bits and another": tiff(*side(LARGE, kind=16), *side(10), *STRIP),
    "tiff, signed size": tiff(*side(LARGE, kind=9), *STRIP),
    "tiff, rows of a strip twice": tiff(*side(10), *STRIP, (278, 4, 1, 10)),
    "tiff, huge tiles": tiff(*tiles(16_000)),
    "tiff, huge signed tiles": tiff(*tiles(16_000, kind=9)),
    "tiff, huge tiles and small ones": tiff(*tiles(16_000), (322, 4, 1, 16), (323, 4, 1, 16)),
    "tiff, a preview in a directory of its own": tiff(*side(10), *STRIP, (330, 4, 1, 400)),
    "png, two headers": png(10, 10, ROWS, before=IHDR_LARGE),
    "png, a header behind the picture": png(10, 10, ROWS, after=IHDR_LARGE),
    "png, a frame larger than the picture": png(
        10, 10, ROWS, before=png_chunk(b"acTL", struct.pack(">II", 1, 0)) + frame_control(LARGE, LARGE)
    ),
    "png, billions of frames": png(
        10, 10, ROWS, before=png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + frame_control(10, 10)
    ),
    "bmp from the top": windows_bmp(LARGE, -LARGE),
    "bmp, negative width": windows_bmp(-LARGE, LARGE),
    "bmp, lowest height": windows_bmp(1, -(2**31)),
    "bmp of OS/2": bmp(struct.pack("<IHHHH", 12, LARGE, LARGE, 1, 24)),
    "bmp of OS/2 with 16 bytes": bmp(struct.pack("<IiiHH", 16, LARGE, LARGE, 1, 24)),
    "gif, a frame larger than the screen": gif(LARGE, LARGE),
    "gif, a frame beside the screen": gif(10, 10, left=LARGE),
    "webp, a canvas smaller than its frame": webp(10, 0, LARGE_WEBP[12:]),
    "webp, a canvas larger than its frame": webp(16_000, 0, SMALL_WEBP[12:]),
    "webp, an animation with a larger frame": animated_webp(6000, LARGE_WEBP[12:]),
    "webp, a frame with another size than its own": animated_webp(10, LARGE_WEBP[12:]),
    "jpeg, two sizes, the large one first": two_sizes(LARGE, 10),
    "jpeg, two sizes, the large one last": two_sizes(10, LARGE),
}

# Decodes each file in a child of its own and prints megabytes that it took, and what came of it.
MEASURE = """
import os, pickle, sys
import numpy as np
from detfeed.images.decoding import MAX_TEXT, decode_image

for name, data in pickle.load(sys.stdin.buffer).items():
    answer, write = os.pipe()
    child = os.fork()
    if child == 0:
        before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        try:
            came = str(decode_image(np.frombuffer(data, np.uint8)).shape)
        except Exception as error:
            came = type(error).__name__
        os.write(write, f"{before}\\t{came}".encode())
        os._exit(0)
    os.close(write)
    usage = os.wait4(child, 0)[2]
    before, came = os.read(answer, 1000).decode().split("\\t")
    os.close(answer)
    print(name, (usage.ru_maxrss * 1024 - int(before)) // 2**20, came, sep="\\t")
"""


@pytest.fixture(scope="module")
def measured():
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("memory is measured on Linux alone")
    done = subprocess.run([sys.executable, "-c", MEASURE], input=pickle.dumps(HOSTILE), capture_output=True, check=True)
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    return {name: (int(megabytes), came) for name, megabytes, came in lines}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_small_file_takes_the_memory_of_a_large_picture(measured, name):
    megabytes, came = measured[name]
    assert came in ("ImageError", "(10, 10, 3)")
    assert megabytes < 64  # decoded, each of them takes 100 MB to 5 GB


def test_a_tag_that_stands_twice_is_named():
    with pytest.raises(ImageError, match="tag 256 stands twice"):
        decode_image(np.frombuffer(HOSTILE["tiff, size twice, by turns"], np.uint8))
    with pytest.raises(ImageError, match="tag 256 is not one whole number"):
        decode_image(np.frombuffer(HOSTILE["tiff, signed size"], np.uint8))
    with pytest.raises(ImageError, match="tiles of 256000000 pixels in a picture of 10 x 10"):
        decode_image(np.frombuffer(HOSTILE["tiff, huge tiles"], np.uint8))


def test_tiles_larger_than_the_picture_are_ordinary():
    file = tiff(*tiles(256), data=zlib.compress(b"\x50" * 256**2).ljust(len(BLACK), b"\0"))
    assert (decode_image(np.frombuffer(file, np.uint8)) == np.full((10, 10, 3), 80)).all()


@pytest.fixture
def given_to_cv2(monkeypatch):
    """How many bytes cv2 was given to decode."""
    lengths = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: lengths.append(len(data)) or decode(data, flags))
    return lengths


BOMB = zlib.compress(bytes(1_000_000), 9)
TEXTS = {b"zTXt": b"a\0\0" + BOMB, b"iTXt": b"a\0\1\0\0\0" + BOMB}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("where", ["before", "after"])
def test_png_is_decoded_without_texts_that_take_long_to_inflate(given_to_cv2, kind, where):
    """2,000 chunks of 1,000 bytes took cv2 8 s."""
    rows = (b"\0" + bytes(range(30))) * 10
    bombs = png_chunk(kind, TEXTS[kind]) * 2000
    image = decode_image(np.frombuffer(png(10, 10, rows, **{where: bombs}), np.uint8))
    assert given_to_cv2 == [len(png(10, 10, rows))]
    np.testing.assert_array_equal(image, np.arange(30, dtype=np.uint8).reshape(1, 10, 3).repeat(10, axis=0))


def test_png_with_short_texts_is_decoded_without_a_copy(monkeypatch):
    data = np.frombuffer(png(10, 10, ROWS, before=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100)))), np.uint8)
    seen = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda given, flags: seen.append(given) or decode(given, flags))
    decode_image(data)
    assert seen[0] is data and len(data) < MAX_TEXT


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("tiff")])
def test_ordinary_tiffs_pass(name):
    assert decode_image(np.frombuffer(FILES[name], np.uint8)).size == picture().size
