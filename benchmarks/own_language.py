"""A recogniser for another script: `python -m benchmarks.own_language --set lines_de --font-folders fonts/fraktur ...`.

The walk of docs/own-language.md, from a few hundred real lines: half of them are fine-tuned on, and lend their texts
and characters to synthesis; the other half is read at the very end, by a model that saw synthesis alone, by one that
was fine-tuned, and by two that had the real half alone. Some half an hour of one core a set.
"""

from __future__ import annotations

import json
import os
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import editdistance
import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.intervals import DRAWS
from benchmarks.recipes import SMALL
from benchmarks.stages import RESULTS, run_result, run_stage, without_paths, write_json
from crnn.charset import sorted_characters
from data.lines import open_lines
from data.synthesis.fonts import find_fonts

SEED = 5
RESULT = RESULTS / "own_language.json"

ALPHABETS = {
    "lines_de": string.ascii_letters + string.digits + "ÄÖÜäöüßſ",
    "lines_grc": string.digits + "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρσςτυφχψω",
}
"""What whoever knows the language adds to the characters of the lines at hand, since a rare one may not be in them."""

LOOKS = {"lines_de": ("0", "0.3", "0", "0.7"), "lines_grc": ("0", "0.1", "0", "0.9")}
"""Weights of scene text, documents, receipts, 1-bit scans, chosen by eye beside sixteen lines of each whole set."""

TOLD = {
    "synthesis": "synthesis alone",
    "tuned": "synthesis, then the real half",
    "real": "the real half alone",
    "longer": "the real half alone, as many steps as both",
}
"""The models that are read, in this order, and what they learnt from after the easy start."""

Json = dict[str, Any]


@dataclass(frozen=True)
class OwnLanguageOptions:
    """Options.

    Attributes:
        set: the real lines.
        font_folders: fonts of the script; most synthetic lines are drawn with these alone.
        other_fonts: fonts for the characters that those lack; empty where they lack none.
        data: folder with the zips of the real sets.
        out: where lines, models and results go, in a folder for each set.
        lines: drawn with the fonts of the script; a fifth as many with the other fonts.
        start_steps: on easy lines, of 16 lines each.
        steps: on synthesis, of up to 32 lines each.
        tune_steps: on real lines, of some 8 long lines each.
        threads: of each run.
    """

    set: Literal["lines_de", "lines_grc"]
    font_folders: tuple[Path, ...]
    other_fonts: tuple[Path, ...] = ()
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/own-language")
    lines: int = 15_000
    start_steps: int = 500
    steps: int = 700
    tune_steps: int = 500
    threads: int = 1


def main() -> None:
    """The stages in order."""
    options = tyro.cli(OwnLanguageOptions, description=__doc__)
    out = options.out / options.set
    out.mkdir(parents=True, exist_ok=True)
    corpus, charset = halves(options, out)
    synthesis = draw(options, out, corpus, charset)
    models = learn(options, out, charset, synthesis)
    read(options, out, charset, models)


def halves(options: OwnLanguageOptions, out: Path) -> tuple[Path, Path]:
    """tune.lmdb and figure.lmdb, and of the first the texts and the charset as files.

    The halves are drawn by a hash of the picture's name, so anyone gets the same ones.
    """
    tune, texts = out / "tune.lmdb", out / "tune.zip"
    source = options.data / f"{options.set}.zip"
    run_stage(
        tune, "crnn",
        ["data", "import", str(source), "--out", str(tune), "--validation", "0.5",
         "--validation-out", str(out / "figure.lmdb")],
    )  # fmt: skip
    run_stage(texts, "crnn", ["data", "export", str(tune), "--out", str(texts)])
    labels = [text for text in open_lines(texts).texts() if text]
    corpus, charset = out / "corpus.txt", out / "charset.txt"
    corpus.write_text("\n".join(labels) + "\n", encoding="utf-8")
    write_charset(charset, charset_of(labels, ALPHABETS[options.set]))
    return corpus, charset


def charset_of(texts: Iterable[str], alphabet: str) -> str:
    """The characters of these texts and of an alphabet, once each, in the order of a charset."""
    return sorted_characters(set(alphabet).union(*(unicodedata.normalize("NFC", text) for text in texts)))


def write_charset(path: Path, characters: str) -> None:
    """One character a line, so that a mark does not join the letter before it."""
    path.write_text("".join(f"{c}\n" for c in characters), encoding="utf-8")


