"""`crnn bench`: accuracy, size and time of recognisers on sets of labelled lines, as JSON and as a report."""

from __future__ import annotations

import datetime
import json
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import editdistance
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.figures import Groups, LineResult, Lines, by_frequency, list_confusions, set_figures, sureness
from benchmarks.latency import measure
from benchmarks.machine import machine
from benchmarks.peers import PEERS, PeerRecogniser, chosen_peers, open_peer
from benchmarks.report import Mistake, frequency_sentence, render, same_texts
from crnn.checkpoint import write_atomically
from crnn.commands import refuse_writing_into
from crnn.ctc import Reading, greedy_batch
from crnn.recogniser import Recogniser, load, words_decoder
from crnn.score import frequency_groups
from crnn.words import ENGLISH
from data.lines import Picture, StoredLines, open_lines
from data.picture import natural_width, prepare

CHUNK = 256
"""Lines held in memory and read at a time."""
LISTED_MISTAKES = 12
"""Of each kind, for one model."""
WITH_WORDS = " +words"
"""Behind the name of a model that reads with known words."""


@dataclass(frozen=True)
class BenchOptions:
    """Compare recognisers on labelled lines: accuracy, size, time. The others are compared with the first model."""

    models: tuple[Path, ...] = ()
    """Checkpoints (.pt) and exported files (.onnx, .tflite)."""
    data: tuple[Path, ...] = ()
    """Labelled lines: LMDBs, folders or zips with a labels.tsv."""
    json: Path = Path("results.json")
    """Where all figures go."""
    report: Path | None = None
    """Where an HTML page with tables, pictures and mistakes goes."""
    words: bool = False
    """Read with every model once more, with the English words that come with the package known (model +words). All are
    then timed from the picture to the text."""
    peers: tuple[str, ...] = ()
    """Recognisers of others beside them: all, or tesseract, tesseract-word, easyocr, pp-ocr-v4, pp-ocr-v4-unpadded,
    pp-ocr-v6-small (pip install 'pocket-crnn[peers]'). All are then timed from the picture to the text."""
    threads: int = 1
    """Threads of every model, for accuracy and latency alike."""
    limit: int = 0
    """Lines of each set, drawn at random; 0 takes all."""
    case_blind: bool = False
    """Compare exact texts and characters without case, for sets whose labels are upper case whatever the print."""
    batch: int = 32
    """Lines read at a time for accuracy; latency is always of single lines."""
    latency_lines: int = 64
    """Lines that are timed, drawn from all sets together; 0 times nothing."""
    latency_rounds: int = 5
    """How often every model reads each timed line."""
    readings: bool = False
    """Keep every reading in the JSON."""
    seed: int = 0
    """Of --limit, of the timed lines and of the intervals."""

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--threads", self.threads, 1),
            ("--limit", self.limit, 0),
            ("--batch", self.batch, 1),
            ("--latency-lines", self.latency_lines, 0),
            ("--latency-rounds", self.latency_rounds, 1),
        ):
            if value < least:
                raise ValueError(f"{flag} is {value}; give at least {least}")
        if not (self.models or self.peers) or not self.data:
            raise ValueError("bench needs --models or --peers, and --data, at least one of each")
        chosen_peers(self.peers)


@dataclass(frozen=True)
class LineSet:
    """The labelled lines of one set that take part.

    indices: into source. unlabelled: how many lines of the set have no label.
    """

    name: str
    source: StoredLines
    indices: tuple[int, ...]
    unlabelled: int

    def chunks(self) -> Iterator[list[tuple[Picture, str, str]]]:
        """(picture, label, key) of every line, some at a time."""
        for start in range(0, len(self.indices), CHUNK):
            lines = [self.source[i] for i in self.indices[start : start + CHUNK]]
            yield [(line.picture, line.text or "", line.key) for line in lines]


Reader = Recogniser | PeerRecogniser


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(BenchOptions, args=argv, prog="crnn bench")
    results = bench(options, f"crnn bench {shlex.join(argv)}")
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has room
    console.print(summary(results))
    console.print(frequency_summary(results))
    for sentence in same_texts(results):
        print(sentence)
    print(f"figures in {options.json}" + (f", report in {options.report}" if options.report else ""))
    return 0


