"""Networks of 3x3 convolutions from a crop to a map: four modules of three, as method 5's trunk."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from crnn.backbones import scaled

DEPTH = 3
"""Convolutions of a module."""
PLAIN_CHANNELS, PLAIN_STRIDES = (32, 64, 128, 256), (2, 2, 2, 2)
REGION_CHANNELS, REGION_STRIDES = (64, 96, 128, 128), (2, 2, 1, 1)
"""Channels of the modules at width 1, strides of the first convolution of each."""


def plain(width: float) -> nn.Sequential:
    """Every module halves rows and columns: 48 x 48 pixels become a map of 3 x 3. Three input channels."""
    return convolution_modules(3, [scaled(planes, width) for planes in PLAIN_CHANNELS], PLAIN_STRIDES)


def region_trunk(width: float, channels: int) -> nn.Sequential:
    """The first two modules halve, and a 2x2 max-pooling ends it: 48 x 48 pixels become a map of 6 x 6 regions."""
    stages = convolution_modules(channels, [scaled(planes, width) for planes in REGION_CHANNELS], REGION_STRIDES)
    stages.append(nn.MaxPool2d(2))
    return stages


def convolution_modules(before: int, channels: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """DEPTH convolutions a module, each with batch normalisation and ReLU. before: input channels."""
    stages = nn.Sequential()
    for after, stride in zip(channels, strides, strict=True):
        for i in range(DEPTH):
            convolution = nn.Conv2d(before, after, 3, stride if i == 0 else 1, 1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            stages.extend([convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)])
            before = after
    return stages
