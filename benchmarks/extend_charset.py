"""A charset that grows: `python -m benchmarks.extend_charset`, two hours of one core; shipped: three and a half.

The student of benchmarks.real_pair, or the one that ships, learns five signs, and fifty signs and letters, from drawn
lines alone, while it rehearses what it was trained on, and the one that ships keeps what it read in pictures of real
lines, whose labels are not looked at; without those, without anchor, without rehearsal, and by plain fine-tuning,
which has neither. New characters are read on lines of unseen fonts and words, old ones there and on whole real test
sets, before and after, paired line by line. How well the student reads signs that it always knew, in lines made the
same way, stands beside; so does what other biases of the new rows would have bought and cost. Then it learns the
characters of two real sets that it lacks, from one half of each set, and reads the other half. Test sets are read at
the end, by models whose options were found on drawn lines and on held-out lines of training sets; only the CAREFUL runs
were added after figures of the default had been read.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.extend_charset_tables import (
    TEST_SETS,
    Json,
    by_character,
    change,
    extend_table,
    pooled_interval,
    shares,
)
from benchmarks.readings import Readings, exact_lines, read, readings
from benchmarks.real_pair import cleaned
from benchmarks.stages import RESULTS, finished, run_result, run_stage, write_json
from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint
from crnn.commands import run_path
from crnn.ctc import LogProbs, greedy
from crnn.model import Crnn, line_log_probs
from crnn.recogniser import MODELS
from crnn.score import character_recall
from data.lines import open_lines
from data.synthesis.fonts import find_fonts
from data.synthesis.texts import PRINTABLE

FIVE = "€£¥§©"
FIFTY = FIVE + "¢®™°±×÷¿¡«»µ¶½¼¾•†‡„¬" + "äöüßàáâãåæçèéêëíîñóôøúýÿ"
KNOWN_SIGNS = "$#&@%"
"""Signs that the student always knew, put into lines as the new ones are: what it can be hoped to read."""

CAREFUL = ("--may-lose", "0.001")
"""To `crnn rebalance`, of what an arm or a real set made: for keeping more of the old."""
REAL_SETS = {"lines_de": (), "lines_de-careful": CAREFUL, "lines_grc": (), "lines_grc-careful": CAREFUL}
"""Sets of real lines, and how the biases of what is made with them are set anew; a dash tells runs on one set apart."""

LEAST = 5
"""Times that a character of a real set occurs in the half that is learnt from, or it is left out."""

MAKE_SEED = 61
DRAWN = {"old": "", "known-signs": KNOWN_SIGNS, "five": FIVE, "fifty": FIFTY}
"""Drawn sets -> characters of which each line holds one at least; fonts and words are the held-out ones."""

CLEAN = {"five-clean": FIVE, "known-signs-clean": KNOWN_SIGNS}
"""The same without degradations, for telling characters that are not known from pictures that cannot be read."""

REHEARSED, WITH_PICTURES = "anchor and rehearsal", ", pictures of real lines"
"""How rows are told."""


@dataclass(frozen=True)
class Arm:
    """One way of adding characters.

    add: the new characters. rehearse: whether old lines are learnt from too. pictures: whether real ones without
    labels are, where the base has some. flags: what else the command gets. rebalanced: the arm whose models these are,
    with other biases.
    """

    told: str
    add: str
    seeds: tuple[int, ...] = (0,)
    rehearse: bool = True
    pictures: bool = True
    flags: tuple[str, ...] = ()
    rebalanced: str | None = None


ARMS = {
    "five": Arm(REHEARSED, FIVE, seeds=(0, 1, 2)),
    "fifty": Arm(REHEARSED, FIFTY),
    "fifty-careful": Arm(f"{REHEARSED}, {' '.join(CAREFUL)}", FIFTY, flags=CAREFUL, rebalanced="fifty"),
    "five-plain": Arm("plain fine-tuning: neither", FIVE, rehearse=False, flags=("--anchor", "0")),
    "fifty-plain": Arm("plain fine-tuning: neither", FIFTY, rehearse=False, flags=("--anchor", "0")),
    "five-no-anchor": Arm("without the anchor", FIVE, flags=("--anchor", "0")),
    "five-no-rehearsal": Arm("without rehearsal", FIVE, rehearse=False),
    "five-no-pictures": Arm("anchor and rehearsal, drawn lines alone", FIVE, pictures=False),
    "five-frozen": Arm("the encoder stays as it is", FIVE, flags=("--no-train-encoder",)),
}


ORDER = (
    "five", "five-plain", "fifty", "lines_de", "lines_grc", "fifty-plain", "five-no-rehearsal", "five-no-anchor",
    "five-frozen",
)  # fmt: skip
"""Arms and real sets, the more telling ones first."""


@dataclass(frozen=True)
class Base:
    """A student whose charset grows.

    rehearsed: what it was trained on, with its weights there. results: their name. unlabelled: real sets of which the
    pictures alone are given, since it was not trained on them.
    """

    student: Path
    rehearsed: tuple[tuple[str, float], ...]
    order: tuple[str, ...]
    results: str
    unlabelled: tuple[tuple[str, float], ...] = ()


BASES = {
    "real": Base(
        Path("runs/real/student.pt"), (("synth", 0.5), ("iiit5k_train", 0.25), ("sroie_train", 0.25)), ORDER,
        "extend_charset",
    ),
    "shipped": Base(
        MODELS / "default.pt", (("synth", 0.75),),
        (
            "five", "fifty", "fifty-careful", "lines_grc", "lines_grc-careful", "lines_de", "lines_de-careful",
            "five-plain", "five-no-pictures",
        ),
        "extend_charset_shipped", (("iiit5k_train", 0.25), ("sroie_train", 0.25)),
    ),
}  # fmt: skip
"""By name on the command line; benchmarks.real_pair makes the first."""


@dataclass(frozen=True)
class ExtendCharsetOptions:
    """Options.

    Attributes:
        base: the student of real pictures, or the one that ships, which has seen drawn lines alone.
        student: its file, where that lies elsewhere.
        data: folder with the zips of the real sets.
        out: where lines, models and readings go, those of each base in a folder of its name.
        lines: of each drawn set.
        steps: of each run.
        threads: of each run.
    """

    base: tyro.conf.Positional[Literal["real", "shipped"]] = "real"
    student: Path | None = None
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/extend-charset")
    lines: int = 3000
    steps: int = 8000
    threads: int = 1

    @property
    def model(self) -> Path:
        """The student."""
        return self.student or BASES[self.base].student


def main() -> None:
    """The stages in order; figures are written after every run, so that one that was cut off has what it got to."""
    options = tyro.cli(ExtendCharsetOptions, description=__doc__)
    options = replace(options, out=options.out / options.base)
    options.out.mkdir(parents=True, exist_ok=True)
    refuse_another_base(options)
    draw(options)
    before = options.out / "before.json"
    read_sets(options, options.model, before, ["old", "known-signs"], TEST_SETS)
    read_sets(options, options.model, options.out / "before-clean.json", ["known-signs-clean"], ())
    for seed in range(max(len(arm.seeds) for arm in ARMS.values())):
        for name in BASES[options.base].order:
            if name in REAL_SETS and not seed:
                run_real(options, name)
            elif name in ARMS and seed in ARMS[name].seeds:
                run_arm(options, name, ARMS[name], seed)
            write_results(options)
    print(extend_table(json.loads((RESULTS / f"{BASES[options.base].results}.json").read_text(encoding="utf-8"))))


def refuse_another_base(options: ExtendCharsetOptions) -> None:
    """Ends the program where models in options.out grew from another student: they would be compared with this one."""
    digest = hashlib.sha256(options.model.read_bytes()).hexdigest()
    kept = options.out / "base.sha256"
    if kept.exists() and kept.read_text(encoding="utf-8") != digest:
        sys.exit(f"what lies in {options.out} grew from another student than {options.model}; give another --out")
    kept.write_text(digest, encoding="utf-8")


def draw(options: ExtendCharsetOptions) -> None:
    """Sets of drawn lines that nothing is trained or chosen on: other fonts, words and random numbers."""
    synth = load_checkpoint(options.model).info.provenance["synth"]
    for number, (name, including) in enumerate((DRAWN | CLEAN).items()):
        path = options.out / f"{name}.lmdb"
        characters = "".join(
            sorted({*PRINTABLE, *including, *(c.upper() for c in including if c.upper().lower() == c)})
        )
        run_stage(
            path, "crnn",
            ["data", "make", "--out", str(path), "--count", str(options.lines), "--seed", str(MAKE_SEED + number),
             "--fonts", "held-out", "--words", "held-out", "--longest", str(synth["longest"]),
             "--phrases", str(synth["phrases"]), "--workers", str(options.threads),
             f"--characters={characters}", f"--including={including}", "--strength", "0" if name in CLEAN else "1"],
        )  # fmt: skip


def run_arm(options: ExtendCharsetOptions, name: str, arm: Arm, seed: int) -> None:
    """The grown model, and what it reads of the new characters' drawn set, of old drawn lines and of the test sets."""
    model = options.out / f"{name}-{seed}.pt"
    flags = [*arm.flags, "--seed", str(seed)]
    if shows_pictures(options.base, arm):
        flags += unlabelled(options)
    if arm.rebalanced:
        rebalance(options.out / f"{arm.rebalanced}-{seed}.pt", model, arm.flags)
    else:
        grow(options, model, arm.add, flags if arm.rehearse else [*flags, "--rehearse"], arm.rehearse)
    read_sets(options, model, model.with_suffix(".json"), ["old", name.split("-")[0]], TEST_SETS)
    if arm.add == FIVE:
        read_sets(options, model, clean_path(model), ["five-clean"], ())


