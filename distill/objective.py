"""The distance between teacher and student, plus w times CTC: method 1's loss, each term named."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.charset import BLANK
from crnn.commands import weighted_names
from crnn.model import Crnn, Outputs
from crnn.objectives.recognition import DeviceBatch, Terms, ctc_loss

FeatureDistance = Literal["l1", "l2", "cosine", "kl"]
ClassDistance = Literal["kl-classes", "kl-characters"]
Distance = FeatureDistance | ClassDistance
Reduction = Literal["features", "mean"]
Place = Literal["output", "input", "both"]


def distance(
    kind: FeatureDistance, student: Tensor, teacher: Tensor, reduction: Reduction, temperature: float
) -> Tensor:
    """Between two sequences (N, T, H) -> scalar, the mean over lines and columns.

    l2: squared difference; l1: absolute difference; over the features they are summed (reduction "features") or
    averaged ("mean"). cosine: 1 - cosine of the angle. kl: KL(teacher || student) of softmax over the features at a
    temperature, times its square so that the gradient's size does not depend on it (Hinton et al. 2015); it sums
    over the features by nature. Features have no probabilities: the softmax is a choice of ours.
    """
    if kind == "cosine":
        return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()
    if kind == "kl":
        taught = (teacher / temperature).log_softmax(-1)
        learnt = (student / temperature).log_softmax(-1)
        return (taught.exp() * (taught - learnt)).sum(-1).mean() * temperature**2
    apart = (student - teacher).square() if kind == "l2" else (student - teacher).abs()
    return apart.sum(-1).mean() if reduction == "features" else apart.mean()


def class_distance(kind: ClassDistance, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) between log-probabilities (N, T, K) -> scalar, at a temperature, times its square.

    The usual distillation of outputs (Hinton et al. 2015), beside which the published distances are to be measured.
    kl-classes: the mean over all columns. kl-characters: over those where the teacher's best class is no blank; 0 where
    there are none.
    """
    taught = (teacher / temperature).log_softmax(-1)
    learnt = (student / temperature).log_softmax(-1)
    apart = (taught.exp() * (taught - learnt)).sum(-1) * temperature**2  # (N, T)
    if kind == "kl-classes":
        return apart.mean()
    shown = teacher.argmax(-1) != BLANK
    return (apart * shown).sum() / shown.sum().clamp(min=1)


def parse_distances(parts: tuple[str, ...]) -> dict[Distance, float]:
    """("l1", "l2:0.5") -> weights by distance, ("none",) -> no distance; ValueError lists the known ones."""
    if parts == ("none",):
        return {}
    known: tuple[Distance, ...] = (*get_args(FeatureDistance), *get_args(ClassDistance))
    weights = weighted_names("--distance", parts, known, "; none stands alone")
    if not weights:
        raise ValueError(f"--distance names none; give at least one of {', '.join(known)}")
    return weights


class TeacherFeatures:
    """What the teacher makes of lines, kept between epochs in half precision, in memory or in a file without a name.

    Lines are known by (source, index), so their pictures must be the same at every visit.
    folder: where the file's space is taken; it is given back when the process ends, however it ends. None: in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._kept: dict[tuple[int, int], tuple[int, tuple[int, int]] | Tensor] = {}
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open for as long as this object

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, item: tuple[int, int]) -> bool:
        return item in self._kept

    def put(self, item: tuple[int, int], value: Tensor) -> None:
        """value: (T, features)."""
        half = value.detach().half().cpu()
        if not bool(torch.isfinite(half).all()):
            raise ValueError(
                "the teacher's features are too large for --keep-features, which keeps half precision; leave it out"
            )
        if self._file is None:
            self._kept[item] = half
            return
        start = self._file.seek(0, 2)
        self._file.write(half.numpy().tobytes())
        self._kept[item] = start, (half.shape[0], half.shape[1])

    def get(self, item: tuple[int, int]) -> Tensor:
        """(T, features) in float32."""
        kept = self._kept[item]
        if isinstance(kept, Tensor):
            return kept.float()
        start, shape = kept
        assert self._file is not None
        self._file.seek(start)
        values = np.frombuffer(self._file.read(2 * shape[0] * shape[1]), np.float16)
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)


class Distillation(nn.Module):
    """d(teacher, student) + ctc_weight * CTC(student, label).

    distances: weight of each distance; those of classes are taken behind the classifier.
    place: where the others are taken: after the encoder ("output", as published), before it ("input") or both.
    features: keeps what the teacher says of a line; None asks it every time.
    The teacher is frozen and stays in eval mode, so its statistics do not move either.
    """

    def __init__(
        self,
        teacher: Crnn,
        distances: dict[Distance, float],
        place: Place = "output",
        ctc_weight: float = 0.1,
        reduction: Reduction = "features",
        temperature: float = 1.0,
        features: TeacherFeatures | None = None,
    ) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self.distances = distances
        self.place = place
        self.ctc_weight = ctc_weight
        self.reduction: Reduction = reduction
        self.temperature = temperature
        self.features = features

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, outputs: Outputs, batch: DeviceBatch, step: int) -> Terms:
        terms: Terms = {}
        total = outputs.encoded.sum() * 0.0
        taught = self._taught(batch) if self.distances else None
        for kind, weight in self.distances.items():
            assert taught is not None
            for name, apart in self._apart(kind, outputs, *taught).items():
                terms[name] = apart
                total = total + weight * apart
        if self.ctc_weight:
            terms["ctc"] = ctc_loss(outputs.log_probs, batch)
            total = total + self.ctc_weight * terms["ctc"]
        return {"loss": total} | terms

    def _apart(self, kind: Distance, outputs: Outputs, before: Tensor, after: Tensor) -> Terms:
        """One distance at each place where it is taken; before, after: of the teacher, as _taught gives them."""
        if kind == "kl-classes" or kind == "kl-characters":
            with torch.autocast(after.device.type, enabled=False):
                classes = self.teacher.classifier(after).log_softmax(-1)  # (N, T, K)
            return {kind: class_distance(kind, outputs.log_probs, classes, self.temperature)}
        pairs = {"output": (outputs.encoded, after), "input": (outputs.features, before)}
        return {
            f"{kind}_{place}": distance(kind, student.float(), teacher, self.reduction, self.temperature)
            for place, (student, teacher) in pairs.items()
            if self.place in (place, "both")
        }

    @torch.no_grad()
    def _taught(self, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        """The teacher's features (N, T, D) and encoded (N, T, H)."""
        width = self.teacher.sizes.features
        if self.features is None:
            outputs = self.teacher(batch.pictures)
            return outputs.features, outputs.encoded
        items = [(int(source), int(index)) for source, index in batch.items]
        missing = [row for row, item in enumerate(items) if item not in self.features]
        if missing:
            outputs = self.teacher(batch.pictures[missing])
            for row, value in zip(missing, torch.cat([outputs.features, outputs.encoded], -1), strict=True):
                self.features.put(items[row], value)
        both = torch.stack([self.features.get(item) for item in items]).to(batch.pictures.device)  # (N, T, D + H)
        return both[..., :width], both[..., width:]
