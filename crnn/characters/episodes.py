"""The story of training a few-shot model: crops, classes apart, episodes, fit, model file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from crnn.characters.crops import altered, bent, crop_spec, labelled, squared
from crnn.characters.few_shot import FewShotInfo, FewShotModel, FewShotOutputs, save_few_shot
from crnn.characters.regions import MatchingOptions, RegionMatcher
from crnn.commands import same_run, write_run
from crnn.fit import fit
from crnn.model import parameter_count
from crnn.objectives.recognition import DeviceBatch, Terms
from crnn.progress import with_progress
from crnn.score import Score, score
from crnn.train import (
    Sources,
    main_process,
    provenance,
    refuse_overwriting,
    resume_path,
    start_torch,
    validation_share,
)
from data.batches import UNKNOWN, Batch
from data.class_folders import open_labelled
from data.lines import StoredLines, Subset, is_held_out, split_source
from data.picture import InputSpec

if TYPE_CHECKING:
    from crnn.characters.episodes_cli import EpisodeOptions

WINDOW_EPISODES = 16
TURNS = 8
"""Four quarters, as they are and mirrored."""
COMPOSITIONS = 3
"""Beside each other, one above the other, one over the other."""
ENLARGED = 2
"""Times the side of the squares that augmentation works on."""
ONE_FAMILY = 0.5
"""Share of episodes whose classes are of one family, where there are several."""
VALIDATION_EPISODES, VALIDATION_WAYS = 60, 20


@dataclass(frozen=True)
class ClassCrops:
    """Crops in memory, by class.

    squares: uint8 (M, side, side, channels). members: indices of each class's. names: of the classes.
    families: class numbers of each family, one for all where labels have none. keys: of the crops.
    """

    squares: NDArray[np.uint8]
    members: tuple[NDArray[np.int64], ...]
    names: tuple[str, ...]
    families: tuple[NDArray[np.int64], ...]
    keys: tuple[str, ...]

    @classmethod
    def of(cls, squares: NDArray[np.uint8], labels: Sequence[str], keys: Sequence[str]) -> ClassCrops:
        """Classes in code point order."""
        names = tuple(sorted(set(labels)))
        numbers = np.array([names.index(label) for label in labels], np.int64)
        members = tuple(np.flatnonzero(numbers == number) for number in range(len(names)))
        kinds = [family(name) for name in names]
        families = tuple(
            np.array([n for n, kind in enumerate(kinds) if kind == each], np.int64) for each in sorted(set(kinds))
        )
        return cls(squares, members, names, families, tuple(keys))


@dataclass(frozen=True)
class EpisodeWindows:
    """Window number -> its episodes, as batches for crnn.fit: the same in every process and after a resumption.

    A batch's crops lie class by class, the support pictures of a class before its queries; its targets are numbers
    among TURNS times the classes, UNKNOWN for classes that are composed.
    """

    crops: ClassCrops
    spec: InputSpec
    ways: int
    shots: int
    queries: int
    turned: bool
    composed: float
    seed: int

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, number: int) -> list[Batch]:
        generator = np.random.default_rng([self.seed, 7919, number])
        return [self._episode(generator) for _ in range(WINDOW_EPISODES)]

    def _episode(self, generator: np.random.Generator) -> Batch:
        pictures, targets, items = [], [], []
        for number, turn in self._classes(generator):
            drawn = self._crops(number, generator)
            squares = [turned(self.crops.squares[i], turn) for i in drawn]
            if generator.random() < self.composed:
                other = self._crops(int(generator.integers(len(self.crops.members))), generator)
                how = int(generator.integers(COMPOSITIONS))
                squares = [composed(a, self.crops.squares[i], how) for a, i in zip(squares, other, strict=True)]
                number, turn = UNKNOWN, 0
            pictures += [self._shrunk(bent(altered(square, generator), generator)) for square in squares]
            targets += [number if number == UNKNOWN else number * TURNS + turn] * len(drawn)
            items += [(0, int(i)) for i in drawn]
        count = len(pictures)
        return Batch(
            pictures=np.stack(pictures),
            targets=np.array(targets, np.int64)[:, None],
            target_lengths=np.ones(count, np.int64),
            column_classes=np.full((count, 1), UNKNOWN, np.int64),
            items=np.array(items, np.int64),
            texts=(None,) * count,
            keys=tuple(self.crops.keys[i] for _, i in items),
        )

    def _classes(self, generator: np.random.Generator) -> list[tuple[int, int]]:
        """(class, turn) of an episode's classes; turned classes of one family are turned alike."""
        everything = np.arange(len(self.crops.members))
        turns = TURNS if self.turned else 1
        if len(self.crops.families) > 1 and generator.random() < ONE_FAMILY:
            own = self.crops.families[generator.integers(len(self.crops.families))]
            if len(own) >= 2:
                turn = int(generator.integers(turns))
                return [(int(n), turn) for n in generator.permutation(own)[: self.ways]]
        drawn = generator.choice(len(everything) * turns, min(self.ways, len(everything) * turns), replace=False)
        return [(int(n) // turns, int(n) % turns) for n in drawn]

    def _crops(self, number: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Crops of a class, distinct where there are enough of them."""
        members, wanted = self.crops.members[number], self.shots + self.queries
        rounds = -(-wanted // len(members))
        return np.concatenate([generator.permutation(members) for _ in range(rounds)])[:wanted]

    def _shrunk(self, square: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self.spec.height
        return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)  # type: ignore[return-value]


class EpisodeObjective(nn.Module):
    """Cross-entropy of the queries over an episode's classes, plus that over all training classes.

    classes: of the latter, TURNS times the training classes. Terms: "episode", "classification" and "episode_error".
    With no queries each support picture is classified by the others of its class.
    """

    def __init__(
        self, matcher: RegionMatcher, shots: int, queries: int, channels: int, classes: int, weight: float
    ) -> None:
        super().__init__()
        self.matcher, self.shots, self.queries, self.weight = matcher, shots, queries, weight
        self.prototypes = nn.Parameter(torch.randn(classes, channels))
        self.sharpness = nn.Parameter(torch.tensor(20.0).log())

    def forward(self, outputs: FewShotOutputs, batch: DeviceBatch, step: int) -> Terms:
        with torch.autocast(outputs.maps.device.type, enabled=False):
            found, labels = self.compared(outputs.maps.float())
            episode = functional.nll_loss(found, labels)
            terms: Terms = {"loss": episode, "episode": episode}
            terms["episode_error"] = (found.detach().argmax(1) != labels).float().mean()
            if self.weight:
                directions = functional.normalize(outputs.maps.float().mean((2, 3)))
                scores = self.sharpness.exp() * directions @ functional.normalize(self.prototypes).T
                summed = functional.cross_entropy(scores, batch.classes[:, 0], ignore_index=UNKNOWN, reduction="sum")
                terms["classification"] = summed / len(scores)
                terms["loss"] = episode + self.weight * terms["classification"]
        return terms

    def compared(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (M, D, rows, columns) of an episode -> log-probabilities (Q, N) and classes (Q,) of its queries."""
        each = self.shots + self.queries
        by_class = maps.reshape(-1, each, *maps.shape[1:])  # (N, K + Q, D, rows, columns)
        classes = torch.arange(len(by_class), device=maps.device)
        if self.queries:
            return self._told(by_class[:, : self.shots], by_class[:, self.shots :], classes)
        parts = []
        for left_out in range(self.shots):
            others = [i for i in range(self.shots) if i != left_out]
            parts.append(self._told(by_class[:, others], by_class[:, left_out : left_out + 1], classes))
        return torch.cat([found for found, _ in parts]), torch.cat([labels for _, labels in parts])

    def _told(self, support: Tensor, queries: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        described = self.matcher.support(
            support.flatten(0, 1), classes.repeat_interleave(support.shape[1]), len(classes)
        )
        found = self.matcher.log_probs(self.matcher(described, queries.flatten(0, 1)).similarity)
        return found, classes.repeat_interleave(queries.shape[1])


def train(options: EpisodeOptions, command: str) -> Path:
    """Trains a few-shot model and writes it to options.out; see EpisodeOptions."""
    refuse_overwriting(options.out, options.resume, options.overwrite)
    start_torch(options.fit)
    spec = crop_spec(options.side, options.channels)
    training, held, dropped = open_classes(options)
    sources = Sources(training, (1.0,) * len(training), [], dropped)
    made = provenance(command, options.data, options.fit.seed, sources, {}, None)
    matching = MatchingOptions(options.representation, options.attention, options.weighted)
    model = FewShotModel(FewShotInfo(spec, options.width, matching, made))
    crops = class_crops(training, crop_spec(ENLARGED * options.side, options.channels))
    if len(crops.members) < 2:
        raise ValueError(
            f"{' '.join(options.data)} leaves one class to train on, {crops.names[0]!r}; give crops of two classes or "
            "more, or a lower --validation"
        )
    validation = class_crops(held, spec) if held else None
    windows = EpisodeWindows(
        crops, spec, options.ways, options.shots, options.queries, options.turned, options.composed, options.fit.seed
    )
    objective = EpisodeObjective(
        model.matcher, options.shots, options.queries, model.map_channels, TURNS * len(crops.members),
        options.classification,
    )  # fmt: skip
    if main_process():
        kept = f"{len(validation.members)} classes held out" if validation else "none held out"
        print(
            f"{len(crops.members)} classes in {len(crops.families)} families, {len(crops.squares):,} crops; {kept}",
            file=sys.stderr,
        )
    progress = fit(
        model, windows, objective, options.fit, saver(options.out),
        validator(validation, options.shots) if validation else None, resume_path(options.out),
        options.out.with_suffix(".log.csv"), same_run(options, training), options.resume,
        partial(write_run, options.out, command, options),
    )  # fmt: skip
    if not main_process():
        return options.out
    result = {"steps": progress.step, "crops": progress.lines, "seconds": round(progress.seconds, 1)}
    report = f"{options.out}: {progress.step:,} episodes, {progress.seconds / 60:.1f} minutes"
    if validation:
        result["accuracy"] = progress.best
        ways = min(VALIDATION_WAYS, len(validation.members))
        report += f"; {progress.best:.1%} right on held-out classes, at most {ways} classes, {options.shots} shots"
    write_run(options.out, command, options, result)
    resume_path(options.out).unlink(missing_ok=True)
    print(report)
    return options.out


def open_classes(
    options: EpisodeOptions,
) -> tuple[tuple[StoredLines, ...], tuple[StoredLines, ...], dict[str, dict[str, int]]]:
    """Training sources, held-out sources, and what was dropped; no picture is opened."""
    training, held, dropped = list[StoredLines](), list[StoredLines](), dict[str, dict[str, int]]()
    share = validation_share(options.validation)
    for text in options.data:
        name, weight = split_source(text)
        if weight != 1.0:
            raise ValueError(f"{text!r} gives a weight, and in episodes every class counts the same; leave it out")
        source = open_labelled(name)
        indices, bare = labelled(source, options.drop_bad)
        if bare:
            dropped[name] = {"no label": bare}
        texts = source.texts()
        apart = {i for i in indices if share and is_held_out(f"class/{family(texts[i] or '')}", share)}
        training.append(Subset(source, tuple(i for i in indices if i not in apart)))
        if apart:
            held.append(Subset(source, tuple(sorted(apart))))
    if share is None:
        source = open_labelled(options.validation)
        held.append(Subset(source, tuple(labelled(source, options.drop_bad)[0])))
    return tuple(training), tuple(held), dropped


def family(label: str) -> str:
    """What stands before a label's last slash; the label itself where there is none, so that each is its own."""
    return label.rpartition("/")[0] or label


def class_crops(sources: Sequence[StoredLines], spec: InputSpec) -> ClassCrops:
    """All crops of some sources as squares in memory."""
    squares, labels, keys = list[NDArray[np.uint8]](), list[str](), list[str]()
    for source in sources:
        for i in with_progress(range(len(source)), "loading crops", len(source)):
            line = source[i]
            squares.append(squared(line.picture, spec))
            labels.append(line.text or "")
            keys.append(line.key)
    if not squares:
        raise ValueError("every class is held out for validation; give more classes or a lower --validation")
    return ClassCrops.of(np.stack(squares), labels, keys)


def turned(square: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Turned by turn % 4 quarters, and mirrored from 4 on."""
    made = np.rot90(square, turn % 4)
    return np.ascontiguousarray(made[:, ::-1] if turn >= 4 else made)


def composed(first: NDArray[np.uint8], second: NDArray[np.uint8], how: int) -> NDArray[np.uint8]:
    """Two squares in one: beside each other, one above the other, or over each other, ink before ground."""
    if how == 2:
        border = np.concatenate([first[0], first[-1], first[:, 0], first[:, -1]])
        ground = np.median(border, axis=0)  # (channels,)
        inked = np.abs(first - ground).sum(2) >= np.abs(second - ground).sum(2)
        return np.where(inked[..., None], first, second)
    both = np.concatenate([first, second], how)
    side = first.shape[0]
    return cv2.resize(both, (side, side), interpolation=cv2.INTER_AREA).reshape(first.shape)  # type: ignore[return-value]


def validator(crops: ClassCrops, shots: int) -> Callable[[FewShotModel], Score]:
    """A function that scores the model on fixed episodes of held-out classes, each within a family where possible."""
    generator = np.random.default_rng(7907)
    episodes = []
    for number in range(VALIDATION_EPISODES):
        own = crops.families[number % len(crops.families)]
        if len(own) < 2:
            own = np.arange(len(crops.members))
        chosen = generator.permutation(own)[:VALIDATION_WAYS]
        drawn = [generator.permutation(crops.members[n]) for n in chosen]
        drawn = [own for own in drawn if len(own) >= 2]  # one crop cannot be both support and query
        if len(drawn) >= 2:
            episodes.append(([own[:-1][:shots] for own in drawn], [own[-1] for own in drawn]))
    if not episodes:
        few = f"one class alone is held out, {crops.names[0]!r}" if len(crops.members) < 2 else "no two have two crops"
        raise ValueError(
            f"held-out classes are told apart from each other, and {few}; raise --validation, name a source with it, "
            "or give 0 for none"
        )

    def validate(model: FewShotModel) -> Score:
        found, labels = list[int](), list[int]()
        for support, queries in episodes:
            maps = model.maps(crops.squares[i] for i in np.concatenate([*support, queries]))
            numbers = np.repeat(np.arange(len(support)), [len(own) for own in support])
            described = model.support(maps[: len(numbers)], numbers, len(support))
            found += model.probabilities(described, maps[len(numbers) :]).argmax(1).tolist()
            labels += range(len(queries))
        return score(list(map(str, found)), list(map(str, labels)))

    return validate


def saver(out: Path) -> Callable[..., None]:
    """A function that writes the model file, or out.last.pt."""

    def save(model: FewShotModel, reported: dict[str, Any], last: bool = False) -> None:
        counts = {"parameters": parameter_count(model)}
        save_few_shot(out.with_suffix(".last.pt") if last else out, model, counts | reported)

    return save