def grow(options: ExtendCharsetOptions, model: Path, add: str, flags: Sequence[str], rehearse: bool = True) -> None:
    """`crnn extend-charset`, on the sources that the student was trained on where it rehearses."""
    rehearsed = [f"{rehearsed_set(options, name)}:{weight}" for name, weight in BASES[options.base].rehearsed]
    run_stage(
        model, "crnn",
        ["extend-charset", "--model", str(options.model), f"--add={add}", "--out", str(model),
         "--until", str(options.steps), "--threads", str(options.threads),
         *(["--rehearse", *rehearsed] if rehearse else []), *flags],
    )  # fmt: skip


def rebalance(trained: Path, out: Path, flags: Sequence[str]) -> None:
    """`crnn rebalance`: the same weights, other biases of the new characters."""
    if out.exists() and out.stat().st_mtime < trained.stat().st_mtime:
        out.unlink()
    run_stage(out, "crnn", ["rebalance", "--model", str(trained), "--out", str(out), *flags])


def shows_pictures(base: str, arm: Arm) -> bool:
    return arm.rehearse and arm.pictures and bool(BASES[base].unlabelled)


def unlabelled(options: ExtendCharsetOptions) -> list[str]:
    """The base's pictures without labels, as an argument; nothing where it has none."""
    pictures = [f"{rehearsed_set(options, name)}:{weight}" for name, weight in BASES[options.base].unlabelled]
    return ["--unlabelled", *pictures] if pictures else []


