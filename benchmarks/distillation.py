"""Method 1's claims, tried: `python -m benchmarks.distillation`, some seven hours of a core for the three seeds.

A quarter-width ResNet-18 learns from baked words at full difficulty, taught by the shipped teacher in every way that
method 1 names and in ways that it is held against, or from scratch; every arm for as many steps on the same lines,
seen several times. The teacher has read 300,000 such lines, so there is something to teach where a student has few.
Every arm has the learning rate of its RATES at which it read most held-out lines of the training set, where all curves
are measured; the table's figures are of lines with words and fonts that nothing was trained on, and of iiit5k_test.
Runs are kept in --out; the results' JSON is written after each, so a table that was cut off says what was not run,
and --kept goes on from such a JSON where the folder is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.readings import exact_lines, paired, read, readings
from benchmarks.recipes import SMALL, TEACHER
from benchmarks.stages import RESULTS, curve_of, finished, run_result, run_stage, write_json
from crnn.checkpoint import load_checkpoint, write_atomically
from crnn.model import Crnn
from data.lines import open_lines
from distill.run import column_agreement

Json = dict[str, Any]

LINES, SIZES, UNSEEN = 8000, (2000, 8000, 32_000), 2000
"""Training lines of most arms, of those at several sizes, and lines of the test set."""
SEEDS = (0, 1, 2)
RATES = {"scratch": (2e-3, 4e-3, 8e-3), "taught": (4e-3, 16e-3)}
"""Tried with the first seed, and chosen from: of twins, and of all taught arms alike."""
SHOWN_RATES = {"published": (2e-3, 8e-3), "both": (2e-3, 8e-3)}
"""Tried besides, to show how accuracy goes with the rate; never chosen."""
EVERY = 250
"""Steps between validations."""
READ = ("unseen", "iiit5k_test")
SPIKE_LINES = 300


@dataclass(frozen=True)
class Arm:
    """what: as people are told. arguments: beside those that all share. rates: of RATES; scratch: no teacher."""

    what: str
    arguments: tuple[str, ...] = ()
    rates: Literal["scratch", "taught"] = "taught"
    sizes: tuple[int, ...] = (LINES,)

    @property
    def scratch(self) -> bool:
        return self.rates == "scratch"


ARMS = {
    "published": Arm("method 1: L2 after the encoder + 0.1 CTC", sizes=SIZES),
    "scratch": Arm("from scratch, plain CTC", ("--column-weight", "0"), "scratch", SIZES),
    "both": Arm("L2 before and after the encoder", ("--distance-at", "both"), sizes=SIZES),
    "kl-classes": Arm("KL of the class probabilities", ("--distance", "kl-classes"), sizes=SIZES),
    "scratch-columns": Arm("from scratch, column-aligned loss fading", ("--column-steps", "half"), "scratch"),
    "ctc-only": Arm("CTC alone, through the frozen encoder", ("--distance", "none")),
    "input": Arm("L2 before the encoder", ("--distance-at", "input")),
    "train-encoder": Arm("encoder copied, not frozen", ("--train-encoder",)),
    "train-classifier": Arm("classifier copied, not frozen", ("--train-classifier",)),
    "kl-characters": Arm("KL without columns of blanks", ("--distance", "kl-characters")),
    "l1": Arm("L1", ("--distance", "l1")),
    "l1-l2": Arm("L1 + L2", ("--distance", "l1", "l2")),
    "cosine": Arm("cosine", ("--distance", "cosine")),
    "kl": Arm("KL of softmaxed features", ("--distance", "kl")),
    "w0": Arm("w = 0: no labels", ("--ctc-weight", "0")),
    "w0.01": Arm("w = 0.01", ("--ctc-weight", "0.01")),
    "w1": Arm("w = 1", ("--ctc-weight", "1")),
}


@dataclass(frozen=True)
class DistillationOptions:
    """Options.

    Attributes:
        data: folder with iiit5k_test.zip.
        out: where lines, models and readings go.
        kept: results of an earlier call, such as docs/results/distillation.json; its runs are not made again.
        steps: of every arm.
        processes: trainings at a time, each on one thread.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/distillation")
    kept: Path | None = None
    steps: int = 3000
    processes: int = 1

    @property
    def models(self) -> Path:
        """Where the trainings go; those of other steps lie elsewhere."""
        return self.out / f"{self.steps}-steps"


