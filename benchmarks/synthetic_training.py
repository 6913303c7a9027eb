"""Which synthesis trains better: `python -m benchmarks.synthetic_training`, some forty minutes of two cores.

The same quarter-width ResNet-18 goes on from the same short start on as many lines for as many steps, drawn by us, by
TextRecognitionDataGenerator as it comes, and by it with our texts and fonts; then all read real test sets, which
nothing was trained or chosen on. The start is our easy lines for all three, since plain CTC from nothing would say
nothing after so few steps; the columns of characters, which only our lines know, are not used after it. So that the
start does not favour us, --start mixed adds a thousand steps on equal parts of all three kinds of lines to it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.markdown import percent, table
from benchmarks.recipes import SMALL
from benchmarks.stages import RESULTS, bench_models, bench_rows, run_result, run_stage, without_paths, write_json

GENERATORS = ("ours", "trdg", "trdg-given")
TEST_SETS = ("iiit5k_test", "ic15_test", "sroie_test")
SEED = 5


@dataclass(frozen=True)
class SyntheticTrainingOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real sets.
        out: where lines, models and results go.
        lines: of each generator.
        steps: of each training.
        threads: of each run.
        start: easy, or mixed: what all three go on from.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/synthetic-training")
    lines: int = 20_000
    steps: int = 3000
    threads: int = 1
    start: Literal["easy", "mixed"] = "easy"


def main() -> None:
    """The stages in order."""
    options = tyro.cli(SyntheticTrainingOptions, description=__doc__)
    common = ["--threads", str(options.threads), "--seed", str(SEED)]
    for name in GENERATORS:
        draw(name, options.out / f"{name}.lmdb", options.lines)
    first = start(options.out, options.threads)
    suffix = ""
    if options.start == "mixed":
        suffix, easy, first = "-mixed", first, options.out / "start-mixed.pt"
        run_stage(
            first, "crnn",
            ["train", "--init", str(easy), "--data", *(str(options.out / f"{name}.lmdb") for name in GENERATORS),
             "--out", str(first), *common, "--drop-bad", "--column-weight", "0", "--until", "1000"],
        )  # fmt: skip
    models = []
    for name in GENERATORS:
        lines, model = options.out / f"{name}.lmdb", options.out / f"{name}{suffix}.pt"
        run_stage(
            model, "crnn",
            ["train", "--init", str(first), "--data", str(lines), "--out", str(model), *common, "--drop-bad",
             "--column-weight", "0", "--until", str(options.steps), "--validate-every", "500"],
        )  # fmt: skip
        models.append(model)
    read(options, models, suffix)


def start(out: Path, threads: int) -> Path:
    """A network that has left the plateau of blanks, on easy lines that know their columns."""
    model = out / "start.pt"
    run_stage(
        model, "crnn",
        ["train", "--data", "synth-easy", "--out", str(model), *SMALL, "--threads", str(threads), "--seed", str(SEED),
         "--until", "500", "--batch-lines", "16", "--column-weight", "1", "--column-steps", "100000", "--warm-up",
         "50", "--final-rate", "0.5"],
    )  # fmt: skip
    return model


def draw(name: str, out: Path, count: int) -> None:
    """Lines of one generator, of 1 to 25 characters."""
    if name == "ours":
        arguments = ["data", "make", "--out", str(out), "--count", str(count), "--seed", str(SEED)]
        run_stage(out, "crnn", [*arguments, "--fonts", "all", "--words", "all"])
        return
    given = ["--given"] if name == "trdg-given" else []
    module = "benchmarks.other_generators"
    run_stage(out, module, ["--out", str(out), "--count", str(count), "--seed", str(SEED), *given])


def read(options: SyntheticTrainingOptions, models: list[Path], suffix: str) -> None:
    """Whole test sets without case, ours first, so that the others are paired with it."""
    result = options.out / f"results{suffix}.json"
    run_stage(
        result, "crnn",
        ["bench", "--models", *map(str, models), "--data", *(str(options.data / f"{name}.zip") for name in TEST_SETS),
         "--case-blind", "--json", str(result), "--latency-lines", "0"],
    )  # fmt: skip
    command = f"python -m benchmarks.synthetic_training --lines {options.lines} --steps {options.steps}"
    runs = {path.name: run_result(path) for path in models}
    bench = without_paths(json.loads(result.read_text()))
    if suffix:
        command += " --start mixed"
    write_json(
        RESULTS / f"synthetic_training{suffix.replace('-', '_')}.json",
        {"command": command, "seed": SEED, "bench": bench, "runs": runs},
    )


def beside_first(row: dict[str, Any]) -> str:
    """Accuracy, and what it is more or less than the first model's on the same lines, with the paired interval."""
    apart = row["difference"]
    if not apart:
        return percent(row["exact"])
    low, high = apart["exact_interval"]
    return percent(row["exact"]) + f" ({100 * apart['exact']:+.1f}; {100 * low:+.1f} to {100 * high:+.1f})"


def synthetic_training_table(results: dict[str, Any]) -> str:
    """The same network trained on lines of different generators."""
    names = list(dict.fromkeys(row["set"] for row in results["bench"]["results"]))
    rows = []
    for model in bench_models(results):
        cells = [beside_first(bench_rows(results, name)[model]) for name in names]
        run = results["runs"][model]
        rows.append([model, *cells, f"{run['lines']:,}", f"{run['seconds'] / 60:.0f}"])
    return table(["exact % without case", *names, "lines", "minutes"], rows)


if __name__ == "__main__":
    main()