def read_charset(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\n", "")


def texts_with(corpus: Path, characters: str) -> list[str]:
    """The texts of a corpus that hold one of these characters."""
    return [text for text in corpus.read_text(encoding="utf-8").splitlines() if not set(characters).isdisjoint(text)]


def drawable(characters: str, folders: Sequence[Path]) -> tuple[str, str]:
    """(characters that some font of these folders has, the others)."""
    have = frozenset().union(*(font.characters for font in find_fonts(folders)))
    return "".join(c for c in characters if c in have), "".join(c for c in characters if c not in have)


def named(characters: str) -> list[str]:
    """Characters by code point and name, as marks cannot be read alone."""
    return [f"U+{ord(c):04X} {unicodedata.name(c, 'without a name')}" for c in characters]


def draw(options: OwnLanguageOptions, out: Path, corpus: Path, charset: Path) -> list[Path]:
    """Easy lines, lines of the script's fonts, and with other fonts texts with a character that these lack."""
    characters = read_charset(charset)
    script, lacking = drawable(characters, options.font_folders)
    nowhere = drawable(lacking, [*options.font_folders, *options.other_fonts])[1]
    for whose, which in (("the script's fonts", lacking), ("any font", nowhere)):
        if which:
            print(f"-- {whose} cannot draw {', '.join(named(which))}", flush=True)
    make = ["--seed", str(SEED), "--corpus-share", "0.8", "--kinds", "random", "--phrases", "0", "--longest", "25",
            "--fonts", "all", "--words", "all", "--workers", str(options.threads)]  # fmt: skip
    looks = ["--looks", *LOOKS[options.set]]
    wanted = [
        ("easy", options.lines // 2, options.font_folders, script, corpus, ["--easy"]),
        ("print", options.lines, options.font_folders, script, corpus, looks),
    ]
    rare = texts_with(corpus, lacking)
    if rare and options.other_fonts:
        texts = out / "rare.txt"
        texts.write_text("\n".join(rare) + "\n", encoding="utf-8")
        have = drawable(characters, options.other_fonts)[0]
        wanted.append(("rest", options.lines // 5, options.other_fonts, have, texts, looks))
    made = []
    for name, count, folders, some, texts, how in wanted:
        path = out / f"{name}.lmdb"
        run_stage(
            path, "crnn",
            ["data", "make", "--out", str(path), "--count", str(count), *make, *how, f"--characters={some}",
             "--corpus", str(texts), "--font-folders", *map(str, folders)],
        )  # fmt: skip
        made.append(path)
    return made


def learn(options: OwnLanguageOptions, out: Path, charset: Path, synthesis: Sequence[Path]) -> list[Path]:
    """start.pt on easy lines; from it synthesis.pt, real.pt and longer.pt; from synthesis.pt tuned.pt.

    tuned.pt and real.pt differ in their start alone; longer.pt has on real lines alone as many steps as tuned.pt has
    after start.pt in all. Nothing is chosen: the last weights are kept.
    """
    easy, *lines = synthesis
    start, drawn, tuned, real, longer = (out / f"{name}.pt" for name in ("start", *TOLD))
    common = ["--threads", str(options.threads), "--seed", str(SEED), "--validation", "0"]
    run_stage(
        start, "crnn",
        ["train", "--data", str(easy), "--charset", str(charset), "--out", str(start), *SMALL, *common, "--drop-bad",
         "--until", str(options.start_steps), "--batch-lines", "16", "--column-weight", "1", "--column-steps", "100000",
         "--warm-up", "50", "--final-rate", "0.5"],
    )  # fmt: skip
    weighted = [f"{path}:{weight}" for path, weight in zip(lines, ("0.85", "0.15"), strict=False)]
    run_stage(
        drawn, "crnn",
        ["train", "--init", str(start), "--data", *weighted, "--out", str(drawn), *common, "--drop-bad",
         "--until", str(options.steps), "--warm-up", "50"],
    )  # fmt: skip
    both = options.steps + options.tune_steps
    for model, init, steps in (
        (tuned, drawn, options.tune_steps), (real, start, options.tune_steps), (longer, start, both),
    ):  # fmt: skip
        run_stage(
            model, "crnn",
            ["train", "--init", str(init), "--data", str(out / "tune.lmdb"), "--out", str(model), *common,
             "--drop-bad", "--until", str(steps), "--batch-lines", "24", "--learning-rate", "1e-3",
             "--warm-up", "50"],
        )  # fmt: skip
    return [drawn, tuned, real, longer]


def read(options: OwnLanguageOptions, out: Path, charset: Path, models: Sequence[Path]) -> None:
    """The other half, read for the first time; its figures join those of the other set."""
    result = out / "results.json"
    run_stage(
        result, "crnn",
        ["bench", "--models", *map(str, models), "--data", str(out / "figure.lmdb"), "--latency-lines", "0",
         "--readings", "--json", str(result)],
    )  # fmt: skip
    bench = json.loads(result.read_text(encoding="utf-8"))
    readings = {name: sets["figure"] for name, sets in bench.pop("readings").items()}
    characters = read_charset(charset)
    unseen = charset_of((line["label"] for line in readings[models[0].name]), "")
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"sets": {}}
    kept["sets"][options.set] = {
        "command": f"python -m benchmarks.own_language --set {options.set} --lines {options.lines} --start-steps "
        f"{options.start_steps} --steps {options.steps} --tune-steps {options.tune_steps}",
        "lines": {name: len(open_lines(out / f"{name}.lmdb")) for name in ("tune", "figure")},
        "characters": len(characters),
        "alphabet": ALPHABETS[options.set],
        "not_in_charset": named("".join(c for c in unseen if c not in characters)),
        "not_in_script_fonts": named(drawable(characters, options.font_folders)[1]),
        "fonts": sorted({font.family for font in find_fonts(options.font_folders)}),
        "other_fonts": sorted({font.family for font in find_fonts(options.other_fonts)}) if options.other_fonts else [],
        "cer": {name: character_errors(lines) for name, lines in readings.items()},
        "cer_above_tuned": {name: character_errors(readings[name], readings["tuned.pt"])
                            for name in readings if name != "tuned.pt"},
        "bench": without_paths(bench),
        "runs": {name: run_result(out / name)
                 for name in ("start.pt", *(model.name for model in models))},
    }  # fmt: skip
    content = {"command": "python -m benchmarks.own_language", "seed": SEED, "sets": kept["sets"]}
    write_json(RESULT, content)
    print(own_language_table(json.loads(RESULT.read_text(encoding="utf-8"))))


def character_errors(lines: Sequence[Json], fewer: Sequence[Json] | None = None) -> Json:
    """Edits by label character over lines as `crnn bench --readings` keeps them, with the 95 % interval.

    fewer: another model's readings of the same lines, whose rate is taken off, line by line paired.
    The interval is the percentile bootstrap over lines (Efron 1979); a draw's rate is its edits by its characters.
    """
    edits = edits_of(lines) - (edits_of(fewer) if fewer is not None else 0)
    lengths = np.array([len(unicodedata.normalize("NFC", line["label"])) for line in lines], np.float64)
    counts = np.random.default_rng(SEED).multinomial(len(lines), np.full(len(lines), 1 / len(lines)), size=DRAWS)
    low, high = np.quantile((counts @ edits) / (counts @ lengths), [0.025, 0.975])
    return {"rate": float(edits.sum() / lengths.sum()), "interval": [float(low), float(high)]}


def edits_of(lines: Sequence[Json]) -> NDArray[np.float64]:
    pairs = [[unicodedata.normalize("NFC", line[side]) for side in ("text", "label")] for line in lines]
    return np.array([editdistance.eval(text, label) for text, label in pairs], np.float64)


def own_language_table(results: Json) -> str:
    """A row for each model of each set, as Markdown."""
    rows = ["| set | learnt from | CER % (95 %) | exact % (95 %) | minutes |", "| --- | --- | ---: | ---: | ---: |"]
    for name, found in results["sets"].items():
        exact = {row["model"]: row for row in found["bench"]["results"]}
        spent = {model: run["seconds"] / 60 for model, run in found["runs"].items()}
        for stage, what in TOLD.items():
            model = f"{stage}.pt"
            minutes = spent["start.pt"] + spent[model] + (spent["synthesis.pt"] if stage == "tuned" else 0)
            errors, row = found["cer"][model], exact[model]
            cells = (per_cent(errors["rate"], errors["interval"]), per_cent(row["exact"], row["exact_interval"]))
            rows.append(f"| {name}, {row['lines']} lines | {what} | {cells[0]} | {cells[1]} | {minutes:.0f} |")
    return "\n".join(rows) + "\n"


def per_cent(value: float, interval: Sequence[float]) -> str:
    return f"{100 * value:.1f} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


if __name__ == "__main__":
    main()
