"""Method 2's claims, tried: `python -m benchmarks.optimisers cifar`, then `text` and `speed`.

cifar: the published table again: a network of two convolutions and three linear layers on CIFAR-10, batches of 64, 20
epochs, five optimisers at the published settings with five seeds, in colour and in grey; then each at its best learning
rate of four, chosen on 5,000 held-out training pictures. text: a small recogniser is trained to a fixed accuracy on
synthetic lines. speed: time of an update beside SGD's. Every run is kept in --out, so that what was cut off goes on.
"""

from __future__ import annotations

import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.arms import figures
from benchmarks.cifar10 import read_cifar10
from benchmarks.stages import RESULTS, finished, run_stage, write_json
from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, write_atomically
from crnn.model import Crnn
from crnn.objectives.recognition import Recognition
from crnn.optimisers.gradient_direction import PUBLISHED_DECAY, GradientDirection, first_step

EPOCHS, BATCH, SEEDS, HELD_OUT = 20, 64, 5, 5000
LEAST_SEEDS = 2
"""Below them no claim is called confirmed or not."""
MARKS = (0.63, 0.64)
"""Accuracies whose time is told."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """An optimiser of the published table.

    rate: as published; None for the computed one. published: its accuracy there, in per cent. multiples: of that rate,
    tried on held-out pictures. make: (parameters, rate) -> optimiser.
    """

    label: str
    rate: float | None
    published: float
    multiples: tuple[float, ...]
    make: Callable[[list[nn.Parameter], float], torch.optim.Optimizer]


PEERS = {
    "gradient-direction": Peer(
        "gradient direction", None, 64.404, (0.25, 0.5, 1, 2),
        lambda parameters, rate: GradientDirection(parameters, rate, decay=PUBLISHED_DECAY),
    ),
    "adam": Peer(
        "Adam", 1e-3, 62.99, (0.3, 1, 3, 10),
        lambda parameters, rate: torch.optim.Adam(parameters, rate, (0.9, 0.999), foreach=True),
    ),
    "rmsprop": Peer(
        "RMSprop", 1e-3, 61.35, (0.1, 0.3, 1, 3),
        lambda parameters, rate: torch.optim.RMSprop(parameters, rate, alpha=0.9, foreach=True),
    ),
    "momentum": Peer(
        "SGD, momentum 0.9", 1e-3, 59.1, (1, 3, 10, 30),
        lambda parameters, rate: torch.optim.SGD(parameters, rate, 0.9, foreach=True),
    ),
    "sgd": Peer(
        "SGD", 1e-3, 29.06, (10, 30, 100, 200),
        lambda parameters, rate: torch.optim.SGD(parameters, rate, foreach=True),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class OptimisersOptions:
    """Options.

    Attributes:
        part: cifar: the published table again; text: a recogniser to a fixed accuracy; speed: time of an update.
        data: folder with cifar10_train.zip and cifar10_test.zip.
        out: folder of the runs.
        threads: of each run.
        text_steps: planned of each text run; warm-up, cosine and decay follow it.
        most: so many runs of cifar now, the rest in a later call; 0 for all.
    """

    part: tyro.conf.Positional[Literal["cifar", "text", "speed"]]
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/optimisers")
    threads: int = 1
    text_steps: int = 1500
    most: int = 0


def main() -> None:
    """Runs what is not there yet; the results' JSON is written anew after every run."""
    options = tyro.cli(OptimisersOptions, description=__doc__)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    {"cifar": cifar, "text": text, "speed": speed}[options.part](options)


def keep(part: str, content: Json) -> None:
    """Puts one part's results into docs/results/optimisers.json, beside those of the other parts."""
    path = RESULTS / "optimisers.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stamped = {"command": "python -m benchmarks.optimisers {cifar,text,speed}", "seed": 0}
    write_json(path, before | stamped | {part: content})


# The published table.


@dataclass(frozen=True)
class CifarRun:
    """One training; multiple: of the published rate; held_out: on 45,000 pictures, read on the other 5,000."""

    colours: Literal["colour", "grey"]
    peer: str
    seed: int
    multiple: float = 1.0
    held_out: bool = False

    @property
    def name(self) -> str:
        times = f"-times{self.multiple:g}" if self.multiple != 1 or self.held_out else ""
        return f"{self.colours}-{self.peer}{times}-seed{self.seed}" + ("-held-out" if self.held_out else "")


