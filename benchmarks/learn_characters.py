"""Characters learnt from one and from five crops, beside the old ones: `python -m benchmarks.learn_characters`.

Every fifth class of chars_hwdb in code point order is held out. A character model is trained on the training crops of
the others, but for every tenth crop of each class: these are its memory, and no weight is made from them. The held-out
classes are then learnt from a few of their training crops, drawn anew ten times, and chars_hwdb_test, whose writers no
training crop has, is read among all classes by the rule of `crnn characters classify`. Beside it: the nearest centre
among all classes without any bias; a bias for each class at its own memory's maximum; and the rule with cosines, and
with weighted descriptions. Three seeds.

The loss is chosen in the same way within the training crops: every fifth of the training classes is left out and learnt
from every second of its crops, its others and a tenth of the old classes' are read; one seed each. Of the losses that
lose at most 0.1 points of old accuracy by the default rule, the one that reads most new crops is taken. Every training
is kept in --out, so that what was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.character_runs import (
    DATA,
    CropSet,
    Json,
    Training,
    embeddings,
    kept,
    load_crops,
    shuffled_batches,
    train_characters,
)
from benchmarks.intervals import bootstrap_interval
from benchmarks.markdown import table, with_interval
from benchmarks.stages import RESULTS, write_json
from crnn.characters.checkpoint import Memory
from crnn.characters.learn import support_centres
from crnn.characters.learn_cli import MAY_LOSE
from crnn.characters.metrics import retrieval
from crnn.characters.model import CharacterModel, mean_directions
from crnn.characters.reading import LearntScores, learnt_bias, read_classes
from crnn.objectives.centres import CentreTriplet, ClassifierWeights
from crnn.objectives.classification import ClassLoss, CrossEntropy, class_counts
from crnn.objectives.long_tail import LongTail
from crnn.objectives.pk_sampling import PKSampler

Stage = Literal["tuning", "test"]
EVERY_CLASS, EVERY_CROP, SEEDS, DRAWS, SHOTS = 5, 10, 3, 10, (1, 5)
CLASSES, SAMPLES = 16, 4
"""P and K of batches for the loss that compares crops."""
LOSSES: dict[str, Callable[..., ClassLoss]] = {
    "cross-entropy": CrossEntropy,
    "long-tail": LongTail,
    "centre-triplet": partial(CentreTriplet, rule=ClassifierWeights, mining="hard", margin=1.0),
}
LOSS_NAMES = {
    "cross-entropy": "cross-entropy",
    "long-tail": "long-tail (method 3)",
    "centre-triplet": "centre triplets, classifier weights, hard (method 4)",
}
LENIENT = 0.01
ARMS: dict[str, str] = {
    "nearest": "nearest centre among all, no bias",
    "own maximum": "a bias a class, at its own maximum on the memory",
    "cosine": "one bias, cosines",
    "weighted": "one bias, weighted description",
    "rule": "one bias (default)",
    "lenient": f"one bias, --may-lose {LENIENT}",
}
"""How a crop is read; the last four set one bias for all learnt classes, as learnt_bias does."""
MOST_LOST = 0.1
"""Points of old accuracy that learning may cost."""


@dataclass(frozen=True)
class LearnCharactersOptions:
    """Options.

    Attributes:
        data: folder with the zips of the data sets.
        out: folder of the trainings.
        epochs: of a training.
        side: pixels of a crop.
        threads: of each training.
    """

    data: Path = DATA
    out: Path = Path("runs/learn-characters")
    epochs: int = 40
    side: int = 32
    threads: int = 1


@dataclass(frozen=True)
class Task:
    """training and memory: crops of old classes. support: of new ones. old, new: crops of either to read."""

    training: CropSet
    memory: CropSet
    support: CropSet
    old: CropSet
    new: CropSet


@dataclass(frozen=True)
class Network:
    """What a trained network says of a task's crops.

    centres: (C, E). embeddings: of "memory", "support", "old" and "new", each (N, E); scores: its classifier's, of all
    but the support, (N, C).
    """

    centres: NDArray[np.float32]
    embeddings: dict[str, NDArray[np.float32]]
    scores: dict[str, NDArray[np.float32]]

    @classmethod
    def read(cls, path: Path) -> Network:
        with np.load(path) as content:
            parts = {
                kind: {name.split(".")[1]: content[name] for name in content.files if name.startswith(f"{kind}.")}
                for kind in ("embeddings", "scores")
            }
            return cls(content["centres"], parts["embeddings"], parts["scores"])


def main() -> None:
    """Trains what is not there yet, reads, and writes the table's JSON."""
    learn_part(tyro.cli(LearnCharactersOptions, description=__doc__))


