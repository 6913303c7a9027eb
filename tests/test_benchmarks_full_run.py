"""The run on an accelerator, rehearsed at toy size on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.stages import TIME_IS_UP


def test_calls_that_run_out_of_time_go_on_until_a_pair_is_trained_exported_and_measured(
    tmp_path: Path, repository: Path
) -> None:
    command = [sys.executable, "-m", "benchmarks.full_run", "--toy", "--device", "cpu", "--workers", "0"]
    command += ["--data", str(tmp_path / "none"), "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.run([*command, "--minutes", "0"], cwd=repository, env=environment, capture_output=True)
    assert first.returncode == TIME_IS_UP
    rest = subprocess.run([*command, "--minutes", "9"], cwd=repository, env=environment, capture_output=True)
    assert rest.returncode == 0, rest.stderr[-2000:]
    content = json.loads((tmp_path / "toy" / "full_run.json").read_text())
    assert {model["name"] for model in content["bench"]["models"]} == {
        "teacher.pt", "student.pt", "student.onnx", "student.int8.onnx", "student.int8.tflite",
    }  # fmt: skip
    assert {row["lines"] for row in content["bench"]["results"]} == {20}
    assert (tmp_path / "toy" / "report.html").is_file()
