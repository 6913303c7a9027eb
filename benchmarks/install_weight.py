"""What different ways to a TFLite file bring along: `python -m benchmarks.install_weight`, minutes and some gigabytes.

Each way is installed by pip into an empty folder, without what it shares with the base (torch, numpy and the like where
they are named), and weighed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from benchmarks.stages import RESULTS, write_json


@dataclass(frozen=True)
class Way:
    """One way to TFLite.

    what: in words. install: requirements. dependencies: whether pip brings theirs too. named: shown with versions.
    """

    what: str
    install: tuple[str, ...]
    dependencies: bool
    named: tuple[str, ...]


WAYS = (
    # backports.strenum and ml_dtypes are what this one needs beyond the base
    Way(
        "pocket-crnn: writes the flatbuffer itself",
        ("ai-edge-litert", "flatbuffers", "ml_dtypes", "protobuf", "backports.strenum"),
        False,
        ("ai-edge-litert", "flatbuffers"),
    ),
    Way("litert-torch, its torch with CUDA among it", ("litert-torch",), True, ("litert-torch", "torch")),
    Way("onnx2tf with TensorFlow", ("onnx2tf", "tensorflow"), True, ("onnx2tf", "tensorflow")),
)


def main() -> None:
    """Installs and weighs one way after the other."""
    rows = []
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *way.install]
            done = subprocess.run([*command, *([] if way.dependencies else ["--no-deps"])], check=False)
            if done.returncode:
                print(f"{way.what} did not install here; it is left out", file=sys.stderr)
                continue
            found = {found.metadata["Name"].lower(): found.version for found in distributions(path=[folder])}
            weight = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            versions = {name: found[name] for name in way.named if name in found}
            rows.append({"what": way.what, "versions": versions, "megabytes": weight / 1e6})
            print(f"{way.what}: {weight / 1e6:.0f} MB", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
    write_json(RESULTS / "install_weight.json", {"command": "python -m benchmarks.install_weight", "rows": rows})


def install_weight_table(results: dict[str, Any]) -> str:
    """What different ways to TFLite bring along."""
    rows = [
        [row["what"], ", ".join(f"{name} {v}" for name, v in row["versions"].items()), f"{row['megabytes']:,.0f}"]
        for row in results["rows"]
    ]
    return table(["way", "packages", "MB in site-packages"], rows)


if __name__ == "__main__":
    main()
