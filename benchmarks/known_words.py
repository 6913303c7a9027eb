"""What known words give and take: `python -m benchmarks.known_words`, some two minutes.

The student that ships reads two training sets of real pictures, which it has never seen; drawn codes and numbers,
which no list helps with; and RUNNING, drawn text full of what a list lacks: by best path alone, and with bonuses and
shares of confidence of several sizes. What crnn.words does by default was chosen here. Words that synthesis draws are
in the list, so no others are drawn.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.confidence import calibration_error
from benchmarks.intervals import bootstrap_interval
from benchmarks.markdown import signed_with_interval, table
from benchmarks.stages import RESULTS, run_stage, write_json
from crnn.charset import Charset
from crnn.ctc import LogProbs, Reading, greedy_batch
from crnn.recogniser import load
from crnn.score import fold36
from crnn.words import KnownWords, english_words, read_words
from data.lines import open_lines

Json = dict[str, Any]

REAL = ("iiit5k_train", "sroie_train")
DRAWN = {
    "codes": ("--longest", "12", "--kinds", "code:0.5", "random:0.5"),
    "numbers": ("--longest", "12", "--kinds", "number:0.4", "price:0.3", "date:0.2", "time:0.1"),
    "running": ("--longest", "32", "--corpus", "running.txt", "--corpus-share", "1"),
}
"""Drawn sets -> what they say."""
RUNNING = (
    "it's not what's written",
    "she'll be back at 10",
    "I'm sure they're right",
    "we've sold out today",
    "don't walk on the grass",
    "can't find the owner's dog",
    "John's Coffee & Books",
    "the children's hospital",
    "Macy's and Wendy's",
    "ladies' wear, 2nd floor",
    "the 1st and the 3rd of May",
    "21st century e-mail",
    "x-ray room, T-shirt shop",
    "B2B meeting at 5pm",
    "colour and flavour",
    "the neighbour's grey car",
    "centre of the theatre",
    "a programme for travellers",
    "I think I can do it",
    "I am here for a while",
    "o'clock on St. James's",
    "rock 'n' roll",
    "U/P and km/h limits",
    "24/7 self-service",
    "mother-in-law's recipe",
    "twenty-one people",
    "Mr. Okafor and Mrs. Nguyen",
    "Kowalski & Sons Ltd.",
    "pre-order at shop.example.com",
    "WiFi in the lobby",
    "iPhone and MacBook",
    "PDF, JPEG, MP3 files",
    "COVID-19 notice",
    "ZIP code 90210",
    "flight BA2490 to LHR",
    "room 12B, gate A7",
    "vitamin B12 and C",
    "H2O and CO2 levels",
    "5G and 4K screens",
    "no. 7b, Rue de Rivoli",
    "Via Garibaldi, Roma",
    "Guten Morgen Berlin",
    "fish 'n' chips",
    "drive-thru open late",
    "kids' menu, 3 for 2",
    "y'all come back soon",
    "who's next? You're next!",
    "that'd be great",
    "won't, shouldn't, isn't",
)
"""Contractions, possessives, hyphens, ordinals, names, British spelling, abbreviations."""
LINES = 2000
"""Of each set at most, drawn at random."""
CONSTANTS, PER_LETTER, SHARES = (2.0, 4.0, 6.0), (0.5, 1.0, 1.5), (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class KnownWordsOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real training sets.
        out: where drawn lines go.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/known-words")


@dataclass(frozen=True)
class Line:
    """A label, and the log-probabilities (T, K) of its picture."""

    label: str
    log_probs: LogProbs


def main() -> None:
    """Every set read once; then every choice on what was kept."""
    options = tyro.cli(KnownWordsOptions, description=__doc__)
    charset = load(threads=1).info.charset
    sets = {name: kept_lines(path) for name, path in paths(options).items()}
    listed = english_words()
    figures = {name: set_figures(lines, charset, listed, folded=name in REAL) for name, lines in sets.items()}
    write_json(
        RESULTS / "known_words.json",
        {"command": "python -m benchmarks.known_words", "seed": 0, "words": len(listed), "sets": figures},
    )
    print(rules_table({"sets": figures}))


def paths(options: KnownWordsOptions) -> dict[str, Path]:
    """Name -> lines; real sets that are there, and the drawn ones."""
    found = {name: path for name in REAL if (path := options.data / f"{name}.zip").exists()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "running.txt").write_text("\n".join(RUNNING) + "\n", encoding="utf-8")
    for number, (name, says) in enumerate(DRAWN.items()):
        path = options.out / f"{name}.lmdb"
        run_stage(
            path, "crnn",
            ["data", "make", "--out", str(path), "--count", str(LINES), "--seed", str(71 + number),
             "--fonts", "held-out", *(str(options.out / part) if part == "running.txt" else part for part in says)],
        )  # fmt: skip
        found[name] = path
    return found


def kept_lines(path: Path) -> list[Line]:
    """What the student's network says of at most LINES labelled lines."""
    source = open_lines(path)
    labels = source.texts()
    labelled = [i for i, text in enumerate(labels) if text]
    chosen = np.random.default_rng(0).permutation(labelled)[:LINES]
    kept: list[LogProbs] = []

    def keep(log_probs: LogProbs, charset: Charset) -> list[Reading]:
        kept.extend(log_probs)
        return greedy_batch(log_probs, charset)

    recogniser = load(threads=1, decoder=keep)
    for i in chosen:  # one by one, so that what is kept stays in order
        recogniser.read([source[int(i)].picture])
    return [Line(labels[int(i)] or "", log_probs) for i, log_probs in zip(chosen, kept, strict=True)]


