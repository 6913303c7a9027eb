"""The one training loop: a model, batches, an objective and options -> a trained model and its records."""

from __future__ import annotations

import csv
import math
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crnn.charset import BLANK
from crnn.checkpoint import load_tensors, save_tensors
from crnn.commands import LEARNING_RATES, FitOptions, Until, rate
from crnn.model import Outputs
from crnn.objectives.recognition import DeviceBatch, Terms
from crnn.score import Score
from data.batches import Batch, BatchWindows, iterate
from data.picture import InputSpec

if TYPE_CHECKING:
    from crnn.optimisers.gradient_direction import GradientDirection

# A backbone meets some thirty widths; the default of 1024 entries would build its primitives anew all the time
# (deep ones train 15 % slower then).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536")

FROZEN_TEACHER = re.compile(r"(objective\.)+teacher\.")
"""Begins the names of what a distillation's teacher holds; it comes from its own file."""

LOG_EVERY = 20
"""Steps that one record of the log averages over."""


Network = TypeVar("Network", bound=nn.Module)
Saved = TypeVar("Saved", bound=nn.Module, contravariant=True)


class Save(Protocol[Saved]):
    """Writes a model file; called with weights, what training reported of them, and whether they are the last."""

    def __call__(self, model: Saved, reported: dict[str, Any], last: bool = False) -> None: ...


@dataclass
class Progress:
    """Where a run stands; all of it is in the resume state."""

    step: int = 0
    lines: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    accuracy: float = -math.inf
    losses: list[float] = field(default_factory=list)
    records: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    positions: list[tuple[int, int]] = field(default_factory=list)


class _Step(nn.Module):
    """Model and objective as one module, so that one wrapper synchronises the gradients of both."""

    def __init__(self, model: nn.Module, objective: nn.Module, autocast: bool) -> None:
        super().__init__()
        self.model, self.objective, self.autocast = model, objective, autocast

    def forward(self, batch: DeviceBatch, step: int) -> Terms:
        """The objective's terms and, of a recogniser of lines, the share of columns that it reads as blank."""
        with torch.autocast(batch.pictures.device.type, torch.bfloat16, enabled=self.autocast):
            outputs = self.model(batch.pictures)
            terms: Terms = self.objective(outputs, batch, step)
        if isinstance(outputs, Outputs):
            terms = terms | {"blank_share": (outputs.log_probs.detach().argmax(-1) == BLANK).float().mean()}
        return terms


