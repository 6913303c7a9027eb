"""Lines in an LMDB: what was written is read, by any process, and nothing half-written passes for whole."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from data.lines import Line, Picture, StoredLines, Subset
from data.lmdb_lines import Entry, LmdbLines, write_lmdb

Drawer = Callable[[str], Picture]
WORDS = ("Milk", "2.50", "Über", "book")


def png(picture: Picture) -> bytes:
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


def entry(text: str | None, drawn: Picture, name: str) -> Entry:
    return Entry(png(drawn), text, name)


@pytest.fixture
def entries(draw_word: Drawer) -> list[Entry]:
    return [entry(word, draw_word("x" * (i + 2)), f"shop/{i}.png") for i, word in enumerate(WORDS)]


@pytest.fixture
def path(tmp_path: Path, entries: list[Entry]) -> Path:
    write_lmdb(tmp_path / "lines.lmdb", entries)
    return tmp_path / "lines.lmdb"


@pytest.fixture
def stored(path: Path) -> LmdbLines:
    return LmdbLines(path)


def alter(path: Path, key: bytes, value: bytes | None) -> None:
    """Overwrites or removes one value, as damage would."""
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)


def test_what_was_written_is_read(stored: LmdbLines, draw_word: Drawer) -> None:
    line = stored[2]
    assert len(stored) == 4
    assert np.array_equal(line.picture, draw_word("xxxx"))
    assert (line.text, line.key, line.columns) == ("Über", "shop/2.png", None)


def test_texts_keys_and_sizes_agree_with_the_lines(stored: LmdbLines) -> None:
    lines: list[Line] = [stored[i] for i in range(len(stored))]
    assert list(stored.texts()) == [line.text for line in lines]
    assert list(stored.keys()) == [line.key for line in lines]
    assert list(stored.sizes()) == [line.picture.shape[:2] for line in lines]


def test_an_lmdb_is_a_stored_source(stored: LmdbLines) -> None:
    source: StoredLines = stored
    assert [line.text for line in iter_lines(source)] == list(WORDS)


def iter_lines(source: StoredLines) -> Iterator[Line]:
    return (source[i] for i in range(len(source)))


def test_there_is_no_line_outside_the_range(stored: LmdbLines) -> None:
    with pytest.raises(IndexError, match=r"lines\.lmdb holds 4 lines; there is no line 4"):
        stored[4]
    with pytest.raises(IndexError):
        stored[-1]


def test_the_keys_are_those_of_the_field(path: Path) -> None:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert transaction.get(b"num-samples") == b"4"
        assert transaction.get(b"label-000000003") == "Über".encode()
        assert bytes(transaction.get(b"image-000000001", b"")).startswith(b"\x89PNG")
        assert transaction.get(b"image-000000000") is None


def test_an_lmdb_of_others_is_read_and_its_lines_named_by_their_number(tmp_path: Path, draw_word: Drawer) -> None:
    other = lmdb.open(str(tmp_path / "other"), map_size=1 << 24)
    with other, other.begin(write=True) as transaction:
        transaction.put(b"image-000000001", png(draw_word("a")))
        transaction.put(b"label-000000001", b"a")
        transaction.put(b"num-samples", b"1")
    lines = LmdbLines(tmp_path / "other")
    assert (lines[0].text, lines[0].key) == ("a", f"image-000000001 of {tmp_path / 'other'}")
    assert list(lines.keys()) == [lines[0].key]


def test_keys_of_others_are_passed_over(path: Path, entries: list[Entry]) -> None:
    alter(path, b"label-abc", b"not ours")
    assert list(LmdbLines(path).texts()) == [entry.text for entry in entries]


def test_labels_of_others_are_brought_to_nfc(path: Path) -> None:
    alter(path, b"label-000000003", b"U\xcc\x88ber")
    lines = LmdbLines(path)
    assert lines[2].text == lines.texts()[2] == "Über"


def test_a_line_without_label_has_none(tmp_path: Path, draw_word: Drawer) -> None:
    write_lmdb(tmp_path / "u.lmdb", [entry(None, draw_word("a"), "a"), entry("", draw_word("b"), "b")])
    lines = LmdbLines(tmp_path / "u.lmdb")
    assert list(lines.texts()) == [None, ""]
    assert lines[0].text is None


def test_columns_come_back_as_they_were(tmp_path: Path, draw_word: Drawer) -> None:
    columns = np.array([[0.1, 0.4], [0.4, 0.9]], np.float32)
    write_lmdb(tmp_path / "c.lmdb", [Entry(png(draw_word("ab")), "ab", "k", columns)])
    read = LmdbLines(tmp_path / "c.lmdb")[0].columns
    assert read is not None
    assert read.dtype == np.float32
    assert np.array_equal(read, columns)


def test_columns_that_do_not_fit_their_text_are_refused(tmp_path: Path, draw_word: Drawer) -> None:
    wrong = Entry(png(draw_word("ab")), "ab", "line 7", np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="line 7: columns of shape"):
        write_lmdb(tmp_path / "c.lmdb", [wrong])
    assert list(tmp_path.iterdir()) == []


def test_more_lines_than_the_map_holds_make_it_grow(tmp_path: Path, draw_word: Drawer) -> None:
    drawn = draw_word("growing")
    many = [entry(f"word {i}", drawn, str(i)) for i in range(2500)]
    assert write_lmdb(tmp_path / "g.lmdb", many, map_size=1 << 16) == 2500
    lines = LmdbLines(tmp_path / "g.lmdb")
    assert list(lines.texts()) == [e.text for e in many]
    assert list(lines.keys()) == [e.key for e in many]


def test_the_same_entries_give_the_same_bytes(tmp_path: Path, entries: list[Entry]) -> None:
    write_lmdb(tmp_path / "a.lmdb", entries)
    write_lmdb(tmp_path / "b.lmdb", iter(entries))
    assert (tmp_path / "a.lmdb/data.mdb").read_bytes() == (tmp_path / "b.lmdb/data.mdb").read_bytes()


def test_two_sources_of_one_path_are_read_side_by_side(stored: LmdbLines) -> None:
    other = LmdbLines(stored.path)
    assert other[0].text == stored[0].text
    del other
    assert stored[1].text == "2.50"


def test_a_pickled_source_opens_itself_anew(stored: LmdbLines) -> None:
    copy = pickle.loads(pickle.dumps(stored))
    assert copy[2].text == "Über"
    assert copy.path == stored.path


def read_all(source: LmdbLines, answers: multiprocessing.Queue[list[str | None]]) -> None:
    answers.put([line.text for line in iter_lines(source)])


@pytest.mark.parametrize("context", [multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_source_that_is_open_is_read_in_several_processes_at_once(
    stored: LmdbLines, context: ForkContext | SpawnContext
) -> None:
    assert stored[0].text == "Milk"
    answers = context.Queue()
    workers = [context.Process(target=read_all, args=(stored, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    read = [answers.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert read == [list(WORDS)] * 3
    assert [line.text for line in iter_lines(stored)] == list(WORDS)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_workers_of_a_data_loader_read_it(stored: LmdbLines) -> None:
    from torch.utils.data import DataLoader  # not above: the spawned workers import this module

    stored.texts()
    loader = DataLoader(stored, batch_size=None, num_workers=2, collate_fn=text_of)  # type: ignore[arg-type,var-annotated]
    assert list(loader) == list(WORDS)


def text_of(line: Line) -> str | None:
    return line.text


def test_a_value_that_does_not_decode_is_named_with_its_key_and_path(path: Path) -> None:
    alter(path, b"image-000000002", b"not a picture")
    lines = LmdbLines(path)
    named = r"shop/1\.png \(image-000000002 of .*lines\.lmdb\) does not decode"
    with pytest.raises(ValueError, match=named):
        lines[1]
    with pytest.raises(ValueError, match=r"image-000000002 of .*lines\.lmdb does not begin like a picture"):
        lines.sizes()
    assert lines[2].text == "Über"


def test_a_picture_that_is_missing_is_named(path: Path) -> None:
    alter(path, b"image-000000004", None)
    lines = LmdbLines(path)
    for read in (lambda: lines[3], lines.sizes):
        with pytest.raises(ValueError, match=r"image-000000004 of .*lines\.lmdb is missing although num-samples is 4"):
            read()


def test_a_label_that_is_not_utf8_is_named(path: Path) -> None:
    alter(path, b"label-000000001", b"\xff\xfe")
    lines = LmdbLines(path)
    for read in (lambda: lines[0], lines.texts):
        with pytest.raises(ValueError, match=r"label of image-000000001 of .*lines\.lmdb is not UTF-8"):
            read()


def test_an_lmdb_without_lines_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "empty")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"something", b"else")
    with pytest.raises(ValueError, match=r"empty is an LMDB without lines \(num-samples is None\)"):
        LmdbLines(tmp_path / "empty")


def test_a_path_that_is_missing_or_no_lmdb_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.lmdb does not exist; give an LMDB"):
        LmdbLines(tmp_path / "nowhere.lmdb")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder is a folder without data\.mdb"):
        LmdbLines(tmp_path / "folder")
    (tmp_path / "folder/data.mdb").write_bytes(b"text " * 4000)
    with pytest.raises(ValueError, match="folder cannot be opened as an LMDB"):
        LmdbLines(tmp_path / "folder")


def test_an_lmdb_that_was_cut_off_is_refused_instead_of_crashing_the_process(path: Path) -> None:
    size = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", size - 4096)
    with pytest.raises(ValueError, match=rf"lines\.lmdb is cut off: {size - 4096} bytes where {size} are needed"):
        LmdbLines(path)


def test_a_new_lmdb_replaces_the_old_one_under_its_readers(stored: LmdbLines, draw_word: Drawer) -> None:
    write_lmdb(stored.path, [entry("new", draw_word("new"), "new")])
    assert LmdbLines(stored.path)[0].text == "new"
    assert stored[0].text == "Milk"
    assert [p.name for p in stored.path.parent.iterdir()] == ["lines.lmdb"]


def test_what_is_no_lmdb_is_not_replaced(tmp_path: Path, entries: list[Entry]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("mine")
    (tmp_path / "note.txt").write_text("mine")
    for path in (tmp_path / "thesis", tmp_path / "note.txt"):
        with pytest.raises(FileExistsError, match="exists and is not an LMDB; choose another --out"):
            write_lmdb(path, entries)
    assert (tmp_path / "thesis/chapter.txt").read_text() == (tmp_path / "note.txt").read_text() == "mine"


def test_no_lines_at_all_are_refused_and_the_old_lmdb_stays(stored: LmdbLines) -> None:
    with pytest.raises(ValueError, match=r"there are no lines to write to .*lines\.lmdb"):
        write_lmdb(stored.path, [])
    assert len(LmdbLines(stored.path)) == 4


def test_a_source_that_fails_midway_leaves_the_old_lmdb_and_nothing_else(stored: LmdbLines, draw_word: Drawer) -> None:
    def failing() -> Iterator[Entry]:
        for i in range(1500):
            yield entry("x", draw_word("x"), str(i))
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        write_lmdb(stored.path, failing())
    assert list(LmdbLines(stored.path).texts()) == list(WORDS)
    assert [p.name for p in stored.path.parent.iterdir()] == ["lines.lmdb"]


WRITE_MUCH = """
import os, resource, sys
from data.lmdb_lines import Entry, write_lmdb
def entries():
    for i in range(10**6):
        if i == 2000:
            print("far enough", flush=True)
        yield Entry(os.urandom(2000), "x", str(i))
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    write_lmdb(sys.argv[1], entries())
except OSError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_one_sentence_and_the_old_lmdb_stays(stored: LmdbLines, repository: Path) -> None:
    command = [sys.executable, "-c", WRITE_MUCH, str(stored.path), str(1 << 20)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=300, check=False)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert f"{stored.path} could not be written (" in run.stderr
    assert "what was there before is unchanged" in run.stderr
    assert list(LmdbLines(stored.path).texts()) == list(WORDS)
    assert [p.name for p in stored.path.parent.iterdir()] == ["lines.lmdb"]


