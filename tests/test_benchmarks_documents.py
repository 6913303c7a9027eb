"""Documents say what the results say, and the README's Python runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import documents
from export.command import main as export_main

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_every_table_is_what_its_results_make(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "<!-- table:" in text
    assert documents.with_tables(text) == text


def test_a_table_that_nothing_makes_is_refused() -> None:
    with pytest.raises(KeyError):
        documents.with_tables("<!-- table: invented -->\n<!-- end -->")


def test_a_table_without_results_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "RESULTS", tmp_path)
    made = {name: make() for name, make in documents.TABLES.items()}
    assert set(made.values()) == {documents.NOT_RUN}


def test_documents_name_only_commands_that_exist() -> None:
    from crnn.cli import COMMANDS

    for path in (*documents.DOCUMENTS, *ROOT.glob("docs/*.md")):
        for command in re.findall(r"^crnn ([a-z-]+(?: [a-z]+)?)", path.read_text(encoding="utf-8"), re.M):
            assert command in COMMANDS or command.split()[0] in COMMANDS, f"{path.name}: crnn {command}"


def test_the_readmes_python_reads_a_picture(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    random_checkpoint: Callable[..., Path],
    labelled_folder: Path,
) -> None:
    lines = ["--data", str(labelled_folder)]
    export_main(["--model", str(random_checkpoint()), "--out", str(tmp_path / "student.onnx"), *lines])
    capsys.readouterr()
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((32, 96, 3), 255, np.uint8))
    monkeypatch.chdir(tmp_path)
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert found
    exec(compile(found[1], "README.md", "exec"), {})  # the text is ours
    assert re.fullmatch(r".* (0\.\d+|1\.0|0\.0|\d\.\d+e-\d+)\n", capsys.readouterr().out)