def learn_part(options: LearnCharactersOptions) -> Json:
    """Chooses the loss, trains with every seed, and returns and writes what was read; anew after every training."""
    torch.set_num_threads(options.threads)
    crops = load_crops(options.data / "chars_hwdb_train.zip", options.side)
    task = tuning_task(crops)
    tuning = [tuned(options, task, loss) for loss in LOSSES]
    chosen = best_loss(tuning)
    task = test_task(crops, load_crops(options.data / "chars_hwdb_test.zip", options.side))
    content: Json = {
        "command": "python -m benchmarks.learn_characters",
        "seed": 0,
        "held_out": "".join(task.new.classes),
        "classes": {"old": len(task.old.classes), "new": len(task.new.classes)},
        "crops": {name: len(getattr(task, name)) for name in ("training", "memory", "old", "new")},
        "trained": asdict(training_of(options)),
        "loss": chosen,
        "draws": DRAWS,
        "tuning": tuning,
    }
    networks: list[Network] = []
    for seed in range(SEEDS):
        networks.append(trained(options, "test", task, chosen, seed))
        content |= {"seeds": len(networks), "rows": read_rows(task, networks)}
        write_json(RESULTS / "learn_characters.json", content)
    return content


# What is learnt from, and what is read.


def new_classes(classes: tuple[str, ...]) -> list[str]:
    """Every fifth class, from the fifth on."""
    return list(classes[EVERY_CLASS - 1 :: EVERY_CLASS])


def ranks(crops: CropSet) -> NDArray[np.int64]:
    """The place of each crop within its class."""
    made = np.zeros(len(crops), np.int64)
    for number in range(len(crops.classes)):
        own = np.flatnonzero(crops.numbers == number)
        made[own] = np.arange(len(own))
    return made


def apart(crops: CropSet) -> tuple[CropSet, CropSet]:
    """The crops of the old and of the new classes, each numbered by themselves."""
    new = new_classes(crops.classes)
    return crops.of_classes([name for name in crops.classes if name not in new]), crops.of_classes(new)


def test_task(crops: CropSet, test: CropSet) -> Task:
    """Train on nine tenths of the old classes' training crops; ValueError where the files' classes differ."""
    if crops.classes != test.classes:
        raise ValueError("the classes of chars_hwdb_train and chars_hwdb_test differ; fetch both again")
    old, new = apart(crops)
    memory = ranks(old) % EVERY_CROP == EVERY_CROP - 1
    return Task(old.chosen(np.flatnonzero(~memory)), old.chosen(np.flatnonzero(memory)), new, *apart(test))


def tuning_task(crops: CropSet) -> Task:
    """The same within the training crops of the old classes."""
    old, new = apart(apart(crops)[0])
    place = ranks(old) % EVERY_CROP
    memory, asked, support = place == EVERY_CROP - 1, place == EVERY_CROP // 2 - 1, ranks(new) % 2 == 0
    return Task(
        old.chosen(np.flatnonzero(~memory & ~asked)),
        old.chosen(np.flatnonzero(memory)),
        new.chosen(np.flatnonzero(support)),
        old.chosen(np.flatnonzero(asked)),
        new.chosen(np.flatnonzero(~support)),
    )


