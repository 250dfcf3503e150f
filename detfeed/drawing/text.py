"""Text: lines of any script, drawn into images.

cv2's own fonts have ASCII alone and make "?" of everything else. A letter is drawn with the first font found that has
it; one that no font has is spelt: without its accent, or as its code point, such as [U+4EBA].
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# PIL is imported where it is used: most programs that import detfeed draw nothing.

SIZE = 15  # pixels
LINE = 22  # pixels from one line to the next

# Looked for in the system's folders of fonts. After Latin, Greek and Cyrillic: fonts with Chinese, Japanese and Korean.
_NAMES = (
    "DejaVuSans.ttf",
    "arial.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
)


def write(
    image: NDArray[np.uint8], text: str, x: int, y: int, colour: tuple[int, int, int], *, size: int = SIZE
) -> None:
    """Write a line of text into an image, uint8 (H, W, 3); what lies outside is cut off.

    Args:
        image: drawn into.
        text: of any script, on one line.
        x, y: the top left corner of the line.
        colour: of the letters.
        size: of the font in pixels.
    """
    for run, font in _runs(text, size):
        height, width = image.shape[:2]
        right = round(x + font.getlength(run))
        mask = _mask(font, run)
        top, left = max(-y, 0), max(-x, 0)
        part = mask[top : max(height - y, 0), left : max(width - x, 0)]
        if part.size:
            place = image[y + top : y + top + part.shape[0], x + left : x + left + part.shape[1]]
            share = part[:, :, None] / 255
            place[:] = np.rint(place * (1 - share) + np.array(colour) * share)
        x = right


def width_of(text: str, *, size: int = SIZE) -> int:
    """The width of a line of text in pixels."""
    return sum(round(font.getlength(run)) for run, font in _runs(text, size))


def wrap(text: str, width: int, *, size: int = SIZE) -> list[str]:
    """A text as lines of at most `width` pixels, broken between words; a longer word is cut, with an ellipsis."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size=size) <= width:
            lines[-1] = longer
        else:
            lines.append(cut(word, width, size=size))
    return lines


def cut(text: str, width: int, *, size: int = SIZE) -> str:
    """A text of at most `width` pixels, with an ellipsis where it is cut."""
    if width_of(text, size=size) <= width:
        return text
    while text and width_of(f"{text}…", size=size) > width:
        text = text[:-1]
    return f"{text}…"


def _mask(font: FreeTypeFont, run: str) -> NDArray[np.uint8]:
    """The letters of a run, uint8 (h, w), from the line's top left corner on."""
    from PIL import Image, ImageDraw

    _, _, right, bottom = font.getbbox(run)
    picture = Image.new("L", (max(int(right) + 1, 1), max(int(bottom) + 1, 1)))
    ImageDraw.Draw(picture).text((0, 0), run, fill=255, font=font)
    return np.asarray(picture)


def _runs(text: str, size: int) -> Iterator[tuple[str, FreeTypeFont]]:
    """The text in parts of one font each."""
    letters: list[tuple[str, int]] = []
    for letter in text:
        if unicodedata.combining(letter) and letters and _font_of(letter) == letters[-1][1]:
            letters.append((letter, letters[-1][1]))  # belongs to the letter before it, so both are one run
            continue
        spelt = letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        found = [_font_of(each) for each in spelt]
        if None in found:
            plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode("ascii")
            spelt = plain or f"[U+{ord(letter):04X}]"
            found = [_font_of(each) or 0 for each in spelt]
        letters += [(each, font or 0) for each, font in zip(spelt, found, strict=True)]
    for font, run in itertools.groupby(letters, key=lambda pair: pair[1]):
        yield "".join(letter for letter, _ in run), _load(_fonts()[font], size)


@functools.lru_cache(maxsize=4096)
def _font_of(letter: str) -> int | None:
    """The first font that has a letter; None: no font has it."""
    for number, path in enumerate(_fonts()):
        font = _load(path, SIZE)
        # What a font lacks it draws as its sign for that, as it draws U+FFFF, which is no letter.
        if letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff")):
            return number
    return None


@functools.cache
def _fonts() -> list[str]:
    """The fonts found; the last is PIL's own, of ASCII, which is always there."""
    found = []
    for name in (*_of_matplotlib(), *_NAMES):
        try:
            _load(name, SIZE)
        except OSError:
            continue
        found.append(name)
    return [*found, ""]


def _of_matplotlib() -> list[str]:
    """The font that matplotlib brings along, where that is installed; so pictures look alike on all systems."""
    spec = importlib.util.find_spec("matplotlib")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return [str(Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")) for folder in folders]


@functools.lru_cache(maxsize=64)
def _load(path: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def counted(number: int, noun: str) -> str:
    """A number of things: `1 box`, `2 boxes`."""
    plural = f"{noun}es" if noun.endswith("x") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