def bench(options: BenchOptions, command: str) -> dict[str, Any]:
    """Runs the comparison, writes its JSON and report, and returns what went into the JSON."""
    refuse_writing_into(options.json, [*options.models, *options.data], "--json")
    if options.report is not None:
        refuse_writing_into(options.report, [*options.models, *options.data], "--report")
        if options.report.resolve() == options.json.resolve():
            raise ValueError(f"--report and --json are both {options.json}; give each a name of its own")
    described_machine = machine()  # before the work, for its load is then not ours
    recognisers: dict[str, Reader] = dict(open_models(options.models, options.threads))
    if options.words:
        recognisers |= {
            name + WITH_WORDS: load(path, options.threads, decoder=words_decoder())
            for name, path in zip(list(recognisers), options.models, strict=True)
        }
    recognisers |= {name: open_peer(name, options.threads) for name in chosen_peers(options.peers)}
    sets = open_sets(options.data, options.limit, options.seed)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        read = read_sets(sets, recognisers, options, progress)
        latencies = time_lines(sets, recognisers, options, progress)
    counts_of, groups = character_groups(recognisers, read, options.case_blind)
    frequency: dict[str, Any] = {"counts_of": counts_of} | {name: "".join(sorted(g)) for name, g in groups.items()}
    results = {
        "version": 1,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "seed": options.seed,
        "threads": options.threads,
        "case_blind": options.case_blind,
        "machine": described_machine,
        "models": [
            describe_model(name, recogniser) | {"latency": latencies.get(name)}
            for name, recogniser in recognisers.items()
        ],
        "sets": [
            {"name": s.name, "file": str(s.source.path), "lines": len(s.indices), "unlabelled": s.unlabelled}
            for s in sets
        ],
        "frequency": frequency,
        "characters": {
            name: by_frequency([line for own in lines.values() for line in own], groups, options.seed)
            for name, lines in read.items()
        },
        "confidence": {
            name: sureness([line for own in lines.values() for line in own]) for name, lines in read.items()
        },
        "results": [set_figures(read, model, s.name, groups, options.seed) for model in recognisers for s in sets],
        "confusions": {name: list_confusions(lines) for name, lines in read.items()},
    }
    if options.readings:
        results["readings"] = {n: {s: [asdict(r) for r in rs] for s, rs in lines.items()} for n, lines in read.items()}
    text = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_atomically(options.json, lambda file: file.write(text.encode()))
    if options.report:
        page = render(results, {name: worst_mistakes(sets, lines) for name, lines in read.items()})
        write_atomically(options.report, lambda file: file.write(page.encode()))
    return results


def open_models(paths: Sequence[Path], threads: int) -> dict[str, Recogniser]:
    """Recognisers by name, in the order given; a name is the file's, or its path where two would be called the same."""
    names = distinct(paths, [path.name for path in paths])
    return {name: load(path, threads, decoder=greedy_batch) for name, path in zip(names, paths, strict=True)}


def open_sets(paths: Sequence[Path], limit: int, seed: int) -> list[LineSet]:
    """The labelled lines of each source, at most limit of them (0: all). ValueError where a source has no label."""
    sets = []
    for name, path in zip(distinct(paths, [p.stem for p in paths]), paths, strict=True):
        source = open_lines(path)
        labelled = [i for i, text in enumerate(source.texts()) if text]
        if not labelled:
            raise ValueError(f"{path} has {len(source)} lines, but no labels to score by; give labelled lines")
        chosen = np.random.default_rng(seed).permutation(labelled)[: limit or None]
        sets.append(LineSet(name, source, tuple(sorted(int(i) for i in chosen)), len(source) - len(labelled)))
    return sets


