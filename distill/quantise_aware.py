"""Training with simulated int8: the CNN computes with the weights and activations that an int8 file of it will have.

The scheme is that of crnn/quantisation.py. Weights and activations are rounded to their grids in the forward pass, and
gradients pass the rounding as if it were not there (Bengio et al. 2013; Jacob et al. 2018). What learns and what is
saved are the float weights; the ranges of activations go into the model file beside them.

A weight is rounded as it is, before BatchNorm, and BatchNorm stays. That is the same as rounding the folded weight
that is exported: folding multiplies each output channel by a gain g, which multiplies the channel's scale by |g| and
leaves the integers as they are, but for the sign of g. Biases are exported with 32 bits, on a grid some hundred times
finer than that of activations, and are not rounded here: an exported file gives the same integers but for those that
lie near the middle between two.

Grids are float32 whatever the precision. In a bf16 run convolutions take bfloat16 of them, which adds noise to training
that neither validation nor an exported file has.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.fx.passes.shape_prop import ShapeProp

from crnn.checkpoint import CrnnSizes, ModelInfo
from crnn.fit import Save
from crnn.model import Crnn
from crnn.quantisation import LEAST_SCALE, STEPS, WEIGHT_LIMIT, Range
from crnn.train import saver

INPUT = "pictures"
"""The network's input among the names of values; the others are named after the module that made them."""

JOINS = (operator.add, operator.iadd, operator.mul)
"""Of two branches: of a residual block, and of squeeze-and-excitation, after which their result is named."""

BATCH_SHARE = 0.01
"""Of one batch in the running range of an activation."""


class _RoundedWeight(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: slice) -> Tensor:
        largest = weight[:, :, rows].abs().amax((1, 2, 3), keepdim=True)
        scales = (largest / weight.new_tensor(WEIGHT_LIMIT)).clamp_min_(LEAST_SCALE)
        return (weight / scales).round_().clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT).mul_(scales)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None  # no weight that counts lies beyond its grid, so none is clipped


class _Rounded(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, to: Range) -> Tensor:
        ctx.save_for_backward(values)
        ctx.to = to
        # a tensor, for some devices multiply by the reciprocal of a number, which rounds differently
        integers = (values / values.new_tensor(to.scale)).round_().clamp_(-to.zero_point, STEPS - to.zero_point)
        return integers.mul_(to.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        low, high = ctx.to.low - ctx.to.scale / 2, ctx.to.high + ctx.to.scale / 2
        inside: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], values, low, high)
        return inside, None


def rounded_weight(weight: Tensor, rows: slice = slice(None)) -> Tensor:
    """A convolution's weight (out, in / groups, rows, columns) as int8 holds it, one scale for each output channel.

    rows: those that count for the scale. The others meet nothing but padding, and are not exported.
    """
    made: Tensor = _RoundedWeight.apply(weight, rows)
    return made


def rounded(values: Tensor, to: Range) -> Tensor:
    """Activations, float32, on the grid of a range; the gradient is zero for those that the range clips."""
    made: Tensor = _Rounded.apply(values, to)
    return made


class RoundedConv(nn.Conv2d):
    """A convolution that computes with its rounded weight; the weight itself stays float and learns."""

    rows: slice

    @classmethod
    def of(cls, conv: nn.Conv2d, height: int) -> RoundedConv:
        """With the parameters of another one, which they share. height: rows of the map that it reads."""
        made = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
            conv.groups, conv.bias is not None, conv.padding_mode, device="meta",
        )  # fmt: skip
        made.weight, made.bias = conv.weight, conv.bias
        made.rows = met_rows(made, height)
        return made

    def forward(self, input: Tensor) -> Tensor:
        made: Tensor = self._conv_forward(input, rounded_weight(self.weight, self.rows), self.bias)
        return made


