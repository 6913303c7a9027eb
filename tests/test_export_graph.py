"""The network as operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn, parameter_count
from export.graph import cut_rows, read_graph
from export.operators import INPUT, OUTPUT, Conv, Graph, Linear, Lstm


@pytest.fixture
def network(random_checkpoint: Callable[..., Path]) -> Crnn:
    return Crnn.from_checkpoint(load_checkpoint(random_checkpoint()))


def test_every_value_is_made_before_it_is_used_and_made_once(random_checkpoint: Callable[..., Path]) -> None:
    for backbone in ("resnet18", "resnet50", "mobilenet_v3_small"):
        graph = read_graph(Crnn.from_checkpoint(load_checkpoint(random_checkpoint(backbone))))
        made = {INPUT}
        for operator in graph.operators:
            used = [
                getattr(operator, name) for name in ("input", "left", "right", "factors") if hasattr(operator, name)
            ]
            assert used
            assert set(used) <= made
            assert operator.output not in made
            made.add(operator.output)
        assert OUTPUT in made


def test_a_folded_convolution_gives_what_convolution_and_batch_norm_gave() -> None:
    torch.manual_seed(3)
    convolution, norm = nn.Conv2d(4, 6, 3, padding=1, bias=True), nn.BatchNorm2d(6, eps=1e-3).eval()
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.1
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    folded = fold(nn.Sequential(convolution, norm))
    maps = torch.randn(2, 4, 5, 9)
    expected = norm(convolution(maps))
    given = nn.functional.conv2d(maps, torch.from_numpy(folded.weight), torch.from_numpy(folded.bias), padding=1)
    assert torch.allclose(given, expected, atol=1e-5)


def fold(layers: nn.Sequential) -> Conv:
    from export.graph import read

    operators: list[object] = []
    read(operators, layers, "layers", INPUT)  # type: ignore[arg-type]
    (operator,) = operators
    assert isinstance(operator, Conv)
    return operator


def test_only_batch_norm_and_dead_kernel_rows_are_missing_among_the_parameters(network: Crnn) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    factors = sum(norm.weight.numel() for norm in norms)  # their shifts live on as the convolutions' biases
    last = network.get_submodule("backbone.stages.layer4")  # two rows high before its first convolution, one after it
    kernels = [m.weight for m in last.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    dead = kernels[0].numel() // 3 + sum(kernel.numel() for kernel in kernels[1:]) * 2 // 3
    assert read_graph(network).parameters == parameter_count(network) - factors - dead


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), (7, 3)])
def test_kernel_rows_that_meet_only_padding_are_cut_off_without_a_change(
    rows: int, stride: int, kernel: int, padding: int
) -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(2, 3, kernel, (stride, 1), padding)
    whole = fold(nn.Sequential(layer))
    cut = cut_rows(whole, rows)
    picture = torch.rand(1, 2, rows, 9)
    weight, bias = torch.from_numpy(cut.weight), torch.from_numpy(cut.bias)
    made = nn.functional.conv2d(picture, weight, bias, cut.stride, cut.padding)
    assert torch.allclose(made, layer(picture), atol=1e-6)
    assert cut.weight.shape[2] == 1 if rows == 1 else cut.weight.shape[2] <= kernel


def test_the_encoder_keeps_layers_directions_and_linear_layers(random_checkpoint: Callable[..., Path]) -> None:
    path = random_checkpoint(bidirectional=False, linear=24, layers=3)
    graph = read_graph(Crnn.from_checkpoint(load_checkpoint(path)))
    kinds = [type(operator) for operator in graph.operators if isinstance(operator, Lstm | Linear)]
    assert kinds == [Lstm, Linear] * 3 + [Linear]
    assert [len(op.directions) for op in graph.operators if isinstance(op, Lstm)] == [1, 1, 1]


class Swirl(nn.Module):
    """A module that no export knows."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.roll(1, -1)


def test_an_unknown_module_is_refused_by_its_class_and_its_place(network: Crnn) -> None:
    network.backbone.stages.layer2[1].relu = Swirl()
    with pytest.raises(ValueError, match=r"Swirl at backbone\.stages\.layer2\.1\.relu"):
        read_graph(network)


def test_a_subclass_is_refused_for_it_may_compute_something_else(network: Crnn) -> None:
    class LeakyConv(nn.Conv2d):
        pass

    network.backbone.stages.conv1 = LeakyConv(3, 8, 7, 2, 3)
    with pytest.raises(ValueError, match=r"LeakyConv at backbone\.stages\.conv1"):
        read_graph(network)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(3, 8, 3, padding="same"), "pads with 'same'"),
        (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.BatchNorm2d(3), "follows no convolution"),
        (nn.ReLU(), "follows neither a convolution nor a sum"),
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.AdaptiveAvgPool2d(2), "only one cell"),
        (nn.LSTM(8, 8, num_layers=2, batch_first=True), "2 layers"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)), "no running statistics"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)), "follows no convolution"),
    ],
)
def test_a_variant_that_cannot_be_written_is_refused_with_its_place(layer: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        fold(nn.Sequential(layer))
    assert "at layers.0" in str(refusal.value)


def test_the_graph_holds_its_own_weights(network: Crnn) -> None:
    before = first_weights(graph := read_graph(network))
    nn.init.zeros_(network.backbone.stages.conv1.weight)
    assert np.array_equal(first_weights(graph), before)
    assert before.any()


def first_weights(graph: Graph) -> np.ndarray:
    first = graph.operators[0]
    assert isinstance(first, Conv)
    return first.weight.copy()
