"""What any source of lines can do: parts of it, weights, a held-out share, and what cannot be learnt from."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from crnn.data_check import main as check_lines
from crnn.data_import import main as import_lines
from data.folder_lines import FolderLines
from data.lines import (
    Picture,
    StoredLines,
    Subset,
    WithoutLabels,
    fitting_lines,
    group_of,
    hold_out,
    is_held_out,
    open_lines,
    required_columns,
    split_source,
)
from data.lmdb_lines import Entry, LmdbLines, write_lmdb

WORDS = ["Milk", "2.50", "Total", "book"]


def made(folder: Path, texts: list[str | None], width: int = 64) -> LmdbLines:
    """An LMDB of grey pictures with these labels."""
    encoded = cv2.imencode(".png", np.full((32, width, 3), 128, np.uint8))[1].tobytes()
    write_lmdb(folder / "made.lmdb", [Entry(encoded, text, f"images/{i}.png") for i, text in enumerate(texts)])
    return LmdbLines(folder / "made.lmdb")


def outside_abc(text: str) -> str:
    return "".join(sorted(set(text.lower()) - set("abc")))


def quarter(height: int, width: int) -> int:
    return width * 32 // height // 4


def fitting(
    source: StoredLines, drop: bool = False, unlabelled: bool = False, normalise: Callable[[str], str] = str
) -> tuple[StoredLines, dict[str, int]]:
    return fitting_lines(source, outside_abc, quarter, drop, unlabelled, normalise)


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("a", 1), ("ab", 2), ("aa", 3), ("aaa", 5), ("book", 5), ("Aa", 2)]
)
def test_ctc_needs_a_column_a_character_and_one_between_equal_neighbours(text: str, columns: int) -> None:
    assert required_columns(text) == columns


@pytest.mark.parametrize(
    ("text", "source", "weight"),
    [
        ("synth", "synth", 1.0),
        ("synth:2", "synth", 2.0),
        ("a/b.lmdb:0.25", "a/b.lmdb", 0.25),
        ("a/b.lmdb:1e-3", "a/b.lmdb", 0.001),
        ("C:/words", "C:/words", 1.0),
        ("C:\\words", "C:\\words", 1.0),
        ("C:\\words:3", "C:\\words", 3.0),
        ("odd:name", "odd:name", 1.0),
    ],
)
def test_a_source_may_carry_a_weight_after_its_last_colon(text: str, source: str, weight: float) -> None:
    assert split_source(text) == (source, weight)


def test_an_lmdb_without_keys_and_its_copies_hold_out_the_same_lines(
    tmp_path: Path, without_keys: Callable[[Path, Picture, int], Path]
) -> None:
    theirs = without_keys(tmp_path / "theirs.lmdb", np.full((32, 64, 3), 128, np.uint8), 60)
    imported, fixed = tmp_path / "imported.lmdb", tmp_path / "fixed.lmdb"
    assert import_lines([str(theirs), "--out", str(imported)]) == 0
    check_lines([str(theirs), "--fix", str(fixed), "--count-as-remark", "duplicate", "contradiction"])
    held = [hold_out(LmdbLines(path), 0.3)[1].texts() for path in (theirs, imported, fixed)]
    assert held[0] == held[1] == held[2]
    assert 5 < len(held[0]) < 40


def test_labels_that_are_not_looked_at_are_none(tmp_path: Path) -> None:
    stored = made(tmp_path, ["Milk", None, "Total"])
    lines = WithoutLabels(stored)
    assert list(lines.texts()) == [None, None, None]
    assert [lines[i].text for i in range(len(lines))] == [None, None, None]
    assert lines.reduced(0, 16).text is None
    assert lines[2].key == stored[2].key


@pytest.mark.parametrize("text", ["synth:0", "a.lmdb:-1", "a.lmdb:nan"])
def test_a_weight_that_is_not_above_0_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' gives its source the weight .*; give a number above 0"):
        split_source(text)


def test_what_lies_at_a_path_tells_how_it_is_opened(tmp_path: Path, labelled_folder: Path) -> None:
    assert isinstance(open_lines(labelled_folder), FolderLines)
    made(tmp_path, ["a"])
    assert isinstance(open_lines(tmp_path / "made.lmdb"), LmdbLines)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; give an LMDB, a folder or a zip"):
        open_lines(tmp_path / "nowhere")


def test_a_subset_has_the_chosen_lines_in_the_chosen_order(labelled_folder: Path) -> None:
    source = FolderLines(labelled_folder)
    subset = Subset(source, (2, 0))
    assert len(subset) == 2
    assert subset.path == source.path
    assert list(subset.texts()) == [subset[0].text, subset[1].text] == ["Total", "Milk"]
    assert list(subset.keys()) == [subset[0].key, subset[1].key]
    assert list(subset.sizes()) == [subset[i].picture.shape[:2] for i in range(2)]


def test_a_subset_of_a_subset_is_one_of_the_source(labelled_folder: Path) -> None:
    inner = Subset(FolderLines(labelled_folder), (3, 1, 0))
    assert list(Subset(inner, (0, 2)).texts()) == ["book", "Milk"]


@pytest.fixture
def many(tmp_path: Path, draw_word: Callable[[str], Picture]) -> Path:
    """A folder of 60 labelled pictures, one of which is named like the folder."""
    folder = tmp_path / "words"
    (folder / "images").mkdir(parents=True)
    encoded = cv2.imencode(".png", draw_word("a"))[1].tobytes()
    names = [f"images/{number}.png" for number in range(59)] + ["images/words.png"]
    for name in names:
        (folder / name).write_bytes(encoded)
    (folder / "labels.tsv").write_text("".join(f"{name}\t{Path(name).stem}\n" for name in names))
    return folder


@pytest.fixture
def same_lines(many: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StoredLines]]:
    """The 60 lines in a folder, by a relative path, from within, in a zip, and in the LMDB that is made of them."""
    with zipfile.ZipFile(many.with_suffix(".zip"), "w") as archive:
        for file in sorted(many.rglob("*.*")):
            archive.write(file, file.relative_to(many).as_posix())
    lines = FolderLines(many)
    write_lmdb(many.with_suffix(".lmdb"), map(lines.entry, range(len(lines))))
    monkeypatch.chdir(many.parent)
    sources: list[StoredLines] = [
        FolderLines(many), FolderLines("words"), FolderLines(many.with_suffix(".zip")),
        LmdbLines(many.with_suffix(".lmdb")), LmdbLines("words.lmdb"),
    ]  # fmt: skip
    yield sources
    monkeypatch.chdir(many)
    assert held(FolderLines(".")) == held(sources[0])


def held(source: StoredLines, share: float = 0.3) -> set[str | None]:
    return set(hold_out(source, share)[1].texts())


def test_the_held_out_lines_are_the_same_in_a_folder_a_zip_and_the_lmdb_made_of_it(
    same_lines: list[StoredLines],
) -> None:
    first = held(same_lines[0])
    assert 8 < len(first) < 30
    assert first == {Path(name).stem for name in names_of(60) if is_held_out(f"training/{name}", 0.3)}
    assert all(held(source) == first for source in same_lines[1:])


def names_of(count: int) -> list[str]:
    return [f"images/{number}.png" for number in range(count - 1)] + ["images/words.png"]


def test_every_line_is_either_held_out_or_not_and_the_order_stays(many: Path) -> None:
    rest, kept = hold_out(FolderLines(many), 0.3)
    assert len(rest) + len(kept) == 60
    assert not set(rest.texts()) & set(kept.texts())
    order = list(FolderLines(many).texts())
    assert [order.index(text) for text in rest.texts()] == sorted(order.index(text) for text in rest.texts())


def test_a_larger_share_holds_the_lines_of_a_smaller_one(many: Path) -> None:
    source = FolderLines(many)
    assert held(source, 0) == set()
    assert held(source, 0.1) < held(source, 0.3) < held(source, 0.7)


@pytest.fixture
def receipts(tmp_path: Path) -> LmdbLines:
    """200 lines of 40 receipts, five of each, and 40 lines that belong to none."""
    encoded = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    grouped = [Entry(encoded, f"r{i % 40}", f"r{i % 40}/{i}.png", group=f"r{i % 40}") for i in range(200)]
    write_lmdb(tmp_path / "r.lmdb", grouped + [Entry(encoded, f"alone {i}", f"{i}.png") for i in range(40)])
    return LmdbLines(tmp_path / "r.lmdb")


def test_no_group_is_on_both_sides_of_a_split(receipts: LmdbLines) -> None:
    rest, kept = hold_out(receipts, 0.25)
    assert not set(rest.groups()) & set(kept.groups()) - {None}
    assert 3 < len(set(kept.groups())) < 20
    assert len(rest) + len(kept) == 240
    alone = [i for i, text in enumerate(receipts.texts()) if (text or "").startswith("alone")]
    names = [f"training/{i}.png" for i in range(len(alone))]
    expected = {f"alone {i}" for i, name in enumerate(names) if is_held_out(name, 0.25)}
    assert {text for text in kept.texts() if (text or "").startswith("alone")} == expected


def test_a_group_is_held_out_wherever_it_lies(receipts: LmdbLines, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    encoded = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    for i in range(40):
        (folder / f"x{i}.png").write_bytes(encoded)
    (folder / "labels.tsv").write_text("".join(f"x{i}.png\tword\tr{i}\n" for i in range(40)))
    one, other = (set(hold_out(source, 0.25)[1].groups()) - {None} for source in (receipts, FolderLines(folder)))
    assert one == other


def test_an_expression_finds_groups_that_the_source_does_not_know(many: Path) -> None:
    rest, kept = hold_out(FolderLines(many), 0.4, r"/(\d)\d\.png|$")
    tens = [{text[0] for text in part.texts() if text and len(text) == 2} for part in (rest, kept)]
    assert tens[0] | tens[1] == set("12345")
    assert not tens[0] & tens[1]


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        (r"^[^/]+/", "r12/"),
        (r"r(\d+)/", "12"),
        (r"(page\d+)|$", None),
        (r"(line)|$", "line"),
        (r"line_(\d)", "3"),
        ("", None),
    ],
)
def test_a_group_is_the_first_bracket_or_the_whole_match(pattern: str, group: str | None) -> None:
    assert group_of("r12/line_3.png", pattern, "x.lmdb") == group


def test_a_name_without_group_is_refused_unless_the_expression_lets_it_pass() -> None:
    with pytest.raises(ValueError, match=r"a\.png of x\.lmdb does not match --group-by 'r\(\\\\d\+\)'; widen it"):
        group_of("a.png", r"r(\d+)", "x.lmdb")
    with pytest.raises(ValueError, match=r"--group-by '\(' is no regular expression"):
        group_of("a.png", "(", "x.lmdb")


def test_an_lmdb_without_names_is_held_out_by_number_wherever_it_lies(tmp_path: Path) -> None:
    encoded = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    shares = []
    for place in ("here", "there/deeper"):
        (tmp_path / place).mkdir(parents=True)
        with lmdb.open(str(tmp_path / place), map_size=1 << 20) as environment, environment.begin(write=True) as put:
            put.put(b"num-samples", b"40")
            for number in range(1, 41):
                put.put(b"image-%09d" % number, encoded)
                put.put(b"label-%09d" % number, b"%d" % number)
        shares.append(held(LmdbLines(tmp_path / place)))
    assert 0 < len(shares[0]) < 40
    assert shares[0] == shares[1]


def test_a_source_that_fits_is_handed_back_as_it_is(tmp_path: Path) -> None:
    source = made(tmp_path, ["abc", "cab"])
    assert fitting(source) == (source, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"images/1\.png of .* has no label"),
        ("", r"images/1\.png of .* has no label"),
        ("axbyc", r"images/1\.png of .*: the label 'axbyc' holds 'xy', which the charset does not"),
        (
            "aabbccaabbcc",
            r"images/1\.png of .*: the label 'aabbccaabbcc' needs 18 columns and the picture of 64 x 32 .* 16;",
        ),
    ],
)
def test_a_line_that_cannot_be_learnt_from_is_refused_with_its_key_and_reason(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        fitting(made(tmp_path, ["abc", text]))
    assert "--drop-bad" in str(caught.value)


def test_lines_that_are_dropped_are_counted_by_reason(tmp_path: Path) -> None:
    texts: list[str | None] = ["abc", None, "x", "", "a" * 9, "cab", "y"]
    source, counts = fitting(made(tmp_path, texts), drop=True)
    assert list(source.texts()) == ["abc", "cab"]
    assert counts == {"no label": 2, "outside the charset": 2, "too few columns": 1}


def test_a_line_without_label_is_kept_where_labels_are_not_needed(tmp_path: Path) -> None:
    source, counts = fitting(made(tmp_path, ["abc", None]), unlabelled=True)
    assert list(source.texts()) == ["abc", None]
    assert counts == {}


def test_a_line_with_just_enough_columns_is_kept(tmp_path: Path) -> None:
    assert fitting(made(tmp_path, ["abcabcabcabcabca"]))[1] == {}  # 16 characters, 64 pixels


def test_columns_are_counted_for_the_label_as_it_is_learnt(tmp_path: Path) -> None:
    source = made(tmp_path, ["AaAaAaAaAa"])  # 10 columns as it stands, 19 where both cases are one letter
    assert fitting(source)[1] == {}
    with pytest.raises(ValueError, match="needs 19 columns"):
        fitting(source, normalise=str.lower)


def test_a_source_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"made\.lmdb holds no line that can be learnt from \({'outside the charset'"):
        fitting(made(tmp_path, ["x", "y"]), drop=True)
