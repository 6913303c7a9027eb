"""The gradient-direction optimiser, beside its formula written out in plain Python."""

from __future__ import annotations

import copy
import io
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crnn.optimisers.gradient_direction import GradientDirection, decay_to, first_step, total_norm

Numbers = list[float]


def parameter(*values: float, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def with_gradient(values: Numbers, gradient: Numbers, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    made = parameter(*values, dtype=dtype)
    made.grad = torch.tensor(gradient, dtype=dtype)
    return made


def written_out(
    x: Numbers, gradients: list[Numbers], step: float, decay: float = 0.0, threshold: float = 0.0, floor: float = 0.0,
    momentum: float = 0.0,
) -> Numbers:  # fmt: skip
    """The method, number by number."""
    shrinks, memory = step > threshold, [0.0] * len(x)
    for g in gradients:
        length = math.sqrt(sum(value * value for value in g))
        if length == 0 or not math.isfinite(length):
            continue
        memory = [momentum * m + (1 - momentum) * value for m, value in zip(memory, g, strict=True)]
        length = math.sqrt(sum(m * m for m in memory))
        x = [value - step * m / length for value, m in zip(x, memory, strict=True)]
        if shrinks and step > floor:
            step = max(floor, step * (1 - decay))
    return x


def run(optimiser: GradientDirection, tensors: list[nn.Parameter], gradients: list[Numbers]) -> Numbers:
    """The numbers of all tensors after a step on each gradient, which is laid over them one after another."""
    for gradient in gradients:
        rest = torch.tensor(gradient, dtype=torch.float64)
        for tensor in tensors:
            tensor.grad, rest = rest[: tensor.numel()].view_as(tensor).to(tensor.dtype), rest[tensor.numel() :]
        optimiser.step()
    return [float(value) for tensor in tensors for value in tensor.detach().double().flatten()]


def random_gradients(count: int, size: int, seed: int = 0) -> list[Numbers]:
    generator = torch.Generator().manual_seed(seed)
    rows: list[Numbers] = torch.randn(count, size, generator=generator, dtype=torch.float64).tolist()
    return rows


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"decay": 0.1},
        {"decay": 0.1, "threshold": 0.6},
        {"decay": 0.1, "floor": 0.3},
        {"decay": 0.05, "momentum": 0.8},
    ],
)
def test_steps_are_those_of_the_formula_written_out(settings: dict[str, float], foreach: bool) -> None:
    gradients = random_gradients(20, 5)
    gradients[7] = [0.0] * 5
    gradients[11][2] = math.inf
    tensors = [parameter(1.0, -2.0), parameter(0.5, 0.0, 3.0)]
    optimiser = GradientDirection(tensors, lr=0.5, foreach=foreach, **{"decay": 0.0, **settings})
    expected = written_out([1.0, -2.0, 0.5, 0.0, 3.0], gradients, 0.5, **settings)
    assert run(optimiser, tensors, gradients) == pytest.approx(expected, abs=1e-12)
    assert (optimiser.taken, optimiser.skipped) == (18, 2)


def test_the_first_step_comes_from_the_number_of_trainable_parameters() -> None:
    frozen = nn.Parameter(torch.zeros(1000), requires_grad=False)
    optimiser = GradientDirection([nn.Parameter(torch.zeros(62_000)), frozen, nn.Parameter(torch.zeros(6))])
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.3486, abs=5e-5)  # as published, "0.34"
    assert first_step(61_706) == pytest.approx(0.3478, abs=5e-5)