# Training.


def training_of(options: LearnCharactersOptions) -> Training:
    return Training(options.epochs, CLASSES * SAMPLES, 4e-3, width=0.5, embedding=128, side=options.side)


def trained(options: LearnCharactersOptions, stage: Stage, task: Task, loss: str, seed: int) -> Network:
    """A network and what it says of the task's crops, from its file or made now."""
    training, path = training_of(options), options.out / f"{stage}.{loss}.seed{seed}.npz"

    def run() -> Json:
        counts = class_counts(torch.from_numpy(task.training.numbers), len(task.training.classes))
        model = train_characters(
            lambda: LOSSES[loss](training.embedding, counts),
            task.training,
            training,
            seed,
            batches_of(task, loss, seed),
        )
        said = what_is_said(model, task, training)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **said)  # type: ignore[arg-type]
        return {"accuracy": float((said["scores.old"].argmax(1) == task.old.numbers).mean())}

    settings = asdict(training) | {"stage": stage, "loss": loss, "seed": seed, "crops": len(task.training)}
    kept(path.with_suffix(".json"), settings, run)
    return Network.read(path)


def batches_of(task: Task, loss: str, seed: int) -> Callable[[int], Iterator[NDArray[np.int64]]]:
    """As many batches an epoch for every loss; with several crops a class where the loss compares crops."""
    size = CLASSES * SAMPLES
    if loss != "centre-triplet":
        return shuffled_batches(len(task.training), size, seed)
    sampler = PKSampler(task.training.numbers.tolist(), CLASSES, SAMPLES, round(len(task.training) / size), seed)

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        sampler.epoch = epoch
        return (np.array(batch, np.int64) for batch in sampler)

    return batches


def what_is_said(model: CharacterModel, task: Task, training: Training) -> dict[str, NDArray[np.float32]]:
    """What Network.read reads."""
    directions = embeddings(model, task.training, training)
    made = {"centres": mean_directions(directions, task.training.numbers, len(task.training.classes)).numpy()}
    for name in ("memory", "support", "old", "new"):
        found = embeddings(model, getattr(task, name), training)
        made[f"embeddings.{name}"] = found
        if name != "support":
            with torch.inference_mode():
                made[f"scores.{name}"] = model.classifier.scores(torch.from_numpy(found)).float().numpy()
    return made


# Learning and reading.


@dataclass(frozen=True)
class Lesson:
    """The new classes learnt from some of the support, and the task read: by every arm of ARMS.

    drawn: indices of the support. Classes are numbered old ones first.
    """

    task: Task
    network: Network
    drawn: NDArray[np.int64]

    @cached_property
    def memory(self) -> Memory:
        return Memory(
            torch.from_numpy(self.network.embeddings["memory"]).half(), torch.from_numpy(self.task.memory.numbers)
        )

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.network.scores["memory"].argmax(1) == self.task.memory.numbers)

    def centres(self, weighted: bool = False) -> torch.Tensor:
        own = self.task.support.chosen(self.drawn)
        return support_centres(self.network.embeddings["support"][self.drawn], own.labels(), own.classes, weighted)

    def before(self, arm: str) -> NDArray[np.int64]:
        """The old crops, read before anything was learnt."""
        if arm != "nearest":
            return np.asarray(self.network.scores["old"].argmax(1))
        return np.asarray((self.network.embeddings["old"] @ self.network.centres.T).argmax(1))

    def after(self, arm: str) -> dict[str, NDArray[np.int64]]:
        """ "old" and "new" crops, read among all classes."""
        if arm == "nearest":
            directions = functional.normalize(self.centres()).numpy()
            every = np.concatenate([self.network.centres, directions])
            return {name: (self.network.embeddings[name] @ every.T).argmax(1) for name in ("old", "new")}
        margins = {name: self.margins(arm, name) for name in ("memory", "old", "new")}
        if arm == "own maximum":
            own = np.maximum(margins["memory"][self.right].max(0), 0.0)
            biased, bias = {name: found - own for name, found in margins.items()}, 0.0
        else:
            share = LENIENT if arm == "lenient" else MAY_LOSE
            biased, bias = margins, learnt_bias(margins["memory"], self.right, share)
        return {
            name: read_classes(probabilities(self.network.scores[name]), biased[name], bias).numbers
            for name in ("old", "new")
        }

    def margins(self, arm: str, name: str) -> NDArray[np.float64]:
        """Of the crops of a part, by the product's scores, or by cosines."""
        trained, learnt = torch.from_numpy(self.network.centres), self.centres(arm == "weighted")
        found = self.network.embeddings[name]
        if arm != "cosine":
            return LearntScores.of(self.memory, trained, learnt).margins(found)
        directions = functional.normalize(torch.from_numpy(found).double())
        nearest = (directions @ trained.double().T).max(1, keepdim=True).values
        return np.asarray((directions @ functional.normalize(learnt).double().T - nearest).numpy(), np.float64)


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(torch.from_numpy(scores).softmax(1).numpy(), np.float32)