def distinct(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """The names, the whole path instead where a name occurs twice. ValueError where a path does."""
    twice = [str(path) for path, times in Counter(paths).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice; give every model and every set once")
    often = Counter(names)
    return [name if often[name] == 1 else str(path) for path, name in zip(paths, names, strict=True)]


def read_sets(
    sets: Sequence[LineSet], recognisers: dict[str, Reader], options: BenchOptions, progress: Progress
) -> dict[str, Lines]:
    """Every line read by every model; a picture is decoded once for all of them."""
    read: dict[str, Lines] = {name: {s.name: [] for s in sets} for name in recognisers}
    for s in sets:
        task = progress.add_task(f"reading {s.name}", total=len(s.indices) * len(recognisers))
        for lines in s.chunks():
            for name, recogniser in recognisers.items():
                readings = recogniser.read([picture for picture, _, _ in lines], options.batch)
                for (_, label, key), reading in zip(lines, readings, strict=True):
                    read[name][s.name].append(compare(recogniser, label, key, reading, options.case_blind))
                progress.advance(task, len(lines))
    return read


def compare(recogniser: Reader, label: str, key: str, reading: Reading, case_blind: bool) -> LineResult:
    charset = recogniser.info.charset if isinstance(recogniser, Recogniser) else recogniser.charset
    covered = not charset.missing(label)
    label, text = charset.normalise(label), unicodedata.normalize("NFC", reading.text)
    if case_blind:
        label, text = label.lower(), text.lower()
    return LineResult(key, label, text, reading.confidence, covered)


def time_lines(
    sets: Sequence[LineSet], recognisers: dict[str, Reader], options: BenchOptions, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Latency of single lines by model; nothing where no lines are to be timed.

    Of ours alone, from the prepared picture at its natural width to the log-probabilities; beside peers, whose parts
    cannot be told apart, and with known words, which come after the network, from the picture to the text.
    """
    pool = [(s, index) for s in sets for index in s.indices]
    drawn = np.random.default_rng(options.seed).permutation(len(pool))[: options.latency_lines]
    if not len(drawn):
        return {}
    progress.add_task("timing", total=None)
    pictures = [pool[i][0].source[pool[i][1]].picture for i in drawn]
    ours = [recogniser for recogniser in recognisers.values() if isinstance(recogniser, Recogniser)]
    whole = options.words or len(ours) < len(recognisers)
    if whole:
        calls = [partial(read_one, recogniser) for recogniser in recognisers.values()]
        found = measure(calls, [pictures] * len(calls), options.latency_rounds)
    else:
        prepared = [[prepare(p, r.info.input_spec)[None] for p in pictures] for r in ours]
        found = measure([r.runtime for r in ours], prepared, options.latency_rounds)
    described: dict[str, dict[str, Any]] = {}
    for (name, recogniser), latency in zip(recognisers.items(), found, strict=True):
        widths = [p.shape[1] for p in pictures]
        if isinstance(recogniser, Recogniser):
            widths = [natural_width(p.shape[0], p.shape[1], recogniser.info.input_spec) for p in pictures]
        described[name] = {
            "ends_at": "text" if whole else "log_probs",
            "p50_ms": latency.p50,
            "p95_ms": latency.p95,
            "mean_ms": latency.mean,
            "timings": len(latency.milliseconds),
            "lines": len(pictures),
            "rounds": options.latency_rounds,
            "batch": 1,
            "widths": {"least": min(widths), "median": float(np.median(widths)), "most": max(widths)},
        }
    return described


def read_one(recogniser: Reader, picture: Picture) -> list[Reading]:
    return recogniser.read([picture], 1)


def describe_model(name: str, recogniser: Reader) -> dict[str, Any]:
    if isinstance(recogniser, PeerRecogniser):
        known = recogniser.charset.characters
        return {
            "name": name,
            "file": recogniser.file.name,
            "parameters": recogniser.parameters,
            "bytes": recogniser.file.stat().st_size,
            "threads": recogniser.threads,
            "characters": None if known is None else len(known),
            "case": "keep",
            "sizes": None,
            "network": recogniser.network,
            "packages": {package: version(package) for package in PEERS[name].packages},
            "target": "peer",
            "parity_difference": None,
        }
    info, path = recogniser.info, recogniser.runtime.path
    return {
        "name": name,
        "file": str(path),
        "parameters": recogniser.runtime.parameters,
        "bytes": path.stat().st_size + (0 if recogniser.decoder is greedy_batch else ENGLISH.stat().st_size),
        "threads": recogniser.runtime.threads,
        "characters": len(info.charset.characters),
        "case": info.charset.case,
        "sizes": asdict(info.sizes),
        "target": info.target,
        "parity_difference": info.parity.get("difference"),
    }


def character_groups(
    recognisers: dict[str, Reader], read: dict[str, Lines], case_blind: bool
) -> tuple[str | None, Groups]:
    """Whose counts they are by, and the groups: of what the first model that knows it was trained on.

    None, and the labels' own counts, where no file says. All models share the groups, or they could not be compared.
    """
    for name, recogniser in recognisers.items():
        if not isinstance(recogniser, Recogniser):
            continue
        known = recogniser.info.provenance.get("characters")
        if known:
            counts: Counter[str] = Counter()
            for character, times in zip(recogniser.info.charset.characters, known["counts"], strict=True):
                counts[character.lower() if case_blind else character] += times
            return name, frequency_groups(counts)
    first = next(iter(read.values()))
    return None, frequency_groups(Counter("".join(line.label for lines in first.values() for line in lines)))


def worst_mistakes(sets: Sequence[LineSet], lines: Lines) -> dict[str, list[Mistake]]:
    """What a model was surest of and still read wrong, and what it read furthest from the label.

    Lines whose letters and digits are right are left out here: punctuation and case are in the confusions, and
    labels are often wrong about them.
    """
    wrong = [
        (s, index, line)
        for s in sets
        for index, line in zip(s.indices, lines[s.name], strict=True)
        if line.right36 is False or (line.right36 is None and not line.right)
    ]
    wrong.sort(key=lambda entry: -entry[2].confidence)
    surest, rest = wrong[:LISTED_MISTAKES], wrong[LISTED_MISTAKES:]
    rest.sort(key=lambda entry: -editdistance.eval(entry[2].text, entry[2].label) / max(1, len(entry[2].label)))
    chosen = {"Surest and wrong": surest, "Furthest from the label": rest[:LISTED_MISTAKES]}
    return {
        title: [
            Mistake(s.name, line.key, s.source[index].picture, line.label, line.text, line.confidence)
            for s, index, line in entries
        ]
        for title, entries in chosen.items()
        if entries
    }


def summary(results: dict[str, Any]) -> Table:
    """One row a model: size, time, and exact / acc36 accuracy of each set in per cent."""
    table = Table(caption="exact / letters and digits without case (acc36), per cent; latency of one line, p50 / p95")
    table.add_column("model", overflow="fold")
    for title in ("parameters", "MB", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for s in results["sets"]:
        table.add_column(s["name"], justify="right", overflow="fold")
    for model in results["models"]:
        own = [r for r in results["results"] if r["model"] == model["name"]]
        accuracies = [f"{per_cent(r['exact'])} / {per_cent(r['acc36'])}" for r in own]
        time = model["latency"]
        spent = f"{time['p50_ms']:.1f} / {time['p95_ms']:.1f}" if time else "-"
        parameters = "-" if model["parameters"] is None else f"{model['parameters']:,}"
        table.add_row(model["name"], parameters, f"{model['bytes'] / 1e6:.2f}", spent, *accuracies)
    return table


def frequency_summary(results: dict[str, Any]) -> Table:
    """One row a model: per cent of frequent and rare characters that were read in their place, over all sets."""
    table = Table(caption=frequency_sentence(results["frequency"]))
    table.add_column("model", overflow="fold")
    for title in ("many", "medium", "few", "macro"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, own in results["characters"].items():
        groups = [f"{per_cent(own[g]['read'])} of {own[g]['held']:,}" for g in ("many", "medium", "few")]
        table.add_row(name, *groups, per_cent(own["macro"]))
    return table


def per_cent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f}"
