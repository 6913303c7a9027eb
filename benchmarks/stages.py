"""Long work in stages: each a command whose result is kept, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.bench import machine
from crnn.checkpoint import write_atomically


def run_stage(result: Path, module: str, arguments: list[str]) -> None:
    """Runs `python -m module arguments` unless result is there; a training run that was interrupted is resumed.

    Raises CalledProcessError where the command fails; its own sentence is on stderr by then.
    """
    if result.exists() and not result.with_suffix(".resume.pt").exists():
        print(f"-- {result} is there already", flush=True)
        return
    resume = ["--resume"] if result.with_suffix(".resume.pt").exists() else []
    shown = shlex.join([module.removesuffix(".cli"), *arguments, *resume])
    print(f"-- {shown}", flush=True)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments, *resume], check=True, env=os.environ)
    print(f"-- {time.perf_counter() - started:.0f} s", flush=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Results with date and machine added; whole or not at all."""
    stamped = content | {"date": datetime.date.today().isoformat(), "machine": machine()}
    text = json.dumps(stamped, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
