"""Steps of a known length along the gradient: normalised gradient descent whose first step is computed.

Field names: normalised gradient descent (Nesterov 1984; Hazan et al. 2015); with momentum, normalised SGD with momentum
(Cutkosky and Mehta 2020). LARS and LAMB are its layer-wise cousins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENT = 0.0014
"""Of the root of the number of parameters, in the first step."""

PUBLISHED_DECAY = 0.0003
"""b of the published example, whose 15,640 updates end at 0.009 of the first step."""


def first_step(parameters: int, coefficient: float = COEFFICIENT) -> float:
    """a0 = coefficient * sqrt(parameters), in units of the parameters."""
    return coefficient * math.sqrt(parameters)


def decay_to(share: float, updates: int) -> float:
    """The decay b that leaves a share of the first step after so many updates: (1 - b) ** updates = share."""
    return 1.0 - float(share ** (1 / updates))


class GradientDirection(Optimizer):
    """x <- x - a_t * g / ||g||, the norm over all parameters of all groups together; then a_{t+1} = a_t * (1 - b).

    params: tensors or groups, as torch's optimisers take them; group["lr"] is a_t, the step that the next update makes.
    lr: a0; where it is not given, coefficient * sqrt(num), num counting the numbers in params that are trainable.
    decay: b. threshold: the step shrinks where a0 is above it, which is decided once; else it stays a0. floor: a step
    that the shrinking does not go below. momentum: an extra of ours, 0 as published: the direction is then that of
    m <- momentum * m + (1 - momentum) * g. foreach: all tensors in one call, as torch's foreach.

    An update whose ||g|| is zero or not finite is skipped and counted, and the step does not shrink. Norms are summed
    in float32 or better. Parameters without a gradient take no part. The gradient is taken as it lies in .grad:
    accumulated, averaged over processes (DDP), or scaled, which changes nothing without momentum, nor would clipping by
    the norm. Not for parameters of which a process holds a part (FSDP), nor under a scheduler that sets group["lr"]
    itself. One number is read from the device in every step.
    Raises ValueError for settings that cannot be, for parameters none of which is trainable, and for sparse gradients.
    """

    norm: float = math.nan
    """||g|| of the last step, whether it was taken or skipped."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        coefficient: float = COEFFICIENT,
        decay: float = PUBLISHED_DECAY,
        threshold: float = 0.0,
        floor: float = 0.0,
        momentum: float = 0.0,
        foreach: bool = True,
    ) -> None:
        if not coefficient > 0:
            raise ValueError(f"the coefficient is {coefficient}; give a number above 0")
        settings = {"lr": lr, "decay": decay, "threshold": threshold, "floor": floor, "momentum": momentum}
        super().__init__(params, settings | {"foreach": foreach})
        if lr is None:
            groups = self.param_groups
            count = sum(p.numel() for group in groups for p in group["params"] if p.requires_grad)
            if not count:
                raise ValueError("no parameter is trainable, so there is no first step to compute; give some that are")
            self.defaults["lr"] = first_step(count, coefficient)
            for group in groups:
                group["lr"] = self.defaults["lr"] if group["lr"] is None else group["lr"]
                _begin(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A further group; its step starts at its own lr, or at that of the whole, which is not computed anew."""
        super().add_param_group(param_group)
        if self.defaults["lr"] is not None:
            _begin(self.param_groups[-1])

    @property
    def skipped(self) -> int:
        """Updates that were left out, since ||g|| was zero or not finite."""
        return int(self.param_groups[0]["skipped"])

    @property
    def taken(self) -> int:
        """Updates that were made."""
        return int(self.param_groups[0]["taken"])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; closure, where it is given, computes the gradients first, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        gradients = [[_dense(p.grad) for p in parameters] for parameters in moving]
        foreach = all(group["foreach"] for group in self.param_groups)
        self.norm = total_norm([g for group in gradients for g in group], foreach)
        taken = math.isfinite(self.norm) and self.norm > 0
        directions, norm = gradients, self.norm
        if taken and any(group["momentum"] for group in self.param_groups):
            triples = zip(self.param_groups, moving, gradients, strict=True)
            directions = [self._averaged(group, *both) for group, *both in triples]
            norm = total_norm([d for group in directions for d in group], foreach)
            taken = norm > 0  # a gradient and the memory of earlier ones may cancel
        for group, parameters, ways in zip(self.param_groups, moving, directions, strict=True):
            group["taken" if taken else "skipped"] += 1
            if not taken:
                continue
            _subtract(parameters, ways, group["lr"] / norm, group["foreach"])
            if group["shrinks"] and group["lr"] > group["floor"]:
                group["lr"] = max(group["floor"], group["lr"] * (1 - group["decay"]))
        return loss

    def _averaged(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The running averages of a group's gradients after these; the gradients themselves without momentum."""
        if not group["momentum"]:
            return gradients
        for parameter in parameters:
            if "average" not in self.state[parameter]:
                self.state[parameter]["average"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        averages: list[Tensor] = [self.state[parameter]["average"] for parameter in parameters]
        if averages:
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        return averages


def total_norm(tensors: list[Tensor], foreach: bool = True) -> float:
    """Euclidean norm of all numbers in all tensors, summed in float32, or float64 where one is; 0 without tensors."""
    if not tensors:
        return 0.0
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    if foreach:
        norms = torch._foreach_norm(tensors, 2, dtype)
    else:
        norms = tuple(torch.linalg.vector_norm(t, dtype=dtype) for t in tensors)
    return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])))


def _begin(group: dict[str, Any]) -> None:
    """Checks a group's settings and starts its course."""
    lr, decay, floor, momentum = (group[name] for name in ("lr", "decay", "floor", "momentum"))
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"the first step (lr) is {lr}; give a number above 0")
    if not 0 <= decay < 1:
        raise ValueError(f"the decay is {decay}; give 0 to just under 1, such as {PUBLISHED_DECAY}")
    if not 0 <= floor <= lr:
        raise ValueError(f"the floor is {floor} and the first step {lr}; give a floor from 0 to the first step")
    if not 0 <= momentum < 1:
        raise ValueError(f"the momentum is {momentum}; give 0 to just under 1")
    group |= {"shrinks": lr > group["threshold"], "taken": 0, "skipped": 0}


def _dense(gradient: Tensor | None) -> Tensor:
    if gradient is None or gradient.is_sparse:
        raise ValueError("a gradient is sparse, and the norm is that of dense ones; build the embedding without sparse")
    return gradient


def _subtract(parameters: list[Tensor], directions: list[Tensor], scale: float, foreach: bool) -> None:
    """x <- x - scale * direction, in place."""
    if any(p.dtype == torch.float16 for p in parameters):  # the scale may lie outside float16, its product does not
        directions, scale = [(d.float() * scale).to(d.dtype) for d in directions], 1.0
    if foreach and parameters:
        torch._foreach_add_(parameters, directions, alpha=-scale)
        return
    for parameter, direction in zip(parameters, directions, strict=True):
        parameter.add_(direction, alpha=-scale)