def drawn_support(support: CropSet, shots: int, draw: int) -> NDArray[np.int64]:
    """Indices of so many crops of each class."""
    generator = np.random.default_rng([draw, shots, 7907])
    members = [np.flatnonzero(support.numbers == number) for number in range(len(support.classes))]
    return np.concatenate([np.sort(generator.choice(own, shots, replace=False)) for own in members])


@dataclass(frozen=True)
class Read:
    """One arm's readings, each array (readings, crops): a reading for every network and draw.

    before, after: whether an old crop is right. changed: whether its reading is another. new: whether a new crop is
    right.
    """

    before: NDArray[np.bool_]
    after: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    new: NDArray[np.bool_]


def read_task(task: Task, networks: list[Network], arm: str, shots: int) -> Read:
    """Learns the new classes with every network from every draw, and reads."""
    parts: dict[str, list[Any]] = {"before": [], "after": [], "changed": [], "new": []}
    for network in networks:
        for draw in range(DRAWS):
            lesson = Lesson(task, network, drawn_support(task.support, shots, draw))
            before, after = lesson.before(arm), lesson.after(arm)
            parts["before"].append(before == task.old.numbers)
            parts["after"].append(after["old"] == task.old.numbers)
            parts["changed"].append(after["old"] != before)
            parts["new"].append(after["new"] == task.new.numbers + len(task.old.classes))
    return Read(**{name: np.stack(rows) for name, rows in parts.items()})


def tuned(options: LearnCharactersOptions, task: Task, loss: str) -> Json:
    """One loss on the tuning task. new, lost: by the default rule, mean over shots."""
    network = trained(options, "tuning", task, loss, 0)
    rows: list[Json] = [
        {"arm": arm, "shots": shots} | figures(read_task(task, [network], arm, shots))
        for arm in ARMS
        for shots in SHOTS
    ]
    asked = retrieval(network.embeddings["new"], task.new.labels())
    return {
        "loss": loss,
        "new": mean(row["new"] for row in rows if row["arm"] == "rule"),
        "lost": mean(row["lost"] for row in rows if row["arm"] == "rule"),
        "recall_at_1": asked.recall_at_1,
        "rows": rows,
    }


def best_loss(tuning: list[Json]) -> str:
    """Of those that lose at most MOST_LOST points, the one that reads most new crops; if there is none, of all."""
    careful = [row for row in tuning if 100 * row["lost"] <= MOST_LOST] or tuning
    return str(max(careful, key=lambda row: row["new"])["loss"])


