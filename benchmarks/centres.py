"""Method 4 against its peers: how well classes that training never saw are told apart: `python -m benchmarks.centres`.

A third of the classes is held out: every third in code point order of chars_hwdb, and of chars74k every third digit or
letter, upper and lower case together. Networks are trained on the training crops of the others, in PK batches, and all
crops of the held-out classes ask each other for their nearest: Recall@1 by cosine. Beside the centre-anchored triplets,
with each centre rule, hard and plain: batch-hard triplets of pytorch-metric-learning, and softmax with centre loss.
Hard mining from the first step tells nothing apart at these rates, with pictures as anchors and with centres alike, but
where a softmax keeps the centres apart; so it begins after a quarter of the epochs, and all triplets serve until then.
Every arm gets four settings, tried once each in half the epochs on chars_hwdb's training classes, of which every fourth
is left out and asked; the best is trained with three seeds on both sets. Then the best rule and both peers are trained
on the first quarter of each class, for as many steps. Every run is kept in --out, so that what was cut off goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.character_runs import (
    DATA,
    CropSet,
    Json,
    Training,
    embeddings,
    kept,
    load_crops,
    spread,
    train_characters,
    with_rates,
)
from benchmarks.charts import Curve, curves, standalone
from benchmarks.markdown import table
from benchmarks.stages import RESULTS, write_json
from crnn.characters.metrics import retrieval
from crnn.characters.model import CharacterModel
from crnn.objectives.centres import CentreLoss, CentreLossRule, CentreTriplet, ClassifierWeights, MovingAverage
from crnn.objectives.classification import ClassLoss, class_counts
from crnn.objectives.pk_sampling import PKSampler
from crnn.objectives.recognition import Terms

SetName = Literal["chars_hwdb", "chars74k"]
SETS: tuple[SetName, ...] = ("chars_hwdb", "chars74k")
PARTS: dict[SetName, tuple[str, ...]] = {
    "chars_hwdb": ("chars_hwdb_train", "chars_hwdb_test"),
    "chars74k": ("chars74k",),
}
CLASSES, SAMPLES, SEEDS, SIDE, EMBEDDING = 16, 4, 3, 32, 64
"""P, K, and the runs of each arm; pixels of a crop; what describes it."""
RATES = (1e-3, 3e-3)
CURVE = 4
"""Every fourth held-out crop is asked after each epoch, for how fast an arm learns."""
PLAIN_FIRST = 0.25
"""Share of the epochs in which all triplets count, before the hardest do."""
COLLAPSED = 0.1
"""Mean Recall@1 below which an arm tells nothing apart, so it is no peer."""
REACHED = 0.98
"""Share of batch-hard's final Recall@1 that an arm must come to; the epochs until then are told."""


class BatchHard(ClassLoss):
    """Batch-hard triplets (Hermans et al. 2017) as pytorch-metric-learning has them, on normalised embeddings.

    mining: "hard", or "plain" for all triplets of a batch.
    """

    mining: Literal["hard", "plain"] = "hard"

    def __init__(self, features: int, counts: Tensor, margin: float = 0.2) -> None:
        from pytorch_metric_learning.losses import TripletMarginLoss  # type: ignore[import-untyped]
        from pytorch_metric_learning.miners import BatchHardMiner  # type: ignore[import-untyped]

        super().__init__(features, counts)
        self.mine, self.triplets = BatchHardMiner(), TripletMarginLoss(margin=margin)

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        hardest = self.mine(features, labels) if self.mining == "hard" else None
        return {"loss": self.triplets(features, labels, hardest)}

    def scores(self, features: Tensor) -> Tensor:
        raise ValueError("batch-hard triplets have no classifier; ask for nearest neighbours instead")


@dataclass(frozen=True)
class Arm:
    """make: (features, counts, options) -> loss. settings: what is tried; learning rate and plain_first are not make's.

    name: a short one, for the picture.
    """

    what: str
    name: str
    make: Callable[..., ClassLoss]
    settings: list[Json] = field(hash=False)


