"""Method 3 against its peers on long-tailed characters: `python -m benchmarks.long_tail`.

A training set is cut to an exponential imbalance: classes in a seeded order keep their first n_k crops, the first class
all that every class has, the last a hundredth of it, or one crop where that is less. The test set stays balanced. Every
loss gets four settings, tried once each in two fifths of the epochs; the one of the best macro accuracy on held-out
crops, training crops that the cut leaves out, at most ten a class, is then trained with three seeds, each with its own
cut and weights, and read on the test set. Which terms of the loss do what is told by one seed on the first set. Every
run is kept in --out, so that what was cut off goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.character_runs import (
    DATA,
    CropSet,
    Json,
    Training,
    embeddings,
    kept,
    load_crops,
    shuffled_batches,
    spread,
    train_characters,
    with_rates,
)
from benchmarks.cifar10 import read_cifar10
from benchmarks.markdown import table
from benchmarks.stages import RESULTS, write_json
from crnn.characters.metrics import class_accuracies, retrieval
from crnn.characters.model import CharacterModel
from crnn.objectives.character_losses import CHARACTER_LOSSES, CharacterLoss
from crnn.objectives.classification import class_counts

Part = Literal["chars_hwdb", "chars_callig", "ablation", "cifar10"]
PARTS: tuple[Part, ...] = ("chars_hwdb", "chars_callig", "ablation", "cifar10")
GREATEST_IMBALANCE, HELD_OUT, SEEDS = 100, 10, 3
TUNING = 0.4
"""Share of the epochs that a training for tuning has."""
CIFAR_EPOCHS, CIFAR_HELD_OUT = 15, 200
RATES = (2e-3, 4e-3)
GROUPS = ("many", "medium", "few")
ARMS: dict[CharacterLoss, str] = {
    "cross-entropy": "cross-entropy",
    "balanced-softmax": "Balanced Softmax",
    "logit-adjusted": "Logit Adjustment",
    "ldam": "LDAM, best with or without DRW",
    "long-tail": "ours (method 3)",
}
OURS: CharacterLoss = "long-tail"


SETTINGS: dict[CharacterLoss, list[Json]] = {
    "cross-entropy": with_rates((1e-3, 2e-3, 4e-3, 8e-3), {}),
    "balanced-softmax": with_rates((1e-3, 2e-3, 4e-3, 8e-3), {}),
    "logit-adjusted": with_rates(RATES, {"tau": 0.75}, {"tau": 1.5}),
    "ldam": with_rates(RATES, {"margin": 0.5}, {"margin": 0.5, "deferred": True}),
    "long-tail": with_rates(RATES, {"margin": 0.5}, {"margin": 1.0}),
}
"""What is tried of each loss, learning rates alone where it has no other option; what is not named is its default."""

ABLATION: dict[str, Json] = {
    "all three terms": {},
    "without margin": {"margin": 0.0},
    "without spread": {"spread": 0.0},
    "without norm": {"norm": 0.0},
    "margin alone": {"spread": 0.0, "norm": 0.0},
    "none: normalised softmax": {"margin": 0.0, "spread": 0.0, "norm": 0.0},
    "weights of spread that sum to the number of classes": {"weights": "classes"},
    "g squared": {"regulariser": "squared"},
    "g inverse": {"regulariser": "inverse"},
}
"""Changes to our best setting on the first set."""


@dataclass(frozen=True)
class LongTailOptions:
    """Options.

    Attributes:
        parts: what to run, in this order.
        data: folder with the zips of the data sets.
        out: folder of the runs.
        epochs: of a training on characters.
        threads: of each run.
    """

    parts: tyro.conf.Positional[tuple[Part, ...]] = PARTS
    data: Path = DATA
    out: Path = Path("runs/long-tail")
    epochs: int = 60
    threads: int = 1


@dataclass(frozen=True)
class Cut:
    """Indices of a long-tailed training set and of what is held out; order: classes, the most frequent first."""

    training: NDArray[np.int64]
    held_out: NDArray[np.int64]
    order: NDArray[np.int64]


def main() -> None:
    """Runs what is not there yet; the table's JSON is written anew after every set."""
    options = tyro.cli(LongTailOptions, description=__doc__)
    torch.set_num_threads(options.threads)
    for part in options.parts:
        if part == "ablation":
            run_ablation(options)
        else:
            run_set(options, part)