def test_an_update_moves_all_parameters_together_by_exactly_the_step() -> None:
    network = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    optimiser = GradientDirection(network.parameters(), lr=0.25)
    network(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
    optimiser.step()
    after = nn.utils.parameters_to_vector(network.parameters()).detach()
    assert float((after - before).norm()) == pytest.approx(0.25)


def test_the_size_of_the_loss_does_not_matter() -> None:
    gradients = random_gradients(6, 3)
    larger = [[1000 * value for value in gradient] for gradient in gradients]
    a, b = parameter(1.0, 2.0, 3.0), parameter(1.0, 2.0, 3.0)
    assert run(GradientDirection([a], 0.1), [a], gradients) == pytest.approx(
        run(GradientDirection([b], 0.1), [b], larger)
    )


def test_without_decay_and_with_a_gradient_of_length_one_it_is_plain_gradient_descent() -> None:
    gradients = [[0.6, 0.8], [1.0, 0.0], [-0.8, 0.6]]
    ours, plain = parameter(1.0, 1.0), parameter(1.0, 1.0)
    sgd = torch.optim.SGD([plain], 0.1)
    for gradient in gradients:
        plain.grad = torch.tensor(gradient, dtype=torch.float64)
        sgd.step()
    assert run(GradientDirection([ours], 0.1, decay=0.0), [ours], gradients) == pytest.approx(plain.tolist())


def test_groups_share_one_norm_and_may_differ_in_step_and_decay() -> None:
    a, b = with_gradient([0.0], [3.0]), with_gradient([0.0], [4.0])
    optimiser = GradientDirection([{"params": [a]}, {"params": [b], "lr": 1.0, "decay": 0.5}], lr=0.1, decay=0.0)
    optimiser.step()
    assert (a.item(), b.item()) == pytest.approx((-0.1 * 3 / 5, -1.0 * 4 / 5))
    optimiser.step()
    assert (a.item(), b.item()) == pytest.approx((-0.2 * 3 / 5, -1.5 * 4 / 5))


def test_groups_are_counted_together_and_split_nothing() -> None:
    gradients = random_gradients(8, 6)
    together = [parameter(1.0, 2.0, 3.0), parameter(4.0, 5.0, 6.0)]
    apart = copy.deepcopy(together)
    one, two = GradientDirection(together), GradientDirection([{"params": [p]} for p in apart])
    assert run(one, together, gradients) == run(two, apart, gradients)
    assert two.param_groups[1]["lr"] == one.param_groups[0]["lr"]


def test_a_group_that_joins_later_starts_at_the_first_step_and_shares_the_norm() -> None:
    a = with_gradient([0.0], [3.0])
    optimiser = GradientDirection([a], lr=0.5, decay=0.5)
    optimiser.step()
    b = with_gradient([0.0], [4.0])
    optimiser.add_param_group({"params": [b]})
    optimiser.step()
    assert a.item() == pytest.approx(-0.5 - 0.25 * 3 / 5)
    assert b.item() == pytest.approx(-0.5 * 4 / 5)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    whole = nn.Linear(3, 2).double()
    parts = copy.deepcopy(whole)
    batch = torch.randn(8, 3, dtype=torch.float64)
    for network, pieces in ((whole, [batch]), (parts, list(batch.split(2)))):
        optimiser = GradientDirection(network.parameters(), lr=0.3)
        for piece in pieces:
            (network(piece).square().mean() / len(pieces)).backward()
        optimiser.step()
    assert torch.allclose(whole.weight, parts.weight)


def test_parameters_without_a_gradient_take_no_part() -> None:
    still, moving = parameter(7.0), with_gradient([0.0, 0.0], [3.0, 4.0])
    optimiser = GradientDirection([still, moving], lr=0.1)
    optimiser.step()
    assert still.item() == 7.0
    assert moving.tolist() == pytest.approx([-0.06, -0.08])


@pytest.mark.parametrize("gradient", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [-math.inf, math.inf]])
def test_a_norm_of_zero_or_none_at_all_skips_the_update_and_is_counted(gradient: Numbers) -> None:
    x = with_gradient([1.0, 2.0], gradient)
    optimiser = GradientDirection([x], lr=0.5, decay=0.5, momentum=0.9)
    optimiser.step()
    assert x.tolist() == [1.0, 2.0]
    assert (optimiser.taken, optimiser.skipped) == (0, 1)
    assert optimiser.param_groups[0]["lr"] == 0.5
    assert run(optimiser, [x], [[3.0, 4.0]]) == pytest.approx([1 - 0.3, 2 - 0.4])  # its memory is clean as well