def centre_triplet(
    rule: Callable[..., Any], mining: Literal["hard", "plain"], features: int, counts: Tensor, **options: Any
) -> ClassLoss:
    """margin is the triplets'; what else there is, the rule's."""
    margin = options.pop("margin")
    return CentreTriplet(features, counts, partial(rule, **options), mining, margin)


RAW_OR_UNIT = with_rates(RATES, {"margin": 1.0, "normalise": False}, {"margin": 0.5, "normalise": True})


def later_hard(settings: Sequence[Json]) -> list[Json]:
    """The settings with all triplets at first."""
    return [tried | {"plain_first": PLAIN_FIRST} for tried in settings]


ARMS: dict[str, Arm] = {
    "batch-hard": Arm(
        "batch-hard triplet",
        "batch-hard",
        BatchHard,
        later_hard(with_rates(RATES, {"margin": 0.2}, {"margin": 0.5})),
    ),
    "centre-loss": Arm(
        "softmax with centre loss", "softmax + centre", CentreLoss, with_rates(RATES, {"weight": 0.01}, {"weight": 0.1})
    ),
    **{
        f"{name}-{mining}": Arm(
            f"centre triplet, {rule_name}, {mining}",
            f"{rule_name}, {mining}",
            partial(centre_triplet, rule, mining),
            later_hard(tried) if mining == "hard" and name != "classifier" else tried,
        )
        for name, rule_name, rule, tried in (
            ("moving-average", "moving average", MovingAverage, RAW_OR_UNIT),
            ("centre-rule", "centre loss rule", CentreLossRule, RAW_OR_UNIT),
            (
                "classifier",
                "classifier weights",
                ClassifierWeights,
                with_rates(RATES, {"margin": 0.5}, {"margin": 1.0}),
            ),
        )
        for mining in ("hard", "plain")
    },
}
PEERS = ("batch-hard", "centre-loss")
RULE_ARMS = [arm for arm in ARMS if arm not in PEERS]
"""Ours, hard and plain of each rule in turn."""


@dataclass(frozen=True)
class CentresOptions:
    """Options.

    Attributes:
        sets: what to run, in this order; arms are tuned on the first set of all.
        data: folder with the zips of the data sets.
        out: folder of the runs.
        epochs: of a training on all crops.
        threads: of each run.
    """

    sets: tyro.conf.Positional[tuple[SetName, ...]] = SETS
    data: Path = DATA
    out: Path = Path("runs/centres")
    epochs: int = 20
    threads: int = 1


@dataclass(frozen=True)
class Task:
    """training: crops to learn from. asked: crops of classes that training does not hold. epochs: see steps."""

    training: CropSet
    asked: CropSet
    epochs: int
    batches: int


def main() -> None:
    """Tunes every arm, then trains it on each set; the table's JSON is written anew after every arm."""
    options = tyro.cli(CentresOptions, description=__doc__)
    torch.set_num_threads(options.threads)
    chosen = tuned(options)
    for name in options.sets:
        task = set_task(options, name, load_set(options, name))
        for arm in ARMS:
            for seed in range(SEEDS):
                one_run(options, f"{name}.{arm}.seed{seed}", task, arm, chosen[arm], seed)
            write_table(options, chosen)
        best = best_rule(options)
        fewer = quarter(task)
        for arm in (best, *PEERS):
            for seed in range(SEEDS):
                one_run(options, f"{name}.{arm}.quarter.seed{seed}", fewer, arm, chosen[arm], seed)
            write_table(options, chosen)


def tuned(options: CentresOptions) -> dict[str, Json]:
    """Every arm's best setting."""
    name = SETS[0]
    task = tuning_task(options, load_set(options, name))
    chosen = {}
    for arm, about in ARMS.items():
        tried = [
            one_run(options, f"{name}.{arm}.tuning{i}", task, arm, settings, 0)["recall_at_1"]
            for i, settings in enumerate(about.settings)
        ]
        chosen[arm] = about.settings[int(np.argmax(tried))]
    return chosen


def load_set(options: CentresOptions, name: SetName) -> list[CropSet]:
    """The crops of each file of a set."""
    return [load_crops(options.data / f"{part}.zip", SIDE) for part in PARTS[name]]


