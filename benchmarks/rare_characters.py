"""Whether losses on characters of lines help rare ones: `python -m benchmarks.rare_characters`, three hours of a core.

The training set is fixed: words drawn once, with the character frequencies of English, and two real training sets, each
line used as often as any other. Its counts over all lines say which characters are rare (crnn.score.frequency_groups).
A quarter-width ResNet-18 that has seen easy words and the drawn ones goes on from there in every arm: without character
losses, with each, with both. Weights are chosen on held-out lines of the same training sets; the test sets are read at
the end by the models that were trained on all of it. Arms are paired by seed and by line.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.intervals import bootstrap_interval
from benchmarks.markdown import table
from benchmarks.readings import Readings, read, readings
from benchmarks.real_pair import cleaned
from benchmarks.recipes import EASY, SMALL
from benchmarks.stages import RESULTS, finished, run_stage, write_json
from crnn.checkpoint import load_checkpoint
from crnn.score import CharacterRecall, Frequency, character_recall, frequency_groups, score
from data.lines import hold_out, open_lines
from data.lmdb_lines import write_lmdb

WORDS = ["--kinds", "word", "--longest", "20"]
"""Texts with natural frequencies: words of the list as signs and print have them, some with a mark of punctuation."""
TRAIN_SETS = ("iiit5k_train", "sroie_train")
TEST_SETS = ("iiit5k_test", "ic13_test", "ic15_test", "sroie_test")
HELD_SHARE = 0.2
"""Of each real training set, for the choice of weights."""
WEIGHTS = {"long-tail": (0.03, 0.1, 0.3, 1.0), "centre-triplet": (0.003, 0.01, 0.03, 0.1)}
MOST_LOST = 0.01
"""Of exact accuracy on the held-out lines, that a weight may cost and still be chosen."""
DRAWN_SEED, RICH_SEED, CHOICE_SEED, SEEDS = 41, 43, 100, (0, 1, 2)
RICH_LINES = 2000
"""Drawn with fonts and words that nothing is trained on, of all kinds of text, where rare characters are many."""


@dataclass(frozen=True)
class RareOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real sets.
        out: where lines, models and readings go.
        words: drawn lines.
        start_steps: on drawn words, before the arms part.
        choice_steps: of each run that a weight is chosen by.
        steps: of each arm.
        threads: of each run.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/rare-characters")
    words: int = 12_000
    start_steps: int = 1200
    choice_steps: int = 300
    steps: int = 1000
    threads: int = 1


def main() -> None:
    """The stages in order; figures are written after every arm, so that a run that was cut off has what it got to."""
    options = tyro.cli(RareOptions, description=__doc__)
    draw(options)
    choice = chosen_weights(options)
    for seed in SEEDS:
        for name, arguments in arms(choice["chosen"]).items():
            model = options.out / f"{name}-{seed}.pt"
            real = [str(cleaned(options.data, options.out, name)) for name in TRAIN_SETS]
            whole = [str(options.out / "words.lmdb"), *real]
            go_on(options, model, whole, options.steps, seed, arguments)
            read(model, [options.data / f"{name}.zip" for name in TEST_SETS] + [options.out / "rich.lmdb"])
            write_results(options, choice)


def draw(options: RareOptions) -> None:
    """Drawn words, the rich set, the held-out lines, and the network that every arm starts from."""
    words, rich = options.out / "words.lmdb", options.out / "rich.lmdb"
    make = ["data", "make", "--out", str(words), "--count", str(options.words), "--seed", str(DRAWN_SEED), *WORDS]
    run_stage(words, "crnn", make)
    make = ["data", "make", "--out", str(rich), "--count", str(RICH_LINES), "--seed", str(RICH_SEED)]
    run_stage(rich, "crnn", [*make, "--longest", "20", "--fonts", "held-out", "--words", "held-out"])
    for name in TRAIN_SETS:
        source = open_lines(cleaned(options.data, options.out, name))
        for part, lines in zip(("rest", "held"), hold_out(source, HELD_SHARE), strict=True):
            path = options.out / f"{name}-{part}.lmdb"
            if not path.exists():
                write_lmdb(path, (lines.entry(i) for i in range(len(lines))))
    easy, start = options.out / "easy.pt", options.out / "start.pt"
    shared = ["--threads", str(options.threads), "--seed", "0"]
    run_stage(
        easy, "crnn",
        ["train", "--data", "synth-easy", "--synth.kinds", "word", "--out", str(easy), *SMALL, *EASY, *shared],
    )  # fmt: skip
    run_stage(
        start, "crnn",
        ["train", "--init", str(easy), "--data", str(words), "--out", str(start), "--until", str(options.start_steps),
         "--column-weight", "0.5", *shared],
    )  # fmt: skip


def arms(weights: dict[str, float]) -> dict[str, list[str]]:
    """name -> what it adds to the command."""
    tail, centre = (f"{name}:{weights[name]}" for name in ("long-tail", "centre-triplet"))
    return {
        "without": [],
        "long-tail": ["--character-loss", tail],
        "centre-triplet": ["--character-loss", centre],
        "both": ["--character-loss", tail, centre],
        "centre-triplet-all": ["--character-loss", centre, "--centres-from", "all"],
    }


def go_on(options: RareOptions, out: Path, data: Sequence[str], steps: int, seed: int, arguments: list[str]) -> None:
    """A training from the shared start, each line of the sources as often as any other; the last weights are kept."""
    weighted = [f"{source}:{len(open_lines(source))}" for source in data]
    run_stage(
        out, "crnn",
        ["train", "--init", str(options.out / "start.pt"), "--data", *weighted, "--out", str(out), "--until",
         str(steps), "--learning-rate", "1e-3", "--warm-up", "50", "--column-weight", "0", "--validation", "0",
         "--drop-bad", "--threads", str(options.threads), "--seed", str(seed), *arguments],
    )  # fmt: skip


def chosen_weights(options: RareOptions) -> dict[str, Any]:
    """The weight of each loss that reads most rare characters of held-out lines; the smaller one of equals."""
    held = [options.out / f"{name}-held.lmdb" for name in TRAIN_SETS]
    rest = [str(options.out / "words.lmdb"), *(str(options.out / f"{name}-rest.lmdb") for name in TRAIN_SETS)]
    rows: list[dict[str, Any]] = []
    for loss, weight in [("without", 0.0), *((loss, w) for loss, tried in WEIGHTS.items() for w in tried)]:
        model = options.out / f"choice-{loss}-{weight:g}.pt"
        arguments = ["--character-loss", f"{loss}:{weight}"] if weight else []
        go_on(options, model, rest, options.choice_steps, CHOICE_SEED, arguments)
        read(model, [*held, options.out / "rich.lmdb"])
        lines = [pair for own in readings(model).values() for pair in own]
        few = groups_of(model)["few"]
        found = recall(lines)
        rows.append(
            {"loss": loss, "weight": weight, "few": found.share(few), "few_held": found.occurrences(few),
             "macro": found.macro, "exact": exact(lines)}
        )  # fmt: skip
    least = rows[0]["exact"] - MOST_LOST
    chosen = {}
    for loss in WEIGHTS:
        own = [row for row in rows if row["loss"] == loss]
        good = [row for row in own if row["exact"] >= least] or own
        chosen[loss] = max(good, key=lambda row: row["few"])["weight"]
    return {"seed": CHOICE_SEED, "steps": options.choice_steps, "rows": rows, "chosen": chosen}


def groups_of(model: Path) -> dict[Frequency, frozenset[str]]:
    """Characters by how often the lines that the model was trained on hold them."""
    return frequency_groups(counts_of(model))


def counts_of(model: Path) -> dict[str, int]:
    info = load_checkpoint(model).info
    return dict(zip(info.charset.characters, info.provenance["characters"]["counts"], strict=True))


def recall(lines: Iterable[tuple[str, str]]) -> CharacterRecall:
    labels, texts = zip(*lines, strict=True)
    return character_recall(texts, labels)


def exact(lines: Sequence[tuple[str, str]]) -> float:
    labels, texts = zip(*lines, strict=True)
    return score(texts, labels).exact


def write_results(options: RareOptions, choice: dict[str, Any]) -> None:
    """Every arm's figures over the seeds that are finished, beside the arm without on the same seeds and lines."""
    done = {
        name: [seed for seed in SEEDS if is_done(options.out / f"{name}-{seed}.pt")] for name in arms(choice["chosen"])
    }
    first = options.out / f"without-{SEEDS[0]}.pt"
    groups, counts = groups_of(first), counts_of(first)
    content: dict[str, Any] = {
        "command": f"python -m benchmarks.rare_characters --words {options.words} --steps {options.steps}",
        "training": training_set(options, first),
        "groups": {name: "".join(sorted(own)) for name, own in groups.items()},
        "counts": {c: counts[c] for c in sorted(groups["few"], key=lambda c: counts[c])},
        "choice": choice,
        "arms": [],
    }
    for name, arguments in arms(choice["chosen"]).items():
        row: dict[str, Any] = {"arm": name, "arguments": arguments, "seeds": done[name]}
        if done[name]:
            row |= arm_figures(options, name, done[name], done["without"], groups)
        content["arms"].append(row)
    write_json(RESULTS / "rare_characters.json", content)


