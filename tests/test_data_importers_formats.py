"""Every format of other programs: told from what is there, read as it was meant, and refused in one sentence."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from data.importers.formats import Format, open_set
from data.importers.rows import LineSet
from data.lines import Picture
from data.lmdb_lines import Entry, write_lmdb

TEXTS = {"words/1.png": 'a "b", c', "words/2.png": "Größe \\", "words/3.png": "d\u2028e"}


@pytest.fixture
def encoded(draw_word: Callable[[str], Picture]) -> bytes:
    return cv2.imencode(".png", draw_word("word"))[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path, encoded: bytes) -> Path:
    """Three pictures in a folder words/."""
    (tmp_path / "set/words").mkdir(parents=True)
    for name in TEXTS:
        (tmp_path / "set" / name).write_bytes(encoded)
    return tmp_path / "set"


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return folder.with_suffix(".zip")


def texts(lines: LineSet) -> dict[str, str | None]:
    found = {row.name: row.text for row in lines.rows()}
    assert lines.survey().rows == len(found)
    return found


def refusal(path: Path, format: Format | None = None) -> str:
    """The sentence that walking through the set ends with; nothing is imported before the walk has ended."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        open_set(path, None, format).survey()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def icdar() -> str:
    quoted = {name: text.replace("\\", "\\\\").replace('"', '\\"') for name, text in TEXTS.items()}
    return "".join(f'{name}, "{text}"\n' for name, text in quoted.items())


def mmocr(**more: object) -> str:
    entries = [{"img_path": name, "instances": [{"text": text}]} for name, text in TEXTS.items()]
    return json.dumps({"metainfo": {"dataset_type": "TextRecogDataset"}, "data_list": entries} | more, indent=1)


def jsonl(name_key: str = "filename") -> str:
    rows = [{name_key: name, "text": text} for name, text in TEXTS.items()]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