def set_figures(lines: Sequence[Line], charset: Charset, listed: frozenset[str], folded: bool) -> Json:
    """Right lines (acc36 where folded, else exact) by every rule, and calibration errors by every share."""

    def right(label: str, text: str) -> bool:
        return fold36(label) == fold36(text) if folded else label == text

    counted = [line for line in lines if not folded or fold36(line.label)]
    plain = [greedy_batch(line.log_probs[None], charset)[0] for line in counted]
    before = [right(line.label, reading.text) for line, reading in zip(counted, plain, strict=True)]

    def read(known: KnownWords) -> tuple[list[Reading], list[bool]]:
        found = [read_words(line.log_probs[None], charset, known)[0] for line in counted]
        return found, [right(line.label, reading.text) for line, reading in zip(counted, found, strict=True)]

    rules: Json = {}
    for name, known in bonuses(listed).items():
        apart = [float(now) - was for now, was in zip(read(known)[1], before, strict=True)]
        rules[name] = {"difference": statistics.fmean(apart), "interval": bootstrap_interval(apart, 0)}
    shares = {}
    for share in SHARES:
        found, after = read(KnownWords(listed, surer=share))
        shares[f"{share:g}"] = calibration_error([reading.confidence for reading in found], after)
    return {
        "lines": len(counted),
        "best_path": statistics.fmean(before),
        "rules": rules,
        "calibration": {"best path": calibration_error([reading.confidence for reading in plain], before)} | shares,
    }


def bonuses(listed: frozenset[str]) -> dict[str, KnownWords]:
    """As the table names them -> what is tried."""
    constant = {f"{nats:g} nats": KnownWords(listed, per_letter=np.inf, most=nats) for nats in CONSTANTS}
    rising = {f"{nats:g} nats a letter, at most 4": KnownWords(listed, per_letter=nats) for nats in PER_LETTER}
    return constant | rising


# Tables.


def rules_table(results: Json) -> str:
    """Points gained over best path by every bonus."""
    sets = results["sets"]
    rows = [["best path", *(f"{100 * own['best_path']:.1f}" for own in sets.values())]]
    for rule in next(iter(sets.values()))["rules"]:
        found = [own["rules"][rule] for own in sets.values()]
        rows.append([rule, *(signed_with_interval(row["difference"], row["interval"]) for row in found)])
    return table(["points gained by a listed word's bonus (95 %)", *columns(sets)], rows)


def shares_table(results: Json) -> str:
    """How far confidences are off, by share of the bonus that they rise by."""
    sets = results["sets"]
    rows = []
    for share in next(iter(sets.values()))["calibration"]:
        cells = [f"{100 * own['calibration'][share]:.1f}" for own in sets.values()]
        rows.append([share if share == "best path" else f"{share} of the bonus", *cells])
    return table(["calibration error, points", *columns(sets)], rows)


def columns(sets: Json) -> list[str]:
    return [f"{name}, {'acc36' if name in REAL else 'exact'} ({own['lines']:,})" for name, own in sets.items()]


if __name__ == "__main__":
    main()
