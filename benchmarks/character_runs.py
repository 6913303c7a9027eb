"""Trainings on single characters for benchmarks: crops in memory, one small network, one JSON file a finished run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crnn.characters.checkpoint import CharacterSizes
from crnn.characters.crops import altered, crop_spec, squared
from crnn.characters.model import CharacterModel, embedded
from crnn.checkpoint import write_atomically
from crnn.objectives.classification import ClassLoss
from data.folder_lines import FolderLines
from data.picture import scale

Json = dict[str, Any]
DATA = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
WARM_UP = 0.05
"""Share of the steps over which the learning rate rises; then it falls to zero along half a cosine."""


@dataclass(frozen=True)
class CropSet:
    """Crops in memory, in the order of their file.

    pictures: uint8 (N, side, side, channels). numbers: int64 (N,), index in classes. classes: in code point order.
    """

    pictures: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def labels(self) -> list[str]:
        return [self.classes[number] for number in self.numbers]

    def chosen(self, indices: NDArray[np.int64]) -> CropSet:
        """Some of the crops, with the same classes."""
        return replace(self, pictures=self.pictures[indices], numbers=self.numbers[indices])

    def of_classes(self, names: Sequence[str]) -> CropSet:
        """The crops of some classes, numbered anew."""
        kept = np.flatnonzero(np.isin(self.numbers, [self.classes.index(name) for name in names]))
        classes = tuple(sorted(names))
        numbers = np.array([classes.index(self.classes[n]) for n in self.numbers[kept]], np.int64)
        return CropSet(self.pictures[kept], numbers, classes)


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    backbone, width, embedding: see crnn.characters.model. side: of a crop. learning_rate: of AdamW, after warm-up.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.05
    backbone: str = "plain"
    width: float = 0.25
    embedding: int = 64
    side: int = 48
    channels: int = 1


def load_crops(path: Path, side: int, channels: int = 1) -> CropSet:
    """Every crop of a zip or folder with labels.tsv, in its order."""
    source, spec = FolderLines(path), crop_spec(side, channels)
    labels = [text or "" for text in source.texts()]
    classes = tuple(sorted(set(labels)))
    pictures = np.stack([squared(source[i].picture, spec) for i in range(len(source))])
    return CropSet(pictures, np.array([classes.index(label) for label in labels], np.int64), classes)


def shuffled_batches(count: int, size: int, seed: int) -> Callable[[int], Iterator[NDArray[np.int64]]]:
    """Epoch -> batches of indices 0..count-1, each once; the last may be smaller, but holds 2 at least."""

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        order = np.random.default_rng([seed, epoch]).permutation(count)
        yield from np.array_split(order, max(1, round(count / size)))

    return batches


def train_characters(
    loss: Callable[[], ClassLoss],
    crops: CropSet,
    training: Training,
    seed: int,
    batches: Callable[[int], Iterator[NDArray[np.int64]]],
    after: Callable[[int, CharacterModel], None] | None = None,
) -> CharacterModel:
    """A network trained on crops for training.epochs; the seed is that of weights and augmentation.

    loss: makes the loss, after the seed is set. batches: epoch -> indices of each batch. after: is told epochs done.
    """
    torch.manual_seed(seed)
    sizes = CharacterSizes(training.backbone, training.width, training.embedding, training.channels)
    model = CharacterModel(sizes, nn.ModuleDict({"loss": loss()})).to(memory_format=torch.channels_last)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}],
        training.learning_rate,
    )
    steps = training.epochs * sum(1 for _ in batches(0))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, steps, pct_start=WARM_UP, cycle_momentum=False
    )
    spec, generator = crop_spec(training.side, training.channels), np.random.default_rng([seed, 7919])
    for epoch in range(training.epochs):
        model.train()
        for chosen in batches(epoch):
            pictures = np.stack([altered(crops.pictures[i], generator) for i in chosen])
            made = torch.from_numpy(scale(pictures, spec)).contiguous(memory_format=torch.channels_last)
            terms = model.classifier(model(made).embeddings, torch.from_numpy(crops.numbers[chosen]))
            optimiser.zero_grad()
            terms["loss"].backward()
            optimiser.step()
            schedule.step()
        if after is not None:
            after(epoch + 1, model)
    return model.eval()


def embeddings(model: CharacterModel, crops: CropSet, training: Training) -> NDArray[np.float32]:
    """(N, E) of crops as they are."""
    return embedded(model, iter(crops.pictures), crop_spec(training.side, training.channels))


def kept(path: Path, settings: Json, run: Callable[[], Json]) -> Json:
    """The result of a run that was made with these settings, from its file or made now; whole in its file or not."""
    settings = json.loads(json.dumps(settings))
    if path.exists():
        stored: Json = json.loads(path.read_text(encoding="utf-8"))
        if stored["settings"] == settings:
            return stored
    started, cpu = time.perf_counter(), time.process_time()
    made: Json = {"settings": settings} | run()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    made |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    print(f"-- {path.name}: {seconds:.0f} s", flush=True)
    return made


def with_rates(rates: Sequence[float], *options: Json) -> list[Json]:
    """Each setting of a loss at each learning rate: what an arm's tuning tries."""
    return [{"learning_rate": rate} | chosen for rate in rates for chosen in options]


def spread(values: Sequence[float], sign: Literal["", "+"] = "") -> str:
    """Mean and, where there are several values, in brackets from least to greatest."""
    if not values:
        return "not run"
    shown = f"{mean(values):{sign}.1f}"
    return shown + (f" ({min(values):{sign}.1f} to {max(values):{sign}.1f})" if len(values) > 1 else "")