def fit(
    model: Network,
    windows: BatchWindows,
    objective: nn.Module,
    options: FitOptions,
    save: Save[Network],
    validate: Callable[[Network], Score] | None,
    resume_from: Path,
    log: Path,
    run: str = "",
    resume: bool = False,
    begin: Callable[[], object] = lambda: None,
) -> Progress:
    """Trains until options.until; the best weights by validation accuracy and the last ones go to save.

    resume_from: the resume state: optimiser, position in the data, random states; written every save_every steps. It is
    the caller's to remove, once whatever follows the training is done: until then the run can be resumed.
    With resume the run goes on from it with the same losses, bit for bit, as if it had never stopped (one process,
    same machine and thread count). run: what must be the same then, in words; it is kept in the state and compared.
    Parameters with requires_grad False are left out of the optimiser. begin: called by the main process once nothing
    is refused any more and the run of before may be replaced.
    Raises ValueError with step, terms and keys at a loss that is not finite.
    """
    accelerator = Accelerator(
        cpu=options.device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    device = accelerator.device if options.device in ("cpu", "cuda", "mps") else torch.device(options.device)
    step_module = _Step(model, objective, options.precision == "bf16").to(device)
    step_module.to(memory_format=torch.channels_last)
    optimiser = _optimiser(step_module, options)
    average = _average(model, options.ema)
    state = _State(resume_from, run, step_module, optimiser, average)
    progress = state.load(accelerator.num_processes) if resume else Progress()
    wrapped = accelerator.prepare_model(step_module) if accelerator.num_processes > 1 else step_module
    rank, processes, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    window, number = progress.positions[rank] if progress.positions else (rank, 0)
    batches = iterate(windows, options.workers, window, number, processes)
    kept = model if average is None else cast(Network, average.module)
    until = Until.parse(options.until)
    _refuse_no_steps(until, progress, validate, resume_from)
    write_log = _open_log(options.log, log, progress) if main else _no_log
    if main:
        begin()
    if not resume:
        resume_from.unlink(missing_ok=True)  # of a run that this one replaces
    wrapped.train()
    ended = False
    with _ProgressBar(until.steps, hidden=not main) as show:
        while not ended:
            started = time.perf_counter()
            learning_rate = _set_rate(optimiser, progress.step, options)
            loss = 0.0
            for _ in range(options.accumulate):
                window, number, batch = next(batches)
                terms = wrapped(on_device(batch, windows.spec, device), progress.step)
                _refuse_not_finite(terms, progress.step, batch)
                accelerator.backward(terms["loss"] / options.accumulate)
                loss += float(terms["loss"].detach()) / options.accumulate
                _add(progress, terms, len(batch) * processes, options.accumulate)
            _update(optimiser, options, progress, batch)
            if average is not None:
                average.update_parameters(model)
            progress.step += 1
            progress.losses = [*progress.losses[-99:], loss]
            progress.seconds += time.perf_counter() - started
            show(progress, terms)
            ended = _agreed(until.reached(progress.step, _mean_loss(progress.losses), progress.accuracy))
            if validate is not None and (progress.step % options.validate_every == 0 or ended):
                _validate(kept, validate, save, progress, main)
                ended = _agreed(until.reached(progress.step, _mean_loss(progress.losses), progress.accuracy))
            if progress.step % LOG_EVERY == 0 or "accuracy" in progress.sums or ended:
                _record(progress, learning_rate, write_log)
            if progress.step % options.save_every == 0 and not ended:
                progress.positions = gather_object([(window, number + 1)])
                if main:
                    state.save(progress)
    if main:
        save(kept, _reported(progress), last=True)
        if validate is None:
            save(kept, _reported(progress))
        if options.optimiser == "gradient-direction":
            _warn_of_skipped(cast("GradientDirection", optimiser))
    return progress


def _agreed(ended: bool) -> bool:
    """The main process decides for all: each sees other losses, and one that stopped alone would leave them waiting."""
    decision = [ended]
    broadcast_object_list(decision)
    return decision[0]


def on_device(batch: Batch, spec: InputSpec, device: torch.device) -> DeviceBatch:
    """The batch's arrays as tensors, pictures scaled as the input spec says."""
    pictures = torch.from_numpy(batch.pictures).to(device).permute(0, 3, 1, 2)  # (N, C, H, W), channels last
    return DeviceBatch(
        pictures=pictures.float() * spec.scale + spec.offset,
        classes=torch.from_numpy(batch.targets).to(device),
        lengths=torch.from_numpy(batch.target_lengths).to(device),
        columns=torch.from_numpy(batch.column_classes).to(device),
        items=torch.from_numpy(batch.items),
    )


def _average(model: nn.Module, decay: float) -> AveragedModel | None:
    """A running average of weights and statistics; None for decay 0."""
    if not decay:
        return None
    average: AveragedModel = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
    return average


def _optimiser(module: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    """The one asked for, over the trainable parameters."""
    if options.optimiser == "gradient-direction":
        from crnn.optimisers.gradient_direction import GradientDirection, decay_to

        decay = decay_to(options.step_decay_to, options.steps) if options.step_decay is None else options.step_decay
        trainable = [p for p in module.parameters() if p.requires_grad]
        return GradientDirection(
            trainable, options.learning_rate, decay=decay, threshold=options.step_threshold, floor=options.step_floor,
            momentum=options.momentum or 0.0,
        )  # fmt: skip
    groups = _parameter_groups(module, options.weight_decay)
    if options.optimiser == "sgd":
        return torch.optim.SGD(groups, LEARNING_RATES["sgd"], 0.9 if options.momentum is None else options.momentum)
    return torch.optim.AdamW(groups, LEARNING_RATES["adamw"])


def _set_rate(optimiser: torch.optim.Optimizer, step: int, options: FitOptions) -> float:
    """Sets the learning rate of a step, where the optimiser does not do so itself, and returns it."""
    if options.optimiser != "gradient-direction":
        learning_rate = options.learning_rate or LEARNING_RATES[options.optimiser]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate(step, options)
    return float(optimiser.param_groups[0]["lr"])


def _update(optimiser: torch.optim.Optimizer, options: FitOptions, progress: Progress, batch: Batch) -> None:
    """One step of the optimiser on the gradients there are; ValueError where they are not finite.

    gradient-direction leaves such a step out, and the log has the share of these.
    """
    sums = progress.sums
    if options.optimiser == "gradient-direction":
        direction = cast("GradientDirection", optimiser)
        before = direction.skipped
        direction.step()
        norm = direction.norm if math.isfinite(direction.norm) else 0.0
        sums["skipped_share"] = sums.get("skipped_share", 0.0) + (direction.skipped - before)
    else:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, options.clip or math.inf))
        if not math.isfinite(norm):
            raise ValueError(
                f"the gradient at step {progress.step} is not finite ({norm}); look at the lines "
                f"{', '.join(batch.keys)}, or lower --learning-rate"
            )
        optimiser.step()
    sums["gradient_norm"] = sums.get("gradient_norm", 0.0) + norm
    optimiser.zero_grad()