def run_set(options: LongTailOptions, name: Part) -> None:
    """Tunes every loss on a set and trains the best of its settings with every seed."""
    crops, test = load_set(options, name)
    described = description(options, name, crops, test)
    for arm in ARMS:
        tuning = [one_run(options, name, crops, test, arm, chosen, 0, tuning=True) for chosen in SETTINGS[arm]]
        best = max(range(len(tuning)), key=lambda i: tuning[i]["held_out"]["macro"])
        for seed in range(SEEDS):
            one_run(options, name, crops, test, arm, SETTINGS[arm][best], seed)
            keep(name, described | {"arms": arms_so_far(options, name)})


def run_ablation(options: LongTailOptions) -> None:
    """Our best setting on the first set, with each term left out and with every g."""
    name = PARTS[0]
    best = next((row["chosen"] for row in arms_so_far(options, name) if row["arm"] == OURS and row["runs"]), None)
    if best is None:
        raise ValueError(f"our loss has no chosen setting on {name} in {options.out}; run the part {name} first")
    crops, test = load_set(options, name)
    rows: list[Json] = [{"what": what} for what in ABLATION]
    for row, change in zip(rows, ABLATION.values(), strict=True):
        row |= one_run(options, name, crops, test, OURS, best | change, 0)["test"]
        keep("ablation", {"set": name, "seed": 0, "rows": rows})


def one_run(
    options: LongTailOptions, name: Part, crops: CropSet, test: CropSet, arm: CharacterLoss, chosen: Json, seed: int,
    tuning: bool = False,
) -> Json:  # fmt: skip
    """One training, read on the held-out crops where it serves tuning, else on the test set."""
    loss_options = dict(chosen)
    training = replace(
        training_of(options, name, tuning),
        **{key: loss_options.pop(key) for key in ("learning_rate", "weight_decay") if key in loss_options},
    )
    deferred = loss_options.pop("deferred", False)

    def run() -> Json:
        cut = long_tailed(crops, seed, held_out_of(name))
        own = crops.chosen(cut.training)
        counts = class_counts(torch.from_numpy(own.numbers), len(own.classes))
        model = train_characters(
            lambda: CHARACTER_LOSSES[arm](training.embedding, counts, **loss_options),
            own,
            training,
            seed,
            shuffled_batches(len(own), training.batch, seed),
            reweighting(training.epochs) if deferred else None,
        )
        if tuning:
            return {"held_out": figures(model, crops.chosen(cut.held_out), training, cut.order)}
        return {"test": figures(model, test, training, cut.order)}

    settings = asdict(training) | {"arm": arm, "loss": loss_options, "deferred": deferred, "seed": seed}
    short = "-".join(f"{key}={value}" for key, value in chosen.items()) or "default"
    return kept(options.out / f"{name}.{arm}.{short}.{'tuning' if tuning else f'seed{seed}'}.json", settings, run)


def training_of(options: LongTailOptions, name: Part, tuning: bool = False) -> Training:
    """A shortened schedule for CIFAR-10, whose pictures are many more, and for tuning."""
    epochs = CIFAR_EPOCHS if name == "cifar10" else options.epochs
    epochs = max(1, round(TUNING * epochs)) if tuning else epochs
    if name == "cifar10":
        return Training(epochs, 128, 3e-3, backbone="resnet18", width=0.25, embedding=64, side=32, channels=3)
    return Training(epochs, 32, 3e-3, side=32)


def reweighting(epochs: int) -> Callable[[int, CharacterModel], None]:
    """Deferred re-weighting: LDAM's classes weigh by their effective numbers in the last fifth of the epochs."""

    def after(done: int, model: CharacterModel) -> None:
        model.classifier.reweighted = done >= 0.8 * epochs  # type: ignore[assignment]

    return after


def load_set(options: LongTailOptions, name: Part) -> tuple[CropSet, CropSet]:
    """Training and test crops; ValueError where their classes differ."""
    if name == "cifar10":
        made = []
        for part in ("train", "test"):
            pictures, numbers = read_cifar10(options.data / f"cifar10_{part}.zip")
            made.append(CropSet(pictures, numbers, tuple("0123456789")))
        return made[0], made[1]
    training, test = (load_crops(options.data / f"{name}_{part}.zip", 32) for part in ("train", "test"))
    if training.classes != test.classes:
        raise ValueError(f"the classes of {name}_train and {name}_test differ; fetch both again")
    return training, test


