"""The models inside the package read, without a network and without torch, the pictures that lie beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crnn.info import main
from crnn.recogniser import MODELS, load, packaged_model
from data.folder_lines import FolderLines

MOST_MEGABYTES, MOST_TINY = 24, 1.5


@pytest.fixture(scope="module")
def pictures() -> FolderLines:
    return FolderLines(MODELS / "pictures")


def test_the_default_student_reads_every_picture_of_the_package(pictures: FolderLines) -> None:
    lines = [pictures[i] for i in range(len(pictures))]
    assert len(lines) == 8
    readings = load(threads=1).read([line.picture for line in lines])
    assert [reading.text for reading in readings] == [line.text for line in lines]


def test_the_tiny_student_reads_most_of_them(pictures: FolderLines) -> None:
    lines = [pictures[i] for i in range(len(pictures))]
    readings = load(packaged_model("tiny"), threads=1).read([line.picture for line in lines])
    assert sum(reading.text == line.text for reading, line in zip(readings, lines, strict=True)) >= 6


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_a_packaged_student_says_how_it_was_made_and_where_nothing_of_a_machine(name: str) -> None:
    info = load(packaged_model(name), threads=1).info
    assert info.provenance["command"] == "make students"
    assert info.provenance["data"] == ["synth"]
    assert info.temperature != 1
    told = str(info.provenance)
    assert not [place for place in (str(Path.home()), "/tmp/", "/work", "runs/") if place in told]


def test_the_models_fit_the_wheel_and_the_tiny_one_a_small_phone() -> None:
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_MEGABYTES * 1e6
    assert packaged_model("tiny").stat().st_size <= MOST_TINY * 1e6


def test_reading_without_a_model_imports_no_torch() -> None:
    program = (
        "import sys; from crnn.read import main; status = main(sys.argv[1:]); "
        "sys.exit(status or bool({'torch', 'torchvision'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(MODELS / "pictures")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8


def test_every_model_has_its_card() -> None:
    models = [path for path in MODELS.iterdir() if path.suffix in (".pt", ".onnx")]
    assert models
    assert not [path.name for path in models if not (MODELS / f"{path.name.partition('.')[0]}.md").is_file()]


def test_info_without_a_file_lists_what_the_package_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    (default,) = (line for line in lines if line.endswith("read with by default"))
    assert default.startswith(str(packaged_model()))
    assert [line for line in lines if line.startswith(str(packaged_model("tiny")))]
    assert lines[-1].startswith(str(MODELS / "pictures"))
    assert main(["--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in entries if entry["default"]] == [str(packaged_model())]
    assert all(entry["bytes"] > 1e6 for entry in entries)