def held_out_classes(name: SetName, classes: Sequence[str]) -> list[str]:
    """Every third class; case is not told apart in deciding which, or half a letter would be learnt."""
    kinds = sorted({label.lower() for label in classes} if name == "chars74k" else set(classes))
    held = set(kinds[2::3])
    return [label for label in classes if (label.lower() if name == "chars74k" else label) in held]


def set_task(options: CentresOptions, name: SetName, crops: list[CropSet]) -> Task:
    """Learn from the first file's crops of the classes that are not held out; all crops of the others are asked."""
    held = held_out_classes(name, crops[0].classes)
    training = crops[0].of_classes([label for label in crops[0].classes if label not in held])
    asked = [part.of_classes(held) for part in crops]
    both = CropSet(
        np.concatenate([part.pictures for part in asked]), np.concatenate([part.numbers for part in asked]), tuple(held)
    )
    return Task(training, both, options.epochs, steps(training))


def tuning_task(options: CentresOptions, crops: list[CropSet]) -> Task:
    """The same within the training classes, every fourth of which is left out and asked, in half the epochs."""
    training = set_task(options, SETS[0], crops).training
    asked = training.classes[3::4]
    rest = training.of_classes([label for label in training.classes if label not in asked])
    return Task(rest, training.of_classes(asked), max(1, options.epochs // 2), steps(rest))


def quarter(task: Task) -> Task:
    """The first quarter of each class's training crops, for as many steps."""
    numbers = task.training.numbers
    kept_crops = [
        own[: max(1, len(own) // 4)]
        for own in (np.flatnonzero(numbers == number) for number in range(len(task.training.classes)))
    ]
    return Task(task.training.chosen(np.concatenate(kept_crops)), task.asked, task.epochs, task.batches)


def steps(training: CropSet) -> int:
    """Batches of an epoch: as many crops as there are."""
    return max(1, round(len(training) / (CLASSES * SAMPLES)))


def one_run(options: CentresOptions, file: str, task: Task, arm: str, chosen: Json, seed: int) -> Json:
    """One training; Recall@1 and mAP on the asked crops at its end, Recall@1 on a part of them after every epoch."""
    loss_options = options_of_loss(chosen)
    plain_first = chosen.get("plain_first", 0.0)
    training = Training(task.epochs, CLASSES * SAMPLES, chosen["learning_rate"], embedding=EMBEDDING, side=SIDE)

    def run() -> Json:
        counts = class_counts(torch.from_numpy(task.training.numbers), len(task.training.classes))
        sampler = PKSampler(task.training.numbers.tolist(), CLASSES, SAMPLES, task.batches, seed)
        some, curve = task.asked.chosen(np.arange(0, len(task.asked), CURVE)), []

        def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
            sampler.epoch = epoch
            return (np.array(batch, np.int64) for batch in sampler)

        def loss() -> ClassLoss:
            made = ARMS[arm].make(EMBEDDING, counts, **loss_options)
            if plain_first:
                made.mining = "plain"  # type: ignore[assignment]
            return made

        def after(done: int, model: CharacterModel) -> None:
            if plain_first and done >= plain_first * task.epochs:
                model.classifier.mining = "hard"  # type: ignore[assignment]
            curve.append(retrieval(embeddings(model, some, training), some.labels()).recall_at_1)

        model = train_characters(loss, task.training, training, seed, batches, after)
        found = retrieval(embeddings(model, task.asked, training), task.asked.labels())
        return {"recall_at_1": found.recall_at_1, "map": found.mean_average_precision, "curve": curve}

    mined = {"plain_first": plain_first} if plain_first else {}
    settings = asdict(training) | mined | {
        "arm": arm, "loss": loss_options, "seed": seed, "crops": len(task.training), "batches": task.batches,
        "classes": len(task.training.classes), "asked": len(task.asked),
    }  # fmt: skip
    return kept(options.out / f"{file}.json", settings, run)


def options_of_loss(settings: Json) -> Json:
    """Of what is tried, that which is the loss's and not the run's."""
    return {key: value for key, value in settings.items() if key not in ("learning_rate", "plain_first")}


def best_rule(options: CentresOptions) -> str:
    """The centre-anchored arm of the best Recall@1 on the tuning classes: the asked ones do not choose."""
    tried = {
        arm: max(
            json.loads(path.read_text(encoding="utf-8"))["recall_at_1"]
            for path in options.out.glob(f"{SETS[0]}.{arm}.tuning*.json")
        )
        for arm in RULE_ARMS
    }
    return max(tried, key=lambda arm: tried[arm])


def write_table(options: CentresOptions, chosen: dict[str, Json]) -> None:
    """The JSON of what was run; an arm or a part without runs stands with an empty list."""
    sets = []
    for name in SETS:
        rows = [
            {
                "arm": arm,
                "settings": chosen[arm],
                "runs": stored_runs(options, f"{name}.{arm}.seed"),
                "quarter": stored_runs(options, f"{name}.{arm}.quarter.seed"),
            }
            for arm in ARMS
        ]
        sets.append({"set": name, "arms": rows})
    best = best_rule(options)
    content = {"command": "python -m benchmarks.centres", "seed": 0, "epochs": options.epochs, "best_rule": best}
    write_json(RESULTS / "centres.json", content | {"sets": sets})


def stored_runs(options: CentresOptions, start: str) -> list[Json]:
    """Finished runs of an arm, by seed."""
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob(f"{start}*.json"))]
    named = ("crops", "classes", "asked", "seed")
    return [
        {key: run["settings"][key] for key in named}
        | {key: run[key] for key in ("recall_at_1", "map", "curve", "cpu_seconds")}
        for run in stored
        if run["settings"]["epochs"] == options.epochs
    ]


# What the results say.


def centres_table(results: Json) -> str:
    """Markdown: each set's arms, and what is claimed of the best rule."""
    return "\n".join(set_table(content, results["best_rule"]) for content in results["sets"])


def set_table(content: Json, best: str) -> str:
    """One set: mean over seeds and, in brackets, from least to greatest."""
    runs = {row["arm"]: row["runs"] for row in content["arms"]}
    first = next((run for own in runs.values() for run in own), None)
    if first is None:
        return f"{content['set']}: not run.\n"
    mark = mark_of(runs["batch-hard"])
    rows = [
        [
            ARMS[row["arm"]].what,
            spread(shares(row["runs"], "recall_at_1")),
            spread(shares(row["runs"], "map")),
            spread(shares(row["quarter"], "recall_at_1")),
            shown_epochs(row["runs"], mark),
            str(len(row["runs"])),
        ]
        for row in content["arms"]
    ]
    about = (
        f"{content['set']}: trained on {first['crops']:,} crops of {first['classes']} classes, {first['asked']:,} "
        "crops of other classes asked."
    )
    if mark is not None:
        about += f" The mark is {100 * mark:.1f} % Recall@1, {100 * REACHED:.0f} % of where batch-hard ends."
    header = ["%", "R@1", "mAP", "R@1, a quarter of the crops", "epochs to the mark", "seeds"]
    told = table([ARMS[best].what, "found", "claim"], [list(claim) for claim in claims(content, best)])
    return f"{about}\n\n{table(header, rows)}\n{told}"


def claims(content: Json, best: str) -> list[tuple[str, str, str]]:
    """(claim, what was found, confirmed or not or not run) of the best rule beside both peers.

    A peer that never comes to the mark counts as if it came in its last epoch, ours as if it came one later.
    Beside a peer that collapsed nothing is judged, nor are epochs to a mark that comes from one.
    """
    rows = {row["arm"]: row for row in content["arms"]}
    ours, mark = rows[best], mark_of(rows["batch-hard"]["runs"])
    made = []
    collapsed = {
        peer for peer in PEERS if (runs := rows[peer]["runs"]) and mean(r["recall_at_1"] for r in runs) < COLLAPSED
    }

    def judged(peer: str, by_mark: bool, decided: str) -> str:
        """The verdict, unless the peer, or the one that the mark comes from, tells nothing apart."""
        return "not judged: a peer collapsed" if {peer, "batch-hard" if by_mark else peer} & collapsed else decided

    for peer in PEERS:
        found = paired(ours["runs"], rows[peer]["runs"])
        made.append((f"R@1 above {ARMS[peer].what}", spread(found, "+"), judged(peer, False, verdict(found))))
    for peer in PEERS:
        pairs = [
            (epochs_to(a, mark), epochs_to(b, mark))
            for a, b in zip(ours["runs"], rows[peer]["runs"], strict=False)
            if mark is not None
        ]
        saved = [float((b or len_curve(ours)) - (a or len_curve(ours) + 1)) for a, b in pairs]
        made.append(
            (f"fewer epochs to the mark than {ARMS[peer].what}", spread(saved, "+"), judged(peer, True, verdict(saved)))
        )
    for peer in PEERS:
        found = paired(ours["quarter"], rows[peer]["runs"])
        what = f"R@1 with a quarter of the crops, at least that of {ARMS[peer].what} with all"
        made.append((what, spread(found, "+"), judged(peer, False, verdict(found, at_least=True))))
    return made


def paired(ours: Sequence[Json], others: Sequence[Json]) -> list[float]:
    """Points of Recall@1 between runs of the same seed."""
    theirs = {run["seed"]: run["recall_at_1"] for run in others}
    return [100 * (run["recall_at_1"] - theirs[run["seed"]]) for run in ours if run["seed"] in theirs]


def verdict(found: Sequence[float], at_least: bool = False) -> str:
    """Confirmed only where every seed says so."""
    if not found:
        return "not run"
    holds = min(found) >= 0 if at_least else min(found) > 0
    return "confirmed" if holds else "not confirmed"


def mark_of(runs: Sequence[Json]) -> float | None:
    """The Recall@1 whose epochs are told, from how batch-hard ended."""
    return REACHED * mean(run["curve"][-1] for run in runs) if runs else None


def epochs_to(run: Json, mark: float | None) -> int | None:
    """Epochs until the curve is at the mark for the first time; None where it never is."""
    if mark is None:
        return None
    return next((epoch for epoch, value in enumerate(run["curve"], 1) if value >= mark), None)


def len_curve(row: Json) -> int:
    return max((len(run["curve"]) for run in row["runs"]), default=0)


def shown_epochs(runs: Sequence[Json], mark: float | None) -> str:
    """Epochs of each seed, the mean first; "never" for a seed that does not get there."""
    if not runs or mark is None:
        return "not run"
    found = [epochs_to(run, mark) for run in runs]
    came = [float(epoch) for epoch in found if epoch is not None]
    if len(came) < len(found):
        return "never" if not came else f"{spread(came)}, {len(found) - len(came)} never"
    return spread(came)


def centres_picture(results: Json, name: SetName = "chars_hwdb") -> str:
    """Recall@1 after each epoch, mean and range over seeds, as an SVG file's text; empty where nothing was run.

    Both peers, and each centre rule with the mining that ends higher.
    """
    rows: list[Json] = next((content["arms"] for content in results.get("sets", ()) if content["set"] == name), [])
    runs = {row["arm"]: row["runs"] for row in rows if row["runs"]}
    ends = {arm: mean(run["curve"][-1] for run in own) for arm, own in runs.items()}
    pairs = [[arm for arm in pair if arm in runs] for pair in zip(RULE_ARMS[::2], RULE_ARMS[1::2], strict=True)]
    shown = [
        *(peer for peer in PEERS if peer in runs),
        *(max(pair, key=lambda arm: ends[arm]) for pair in pairs if pair),
    ]
    drawn = []
    for arm in shown:
        columns = list(zip(*(run["curve"] for run in runs[arm]), strict=True))
        lows, highs = (tuple(map(end, columns)) for end in (min, max))
        drawn.append(Curve(ARMS[arm].name, tuple(map(mean, columns)), lows, highs))
    return standalone(curves(drawn, "epoch", f"Recall@1 on held-out classes of {name}, %")) if drawn else ""


def shares(runs: Sequence[Json], key: str) -> list[float]:
    return [100 * run[key] for run in runs]


if __name__ == "__main__":
    main()
