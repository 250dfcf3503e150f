"""HTML: tables and pictures as a notebook shows them, without styles of their own."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from detfeed.drawing.marks import Image
from detfeed.drawing.sheets import png


def paragraph(text: str) -> str:
    """A line of text."""
    return f"<p>{html.escape(text)}</p>"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; texts are escaped, and a line break in one stays."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def picture(image: Image, text: str) -> str:
    """A picture, uint8 (H, W, 3) RGB, inside the HTML itself.

    Args:
        image: the picture.
        text: what it shows, for those who can't see it.
    """
    data = base64.b64encode(png(image)).decode("ascii")
    return f'<img alt="{html.escape(text, quote=True)}" src="data:image/png;base64,{data}" style="max-width: 100%">'


def _cell(value: object) -> str:
    text = html.escape(str(value)).replace("\n", "<br>")
    return f'<td style="text-align: {"right" if isinstance(value, int | float) else "left"}">{text}</td>'
