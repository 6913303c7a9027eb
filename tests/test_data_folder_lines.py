"""Lines in a folder or a zip of pictures."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from crnn.data_import import main
from data.folder_lines import FolderLines
from data.lines import Picture, StoredLines, open_lines

WORDS = ["Milk", "2.50", "Total", "book"]


def zipped(folder: Path, top: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


@pytest.fixture(params=["folder", "zip"])
def place(request: pytest.FixtureRequest, labelled_folder: Path) -> Path:
    """The same four words in a folder and in a zip."""
    return labelled_folder if request.param == "folder" else zipped(labelled_folder)


def test_labels_tsv_labels_the_pictures(place: Path, draw_word: Callable[[str], Picture]) -> None:
    lines: StoredLines = FolderLines(place)
    assert list(lines.texts()) == [lines[i].text for i in range(len(lines))] == WORDS
    assert np.array_equal(lines[2].picture, draw_word("Total"))


def test_sizes_and_keys_agree_with_the_lines(place: Path) -> None:
    lines = FolderLines(place)
    assert list(lines.sizes()) == [lines[i].picture.shape[:2] for i in range(4)]
    assert list(lines.keys()) == [lines[i].key for i in range(4)]
    assert lines[0].key == f"{place}/images/000000.png"


def test_pictures_without_labels_are_unlabelled_lines_in_the_order_of_names(labelled_folder: Path) -> None:
    (labelled_folder / "labels.tsv").unlink()
    (labelled_folder / "images/notes.txt").write_text("no picture")
    (labelled_folder / "images/.hidden.png").write_bytes(b"")
    (labelled_folder / "__MACOSX").mkdir()
    shutil.copy(labelled_folder / "images/000000.png", labelled_folder / "__MACOSX/copy.png")
    for place in (labelled_folder, zipped(labelled_folder)):
        lines = FolderLines(place)
        assert [Path(key).name for key in lines.keys()] == [f"{i:06d}.png" for i in range(4)]  # noqa: SIM118
        assert list(lines.texts()) == [None] * 4
        assert lines[3].text is None


def test_pictures_that_are_not_listed_are_no_lines(labelled_folder: Path) -> None:
    rows = (labelled_folder / "labels.tsv").read_text().splitlines(keepends=True)
    (labelled_folder / "labels.tsv").write_text("".join(rows[:2]))
    assert list(FolderLines(labelled_folder).texts()) == WORDS[:2]


def test_a_listed_picture_that_is_not_there_is_named(labelled_folder: Path) -> None:
    (labelled_folder / "images/000001.png").unlink()
    for place in (labelled_folder, zipped(labelled_folder)):
        with pytest.raises(FileNotFoundError, match=r"words.*labels\.tsv lists images/000001\.png, which is not there"):
            FolderLines(place)


def test_spaces_around_a_label_are_not_learnt(labelled_folder: Path) -> None:
    (labelled_folder / "labels.tsv").write_text("images/000000.png\t Milk \n", encoding="utf-8")
    lines = FolderLines(labelled_folder)
    assert lines.texts()[0] == lines[0].text == "Milk"
    assert lines.entry(0).text == " Milk "


def test_names_that_were_written_on_windows_are_found(labelled_folder: Path) -> None:
    rows = (labelled_folder / "labels.tsv").read_text(encoding="utf-8")
    (labelled_folder / "labels.tsv").write_text(rows.replace("images/", "images\\"), encoding="utf-8")
    assert list(FolderLines(labelled_folder).texts()) == WORDS
    assert main([str(labelled_folder), "--out", str(labelled_folder / "x.lmdb")]) == 0
    assert list(open_lines(labelled_folder / "x.lmdb").texts()) == WORDS


def test_how_many_listed_pictures_are_not_there_is_told(labelled_folder: Path) -> None:
    for number in (1, 3):
        (labelled_folder / f"images/00000{number}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists images/000001\.png and 1 others, which are not there"):
        FolderLines(labelled_folder)


def test_a_name_that_is_not_utf_8_is_told_when_a_line_is_to_be_stored(labelled_folder: Path) -> None:
    (labelled_folder / "labels.tsv").unlink()
    os.rename(labelled_folder / "images/000001.png", os.fsencode(labelled_folder / "images") + b"/\xff.png")
    lines = FolderLines(labelled_folder)
    assert lines[3].picture.ndim == 3
    with pytest.raises(ValueError, match="is not UTF-8; rename the file"):
        lines.entry(3)


def test_a_picture_that_does_not_decode_is_named(labelled_folder: Path) -> None:
    (labelled_folder / "images/000001.png").write_bytes(b"broken")
    for place in (labelled_folder, zipped(labelled_folder)):
        lines = FolderLines(place)
        with pytest.raises(ValueError, match=r"words.*/images/000001\.png does not decode as a picture \(6 bytes\)"):
            lines[1]
        with pytest.raises(ValueError, match=r"words.*/images/000001\.png does not begin like a picture"):
            lines.sizes()


def test_a_place_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(ValueError, match="empty holds no pictures; give a folder or a zip of them"):
        FolderLines(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        FolderLines(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"text\.zip is neither a folder nor a whole zip"):
        FolderLines(tmp_path / "text.zip")


def test_a_damaged_file_of_a_zip_is_named(labelled_folder: Path) -> None:
    path = zipped(labelled_folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"IHDR") + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images/000000\.png of .*words\.zip cannot be read"):
        FolderLines(path)[0]


def test_a_damaged_deflate_stream_is_one_line_that_cannot_be_read(labelled_folder: Path) -> None:
    path = labelled_folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("0.png", b"some bytes, and some more; " * 50)
        start = made.getinfo("0.png").header_offset + 30 + len("0.png")
    content = bytearray(path.read_bytes())
    content[start : start + 30] = b"\xff" * 30
    path.write_bytes(content)
    lines = FolderLines(path)
    with pytest.raises(ValueError, match=r"0\.png of .* cannot be read"):
        lines[0]


def test_labels_below_the_top_are_not_passed_over(tmp_path: Path, labelled_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"words/labels\.tsv lies in a folder of .*words\.zip"):
        FolderLines(zipped(labelled_folder, "words/"))
    (tmp_path / "only").mkdir()
    shutil.copytree(labelled_folder, tmp_path / "only/words")
    with pytest.raises(ValueError, match=r"words/labels\.tsv lies in a folder of "):
        FolderLines(tmp_path / "only")
    shutil.copytree(labelled_folder, tmp_path / "only/more")
    assert len(FolderLines(tmp_path / "only")) == 8  # pictures of several sets, labels not looked at


def test_a_label_file_without_rows_is_named(labelled_folder: Path) -> None:
    (labelled_folder / "labels.tsv").write_text("")
    with pytest.raises(ValueError, match=r"labels\.tsv names no picture"):
        FolderLines(labelled_folder)


def test_there_is_no_line_outside_the_range(place: Path) -> None:
    with pytest.raises(IndexError, match="holds 4 lines; there is no line 4"):
        FolderLines(place)[4]


def read_texts(lines: FolderLines, answers: multiprocessing.Queue[list[tuple[str | None, int]]]) -> None:
    answers.put([(lines[i].text, int(lines[i].picture.sum())) for i in range(len(lines))])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_zip_that_is_open_is_read_in_forked_processes_at_once(labelled_folder: Path) -> None:
    lines = FolderLines(zipped(labelled_folder))
    expected = [(lines[i].text, int(lines[i].picture.sum())) for i in range(4)]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=read_texts, args=(lines, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=300) for _ in workers] == [expected] * 3
    for worker in workers:
        worker.join()


def test_a_pickled_source_opens_itself_anew(place: Path) -> None:
    lines = FolderLines(place)
    assert lines[0].text == "Milk"
    assert pickle.loads(pickle.dumps(lines))[3].text == "book"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
def test_the_size_of_every_format_is_read_from_its_header(
    tmp_path: Path, draw_word: Callable[[str], Picture], suffix: str
) -> None:
    cv2.imwrite(str(tmp_path / f"word{suffix}"), draw_word("format"))
    lines = FolderLines(tmp_path)
    assert lines.sizes() == [draw_word("format").shape[:2]]
    assert lines[0].picture.shape == draw_word("format").shape


def test_a_third_column_of_labels_is_the_group(labelled_folder: Path) -> None:
    rows = (labelled_folder / "labels.tsv").read_text().splitlines()
    (labelled_folder / "labels.tsv").write_text("".join(f"{row}\t{g}\n" for row, g in zip(rows, "aab ", strict=True)))
    source = FolderLines(labelled_folder)
    assert list(source.groups()) == ["a", "a", "b", " "]
    assert list(source.texts()) == ["Milk", "2.50", "Total", "book"]
    (labelled_folder / "labels.tsv").write_text("".join(f"{row}\t\n" for row in rows))
    assert list(FolderLines(labelled_folder).groups()) == [None] * 4


def test_an_entry_is_what_is_stored(labelled_folder: Path) -> None:
    (labelled_folder / "labels.tsv").write_text("images/000000.png\tcafe\u0301\n", encoding="utf-8")
    source = FolderLines(labelled_folder)
    assert source.texts() == ["caf\u00e9"]
    assert source.entry(0).text == "cafe\u0301"
    assert source.entry(0).encoded == (labelled_folder / "images/000000.png").read_bytes()
    with pytest.raises(IndexError, match="holds 1 lines"):
        source.entry(1)