def rehearsed_set(options: ExtendCharsetOptions, name: str) -> str:
    """As `--rehearse` takes it; of a real set without the lines that test sets hold, as the student had it."""
    return name if name == "synth" else str(cleaned(options.data, options.out, name))


def run_real(options: ExtendCharsetOptions, name: str) -> None:
    """The characters of a real set that the student lacks, learnt from one half of it, read in the other half."""
    of = name.split("-")[0]
    halves = [options.out / f"{of}-{half}.lmdb" for half in ("learnt", "read")]
    run_stage(
        halves[0], "crnn",
        ["data", "import", str(options.data / f"{of}.zip"), "--out", str(halves[0]), "--validation", "0.5",
         "--validation-out", str(halves[1])],
    )  # fmt: skip
    model = options.out / f"{name}.pt"
    add = lacking(open_lines(halves[0]).texts(), load_checkpoint(options.model).info.charset)
    if REAL_SETS[name]:
        rebalance(options.out / f"{of}.pt", model, REAL_SETS[name])
    else:
        grow(options, model, add, ["--data", str(halves[0]), "--seed", "0", *unlabelled(options)])
    read_sets(options, model, model.with_suffix(".json"), ["old", f"{of}-read"], TEST_SETS)
    read_sets(options, options.model, options.out / f"{of}-before.json", [f"{of}-read"], ())