def is_done(model: Path) -> bool:
    return model.exists() and finished(model) and model.with_suffix(".json").exists()


def training_set(options: RareOptions, model: Path) -> dict[str, Any]:
    """The lines of each source, and what was left out."""
    provenance = load_checkpoint(model).info.provenance
    named = {"words": options.out / "words.lmdb"} | {name: options.data / f"{name}.zip" for name in TRAIN_SETS}
    dropped = {Path(path).name: counts for path, counts in provenance["dropped"].items()}
    sizes = {name: len(open_lines(path)) for name, path in named.items()}
    return {"lines": sizes, "dropped": dropped, "counted_lines": provenance["characters"]["lines"]}


def arm_figures(
    options: RareOptions, name: str, seeds: list[int], paired: list[int], groups: dict[Frequency, frozenset[str]]
) -> dict[str, Any]:
    """Of the four real sets pooled, of the rich set, and of single rare characters; means over seeds with their spread.

    Differences and intervals are to the arm without, over the seeds that both have; an interval's unit is a line with
    all its characters, its value the mean over seeds, so it tells how far other lines would move the figure, and the
    spread over seeds how far another start of the random numbers would.
    """
    runs = {seed: readings(options.out / f"{name}-{seed}.pt") for seed in seeds}
    both = [seed for seed in seeds if seed in paired] if name != "without" else []
    base = {seed: readings(options.out / f"without-{seed}.pt") for seed in both}
    found: dict[str, Any] = {}
    for title, sets in (("test", TEST_SETS), ("rich", ("rich",))):
        own = {seed: pooled(run, sets) for seed, run in runs.items()}
        other = {seed: pooled(run, sets) for seed, run in base.items()}
        each, others = ({seed: by_line(lines) for seed, lines in some.items()} for some in (own, other))
        found[title] = {group: share_figures(each, others, characters) for group, characters in groups.items()}
        found[title] |= {
            "macro": spread([recall(lines).macro for lines in own.values()]),
            "exact": exact_figures(own, other),
            "cer": spread([score([t for _, t in lines], [c for c, _ in lines]).cer for lines in own.values()]),
        }
    found["sets"] = {name: spread([exact(run[name]) for run in runs.values()]) for name in TEST_SETS}
    every = [recall(pooled(run, TEST_SETS)) for run in runs.values()]
    found["characters"] = {
        c: {"held": every[0].held[c], "read": statistics.fmean(own.share([c]) for own in every)}
        for c in sorted(groups["few"])
        if every[0].held[c]
    }
    return found


