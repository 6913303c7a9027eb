"""Which fonts are found, what they are said to hold, and which families are kept for evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import freetype
import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

from data.synthesis import fonts
from data.synthesis.fonts import Font, design_of, find_fonts, font_folders, held_out, plain_font_file

LOWER = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the user's list of fonts nor one of an earlier test is read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fonts._scan.cache_clear()
    yield
    fonts._scan.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with DejaVu Sans and its bold face."""
    place = tmp_path / "fonts"
    place.mkdir()
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        shutil.copy(plain_font_file().parent / name, place)
    return place


def drawn_from(file: Path, family: str, glyph_of: Callable[[str], str | None]) -> None:
    """Writes DejaVu Sans as another family in which each letter or digit shows the glyph of another character."""
    font = TTFont(plain_font_file())
    for table in font["cmap"].tables:
        if table.isUnicode():
            old = dict(table.cmap)
            for code in list(old):
                other = glyph_of(chr(code))
                if other is None:
                    del table.cmap[code]
                elif ord(other) in old:
                    table.cmap[code] = old[ord(other)]
    for record in font["name"].names:
        if record.nameID in (1, 4, 16):
            font["name"].setName(family, record.nameID, record.platformID, record.platEncID, record.langID)
    font.save(file)


def named(found: tuple[Font, ...], family: str) -> Font:
    return next(font for font in found if font.family == family)


def test_the_font_that_matplotlib_brings_is_always_there() -> None:
    assert plain_font_file().parent in font_folders()
    found = find_fonts([plain_font_file().parent], "training")
    assert "DejaVu Sans" in {font.family for font in found}


def test_fonts_of_symbols_and_of_math_are_left_out() -> None:
    files = {Path(font.path).name for font in find_fonts([plain_font_file().parent])}
    assert {"DejaVuSans.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneral.ttf"} <= files
    assert not files & {"cmsy10.ttf", "cmex10.ttf", "STIXSizOneSymReg.ttf", "STIXNonUni.ttf"}
    assert not any(file.startswith("LastResort") for file in files)


def test_a_font_whose_letters_show_other_signs_is_left_out(folder: Path) -> None:
    symbols = {c: chr(0x2190 + i) for i, c in enumerate(LOWER + LOWER.upper() + "0123456789")}
    drawn_from(folder / "arrows.ttf", "Arrows", lambda c: symbols.get(c, c))
    assert {font.family for font in find_fonts([folder])} == {"DejaVu Sans"}


def test_a_font_that_shows_capitals_for_small_letters_has_no_small_letters(folder: Path) -> None:
    drawn_from(folder / "capitals.ttf", "Capitals", lambda c: c.upper() if c in LOWER else c)
    font = named(find_fonts([folder]), "Capitals")
    assert not set(font.characters) & set(LOWER)
    assert set(LOWER.upper() + "0123456789") <= set(font.characters)


def test_a_blackletter_font_with_one_glyph_for_i_and_j_is_used(folder: Path) -> None:
    drawn_from(folder / "fraktur.ttf", "Old Print", lambda c: "I" if c == "J" else c)
    assert {"I", "J"} <= set(named(find_fonts([folder]), "Old Print").characters)


def test_a_font_with_one_glyph_for_other_capitals_is_left_out(folder: Path) -> None:
    drawn_from(folder / "doubled.ttf", "Doubled", lambda c: "O" if c == "Q" else c)
    assert "Doubled" not in {font.family for font in find_fonts([folder])}


def test_a_greek_font_with_a_stray_latin_letter_is_used_without_it(folder: Path) -> None:
    drawn_from(folder / "greek.ttf", "Greek", lambda c: None if c in (LOWER + LOWER.upper()).replace("R", "") else c)
    characters = set(named(find_fonts([folder]), "Greek").characters)
    assert set("αβγΑΒΓ") <= characters
    assert not characters & set(LOWER + LOWER.upper())


def test_a_latin_font_that_lacks_half_of_the_letters_is_left_out(folder: Path) -> None:
    drawn_from(folder / "half.ttf", "Half", lambda c: None if c.upper() in "NOPQRSTUVWXYZ" else c)
    assert "Half" not in {font.family for font in find_fonts([folder])}


def test_a_character_that_the_font_lacks_is_not_among_its_characters(folder: Path) -> None:
    drawn_from(folder / "gap.ttf", "Gap", lambda c: None if c in "@~" else c)
    missing = set(named(find_fonts([folder]), "DejaVu Sans").characters) - set(
        named(find_fonts([folder]), "Gap").characters
    )
    assert missing == {"@", "~"}


