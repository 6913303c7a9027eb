"""How much of the project one must read to follow a distillation: the modules that a real run loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.lmdb_lines import write_lmdb
from data.synthesis.bake import baked
from data.synthesis.fonts import plain_font_file
from data.synthesis.source import SynthesisOptions, SynthesisSource

MOST = 18

RUN_AND_COUNT = """
import json, sys
from distill.cli import run
code = run(sys.argv[1:])
ours = ("crnn.", "data.", "distill.", "export.", "benchmarks.")
loaded = [name for name, module in sys.modules.items() if name.startswith(ours) and not hasattr(module, "__path__")]
print(json.dumps({"code": code, "loaded": sorted(loaded)}))
"""


@pytest.fixture(scope="module")
def baked_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LMDB as crnn data make writes it, of 24 lines that know their columns."""
    path = tmp_path_factory.mktemp("lines") / "lines.lmdb"
    options = SynthesisOptions(longest=6, fonts="all", font_folders=(plain_font_file().parent,))
    write_lmdb(path, baked(SynthesisSource(options, 1, 24), 24, None, 1))
    return path


@pytest.fixture
def loaded(baked_lines: Path, random_checkpoint: Callable[..., Path], tmp_path: Path, repository: Path) -> list[str]:
    """Modules of ours, packages not counted, after a distillation of three steps in a process of its own."""
    out = tmp_path / "student.pt"
    arguments = ["--teacher", str(random_checkpoint(width=0.25)), "--student-width", "0.125", "--out", str(out)]
    arguments += ["--data", str(baked_lines), "--validation", "0.25", "--until", "3", "--batch-lines", "4"]
    arguments += ["--workers", "0", "--threads", "1"]
    command = [sys.executable, "-W", "error", "-c", RUN_AND_COUNT, *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["code"] == 0, done.stderr
    assert out.exists()
    return [str(name) for name in answer["loaded"]]


def test_a_distillation_loads_few_modules_and_the_architecture_lists_exactly_those(
    loaded: list[str], repository: Path
) -> None:
    assert len(loaded) <= MOST, loaded
    text = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## One run of `distill`")[2].partition("\n## ")[0]
    listed = [path.replace("/", ".") for path in re.findall(r"^\d+\. `([\w/]+)\.py`", section, re.MULTILINE)]
    assert sorted(listed) == loaded
