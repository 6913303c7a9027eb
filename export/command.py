"""`crnn export`: from a checkpoint to files for other runtimes, each proven against the network before it is kept."""

from __future__ import annotations

import datetime
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import tyro

from crnn.checkpoint import load_checkpoint, write_atomically
from crnn.runtimes import open_runtime
from data.lines import open_lines
from export.parity import Parity, compare, drawn_batches, real_batches, require
from export.targets import TARGETS, TargetName

if TYPE_CHECKING:
    from data.lines import Picture


@dataclass(frozen=True)
class ExportOptions:
    """Write a recogniser in other formats. A file is kept only if it reads as the network does."""

    model: Path
    """Checkpoint (.pt) of crnn train or distill."""
    to: tuple[TargetName | Literal["all"], ...] = ("onnx",)
    """Formats to write."""
    out: Path | None = None
    """File for one format, folder for several; without it the files go beside the checkpoint."""
    data: tuple[Path, ...] = ()
    """Real lines (LMDB, folder or zip) that the check reads too, besides drawn ones."""
    lines: int = 50
    """How many lines of each --data the check reads, drawn at random."""
    seed: int = 0
    """Of what is drawn for the check."""
    json: bool = False
    """Print what was written and measured as JSON."""

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("no format was named; give --to onnx")
        if self.lines < 1:
            raise ValueError(f"--lines is {self.lines}; give at least 1")

    def targets(self) -> list[TargetName]:
        """The formats asked for, each once, in the order given."""
        every = get_args(TargetName)
        return list(dict.fromkeys(each for name in self.to for each in (every if name == "all" else (name,))))


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(ExportOptions, args=argv, prog="crnn export")
    command = f"crnn export {shlex.join(argv)}"
    pictures = sample_pictures(options.data, options.lines, options.seed)
    targets = options.targets()
    reports = []
    for name, out in zip(targets, out_paths(options.model, targets, options.out), strict=True):
        export_model(options.model, name, out, pictures, options.seed, command)
        reports.append(json.loads(report_path(out).read_text(encoding="utf-8")))
        if not options.json:
            print(summary(reports[-1], out))
    if options.json:
        print(json.dumps(reports, ensure_ascii=False, indent=1))
    return 0


def export_model(
    checkpoint_path: Path,
    target: TargetName,
    out: Path,
    pictures: Sequence[Picture] = (),
    seed: int = 0,
    command: str = "",
) -> Path:
    """Writes a checkpoint as one format, and what its check measured as JSON beside it; returns out.

    The file is written under another name, read by its own runtime at several widths and batch sizes against
    the network in float32, and only then moved to out: what was there before stays until then.

    pictures: real lines that are compared as well, each at its natural width.
    command: goes into the JSON.
    Raises ValueError with the numbers where the file reads differently; out and its JSON are left as they were.
    """
    from crnn.model import Crnn  # torch is not imported before the flags are read
    from crnn.runtimes.torch_runtime import TorchRuntime
    from export.graph import read_graph

    if out.resolve() == checkpoint_path.resolve():
        raise ValueError(f"--out {out} is the checkpoint itself; give another file")
    checkpoint = load_checkpoint(checkpoint_path)
    model = Crnn.from_checkpoint(checkpoint)
    graph = read_graph(model)
    chosen, info = TARGETS[target], checkpoint.info
    with hidden_folder(out) as folder:
        unproven = folder / f"unproven{chosen.suffix}"
        chosen.write(graph, info, unproven)
        batches = [*drawn_batches(info.input_spec, seed), *real_batches(pictures, info.input_spec)]
        network = TorchRuntime(model, info, checkpoint_path)
        parity = compare(network, open_runtime(unproven, threads=1), batches, info.charset, chosen.tolerance)
        require(parity, str(out))
        report = describe(checkpoint_path, target, out, parity, command)
        chosen.write(graph, replace(info, parity=report["parity"]), unproven)
        report["bytes"] = unproven.stat().st_size
        unproven.replace(out)
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    write_atomically(report_path(out), lambda file: file.write(text.encode()))
    return out


@contextmanager
def hidden_folder(out: Path) -> Iterator[Path]:
    """A folder beside out for what is not yet proven; gone at the end. OSError naming out where there can be none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def out_paths(model: Path, targets: Sequence[TargetName], out: Path | None) -> list[Path]:
    """Where each format goes. ValueError where --out names one file for several formats, or ends otherwise."""
    names = [model.stem + TARGETS[name].suffix for name in targets]
    if out is None:
        return [model.parent / name for name in names]
    if len(names) > 1 or out.is_dir():
        if out.is_file():
            raise ValueError(f"--out {out} is a file, but {len(names)} formats are to be written; give a folder")
        return [out / name for name in names]
    suffix = TARGETS[targets[0]].suffix
    if not out.name.endswith(suffix):
        raise ValueError(f"--out {out} does not end in {suffix}, by which its runtime is chosen; give a name that does")
    return [out]


def report_path(out: Path) -> Path:
    """The JSON beside an exported file."""
    return out.with_name(out.name + ".json")


def describe(checkpoint: Path, target: TargetName, out: Path, parity: Parity, command: str) -> dict[str, Any]:
    """What goes into the JSON beside the file; its "parity" travels in the file too."""
    versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
    measured = parity.to_json() | {"against": "the network in float32 on the CPU", "versions": versions}
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "model": str(checkpoint),
        "target": target,
        "file": str(out),
        "parity": measured,
    }


def sample_pictures(paths: Sequence[Path], lines: int, seed: int) -> list[Picture]:
    """At most so many lines of each source, drawn at random, in the source's order."""
    pictures = []
    for path in paths:
        source = open_lines(path)
        drawn = np.random.default_rng(seed).permutation(len(source))[:lines]
        pictures += [source[int(i)].picture for i in sorted(drawn)]
    return pictures


def summary(report: dict[str, Any], out: Path) -> str:
    parity = report["parity"]
    return (
        f"{out}  {report['bytes'] / 1e6:.2f} MB; {parity['pictures']} pictures in {len(parity['cases'])} batches "
        f"read as the network reads them, log-probabilities within {parity['difference']:.1e} "
        f"(allowed {parity['tolerance']:g})"
    )
