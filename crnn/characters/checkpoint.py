"""The file of a character model: weights, classes, training counts, class centres, input spec, and how it was made.

The same kind of file as a recogniser's (crnn/checkpoint.py): tensors and one JSON string, read with the restricted
loader, written whole or not at all. Torch is imported only where tensors are touched.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crnn.checkpoint import CHARACTER_FORMAT, CHARACTERS, FEW_SHOT_FORMAT, FORMAT, load_tensors, save_tensors
from data.picture import InputSpec

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
LEARNT_VERSION = 2
"""Of files with learnt classes, which a reader of version 1 would name without their bias."""


@dataclass(frozen=True)
class CharacterSizes:
    """What rebuilds the network.

    backbone: a key of crnn.characters.model.CHARACTER_BACKBONES. width: multiplier of its channels.
    embedding: E, what describes a crop. channels: of the input.
    """

    backbone: str
    width: float
    embedding: int
    channels: int


@dataclass(frozen=True)
class LearntClass:
    """Where a class that was learnt later came from (crnn characters learn).

    crops: support crops that its centre is made of. support: where they lie. may_lose: share of old crops, read right
    before, that may be lost to learnt classes. bias_set_on: "memory", or the source of --old. date: of the learning.
    """

    crops: int
    support: str
    may_lose: float
    bias_set_on: str
    date: str


@dataclass(frozen=True)
class CharacterInfo:
    """Everything about a character model but its tensors.

    classes: labels, one character each or any text, by class number: first those that the losses were trained with, in
        the order of code points, then those learnt later, which only have a centre.
    counts: training crops of the former, so the losses know len(counts) classes.
    learnt: one for each of the latter, in their order.
    bias: by how much a crop's score for a learnt class must exceed that for the best trained one before it is read so
        (crnn/characters/reading.py); 0 where nothing was learnt.
    losses: name -> weight, as in CHARACTER_LOSSES; the first is the classifier.
    loss_options: name -> what the loss was made with beside sizes and counts; see model.build_losses.
    provenance: how it was made.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    input_spec: InputSpec
    sizes: CharacterSizes
    losses: dict[str, float]
    loss_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    learnt: tuple[LearntClass, ...] = ()
    bias: float = 0.0

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1}) if self._repeats() else []
        if twice:
            raise ValueError(f"the class {twice[0]!r} is there twice; a label names one class")
        if not 2 <= len(self.counts) <= len(self.classes):
            raise ValueError(f"{len(self.counts)} class counts do not fit {len(self.classes)} classes; give 2 or more")
        if len(self.learnt) != len(self.classes) - len(self.counts):
            raise ValueError(
                f"{len(self.classes) - len(self.counts)} classes have no training count, and {len(self.learnt)} are "
                "told to be learnt later; learn them with crnn characters learn"
            )

    def _repeats(self) -> bool:
        return len(set(self.classes)) < len(self.classes)

    def numbers(self) -> dict[str, int]:
        """Label -> class number."""
        return {name: number for number, name in enumerate(self.classes)}

    def to_json(self) -> str:
        fields = asdict(self) | {"format": CHARACTER_FORMAT, "version": LEARNT_VERSION if self.learnt else VERSION}
        if not self.learnt:
            del fields["learnt"], fields["bias"]
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, origin: str) -> CharacterInfo:
        """ValueError naming origin where the text is not what to_json writes."""
        try:
            fields = json.loads(text)
            if fields["format"] == FORMAT:
                raise ValueError(f"{origin} reads lines of text and is no character model; use crnn read")
            if fields["format"] == FEW_SHOT_FORMAT:
                raise ValueError(
                    f"{origin} is a few-shot model and has no classes of its own; name crops by examples with crnn "
                    "characters classify --support"
                )
            if fields["format"] != CHARACTER_FORMAT:
                raise KeyError("format")
            if fields["version"] > LEARNT_VERSION:
                raise ValueError(f"{origin} is of format version {fields['version']}; upgrade pocket-crnn to read it")
            return cls(
                classes=tuple(fields["classes"]),
                counts=tuple(fields["counts"]),
                input_spec=InputSpec.from_json(fields["input_spec"]),
                sizes=CharacterSizes(**fields["sizes"]),
                losses=fields["losses"],
                loss_options=fields["loss_options"],
                provenance=fields["provenance"],
                learnt=tuple(LearntClass(**entry) for entry in fields.get("learnt", ())),
                bias=float(fields.get("bias", 0.0)),
            )
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{origin} does not describe a character model ({error!r}); make it anew") from error


