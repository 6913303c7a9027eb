"""Model files that are zips of a library's own files and our JSON."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, ModelInfo
from crnn.runtimes.archive import INFO, Archive, pack, unpack
from data.picture import InputSpec

CHARSET = Charset.of("aé漢 ")
MODEL = ModelInfo(CHARSET, InputSpec(turn_above=1.5), CrnnSizes("resnet18", 0.25, 8, 8, 1, True, 0, CHARSET.classes))
ARCHIVE = Archive({"net.bin": bytes(range(256)), "net.txt": b"layers"}, MODEL, 1234)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "model.ncnn.zip"
    path.write_bytes(pack(ARCHIVE))
    return path


def test_what_was_packed_is_unpacked(packed: Path) -> None:
    assert unpack(packed, ("net.bin", "net.txt")) == ARCHIVE


def test_the_same_model_makes_the_same_bytes() -> None:
    assert pack(ARCHIVE) == pack(ARCHIVE)


def test_nothing_in_it_is_compressed_so_that_a_phone_can_map_it(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert '"turn_above": 1.5' in archive.read(INFO).decode()


def test_the_file_of_another_format_is_refused_by_name(packed: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.ncnn\.zip is a zip, but not this kind of model .*crnn\.mnn.*; give"):
        unpack(packed, ("crnn.mnn",))


def test_half_a_zip_is_refused(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"model\.ncnn\.zip is not a whole zip .*; export it again"):
        unpack(packed, ("net.bin",))


def test_a_changed_byte_is_noticed(packed: Path) -> None:
    content = packed.read_bytes()
    packed.write_bytes(content.replace(b"layers", b"lawyer"))
    with pytest.raises(ValueError, match=r"model\.ncnn\.zip is not a whole zip .*; export it again"):
        unpack(packed, ("net.txt",))


def test_json_that_describes_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.mnn.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(INFO, '{"format": "other"}')
        archive.writestr("parameters.txt", "1")
    with pytest.raises(ValueError, match=r"other\.mnn\.zip does not describe a pocket-crnn model"):
        unpack(path, ())
