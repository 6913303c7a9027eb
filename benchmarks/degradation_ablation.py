"""Which degradations of synthetic lines pay: `python -m benchmarks.degradation_ablation`, some forty minutes of a core.

The same quarter-width ResNet-18 goes on from one short start on freshly drawn lines, each time with one kind of
degradation left out (or, of those that are off, put in), and reads real training sets, of which nothing was trained
on here. So what is chosen by this table is not chosen on a test set. The usual mix runs with two seeds: what lies
between them is chance.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.markdown import table
from benchmarks.stages import RESULTS, bench_rows, finished, run_result, run_stage, without_paths, write_json
from benchmarks.synthetic_training import SEED, beside_first, start

SETS = ("iiit5k_train", "sroie_train")

ARMS: dict[str, tuple[str, list[str]]] = {
    "usual": ("the usual mix", []),
    "usual-again": ("the usual mix, another seed", []),
    "none": ("none at all", ["--synth.strength", "0"]),
    "no-warp": ("without warp and bend", ["--synth.degradations", "warp:0", "bend:0"]),
    "no-edges": ("without crop and neighbours", ["--synth.degradations", "crop:0", "neighbours:0"]),
    "no-light": ("without light, shadow, contrast", ["--synth.degradations", "light:0", "shadow:0", "contrast:0"]),
    "no-colour": ("without cast and grey", ["--synth.degradations", "cast:0", "grey:0"]),
    "no-blur": ("without blur and motion", ["--synth.degradations", "blur:0", "motion:0"]),
    "no-low-resolution": ("without low resolution", ["--synth.degradations", "low_resolution:0"]),
    "no-noise": ("without noise and JPEG", ["--synth.degradations", "noise:0", "jpeg:0"]),
    "glare": ("with glare too", ["--synth.degradations", "glare:1"]),
    "defocus": ("with defocus too", ["--synth.degradations", "defocus:1"]),
    "harder": ("all at strength 1.5", ["--synth.strength", "1.5"]),
}
"""name -> (what it is, flags)."""


@dataclass(frozen=True)
class AblationOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real training sets.
        out: where models and results go.
        steps: of each training.
        lines: of each real set, drawn at random.
        threads: of each run.
        only: run these arms now, the usual mix always; the others stand in the table as not run.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/degradation-ablation")
    steps: int = 2000
    lines: int = 2000
    threads: int = 1
    only: tuple[str, ...] = ()


def main() -> None:
    """The arms that are not there yet, each read as soon as it is trained."""
    options = tyro.cli(AblationOptions, description=__doc__)
    first = start(options.out, options.threads)
    for name, (_, flags) in ARMS.items():
        if not options.only or name in ("usual", *options.only):
            model = options.out / f"{name}.pt"
            seed = SEED + (name == "usual-again")
            run_stage(
                model, "crnn",
                ["train", "--init", str(first), "--data", "synth", "--out", str(model), "--threads",
                 str(options.threads), "--seed", str(seed), "--column-weight", "0", "--until", str(options.steps),
                 "--validation", "0", *flags],
            )  # fmt: skip
    read(options)


def read(options: AblationOptions) -> None:
    """Real training sets without case, the usual mix first, so that the others are paired with it."""
    done = [name for name in ARMS if (model := options.out / f"{name}.pt").exists() and finished(model)]
    result = options.out / f"results-{len(done)}.json"
    run_stage(
        result, "crnn",
        ["bench", "--models", *(str(options.out / f"{name}.pt") for name in done), "--data",
         *(str(options.data / f"{name}.zip") for name in SETS), "--limit", str(options.lines), "--case-blind",
         "--json", str(result), "--latency-lines", "0"],
    )  # fmt: skip
    arms: dict[str, dict[str, Any]] = {name: {"what": what, "flags": flags} for name, (what, flags) in ARMS.items()}
    for name in done:
        arms[name]["run"] = run_result(options.out / f"{name}.pt")
    command = f"python -m benchmarks.degradation_ablation --steps {options.steps}"
    content = {"command": command, "seed": SEED, "arms": arms, "bench": without_paths(json.loads(result.read_text()))}
    write_json(RESULTS / "degradation_ablation.json", content)


def degradation_ablation_table(results: dict[str, Any]) -> str:
    """What real training sets are read like when one kind of degradation is left out of the lines learnt from."""
    names = list(dict.fromkeys(row["set"] for row in results["bench"]["results"]))
    rows = []
    for arm, about in results["arms"].items():
        cells = ["not run"] * len(names)
        if "run" in about:
            cells = [beside_first(bench_rows(results, name)[f"{arm}.pt"]) for name in names]
        rows.append([about["what"], *cells])
    return table(["exact % without case (beside the usual mix)", *names], rows)


if __name__ == "__main__":
    main()