@dataclass(frozen=True)
class Pictures:
    """uint8 (N, C, 32, 32), channels last in memory, and classes (N,)."""

    pictures: Tensor
    classes: Tensor

    def part(self, of: slice) -> Pictures:
        return Pictures(self.pictures[of], self.classes[of])

    def blocks(self) -> tuple[Tensor, ...]:
        return torch.split(self.pictures, 1000)


def published_runs() -> Iterator[CifarRun]:
    """Seeds in such an order that a table of the first ones is whole early."""
    yield from (CifarRun("colour", peer, seed) for seed in range(3) for peer in PEERS)
    yield from (CifarRun("grey", peer, 0) for peer in PEERS)
    yield from (CifarRun("colour", peer, 0, m, True) for peer, about in PEERS.items() for m in about.multiples)


def remaining_runs() -> Iterator[CifarRun]:
    """The other seeds."""
    yield from (CifarRun("grey", peer, seed) for seed in (1, 2) for peer in PEERS)
    for seed in range(3, SEEDS):
        yield from (CifarRun("colour", peer, seed) for peer in PEERS)
        yield from (CifarRun("grey", peer, seed) for peer in PEERS)


def cifar(options: OptimisersOptions) -> None:
    """All runs of the published table that are not there, and those at the rates that the held-out pictures chose."""
    folder = options.out / "cifar"
    folder.mkdir(exist_ok=True)
    sets = {"colour": (stored(options.data, "train"), stored(options.data, "test"))}
    sets["grey"] = (grey(sets["colour"][0]), grey(sets["colour"][1]))

    made = 0

    def run(one: CifarRun) -> None:
        nonlocal made
        path = folder / f"{one.name}.json"
        if path.exists() or made == options.most > 0:
            return
        made += 1
        train, test = sets[one.colours]
        if one.held_out:
            train, test = train.part(slice(HELD_OUT, None)), train.part(slice(HELD_OUT))
        text = json.dumps(train_cifar(one, train, test))
        write_atomically(path, lambda file: file.write(text.encode()))
        keep("cifar", cifar_results(folder))
        print(f"-- {one.name}: {cifar_results(folder)['runs'][one.name]['accuracy'][-1]:.4f}", flush=True)

    for one in published_runs():
        run(one)
    for peer, multiple in best_multiples(cifar_results(folder)["runs"]).items():
        run(CifarRun("colour", peer, 0, multiple))
    for one in remaining_runs():
        run(one)


def stored(folder: Path, split: str) -> Pictures:
    pictures, classes = read_cifar10(folder / f"cifar10_{split}.zip")
    return Pictures(torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(classes))


def grey(colour: Pictures) -> Pictures:
    """Luma by ITU-R BT.601, rounded."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    blocks = [(block.float() * weights[:, None, None]).sum(1, keepdim=True) for block in colour.blocks()]
    return Pictures(torch.cat([block.round().to(torch.uint8) for block in blocks]), colour.classes)


def small_network(channels: int) -> nn.Sequential:
    """Two convolutions, three linear layers, torch's initial weights: 62,006 parameters in colour, 61,706 in grey."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ).to(memory_format=torch.channels_last)  # fmt: skip


def scaled(pictures: Tensor) -> Tensor:
    """0..255 -> -1..1."""
    return pictures.to(torch.float32, memory_format=torch.channels_last).sub_(127.5).div_(127.5)


def train_cifar(run: CifarRun, train: Pictures, test: Pictures) -> Json:
    """Accuracy after each epoch, mean loss of each, and processor seconds of training by then, without the reading."""
    torch.manual_seed(run.seed)
    network = small_network(train.pictures.shape[1])
    parameters = list(network.parameters())
    published = PEERS[run.peer].rate or first_step(sum(p.numel() for p in parameters))
    optimiser = PEERS[run.peer].make(parameters, published * run.multiple)
    record: Json = {"rate": published * run.multiple, "accuracy": [], "loss": [], "seconds": []}
    seconds = 0.0
    for _ in range(EPOCHS):
        started = time.process_time()  # one thread: what others do on the machine counts little
        total = torch.zeros(())
        order = torch.randperm(len(train.classes))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            total += learn(network, optimiser, train.pictures[chosen], train.classes[chosen]) * len(chosen)
        seconds += time.process_time() - started
        record["loss"].append(round(float(total) / len(train.classes), 5))
        record["seconds"].append(round(seconds, 2))
        record["accuracy"].append(share_right(network, test))
    if isinstance(optimiser, GradientDirection):
        record |= {"skipped": optimiser.skipped, "last_step": optimiser.param_groups[0]["lr"]}
    return record


