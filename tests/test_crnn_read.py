from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from PIL import ExifTags, Image

from crnn.commands import run_command
from crnn.ctc import Reading, Span
from crnn.drawing import bounds, draw_reading, shown
from crnn.info import main as info_main
from crnn.page import is_page, text_bands
from crnn.read import main
from crnn.runtimes import open_runtime
from data.lines import Picture

Paint = Callable[[str], Picture]
Read = Callable[..., int]


@pytest.fixture
def read(colour_reader: Path) -> Read:
    """The command as the command line calls it, with the colour reader as its model."""
    return lambda *arguments: run_command("crnn read", main, [*map(str, arguments), "--model", str(colour_reader)])


@pytest.fixture
def painted(tmp_path: Path, paint: Paint) -> Callable[[str, str], Path]:
    """A function: name below a folder, letters -> the path of the painted picture."""

    def write(name: str, letters: str) -> Path:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", paint(letters)[:, :, ::-1])[1].tobytes())
        return path

    return write


def page(lines: int, dark: int = 20, light: int = 240) -> Picture:
    """A page of drawn text lines, one below the other."""
    picture = np.full((40 * lines + 220, 520, 3), light, np.uint8)
    for number in range(lines):
        place = (30, 80 + 40 * number)
        cv2.putText(picture, "the quick brown fox jumps over", place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (dark,) * 3, 2)
    return picture


