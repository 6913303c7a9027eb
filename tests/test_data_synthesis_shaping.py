"""Scripts whose characters change with their neighbours: shaped, or refused by name."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

from data.synthesis.fonts import Font, find_fonts, plain_font_file
from data.synthesis.render import draw
from data.synthesis.shaping import directed_runs, needs_shaping, shape
from data.synthesis.source import SynthesisOptions, SynthesisSource

ARABIC = "سلام"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with DejaVu Sans, which has Arabic, Hebrew and combining marks."""
    place = tmp_path / "fonts"
    place.mkdir()
    shutil.copy(plain_font_file(), place)
    return place


@pytest.fixture
def sans(folder: Path) -> Font:
    return find_fonts([folder])[0]


def test_which_texts_need_a_shaper() -> None:
    assert all(map(needs_shaping, (ARABIC, "שלום", "हिन्दी", "ไทย", "su\u0364ß")))
    assert not any(map(needs_shaping, ("Straße", "λόγον τοῦ", "Москва", "字", "ſ")))


def test_without_the_shaper_such_characters_are_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uharfbuzz", None)
    options = SynthesisOptions(characters=f"abc{ARABIC}", fonts="all", font_folders=(folder,))
    with pytest.raises(ValueError, match=r"س.*pocket-crnn\[shaping\]"):
        SynthesisSource(options, 0)
    assert SynthesisSource(replace(options, characters="abc"), 0)[0].text


def test_the_first_letter_of_arabic_is_the_rightmost(sans: Font) -> None:
    columns = draw(ARABIC, sans, 44).columns
    assert (np.diff(columns[:, 0]) < 0).all()
    assert (columns[:, 0] < columns[:, 1]).all()


def test_letters_take_the_form_that_their_neighbours_ask_for(sans: Font) -> None:
    alone, joined = shape("س", sans.path, 0, 44), shape("سس", sans.path, 0, 44)
    assert alone.glyphs[0][0] not in {number for number, _, _ in joined.glyphs}


def test_a_mark_stands_over_its_letter(sans: Font) -> None:
    plain, marked = draw("mum", sans, 44), draw("mu\u0303m", sans, 44)
    assert marked.mask.shape[0] > plain.mask.shape[0] + 3
    assert marked.mask.shape[1] == pytest.approx(plain.mask.shape[1], abs=1)
    assert (np.diff(marked.columns[:, 0]) > 0).all()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain 12 text", ["plain 12 text"]),
        ("סך 12.50 שקל", [" שקל", "12.50", "סך "]),
        ("סך abc ש", [" ש", "abc", "סך "]),
        ("abc שלום 12", ["abc ", "12", "שלום "]),
        ("abc (שלום 5%", ["abc (", "5%", "שלום "]),
    ],
)
def test_parts_of_different_directions_are_seen_as_unicode_orders_them(text: str, seen: list[str]) -> None:
    assert [text[start:end] for start, end, _ in directed_runs(text)] == seen


def test_a_font_without_latin_is_used_for_its_own_script_only(folder: Path) -> None:
    font = TTFont(plain_font_file())
    for table in font["cmap"].tables:
        for code in [code for code in table.cmap if not 0x590 <= code <= 0x6FF]:
            del table.cmap[code]
    for record in font["name"].names:
        if record.nameID in (1, 4, 16):
            font["name"].setName("Other", record.nameID, record.platformID, record.platEncID, record.langID)
    font.save(folder / "other.ttf")
    found = find_fonts([folder])
    assert {f.family for f in found} == {"DejaVu Sans", "Other"}
    latin = SynthesisSource(SynthesisOptions(characters="abc", fonts="all", font_folders=(folder,)), 0)
    assert {f.family for f in latin.fonts} == {"DejaVu Sans"}


def test_shaped_lines_are_drawn_from_a_corpus(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(f"{ARABIC} ١٢\n", encoding="utf-8")
    characters = "".join(sorted(set(f"{ARABIC} ١٢")))
    options = SynthesisOptions(
        characters=characters, corpus=corpus, corpus_share=1.0, fonts="all", font_folders=(folder,)
    )
    for i in range(10):
        line = SynthesisSource(options, 1)[i]
        assert line.text == f"{ARABIC} ١٢"
        assert line.columns is not None
        assert line.columns.shape == (7, 2)