def test_no_gradient_anywhere_is_a_skipped_update() -> None:
    optimiser = GradientDirection([parameter(1.0)])
    optimiser.step()
    assert optimiser.skipped == 1


def test_a_first_step_that_is_not_above_the_threshold_is_kept_to_the_end() -> None:
    x = parameter(0.0)
    optimiser = GradientDirection([x], lr=0.5, decay=0.1, threshold=0.5)
    run(optimiser, [x], [[1.0]] * 10)
    assert optimiser.param_groups[0]["lr"] == 0.5


def test_shrinking_does_not_end_at_the_threshold_but_at_the_floor() -> None:
    x = parameter(0.0)
    optimiser = GradientDirection([x], lr=0.5, decay=0.1, threshold=0.4)
    run(optimiser, [x], [[1.0]] * 10)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.5 * 0.9**10)
    optimiser = GradientDirection([x], lr=0.5, decay=0.1, floor=0.4)
    run(optimiser, [x], [[1.0]] * 10)
    assert optimiser.param_groups[0]["lr"] == 0.4


def test_the_decay_from_a_share_leaves_that_share() -> None:
    step = 1.0
    for _ in range(500):
        step *= 1 - decay_to(0.01, 500)
    assert step == pytest.approx(0.01)
    assert decay_to(0.01, 15_640) == pytest.approx(0.0003, rel=0.02)  # the published example
    assert decay_to(1.0, 10) == 0.0