FORMATS = {
    "labels.tsv": "".join(f"{name}\t{text}\n" for name, text in TEXTS.items()),
    "rec_gt_train.txt": "".join(f"./{name}\t{text}\n" for name, text in TEXTS.items()),
    "gt.txt": icdar(),
    "train.json": mmocr(),
    "compact.json": json.dumps(json.loads(mmocr())),
    "train.jsonl": jsonl(),
    "metadata.jsonl": jsonl("file_name"),
    "labels.json": json.dumps(TEXTS, indent=2),
}
"""Name of the label file -> its content."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_label_file_is_read_in_its_folder_in_a_zip_and_by_its_own_name(folder: Path, name: str) -> None:
    (folder / name).write_text(FORMATS[name], encoding="utf-8", newline="")
    for source in (folder, zipped(folder), folder / name):
        assert texts(open_set(source)) == TEXTS


@pytest.mark.parametrize("name", FORMATS)
def test_a_byte_order_mark_and_crlf_are_harmless(folder: Path, name: str) -> None:
    (folder / name).write_text("\ufeff" + FORMATS[name].replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert texts(open_set(folder)) == TEXTS


def test_labels_and_pictures_may_lie_apart(tmp_path: Path, folder: Path, encoded: bytes) -> None:
    (tmp_path / "gt.txt").write_text(icdar())
    for pictures in (folder, zipped(folder)):
        rows = list(open_set(tmp_path / "gt.txt", pictures).rows())
        assert [row.read() for row in rows] == [encoded] * 3


@pytest.mark.parametrize("name", FORMATS)
def test_another_encoding_is_told_with_file_and_line(folder: Path, name: str) -> None:
    (folder / name).write_bytes(FORMATS[name].replace("Größe", "Groesse").encode() + b"\xf6\n")
    lines = FORMATS[name].count("\n") + 1
    assert f"line {lines} of {folder}/{name} is not UTF-8; save the file as UTF-8" in refusal(folder)


@pytest.mark.parametrize(("encoding", "line"), [("utf-16", "not UTF-8"), ("utf-16-le", "a zero byte, as UTF-16 does")])
def test_utf_16_is_told(folder: Path, encoding: str, line: str) -> None:
    (folder / "labels.tsv").write_text(FORMATS["labels.tsv"], encoding=encoding)
    assert f"line 1 of {folder}/labels.tsv" in (sentence := refusal(folder))
    assert line in sentence


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("labels.tsv", "a.png\tx\n\nb.png\n", "line 3 of FILE has 0 tabs ('b.png'); write picture<TAB>text"),
        ("gt.txt", 'a.png, "x"\nb.png, "y\n', 'line 2 of FILE is \'b.png, "y\'; write picture, "text"'),
        ("gt.txt", '1,2,3,4,"x"\n', "line 1 of FILE is '1,2,3,4,\"x\"', neither picture<TAB>text nor"),
        ("a.jsonl", '{"filename": "a.png", "text": "x"}\n{"filename": "b.', "line 2 of FILE is no JSON (Unterminated"),
        ("a.jsonl", '{"filename": "a.png", "text": "x"}\n[1]\n', "line 2 of FILE is a list where an object with"),
        ("a.jsonl", '{"filename": "a.png", "text": "x"}\n{"text": "x"}\n', "line 2 of FILE names no picture; it needs"),
        ("a.jsonl", '{"filename": "a.png"}\n', "line 1 of FILE has no text; label it, or remove it"),
        ("labels.json", '{"a.png": "x",\n "b.png": "', "line 2 of FILE, its last, ends in the middle of its JSON"),
        ("labels.json", '{"a.png": "x",\n "b.png"', "line 2 of FILE, its last, ends in the middle of its JSON"),
        ("labels.json", '{"a.png": "x"', "line 1 of FILE, its last, ends in the middle of its JSON"),
        ("labels.json", '{"a.png": "x"\n "b.png": "y"}', "line 2 of FILE is no JSON (expecting ,)"),
        (
            "labels.json",
            '{"a.png": "x"}\n{"b.png": "y"}',
            "line 2 of FILE is no JSON (more follows where it should end)",
        ),
        ("labels.json", '{"a.png": "x",\n"b.png": 12}', "entry 2 (line 2) of FILE has 12 where a text belongs"),
        ("labels.json", '{"a.png": {"polygons": []}}', "entry 1 (line 1) of FILE has an object where a text belongs"),
        ("labels.json", '{"a.png": "\\ud800"}', "entry 1 (line 1) of FILE holds half of a character"),
        ("m.json", '{"metainfo": {},\n "data_list": [\n{"img_path": "a.png",', "line 3 of FILE, its last, ends in the"),
        ("m.json", '{"metainfo": {}}', "FILE has no data_list"),
        (
            "m.json",
            '{"data_list": [\n{"img_path": "a.png", "instances": [{"text": "x"}]},\n'
            '{"img_path": "b.png", "instances": [{"text": "x"}, {"text": "y"}]}]}',
            "entry 2 (line 3) of FILE has 2 instances, but a line has one",
        ),
        ("labels.txt", "no separator\n", "line 1 of FILE is 'no separator', neither picture<TAB>text nor picture"),
        ("labels.txt", "\n\n", "line 1 of FILE is '', neither picture<TAB>text"),
        ("labels.json", "{}", "FILE names no picture; give pictures and their labels"),
    ],
)
def test_what_is_malformed_is_told_with_file_and_line(folder: Path, name: str, content: str, sentence: str) -> None:
    (folder / name).write_text(content)
    assert sentence.replace("FILE", f"{folder}/{name}") in refusal(folder)


def doubled(name: str) -> str:
    return FORMATS[name].replace("words/3.png", "words/./1.png")


def escaping(name: str) -> str:
    return FORMATS[name].replace("words/3.png", "../../3.png")


def absolute(name: str) -> str:
    return FORMATS[name].replace("./words/3.png", "words/3.png").replace("words/3.png", "/words/3.png")


PLACES = {
    "labels.tsv": "line 3 of FILE",
    "rec_gt_train.txt": "line 3 of FILE",
    "gt.txt": "line 3 of FILE",
    "train.json": "entry 3 (line 22) of FILE",
    "compact.json": "entry 3 (line 1) of FILE",
    "train.jsonl": "line 3 of FILE",
    "metadata.jsonl": "line 3 of FILE",
    "labels.json": "entry 3 (line 4) of FILE",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (doubled, "labels words/1.png a second time; keep one of the two"),
        (escaping, "which leads out of the folder of the pictures"),
        (absolute, "an absolute path; write it relative to the folder of the pictures"),
    ],
)
def test_doubles_and_names_outside_the_folder_are_told_with_file_and_line(
    folder: Path, name: str, spoil: Callable[[str], str], sentence: str
) -> None:
    (folder / name).write_text(spoil(name), newline="")
    said = refusal(folder)
    assert said.startswith(PLACES[name].replace("FILE", f"{folder}/{name}"))
    assert sentence in said


def test_names_of_doctr_are_relative_to_images_where_that_folder_is_beside(folder: Path) -> None:
    (folder / "words").rename(folder / "images")
    (folder / "labels.json").write_text(json.dumps({"1.png": "a", "2.png": "b"}))
    assert texts(open_set(folder)) == {"images/1.png": "a", "images/2.png": "b"}


def test_json_that_is_longer_than_the_pieces_it_is_read_in_is_read_whole(folder: Path) -> None:
    many = {f"words/{i}.png": "ä" * (i % 50) + f"{i}" for i in range(20_000)}
    long = {"words/long.png": "x" * 200_000}
    (folder / "labels.json").write_text(json.dumps(many | long, ensure_ascii=False, indent=0), encoding="utf-8")
    assert texts(open_set(folder)) == many | long
    entries = [{"img_path": name, "instances": [{"text": text}], "height": 123456789} for name, text in many.items()]
    (folder / "labels.json").write_text(json.dumps({"data_list": entries}), encoding="utf-8")
    assert texts(open_set(folder)) == many


def pairs(folder: Path, encoded: bytes) -> None:
    for name, text in {"b/2": "two\r\n", "1": "\ufeffone", "b/3": "three"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.gt.txt").write_text(text, newline="")
    for name in ("1.png", "b/2.bin.png", "b/2.nrm.png", "b/3.JPG", "unlabelled.png"):
        (folder / name).write_bytes(encoded)


def test_texts_beside_pictures_are_read_as_kraken_and_ocropus_name_them(folder: Path, encoded: bytes) -> None:
    pairs(folder, encoded)
    (folder / "README.txt").write_text("about this set")
    for source in (folder, zipped(folder)):
        assert texts(open_set(source)) == {"1.png": "one", "b/2.bin.png": "two", "b/3.JPG": "three"}


def test_a_text_beside_a_picture_that_has_two_lines_or_another_encoding_is_told(folder: Path, encoded: bytes) -> None:
    pairs(folder, encoded)
    (folder / "b/2.gt.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"line 2 of .*/b/2\.gt\.txt is a second line of text"):
        list(open_set(folder).rows())
    (folder / "b/2.gt.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"line 1 of .*/b/2\.gt\.txt is not UTF-8"):
        list(open_set(folder).rows())


def test_a_text_without_its_picture_is_told(folder: Path, encoded: bytes) -> None:
    pairs(folder, encoded)
    (folder / "1.png").unlink()
    rows = list(open_set(folder).rows())
    assert rows[0].place == f"{folder}/1.gt.txt"
    with pytest.raises(FileNotFoundError, match=r"there is no 1\.png in .*set; add it or remove its label"):
        rows[0].read()


def test_an_lmdb_is_read_with_all_that_it_knows_of_a_line(tmp_path: Path, encoded: bytes) -> None:
    write_lmdb(tmp_path / "x.lmdb", [Entry(encoded, "a", "a.png", group="page 1"), Entry(encoded, None, "b.png")])
    for source in (tmp_path / "x.lmdb", tmp_path / "x.lmdb/data.mdb"):
        rows = list(open_set(source).rows())
        assert [(row.name, row.text, row.group) for row in rows] == [("a.png", "a", "page 1"), ("b.png", None, None)]
        assert rows[1].read() == encoded


def test_which_rule_comes_first(folder: Path, encoded: bytes) -> None:
    pairs(folder, encoded)
    (folder / "other.txt").write_text("words/1.png\tother\n")
    assert len(texts(open_set(folder))) == 3
    (folder / "gt.txt").write_text('words/1.png, "icdar"\n')
    assert texts(open_set(folder)) == {"words/1.png": "icdar"}
    (folder / "labels.json").write_text('{"words/1.png": "doctr"}')
    assert texts(open_set(folder)) == {"words/1.png": "doctr"}
    (folder / "labels.tsv").write_text("words/1.png\ttsv\n")
    assert texts(open_set(folder)) == {"words/1.png": "tsv"}
    assert len(texts(open_set(folder, None, "gt-files"))) == 3
    assert len(texts(open_set(folder, unlabelled=True))) == 8


def test_several_label_files_are_refused_with_their_names(folder: Path) -> None:
    (folder / "train.txt").write_text("words/1.png\tx\n")
    (folder / "val.txt").write_text("words/1.png\tx\n")
    assert "set holds train.txt, val.txt; say by --labels which of them names the pictures" in refusal(folder)


def test_a_format_that_is_said_is_not_told_anew(folder: Path) -> None:
    (folder / "labels.tsv").write_text("{.png\tx\n")
    assert "ends in the middle of its JSON" in refusal(folder) or "is no JSON" in refusal(folder)
    assert texts(open_set(folder, None, "tsv")) == {"{.png": "x"}
    assert "line 1 of" in refusal(folder, "icdar")


def test_a_source_that_is_not_there_or_holds_nothing_is_told(tmp_path: Path, folder: Path) -> None:
    assert "nowhere does not exist; give a folder, a zip, a label file, an LMDB or parquet" in refusal(
        tmp_path / "nowhere"
    )
    assert "set holds no labels.tsv; add it, give --labels, or import without labels" in refusal(folder)
    assert "set holds no texts named *.gt.txt" in refusal(folder, "gt-files")
    assert "set holds no parquet file at its top" in refusal(folder, "parquet")
    (tmp_path / "cut.zip").write_bytes(zipped(folder).read_bytes()[:200])
    assert "cut.zip is neither a folder nor a whole zip" in refusal(tmp_path / "cut.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no pictures; give a folder or a zip of them"):
        open_set(tmp_path / "empty", unlabelled=True).survey()


def test_the_digest_of_a_set_changes_with_its_labels_or_with_its_files(folder: Path, encoded: bytes) -> None:
    def digests() -> set[str]:
        return {open_set(folder).survey().digest, open_set(folder, unlabelled=True).survey().digest}

    (folder / "labels.tsv").write_text(FORMATS["labels.tsv"])
    before = digests()
    assert digests() == before
    (folder / "labels.tsv").write_text(FORMATS["labels.tsv"].replace("a ", "A "))
    (folder / "words/1.png").write_bytes(encoded + b"more")
    assert not digests() & before