def test_a_character_whose_glyph_is_empty_is_not_among_the_fonts_characters(folder: Path) -> None:
    drawn_from(folder / "empty.ttf", "Empty", lambda c: " " if c == "%" else c)
    assert "%" not in named(find_fonts([folder]), "Empty").characters


def test_every_character_of_a_font_leaves_ink(folder: Path) -> None:
    font = find_fonts([folder])[0]
    face = freetype.Face(font.path, index=font.index)
    face.set_pixel_sizes(0, 40)
    empty = [c for c in font.characters if not fonts.glyph_bitmap(face, c)[0].any()]
    assert empty == [" "]


def test_a_broken_font_file_is_passed_over(folder: Path) -> None:
    (folder / "broken.ttf").write_bytes(b"\x00\x01\x00\x00 nothing that is a font")
    (folder / "empty.otf").write_bytes(b"")
    assert len(find_fonts([folder])) == 2


def test_the_same_fonts_come_in_the_same_order_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "deeper"
    other.mkdir(parents=True)
    shutil.copy(folder / "DejaVuSans.ttf", other / "zz.ttf")
    shutil.copy(folder / "DejaVuSans-Bold.ttf", other / "aa.ttf")
    names = [(font.family, font.style) for font in find_fonts([folder])]
    assert names == [(font.family, font.style) for font in find_fonts([tmp_path / "elsewhere"])]


def test_a_font_that_lies_in_two_places_counts_once(folder: Path) -> None:
    shutil.copy(folder / "DejaVuSans.ttf", folder / "copy.ttf")
    assert len(find_fonts([folder])) == 2


def test_training_and_evaluation_share_no_design() -> None:
    place = [plain_font_file().parent]
    training, kept, everything = (find_fonts(place, side) for side in ("training", "held-out", "all"))
    assert not {font.design for font in training} & {font.design for font in kept}
    assert len(training) + len(kept) == len(everything)


def test_weights_and_widths_of_a_family_stay_together() -> None:
    for family in ("Roboto Condensed", "Roboto Light", "Roboto Medium Italic"):
        assert design_of(family) == "roboto"
    assert design_of("Roboto Slab") != "roboto"


def test_clones_of_one_design_stay_together() -> None:
    assert len({held_out(name) for name in ("Liberation Sans", "Arimo", "Nimbus Sans", "FreeSans")}) == 1


def test_about_a_fifth_of_the_families_is_kept_for_evaluation() -> None:
    share = sum(held_out(f"Family {chr(65 + i // 26)}{chr(97 + i % 26)}y") for i in range(676)) / 676
    assert 0.16 < share < 0.24


def test_fonts_that_come_with_pip_alone_are_on_both_sides() -> None:
    kept = ("DejaVu Serif", "DejaVu Sans Mono", "Caladea", "Lato", "Source Serif Pro", "Red Hat Display")
    training = ("DejaVu Sans", "STIXGeneral", "Roboto", "Source Sans Pro", "Hanken Grotesk", "Manrope", "Fjalla One")
    assert all(held_out(name) for name in kept)
    assert not any(held_out(name) for name in training)


def test_fonts_are_opened_once_and_then_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_fonts([folder])
    fonts._scan.cache_clear()
    monkeypatch.setattr(fonts, "_examine", lambda file: pytest.fail(f"{file} was opened again"))
    assert find_fonts([folder]) == first


def test_a_changed_font_file_is_opened_again(folder: Path) -> None:
    find_fonts([folder])
    shutil.copy(plain_font_file().parent / "DejaVuSansMono.ttf", folder / "DejaVuSans-Bold.ttf")
    fonts._scan.cache_clear()
    assert {font.family for font in find_fonts([folder])} == {"DejaVu Sans", "DejaVu Sans Mono"}


def test_a_damaged_or_unwritable_cache_is_no_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fonts._cache_file()
    file.parent.mkdir(parents=True)
    file.write_text('{"half a', encoding="utf-8")
    assert len(find_fonts([folder])) == 2
    fonts._scan.cache_clear()
    (tmp_path / "blocked").write_text("a file where a folder would have to be", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert len(find_fonts([folder])) == 2


def test_a_missing_font_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_fonts([tmp_path / "nowhere"])


def test_a_folder_without_fonts_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=tmp_path.name):
        find_fonts([tmp_path])
