"""Long work in stages: what is done is not done again, what was cut off goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stages import TIME_IS_UP, exit_status, run_stage, without_paths, write_json


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that stages would have run, which all succeed."""
    made: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        made.append(command[1:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return made


def test_a_stage_whose_result_is_there_is_not_run_again(tmp_path: Path, calls: list[list[str]]) -> None:
    (tmp_path / "m.pt").touch()
    made = {"command": "crnn train --out /elsewhere/m.pt --threads 2 --overwrite", "result": {"steps": 3}}
    (tmp_path / "m.run.json").write_text(json.dumps(made))
    run_stage(tmp_path / "m.pt", "crnn", ["train", "--out", str(tmp_path / "m.pt"), "--threads", "1"])
    assert calls == []


def test_a_result_of_other_options_is_not_taken_for_these(tmp_path: Path, calls: list[list[str]]) -> None:
    (tmp_path / "m.pt").touch()
    made = {"command": "crnn train --until 100 --ema 0.9", "result": {"steps": 100}}
    (tmp_path / "m.run.json").write_text(json.dumps(made))
    with pytest.raises(SystemExit, match=r"made with other options \(without 200, 100, --ema, 0\.9\); remove it"):
        run_stage(tmp_path / "m.pt", "crnn", ["train", "--until", "200"])
    assert calls == []


def test_an_interrupted_training_is_resumed(tmp_path: Path, calls: list[list[str]]) -> None:
    (tmp_path / "m.pt").touch()
    (tmp_path / "m.resume.pt").touch()
    (tmp_path / "m.run.json").write_text(json.dumps({"result": None}))
    run_stage(tmp_path / "m.pt", "crnn", ["train"])
    assert calls == [["-m", "crnn", "train", "--resume"]]


def test_a_training_killed_before_its_first_state_starts_anew(tmp_path: Path, calls: list[list[str]]) -> None:
    (tmp_path / "m.pt").touch()
    (tmp_path / "m.run.json").write_text(json.dumps({"result": None}))
    run_stage(tmp_path / "m.pt", "crnn", ["train"])
    assert calls == [["-m", "crnn", "train", "--overwrite"]]


def test_a_stage_that_fails_ends_the_program_and_names_its_result(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"makes .*x\.json ended with exit status 1"):
        run_stage(tmp_path / "x.json", "crnn", ["info", str(tmp_path / "nothing.pt")])


def test_a_stage_that_takes_too_long_is_stopped_and_asks_to_be_called_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_stage(tmp_path / "x.json", "http.server", ["0"], most_seconds=1)
    assert stopped.value.code == TIME_IS_UP
    assert "what was last saved of" in capsys.readouterr().out


def test_a_training_past_its_last_step_is_let_come_to_its_end(tmp_path: Path) -> None:
    result = tmp_path / "m.pt"
    program = "import time; time.sleep(2)"
    result.touch()
    assert exit_status([sys.executable, "-c", program], result, most_seconds=1) == 0
    result.with_suffix(".resume.pt").touch()
    assert exit_status([sys.executable, "-c", program], result, most_seconds=1) is None


def test_results_carry_date_and_machine(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"command": "make demo"})
    content = json.loads((tmp_path / "r.json").read_text())
    assert set(content) == {"command", "date", "machine"}
    assert content["machine"]["cores"] >= 1


def test_kept_results_name_no_folder_of_the_machine() -> None:
    bench: dict[str, Any] = {
        "command": "crnn bench --models /home/me/a.pt",
        "confusions": {},
        "models": [{"name": "a.pt", "file": "/home/me/a.pt"}],
        "sets": [{"name": "s", "file": "/home/me/s.zip"}],
        "results": [],
    }
    assert "/home" not in json.dumps(without_paths(bench))