def learn(network: nn.Module, optimiser: torch.optim.Optimizer, pictures: Tensor, classes: Tensor) -> Tensor:
    """One step; the mean loss before it."""
    loss = functional.cross_entropy(network(scaled(pictures)), classes)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


@torch.inference_mode()
def share_right(network: nn.Module, test: Pictures) -> float:
    read = torch.cat([network(scaled(block)).argmax(1) for block in test.blocks()])
    return int((read == test.classes).sum()) / len(test.classes)


def cifar_results(folder: Path) -> Json:
    """All finished runs by name."""
    runs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {"runs": runs}


def best_multiples(runs: dict[str, Json]) -> dict[str, float]:
    """peer -> the multiple of its published rate that ended best on the held-out pictures, where all were tried."""
    best = {}
    for peer, about in PEERS.items():
        tried = {m: runs.get(CifarRun("colour", peer, 0, m, True).name) for m in about.multiples}
        ends = {m: float(run["accuracy"][-1]) for m, run in tried.items() if run}
        if len(ends) == len(tried):
            best[peer] = max(ends, key=lambda m: ends[m])
    return best


# The text task.

FEATURES, HIDDEN = 128, 128
SIZES = ["--backbone", "resnet18", "--width", "0.25", "--features", str(FEATURES), "--hidden", str(HIDDEN)]
RATES: dict[str, tuple[float, ...]] = {
    "adamw": (2e-3, 5e-4, 1e-3, 4e-3), "gradient-direction": (1, 0.25, 0.5, 2, 4), "sgd": (0.05, 0.02, 0.1),
}  # fmt: skip
"""Learning rates; of gradient-direction multiples of the computed first step. The first is the default."""
TEXT_MARKS, TEXT_END = (0.5, 0.7), 0.8
"""Shares of validation lines whose steps are told, and that a run ends above. AdamW at its default ends just below."""


@dataclass(frozen=True)
class TextRun:
    """One training of the small recogniser."""

    optimiser: str
    rate: float
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.optimiser}-{self.rate:g}-seed{self.seed}"


def text(options: OptimisersOptions) -> None:
    """Every optimiser at its rates; then the headline rows with two more seeds."""
    folder = options.out / "text"
    folder.mkdir(exist_ok=True)

    def run(one: TextRun) -> None:
        train_text(options, folder / f"{one.name}.pt", one)
        keep("text", text_results(options, folder))

    for optimiser in ("adamw", "gradient-direction"):
        for rate in RATES[optimiser]:
            run(TextRun(optimiser, rate))
    rows = text_results(options, folder)["runs"]
    for seed in (1, 2):
        for optimiser in ("adamw", "gradient-direction"):
            for rate in dict.fromkeys((best_rate(rows, optimiser), RATES[optimiser][0])):
                run(TextRun(optimiser, rate, seed))
    for rate in RATES["sgd"]:
        run(TextRun("sgd", rate))


