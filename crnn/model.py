"""The recogniser network: backbone, encoder, classifier; and what it reads of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crnn.backbones import Backbone
from crnn.charset import BLANK, Charset
from crnn.checkpoint import Checkpoint, CrnnSizes
from crnn.ctc import LogProbs, Reading, blank_outside, greedy_batch
from crnn.score import Score, score
from data.lines import Line
from data.picture import InputSpec, of_one_width, prepare, shown_columns


class Outputs(NamedTuple):
    """features (N, T, D) of the backbone; encoded (N, T, H) of the encoder; log_probs (N, T, K)."""

    features: Tensor
    encoded: Tensor
    log_probs: Tensor


class EncoderLayer(nn.Module):
    """One LSTM or BiLSTM, then a linear layer where the sizes ask for one: (N, T, in) -> (N, T, out)."""

    def __init__(self, size: int, hidden: int, bidirectional: bool, linear: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, hidden, batch_first=True, bidirectional=bidirectional)
        produced = hidden * (2 if bidirectional else 1)
        self.linear = nn.Linear(produced, linear) if linear else None

    def forward(self, sequence: Tensor) -> Tensor:
        sequence = self.lstm(sequence)[0]  # (N, T, hidden * directions)
        return sequence if self.linear is None else self.linear(sequence)  # (N, T, out)


class Encoder(nn.Module):
    """Feature encoding network: (N, T, D) -> (N, T, H)."""

    def __init__(self, sizes: CrnnSizes) -> None:
        super().__init__()
        if sizes.layers < 1:
            raise ValueError(f"the encoder has {sizes.layers} layers; give at least 1")
        inputs = [sizes.features] + [sizes.encoded] * (sizes.layers - 1)
        self.layers = nn.ModuleList(
            EncoderLayer(size, sizes.hidden, sizes.bidirectional, sizes.linear) for size in inputs
        )

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features)
        return features  # (N, T, H)


class Crnn(nn.Module):
    """Pictures (N, C, H, W), scaled as the input spec says -> Outputs, T = sizes.columns(W).

    The backbone runs in whatever autocast the caller has set; encoder and classifier run in float32, for
    recurrent sums over many columns lose too much in bfloat16.
    """

    def __init__(self, sizes: CrnnSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.backbone = Backbone(
            sizes.backbone, sizes.width, sizes.features, sizes.channels, sizes.pixels_per_column, sizes.extra_columns
        )
        self.encoder = Encoder(sizes)
        self.classifier = nn.Linear(sizes.encoded, sizes.classes)

    def forward(self, pictures: Tensor) -> Outputs:
        features = self.backbone(pictures)  # (N, T, D)
        return self.read(features.float())

    def read(self, features: Tensor) -> Outputs:
        """From features (N, T, D) on: what the encoder and the classifier make of them."""
        with torch.autocast(features.device.type, enabled=False):
            encoded = self.encoder(features)  # (N, T, H)
            log_probs = self.classifier(encoded).log_softmax(-1)  # (N, T, K)
        return Outputs(features, encoded, log_probs)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Crnn:
        """The network of a model file, in eval mode. ValueError where weights and sizes disagree."""
        model = cls(checkpoint.info.sizes)
        own = model.state_dict()
        for name in own.keys() | checkpoint.weights.keys():
            if name not in own or name not in checkpoint.weights or own[name].shape != checkpoint.weights[name].shape:
                raise ValueError(
                    f"the checkpoint's weights do not fit its sizes (at {name}); it was altered or damaged, so take "
                    f"another copy"
                )
        model.load_state_dict(checkpoint.weights)
        return model.eval()


def evaluate(model: Crnn, lines: Sequence[Line], charset: Charset, spec: InputSpec) -> Score:
    """Score of the model on labelled lines; labels are compared as the charset writes them."""
    readings = read_lines(model, lines, charset, spec)
    return score([r.text for r in readings], [charset.normalise(line.text or "") for line in lines])


def read_lines(model: Crnn, lines: Sequence[Line], charset: Charset, spec: InputSpec, batch: int = 64) -> list[Reading]:
    """What the model reads in each line, in float32, each at its natural width, by best path."""
    readings: dict[int, Reading] = {}
    for some, log_probs in line_log_probs(model, lines, spec, batch):
        readings.update(zip(some, greedy_batch(log_probs, charset), strict=True))
    return [readings[i] for i in range(len(lines))]


def line_log_probs(
    model: Crnn, lines: Sequence[Line], spec: InputSpec, batch: int = 64
) -> Iterator[tuple[list[int], LogProbs]]:
    """(indices, log-probabilities (N, T, K)) of lines of one natural width at a time, in float32, margins blank."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    shapes = [(line.picture.shape[0], line.picture.shape[1]) for line in lines]
    for some in of_one_width(shapes, spec, batch):
        pictures = torch.stack([torch.from_numpy(prepare(lines[i].picture, spec)) for i in some]).to(device)
        # TF32 is not float32
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            log_probs = model(pictures.contiguous(memory_format=torch.channels_last)).log_probs.cpu().numpy()
        if spec.narrow == "margins":
            sizes = model.sizes
            shown = [shown_columns(*shapes[i], spec, sizes.pixels_per_column, sizes.extra_columns) for i in some]
            log_probs = np.stack([blank_outside(line, *own) for line, own in zip(log_probs, shown, strict=True)])
        yield some, log_probs
    model.train(training)


def copy_classifier(model: Crnn, charset: Charset, weights: dict[str, Tensor], known: Charset) -> None:
    """Fills the model's classifier, of charset, from another's weights, of the charset known.

    Classes of characters that both know, and the blank, get the other's rows; the rest keep what they have.
    """
    shared = [c for c in charset.characters if c in known.characters]
    own = [BLANK, *(charset.characters.index(c) + 1 for c in shared)]
    theirs = [BLANK, *(known.characters.index(c) + 1 for c in shared)]
    with torch.no_grad():
        model.classifier.weight[own] = weights["classifier.weight"][theirs]
        model.classifier.bias[own] = weights["classifier.bias"][theirs]


def parameter_count(module: nn.Module) -> int:
    """Trainable and frozen parameters, buffers not counted."""
    return sum(p.numel() for p in module.parameters())


def available_device(name: str) -> torch.device:
    """The device of this name; ValueError where the name is unknown or this machine has none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}; known are cpu, cuda, cuda:N and mps") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = counts.get(device.type, 0)
    if (device.index or 0) >= count:
        usable = ", ".join(kind for kind, number in counts.items() if number)
        raise ValueError(f"the device {name} is not there ({count} of its kind found); use one of: {usable}")
    return device