@dataclass(frozen=True)
class Run:
    """One training. rate: the learning rate; 0 where the chosen one is meant."""

    arm: str
    lines: int
    seed: int
    rate: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.lines}-{self.seed}-rate{self.rate:g}"


Runs = dict[Run, Json]
"""What is known of each finished run, see figures_of."""


def main() -> None:
    """Every run that is not there yet, in an order in which the table's first seed is whole early."""
    options = tyro.cli(DistillationOptions, description=__doc__)
    bake(options)
    teacher = options.out / "teacher.pt"
    if not teacher.exists():
        shutil.copyfile(TEACHER, teacher)
    if digest(teacher) != digest(TEACHER):
        sys.exit(f"what lies in {options.out} was taught by another teacher than {TEACHER}; give another --out")
    read(teacher, test_sets(options))
    if options.kept is not None:
        refuse_other_lines(options.kept, test_figures(teacher))
    runs = known_runs(options)
    for stage in (rate_runs(), chosen_runs()):
        asked = [chosen(runs, planned) for planned in stage]
        for made in trained(options, [run for run in asked if run not in runs]):
            runs |= made
            write_results(options, runs)
    write_results(options, runs)


def bake(options: DistillationOptions) -> None:
    """Training lines of each size, and unseen ones."""
    for size in SIZES:
        make(options.out / f"lines-{size}.lmdb", size, "training", seed=61)
    make(options.out / "unseen.lmdb", UNSEEN, "held-out", seed=62)


def make(out: Path, count: int, side: str, seed: int) -> None:
    run_stage(
        out, "crnn",
        ["data", "make", "--out", str(out), "--count", str(count), "--seed", str(seed), "--longest", "12",
         "--fonts", side, "--words", side],
    )  # fmt: skip


def rate_runs() -> list[Run]:
    """Of the first seed at the main size, every rate to choose from."""
    return [Run(name, LINES, SEEDS[0], rate) for name, arm in ARMS.items() for rate in RATES[arm.rates]]


def chosen_runs() -> list[Run]:
    """At each arm's chosen rate: every seed at the main size, then at the other sizes; last, rates that are shown."""
    main_size = [Run(name, LINES, seed) for seed in SEEDS for name in ARMS]
    others = [size for size in SIZES if size != LINES]
    sized = [Run(n, size, seed) for seed in SEEDS for size in others for n in ARMS if size in ARMS[n].sizes]
    shown = [Run(name, LINES, SEEDS[0], rate) for name, rates in SHOWN_RATES.items() for rate in rates]
    return main_size + sized + shown


def chosen(runs: Runs, run: Run) -> Run:
    """The run at its arm's best rate, where that is meant; before all rates were tried it stays a run of no rate."""
    tried = tried_rates(runs, run.arm)
    if run.rate or len(tried) < len(RATES[ARMS[run.arm].rates]):
        return run
    return replace(run, rate=max(tried, key=tried.__getitem__))


def tried_rates(runs: Runs, arm: str, shown: bool = False) -> dict[float, float]:
    """rate -> share of held-out training lines that the first seed read with it, of finished runs. shown: all."""
    rates = (*RATES[ARMS[arm].rates], *(SHOWN_RATES.get(arm, ()) if shown else ()))
    tried = {rate: runs.get(Run(arm, LINES, SEEDS[0], rate)) for rate in rates}
    return {rate: max(row["accuracy"] for row in figures["curve"]) for rate, figures in tried.items() if figures}