def train_text(options: OptimisersOptions, out: Path, run: TextRun) -> None:
    """Short, easy synthetic lines with the column loss, as the demo's recognisers start, until TEXT_END."""
    rate = run.rate * first_text_step() if run.optimiser == "gradient-direction" else run.rate
    given = [] if run.optimiser == "gradient-direction" and run.rate == 1 else ["--learning-rate", str(rate)]
    warm_up = [] if run.optimiser == "gradient-direction" else ["--warm-up", "50"]
    whole = not out.with_suffix(".resume.pt").exists() and not out.exists()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_stage(
        out, "crnn",
        ["train", "--data", "synth-easy", "--synth.longest", "12", "--out", str(out), *SIZES, "--column-weight", "1",
         "--column-steps", "100000", "--batch-lines", "16", "--validate-every", "50", "--validation-lines", "300",
         "--until", str(options.text_steps), f"accuracy>{TEXT_END}", "--optimiser", run.optimiser, *given,
         *warm_up, "--seed", str(run.seed), "--threads", str(options.threads), "--workers", "0"],
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if whole:
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        kept = json.dumps({"processor_seconds": round(seconds, 1)}).encode()
        write_atomically(out.with_suffix(".seconds.json"), lambda file: file.write(kept))


def first_text_step() -> float:
    """a0 of the network and of what its objective trains."""
    classes = Charset.from_spec("ascii").classes
    sizes = CrnnSizes("resnet18", 0.25, FEATURES, HIDDEN, 2, True, 0, classes)
    trained = (Crnn(sizes), Recognition(FEATURES, classes, 1.0))
    return first_step(sum(p.numel() for module in trained for p in module.parameters()))


def text_results(options: OptimisersOptions, folder: Path) -> Json:
    """The finished runs, each with its accuracy by step."""
    rows = []
    every = [TextRun(o, rate, seed) for o, rates in RATES.items() for seed in range(3) for rate in rates]
    for run in every:
        out = folder / f"{run.name}.pt"
        if out.exists() and finished(out):
            seconds = out.with_suffix(".seconds.json")
            told = json.loads(seconds.read_text()) if seconds.exists() else {}
            rows.append(asdict(run) | figures(out.with_suffix(".log.csv")) | told)
    return {"steps": options.text_steps, "marks": list(TEXT_MARKS), "first_step": first_text_step(), "runs": rows}


def best_rate(rows: Sequence[Json], optimiser: str) -> float:
    """Fewest steps to the last mark, or the best end where none came there, with the first seed."""

    def merit(row: Json) -> tuple[float, float]:
        return steps_to(row["accuracy"], TEXT_MARKS[-1]) or math.inf, -max(row["accuracy"].values())

    tried = [row for row in rows if row["optimiser"] == optimiser and row["seed"] == 0]
    return float(min(tried, key=merit)["rate"])


def steps_to(accuracy: dict[str, float], mark: float) -> int | None:
    """The first validation above the mark."""
    return next((int(step) for step, value in accuracy.items() if value > mark), None)


# Time of an update.


def speed(options: OptimisersOptions) -> None:
    """Processor time of an update of a full-width ResNet-18 recogniser, and of a training step of the small network.

    One thread; all take turns, so that what else the machine does meets them alike.
    """
    network = Crnn(CrnnSizes("resnet18", 1.0, 512, 256, 2, True, 0, Charset.from_spec("ascii").classes))
    parameters = list(network.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    sgd = torch.optim.SGD(parameters, 1e-6, foreach=True)

    def clipped_sgd() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 5.0, foreach=True)
        sgd.step()

    calls: dict[str, Callable[[], object]] = {
        "SGD": sgd.step,
        "SGD with clipping by the norm": clipped_sgd,
        "SGD, momentum 0.9": torch.optim.SGD(parameters, 1e-6, 0.9, foreach=True).step,
        "AdamW": torch.optim.AdamW(parameters, 1e-6).step,
        "gradient direction": GradientDirection(parameters, 1e-6).step,
        "gradient direction, momentum 0.9": GradientDirection(parameters, 1e-6, momentum=0.9).step,
        "gradient direction, one tensor after another": GradientDirection(parameters, 1e-6, foreach=False).step,
    }
    updates = in_turn(calls, rounds=40)
    pictures, classes = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (BATCH,))
    steps: dict[str, Callable[[], object]] = {}
    for name, about in PEERS.items():
        small = small_network(3)
        optimiser = about.make(list(small.parameters()), about.rate or first_step(62_006))
        steps[name] = partial(learn, small, optimiser, pictures, classes)
    content = {"parameters": sum(p.numel() for p in parameters), "tensors": len(parameters)}
    keep("speed", content | {"update": updates, "cifar_step": in_turn(steps, rounds=200)})


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, Json]:
    """name -> median milliseconds of processor time, and the quartiles; every round calls each once."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 3):
        for name, call in calls.items():
            started = time.process_time()
            call()
            if turn >= 3:
                taken[name].append(1000 * (time.process_time() - started))
    return {
        name: dict(zip(("low", "median", "high"), (round(q, 3) for q in quantiles(values, n=4)), strict=True))
        for name, values in taken.items()
    }


if __name__ == "__main__":
    main()
