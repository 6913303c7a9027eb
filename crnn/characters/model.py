"""The character model: a backbone, pooled to one embedding a crop, and the losses whose classifiers name its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from crnn.backbones import BACKBONES, output_channels, replace_first_convolution
from crnn.characters.checkpoint import CharacterCheckpoint, CharacterSizes
from crnn.characters.crops import squares_in_batches
from crnn.characters.trunks import plain
from crnn.objectives.centres import CENTRE_RULES
from crnn.objectives.character_losses import CHARACTER_LOSSES
from crnn.objectives.classification import ClassLoss
from crnn.objectives.recognition import DeviceBatch, Terms
from data.picture import InputSpec, scale

SHARPNESS = 16.0
"""Times the cosine to the centres: what the softmax of --by nearest-centre takes; it changes confidences alone."""


CHARACTER_BACKBONES: dict[str, Callable[[float], nn.Sequential]] = {"plain": plain, **BACKBONES}
"""Those of lines serve as they are, pooled over columns as well as rows."""


class CharacterOutputs(NamedTuple):
    """embeddings (N, E), in float32."""

    embeddings: Tensor


class CharacterModel(nn.Module):
    """Crops (N, C, side, side), scaled as the input spec says -> embeddings (N, E).

    trunk: the backbone's network, (N, C, side, side) -> maps (N, D, rows, columns).
    embedding: linear, from the maps' mean to E.
    losses: name -> ClassLoss; their prototypes and centres are the classifiers, the first of them the model's own.
    The trunk runs in whatever autocast the caller has set, the rest in float32.
    """

    def __init__(self, sizes: CharacterSizes, losses: nn.ModuleDict) -> None:
        super().__init__()
        if sizes.backbone not in CHARACTER_BACKBONES:
            known = ", ".join(CHARACTER_BACKBONES)
            raise ValueError(f"there is no backbone {sizes.backbone!r} for characters; known are {known}")
        if not sizes.width > 0 or sizes.embedding < 1:
            raise ValueError(
                f"a width of {sizes.width} and an embedding of {sizes.embedding} were asked for; give numbers above 0"
            )
        self.sizes = sizes
        self.trunk = CHARACTER_BACKBONES[sizes.backbone](sizes.width)
        if sizes.channels != 3:
            replace_first_convolution(self.trunk, sizes.channels)
        self.embedding = nn.Linear(output_channels(self.trunk), sizes.embedding)
        self.losses = losses

    def forward(self, crops: Tensor) -> CharacterOutputs:
        maps: Tensor = self.trunk(crops)  # (N, D, rows, columns)
        with torch.autocast(crops.device.type, enabled=False):
            return CharacterOutputs(self.embedding(maps.float().mean((2, 3))))  # (N, E)

    @property
    def classifier(self) -> ClassLoss:
        return cast(ClassLoss, next(iter(self.losses.values())))

    @classmethod
    def from_checkpoint(cls, checkpoint: CharacterCheckpoint) -> CharacterModel:
        """The network of a model file, in eval mode. ValueError where weights and sizes disagree."""
        info = checkpoint.info
        model = cls(info.sizes, build_losses(info.losses, info.sizes.embedding, info.counts, info.loss_options))
        own = model.state_dict()
        for name in own.keys() | checkpoint.weights.keys():
            if name not in own or name not in checkpoint.weights or own[name].shape != checkpoint.weights[name].shape:
                raise ValueError(
                    f"the character model's weights do not fit its sizes (at {name}); it was altered or damaged, so "
                    "take another copy"
                )
        model.load_state_dict(checkpoint.weights)
        return model.eval()


def build_losses(
    weights: Mapping[str, float], embedding: int, counts: Sequence[int], options: Mapping[str, Mapping[str, Any]]
) -> nn.ModuleDict:
    """The losses by name, in the order of weights.

    options: keywords of each loss's constructor; of centre-triplet, "rule" is a name in CENTRE_RULES and "normalise"
    goes to the rule. ValueError for a loss or a rule that is not known.
    """
    unknown = next((name for name in weights if name not in CHARACTER_LOSSES), None)
    if unknown is not None:
        raise ValueError(f"there is no loss {unknown!r} on characters; known are {', '.join(CHARACTER_LOSSES)}")
    made = nn.ModuleDict()
    for name in weights:
        given = dict(options.get(name, {}))
        if "rule" in given:
            rule, keywords = given["rule"], {k: given.pop(k) for k in ("normalise",) if k in given}
            if rule not in CENTRE_RULES:
                raise ValueError(f"there is no centre rule {rule!r}; known are {', '.join(CENTRE_RULES)}")
            given["rule"] = partial(CENTRE_RULES[rule], **keywords)
        made[name] = CHARACTER_LOSSES[name](embedding, torch.tensor(counts), **given)  # type: ignore[index]
    return made


class CharacterObjective(nn.Module):
    """The weighted sum of a character model's losses; each term is named after its loss."""

    def __init__(self, losses: nn.ModuleDict, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses, self.weights = losses, dict(weights)

    def forward(self, outputs: CharacterOutputs, targets: DeviceBatch, step: int) -> Terms:
        total = outputs.embeddings.new_zeros(())
        named: Terms = {}
        for name, loss in self.losses.items():
            terms: Terms = loss(outputs.embeddings, targets.classes[:, 0])
            total = total + self.weights[name] * terms["loss"]
            named |= {name if term == "loss" else f"{name} {term}": value for term, value in terms.items()}
        return {"loss": total, **named}


@torch.inference_mode()
def embedded(
    model: CharacterModel, crops: Iterable[NDArray[np.uint8]], spec: InputSpec, batch: int = 128
) -> NDArray[np.float32]:
    """Squares (side, side, channels) -> embeddings (N, E), in float32 and eval mode; crops are drawn batch by batch."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    made = [np.zeros((0, model.sizes.embedding), np.float32)]
    for some in squares_in_batches(crops, batch):
        pictures = torch.from_numpy(scale(np.stack(some), spec)).to(device)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 is not float32
            outputs = model(pictures.contiguous(memory_format=torch.channels_last))
        made.append(outputs.embeddings.cpu().numpy())
    model.train(training)
    return np.concatenate(made)


@torch.inference_mode()
def class_probabilities(model: CharacterModel, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, E) -> (N, C), the softmax of what the model's own classifier scores; C as the losses were trained with."""
    device = next(model.parameters()).device
    scores = model.classifier.scores(torch.from_numpy(embeddings).to(device)).float()
    return np.asarray(scores.softmax(1).cpu().numpy(), np.float32)


def centre_probabilities(centres: Tensor, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, E), centres (C, E) of length 1 -> (N, C), the softmax of SHARPNESS times the cosine to each centre."""
    cosines = functional.normalize(torch.from_numpy(embeddings)) @ centres.T
    return np.asarray((SHARPNESS * cosines).softmax(1).numpy(), np.float32)


def mean_directions(embeddings: NDArray[np.float32], numbers: NDArray[np.int64], classes: int) -> Tensor:
    """(N, E), (N,) class numbers -> (classes, E): the mean direction of each class, of length 1; 0 if it has none."""
    directions = functional.normalize(torch.from_numpy(embeddings))
    sums = torch.zeros(classes, embeddings.shape[1]).index_add_(0, torch.from_numpy(numbers), directions)
    return functional.normalize(sums)