def test_a_state_that_was_written_and_read_goes_on_bit_for_bit() -> None:
    gradients = [*random_gradients(9, 4), [0.0] * 4, *random_gradients(9, 4, seed=1)]
    settings: dict[str, Any] = {"decay": 0.01, "momentum": 0.7}
    whole = parameter(1.0, 2.0, 3.0, 4.0, dtype=torch.float32)
    expected = run(GradientDirection([whole], **settings), [whole], gradients)
    x = parameter(1.0, 2.0, 3.0, 4.0, dtype=torch.float32)
    first = GradientDirection([x], **settings)
    run(first, [x], gradients[:10])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = GradientDirection([x], lr=77.0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert (second.taken, second.skipped) == (9, 1)
    assert second.param_groups == first.param_groups
    assert run(second, [x], gradients[10:]) == expected


def test_a_copy_goes_on_as_the_original() -> None:
    x = parameter(1.0, 2.0)
    first = GradientDirection([x], decay=0.1)
    run(first, [x], [[1.0, 1.0]])
    second = copy.deepcopy(first)
    (own,) = second.param_groups[0]["params"]
    gradients = random_gradients(3, 2)
    assert run(second, [own], gradients) == run(first, [x], gradients)


def test_a_closure_computes_the_gradient_with_gradients_on_and_its_loss_is_returned() -> None:
    x = parameter(3.0, 4.0)
    optimiser = GradientDirection([x], lr=1.0)

    def closure() -> float:
        optimiser.zero_grad()
        loss: Tensor = 0.5 * x.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimiser.step(closure) == pytest.approx(12.5)
    assert x.tolist() == pytest.approx([3 - 0.6, 4 - 0.8])


@pytest.mark.parametrize("foreach", [True, False])
def test_the_norm_of_many_small_bfloat16_numbers_is_summed_in_float32(foreach: bool) -> None:
    x = nn.Parameter(torch.zeros(90_000, dtype=torch.bfloat16))
    x.grad = torch.full_like(x, 2**-10)
    optimiser = GradientDirection([x], lr=300.0, foreach=foreach)
    optimiser.step()
    assert optimiser.norm == pytest.approx(300 * 2**-10)
    assert torch.equal(x, torch.full_like(x, -1.0))


def test_float16_gradients_neither_overflow_nor_vanish() -> None:
    for size in (6e4, 6e-8):  # squares of both lie outside float16
        x = nn.Parameter(torch.zeros(4, dtype=torch.float16))
        x.grad = torch.full_like(x, size)
        GradientDirection([x], lr=2.0).step()
        assert x.tolist() == [-1.0] * 4


def test_parameters_of_several_kinds_share_one_norm() -> None:
    tensors = [with_gradient([0.0], [value], dtype) for value, dtype in (
        (1.0, torch.float32), (2.0, torch.bfloat16), (4.0, torch.float16), (10.0, torch.float64),
    )]  # fmt: skip
    optimiser = GradientDirection(tensors, lr=1.0)
    optimiser.step()
    assert optimiser.norm == 11.0
    assert [t.item() for t in tensors] == pytest.approx([-1 / 11, -2 / 11, -4 / 11, -10 / 11], rel=4e-3)


def test_gradients_that_a_scaler_left_scaled_give_the_same_step() -> None:
    a, b = with_gradient([1.0, 1.0], [3.0, 4.0]), with_gradient([1.0, 1.0], [3.0 * 65536, 4.0 * 65536])
    GradientDirection([a], lr=0.5).step()
    GradientDirection([b], lr=0.5).step()
    assert a.tolist() == b.tolist()


def test_the_norm_of_no_tensor_is_zero_and_of_several_that_of_all_their_numbers() -> None:
    assert total_norm([]) == 0.0
    tensors = [torch.randn(3, 4), torch.randn(5)]
    expected = math.sqrt(sum(float(v) ** 2 for t in tensors for v in t.flatten()))
    assert total_norm(tensors) == pytest.approx(expected)
    assert total_norm(tensors, foreach=False) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lr": 0.0}, "first step"), ({"lr": math.inf}, "first step"), ({"decay": 1.0}, "decay is 1.0"),
        ({"lr": 0.1, "floor": 0.2}, "floor is 0.2"), ({"momentum": 1.0}, "momentum is 1.0"),
        ({"coefficient": 0.0}, "coefficient is 0.0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        GradientDirection([parameter(1.0)], **settings)


def test_parameters_that_are_all_frozen_have_no_first_step() -> None:
    with pytest.raises(ValueError, match="no parameter is trainable"):
        GradientDirection([nn.Parameter(torch.zeros(3), requires_grad=False)])


def test_sparse_gradients_are_refused() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="a gradient is sparse"):
        GradientDirection(embedding.parameters()).step()


TWO_PROCESSES = """
import os
import sys
import torch
from torch import distributed, nn
from crnn.optimisers.gradient_direction import GradientDirection

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
batch = torch.randn(5, 8, 4, dtype=torch.float64)
wrapped = nn.parallel.DistributedDataParallel(network)
optimiser = GradientDirection(network.parameters(), decay=0.1)
for step in range(5):
    wrapped(batch[step, 4 * rank : 4 * rank + 4]).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()
torch.save((network.state_dict(), optimiser.param_groups[0]["lr"]), f"{folder}/{rank}.pt")
distributed.barrier()
os._exit(0)  # gloo's threads, where the other process is gone first, may end this one with an abort
"""


def test_two_processes_step_by_the_norm_of_their_averaged_gradient(tmp_path: Path, repository: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    started = [
        subprocess.Popen([*command, rank], env=environment, stderr=subprocess.PIPE, text=True) for rank in ("0", "1")
    ]
    told = [process.communicate()[1][-2000:] for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    batch = torch.randn(5, 8, 4, dtype=torch.float64)
    optimiser = GradientDirection(network.parameters(), decay=0.1)
    for whole in batch:
        network(whole).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    for rank in range(2):
        weights, step = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert step == optimiser.param_groups[0]["lr"]
        assert all(torch.allclose(weights[name], value) for name, value in network.state_dict().items())
