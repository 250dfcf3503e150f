"""JSON files: decoding them, with errors that have an address."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np

from detfeed.errors import AnnotationError
from detfeed.readers.texts import check_utf8, read_bytes

MOST_OF_JSON = 2**36  # bytes; ten times what any known file has

_KEY = re.compile(rb'[\s{,]*("(?:[^"\\]|\\.)*")\s*:\s*')

_T = TypeVar("_T")


def decode_json(source: str, form: type[_T], noun: str, most: int = MOST_OF_JSON) -> _T:
    """Decode a JSON file.

    Args:
        source: path of the file.
        form: the type to decode to, by msgspec.
        noun: what the file is expected to be.
        most: bytes that it may have.

    Raises:
        AnnotationError: the file is missing, too large, no JSON, of another form, or has a key twice in its outermost
            object; the message gives the place in it.
    """
    return decode_by(lambda data: msgspec.json.decode(data, type=form), source, noun, most)


def decode_by(decode: Callable[[bytes], _T], source: str, noun: str, most: int = MOST_OF_JSON) -> _T:
    """As `decode_json`, by a function that decodes bytes as `msgspec.json.decode` does."""
    data = read_bytes(source, noun, most)
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    try:
        content = decode(data)
        repeated = repeated_key(data)
    except msgspec.ValidationError as error:
        raise AnnotationError(f"{source}: {_explain(error, data)}") from None
    except RecursionError:
        raise AnnotationError(f"{source}: expected {noun}, got JSON that is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        check_utf8(data, source, noun)
        raise AnnotationError(
            f"{source}: expected JSON, got a file that does not parse: {error}{_surroundings(str(error), data)}"
        ) from None
    if repeated:
        raise AnnotationError(
            f"{source}: expected each key once, got {repeated[0]!r} twice - at `top level`, line {repeated[1]}"
        )
    return content


def repeated_key(data: bytes | bytearray) -> tuple[str, int] | None:
    """A key that stands twice in the outermost object of a JSON text, and the line of its first value.

    Decoders take the last value without a word. Of the values of a key, msgspec gives that one, as a view of the text;
    so an earlier one lies in a gap between those views. (Inner objects are not looked at: a pass over 860,000 of them
    takes as long as reading them.)

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: the text does not parse.
    """
    try:
        values = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:  # an array
        return None
    text = np.frombuffer(data, np.uint8)
    views = [np.frombuffer(value, np.uint8) for value in values.values()]
    starts = [view.ctypes.data - text.ctypes.data for view in views]
    end = 0
    for start, view in sorted(zip(starts, views, strict=True), key=lambda pair: pair[0]):
        key = _KEY.match(data, end)
        if key is None or key.end() != start:
            name = json.loads(key[1]) if key else ""
            return name, data.count(b"\n", 0, end) + 1
        end = start + len(view)
    # Nothing but the brace follows the last.
    key = _KEY.match(data, end)
    return (json.loads(key[1]), data.count(b"\n", 0, end) + 1) if key else None


def _surroundings(message: str, data: bytes) -> str:
    """The text around the byte that msgspec's message names, and its line."""
    found = re.search(r"\(byte (\d+)\)", message)
    if not found:
        return ""
    byte = int(found[1])
    text = data[max(0, byte - 40) : byte + 20].decode(errors="replace")
    line = data.count(b"\n", 0, byte) + 1
    hint = "; JSON has no NaN and no Infinity" if data[byte : byte + 3] in (b"NaN", b"Inf") else ""
    return f", in {text!r} - at line {line}{hint}"


def _explain(error: msgspec.ValidationError, data: bytes) -> str:
    """msgspec's message with the value that it refused."""
    try:
        return explain(error, msgspec.json.decode(data))
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError):
        return str(error)  # the rest of the file is broken, too


def explain(error: Exception, content: Any, place: str = "") -> str:
    """msgspec's message with the value that it refused and, for an annotation, the id of its image.

    Args:
        error: the message is that of a `msgspec.ValidationError`.
        content: what was refused, or holds it.
        place: of the content in its file.
    """
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`")
    value, owner = content, ""
    try:
        for key in ["", *re.findall(r"\[(\d+)\]|\.(\w+)", path)]:
            if key:
                value = value[int(key[0])] if key[0] else value[key[1]]
            if isinstance(value, dict) and "image_id" in value:
                owner = f" (image_id {value['image_id']!r:.80})"
        got = msgspec.json.encode(value).decode()
    except (ValueError, RecursionError, OverflowError, LookupError, TypeError):
        return str(error)  # a repeated key leads to another value
    got = got if len(got) <= 80 else got[:77] + "..."
    # The value tells users more than its type does, which msgspec gives: "Expected `int`, got `str`".
    expected = message.partition(", got ")[0]
    verdict = f"e{expected[1:]}, got {got}" if expected.startswith("Expected") else f"{message} in {got}"
    at = f"{place}{path}".lstrip(".") or "top level"
    hint = (
        "; a list is a results file, which read_proposals reads"
        if message == "Expected `object`, got `array`" and at == "top level"
        else ""
    )
    return f"{verdict} - at `{at}`{owner}{hint}"