def pooled(run: Readings, sets: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for name in sets for pair in run[name]]


def by_line(lines: list[tuple[str, str]]) -> list[CharacterRecall]:
    return [character_recall([text], [label]) for label, text in lines]


def share_figures(
    own: dict[int, list[CharacterRecall]], other: dict[int, list[CharacterRecall]], characters: frozenset[str]
) -> dict[str, Any]:
    """How many of these characters are read, by seed, and how many more than in the paired runs."""
    held = np.array([line.occurrences(characters) for line in next(iter(own.values()))], np.float64)

    def read_in(lines: list[CharacterRecall]) -> NDArray[np.float64]:
        return np.array([sum(line.read[c] for c in characters) for line in lines], np.float64)

    result: dict[str, Any] = {
        "held": int(held.sum()),
        "read": spread([float(read_in(lines).sum() / held.sum()) for lines in own.values()]),
    }
    if other:
        apart = [read_in(own[seed]) - read_in(lines) for seed, lines in other.items()]
        lines_a_character = (held > 0).sum() / held.sum()  # so that the mean over lines is the share's difference
        result["difference"] = spread([float(one.sum() / held.sum()) for one in apart])
        result["interval"] = bootstrap_interval((np.mean(apart, axis=0)[held > 0] * lines_a_character).tolist(), 0)
    return result


