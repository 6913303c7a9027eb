"""Feature extraction networks: what they make of the height and the width, and whose weights fit them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import Tensor, nn

from crnn.backbones import (
    BACKBONES,
    DEPTHS,
    OWN_EXTRA_COLUMNS,
    Backbone,
    load_imagenet_weights,
    output_channels,
    scaled,
)

NAMES = list(BACKBONES)
WIDTHS = (32, 40, 64, 136)


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_makes_one_row_and_a_column_of_every_four_pixels(name: str) -> None:
    backbone = Backbone(name, 0.125, 24).eval()
    for width in WIDTHS:
        pictures = torch.randn(2, 3, 32, width)
        with torch.inference_mode():
            maps = backbone.stages(pictures)
            own = width // 4 + OWN_EXTRA_COLUMNS.get(name, 0)
            assert maps.shape == (2, output_channels(backbone.stages), 1, own)
            assert backbone(pictures).shape == (2, width // 4, 24)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_any_backbone_can_have_a_column_more_or_less_for_a_teacher_that_has(name: str, extra: int) -> None:
    backbone = Backbone(name, 0.125, 24, extra_columns=extra).eval()
    with torch.inference_mode():
        for width in WIDTHS:
            assert backbone(torch.randn(1, 3, 32, width)).shape == (1, width // 4 + extra, 24)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_mirrored_picture_gives_mirrored_columns_so_that_they_stay_centred(extra: int) -> None:
    torch.manual_seed(0)
    backbone = Backbone("resnet18", 0.125, 24, extra_columns=extra).eval()
    assert backbone.projection is not None
    shift = backbone.projection[0]
    stages = torch.randn(1, 64, 1, 9)
    with torch.inference_mode():
        forwards = shift(stages)
        shift.weight.copy_(shift.weight.flip(-1))
        assert torch.allclose(shift(stages.flip(-1)).flip(-1), forwards, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN_EXTRA_COLUMNS])
def test_a_column_of_two_pixels_comes_from_one_halving_of_the_width(name: str) -> None:
    backbone = Backbone(name, 0.125, 24, pixels_per_column=2).eval()
    with torch.inference_mode():
        for width in WIDTHS:
            assert backbone.stages(torch.randn(1, 3, 32, width)).shape[2:] == (1, width // 2)
            assert backbone(torch.randn(1, 3, 32, width)).shape == (1, width // 2, 24)


@pytest.mark.parametrize(("name", "pixels"), [("resnet18", 3), ("resnet18", 8), ("dtrb_vgg", 2)])
def test_columns_of_other_pixels_are_refused(name: str, pixels: int) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot give a column every {pixels} pixels; 4 are possible"):
        Backbone(name, 0.125, 24, pixels_per_column=pixels)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_never_negative(name: str) -> None:
    torch.manual_seed(0)
    produced = output_channels(Backbone(name, 0.125, 8).stages)
    with torch.inference_mode():
        for features in (8, produced):
            assert Backbone(name, 0.125, features)(torch.randn(2, 3, 32, 32)).min() >= 0


def test_stages_that_have_the_right_channels_are_not_projected() -> None:
    assert Backbone("resnet18", 0.125, 64).projection is None
    assert Backbone("resnet18", 0.125, 32).projection is not None


@pytest.mark.parametrize("name", NAMES)
def test_grey_pictures_get_a_first_convolution_of_one_channel(name: str) -> None:
    backbone = Backbone(name, 0.125, 8, channels=1).eval()
    with torch.inference_mode():
        assert backbone(torch.randn(1, 1, 32, 32)).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(64, 1.0, 64), (64, 0.5, 32), (64, 0.3, 16), (64, 0.01, 8), (64, 1.2, 80)]
)
def test_channels_under_a_multiplier_are_multiples_of_8(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_multiplier_makes_a_backbone_smaller(name: str) -> None:
    sizes = [sum(p.numel() for p in Backbone(name, width, 64).parameters()) for width in (0.125, 0.25, 0.5)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_an_unknown_backbone_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no backbone 'vgg16'; known are {', '.join(NAMES)}"):
        Backbone("vgg16", 1.0, 64)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_multiplier_that_leaves_nothing_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="width multiplier is"):
        Backbone("resnet18", width, 64)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("resnet")])
def test_the_depths_of_residual_networks_are_those_of_their_names(name: str) -> None:
    stages = BACKBONES[name](0.125)
    convolutions = [n for n, m in stages.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
    assert len(convolutions) + 1 == DEPTHS[name] == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("resnet")])
def test_every_residual_branch_starts_at_zero(name: str) -> None:
    branches = [m for m in BACKBONES[name](0.125).modules() if hasattr(m, "downsample")]
    last = [getattr(branch, "bn3" if hasattr(branch, "bn3") else "bn2") for branch in branches]
    assert last
    assert all(bool((normalisation.weight == 0).all()) for normalisation in last)


def offered(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    """torchvision offers these weights, without a download."""
    weights = SimpleNamespace(get_state_dict=lambda progress: dict(state))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: [weights])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_imagenet_weights_fit_at_width_1(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    state = torchvision.models.get_model(name, weights=None).state_dict()
    offered(monkeypatch, state)
    backbone = Backbone(name, 1.0, 64)
    load_imagenet_weights(backbone, name)
    prefix = "features." if name.startswith("mobilenet") else ""
    assert all(torch.equal(value, state[prefix + key]) for key, value in backbone.stages.state_dict().items())


def test_older_imagenet_weights_without_counters_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torchvision.models.get_model("resnet18", weights=None).state_dict()
    offered(monkeypatch, {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")})
    backbone = Backbone("resnet18", 1.0, 64)
    load_imagenet_weights(backbone, "resnet18")
    assert torch.equal(backbone.stages.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(("width", "channels"), [(0.5, 3), (1.0, 1)])
def test_imagenet_weights_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, width: float, channels: int
) -> None:
    offered(monkeypatch, torchvision.models.get_model("resnet18", weights=None).state_dict())
    backbone = Backbone("resnet18", width, 64, channels)
    with pytest.raises(ValueError, match=r"fit resnet18 at width 1 and three channels only; conv1\.weight differs"):
        load_imagenet_weights(backbone, "resnet18")