def known_runs(options: DistillationOptions) -> Runs:
    """Those of options.kept, and those in options.out, whose figures are made where they are missing."""
    runs: Runs = {}
    if options.kept is not None:
        kept = json.loads(options.kept.read_text(encoding="utf-8"))
        if kept["steps"] != options.steps:
            sys.exit(f"{options.kept} is of {kept['steps']} steps, not of {options.steps}; leave --kept out")
        if kept["teacher"]["sha256"] != digest(TEACHER):
            sys.exit(f"{options.kept} is of another teacher than {TEACHER}; leave --kept out")
        runs |= by_run(kept)
    for run in all_runs():
        model = options.models / f"{run.name}.pt"
        if model.exists() and finished(model):
            runs[run] = figures_of(options, run)
    return runs


def refuse_other_lines(kept: Path, teacher: Json) -> None:
    """Ends the program where the teacher reads other lines than when kept was made: other fonts, or another drawing."""
    before = json.loads(kept.read_text(encoding="utf-8"))["teacher"]["right"]
    if any(bits != before.get(name) for name, bits in teacher["right"].items()):
        sys.exit(f"the lines drawn or read here are not those of {kept}; leave --kept out, or install the same fonts")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def all_runs() -> set[Run]:
    """At any rate."""
    return {
        replace(run, rate=rate)
        for run in rate_runs() + chosen_runs()
        for rate in (*RATES[ARMS[run.arm].rates], *SHOWN_RATES.get(run.arm, ()))
    }


def by_run(results: Json) -> Runs:
    """The runs of results."""
    return {Run(row["arm"], row["training_lines"], row["seed"], row["rate"]): row for row in results["runs"]}