def lacking(texts: Iterable[str | None], known: Charset) -> str:
    """Characters that known has not and that occur LEAST times at least, in code point order."""
    times = Counter("".join(known.normalise(text or "") for text in texts))
    return "".join(sorted(c for c, n in times.items() if n >= LEAST and c not in known.characters and not c.isspace()))


def read_sets(options: ExtendCharsetOptions, model: Path, out: Path, drawn: Sequence[str], real: Sequence[str]) -> None:
    """Every reading of these sets, as JSON."""
    sets = [options.out / f"{name}.lmdb" for name in drawn] + [options.data / f"{name}.zip" for name in real]
    read(model, sets, out, options.threads)


def clean_path(model: Path) -> Path:
    """Where the readings of undegraded lines are."""
    return model.with_name(f"{model.stem}-clean.json")


def write_results(options: ExtendCharsetOptions) -> None:
    """Figures of the runs that are finished; the others have none."""
    before = readings(options.out / "before.json")
    command = f"python -m benchmarks.extend_charset {options.base} --lines {options.lines} --steps {options.steps}"
    command += "" if options.student is None else f" --student {options.student.name}"
    base = BASES[options.base]
    content: Json = {
        "command": command,
        "added": {"five": FIVE, "fifty": FIFTY},
        "known_signs": KNOWN_SIGNS,
        "fonts": {side: len({font.design for font in find_fonts(None, side)}) for side in ("training", "held-out")},
        "steps": options.steps,
        "known": shares(before["known-signs"], KNOWN_SIGNS),
        "known_clean": shares(readings(options.out / "before-clean.json")["known-signs-clean"], KNOWN_SIGNS),
        "arms": {},
        "real": {},
        "trade": {
            name: trade(options, name, ARMS[name].add) if is_done(options.out / f"{name}-0.pt") else []
            for name in ("five", "fifty")
        },
    }
    for name, arm in ARMS.items():
        if name not in base.order:
            continue
        models = {seed: options.out / f"{name}-{seed}.pt" for seed in arm.seeds}
        done = {seed: model for seed, model in models.items() if is_done(model)}
        pictures = [set_name for set_name, _ in base.unlabelled] if shows_pictures(options.base, arm) else []
        row: Json = {
            "told": arm.told + (WITH_PICTURES if pictures else ""),
            "unlabelled": pictures,
            "characters": len(arm.add),
            "seeds": list(done),
            "flags": list(arm.flags),
        }
        if done:
            trained = [run_result(options.out / f"{arm.rebalanced or name}-{seed}.pt") for seed in done]
            row |= arm_figures(done, trained, before, name.split("-")[0], arm.add)
        content["arms"][name] = row
    for name, flags in REAL_SETS.items():
        if name not in base.order:
            continue
        model, of = options.out / f"{name}.pt", name.split("-")[0]
        first = options.out / f"{of}-before.json"
        told = ", ".join([REHEARSED, " ".join(flags)]) if flags else REHEARSED
        real: Json = {"told": told + (WITH_PICTURES if base.unlabelled else "")}
        if is_done(model) and first.exists():
            trained_run = json.loads(run_path(options.out / f"{of}.pt").read_text(encoding="utf-8"))
            real |= real_figures(model, trained_run, before, of, first)
        content["real"][name] = real
    write_json(RESULTS / f"{base.results}.json", content)


