"""Long work in stages: each a command whose result is kept, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import csv
import datetime
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from crnn.checkpoint import write_atomically
from crnn.commands import run_path

RESULTS = Path(__file__).parent.parent / "docs/results"
"""Figures that documents are made from, committed."""

LONGEST_SHOWN = 400
"""Characters of a command; lists of font folders are longer. The run file beside the result has all of it."""


TIME_IS_UP = 75
"""Exit status of a program whose stage was cut off by its time: to be called again (EX_TEMPFAIL of sysexits.h)."""


def run_stage(result: Path, module: str, arguments: list[str], most_seconds: float | None = None) -> None:
    """Runs `python -m module arguments` unless result is there and whole; an interrupted training run is resumed.

    Ends the program where the command fails; its own sentence is on stderr by then. most_seconds: after them the
    command is stopped, and the program ends with TIME_IS_UP: the next call resumes what was saved.
    """
    if result.exists() and finished(result):
        refuse_other_options(result, module, arguments)
        print(f"-- {result} is there already", flush=True)
        return
    resume = []
    if result.suffix == ".pt":
        resume = ["--resume"] if result.with_suffix(".resume.pt").exists() else ["--overwrite"]
    shown = shlex.join([module.removesuffix(".cli"), *arguments, *resume])
    print(f"-- {shown if len(shown) < LONGEST_SHOWN else shown[:LONGEST_SHOWN] + ' ...'}", flush=True)
    started = time.perf_counter()
    status = exit_status([sys.executable, "-m", module, *arguments, *resume], result, most_seconds)
    if status is None:
        print(f"-- time is up; what was last saved of {result} is kept, call this again", flush=True)
        sys.exit(TIME_IS_UP)
    if status:
        sys.exit(f"the stage that makes {result} ended with exit status {status}; mend it and call this again")
    print(f"-- {time.perf_counter() - started:.0f} s", flush=True)


def refuse_other_options(result: Path, module: str, arguments: list[str]) -> None:
    """Ends the program where result is of a run with other options, for its figures would be told as of these."""
    path = run_path(result)
    if not path.exists():
        return
    asked = essential([*module.removesuffix(".cli").split(), *arguments])
    made = essential(shlex.split(json.loads(path.read_text())["command"]))
    if made != asked:
        apart = [*(f"without {part}" for part in asked if part not in made), *(p for p in made if p not in asked)]
        sys.exit(f"{result} was made with other options ({', '.join(apart)}); remove it or give another --out")


def essential(command: list[str]) -> list[str]:
    """The parts of a command that its result depends on, files by their names alone: folders may have moved."""
    kept = []
    parts = iter(command)
    for part in parts:
        if part in ("--threads", "--workers"):
            next(parts)
        elif part not in ("--resume", "--overwrite"):
            kept.append(part.rsplit("/", 1)[-1])
    return kept


def exit_status(command: list[str], result: Path, most_seconds: float | None) -> int | None:
    """Of a command that makes result; None where it was stopped after most_seconds.

    A training that is past its last step is let come to its end: it has taken its resume state away by then.
    """
    if most_seconds is None:
        return subprocess.run(command, check=False).returncode
    process = subprocess.Popen(command)
    try:
        return process.wait(max(1.0, most_seconds))
    except subprocess.TimeoutExpired:
        if result.suffix == ".pt" and result.exists() and not result.with_suffix(".resume.pt").exists():
            return process.wait()
        process.kill()
        process.wait()
        return None


def finished(result: Path) -> bool:
    """Whether the run that makes result came to its end; what leaves no run file is written in one piece."""
    path = run_path(result)
    return not path.exists() or json.loads(path.read_text())["result"] is not None


def run_result(model: Path) -> dict[str, Any]:
    """Steps, lines and seconds of the run that made a model."""
    content: dict[str, Any] = json.loads(run_path(model).read_text())["result"]
    return content


def curve_of(model: Path) -> list[dict[str, Any]]:
    """step, lines, seconds and accuracy at every validation of the run that made a model, from its log."""
    with model.with_suffix(".log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["accuracy"]]
    return [{"step": int(row["step"]), "lines": int(row["lines"]), "seconds": float(row["seconds"]),
             "accuracy": float(row["accuracy"])} for row in rows]  # fmt: skip


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Results with date and machine added; whole or not at all."""
    stamped = content | {"date": datetime.date.today().isoformat(), "machine": machine()}
    text = json.dumps(stamped, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def without_paths(bench: dict[str, Any]) -> dict[str, Any]:
    """What `crnn bench` wrote, for keeping: file names without the folders of one machine, and no command with them."""
    kept = {key: value for key, value in bench.items() if key not in ("command", "confusions")}
    for group in ("models", "sets"):
        kept[group] = [row | {"file": Path(row["file"]).name} for row in bench[group]]
    return kept


def bench_rows(results: dict[str, Any], set_name: str) -> dict[str, dict[str, Any]]:
    """Of kept results with such a bench: model -> its figures on one set."""
    return {row["model"]: row for row in results["bench"]["results"] if row["set"] == set_name}


def bench_models(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of kept results with such a bench: model -> its bytes, parameters and times."""
    return {model["name"]: model for model in results["bench"]["models"]}
