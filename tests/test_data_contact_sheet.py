"""A contact sheet shows every line whole, with a label that can be read in any script."""

from __future__ import annotations

import numpy as np
import pytest

from data.contact_sheet import CHARACTER_COLOURS, SHEET_WIDTH, contact_sheet, font_with
from data.lines import Line, Picture

RED, GREEN = (250, 20, 30), (10, 200, 40)


def plain(colour: tuple[int, int, int], height: int = 32, width: int = 90) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


def pixels_of(sheet: Picture, colour: str | tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that have exactly this colour."""
    if isinstance(colour, str):
        colour = tuple(bytes.fromhex(colour[1:]))  # type: ignore[assignment]
    rows, columns = np.nonzero((sheet == np.array(colour, np.uint8)).all(axis=2))
    return rows, columns


def test_every_picture_is_on_the_sheet_in_reading_order() -> None:
    sheet = contact_sheet([Line(plain(RED), "a", "1"), Line(plain(GREEN), "b", "2")], "words")
    assert sheet.shape[1:] == (SHEET_WIDTH, 3)
    assert pixels_of(sheet, RED)[1].max() < pixels_of(sheet, GREEN)[1].min()


def test_lines_that_do_not_fit_a_row_begin_a_new_one() -> None:
    wide = [Line(plain(colour, 32, 600), "text", "key") for colour in (RED, GREEN)]
    sheet = contact_sheet(wide, "words")
    assert pixels_of(sheet, RED)[0].max() < pixels_of(sheet, GREEN)[0].min()


def test_a_line_of_any_size_keeps_its_aspect_and_stays_on_the_sheet() -> None:
    for height, width in ((64, 9000), (900, 30), (1, 1)):
        rows, columns = pixels_of(contact_sheet([Line(plain(RED, height, width), "x", "k")], "t"), RED)
        shown_height, shown_width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert columns.max() < SHEET_WIDTH - 20
        assert shown_width / shown_height == pytest.approx(width / height, rel=0.1, abs=0.05)


def test_a_label_longer_than_the_sheet_is_shortened() -> None:
    sheet = contact_sheet([Line(plain(RED), "w" * 2000, "k" * 2000)], "t")
    paper = sheet[:, -20:]
    assert (paper == paper[0, 0]).all()


def test_a_character_no_font_has_is_written_as_its_number_and_never_as_a_box() -> None:
    absent = "\U0010fffd"
    assert font_with(absent) is None
    by_number = contact_sheet([Line(plain(RED), "a‹U+10FFFD›b", "k")], "t")
    assert np.array_equal(contact_sheet([Line(plain(RED), f"a{absent}b", "k")], "t"), by_number)


def test_an_invisible_character_is_written_as_its_number() -> None:
    by_number = contact_sheet([Line(plain(RED), "a‹U+200B›b", "k")], "t")
    assert np.array_equal(contact_sheet([Line(plain(RED), "a\u200bb", "k")], "t"), by_number)


@pytest.mark.parametrize("text", ["Straße", "ὀφθαλμός", "Привет", "ſuß"])
def test_dejavu_draws_the_scripts_it_has(text: str) -> None:
    assert all(font is not None and font.name == "DejaVuSans.ttf" for font in map(font_with, text))


def test_a_line_without_label_says_so() -> None:
    unlabelled = contact_sheet([Line(plain(RED), None, "k")], "t")
    empty = contact_sheet([Line(plain(RED), "", "k")], "t")
    assert not np.array_equal(unlabelled, empty)


def test_columns_are_marked_under_their_characters_and_only_when_asked() -> None:
    columns = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    line = Line(plain(RED, 32, 160), "ab", "k", columns)
    sheet = contact_sheet([line], "t", columns_drawn=True)
    left, right = pixels_of(sheet, RED)[1].min(), pixels_of(sheet, RED)[1].max() + 1
    first, second = (pixels_of(sheet, colour)[1] for colour in CHARACTER_COLOURS)
    assert (first.min(), first.max() + 1) == pytest.approx((left, left + 0.25 * (right - left)), abs=1)
    assert (second.min(), second.max() + 1) == pytest.approx((left + 0.5 * (right - left), right), abs=1)
    unknown = Line(line.picture, "ab", "k")
    for unmarked in (contact_sheet([line], "t"), contact_sheet([unknown], "t", columns_drawn=True)):
        assert len(pixels_of(unmarked, CHARACTER_COLOURS[0])[0]) == 0
