"""Labels as users have them, and what is asked of a line before it is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from crnn.charset import Charset, normalise
from data.importers.rows import Row
from data.importers.screening import Screening, screened
from data.importers.tsv import parse_label_file
from data.lines import Picture
from data.picture_files import PictureFiles


def as_written(text: str) -> str:
    return normalise(text, "keep")


def labels(content: bytes) -> dict[str, str]:
    return parse_label_file(content, "l").labels


def test_labels_are_read_in_their_order_as_they_are_written() -> None:
    found = labels("b.png\tzwei Wo\u0308rter\na.png\t\n".encode())
    assert list(found.items()) == [("b.png", "zwei Wo\u0308rter"), ("a.png", "")]


def test_a_byte_order_mark_and_other_line_ends_are_fine() -> None:
    assert labels("\ufeffa.png\tx\r\nb.png\ty".encode()) == {"a.png": "x", "b.png": "y"}


def test_a_label_may_hold_what_unicode_counts_as_a_line_break() -> None:
    assert labels("a.png\tx\u2028y\n".encode()) == {"a.png": "x\u2028y"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a.png\tx\nb.png y\n", r"line 2 of l\.tsv has 0 tabs \('b\.png y'\); write picture<TAB>text"),
        (b"a.png\tx\nb.png\tx\ty\n", r"line 2 of l\.tsv has 2 tabs .*; write picture<TAB>text$"),
        (b"a.png\tx\tp1\nb.png\ty\n", r"line 2 of l\.tsv has 1 tabs .*; write picture<TAB>text<TAB>group$"),
        (b"a.png\tx\ty\tz\n", r"line 1 of l\.tsv has 3 tabs"),
        (b"a.png\tx\nb.png\ty\na.png\tz\n", r"line 3 of l\.tsv labels a\.png a second time"),
        (b"a.png\tx\nb.png\t\xff\n", r"line 2 of l\.tsv is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_line_of_labels_is_told_with_its_number(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_label_file(content, "l.tsv")


def test_a_picture_that_is_not_there_is_named(labelled_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no x\.png in .*words; add it or remove its label"):
        PictureFiles(labelled_folder).read("x.png")


@pytest.fixture
def word(draw_word: Callable[[str], Picture]) -> bytes:
    return cv2.imencode(".jpg", draw_word("word"))[1].tobytes()


def row(encoded: bytes, text: str | None, name: str) -> Row:
    return Row(name, text, "", lambda: encoded)


def screen(rows: list[Row], **rules: object) -> tuple[list[str | None], Counter[str]]:
    dropped: Counter[str] = Counter()
    screening = Screening(**({"normalise": as_written} | rules))  # type: ignore[arg-type]
    entries = list(screened(rows, screening, dropped, "words.zip"))
    assert len(entries) == len(rows)
    return [entry.text for entry in entries if entry is not None], dropped


def test_labels_are_normalised_and_lose_space_at_their_ends(word: bytes) -> None:
    lower = Charset.of("abcdefghijklmnopqrstuvwxyz", "lower")
    assert screen([row(word, " Word ", "a")], normalise=lower.normalise, outside=lower.missing)[0] == ["word"]


def test_an_empty_label_is_refused_with_its_key_or_dropped_and_counted(word: bytes) -> None:
    entries = [row(word, "a", "1"), row(word, "  ", "2"), row(word, None, "3")]
    with pytest.raises(ValueError, match=r"2 of words\.zip has an empty label; .* --drop-bad"):
        screen(entries)
    assert screen(entries, drop_bad=True) == (["a"], Counter({"an empty label": 2}))


def test_a_label_outside_the_charset_is_refused_with_its_key_or_dropped_and_counted(word: bytes) -> None:
    entries = [row(word, "a1", "1"), row(word, "ab", "2")]
    outside = Charset.of("a1").missing
    with pytest.raises(ValueError, match=r"2 of words\.zip is labelled 'ab', of which 'b' is not in the charset"):
        screen(entries, outside=outside, drop_bad=True)
    kept, dropped = screen(entries, outside=outside, drop_outside_charset=True)
    assert (kept, dropped) == (["a1"], Counter({"a label outside the charset": 1}))


@pytest.mark.parametrize("cut", [0, 10, 200, -20])
def test_a_picture_that_is_cut_off_is_refused_with_its_key_or_dropped_and_counted(word: bytes, cut: int) -> None:
    entries = [row(word[:cut], "a", "1"), row(word, "b", "2")]
    with pytest.raises(ValueError, match=r"1 of words\.zip does not decode whole as a picture \(\d+ bytes\)"):
        screen(entries, drop_outside_charset=True)
    assert screen(entries, drop_bad=True) == (["b"], Counter({"a broken picture": 1}))


def test_unlabelled_lines_lose_their_labels_and_still_have_to_decode(word: bytes) -> None:
    assert screen([row(word, "a", "1"), row(word, None, "2")], unlabelled=True)[0] == [None, None]
    with pytest.raises(ValueError, match="does not decode whole"):
        screen([row(b"", None, "1")], unlabelled=True)


def test_a_missing_picture_is_refused_with_the_place_of_its_label_or_dropped_and_counted(
    word: bytes, labelled_folder: Path
) -> None:
    files = PictureFiles(labelled_folder)
    rows = [Row("x.png", "a", "line 7 of l.tsv", lambda: files.read("x.png")), row(word, "b", "2")]
    with pytest.raises(FileNotFoundError, match=r"line 7 of l\.tsv: there is no x\.png in .*words; .* --drop-bad"):
        screen(rows)
    assert screen(rows, drop_bad=True) == (["b"], Counter({"a missing picture": 1}))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../x.png", r"line 1 of l\.tsv names \.\./x\.png, which leads out of the folder"),
        ("a/../../x.png", "leads out of the folder"),
        ("..\\x.png", "leads out of the folder"),
        (".", "leads out of the folder"),
        ("/etc/x.png", "an absolute path; write it relative"),
        ("C:\\x.png", "an absolute path"),
        ("\\\\server\\x.png", "an absolute path"),
        (" ", "names no picture"),
    ],
)
def test_a_name_that_is_not_below_the_folder_of_the_pictures_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_label_file(f"{name}\tx\n".encode(), "l.tsv")


def test_a_name_is_brought_to_its_shortest_form_before_doubles_are_sought() -> None:
    assert labels(b"./a.png\tx\nb//c.png\ty\n") == {"a.png": "x", "b/c.png": "y"}
    with pytest.raises(ValueError, match=r"line 2 of l labels a\.png a second time"):
        labels(b"a.png\tx\n./a.png\ty\n")