def trade(options: ExtendCharsetOptions, name: str, add: str) -> list[Json]:
    """What the first seed's grown model would read of new and of old lines, had its biases been moved otherwise.

    cost: what the command found on held-out lines, of the set that pays most. taken: whether the command moved them so
    much. Nothing is chosen here.
    """
    model = options.out / f"{name}-0.pt"
    kept = model.with_suffix(".trade.json")
    if kept.exists() and kept.stat().st_mtime > model.stat().st_mtime:
        rows: list[Json] = json.loads(kept.read_text(encoding="utf-8"))
        return rows
    result, checkpoint = run_result(model), load_checkpoint(model)
    charset, network = checkpoint.info.charset, Crnn.from_checkpoint(checkpoint)
    numbers = [charset.characters.index(c) + 1 for c in add]
    drawn = [name, f"{name}-clean", "old"] if name == "five" else [name, "old"]
    paths = [options.out / f"{drawn_set}.lmdb" for drawn_set in drawn]
    paths += [options.data / f"{test_set}.zip" for test_set in TEST_SETS]
    before = readings(options.out / "before.json")
    found: dict[str, list[tuple[str, LogProbs]]] = {}
    for path in paths:
        source = open_lines(path)
        lines = [source[i] for i, text in enumerate(source.texts()) if text]
        found[path.stem] = [
            (charset.normalise(lines[i].text or ""), log_probs)
            for some, batch in line_log_probs(network, lines, checkpoint.info.input_spec)
            for i, log_probs in zip(some, batch, strict=True)
        ]
    taken, at = result["biases_moved"], result["biases_moved"]
    rows = []
    for cost in result["costs"]:
        row: Json = {"moved": cost["shift"], "cost": max(cost["shares"]), "taken": cost["shift"] == taken}
        for set_name, own in found.items():
            for _, log_probs in own:
                log_probs[:, numbers] += cost["shift"] - at
            pairs = [(label, greedy(log_probs, charset).text) for label, log_probs in own]
            if set_name in before:
                share = statistics.fmean(exact_lines(pairs)) - statistics.fmean(exact_lines(before[set_name]))
            else:
                share = shares(pairs, add)["signs"]
            row[set_name] = share
        at = cost["shift"]
        rows.append(row)
    kept.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def is_done(model: Path) -> bool:
    return model.exists() and finished(model) and model.with_suffix(".json").exists()


def arm_figures(models: dict[int, Path], trained: Sequence[Json], before: Readings, drawn: str, add: str) -> Json:
    """Shares of new and old characters on the new lines, and how old lines changed: means over the seeds.

    trained: results of the trainings, which those of rebalanced models are not.
    """
    runs = {seed: readings(model.with_suffix(".json")) for seed, model in models.items()}
    own = {seed: shares(run[drawn], add) for seed, run in runs.items()}
    clean = [clean_path(model) for model in models.values() if clean_path(model).exists()]
    undegraded = [shares(readings(path)["five-clean"], add)["signs"] for path in clean]
    return {
        "new_clean": statistics.fmean(undegraded) if undegraded else None,
        "new": [found["signs"] for found in own.values()],
        "new_mean": statistics.fmean(found["signs"] for found in own.values()),
        "new_interval": pooled_interval([run[drawn] for run in runs.values()], add),
        "letters": statistics.fmean(found["letters"] for found in own.values()),
        "marks": statistics.fmean(found["marks"] for found in own.values()),
        "start": {key: trained[0]["start"][key] for key in ("new_read", "old_lines", "old_readings_changed")},
        "old": {name: change([run[name] for run in runs.values()], before[name]) for name in ("old", *TEST_SETS)},
        "minutes": [result["seconds"] / 60 for result in trained],
        "by_character": by_character(runs[min(runs)][drawn], add),
    }


def real_figures(model: Path, trained: Json, before: Readings, name: str, first: Path) -> Json:
    """What the grown model reads of a real set's other half, and what became of the old lines; trained: its run."""
    run, was = readings(model.with_suffix(".json")), readings(first)[f"{name}-read"]
    add = trained["options"]["add"]
    lines = run[f"{name}-read"]
    old = load_checkpoint(model).info.charset.characters
    old = "".join(c for c in old if c not in add and c != " ")
    found = character_recall((text for _, text in lines), (label for label, _ in lines))
    started = character_recall((text for _, text in was), (label for label, _ in was))
    return {
        "add": add,
        "lines": len(lines),
        "new_held": found.occurrences(add),
        "new": found.share(add),
        "new_interval": pooled_interval([lines], add),
        "old_held": found.occurrences(old),
        "old_characters": found.share(old),
        "old_characters_before": started.share(old),
        "old": {key: change([run[key]], before[key]) for key in ("old", *TEST_SETS)},
        "minutes": trained["result"]["seconds"] / 60,
        "by_character": by_character(lines, add),
    }


if __name__ == "__main__":
    main()