def met_rows(conv: nn.Conv2d, height: int) -> slice:
    """The kernel's rows that meet more than padding in a map of this height: of 3 only the middle one where it is 1."""
    (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, cast(tuple[int, int], conv.padding)
    tops = range(-padding, height + padding - kernel + 1, stride)
    met = [row for row in range(kernel) if any(0 <= top + row < height for top in tops)]
    return slice(met[0], met[-1] + 1)


class Grid(nn.Module):
    """Puts one value of the network on its grid, in float32 whatever the autocast, for bfloat16 would blur it.

    value: its name. limits: (low, high) of its range, which holds zero. In training they follow the batches' least and
    greatest as a running average that begins with the first batch; in eval mode they stand still.
    """

    limits: Tensor

    def __init__(self, value: str, low: float = 0.0, high: float = 0.0) -> None:
        super().__init__()
        self.value = value
        self.register_buffer("limits", torch.tensor([low, high]))

    def forward(self, values: Tensor) -> Tensor:
        values = values.float()
        if self.training:
            self._follow(values.detach())
        return rounded(values, self.range)

    @property
    def range(self) -> Range:
        low, high = self.limits.tolist()
        return Range(low, high)

    def _follow(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        seen = torch.stack([low.clamp(max=0), high.clamp(min=0)])
        if bool(seen.isfinite().all()):  # else the loss is not finite either, and the training loop says so
            first = not bool(self.limits.any())
            self.limits.copy_(seen if first else self.limits.lerp(seen, BATCH_SHARE))


def simulate(model: Crnn, ranges: Mapping[str, tuple[float, float]] | None = None) -> Crnn:
    """Makes the network's backbone compute as int8 would, in place; names of parameters stay what they were.

    ranges: (low, high) of every value that lies on a grid, as a model file has them; without them they are learnt in
    training. Raises ValueError where one is missing, and for a module that is not known here.
    """
    backbone = fx.symbolic_trace(model.backbone)
    for path, height in heights(backbone, model.sizes).items():
        backbone.set_submodule(path, RoundedConv.of(cast(nn.Conv2d, backbone.get_submodule(path)), height))
    grids = nn.ModuleList()
    backbone.add_module("grids", grids)
    for node, value in gridded_nodes(backbone).items():
        if ranges is not None and value not in ranges:
            raise ValueError(f"the ranges lack {value}, so they are of another network; train with --quantise-aware")
        grids.append(Grid(value, *(ranges[value] if ranges is not None else ())))
        with backbone.graph.inserting_after(node):
            on_grid = backbone.graph.call_module(f"grids.{len(grids) - 1}", (node,))
        node.replace_all_uses_with(on_grid)
        on_grid.update_arg(0, node)  # which was replaced as well
    backbone.recompile()
    backbone.to(next(model.parameters()).device)
    model.add_module("backbone", backbone.train(model.training))
    return model


@torch.no_grad()
def heights(backbone: fx.GraphModule, sizes: CrnnSizes) -> dict[str, int]:
    """Rows of the map that each convolution reads, by its path."""
    training = backbone.training
    picture = next(backbone.parameters()).new_zeros(1, sizes.channels, sizes.height, sizes.height)
    ShapeProp(backbone.eval()).propagate(picture)
    backbone.train(training)
    calls = [node for node in backbone.graph.nodes if node.op == "call_module"]
    convolutions = [node for node in calls if isinstance(backbone.get_submodule(node.target), nn.Conv2d)]
    return {node.target: node.all_input_nodes[0].meta["tensor_meta"].shape[2] for node in convolutions}


def gridded_nodes(backbone: fx.GraphModule) -> dict[fx.Node, str]:
    """The traced nodes whose results lie on a grid of their own, in the order of their making, and their names.

    BatchNorm and ReLU are part of the convolution or sum before them. Hard-swish and hard-sigmoid are computed between
    two grids; the first is NAME.linear. Max-pooling keeps the grid of its input.
    """
    named: dict[fx.Node, str] = {}
    for node in backbone.graph.nodes:
        module = backbone.get_submodule(node.target) if node.op == "call_module" else None
        if node.op == "placeholder":
            named[node] = INPUT
        elif isinstance(module, nn.Conv2d | nn.AdaptiveAvgPool2d):
            named[node] = f"backbone.{node.target}"
        elif isinstance(module, nn.BatchNorm2d | nn.ReLU):
            named[node] = named.pop(node.all_input_nodes[0])
        elif isinstance(module, nn.Hardswish | nn.Hardsigmoid):
            before = node.all_input_nodes[0]
            named[node] = named[before]
            named[before] += ".linear"
        elif node.target in JOINS:
            path, _ = list(node.meta["nn_module_stack"].values())[-1]
            named[node] = f"backbone.{path}"
        elif not isinstance(module, nn.MaxPool2d) and node.op != "output" and node.target not in ("mean", "transpose"):
            raise ValueError(
                f"quantise-aware training does not know {type(module).__name__ if module else node.target} at "
                f"{node.name}; teach it to distill/quantise_aware.py or leave --quantise-aware out"
            )
    return named


def learnt_ranges(model: Crnn) -> dict[str, tuple[float, float]]:
    """(low, high) by name of every value on a grid."""
    grids = [module for module in model.modules() if isinstance(module, Grid)]
    return {grid.value: (grid.range.low, grid.range.high) for grid in grids}


def without_simulation(model: Crnn) -> Crnn:
    """A network of floats with the weights of a simulated one, which they share."""
    with torch.device("meta"):  # nothing is drawn at random
        made = Crnn(model.sizes)
    weights = {name: w for name, w in model.state_dict().items() if not name.startswith("backbone.grids.")}
    made.load_state_dict(weights, assign=True)
    return made


def simulated_saver(out: Path, info: ModelInfo) -> Save[Crnn]:
    """As crnn.train.saver, of a simulated network: its float weights, and its ranges beside them."""

    def save(model: Crnn, reported: dict[str, Any], last: bool = False) -> None:
        plain = saver(out, replace(info, ranges=learnt_ranges(model)))
        plain(without_simulation(model), reported, last)

    return save
