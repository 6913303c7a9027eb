"""An import that is cut off goes on where it was, and never looks whole before it is."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from crnn.cli import main
from data.lines import open_lines
from data.lmdb_lines import LmdbLines

LINES = 70

IMPORT_AND_DIE = """
import os, signal, sys
from crnn.cli import main
from data import lmdb_lines
lmdb_lines.TRANSACTION_LINES = 10
name, when, nth, left = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[3])
owner = lmdb_lines.LmdbWriter if hasattr(lmdb_lines.LmdbWriter, name) else lmdb_lines
whole = getattr(owner, name)
def deadly(*arguments):
    global left
    left -= 1
    if when == "before" and not left:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(*arguments)
    if when == "after" and not left:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, deadly)
sys.exit(main(sys.argv[4:]))
"""


@pytest.fixture
def words(tmp_path: Path, labelled_folder: Path) -> Path:
    """A folder of 70 lines, its characters spread so that no few lines have them all."""
    for number in range(LINES):
        shutil.copy(labelled_folder / "images/000000.png", labelled_folder / f"images/more{number}.png")
    rows = [f"images/more{number}.png\t{chr(0x4E00 + number)} {number}\n" for number in range(LINES)]
    (labelled_folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    return labelled_folder


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def flags(words: Path, out: Path) -> list[str]:
    return ["data", "import", str(words), "--out", str(out), "--validation", "0.3", "--json"]


def killed(repository: Path, name: str, when: str, nth: int, arguments: list[str]) -> None:
    command = [sys.executable, "-c", IMPORT_AND_DIE, name, when, str(nth), *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


def contents(path: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key): bytes(value) for key, value in transaction.cursor()}


def committed(out: Path) -> int:
    """Rows of the source that the killed import had done with."""
    note = contents(out.parent / f".{out.name}.part/set").get(b"progress", b"0 ").decode().partition(" ")[2]
    return int(json.loads(note)["rows"]) if note else 0


KILLS = [("_commit", when, nth) for nth in (1, 2, 3, 6) for when in ("before", "after")]


@pytest.mark.parametrize(("name", "when", "nth"), KILLS)
def test_a_killed_import_goes_on_after_its_last_transaction(
    tmp_path: Path, words: Path, repository: Path, capsys: pytest.CaptureFixture[str], name: str, when: str, nth: int
) -> None:
    assert run(*flags(words, tmp_path / "whole.lmdb")) == 0
    told = capsys.readouterr().out.replace("whole.", "x.")
    out = tmp_path / "x.lmdb"
    killed(repository, name, when, nth, flags(words, out))
    assert not out.exists()
    assert not (tmp_path / "x.validation.lmdb").exists()
    done = committed(out)
    assert done > 0 or nth <= 2
    for number in range(done):  # what is stored is not needed again
        (words / f"images/more{number}.png").unlink()
    assert run(*flags(words, out)) == 0
    printed = capsys.readouterr()
    assert printed.out == told
    assert (f"going on after {done} lines" in printed.err) == (done > 0)
    for name in ("x.lmdb", "x.validation.lmdb"):
        assert contents(tmp_path / name) == contents(tmp_path / name.replace("x.", "whole."))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("name", "when", "nth"), [("_move_into_place", when, nth) for nth in (1, 2) for when in ("before", "after")]
)
def test_an_import_that_is_killed_while_its_two_lmdbs_are_moved_needs_only_the_moves(
    tmp_path: Path, words: Path, repository: Path, capsys: pytest.CaptureFixture[str], name: str, when: str, nth: int
) -> None:
    assert run(*flags(words, tmp_path / "whole.lmdb")) == 0
    told = capsys.readouterr().out.replace("whole.", "x.")
    killed(repository, name, when, nth, flags(words, tmp_path / "x.lmdb"))
    assert (tmp_path / "x.lmdb").exists() == ((when, nth) == ("after", 2))
    if (when, nth) != ("after", 2):
        shutil.rmtree(words / "images")
    assert run(*flags(words, tmp_path / "x.lmdb")) == 0
    assert capsys.readouterr().out == told
    for name in ("x.lmdb", "x.validation.lmdb"):
        assert contents(tmp_path / name) == contents(tmp_path / name.replace("x.", "whole."))
    assert not list(tmp_path.glob(".*"))


def test_an_unfinished_lmdb_does_not_look_whole(tmp_path: Path, words: Path, repository: Path) -> None:
    killed(repository, "_commit", "after", 4, flags(words, tmp_path / "x.lmdb"))
    with pytest.raises(FileNotFoundError):
        open_lines(tmp_path / "x.lmdb")
    with pytest.raises(ValueError, match=r"is an LMDB without lines \(num-samples is None\)"):
        LmdbLines(tmp_path / ".x.lmdb.part/set")


def test_what_was_there_stays_until_the_rerun_is_whole(tmp_path: Path, words: Path, repository: Path) -> None:
    out = tmp_path / "x.lmdb"
    assert run("data", "import", words, "--out", out, "--case", "upper", "--unlabelled") == 0
    killed(repository, "_commit", "after", 3, flags(words, out))
    assert set(LmdbLines(out).texts()) == {None}
    assert run(*flags(words, out)) == 0
    assert None not in LmdbLines(out).texts()


@pytest.mark.parametrize("change", ["labels", "flags"])
def test_the_leftovers_of_another_import_are_replaced(
    tmp_path: Path, words: Path, repository: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    out = tmp_path / "x.lmdb"
    killed(repository, "_commit", "after", 4, flags(words, out))
    if change == "labels":
        (words / "labels.tsv").write_text("images/more0.png\tnew\n")
        assert run("data", "import", words, "--out", out) == 0
        assert list(LmdbLines(out).texts()) == ["new"]
    else:
        assert run(*flags(words, out), "--case", "upper") == 0
        assert len(LmdbLines(out)) + len(LmdbLines(tmp_path / "x.validation.lmdb")) == LINES
    assert "going on" not in capsys.readouterr().err


def test_an_import_may_be_killed_any_number_of_times(
    tmp_path: Path, words: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seen = tmp_path / "x.lmdb", [0]
    for _ in range(3):
        killed(repository, "_commit", "after", 2, flags(words, out))
        seen.append(committed(out))
        assert seen[-1] > seen[-2]
    assert run(*flags(words, out)) == 0
    assert len(LmdbLines(out)) + len(LmdbLines(tmp_path / "x.validation.lmdb")) == LINES


def test_an_import_that_stopped_at_a_bad_line_goes_on_when_it_is_mended(
    tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.lmdb_lines.TRANSACTION_LINES", 10)
    whole = (words / "images/more55.png").read_bytes()
    (words / "images/more55.png").unlink()
    assert run("data", "import", words, "--out", tmp_path / "x.lmdb") == 1
    error = capsys.readouterr().err
    assert re.search(rf"line 56 of {words}/labels\.tsv: there is no images/more55\.png in {words}; add it", error)
    assert error.count("\n") == 1
    assert not (tmp_path / "x.lmdb").exists()
    (words / "images/more55.png").write_bytes(whole)
    assert run("data", "import", words, "--out", tmp_path / "x.lmdb") == 0
    assert "going on after 50 lines" in capsys.readouterr().err
    assert len(LmdbLines(tmp_path / "x.lmdb")) == LINES


def test_two_imports_into_one_lmdb_do_not_disturb_each_other(
    tmp_path: Path, words: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.lmdb"
    waiting = "import sys\nfrom data.lmdb_lines import LmdbWriter\nwith LmdbWriter(sys.argv[1]):\n"
    waiting += "    print('open', flush=True)\n    sys.stdin.read()"
    command = [sys.executable, "-c", waiting, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        assert run("data", "import", words, "--out", out) == 1
        assert f"{out} is being written by another process; wait for it" in capsys.readouterr().err
        writer.kill()
    assert run("data", "import", words, "--out", out) == 0


def test_no_group_is_on_both_sides_of_a_split(tmp_path: Path, words: Path) -> None:
    assert run(*flags(words, tmp_path / "x.lmdb"), "--group-by", r"more(\d)") == 0
    kept, held = (set(LmdbLines(tmp_path / name).groups()) for name in ("x.lmdb", "x.validation.lmdb"))
    assert kept | held == set("0123456789")
    assert kept.isdisjoint(held)


def test_groups_that_a_set_knows_stay_where_group_by_is_empty(tmp_path: Path, words: Path) -> None:
    rows = (words / "labels.tsv").read_text(encoding="utf-8").splitlines()
    grouped = "".join(f"{row}\tpage {number % 30}\n" for number, row in enumerate(rows))
    (words / "labels.tsv").write_text(grouped, encoding="utf-8")
    assert run(*flags(words, tmp_path / "x.lmdb"), "--group-by", "") == 0
    assert set(LmdbLines(tmp_path / "x.lmdb").groups()) < {f"page {number}" for number in range(30)}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--validation", "0.0001"], "--validation 0.0001 holds out no line of"),
        (["--validation", "0.9999"], "--validation 0.9999 holds out every line of"),
        (["--group-by", "^images"], "whose groups (1) stay whole; give another share, or a --group-by"),
    ],
)
def test_a_share_that_leaves_one_side_empty_is_refused_before_anything_is_written(
    tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str], given: list[str], sentence: str
) -> None:
    (tmp_path / "out").mkdir()
    assert run(*flags(words, tmp_path / "out" / "x.lmdb"), *given) == 1
    assert sentence in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.full
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, words: Path, repository: Path, seed: int) -> None:
    out, moments = tmp_path / "x.lmdb", random.Random(seed)
    for _ in range(4):
        slow = IMPORT_AND_DIE.replace("= 10", "= 3")
        command = [sys.executable, "-c", slow, "_commit", "never", "1", *flags(words, out)]
        with subprocess.Popen(command, cwd=repository, stdout=subprocess.DEVNULL) as writer:
            try:
                writer.wait(moments.uniform(0.3, 1.5))
            except subprocess.TimeoutExpired:
                writer.kill()
    assert run(*flags(words, out)) == 0
    assert len(LmdbLines(out)) + len(LmdbLines(tmp_path / "x.validation.lmdb")) == LINES
