"""Feature extraction networks on torchvision's blocks, with strides for lines of text.

A square picture may lose as much width as height; a line may not. Every backbone halves the width twice
and the height five times, so a line of 32 x W pixels ends as one row of T = W / 4 columns:

    32 x W -> stem 16 x W/2 -> 8 x W/2 -> 4 x W/4 -> 2 x W/4 -> 1 x W/4

torchvision halves both at the same places, so its ImageNet weights fit (at width 1), though none are needed.
What is left of the height (2 rows of pictures 64 high) is averaged.

dtrb_vgg and dtrb_resnet are the two feature extractors of deep-text-recognition-benchmark (Baek et al. 2019) and of
EasyOCR, layer for layer, so that weights trained there fit: crnn/import_teacher.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.resnet import BasicBlock, Bottleneck

PIXELS_PER_COLUMN = 4

BOTH, HEIGHT, NEITHER = (2, 2), (2, 1), (1, 1)
"""Strides (rows, columns)."""


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier: the multiple of 8 nearest, at least 8."""
    return max(8, round(channels * width / 8) * 8)


def resnet(block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], width: float) -> nn.Sequential:
    """ResNet stages (He et al. 2016) without average pooling and classifier; 3 input channels.

    The batch normalisation that ends each residual branch starts at zero (Goyal et al. 2017), so that a
    deep network starts as a shallow one.
    """
    stem_channels = scaled(64, width)
    stages = nn.Sequential()
    stages.add_module("conv1", nn.Conv2d(3, stem_channels, 7, BOTH, 3, bias=False))
    stages.add_module("bn1", nn.BatchNorm2d(stem_channels))
    stages.add_module("relu", nn.ReLU(inplace=True))
    stages.add_module("maxpool", nn.MaxPool2d(3, HEIGHT, 1))
    before = stem_channels
    for number, (depth, stride) in enumerate(zip(depths, (NEITHER, BOTH, HEIGHT, HEIGHT), strict=True)):
        planes = scaled(64 * 2**number, width)
        after = planes * block.expansion
        blocks = nn.Sequential()
        for i in range(depth):
            step = stride if i == 0 else NEITHER
            shortcut = None
            if step != NEITHER or before != after:
                shortcut = nn.Sequential(nn.Conv2d(before, after, 1, step, bias=False), nn.BatchNorm2d(after))
            # torchvision hands the stride on to Conv2d, which takes pairs
            blocks.append(block(before, planes, step, shortcut))
            before = after
        stages.add_module(f"layer{number + 1}", blocks)
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
    return stages


def mobilenet(build: Callable[..., nn.Module], strides: dict[int, tuple[int, int]], width: float) -> nn.Sequential:
    """MobileNetV3 features (Howard et al. 2019); strides: block number -> what its strided convolution gets here."""
    features = build(weights=None, width_mult=width).features
    assert isinstance(features, nn.Sequential)
    for number, stride in strides.items():
        strided = [m for m in features[number].modules() if isinstance(m, nn.Conv2d) and m.stride == BOTH]
        assert len(strided) == 1, f"block {number} of {build.__name__} has {len(strided)} strided convolutions"
        strided[0].stride = stride
    return features


