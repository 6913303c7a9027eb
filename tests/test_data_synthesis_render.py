"""Text drawn as a coverage mask: glyphs, kerning, and the columns of each character."""

from __future__ import annotations

import shutil
from pathlib import Path

import freetype
import numpy as np
import pytest

from data.synthesis.fonts import Font, find_fonts, plain_font_file
from data.synthesis.render import draw, sized_face

SIZE = 44


@pytest.fixture(scope="module")
def sans(tmp_path_factory: pytest.TempPathFactory) -> Font:
    folder = tmp_path_factory.mktemp("fonts")
    shutil.copy(plain_font_file(), folder)
    return find_fonts([folder])[0]


def test_a_missing_glyph_is_never_drawn_as_a_box(sans: Font) -> None:
    with pytest.raises(ValueError, match="字"):
        draw("a字b", sans, SIZE)


def test_a_text_without_ink_is_refused(sans: Font) -> None:
    with pytest.raises(ValueError, match="no ink"):
        draw("  ", sans, SIZE)


def test_the_mask_is_cropped_to_the_ink(sans: Font) -> None:
    mask = draw("Hgj", sans, SIZE).mask
    assert mask.dtype == np.uint8
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.any()


def test_each_character_has_its_columns_in_reading_order(sans: Font) -> None:
    drawn = draw("Hi there", sans, SIZE)
    assert drawn.columns.shape == (8, 2)
    assert drawn.columns.dtype == np.float32
    assert (np.diff(drawn.columns, axis=1) > 0).all()
    assert (np.diff(drawn.columns[:, 0]) > 0).all()


def test_the_ink_of_a_character_lies_in_its_columns(sans: Font) -> None:
    drawn = draw("H H H", sans, SIZE)
    ink = drawn.mask.sum(axis=0).astype(float)
    for number in (0, 2, 4):
        left, right = drawn.columns[number]
        inside = ink[max(0, int(left)) : int(np.ceil(right))].sum()
        assert inside == pytest.approx(ink.sum() / 3, rel=0.02)
    left, right = drawn.columns[1]
    assert ink[int(np.ceil(left)) + 1 : int(right) - 1].sum() == 0


def test_pairs_are_kerned(sans: Font) -> None:
    advance = sized_face(sans, SIZE).glyph("A")[3]
    assert float(np.ptp(draw("AV", sans, SIZE).columns[:, 0])) < advance - 1
    assert float(np.ptp(draw("AH", sans, SIZE).columns[:, 0])) == pytest.approx(advance, abs=0.01)


def test_spacing_is_added_between_characters(sans: Font) -> None:
    narrow, wide = draw("word", sans, SIZE), draw("word", sans, SIZE, spacing=10)
    assert wide.mask.shape[1] - narrow.mask.shape[1] == pytest.approx(30, abs=2)


def test_the_line_reaches_from_the_capitals_to_the_descenders(sans: Font) -> None:
    small, tall = draw("aceo", sans, SIZE), draw("Hg", sans, SIZE)
    assert small.line_top < 0 < small.mask.shape[0] <= small.line_bottom
    assert abs(tall.line_top) <= 2
    assert tall.line_bottom >= tall.mask.shape[0] - 2


def test_a_font_that_is_gone_is_named(sans: Font, tmp_path: Path) -> None:
    gone = Font(**{**vars(sans), "path": str(tmp_path / "gone.ttf")})
    with pytest.raises(ValueError, match=r"gone\.ttf"):
        draw("a", gone, SIZE)


def test_glyphs_are_what_freetype_draws(sans: Font) -> None:
    face = freetype.Face(sans.path)
    face.set_pixel_sizes(0, SIZE)
    face.load_char("R", freetype.FT_LOAD_RENDER | freetype.FT_LOAD_NO_HINTING)
    bitmap = face.glyph.bitmap
    expected = np.array(bitmap.buffer, np.uint8).reshape(bitmap.rows, bitmap.pitch)[:, : bitmap.width]
    np.testing.assert_array_equal(draw("R", sans, SIZE).mask, expected)