def _warn_of_skipped(optimiser: GradientDirection) -> None:
    if optimiser.skipped:
        print(
            f"warning: {optimiser.skipped} of {optimiser.skipped + optimiser.taken} steps were left out, since their "
            "gradient was zero or not finite; the log's skipped_share says where",
            file=sys.stderr,
        )


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters only; biases and normalisation are not decayed."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _validate(
    kept: Network, validate: Callable[[Network], Score], save: Save[Network], progress: Progress, main: bool
) -> None:
    result = validate(kept)
    progress.accuracy = result.exact
    progress.sums |= {"accuracy": result.exact, "acc36": result.acc36, "cer": result.cer}
    if progress.accuracy >= progress.best:
        progress.best = progress.accuracy
        if main:
            save(kept, _reported(progress))


def _reported(progress: Progress) -> dict[str, Any]:
    reported: dict[str, Any] = {"steps": progress.step, "lines": progress.lines, "seconds": round(progress.seconds, 1)}
    if math.isfinite(progress.accuracy):
        reported["validation_accuracy"] = progress.accuracy
    return reported


def _mean_loss(losses: list[float]) -> float:
    """Of the last 100 steps; infinite before there are as many."""
    return sum(losses) / len(losses) if len(losses) == 100 else math.inf


def _refuse_no_steps(until: Until, progress: Progress, validate: object, resume_from: Path) -> None:
    """ValueError where the run could not end as asked, or has ended before it begins."""
    if math.isfinite(until.accuracy) and validate is None:
        raise ValueError(
            f"--until accuracy>{until.accuracy} needs validation lines, and there are none; see --validation"
        )
    if until.reached(progress.step, _mean_loss(progress.losses), progress.accuracy):
        raise ValueError(
            f"{resume_from} is at step {progress.step}, where --until has already been reached; ask for more steps"
        )


def _refuse_not_finite(terms: Terms, step: int, batch: Batch) -> None:
    if not bool(torch.isfinite(terms["loss"].detach())):
        values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
        raise ValueError(
            f"the loss at step {step} is not finite ({values}); look at the lines {', '.join(batch.keys)}, or lower "
            f"--learning-rate"
        )


def _add(progress: Progress, terms: Terms, lines: int, accumulate: int) -> None:
    """Counts one batch."""
    sums = progress.sums
    for name, value in terms.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach()) / accumulate
    progress.lines += lines


def _record(progress: Progress, learning_rate: float, write: Callable[[dict[str, float]], None]) -> None:
    before = progress.records[-1]["step"] if progress.records else 0
    steps = max(1, progress.step - int(before))
    record: dict[str, float] = {
        "step": progress.step,
        "lines": progress.lines,
        "seconds": round(progress.seconds, 2),
        "learning_rate": learning_rate,
    }
    whole = {"accuracy", "acc36", "cer"}
    record |= {name: value if name in whole else value / steps for name, value in progress.sums.items()}
    progress.sums = {}
    progress.records.append(record)
    write(record)


def _no_log(record: dict[str, float]) -> None:
    """Of every process but the main one."""


