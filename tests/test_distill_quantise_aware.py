"""Simulated int8: the same numbers as the scheme's, on the values that exporters quantise, and nothing else changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from crnn.backbones import BACKBONES
from crnn.charset import Charset
from crnn.checkpoint import ModelInfo, load_checkpoint
from crnn.fit import _average
from crnn.model import Crnn
from crnn.quantisation import STEPS, Range, channel_scales, quantise_weight
from data.picture import InputSpec
from distill.quantise_aware import (
    Grid,
    RoundedConv,
    learnt_ranges,
    rounded,
    rounded_weight,
    simulate,
    without_simulation,
)
from export.calibration import Quantisation, calibrate, gridded_values, with_pooled
from export.graph import read_graph
from export.int8_onnx import write_int8_onnx
from export.operators import Conv


@pytest.fixture
def network(random_checkpoint: Callable[..., Path]) -> Callable[..., Crnn]:
    """A function: backbone -> a small network with random weights, in eval mode; equal at every call."""
    return lambda backbone="resnet18": Crnn.from_checkpoint(load_checkpoint(random_checkpoint(backbone)))


def pictures(width: int = 64) -> Tensor:
    return torch.rand(2, 3, 32, width, generator=torch.Generator().manual_seed(5)) * 2 - 1


def trained(model: Crnn, batches: int = 1) -> Crnn:
    """A simulated network after it has seen batches in training mode, back in eval mode."""
    simulate(model).train()
    for number in range(batches):
        model(pictures(64 + 32 * number))
    return model.eval()


@torch.no_grad()
def gridded(model: Crnn, given: Tensor) -> dict[str, Tensor]:
    """What each grid of a simulated network makes of pictures, by name."""
    seen: dict[str, Tensor] = {}

    def keep(grid: Grid, _: object, out: Tensor) -> None:
        seen[grid.value] = out.clone()  # the activation after it may work in place

    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, Grid)]
    model(given)
    for hook in hooks:
        hook.remove()
    return seen


def test_a_rounded_weight_is_the_schemes_integers_times_its_scales() -> None:
    weight = torch.randn(7, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    scales = channel_scales(weight.numpy())
    expected = quantise_weight(weight.numpy(), scales).astype(np.float32) * scales[:, None, None, None]
    assert np.array_equal(rounded_weight(weight).numpy(), expected)


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.7), (0.0, 6.1), (-3.0, 0.0), (0.0, 0.0)])
def test_a_rounded_activation_is_on_the_schemes_grid(low: float, high: float) -> None:
    grid = Range(low, high)
    values = torch.linspace(-4, 8, 10_001)
    integers = np.clip(np.rint(values.numpy() / np.float32(grid.scale)) + grid.zero_point, 0, STEPS)
    expected = (integers - grid.zero_point).astype(np.float32) * np.float32(grid.scale)
    assert np.array_equal(rounded(values, grid).numpy(), expected)
    assert rounded(torch.zeros(1), grid).item() == 0


def test_gradients_pass_the_rounding_and_stop_where_the_range_clips() -> None:
    values = torch.tensor([-2.0, -0.4, 0.0, 0.3, 0.99, 5.0], requires_grad=True)
    rounded(values, Range(-0.5, 1.0)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 0]
    weight = torch.randn(2, 3, 3, 3, requires_grad=True)
    (rounded_weight(weight) * 2).sum().backward()
    assert weight.grad is not None
    assert weight.grad.unique().tolist() == [2]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_values_on_a_grid_are_those_that_exporters_quantise(backbone: str, network: Callable[..., Crnn]) -> None:
    expected = gridded_values(read_graph(network(backbone)))
    assert list(learnt_ranges(simulate(network(backbone)))) == expected


@pytest.mark.parametrize("backbone", BACKBONES)
def test_ranges_of_one_batch_are_those_that_calibration_finds(backbone: str, network: Callable[..., Crnn]) -> None:
    model = network(backbone)
    expected = calibrate(read_graph(model), [pictures().numpy()])
    simulate(model)
    for module in model.modules():
        if isinstance(module, Grid):
            module.train()  # and BatchNorm keeps its statistics
    model(pictures())
    for name, (low, high) in learnt_ranges(model).items():
        # what int8 before it rounds differently moves a value, and little
        assert low == pytest.approx(expected[name].low, abs=0.1 * (expected[name].high - expected[name].low) + 1e-6)
        assert high == pytest.approx(expected[name].high, abs=0.1 * (expected[name].high - expected[name].low) + 1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rounding_before_batch_norm_gives_the_integers_of_the_exported_weight(
    backbone: str, network: Callable[..., Crnn]
) -> None:
    model = network(backbone)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight[::2] *= -1  # gains below zero
    exported = {op.output: op for op in read_graph(model).operators if isinstance(op, Conv)}
    convolutions = {path: m for path, m in simulate(model).named_modules() if isinstance(m, RoundedConv)}
    assert convolutions.keys() == exported.keys()
    for path, module in convolutions.items():
        raw, folded = module.weight.detach()[:, :, module.rows].numpy(), exported[path].weight
        assert raw.shape == folded.shape
        signs = np.sign((raw * folded).sum((1, 2, 3), keepdims=True))  # of the gains
        steps = raw / channel_scales(raw)[:, None, None, None]
        tie = np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-4  # folding has rounding errors of its own
        simulated = rounded_weight(module.weight.detach(), module.rows)[:, :, module.rows].numpy()
        integers = np.rint(simulated / channel_scales(raw)[:, None, None, None]) * signs
        assert np.array_equal(integers[~tie], quantise_weight(folded, channel_scales(folded))[~tie]), path
        assert tie.mean() < 0.01


def test_each_value_after_the_simulation_is_one_of_256(network: Callable[..., Crnn]) -> None:
    model = trained(network("mobilenet_v3_small"))
    seen = gridded(model, pictures())
    assert list(seen) == list(learnt_ranges(model))
    for name, value in seen.items():
        steps = value / Range(*learnt_ranges(model)[name]).scale
        assert torch.allclose(steps, steps.round(), atol=1e-3), name
        assert len(value.unique()) <= STEPS + 1


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_an_exported_file_computes_the_integers_that_were_simulated(
    backbone: str, network: Callable[..., Crnn]
) -> None:
    """All of them, once the file's biases are given back what rounding to 32 bits took."""
    model = trained(network(backbone), batches=2)
    plain, ranges = without_simulation(model).eval(), learnt_ranges(model)
    graph = read_graph(plain)
    spread = with_pooled(graph, {name: Range(*limits) for name, limits in ranges.items()})
    info = ModelInfo(Charset.named("ascii"), InputSpec(), plain.sizes)
    written = onnx.load_from_string(write_int8_onnx(graph, info, Quantisation(spread)).content)
    biases = {f"{op.output}.bias": op.bias for op in graph.operators if isinstance(op, Conv)}
    nodes = [node for node in written.graph.node if node.output[0] not in biases]
    assert len(nodes) == len(written.graph.node) - len(biases)
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    written.graph.initializer.extend(numpy_helper.from_array(bias, name) for name, bias in biases.items())
    for name in ranges:
        written.graph.output.append(helper.make_tensor_value_info(f"{name}.integers", TensorProto.UINT8, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(written.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = session.run([f"{name}.integers" for name in ranges], {"pictures": pictures().numpy()})
    simulated = gridded(model, pictures())
    for (name, limits), integers in zip(ranges.items(), given, strict=True):
        grid = Range(*limits)
        expected = np.rint(simulated[name].numpy() / grid.scale) + grid.zero_point
        differing = np.abs(integers - expected)
        assert differing.max() <= 1, name
        assert np.mean(differing) < 1e-3, name  # sums in another order, at ties


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_with_int8_features_are_near_those_in_float(backbone: str, network: Callable[..., Crnn]) -> None:
    model = network(backbone)
    ranges = {name: (r.low, r.high) for name, r in calibrate(read_graph(model), [pictures().numpy()]).items()}
    expected = model(pictures()).features
    apart = (simulate(model, ranges)(pictures()).features - expected).square().mean().sqrt()
    assert 0 < apart < 0.1 * expected.std()


def test_bfloat16_leaves_the_grids_as_fine_as_they_are(network: Callable[..., Crnn]) -> None:
    model = trained(network())
    with torch.autocast("cpu", torch.bfloat16):
        seen = gridded(model, pictures())
    for name, value in seen.items():
        assert value.dtype == torch.float32
        steps = value / Range(*learnt_ranges(model)[name]).scale
        assert torch.allclose(steps, steps.round(), atol=1e-3), name


def test_ranges_start_with_the_first_batch_and_then_follow_slowly() -> None:
    grid = Grid("value").train()
    grid(torch.tensor([-1.0, 3.0]))
    assert grid.limits.tolist() == [-1, 3]
    grid(torch.tensor([-2.0, 1.0]))
    assert grid.limits.tolist() == pytest.approx([-1.01, 2.98])
    grid.eval()(torch.tensor([-100.0, 100.0]))
    assert grid.limits.tolist() == pytest.approx([-1.01, 2.98])


def test_a_range_holds_zero_whatever_was_seen() -> None:
    grid = Grid("value").train()
    grid(torch.tensor([2.0, 3.0]))
    assert grid.limits.tolist() == [0, 3]


def test_values_that_are_not_finite_leave_the_range_alone() -> None:
    grid = Grid("value").train()
    grid(torch.tensor([-1.0, 3.0]))
    assert grid(torch.tensor([float("nan"), 1.0])).isnan().any()
    assert grid.limits.tolist() == [-1, 3]


def test_ranges_are_no_parameters_and_weights_keep_their_names(network: Callable[..., Crnn]) -> None:
    plain, model = network("mobilenet_v3_large"), simulate(network("mobilenet_v3_large"))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in plain.named_parameters()}
    extra = {name for name in model.state_dict() if name not in plain.state_dict()}
    assert all(name.startswith("backbone.grids.") for name in extra)
    assert sum(isinstance(module, RoundedConv) for module in model.modules()) == sum(
        isinstance(module, torch.nn.Conv2d) for module in plain.modules()
    )


def test_without_the_simulation_the_network_is_the_plain_one_again(network: Callable[..., Crnn]) -> None:
    again = without_simulation(simulate(network())).eval()
    assert torch.equal(again(pictures()).log_probs, network()(pictures()).log_probs)


def test_ranges_from_a_file_give_the_same_numbers_as_the_network_that_learnt_them(
    network: Callable[..., Crnn],
) -> None:
    model = trained(network("mobilenet_v3_small"), batches=3)
    read = simulate(without_simulation(copy.deepcopy(model)).eval(), learnt_ranges(model))
    assert torch.equal(read(pictures()).log_probs, model(pictures()).log_probs)


def test_ranges_of_another_network_are_refused(network: Callable[..., Crnn]) -> None:
    with pytest.raises(ValueError, match=r"lack backbone.stages.layer1.0.conv1.*--quantise-aware"):
        simulate(network(), {"pictures": (-1, 1), "backbone.stages.conv1": (0, 1)})


def test_the_running_average_of_weights_has_its_own_average_of_ranges(network: Callable[..., Crnn]) -> None:
    model = simulate(network()).train()
    average = _average(model, 0.9)
    assert average is not None
    model(pictures())
    average.update_parameters(model)
    first = learnt_ranges(model)
    model(pictures(96) * 3)
    average.update_parameters(model)
    second = learnt_ranges(model)
    for name, (low, high) in learnt_ranges(average.module).items():  # type: ignore[arg-type]
        assert low == pytest.approx(0.9 * first[name][0] + 0.1 * second[name][0], abs=1e-5)
        assert high == pytest.approx(0.9 * first[name][1] + 0.1 * second[name][1], abs=1e-5)


def test_a_module_that_is_not_known_is_refused_by_its_place(network: Callable[..., Crnn]) -> None:
    model = network()
    model.backbone.stages.relu = torch.nn.GELU()
    with pytest.raises(ValueError, match="GELU at stages_relu"):
        simulate(model)