def exact_figures(own: dict[int, list[tuple[str, str]]], other: dict[int, list[tuple[str, str]]]) -> dict[str, Any]:
    result: dict[str, Any] = {"lines": len(next(iter(own.values()))), "read": spread([exact(x) for x in own.values()])}
    if other:
        apart = [
            [(a == b) - (c == d) for (a, b), (c, d) in zip(own[seed], lines, strict=True)]
            for seed, lines in other.items()
        ]
        result["difference"] = spread([statistics.fmean(one) for one in apart])
        result["interval"] = bootstrap_interval(np.mean(apart, axis=0).tolist(), 0)
    return result


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (of several) and the values themselves, one a seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": list(values)}


def rare_characters_table(results: dict[str, Any]) -> str:
    """Character losses on lines: rare and other characters of the real test sets, and whole lines beside them."""

    def cell(figures: dict[str, Any]) -> str:
        found = figures["read"]
        shown = f"{100 * found['mean']:.1f}"
        if found["deviation"] is not None:
            shown += f" ± {100 * found['deviation']:.1f}"
        if "interval" in figures:
            low, high = figures["interval"]
            shown += f" ({100 * figures['difference']['mean']:+.1f}; {100 * low:+.1f} to {100 * high:+.1f})"
        return shown

    rows = []
    held = {}
    for row in results["arms"]:
        if not row["seeds"]:
            rows.append([row["arm"], "not run", *[""] * 6])
            continue
        test = row["test"]
        held = {group: test[group]["held"] for group in ("few", "medium", "many")} | {
            "rich": row["rich"]["few"]["held"]
        }
        groups = [cell(test[group]) for group in ("few", "medium", "many")]
        macro = f"{100 * test['macro']['mean']:.1f}"
        rows.append([row["arm"], *groups, macro, cell(test["exact"]), cell(row["rich"]["few"]), str(len(row["seeds"]))])
    numbers = {name: f"{count:,}" for name, count in held.items()}
    header = ["arm", f"rare % (n = {numbers.get('few', '0')})", f"medium % ({numbers.get('medium', '0')})",
              f"frequent % ({numbers.get('many', '0')})", "macro %", "lines exact %",
              f"rare %, drawn set ({numbers.get('rich', '0')})", "seeds"]  # fmt: skip
    lines = ", ".join(f"{name} {count:,}" for name, count in results["training"]["lines"].items())
    weights = ", ".join(f"{loss}:{weight:g}" for loss, weight in results["choice"]["chosen"].items())
    rare = " ".join(f"{c}" for c in results["counts"])
    note = (
        f"\nMean ± standard deviation over seeds; in brackets the difference to the arm without and its 95 % interval "
        f"(bootstrap over lines, paired by line and seed). Trained on {lines} lines; weights chosen on held-out lines "
        f"of these: {weights}. Rare: `` {rare} ``.\n"
    )
    return table(header, rows) + note


if __name__ == "__main__":
    main()
