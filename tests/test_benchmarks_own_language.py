"""The walk for one's own language: its halves, its charset, and the figures that it gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.own_language import (
    ALPHABETS,
    OwnLanguageOptions,
    character_errors,
    charset_of,
    drawable,
    halves,
    named,
    own_language_table,
    read_charset,
    texts_with,
    write_charset,
)
from crnn.charset import Charset
from data.lines import open_lines
from data.lmdb_lines import Entry
from data.synthesis.fonts import plain_font_file
from data.tsv_files import write_tsv

TEXTS = ["".join(letters) for letters in itertools.islice(itertools.permutations("abcſ"), 20)]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a set of twenty lines was halved."""
    folder = tmp_path_factory.mktemp("walk")
    encoded = cv2.imencode(".png", np.full((32, 64), 255, np.uint8))[1].tobytes()
    write_tsv(folder / "lines_de.zip", [Entry(encoded, t, f"images/{i:06d}.png") for i, t in enumerate(TEXTS)])
    out = folder / "out"
    out.mkdir()
    halves(OwnLanguageOptions("lines_de", (), data=folder, out=out), out)
    return out


def texts_of(path: Path) -> set[str]:
    return {text for text in open_lines(path).texts() if text}


def test_every_line_is_in_one_half(walked: Path) -> None:
    tune, figure = texts_of(walked / "tune.lmdb"), texts_of(walked / "figure.lmdb")
    assert tune
    assert figure
    assert not tune & figure
    assert tune | figure == set(TEXTS)


def test_the_corpus_holds_no_text_of_the_half_for_the_figure(walked: Path) -> None:
    corpus = (walked / "corpus.txt").read_text(encoding="utf-8").splitlines()
    assert set(corpus) == texts_of(walked / "tune.lmdb")


def test_the_charset_is_that_of_the_corpus_and_of_the_alphabet(walked: Path) -> None:
    charset = Charset.from_spec(str(walked / "charset.txt"))
    corpus = (walked / "corpus.txt").read_text(encoding="utf-8").replace("\n", "")
    assert set(charset.characters) == set(corpus) | set(ALPHABETS["lines_de"])


def test_a_charset_with_a_letter_and_a_mark_of_its_own_can_be_written_and_read(tmp_path: Path) -> None:
    write_charset(tmp_path / "charset.txt", "z\u0301")
    assert read_charset(tmp_path / "charset.txt") == "z\u0301"
    assert Charset.from_spec(str(tmp_path / "charset.txt")).characters == "z\u0301"


def test_a_charset_has_each_character_once_and_the_space_last() -> None:
    assert charset_of(["b a", "ab"], "ac") == "abc "


def test_characters_without_a_font_are_told_by_name() -> None:
    drawn, lacking = drawable("a\u0364ꝛz", [plain_font_file().parent])
    assert drawn == "az"
    assert named(lacking) == ["U+0364 COMBINING LATIN SMALL LETTER E", "U+A75B LATIN SMALL LETTER R ROTUNDA"]


def test_texts_with_a_character_are_found_in_a_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Thaten\nTha\u0364ten\nzu⸗\n", encoding="utf-8")
    assert texts_with(corpus, "\u0364⸗") == ["Tha\u0364ten", "zu⸗"]
    assert texts_with(corpus, "") == []


def test_the_error_rate_is_edits_by_characters_and_lies_in_its_interval() -> None:
    lines = [{"label": "abcd", "text": "abcd"}, {"label": "ab", "text": "b"}, {"label": "abc", "text": "xyzabc"}] * 10
    found = character_errors(lines)
    assert found["rate"] == pytest.approx((0 + 1 + 3) / (4 + 2 + 3))
    assert found["interval"][0] < found["rate"] < found["interval"][1]


def test_the_interval_of_equal_lines_has_no_width() -> None:
    assert character_errors([{"label": "abcd", "text": "abcx"}] * 8)["interval"] == [0.25, 0.25]


def test_the_difference_of_two_models_is_paired_line_by_line() -> None:
    worse = [{"label": "a" * n, "text": "a" * (n - 2)} for n in (4, 6, 9)]
    better = [{"label": "a" * n, "text": "a" * (n - 1)} for n in (4, 6, 9)]
    found = character_errors(worse, better)
    assert found["rate"] == pytest.approx(3 / 19)
    assert found["interval"][0] > 0
    assert character_errors(worse, worse) == {"rate": 0.0, "interval": [0.0, 0.0]}


def test_the_table_counts_the_minutes_of_what_a_model_started_from() -> None:
    models = ("synthesis.pt", "tuned.pt", "real.pt", "longer.pt")
    rate = {"rate": 0.1, "interval": [0.05, 0.2]}
    row: dict[str, Any] = {"lines": 206, "exact": 0.25, "exact_interval": [0.2, 0.3]}
    found = {
        "cer": dict.fromkeys(models, rate),
        "bench": {"results": [row | {"model": model} for model in models]},
        "runs": {model: {"seconds": 60 * i} for i, model in enumerate(("start.pt", *models), start=1)},
    }
    rows = own_language_table({"sets": {"lines_de": found}}).splitlines()[2:]
    assert [row.split("|")[-2].strip() for row in rows] == ["3", "6", "5", "6"]
    assert rows[0].startswith("| lines_de, 206 lines | synthesis alone | 10.0 (5.0 to 20.0) | 25.0 (20.0 to 30.0) |")