def dtrb_vgg(width: float) -> nn.Sequential:
    """The VGG of Shi et al. 2016 as dtrb has it, 512 channels at width 1; its last convolution takes a column away."""
    first, second, third, last = (scaled(64 * 2**number, width) for number in range(4))
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
        nn.Conv2d(second, third, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(third, third, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(HEIGHT, HEIGHT),
        nn.Conv2d(third, last, 3, padding=1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True),
        nn.Conv2d(last, last, 3, padding=1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True),
        nn.MaxPool2d(HEIGHT, HEIGHT), nn.Conv2d(last, last, 2), nn.ReLU(inplace=True),
    )  # fmt: skip


def dtrb_resnet(width: float) -> nn.Sequential:
    """The ResNet of Cheng et al. 2017 as dtrb has it, 512 channels at width 1; padding adds two columns, and the last
    convolution takes one away."""
    planes = [scaled(channels, width) for channels in (32, 64, 128, 256, 512, 512)]
    stages = nn.Sequential()

    def convolution(
        name: str, before: int, after: int, kernel: int, stride: tuple[int, int], padding: tuple[int, int]
    ) -> None:
        stages.add_module(f"conv{name}", nn.Conv2d(before, after, kernel, stride, padding, bias=False))
        stages.add_module(f"bn{name}", nn.BatchNorm2d(after))
        stages.add_module(f"relu{name}", nn.ReLU(inplace=True))

    convolution("0_1", 3, planes[0], 3, NEITHER, (1, 1))
    convolution("0_2", planes[0], planes[1], 3, NEITHER, (1, 1))
    before = planes[1]
    pools = (nn.MaxPool2d(2, 2), nn.MaxPool2d(2, 2), nn.MaxPool2d(2, HEIGHT, (0, 1)), None)
    for number, (after, depth, pool) in enumerate(zip(planes[2:], (1, 2, 5, 3), pools, strict=True), start=1):
        if pool is not None:
            stages.add_module(f"maxpool{number}", pool)
        shortcut = None
        if before != after:
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
        blocks = [BasicBlock(before, after, 1, shortcut), *(BasicBlock(after, after) for _ in range(depth - 1))]
        stages.add_module(f"layer{number}", nn.Sequential(*blocks))
        if number < 4:
            convolution(str(number), after, after, 3, NEITHER, (1, 1))
        before = after
    convolution("4_1", before, before, 2, HEIGHT, (0, 1))
    convolution("4_2", before, before, 2, NEITHER, (0, 0))
    return stages


BACKBONES: dict[str, Callable[[float], nn.Sequential]] = {
    "resnet18": partial(resnet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(resnet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(resnet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(resnet, Bottleneck, (3, 4, 23, 3)),
    "mobilenet_v3_small": partial(mobilenet, mobilenet_v3_small, {1: HEIGHT, 2: BOTH, 4: HEIGHT, 9: HEIGHT}),
    "mobilenet_v3_large": partial(mobilenet, mobilenet_v3_large, {2: HEIGHT, 4: BOTH, 7: HEIGHT, 13: HEIGHT}),
    "dtrb_vgg": dtrb_vgg,
    "dtrb_resnet": dtrb_resnet,
}

OWN_EXTRA_COLUMNS = {"dtrb_vgg": -1, "dtrb_resnet": 1}
"""Columns that the stages of a backbone give beyond W / 4; 0 for the others."""

DEPTHS = {
    "resnet18": 18,
    "resnet34": 34,
    "resnet50": 50,
    "resnet101": 101,
    "mobilenet_v3_small": 36,
    "mobilenet_v3_large": 48,
    "dtrb_vgg": 7,
    "dtrb_resnet": 29,
}
"""Layers in a row that have weights, as the papers count them: what method 1's bounds on depth compare."""


class Backbone(nn.Module):
    """Pictures (N, C, H, W) -> features (N, T, D), T = W / pixels_per_column + extra_columns.

    stages: the network of BACKBONES; with 2 pixels a column it halves the width only once.
    projection: convolution, batch normalisation and ReLU where the stages' channels differ from D, so
        that features are never negative whether they were projected or not: a student must be able to match them.
        It is one column wide, or one more for every column that the stages give too many or too few: two wide and not
        padded takes a column away, two wide and padded adds one, and what it sees stays centred.
    """

    def __init__(
        self,
        name: str,
        width: float,
        features: int,
        channels: int = 3,
        pixels_per_column: int = PIXELS_PER_COLUMN,
        extra_columns: int = 0,
    ) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"there is no backbone {name!r}; known are {', '.join(BACKBONES)}")
        if not width > 0:
            raise ValueError(f"the width multiplier is {width}; give a number above 0, such as 0.5")
        self.stages = BACKBONES[name](width)
        if channels != 3:
            replace_first_convolution(self.stages, channels)
        if pixels_per_column != PIXELS_PER_COLUMN:
            halve_width_once(self.stages, name, pixels_per_column)
        produced = output_channels(self.stages)
        lacking = extra_columns - OWN_EXTRA_COLUMNS.get(name, 0)
        self.projection: nn.Sequential | None = None
        if produced != features or lacking or name.startswith("mobilenet"):  # hard-swish goes below zero
            self.projection = nn.Sequential(
                nn.Conv2d(produced, features, (1, 1 + abs(lacking)), padding=(0, max(0, lacking)), bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
            )

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.stages(pictures)  # (N, channels, rows, T)
        if self.projection is not None:
            maps = self.projection(maps)  # (N, D, rows, T)
        features: Tensor = maps.mean(2).transpose(1, 2)  # (N, T, D)
        return features


def output_channels(stages: nn.Sequential) -> int:
    """Channels of the last batch normalisation: what the stages hand on."""
    return [m.num_features for m in stages.modules() if isinstance(m, nn.BatchNorm2d) and not _in_shortcut(stages, m)][
        -1
    ]


def _in_shortcut(stages: nn.Sequential, module: nn.Module) -> bool:
    return any(".downsample." in name for name, found in stages.named_modules() if found is module)


def halve_width_once(stages: nn.Sequential, name: str, pixels_per_column: int) -> None:
    """Only the first strided convolution halves the width: 2 pixels a column. ValueError where that cannot be."""
    strided = [m for m in stages.modules() if isinstance(m, nn.Conv2d) and m.stride == BOTH]
    if pixels_per_column != 2 or not strided:
        raise ValueError(
            f"{name} cannot give a column every {pixels_per_column} pixels; 4 are possible for every backbone, and 2 "
            f"for {', '.join(known for known in BACKBONES if known not in OWN_EXTRA_COLUMNS)}"
        )
    for convolution in strided[1:]:
        convolution.stride = HEIGHT


def replace_first_convolution(stages: nn.Sequential, channels: int) -> None:
    """The first convolution made anew for another number of input channels (grey: 1)."""
    for name, module in stages.named_modules():
        if isinstance(module, nn.Conv2d):
            *path, last = name.split(".")
            parent = stages.get_submodule(".".join(path))
            made = nn.Conv2d(
                channels,
                module.out_channels,
                cast(tuple[int, int], module.kernel_size),
                cast(tuple[int, int], module.stride),
                cast(tuple[int, int], module.padding),
                bias=module.bias is not None,
            )
            setattr(parent, last, made)
            return


def load_imagenet_weights(backbone: Backbone, name: str) -> None:
    """Fills the stages with torchvision's ImageNet weights (downloaded by torchvision); width 1 only.

    Raises ValueError where the sizes do not fit.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(name)
    state: dict[str, torch.Tensor] = next(iter(weights)).get_state_dict(progress=True)
    own = backbone.stages.state_dict()
    state = {k.removeprefix("features."): v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    counters = {k for k in own if k.endswith("num_batches_tracked")}  # torchvision's older files lack them
    differing = [k for k in own if (k not in state and k not in counters) or state.get(k, own[k]).shape != own[k].shape]
    if differing:
        raise ValueError(f"ImageNet weights fit {name} at width 1 and three channels only; {differing[0]} differs here")
    backbone.stages.load_state_dict(state)