def test_a_writer_that_is_killed_leaves_the_old_lmdb(stored: LmdbLines, repository: Path) -> None:
    command = [sys.executable, "-c", WRITE_MUCH, str(stored.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "far enough\n"
        writer.send_signal(signal.SIGKILL)
    assert list(LmdbLines(stored.path).texts()) == list(WORDS)
    assert [p.name for p in stored.path.parent.iterdir() if not p.name.startswith(".")] == ["lines.lmdb"]


def test_groups_and_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    encoded = cv2.imencode(".png", np.zeros((4, 8, 3), np.uint8))[1].tobytes()
    columns = np.array([[0, 1]], np.float32)
    entries = [Entry(encoded, "a", "one", columns, "receipt 7"), Entry(encoded, None, "two")]
    write_lmdb(tmp_path / "x.lmdb", entries)
    source = LmdbLines(tmp_path / "x.lmdb")
    assert list(source.groups()) == ["receipt 7", None]
    assert list(Subset(source, (1,)).groups()) == [None]
    first, second = source.entry(0), Subset(source, (1,)).entry(0)
    assert (first.encoded, first.text, first.key, first.group) == (encoded, "a", "one", "receipt 7")
    assert first.columns is not None
    assert np.array_equal(first.columns, columns)
    assert (second.text, second.key, second.group) == (None, "two", None)