def held_out_of(name: Part) -> int:
    """Crops of a class that serve tuning at most."""
    return CIFAR_HELD_OUT if name == "cifar10" else HELD_OUT


def long_tailed(crops: CropSet, seed: int, most_held: int) -> Cut:
    """The first n_k crops of the class of rank k, n_k falling exponentially; held out: the last of the others."""
    classes = len(crops.classes)
    order = np.random.default_rng([seed, 7907]).permutation(classes)
    most = int(np.bincount(crops.numbers, minlength=classes).min())
    ratio = min(GREATEST_IMBALANCE, most)
    training, held_out = [], []
    for rank, number in enumerate(order):
        own = np.flatnonzero(crops.numbers == number)
        count = round(most * ratio ** (-rank / (classes - 1)))
        training.append(own[:count])
        held_out.append(own[max(count, len(own) - most_held) :])
    return Cut(np.concatenate(training), np.concatenate(held_out), order)


def figures(model: CharacterModel, crops: CropSet, training: Training, order: NDArray[np.int64]) -> Json:
    """Shares 0..1: accuracy, its mean over classes and over the classes of each third by frequency; and retrieval."""
    found = embeddings(model, crops, training)
    with torch.inference_mode():
        numbers = model.classifier.scores(torch.from_numpy(found)).argmax(1).numpy()
    labels = crops.labels()
    by_class = class_accuracies(labels, [crops.classes[number] for number in numbers])
    thirds = {
        group: mean(by_class[name] for name in (crops.classes[number] for number in part) if name in by_class)
        for group, part in zip(GROUPS, np.array_split(order, len(GROUPS)), strict=True)
    }
    asked = retrieval(found, labels)
    return {
        "accuracy": float((numbers == crops.numbers).mean()),
        "macro": mean(by_class.values()),
        **thirds,
        "recall_at_1": asked.recall_at_1,
        "map": asked.mean_average_precision,
    }


def description(options: LongTailOptions, name: Part, crops: CropSet, test: CropSet) -> Json:
    """What a set's table rests on."""
    cut = long_tailed(crops, 0, held_out_of(name))
    counts = np.bincount(crops.numbers[cut.training], minlength=len(crops.classes))[cut.order]
    thirds = [[int(part[-1]), int(part[0])] for part in np.array_split(counts, len(GROUPS))]
    return {
        "set": name,
        "classes": len(crops.classes),
        "training": len(cut.training),
        "largest": int(counts[0]),
        "smallest": int(counts[-1]),
        "thirds": dict(zip(GROUPS, thirds, strict=True)),
        "held_out": len(cut.held_out),
        "test": len(test),
        "trained": asdict(training_of(options, name)),
        "seeds": SEEDS,
    }


def arms_so_far(options: LongTailOptions, name: Part) -> list[Json]:
    """Every arm with its tuning and the finished runs of its best setting; nothing where it was not run."""
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob(f"{name}.*.json"))]
    epochs = {tuning: training_of(options, name, tuning).epochs for tuning in (False, True)}
    stored = [run for run in stored if run["settings"]["epochs"] == epochs["held_out" in run]]
    rows = []
    for arm in ARMS:
        own = [run for run in stored if run["settings"]["arm"] == arm]
        tuning = [run for run in own if "held_out" in run]
        row: Json = {"arm": arm, "tuning": [], "chosen": None, "runs": []}
        for chosen in SETTINGS[arm]:
            run = next((run for run in tuning if holds(run["settings"], chosen)), None)
            if run is not None:
                row["tuning"].append({"settings": chosen, "macro": run["held_out"]["macro"]})
        if len(row["tuning"]) == len(SETTINGS[arm]):
            row["chosen"] = max(row["tuning"], key=lambda tried: tried["macro"])["settings"]
            row["runs"] = [
                {"seed": run["settings"]["seed"], **run["test"], "cpu_seconds": run["cpu_seconds"]}
                for run in own
                if "test" in run and holds(run["settings"], row["chosen"])
            ]
        rows.append(row)
    return rows