def trained(options: DistillationOptions, runs: Sequence[Run]) -> Iterator[Runs]:
    """Each run's figures as it ends, options.processes at a time; after one that fails no other begins."""
    with ThreadPoolExecutor(options.processes) as pool:
        try:
            for made in as_completed([pool.submit(train, options, run) for run in runs]):
                yield made.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def train(options: DistillationOptions, run: Run) -> Runs:
    """One training, and its figures."""
    out, arm = options.models / f"{run.name}.pt", ARMS[run.arm]
    shared = [
        "--data", str(options.out / f"lines-{run.lines}.lmdb"), "--out", str(out), "--until", str(options.steps),
        "--validate-every", str(EVERY), "--threads", "1", "--seed", str(run.seed), "--learning-rate", f"{run.rate:g}",
    ]  # fmt: skip
    own = [str(options.steps // 2) if argument == "half" else argument for argument in arm.arguments]
    if arm.scratch:
        run_stage(out, "crnn", ["train", *shared, *SMALL, "--no-augment", *own])
    else:
        taught = ["--teacher", str(options.out / "teacher.pt"), "--student-backbone", "resnet18"]
        run_stage(out, "distill.cli", [*taught, "--keep-features", "memory", *shared, *own])
    return {run: figures_of(options, run)}


def test_sets(options: DistillationOptions) -> list[Path]:
    """Unseen lines, and real ones where they are there."""
    real = options.data / "iiit5k_test.zip"
    return [options.out / "unseen.lmdb", *([real] if real.exists() else [])]


def figures_of(options: DistillationOptions, run: Run) -> Json:
    """A finished run: which lines of the test sets it reads, its curve, and how its spikes agree with the teacher's.

    Kept beside the model. right: set -> the lines that are read exactly, as packed.
    """
    model, teacher = options.models / f"{run.name}.pt", options.out / "teacher.pt"
    kept = model.with_suffix(".figures.json")
    if kept.exists() and kept.stat().st_mtime >= model.stat().st_mtime:
        found: Json = json.loads(kept.read_text(encoding="utf-8"))
        return found
    read(model, test_sets(options))
    lines = open_lines(options.out / "unseen.lmdb")
    spec = load_checkpoint(teacher).info.input_spec
    networks = [Crnn.from_checkpoint(load_checkpoint(path)) for path in (teacher, model)]
    spikes = column_agreement(networks[0], networks[1], [lines[i] for i in range(SPIKE_LINES)], spec)
    result = run_result(model)
    found = {
        "arm": run.arm,
        "training_lines": run.lines,
        "seed": run.seed,
        "rate": run.rate,
        **test_figures(model),
        "curve": [{key: row[key] for key in ("lines", "accuracy", "seconds")} for row in curve_of(model)],
        "lines": result["lines"],
        "minutes": result["seconds"] / 60,
        "spikes_agree": spikes.get("spikes_agree", 0.0),
        "spikes_agree_within_1": spikes.get("spikes_agree_within_1", 0.0),
    }
    write_atomically(kept, lambda file: file.write(json.dumps(found).encode()))
    return found


def test_figures(model: Path) -> Json:
    """The share of each test set that is read exactly, and which lines those are."""
    right = {name: exact_lines(lines) for name, lines in readings(model).items()}
    return {
        "exact": {name: statistics.fmean(lines) for name, lines in right.items()},
        "right": {name: packed(lines) for name, lines in right.items()},
    }


def packed(lines: Sequence[bool]) -> str:
    """A bit a line, the first ones first, in hexadecimal: their number, a colon, and eight of them to two digits."""
    return f"{len(lines)}:{np.packbits(lines).tobytes().hex()}"


def unpacked(text: str) -> list[bool]:
    """What packed has packed."""
    count, _, bits = text.partition(":")
    return [bool(bit) for bit in np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=int(count))]


def write_results(options: DistillationOptions, runs: Runs) -> None:
    """Every run's figures, and the claims' differences, paired by line and seed."""
    teacher = test_figures(options.out / "teacher.pt") | {"sha256": digest(options.out / "teacher.pt")}
    write_json(
        RESULTS / "distillation.json",
        {
            "command": f"python -m benchmarks.distillation --steps {options.steps}",
            "steps": options.steps,
            "teacher": teacher,
            "differences": differences(runs, teacher),
            "runs": [figures for run, figures in sorted(runs.items(), key=lambda item: item[0].name)],
        },
    )


def arm_runs(runs: Runs, arm: str, lines: int = LINES) -> list[Json]:
    """An arm's figures at its chosen rate, seed by seed, of the runs that are finished."""
    asked = [chosen(runs, Run(arm, lines, seed)) for seed in SEEDS]
    return [runs[run] for run in asked if run in runs]


PAIRS = (
    ("published", "teacher"), ("published", "scratch"), ("published", "scratch-columns"), ("published", "ctc-only"),
    ("published", "train-encoder"), ("published", "train-classifier"), ("published", "kl-classes"),
    ("published", "kl-characters"), ("published", "kl"), ("published", "cosine"), ("l1", "kl-classes"),
    ("l1-l2", "kl-classes"), ("both", "published"), ("input", "published"), ("published", "w0"), ("published", "w0.01"),
    ("published", "w1"), ("both", "scratch-columns"),
)  # fmt: skip
"""Arms whose difference is told, at the main size."""


def differences(runs: Runs, teacher: Json) -> list[Json]:
    """Exact accuracy on unseen lines of the first less that of the second, and its interval over lines."""
    found = []
    for first, second in PAIRS:
        own = {figures["seed"]: figures for figures in arm_runs(runs, first)}
        others = dict.fromkeys(own, teacher)
        if second != "teacher":
            others = {figures["seed"]: figures for figures in arm_runs(runs, second)}
        seeds = sorted(own.keys() & others.keys())
        if not seeds:
            continue
        right = [[unpacked(side[seed]["right"]["unseen"]) for seed in seeds] for side in (own, others)]
        each, interval = paired(*right)
        found.append(
            {"first": first, "second": second, "seeds": seeds, "each": each, "difference": statistics.fmean(each),
             "interval": interval}
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main()