def test_each_picture_gives_path_text_and_confidence_between_tabs(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = painted("one.png", "ab.c"), painted("two.png", "ccc.c")
    assert read(first, second) == 0
    out, err = capsys.readouterr()
    assert out == f"{first}\tabc\t1.000\n{second}\tcc\t1.000\n"
    assert err == ""


def test_a_folder_is_read_whole_in_the_order_of_names(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    painted("b.png", "bbbb"), painted("a/z.png", "abab")
    folder = painted("c.png", "cccc").parent
    (folder / "notes.txt").write_text("no picture")
    assert read(folder, "--batch", "1") == 0
    rows = [row.split("\t") for row in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [
        [f"{folder}/a/z.png", "abab"],
        [f"{folder}/b.png", "b"],
        [f"{folder}/c.png", "c"],
    ]


def test_jpegs_by_their_rarer_names_are_read_and_what_may_be_a_picture_is_told(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = painted("a.jfif", "ab").parent
    painted("b.JPE", "bc"), painted("c.heic", "ca"), painted("d", "cb")
    (folder / "notes.txt").write_text("no picture")
    assert read(folder) == 0
    told = capsys.readouterr()
    assert [row.split("\t")[1] for row in told.out.splitlines()] == ["ab", "bc"]
    assert "passed over 2 files that do not end as pictures do, such as c.heic" in told.err


def test_a_subfolder_that_cannot_be_listed_is_told_and_the_others_are_read(
    read: Read,
    painted: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, locked = painted("z.png", "ab").parent, painted("locked/a.png", "bc").parent
    listed = os.scandir

    def scandir(place: str) -> Any:
        if place == str(locked):
            raise PermissionError(13, "Permission denied", place)
        return listed(place)

    monkeypatch.setattr("os.scandir", scandir)
    assert read(folder) == 1
    assert capsys.readouterr() == (f"{folder}/z.png\tab\t1.000\n", f"crnn read: {locked}: Permission denied\n")


def test_links_that_lead_back_are_not_followed_and_one_that_leads_nowhere_is_named(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = painted("z.png", "ab").parent
    deeper = painted("sub/y.png", "bc").parent
    (deeper / "up").symlink_to(folder)
    (deeper / "itself.png").symlink_to(deeper / "itself.png")
    (folder / "gone.png").symlink_to(folder / "was-here.png")
    assert read(folder) == 1
    out, err = capsys.readouterr()
    assert [row.split("\t")[0] for row in out.splitlines()] == [f"{folder}/sub/y.png", f"{folder}/z.png"]
    assert f"{folder}/gone.png is a link to a file that is not there; mend or remove it" in err
    assert "itself.png" in err


def test_a_photo_is_read_as_viewers_show_it(
    read: Read, paint: Paint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(paint("abcb"))).save(tmp_path / "photo.png", exif=exif)
    assert read(tmp_path / "photo.png") == 0
    assert capsys.readouterr().out.split("\t")[1] == "abcb"


def test_a_zip_is_read_like_a_folder(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("images/1.png", painted("one.png", "bcbc").read_bytes())
    assert read(path) == 0
    assert capsys.readouterr().out == f"{path}/images/1.png\tbcbc\t1.000\n"


def test_a_path_with_a_tab_or_a_line_break_stays_one_field_of_one_line(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = painted("tab\there\nand there.png", "abca")
    assert read(path) == 0
    (row,) = capsys.readouterr().out.splitlines()
    assert row.split("\t")[0].endswith("tab\\there\\nand there.png")
    assert row.split("\t")[1:] == ["abca", "1.000"]


def test_json_holds_the_place_and_confidence_of_every_character(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = painted("one.png", "a.bc")
    assert read(path, "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["path"], entry["text"], entry["turned"]) == (str(path), "abc", 0)
    assert entry["confidence"] == pytest.approx(1, abs=1e-3)
    assert [(c["character"], c["left"], c["right"]) for c in entry["characters"]] == [
        ("a", 0, 8),
        ("b", 16, 24),
        ("c", 24, 32),
    ]


def test_json_without_any_reading_is_an_empty_list(
    read: Read, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert read(tmp_path / "missing.png", "--json") == 1
    assert json.loads(capfd.readouterr().out) == []


def test_what_cannot_be_read_is_named_in_a_sentence_each_and_the_others_are_read(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, missing, empty = tmp_path / "broken.png", tmp_path / "missing.png", tmp_path / "empty"
    broken.write_bytes(b"\x89PNG no picture")
    empty.mkdir()
    good = painted("good.png", "abab")
    assert read(broken, missing, empty, good) == 1
    out, err = capsys.readouterr()
    assert out == f"{good}\tabab\t1.000\n"
    assert sorted(err.splitlines()) == sorted(
        [
            f"crnn read: {broken} does not decode as a picture (15 bytes); replace or remove it",
            f"crnn read: {missing}: No such file or directory",
            f"crnn read: {empty} holds no pictures; give a folder or a zip of them",
        ]
    )


def test_a_picture_whose_header_promises_too_many_pixels_is_named_too(
    read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    huge = tmp_path / "huge.png"
    huge.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert read(huge) == 1
    assert capsys.readouterr().err.startswith(f"crnn read: {huge} does not decode as a picture")


def test_a_strip_too_high_for_its_margins_is_named_and_the_others_are_read(
    colour_reader: Path, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = open_runtime(colour_reader).info
    stored = onnx.load(str(colour_reader))
    spec = replace(info.input_spec, narrow="margins")
    onnx.helper.set_model_props(stored, {"pocket_crnn": replace(info, input_spec=spec).to_json()})
    onnx.save(stored, str(with_margins := tmp_path / "margins.onnx"))
    good, strip = painted("good.png", "ab.c"), painted("a-strip.png", "a")
    cv2.imwrite(str(strip), np.zeros((20000, 1, 3), np.uint8))
    assert run_command("crnn read", main, [str(good.parent), "--model", str(with_margins)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{good}\tab")
    assert captured.err.startswith(f"crnn read: {strip} (1 x 20000 pixels) is too high for a line")


def test_a_page_is_named_as_one_and_the_others_are_read(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.png"
    cv2.imwrite(str(path), page(10))
    good = painted("good.png", "abab")
    assert read(path, good) == 1
    out, err = capsys.readouterr()
    assert out == f"{good}\tabab\t1.000\n"
    assert err.startswith(f"crnn read: {path} is a page (520 x 620 pixels, ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("lines", [3, 6, 20])
@pytest.mark.parametrize(("dark", "light"), [(20, 240), (230, 40), (120, 170)])
def test_a_page_is_told_whatever_its_colours(lines: int, dark: int, light: int) -> None:
    assert text_bands(page(lines, dark, light)) == lines
    assert is_page(page(lines, dark, light))


def test_one_or_two_lines_are_no_page_however_large() -> None:
    assert not is_page(page(1))
    assert not is_page(page(2))


def test_a_word_that_fills_a_high_picture_is_no_page(draw_word: Callable[[str], Picture]) -> None:
    for text in ("EBE", "Fig", "g=8", "i", "%%", "ill:"):
        large = cv2.resize(draw_word(text), None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        assert large.shape[0] > 200
        assert not is_page(large)


def test_stripes_and_noise_are_no_page() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[::40] = stripes[1::40] = stripes[2::40] = stripes[3::40] = 255
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    assert not is_page(stripes)
    assert not is_page(noise)
    assert not is_page(np.full((400, 400, 3), 128, np.uint8))


def test_readings_below_the_least_confidence_are_left_out_and_counted(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sure = painted("sure.png", "abab")
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((32, 64, 3), 160, np.uint8))  # as red as green as blue
    assert read(sure, grey, "--min-confidence", "0.5") == 0
    out, err = capsys.readouterr()
    assert out == f"{sure}\tabab\t1.000\n"
    assert err == "crnn read: left out 1 of 2 readings, below --min-confidence 0.5\n"


def test_a_lexicon_holds_the_beam_search_to_its_words(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("ab\nbc\nxyz\n", encoding="utf-8")
    path = painted("one.png", "abc.")
    assert read(path, "--decoder", "beam") == 0
    assert capsys.readouterr().out.split("\t")[1] == "abc"
    assert read(path, "--decoder", "beam", "--lexicon", lexicon) == 0
    out, err = capsys.readouterr()
    assert out.split("\t")[1] in ("ab", "bc")
    assert err == (
        f"crnn read: {lexicon}: 1 entries, such as 'xyz', hold characters the model does not know "
        "and can never be read\n"
    )


def test_a_lexicon_that_does_not_fit_is_refused_in_one_sentence(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, lexicon = painted("one.png", "abc."), tmp_path / "words.txt"
    lexicon.write_bytes("Käse\n".encode("latin-1"))
    assert read(path, "--decoder", "beam", "--lexicon", lexicon) == 1
    told = capsys.readouterr().err
    assert told == f"crnn read: {lexicon} is not UTF-8 (invalid continuation byte at byte 1); convert it\n"


def test_known_words_win_where_the_picture_is_doubtful(
    read: Read, paint: Paint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.ascontiguousarray(paint("c.b.b."))
    picture[:, 16:24] = (240, 255, 0)  # a little greener than red: b before a
    path, words = tmp_path / "one.png", tmp_path / "words.txt"
    path.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
    words.write_text("CAB\n", encoding="utf-8")
    assert read(path) == 0
    assert capsys.readouterr().out.split("\t")[1] == "cbb"
    assert read(path, "--words", words) == 0
    assert capsys.readouterr().out.split("\t")[1] == "cab"


@pytest.mark.parametrize("content", ["a\n\n", "42\n", "κρασί\n"])
def test_a_list_without_a_word_that_the_model_can_write_is_refused(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    words = tmp_path / "words.txt"
    words.write_text(content, encoding="utf-8")
    assert read(painted("one.png", "ab"), "--words", words) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"crnn read: {words} holds no word of two letters or more that ")
    assert told.endswith(" can write; give a UTF-8 file of words, one a line\n")


def test_nothing_to_read_is_told(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    assert read() == 1
    assert capsys.readouterr().err == "crnn read: no picture was given; give files or folders\n"


def test_a_model_that_is_not_there_is_told_before_any_picture_is_opened(
    painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(painted("one.png", "abab")), "--model", str(tmp_path / "none.onnx")]
    assert run_command("crnn read", main, arguments) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "none.onnx" in err


def test_drawings_get_a_name_each_and_show_picture_and_bounds(
    read: Read, painted: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = painted("a/same.png", "ab.c"), painted("b/same.png", "c.ca")
    assert read(first, second, "--draw", tmp_path / "drawn") == 0
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["same-2.png", "same.png"]
    drawn = cv2.imread(str(tmp_path / "drawn" / "same.png"))
    assert drawn is not None
    assert drawn.shape[0] > 96
    assert (drawn[20] == (60, 30, 220)).all(axis=1).sum() == 4  # BGR: left of a, a|b, b|c, right of c


@pytest.mark.parametrize("folder", [".", "sub/.."])
def test_a_drawing_never_takes_the_place_of_a_picture(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    picture = painted("photo.png", "ab")
    painted("sub/other.png", "ab")
    before = picture.read_bytes()
    for given in (picture, picture.parent):
        assert read(given, "--draw", picture.parent / folder) == 1
        assert "would write over" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_a_drawing_never_takes_the_place_of_a_file_beside_the_picture(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    beside = painted("photo.png", "ab")
    picture = painted("photo.bmp", "ab")
    before = beside.read_bytes()
    assert read(picture, "--draw", picture.parent) == 1
    assert f"would write over {beside}" in capsys.readouterr().err
    assert beside.read_bytes() == before


def test_drawings_in_a_folder_that_is_read_are_refused_for_they_would_be_read_too(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = painted("photo.png", "ab").parent
    assert read(folder, "--draw", folder / "drawn") == 1
    assert f"--draw {folder / 'drawn'} lies in {folder}, which is read" in capsys.readouterr().err
    assert not (folder / "drawn").exists()


def test_a_very_flat_picture_is_not_enlarged_beyond_bounds() -> None:
    flat = np.zeros((1, 9000, 3), np.uint8)
    assert draw_reading(flat, Reading("a", 1.0, (Span(0, 1),), (1.0,)), [(0.0, 4.0)]).width < 17_000


@pytest.mark.parametrize("flag", [("--beam", "4"), ("--lexicon", "words.txt")])
def test_what_only_the_beam_search_takes_is_refused_without_it(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str], flag: tuple[str, str]
) -> None:
    assert read(painted("one.png", "ab"), *flag) == 2
    words = capsys.readouterr().err.replace("│", " ").split()  # the parser puts its messages in a box
    assert f"{flag[0]} is for the beam search; add --decoder beam" in " ".join(words)


@pytest.mark.parametrize("decoder", ["beam", "greedy"])
def test_a_list_of_words_beside_another_decoder_is_refused(
    read: Read, painted: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str], decoder: str
) -> None:
    assert read(painted("one.png", "ab"), "--decoder", decoder, "--words", "words.txt") == 2
    words = capsys.readouterr().err.replace("│", " ").split()
    told = f"--words is for --decoder words and not for {decoder}; leave one of them out"
    assert told in " ".join(words)


def test_bounds_lie_half_way_between_characters() -> None:
    assert bounds([(0, 8), (16, 24), (24, 40)]) == [0, 12, 24, 40]
    assert bounds([]) == []


def test_a_drawing_has_room_for_a_text_wider_than_its_picture(paint: Paint) -> None:
    from crnn.ctc import Reading, Span

    text = "ὁ μῆνις Ἀχιλῆος " * 4
    reading = Reading(text, 0.5, tuple(Span(i, i + 1) for i in range(len(text))), (0.5,) * len(text))
    drawing = draw_reading(paint("a"), reading, [(0.0, 1.0)] * len(text))
    assert drawing.width > 500


def test_a_character_the_font_lacks_is_written_by_its_number() -> None:
    assert shown("aß α Ж") == "aß α Ж"
    assert shown("中1") == "[U+4E2D]1"


def test_reading_with_an_exported_file_imports_neither_torch_nor_torchvision(
    colour_reader: Path, painted: Callable[[str, str], Path], tmp_path: Path
) -> None:
    picture, out = painted("one.png", "abab"), tmp_path / "drawn"
    arguments = ["read", str(picture), "--model", str(colour_reader), "--draw", str(out)]
    program = (
        "import sys; from crnn.cli import main; "
        f"status = main({arguments!r}); "
        "print(status, [name for name in sys.modules if name.partition('.')[0] in ('torch', 'torchvision')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["0 []"]
    assert done.stdout.splitlines()[0].split("\t")[1] == "abab"


def test_info_tells_everything_a_model_file_knows(colour_reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info_main([str(colour_reader), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["charset"] == {"characters": "abc", "case": "keep", "classes": 4}
    assert facts["input_spec"]["turn_above"] == 1.5
    assert facts["sizes"]["backbone"] == "resnet18"
    assert (facts["parameters"], facts["bytes"]) == (12, colour_reader.stat().st_size)
    assert facts["provenance"] == {"command": "painted"}
    assert facts["parity"] == {"largest_difference": 0.0}


def test_info_is_readable_too_and_takes_no_text_of_a_file_for_markup(
    colour_reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(str(colour_reader))
    info = open_runtime(colour_reader).info
    info.provenance["note"] = "[red]as it is[/]"
    onnx.helper.set_model_props(model, {"pocket_crnn": info.to_json()})
    path = tmp_path / "noted.onnx"
    path.write_bytes(model.SerializeToString())
    assert info_main([str(path)]) == 0
    out = capsys.readouterr().out
    for expected in ("abc", "turn above", "1.5", "resnet18", "painted", "[red]as it is[/]", "parity with torch"):
        assert expected in out