def holds(settings: Json, chosen: Json) -> bool:
    """Whether a run was made with a setting of its arm, and nothing else."""
    training = {key: value for key, value in chosen.items() if key in ("learning_rate", "weight_decay")}
    loss = {key: value for key, value in chosen.items() if key not in ("learning_rate", "weight_decay", "deferred")}
    same = all(settings[key] == value for key, value in training.items())
    return same and settings["loss"] == loss and settings["deferred"] == chosen.get("deferred", False)


def keep(part: str, content: Json) -> None:
    """Puts one part's results into docs/results/long_tail.json, beside those of the other parts."""
    path = RESULTS / "long_tail.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, before | {"command": "python -m benchmarks.long_tail", "seed": 0, part: content})


# What the results say.


def long_tail_table(results: Json) -> str:
    """Markdown: each set's arms by frequency, what is claimed of them, and the ablation."""
    parts = []
    for name in PARTS:
        content = results.get(name)
        if content is None:
            parts.append(f"{name}: not run.\n")
        elif name == "ablation":
            parts.append(ablation_table(content))
        else:
            parts.append(set_table(content) + "\n" + claims_table(content["arms"]))
    return "\n".join(parts)


COLUMNS = ("macro", *GROUPS, "recall_at_1", "map")
TITLES = {"recall_at_1": "R@1", "map": "mAP"}


def set_table(content: Json) -> str:
    """One set: mean over seeds and, in brackets, from least to greatest."""
    counts = {group: f"{group} ({low} to {high})" for group, (low, high) in content["thirds"].items()}
    rows = [
        [ARMS[row["arm"]], *(spread([100 * run[key] for run in row["runs"]]) for key in COLUMNS), str(len(row["runs"]))]
        for row in content["arms"]
    ]
    about = (
        f"{content['set']}: {content['classes']} classes of {content['largest']} to {content['smallest']} crops, "
        f"{content['training']:,} in all; {content['test']:,} test crops.\n\n"
    )
    return about + table(["%", *(counts.get(key, TITLES.get(key, key)) for key in COLUMNS), "seeds"], rows)


def ablation_table(content: Json) -> str:
    """One seed on one set."""
    rows = [
        [row["what"], *(f"{100 * row[key]:.1f}" if key in row else "not run" for key in COLUMNS)]
        for row in content["rows"]
    ]
    header = [f"%, {content['set']}, one seed", *(TITLES.get(key, key) for key in COLUMNS)]
    return table(header, rows)


@dataclass(frozen=True)
class Claim:
    """least: points that the mean over seeds must reach. found: differences in points, one a seed; empty if not run."""

    what: str
    least: float
    found: tuple[float, ...]

    @property
    def verdict(self) -> str:
        if not self.found:
            return "not run"
        return "confirmed" if mean(self.found) >= self.least else "not confirmed"


def claims(arms: Sequence[Json]) -> list[Claim]:
    """What was hoped of ours, each difference between runs of the same seed, so of the same cut."""
    runs = {row["arm"]: {run["seed"]: run for run in row["runs"]} for row in arms}

    def apart(other: str, key: str) -> tuple[float, ...]:
        seeds = sorted(runs[OURS].keys() & runs[other].keys())
        return tuple(100 * (runs[OURS][seed][key] - runs[other][seed][key]) for seed in seeds)

    others = [arm for arm in ARMS if arm not in (OURS, "cross-entropy") and runs[arm]]
    made = [
        Claim("few, beside cross-entropy: 3 points more at least", 3.0, apart("cross-entropy", "few")),
        Claim("many, beside cross-entropy: 1 point less at most", -1.0, apart("cross-entropy", "many")),
    ]
    if others:
        best = max(others, key=lambda arm: mean(run["macro"] for run in runs[arm].values()))
        made.append(Claim(f"macro, beside {ARMS[best]}, the best of the others: level (within 1 point) or above", -1.0,
                          apart(best, "macro")))  # fmt: skip
    return made


def claims_table(arms: Sequence[Json]) -> str:
    """Each claim, what was found over seeds, and whether it holds."""
    rows = [[claim.what, spread(claim.found, sign="+"), claim.verdict] for claim in claims(arms)]
    return table(["ours", "points found", "claim"], rows)


if __name__ == "__main__":
    main()