@dataclass(frozen=True)
class Memory:
    """Crops of trained classes, by their embeddings: what a class that is learnt later must not take.

    embeddings: float16 (M, E). numbers: int64 (M,), the class of each.
    """

    embeddings: Tensor
    numbers: Tensor

    def content(self) -> dict[str, Tensor]:
        return {"embeddings": self.embeddings.cpu().contiguous(), "numbers": self.numbers.cpu().contiguous()}


@dataclass(frozen=True)
class CharacterCheckpoint:
    """A character model in memory.

    weights: of the network and its losses, by name.
    centres: float32 (classes, E), of length 1, the mean direction of each class's training crops; None while a run
        lasts, since they are computed at its end.
    memory: of the trained classes, which training writes at its end; None in files of before there was one.
    old: what the bias of the learnt classes was set on, where that is not the memory.
    """

    info: CharacterInfo
    weights: dict[str, Tensor]
    centres: Tensor | None = None
    memory: Memory | None = None
    old: Memory | None = None

    def with_provenance(self, **entries: Any) -> CharacterCheckpoint:
        return replace(self, info=replace(self.info, provenance=self.info.provenance | entries))


def save_characters(path: Path, checkpoint: CharacterCheckpoint) -> None:
    """Writes the model file; OSError where the disk is full, with the earlier file left as it was."""
    content: dict[str, Any] = {
        "info": checkpoint.info.to_json(),
        "weights": {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()},
    }
    if checkpoint.centres is not None:
        content["centres"] = checkpoint.centres.detach().cpu().float().contiguous()
    for name, memory in (("memory", checkpoint.memory), ("old", checkpoint.old)):
        if memory is not None:
            content[name] = memory.content()
    save_tensors(path, content)


def load_characters(path: Path) -> CharacterCheckpoint:
    """Reads a model file. FileNotFoundError or ValueError in one sentence; nothing in the file is executed."""
    return from_content(load_tensors(path, CHARACTERS), path)


def from_content(content: dict[str, Any], path: Path) -> CharacterCheckpoint:
    """What load_tensors read of path, as a character model; ValueError where it is none."""
    from torch import Tensor

    info, weights, centres = content.get("info"), content.get("weights"), content.get("centres")
    if not isinstance(info, str) or not isinstance(weights, dict):
        raise ValueError(f"{path} holds no character model; give a file of crnn characters train")
    known = CharacterInfo.from_json(info, str(path))
    if centres is not None:
        expected = len(known.classes), known.sizes.embedding
        if not isinstance(centres, Tensor) or tuple(centres.shape) != expected:
            raise ValueError(f"the centres of {path} are not {expected[0]} x {expected[1]}; take another copy")
    memory, old = (_memory(content.get(name), known, path) for name in ("memory", "old"))
    return CharacterCheckpoint(known, weights, centres, memory, old)


def _memory(content: dict[str, Any] | None, info: CharacterInfo, path: Path) -> Memory | None:
    from torch import Tensor

    if content is None:
        return None
    embeddings, numbers = (content.get(name) for name in ("embeddings", "numbers"))
    if not isinstance(embeddings, Tensor) or not isinstance(numbers, Tensor):
        raise ValueError(f"the memory of {path} is no embeddings and class numbers; take another copy")
    fitting = embeddings.ndim == 2 and tuple(embeddings.shape) == (len(numbers), info.sizes.embedding)
    if not fitting or (len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(info.counts)):
        raise ValueError(f"the memory of {path} does not fit its classes and sizes; take another copy")
    return Memory(embeddings, numbers)


def description(checkpoint: CharacterCheckpoint, path: Path) -> dict[str, Any]:
    """The file's own account, as JSON values, for `crnn info`."""
    info = checkpoint.info
    single = all(len(name) == 1 for name in info.classes)
    return {
        "path": str(path),
        "target": "character model",
        "bytes": path.stat().st_size,
        "parameters": sum(tensor.numel() for tensor in checkpoint.weights.values() if tensor.is_floating_point()),
        "classes": "".join(info.classes) if single else list(info.classes),
        "counts": list(info.counts),
        "learnt_later": {
            name: asdict(entry) for name, entry in zip(info.classes[len(info.counts) :], info.learnt, strict=True)
        },
        "bias": info.bias if info.learnt else None,
        "memory": None if checkpoint.memory is None else len(checkpoint.memory.numbers),
        "centres": checkpoint.centres is not None,
        "sizes": asdict(info.sizes),
        "input_spec": info.input_spec.to_json(),
        "losses": info.losses,
        "loss_options": info.loss_options,
        "provenance": info.provenance,
    }
