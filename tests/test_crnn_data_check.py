"""crnn data check and what it leaves, as a user calls it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from crnn.cli import main
from data.lines import Picture
from data.lmdb_lines import Entry, LmdbLines, write_lmdb

Make = Callable[..., Path]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function: name, then (picture or bytes, label) a line -> a folder with labels.tsv."""

    def made(name: str, *lines: tuple[Picture | bytes, str]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number, (picture, _) in enumerate(lines):
            encoded = picture if isinstance(picture, bytes) else cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
            (folder / f"{number}.png").write_bytes(encoded)
        rows = "".join(f"{number}.png\t{label}\n" for number, (_, label) in enumerate(lines))
        (folder / "labels.tsv").write_text(rows, encoding="utf-8")
        return folder

    return made


def findings(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, list[tuple[str, str]]]:
    """Kind -> (key, detail) of each line, of a check with --json."""
    run("data", "check", *arguments, "--json")
    found = json.loads(capsys.readouterr().out)["findings"]
    return {kind: [(line["key"], line["detail"]) for line in value["lines"]] for kind, value in found.items()}


def test_a_good_set_has_no_finding_and_status_0(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "check", labelled_folder) == 0
    assert capsys.readouterr().out == f"{labelled_folder}: 4 lines, 4 labelled\n\n0 errors, 0 remarks\n"
    run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb")
    assert run("data", "check", tmp_path / "x.lmdb", "--charset", "ascii") == 0


def test_an_error_is_named_with_its_key_and_gives_status_1(
    labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (labelled_folder / "images/000003.png").write_bytes(b"broken")
    assert run("data", "check", labelled_folder) == 1
    out = capsys.readouterr().out
    assert "error  broken-picture: 1  (the picture" in out
    assert "  images/000003.png  'book'  images/000003.png does not decode as a picture (6 bytes)" in out
    assert out.endswith("\n1 errors, 0 remarks\n")


def test_remarks_leave_the_status_0_unless_they_count_as_errors(
    make: Make, draw_word: Callable[[str], Picture]
) -> None:
    folder = make("set", (draw_word("The"), "T h e"), (draw_word("book"), "book"))
    assert run("data", "check", folder) == 0
    assert run("data", "check", folder, "--count-as-error", "letter-spaced") == 1


def test_errors_may_count_as_remarks(make: Make, draw_word: Callable[[str], Picture]) -> None:
    folder = make("set", (draw_word("The"), "The"), (draw_word("book"), ""))
    assert run("data", "check", folder) == 1
    assert run("data", "check", folder, "--count-as-remark", "no-label") == 0


def test_the_charset_counts_what_is_outside(labelled_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", labelled_folder, "--charset", "alphanumeric-lower", "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["characters_outside"] == {"M": 1, ".": 1, "T": 1}
    assert [line["detail"] for line in result["findings"]["outside-charset"]["lines"]] == [
        "'M' U+004D", "'.' U+002E", "'T' U+0054",
    ]  # fmt: skip
    assert run("data", "check", labelled_folder, "--charset", "chars:0123456789.abcdefghijklmnopqrstuvwxyz",
               "--case", "lower") == 0  # fmt: skip


def test_a_label_is_missing_only_where_others_have_one(
    labelled_folder: Path, make: Make, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    assert findings(capsys, labelled_folder / "images") == {"unlabelled": [("", "4 lines")]}
    folder = make("set", (draw_word("The"), ""), (draw_word("book"), "book"))
    assert findings(capsys, folder) == {"no-label": [("0.png", "")]}


def test_equal_pictures_are_told_apart_by_their_labels(
    make: Make, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    total, book, milk = map(draw_word, ("Total", "book", "Milk"))
    folder = make("set", (total, "Total"), (book, "book"), (total, "TOTAL"), (book, "hook"), (milk, "Milk"))
    assert findings(capsys, folder) == {
        "contradiction": [
            ("3.png", f"like 1.png of {folder}, labelled 'book'"),
            ("1.png", f"like 3.png of {folder}, labelled 'hook'"),
        ],
        "duplicate": [("2.png", f"like 0.png of {folder}")],
    }


def test_lines_of_another_set_are_leaks_and_their_own_repeats_are_not_told(
    make: Make, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    total, book, milk = map(draw_word, ("Total", "book", "Milk"))
    test = make("test", (total, "Total"), (total, "Total"), (milk, "Milk"))
    folder = make("set", (book, "book"), (total, "Total"), (milk, "Mi1k"))
    assert findings(capsys, folder, "--against", test) == {
        "contradiction": [("2.png", f"like 2.png of {test}, labelled 'Milk'")],
        "leak": [("1.png", f"like 0.png of {test}")],
    }


def test_several_sets_are_checked_as_one(
    make: Make, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (make(name, (draw_word("Total"), "Total")) for name in ("one", "other"))
    assert findings(capsys, one, other) == {"duplicate": [("0.png", f"like 0.png of {one}")]}


def test_an_lmdb_whose_label_is_no_text_is_told_and_not_raised(
    tmp_path: Path, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    encoded = cv2.imencode(".png", draw_word("a"))[1].tobytes()
    write_lmdb(tmp_path / "x.lmdb", [Entry(encoded, "a", "first"), Entry(encoded, "a", "second")])
    with lmdb.open(str(tmp_path / "x.lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"label-000000002", b"\xff")
    ((key, detail),) = findings(capsys, tmp_path / "x.lmdb")["broken-picture"]
    assert key == "second"
    assert "is not UTF-8" in detail


def test_fix_writes_the_lines_without_an_error_and_lists_the_others(
    make: Make, draw_word: Callable[[str], Picture], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total, book, milk = map(draw_word, ("Total", "book", "Milk"))
    folder = make("set", (total, " Total"), (b"no", "no"), (total, "total"), (book, "book"), (book, "hook"), (milk, ""))
    out = tmp_path / "clean.lmdb"
    assert run("data", "check", folder, "--fix", out) == 1
    assert "clean.lmdb: 2 lines; 4 left out, see" in capsys.readouterr().out
    clean = LmdbLines(out)
    assert list(clean.texts()) == ["Total", "total"]
    assert clean.keys() == ["0.png", "2.png"]
    assert np.array_equal(clean[0].picture, total)
    rows = [row.split("\t") for row in (tmp_path / "clean.lmdb.left-out.tsv").read_text().splitlines()]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("1.png", "broken-picture", "no"), ("5.png", "no-label", ""),
        ("4.png", "contradiction", "hook"), ("3.png", "contradiction", "book"),
    ]  # fmt: skip
    assert run("data", "check", out, "--count-as-error", "duplicate", "--fix", tmp_path / "cleaner.lmdb") == 1
    assert list(LmdbLines(tmp_path / "cleaner.lmdb").texts()) == ["Total"]
    assert run("data", "check", tmp_path / "cleaner.lmdb", "--count-as-error", "duplicate") == 0


def test_what_was_found_is_told_where_no_line_is_left_to_write(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("set", (b"no", "no"), (b"nor", "nor"))
    (tmp_path / "file").write_text("mine")
    for fixed in ("clean.lmdb", "file"):
        assert run("data", "check", folder, "--fix", tmp_path / fixed) == 1
        said = capsys.readouterr()
        assert "broken-picture" in said.out
        assert str(tmp_path / fixed) in said.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_picture_of_a_format_that_training_does_not_take_is_found(
    make: Make, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("set", (cv2.imencode(".ras", draw_word("Total"))[1].tobytes(), "Total"))
    ((key, detail),) = findings(capsys, folder)["broken-picture"]
    assert key == "0.png"
    assert "is damaged, or of none of the formats JPEG, PNG" in detail


def test_fix_never_writes_over_what_it_checks(
    make: Make, draw_word: Callable[[str], Picture], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("set", (draw_word("Total"), "Total"), (draw_word("book"), ""))
    assert run("data", "import", folder, "--out", tmp_path / "x.lmdb", "--drop-bad") == 0
    before = (tmp_path / "x.lmdb" / "data.mdb").read_bytes()
    for sources in ([tmp_path / "x.lmdb"], [folder, "--against", tmp_path / "x.lmdb"]):
        assert run("data", "check", *sources, "--fix", tmp_path / "set/../x.lmdb") == 1
        assert "is what is read here; give what is written another name" in capsys.readouterr().err
    assert (tmp_path / "x.lmdb" / "data.mdb").read_bytes() == before


def test_pictures_that_are_listed_and_not_there_are_findings_and_left_out(
    make: Make, draw_word: Callable[[str], Picture], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total, book, milk = map(draw_word, ("Total", "book", "Milk"))
    folder = make("set", (total, "Total"), (book, "book"), (milk, "Milk"))
    for name in ("0.png", "2.png"):
        (folder / name).unlink()
    told = findings(capsys, folder, "--fix", tmp_path / "x.lmdb")["broken-picture"]
    assert [key for key, _ in told] == ["0.png", "2.png"]
    assert "there is no 0.png" in told[0][1]
    assert list(LmdbLines(tmp_path / "x.lmdb").texts()) == ["book"]


def test_fix_keeps_groups(make: Make, draw_word: Callable[[str], Picture], tmp_path: Path) -> None:
    folder = make("set", (draw_word("Total"), "Total\tr1"), (draw_word("book"), "book\tr2"))
    assert run("data", "check", folder, "--fix", tmp_path / "x.lmdb") == 0
    assert list(LmdbLines(tmp_path / "x.lmdb").groups()) == ["r1", "r2"]


def test_a_model_that_is_sure_of_another_text_makes_a_label_suspicious(
    make: Make, paint: Callable[[str], Picture], colour_reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the two columns of the a, one would have to be a c (20 nats less) and one the blank (10 less)."""
    folder = make("set", (paint("a.b.c"), "abc"), (paint("a.b.c"), "A B C"), (paint("b.a.b"), "bcb"))
    found = findings(capsys, folder, "--with", colour_reader)
    assert found["suspicious"] == [("2.png", f"reads 'bab', {math.exp(30):.3g} to 1 for each character")]
    assert "suspicious" not in findings(capsys, folder, "--with", colour_reader, "--odds", "1e14")


def test_labels_that_the_model_cannot_write_are_counted_and_not_compared(
    make: Make, paint: Callable[[str], Picture], colour_reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "check", make("set", (paint("a.b.c"), "xyz")), "--with", colour_reader) == 0
    assert "1 labels hold characters that the model does not know; not compared" in capsys.readouterr().out


def test_a_line_that_lies_on_its_side_is_told_from_a_wrong_label(
    make: Make, paint: Callable[[str], Picture], colour_reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lying = np.ascontiguousarray(np.rot90(paint("a.b.c.a"), 2))
    found = findings(capsys, make("set", (lying, "abca")), "--with", colour_reader)
    assert found == {"turned": [("0.png", "reads 'abca' turned by 180 degrees")]}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "no set was given"),
        (("x", "--count-as-error", "nonsense"), "there is no finding 'nonsense'; known are broken-picture"),
        (("x", "--odds", "1"), "--odds is 1.0; give a number above 1"),
    ],
)
def test_flags_that_make_no_sense_are_wrong_usage(
    flags: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "check", *flags) == 2
    assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())


def report_of(folder: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run("data", "check", folder, "--json")
    path.write_text(capsys.readouterr().out)
    return path


def test_a_sheet_never_takes_the_place_of_a_picture_that_it_shows(
    make: Make, draw_word: Callable[[str], Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("set", (draw_word("Total"), "Total"))
    before = (folder / "0.png").read_bytes()
    assert run("data", "show", folder, "--out", folder / "0.png") == 1
    assert "is, or belongs to, what is read here" in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before
    assert run("data", "show", folder, "--out", folder.parent / "sheet.png") == 0


def test_the_lines_of_a_finding_can_be_shown(
    make: Make, draw_word: Callable[[str], Picture], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("set", (draw_word("Total"), "Total"), (draw_word("The"), "T h e"), (draw_word("End"), "E n d"))
    report = report_of(folder, tmp_path / "check.json", capsys)
    out = tmp_path / "sheet.html"
    assert run("data", "show", "--report", report, "--finding", "letter-spaced", "--out", out) == 0
    assert "2 of 2 letter-spaced" in capsys.readouterr().out
    page = out.read_text()
    assert page.count("<img ") == 2
    assert 'data-key="1.png"' in page
    assert "&#x27;T h e&#x27;" in page
    assert run("data", "show", folder, "--report", report, "--finding", "letter-spaced", "--out", out) == 0
    assert run("data", "show", "--report", report, "--finding", "leak", "--out", out) == 1
    assert "has no finding 'leak'; it has letter-spaced" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["sheet.html", "sheet.png"])
def test_pictures_that_cannot_be_read_are_shown_with_what_was_found(
    make: Make, draw_word: Callable[[str], Picture], tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    folder = make("set", (draw_word("Total"), "Total"), (b"no", "book"), (draw_word("Milk"), "Milk"))
    (folder / "2.png").unlink()
    report = report_of(folder, tmp_path / "check.json", capsys)
    assert run("data", "show", "--report", report, "--finding", "broken-picture", "--out", tmp_path / out) == 0
    assert "2 of 2 broken-picture" in capsys.readouterr().out
    if out == "sheet.html":
        page = (tmp_path / out).read_text()
        assert all(text in page for text in ('data-key="1.png"', "book", "there is no 2.png"))


def test_keys_choose_the_lines_of_a_page(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"images/000002.png\n{labelled_folder}/images/000000.png\n")
    out = tmp_path / "sheet.html"
    assert run("data", "show", labelled_folder, "--keys", keys, "--out", out) == 0
    assert [out.read_text().count(word) for word in ("Milk", "Total", "book", "2.50")] == [1, 1, 0, 0]
    keys.write_text("images/000009.png\n")
    assert run("data", "show", labelled_folder, "--keys", keys, "--out", out) == 1
    assert f"names 'images/000009.png', which is not in {labelled_folder}" in capsys.readouterr().err


def test_a_page_is_one_file_and_labels_are_text_on_it(make: Make, draw_word: Callable[[str], Picture]) -> None:
    folder = make("set", (draw_word("b"), "<b>&</b>"))
    assert run("data", "show", folder, "--out", folder / "page.html") == 0
    page = (folder / "page.html").read_text()
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in page
    assert "http" not in page


def test_stats_tell_sizes_and_characters(labelled_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "stats", labelled_folder, "--json", "--rare", "2") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["lines"], result["labelled"], result["groups"]) == (4, 4, 0)
    assert result["length"] == pytest.approx([4, 4, 4, 4.85, 5])
    assert result["height"] == [32] * 5
    assert result["width"] == result["width_at_32"]
    assert result["characters"] == {
        "o": 3, "l": 2, "k": 2, "M": 1, "i": 1, "2": 1, ".": 1, "5": 1, "0": 1, "T": 1, "t": 1, "a": 1, "b": 1
    }  # fmt: skip
    assert result["rare"] == [".", "0", "2", "5", "M", "T", "a", "b", "i", "t"]


def test_stats_are_a_table_and_a_picture(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (labelled_folder, labelled_folder / "images"):
        assert run("data", "stats", source, "--plot", tmp_path / "x.png") == 0
        assert cv2.imread(str(tmp_path / "x.png")) is not None
    out = capsys.readouterr().out
    assert "height, pixels               32       32       32       32       32\n" in out
    assert "13 characters (9 Latin, 3 digits, 1 punctuation), 17 in all" in out


def test_neither_check_nor_stats_imports_torch(labelled_folder: Path, tmp_path: Path, repository: Path) -> None:
    commands = [["data", "check", str(labelled_folder)], ["data", "stats", str(labelled_folder)]]
    script = f"import sys\nfrom crnn.cli import main\nprint([main(c) for c in {commands}], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0] False"
