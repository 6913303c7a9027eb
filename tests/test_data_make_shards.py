"""crnn data make --shard and --join: parts drawn anywhere make the set that one run makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crnn.cli import main
from crnn.data_make import MakeOptions
from data.lmdb_lines import LmdbLines
from data.synthesis.fonts import plain_font_file


def make(out: Path, *flags: str) -> int:
    fonts = ["--fonts", "all", "--font-folders", str(plain_font_file().parent)]
    return main(["data", "make", "--out", str(out), "--count", "50", "--seed", "5", "--workers", "1", *fonts, *flags])


def test_shards_joined_are_the_set_of_one_run_to_the_byte(tmp_path: Path) -> None:
    assert make(tmp_path / "whole.lmdb") == 0
    for shard in ("3/3", "1/3", "2/3"):
        assert make(tmp_path / "lines.lmdb", "--shard", shard) == 0
    assert [len(LmdbLines(tmp_path / f"lines.{i}-of-3.lmdb")) for i in (1, 2, 3)] == [16, 17, 17]
    assert make(tmp_path / "lines.lmdb", "--join", "3") == 0
    assert (tmp_path / "lines.lmdb/data.mdb").read_bytes() == (tmp_path / "whole.lmdb/data.mdb").read_bytes()
    assert json.loads((tmp_path / "lines.lmdb.run.json").read_text())["result"]["lines"] == 50


def test_a_missing_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "lines.lmdb", "--shard", "1/2") == 0
    assert make(tmp_path / "lines.lmdb", "--join", "2") == 1
    assert "lines.2-of-2.lmdb does not exist; draw it with --shard 2/2" in capsys.readouterr().err
    assert not (tmp_path / "lines.lmdb").exists()


def test_shards_of_different_sets_are_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "lines.lmdb", "--shard", "1/2") == 0
    assert make(tmp_path / "lines.lmdb", "--shard", "2/2", "--seed", "6") == 0
    assert make(tmp_path / "lines.lmdb", "--join", "2") == 1
    assert "different seed" in capsys.readouterr().err


def test_what_shards_were_drawn_with_is_told_of_the_whole_and_nothing_else_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path / "lines.lmdb", "--shard", "1/1", "--seed", "7") == 0
    for flags in (("--seed", "8"), ("--seed", "7", "--longest", "3")):
        assert make(tmp_path / "lines.lmdb", "--join", "1", *flags) == 1
    assert capsys.readouterr().err.count("the shards were drawn") == 2
    assert make(tmp_path / "lines.lmdb", "--join", "1", "--seed", "7") == 0
    assert json.loads((tmp_path / "lines.lmdb.run.json").read_text())["options"]["seed"] == 7


def test_the_whole_of_shards_tells_how_its_lines_look(tmp_path: Path) -> None:
    out = tmp_path / "lines.lmdb"
    assert make(out, "--shard", "1/1", "--longest", "7") == 0
    assert main(["data", "make", "--out", str(out), "--join", "1"]) == 0
    told = json.loads((tmp_path / "lines.lmdb.run.json").read_text())["options"]
    assert (told["count"], told["seed"], told["synth"]["longest"]) == (50, 5, 7)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "2", "a/b", "1/51", "1/0"])
def test_an_impossible_shard_is_refused(tmp_path: Path, shard: str) -> None:
    with pytest.raises(ValueError, match="--shard is"):
        MakeOptions(tmp_path / "x.lmdb", count=50, shard=shard)
