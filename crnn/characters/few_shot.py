"""The few-shot model (method 5): a trunk and what compares its maps. It has no classes; a support names them.

Its file is of the same kind as the others (crnn/checkpoint.py): tensors and one JSON string, read with the restricted
loader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn.backbones import scaled
from crnn.characters.crops import squares_in_batches
from crnn.characters.regions import MatchingOptions, RegionMatcher, Support
from crnn.characters.trunks import REGION_CHANNELS, REGION_STRIDES, region_trunk
from crnn.checkpoint import CHARACTERS, FEW_SHOT_FORMAT, load_tensors, save_tensors
from data.picture import InputSpec, scale

VERSION = 1


@dataclass(frozen=True)
class FewShotInfo:
    """Everything about a few-shot model but its tensors. width: of the trunk's channels."""

    input_spec: InputSpec
    width: float
    matching: MatchingOptions
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        fields = {
            "format": FEW_SHOT_FORMAT,
            "version": VERSION,
            "input_spec": self.input_spec.to_json(),
            "width": self.width,
            "matching": asdict(self.matching),
            "provenance": self.provenance,
        }
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, origin: str) -> FewShotInfo:
        """ValueError naming origin where the text is not what to_json writes."""
        try:
            fields = json.loads(text)
            if fields["format"] != FEW_SHOT_FORMAT:
                raise ValueError(f"{origin} is no few-shot model; give a file of crnn characters episodes")
            if fields["version"] > VERSION:
                raise ValueError(f"{origin} is of format version {fields['version']}; upgrade pocket-crnn to read it")
            spec, matching = InputSpec.from_json(fields["input_spec"]), MatchingOptions(**fields["matching"])
            return cls(spec, fields["width"], matching, fields["provenance"])
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{origin} does not describe a few-shot model ({error!r}); make it anew") from error


class FewShotOutputs(NamedTuple):
    """maps (N, D, rows, columns), in float32."""

    maps: Tensor


class FewShotModel(nn.Module):
    """Crops (N, C, side, side), scaled as the input spec says -> maps (N, D, rows, columns), and what compares them.

    The trunk runs in whatever autocast the caller has set; what compares maps runs in float32.
    """

    def __init__(self, info: FewShotInfo) -> None:
        super().__init__()
        if not info.width > 0:
            raise ValueError(f"the width multiplier is {info.width}; give a number above 0, such as 0.5")
        self.info = info
        self.trunk = region_trunk(info.width, info.input_spec.channels)
        self.matcher = RegionMatcher(info.matching)

    def forward(self, crops: Tensor) -> FewShotOutputs:
        return FewShotOutputs(self.trunk(crops).float())

    @property
    def map_channels(self) -> int:
        return scaled(REGION_CHANNELS[-1], self.info.width)

    @property
    def regions(self) -> int:
        """R: positions of a map."""
        side = self.info.input_spec.height // math.prod(REGION_STRIDES) // 2
        return side * side

    @torch.inference_mode()
    def maps(self, crops: Iterable[NDArray[np.uint8]], batch: int = 128) -> Tensor:
        """Squares (side, side, channels) -> maps (N, D, rows, columns), in float32 and eval mode."""
        device, training = next(self.parameters()).device, self.training
        self.eval()
        made = []
        for some in squares_in_batches(crops, batch):
            pictures = torch.from_numpy(scale(np.stack(some), self.info.input_spec)).to(device)
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 is not float32
                made.append(self(pictures.contiguous(memory_format=torch.channels_last)).maps.contiguous())
        self.train(training)
        return torch.cat(made)

    @torch.inference_mode()
    def support(self, maps: Tensor, labels: NDArray[np.int64], classes: int) -> Support:
        """What a support's maps say of its classes; ValueError naming a class without a picture."""
        return self.matcher.support(maps, torch.from_numpy(labels).to(maps.device), classes)

    @torch.inference_mode()
    def probabilities(self, support: Support, maps: Tensor, batch: int = 256) -> NDArray[np.float32]:
        """(Q, D, rows, columns) -> (Q, N), each query by itself; batch: queries compared at once."""
        found = [
            self.matcher.log_probs(self.matcher(support, some).similarity).exp().cpu()
            for some in torch.split(maps, batch)
        ]
        return np.asarray(torch.cat(found).numpy(), np.float32)


def save_few_shot(path: Path, model: FewShotModel, reported: dict[str, Any]) -> None:
    """Writes the model file; OSError where the disk is full, with the earlier file left as it was."""
    info = replace(model.info, provenance=model.info.provenance | reported)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_tensors(path, {"info": info.to_json(), "weights": weights})


def few_shot_model(content: dict[str, Any], path: Path) -> FewShotModel:
    """What load_tensors read of path, as a network in eval mode; ValueError where it is none."""
    info, weights = content.get("info"), content.get("weights")
    if not isinstance(info, str) or not isinstance(weights, dict):
        raise ValueError(f"{path} holds no few-shot model; give a file of crnn characters episodes")
    model = FewShotModel(FewShotInfo.from_json(info, str(path)))
    own = model.state_dict()
    for name in own.keys() | weights.keys():
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            raise ValueError(
                f"the weights of {path} do not fit its sizes (at {name}); it was altered or damaged, so take another "
                "copy"
            )
    model.load_state_dict(weights)
    return model.eval()


def load_few_shot(path: Path) -> FewShotModel:
    """Reads a model file. FileNotFoundError or ValueError in one sentence; nothing in the file is executed."""
    return few_shot_model(load_tensors(path, CHARACTERS), path)


def description(model: FewShotModel, path: Path) -> dict[str, Any]:
    """The file's own account, as JSON values, for `crnn info`."""
    return {
        "path": str(path),
        "target": "few-shot model",
        "bytes": path.stat().st_size,
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "width": model.info.width,
        "regions": model.regions,
        "input_spec": model.info.input_spec.to_json(),
        "matching": asdict(model.info.matching),
        "provenance": model.info.provenance,
    }
