"""Text: every letter is drawn or spelt, and lines fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detfeed.drawing import text
from detfeed.drawing.marks import WHITE


def drawn(line, width=400):
    image = np.zeros((30, width, 3), np.uint8)
    text.write(image, line, 2, 2, WHITE)
    return image


@pytest.mark.parametrize("letters", ["éè", "üö", "łş", "жд", "αβ", "人大", "กข"])
def test_letters_beyond_ascii_are_told_apart(letters):
    one, other = (drawn(letter) for letter in letters)
    assert one.any() and other.any()
    assert (one != other).any()
    assert (one != drawn("?")).any()


def test_letter_that_no_font_has_is_spelt_without_its_accent_or_as_its_code_point(monkeypatch):
    monkeypatch.setattr(text, "_fonts", lambda: [""])  # PIL's own, of ASCII
    text._font_of.cache_clear()
    try:
        np.testing.assert_array_equal(drawn("Küche"), drawn("Kuche"))
        np.testing.assert_array_equal(drawn("人"), drawn("[U+4EBA]"))
        np.testing.assert_array_equal(drawn("ส\u0e38"), drawn("[U+0E2A][U+0E38]"))  # a letter and its vowel
        np.testing.assert_array_equal(drawn("a\nb"), drawn("a\\nb"))
    finally:
        text._font_of.cache_clear()


@settings(max_examples=25)
@given(line=st.text(max_size=40), x=st.integers(-50, 50), y=st.integers(-30, 30))
def test_any_text_is_drawn_anywhere_and_what_lies_outside_is_cut_off(line, x, y):
    text.write(np.zeros((20, 40, 3), np.uint8), line, x, y, WHITE)


@settings(max_examples=25)
@given(line=st.text(st.characters(codec="latin-1"), max_size=60), width=st.integers(30, 300))
def test_wrapped_lines_fit_and_a_cut_text_fits(line, width):
    assert all(text.width_of(each) <= width for each in text.wrap(line, width))
    cut = text.cut(line, width)
    assert text.width_of(cut) <= width
    assert cut == line or (cut.endswith("…") and line.startswith(cut[:-1]))


def test_wrapping_keeps_all_words():
    line = "two words and some more of them"
    assert " ".join(text.wrap(line, 90)) == line
    assert len(text.wrap(line, 90)) > 2


def test_text_is_as_wide_as_it_says():
    columns = np.flatnonzero(drawn("HHHH").any(axis=(0, 2)))
    assert abs((columns.max() - 2) - text.width_of("HHHH")) <= 3