def _open_log(kind: str, path: Path, progress: Progress) -> Callable[[dict[str, float]], None]:
    """A function that logs one record; rows of an earlier run up to the resumed step are kept."""
    if kind == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("--log tensorboard needs the package tensorboard; install it or use --log csv") from error
        writer = SummaryWriter(str(path.with_suffix("")))

        def write_events(record: dict[str, float]) -> None:
            for name, value in record.items():
                writer.add_scalar(name, value, int(record["step"]))
            writer.flush()

        return write_events

    path.parent.mkdir(parents=True, exist_ok=True)
    names: list[str] = []

    def write_rows(record: dict[str, float]) -> None:
        if names and set(record) <= set(names):
            with path.open("a", newline="") as file:
                csv.DictWriter(file, names, restval="").writerow(record)
            return
        names[:] = dict.fromkeys([*names, *(name for row in progress.records for name in row)])
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, names, restval="")
            rows.writeheader()
            rows.writerows(progress.records)

    return write_rows


@dataclass(frozen=True)
class _State:
    """The resume state: what only a resumed run needs, in a file of its own. The frozen teacher is not in it."""

    path: Path
    run: str
    module: _Step
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None

    def save(self, progress: Progress) -> None:
        weights = self.module.state_dict()
        save_tensors(
            self.path,
            {
                "run": self.run,
                "module": {name: value for name, value in weights.items() if not FROZEN_TEACHER.match(name)},
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.state_dict() if self.average is not None else {},
                "progress": dict(vars(progress)),
                "random": torch.get_rng_state(),
            },
        )

    def load(self, processes: int) -> Progress:
        """Brings everything to where the run stood; ValueError where the file is the state of another run."""
        content = load_tensors(self.path)
        if content.get("run") != self.run:
            raise ValueError(
                f"{self.path} is the state of a run with other options, files or lines "
                f"({_differing(str(content.get('run')), self.run)}); resume with those of that run, "
                "or start anew with --overwrite"
            )
        try:
            missing, unexpected = self.module.load_state_dict(content["module"], strict=False)
            if unexpected or not all(map(FROZEN_TEACHER.match, missing)):
                raise KeyError(*[name for name in [*unexpected, *missing] if not FROZEN_TEACHER.match(name)][:1])
            self.optimiser.load_state_dict(content["optimiser"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
            torch.set_rng_state(content["random"])
            progress = Progress(**content["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path} is the state of another run ({str(error).splitlines()[0]}); resume with the options of "
                "that run, or start anew with --overwrite"
            ) from error
        progress.positions = [(int(w), int(b)) for w, b in progress.positions]
        if len(progress.positions) != processes:
            raise ValueError(
                f"{self.path} was written by {len(progress.positions)} processes and {processes} run now; start as many"
            )
        return progress


def _differing(then: str, now: str) -> str:
    """The first line in which two runs differ."""
    pairs = zip(then.splitlines(), now.splitlines(), strict=False)
    return next(
        (f"{a.strip(' ,')} then, {b.strip(' ,')} now" for a, b in pairs if a != b), "they are of another version"
    )


class _ProgressBar:
    """A rich progress bar on standard error that also shows loss, share of blanks and accuracy."""

    def __init__(self, steps: int, hidden: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
        description = TextColumn("{task.description}")
        self.bar = Bar(*columns, description, console=Console(stderr=True), disable=hidden, refresh_per_second=2)
        self.steps = steps

    def __enter__(self) -> Callable[[Progress, Terms], None]:
        self.bar.start()
        self.task = self.bar.add_task("", total=self.steps)
        return self.show

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, progress: Progress, terms: Terms) -> None:
        if self.bar.disable or progress.step % 5:
            return
        accuracy = f", accuracy {progress.accuracy:.1%}" if math.isfinite(progress.accuracy) else ""
        blank = ""
        if "blank_share" in terms:
            share = float(terms["blank_share"])
            blank = f", {share:.0%} blank" + (" (all blank: the usual plateau at the start)" if share > 0.99 else "")
        speed = progress.lines / progress.seconds
        self.bar.update(
            self.task,
            completed=progress.step,
            description=f"loss {progress.losses[-1]:.3f}{blank}, {speed:.0f} lines/s{accuracy}",
        )