def read_rows(task: Task, networks: list[Network]) -> list[Json]:
    """Every arm and number of shots, with intervals."""
    rows = []
    for arm in ARMS:
        for shots in SHOTS:
            read = read_task(task, networks, arm, shots)
            rows.append({"arm": arm, "shots": shots} | figures(read) | intervals(read))
    return rows


def figures(read: Read) -> Json:
    """Shares 0..1, over all readings. worst: the greatest loss of old accuracy of a reading."""
    lost = read.before.mean(1) - read.after.mean(1)
    new = read.new.mean(1)
    return {
        "readings": len(read.new),
        "new": float(new.mean()),
        "new_range": [float(new.min()), float(new.max())],
        "old_before": float(read.before.mean()),
        "old_after": float(read.after.mean()),
        "lost": float(lost.mean()),
        "worst": float(lost.max()),
        "changed": float(read.changed.mean()),
    }


def intervals(read: Read) -> Json:
    """95 % intervals over test crops, each with its mean over the readings."""
    lost = read.before.mean(0) - read.after.mean(0)
    return {
        "new_interval": bootstrap_interval(read.new.mean(0).tolist(), 0),
        "lost_interval": bootstrap_interval(lost.tolist(), 0),
    }


# What the results say.


def learn_table(results: Json) -> str:
    """Markdown: new and old characters by arm and shots, what is claimed, and how the loss was chosen."""
    counts, crops = results["classes"], results["crops"]
    about = (
        f"chars_hwdb: {counts['old']} classes trained on {crops['training']:,} crops (and {crops['memory']:,} in the "
        f"memory), {counts['new']} learnt from 1 or 5; {crops['old']:,} and {crops['new']:,} test crops of other "
        f"writers. {results['seeds']} seeds, {results['draws']} draws of the support each.\n\n"
    )
    header = ["%", "shots", "new, among all", "old before", "old after", "points lost", "worst reading", "changed"]
    rows = [
        [
            ARMS[row["arm"]],
            str(row["shots"]),
            with_interval(row["new"], row["new_interval"]),
            f"{100 * row['old_before']:.2f}",
            f"{100 * row['old_after']:.2f}",
            with_interval(row["lost"], row["lost_interval"], 2),
            f"{100 * row['worst']:.2f}",
            f"{100 * row['changed']:.2f}",
        ]
        for row in results["rows"]
    ]
    claimed = table(["default rule", "found", "claim"], [list(claim) for claim in claims(results)])
    return f"{about}{table(header, rows)}\n{claimed}\n{tuning_table(results)}"


def claims(results: Json) -> list[tuple[str, str, str]]:
    """(claim, what was found, confirmed or not): of the default rule, old characters within MOST_LOST points."""
    made = []
    for row in results["rows"]:
        if row["arm"] == "rule":
            verdict = "confirmed" if 100 * row["lost"] <= MOST_LOST else "not confirmed"
            found = f"{with_interval(row['lost'], row['lost_interval'], 2)} points lost"
            made.append((f"{row['shots']}-shot: old accuracy unchanged to {MOST_LOST} points", found, verdict))
    return made


def tuning_table(results: Json) -> str:
    """The losses on the classes left out of training; new and lost by the default rule at 1 and at 5 shots."""
    rows = []
    for tried in results["tuning"]:
        own = [row for row in tried["rows"] if row["arm"] == "rule"]
        rows.append(
            [
                LOSS_NAMES[tried["loss"]] + (" (chosen)" if tried["loss"] == results["loss"] else ""),
                f"{100 * own[0]['old_before']:.1f}",
                f"{100 * tried['recall_at_1']:.1f}",
                *(f"{100 * row['new']:.1f}" for row in own),
                *(f"{100 * row['lost']:.2f}" for row in own),
            ]
        )
    header = ["loss, tuning, %", "old", "R@1 of new", "new, 1-shot", "new, 5-shot", "lost, 1-shot", "lost, 5-shot"]
    return table(header, rows)


if __name__ == "__main__":
    main()
