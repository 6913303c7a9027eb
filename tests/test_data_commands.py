"""crnn data import, make and show, as a user calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from crnn.cli import main
from data.folder_lines import FolderLines
from data.lines import Line, open_lines
from data.lmdb_lines import LmdbLines
from data.synthesis.fonts import packaged_folders
from data.synthesis.source import SynthesisOptions, SynthesisSource

WORDS = ["Milk", "2.50", "Total", "book"]
DEJAVU = packaged_folders()[-1]
PLAIN_FONTS = ("--fonts", "all", "--font-folders", str(DEJAVU))


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def same_line(one: Line, other: Line) -> bool:
    return np.array_equal(one.picture, other.picture) and one.text == other.text


@pytest.fixture
def words_zip(labelled_folder: Path) -> Path:
    path = labelled_folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(labelled_folder.rglob("*")):
            archive.write(file, file.relative_to(labelled_folder).as_posix())
    return path


def test_a_folder_and_a_zip_of_it_become_the_same_lmdb(tmp_path: Path, labelled_folder: Path, words_zip: Path) -> None:
    assert run("data", "import", labelled_folder, "--out", tmp_path / "f.lmdb") == 0
    assert run("data", "import", words_zip, "--out", tmp_path / "z.lmdb") == 0
    assert (tmp_path / "f.lmdb/data.mdb").read_bytes() == (tmp_path / "z.lmdb/data.mdb").read_bytes()
    stored, source = LmdbLines(tmp_path / "f.lmdb"), FolderLines(labelled_folder)
    assert all(same_line(stored[i], source[i]) for i in range(4))
    assert stored.keys()[0] == "images/000000.png"


def test_labels_and_pictures_may_lie_apart(tmp_path: Path, labelled_folder: Path, words_zip: Path) -> None:
    labels = tmp_path / "elsewhere.tsv"
    labels.write_text("images/000002.png\tsum\n")
    for place in (labelled_folder, words_zip):
        assert run("data", "import", "--labels", labels, "--pictures", place, "--out", tmp_path / "x.lmdb") == 0
        assert list(LmdbLines(tmp_path / "x.lmdb").texts()) == ["sum"]


def test_labels_alone_name_pictures_beside_them(tmp_path: Path, labelled_folder: Path) -> None:
    assert run("data", "import", "--labels", labelled_folder / "labels.tsv", "--out", tmp_path / "x.lmdb") == 0
    assert list(LmdbLines(tmp_path / "x.lmdb").texts()) == WORDS


def test_pictures_without_labels_are_imported_only_when_that_is_meant(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = labelled_folder / "images"
    assert run("data", "import", pictures, "--out", tmp_path / "x.lmdb") == 1
    sentence = "holds no labels.tsv; add it, give --labels, or import without labels by --unlabelled"
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x.lmdb").exists()
    assert run("data", "import", pictures, "--out", tmp_path / "x.lmdb", "--unlabelled") == 0
    assert list(LmdbLines(tmp_path / "x.lmdb").texts()) == [None] * 4


def test_a_label_outside_the_charset_stops_the_import_with_its_key(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb", "--charset", "digits") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"images/000000.png of {labelled_folder} is labelled 'Milk', of which 'Mikl' is not in the charset" in error
    assert [path for path in tmp_path.iterdir() if path != labelled_folder] == []


def test_labels_outside_the_charset_are_dropped_and_counted_when_asked(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--charset", "chars:0123456789.", "--drop-outside-charset", "--json")
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb", *flags) == 0
    assert json.loads(capsys.readouterr().out) == {
        "written": {str(tmp_path / "x.lmdb"): 1},
        "left_out": {"a label outside the charset": 3},
        "characters": ".025",
    }


def test_the_charset_may_be_a_file(tmp_path: Path, labelled_folder: Path) -> None:
    charset = tmp_path / "charset.txt"
    charset.write_text("\n".join(sorted(set("".join(WORDS)))) + "\n")
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb", "--charset", charset) == 0


def test_a_charset_that_is_nothing_known_is_refused(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb", "--charset", "asci") == 1
    assert "there is no charset 'asci'; give one of digits, alphanumeric-lower" in capsys.readouterr().err


def test_labels_are_stored_in_the_case_that_is_asked_for(tmp_path: Path, labelled_folder: Path) -> None:
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb", "--case", "upper") == 0
    assert list(LmdbLines(tmp_path / "x.lmdb").texts()) == ["MILK", "2.50", "TOTAL", "BOOK"]


def test_a_broken_picture_stops_the_import_or_is_dropped_and_counted(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (labelled_folder / "images/000003.png").write_bytes(b"broken")
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb") == 1
    assert f"images/000003.png of {labelled_folder} does not decode whole" in capsys.readouterr().err
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb", "--drop-bad") == 0
    assert "left out: 1 with a broken picture" in capsys.readouterr().out
    assert list(LmdbLines(tmp_path / "x.lmdb").texts()) == WORDS[:3]


def test_a_validation_slice_is_the_same_lines_every_time(tmp_path: Path, labelled_folder: Path) -> None:
    for number in range(60):
        shutil.copy(labelled_folder / "images/000000.png", labelled_folder / f"images/more{number}.png")
    rows = [f"images/more{number}.png\tword {number}\n" for number in range(60)]
    (labelled_folder / "labels.tsv").write_text("".join(rows))
    assert run("data", "import", labelled_folder, "--out", tmp_path / "a.lmdb", "--validation", "0.3") == 0
    (labelled_folder / "labels.tsv").write_text("".join(reversed(rows)))
    flags = ("--validation", "0.3", "--validation-out", tmp_path / "held.lmdb")
    assert run("data", "import", labelled_folder, "--out", tmp_path / "b.lmdb", *flags) == 0
    kept, held = (set(LmdbLines(tmp_path / name).texts()) for name in ("a.lmdb", "a.validation.lmdb"))
    assert kept | held == {f"word {number}" for number in range(60)}
    assert kept.isdisjoint(held)
    assert 8 <= len(held) <= 28
    assert held == set(LmdbLines(tmp_path / "held.lmdb").texts())


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "no pictures were given"),
        (("pictures.zip", "--pictures", "other.zip"), "give one or the other"),
        (("pictures.zip", "--validation", "1.5"), "--validation is 1.5"),
        (("pictures.zip", "--unlabelled", "--charset", "ascii"), "--unlabelled stores no labels"),
    ],
)
def test_flags_that_contradict_each_other_are_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], sentence: str
) -> None:
    assert run("data", "import", "--out", tmp_path / "x.lmdb", *flags) == 2
    assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_an_import_runs_again_from_its_run_file(tmp_path: Path, labelled_folder: Path) -> None:
    out = tmp_path / "x.lmdb"
    assert run("data", "import", labelled_folder, "--out", out, "--case", "lower") == 0
    shutil.rmtree(out)
    assert run("data", "import", "--options", tmp_path / "x.lmdb.run.json") == 0
    assert list(LmdbLines(out).texts()) == ["milk", "2.50", "total", "book"]


def make(out: Path, *flags: str) -> LmdbLines:
    assert run("data", "make", "--out", out, "--count", "70", "--seed", "5", *PLAIN_FONTS, *flags) == 0
    return LmdbLines(out)


def test_lines_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    make(tmp_path / "one.lmdb", "--workers", "1")
    make(tmp_path / "two.lmdb", "--workers", "2")
    assert (tmp_path / "one.lmdb/data.mdb").read_bytes() == (tmp_path / "two.lmdb/data.mdb").read_bytes()


def test_baked_lines_are_those_of_the_source_with_their_columns(tmp_path: Path) -> None:
    stored = make(tmp_path / "x.lmdb", "--workers", "1", "--longest", "8", "--characters", "abcdefgh")
    options = SynthesisOptions(fonts="all", font_folders=(DEJAVU,), longest=8, characters="abcdefgh")
    source = SynthesisSource(options, seed=5)
    for i in range(70):
        drawn, read = source[i], stored[i]
        assert same_line(drawn, read)
        assert read.key == drawn.key
        assert drawn.columns is not None
        assert np.array_equal(drawn.columns, read.columns if read.columns is not None else ())


def test_jpeg_takes_less_room_and_the_same_labels(tmp_path: Path) -> None:
    lossless, jpeg = make(tmp_path / "png.lmdb"), make(tmp_path / "jpg.lmdb", "--quality", "70")
    assert lossless.texts() == jpeg.texts()
    assert lossless.sizes() == jpeg.sizes()
    sizes = [(tmp_path / name / "data.mdb").stat().st_size for name in ("jpg.lmdb", "png.lmdb")]
    assert sizes[0] < sizes[1]


def test_a_contact_sheet_of_every_kind_of_source_is_written(
    tmp_path: Path, labelled_folder: Path, words_zip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "x.lmdb", "--workers", "1")
    for source, told in ((labelled_folder, "4 of 4"), (words_zip, "4 of 4"), (tmp_path / "x.lmdb", "6 of 70")):
        assert run("data", "show", source, "--out", tmp_path / "sheet.png", "--count", "6", "--columns-drawn") == 0
        assert told in capsys.readouterr().out
        assert cv2.imread(str(tmp_path / "sheet.png")) is not None
        (tmp_path / "sheet.png").unlink()


def test_which_lines_are_shown_follows_the_seed(tmp_path: Path) -> None:
    make(tmp_path / "x.lmdb", "--workers", "1")
    sheets = []
    for name, flags in (("a", ()), ("b", ()), ("c", ("--seed", "1")), ("d", ("--first",))):
        out = tmp_path / f"{name}.png"
        assert run("data", "show", tmp_path / "x.lmdb", "--out", out, "--count", "5", *flags) == 0
        sheets.append(out.read_bytes())
    assert sheets[0] == sheets[1]
    assert len(set(sheets)) == 3


def test_showing_what_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "show", tmp_path / "nothing.lmdb") == 1
    assert capsys.readouterr().err.startswith("crnn data show: ")


def test_no_data_command_imports_torch(tmp_path: Path, labelled_folder: Path, repository: Path) -> None:
    commands = [
        ["data", "import", str(labelled_folder), "--out", str(tmp_path / "x.lmdb")],
        ["data", "make", "--out", str(tmp_path / "y.lmdb"), "--count", "2", "--workers", "1", *PLAIN_FONTS],
        ["data", "show", str(tmp_path / "x.lmdb"), "--out", str(tmp_path / "x.png")],
    ]
    script = f"import sys\nfrom crnn.cli import main\nprint([main(c) for c in {commands}], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[0, 0, 0] False"
    assert len(open_lines(tmp_path / "y.lmdb")) == 2
