"""What commands share: errors as one sentence, options from flags or a run file, and what a training run is told."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")
Name = TypeVar("Name", bound=str)
USAGE_ERROR, ERROR, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 141
OWN_PACKAGES = ("crnn", "data", "distill", "export", "benchmarks")
UNTIL = re.compile(r"(loss|accuracy)([<>])([0-9.eE+-]+)")


def run_command(prog: str, function: Callable[[list[str]], int], argv: list[str]) -> int:
    """Calls a command and turns what may go wrong into one sentence on stderr and an exit status.

    0 fine, 1 an error, 2 wrong usage, 130 interrupted. Faults of ours keep their traceback, and with
    POCKET_CRNN_TRACEBACK=1 in the environment every error does.
    """
    own_packages_first()
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal lacks is escaped, and ends no command
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # its warnings would stand beside our sentences
    try:
        return function(argv)
    except SystemExit as stop:  # raised by the parser: 0 after --help, 2 after a wrong flag
        return stop.code if isinstance(stop.code, int) else ERROR if stop.code else 0
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        if os.environ.get("POCKET_CRNN_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"{prog}: {sentence(error)}", file=sys.stderr)
        return ERROR


def sentence(error: Exception) -> str:
    """The error's own sentence; for one that the system raised, the file and what is wrong with it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


def own_packages_first() -> None:
    """A user's own data/ or export.py, in the working folder or on PYTHONPATH, must not stand in for ours.

    Places that hold such a name are moved behind the place of this file. They stay on the path, and worker
    processes inherit the order.
    """
    own = str(Path(__file__).resolve().parent.parent)
    others = [place for place in sys.path if os.path.realpath(place or ".") != own and _holds_own_name(place)]
    if not others:
        return
    rest = [place for place in sys.path if place not in others and os.path.realpath(place or ".") != own]
    sys.path[:] = [*rest, own, *others]


def _holds_own_name(place: str) -> bool:
    folder = Path(place or ".")
    return any((folder / name / "__init__.py").exists() or (folder / f"{name}.py").exists() for name in OWN_PACKAGES)


def weighted_names(flag: str, parts: Sequence[str], known: Sequence[Name], besides: str = "") -> dict[Name, float]:
    """("l1", "l2:0.5") -> weights by name, 1 where none stands; ValueError lists the known ones, and besides."""
    weights: dict[Name, float] = {}
    by_name: dict[str, Name] = {name: name for name in known}
    for part in parts:
        name, _, number = part.partition(":")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = 0.0
        if name not in by_name or not 0 < weight < math.inf:
            names = ", ".join(known)
            raise ValueError(f"{flag} {part!r} is not understood; give {names}, each with :weight or alone{besides}")
        if by_name[name] in weights:
            raise ValueError(f"{flag} names {name} twice; give it one weight")
        weights[by_name[name]] = weight
    return weights


LEARNING_RATES = {"adamw": 2e-3, "sgd": 0.05}
"""Where none is given; gradient-direction computes its own."""

OWN_STEP = ("step_decay_to", "step_decay", "step_threshold", "step_floor")
WITHOUT_PART = {
    "adamw": ("momentum", *OWN_STEP),
    "sgd": OWN_STEP,
    "gradient-direction": ("warm_up", "final_rate", "weight_decay", "clip"),
}
"""Optimiser -> options of the others, which are refused rather than ignored."""


MOST_WIDTH = 16
"""Of a backbone, as a multiple of its usual channels."""


@dataclass(frozen=True)
class FitOptions:
    """Options of the one training loop.

    Attributes:
        until: when to stop, whichever comes first: a number of steps, loss<0.1 (mean of the last 100 steps) or
            accuracy>0.95 (on validation lines). The number of steps also sets the length of the cosine
            and what step_decay_to comes to.
        batch_lines: lines in a batch.
        accumulate: batches whose gradients are averaged into one step.
        optimiser: adamw; sgd, with momentum; or gradient-direction, whose steps have a length of their own: it needs no
            learning rate, and warm-up, cosine, weight decay and clipping have no part in it.
        learning_rate: after warm-up; of gradient-direction, the length of the first step. Where it is not given: 2e-3
            for adamw (8e-3 in distill, 1e-3 in extend-charset), 0.05 for sgd, and 0.0014 times the root of the number
            of trainable parameters for gradient-direction.
        warm_up: steps of linear warm-up; adamw and sgd.
        final_rate: share of the learning rate that the cosine ends at; adamw and sgd.
        weight_decay: on matrices and kernels only; adamw and sgd.
        clip: greatest norm of the gradient over all parameters; 0 for no clipping; adamw and sgd.
        momentum: of sgd, 0.9 where it is not given; of gradient-direction an extra, 0 as published.
        step_decay_to: gradient-direction: share of the first step that is left after the planned number of steps.
        step_decay: gradient-direction: by how much each step is shorter than the last, instead of step_decay_to; 0.0003
            as published, for 15,640 steps.
        step_threshold: gradient-direction: a first step that is not above it is kept to the end.
        step_floor: gradient-direction: steps do not become shorter than this.
        ema: decay of the running average of weights that is validated and saved; 0 for none.
        precision: of the backbone; bf16 pays on processors with AVX-512 BF16 or AMX and on accelerators.
        validate_every: steps between validations.
        save_every: steps between saved resume states.
        log: beside the result: a CSV file, or TensorBoard events (needs the package tensorboard).
        workers: processes that load and draw lines.
        threads: of the network's arithmetic; 0 leaves torch's choice.
        device: cpu, cuda, cuda:1, mps.
        seed: of weights, order and augmentation.
    """

    until: tuple[str, ...] = ("10000",)
    batch_lines: int = 32
    accumulate: int = 1
    optimiser: Literal["adamw", "sgd", "gradient-direction"] = "adamw"
    learning_rate: float | None = None
    warm_up: int = 200
    final_rate: float = 0.01
    weight_decay: float = 0.01
    clip: float = 5.0
    momentum: float | None = None
    step_decay_to: float = 0.01
    step_decay: float | None = None
    step_threshold: float = 0.0
    step_floor: float = 0.0
    ema: float = 0.0
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: int = 500
    save_every: int = 500
    log: Literal["csv", "tensorboard"] = "csv"
    workers: int = 1
    threads: int = 0
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        Until.parse(self.until)
        for name in ("batch_lines", "accumulate", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give at least 1")
        for name in ("warm_up", "final_rate", "weight_decay", "clip", "step_threshold", "step_floor", "workers",
                     "threads", "seed"):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give at least 0")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"--learning-rate is {self.learning_rate}; give a number above 0")
        if not 0 <= (self.momentum or 0) < 1:
            raise ValueError(f"--momentum is {self.momentum}; give 0 to just under 1, such as 0.9")
        if not 0 < self.step_decay_to <= 1:
            raise ValueError(f"--step-decay-to is {self.step_decay_to}; give a share above 0 and at most 1")
        if not 0 <= (self.step_decay or 0) < 1:
            raise ValueError(f"--step-decay is {self.step_decay}; give 0 to just under 1, such as 0.0003")
        if self.step_decay is not None and self.step_decay_to != FitOptions.step_decay_to:
            raise ValueError("--step-decay and --step-decay-to both say how the step shrinks; leave one out")
        self._refuse_without_part()
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema is {self.ema}; give a decay from 0 to just under 1, such as 0.999")

    def _refuse_without_part(self) -> None:
        """ValueError where a flag was given that the chosen optimiser does not know."""
        for name in WITHOUT_PART[self.optimiser]:
            if getattr(self, name) != getattr(type(self), name):  # a command may have defaults of its own
                flag = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise ValueError(f"{flag} has no part in --optimiser {self.optimiser}; leave one of them out")

    @property
    def steps(self) -> int:
        """Planned number of steps."""
        return Until.parse(self.until).steps

    def at_rate(self, learning_rate: float) -> FitOptions:
        """These options with this learning rate of adamw, where none was given."""
        given = self.learning_rate is not None or self.optimiser != "adamw"
        return self if given else replace(self, learning_rate=learning_rate)


@dataclass(frozen=True)
class Until:
    """When training stops: after steps, or once the mean loss is below, or validation accuracy above."""

    steps: int
    loss: float = -math.inf
    accuracy: float = math.inf

    @classmethod
    def parse(cls, parts: tuple[str, ...]) -> Until:
        """ValueError where a part is none of 200, loss<0.1, accuracy>0.95; 100 000 steps where no number is given."""
        steps, loss, accuracy = None, -math.inf, math.inf
        for part in parts:
            match = UNTIL.fullmatch(part.replace(" ", ""))
            if part.isdigit() and int(part) > 0:
                steps = int(part)
            elif match and match[1] + match[2] == "loss<":
                loss = _number(part, match[3])
            elif match and match[1] + match[2] == "accuracy>":
                accuracy = _number(part, match[3])
            else:
                raise ValueError(f"--until {part!r} is not understood; give steps (200), loss<0.1 or accuracy>0.95")
        return cls(steps if steps is not None else 100_000, loss, accuracy)

    def reached(self, step: int, loss: float, accuracy: float) -> bool:
        return step >= self.steps or loss < self.loss or accuracy > self.accuracy


def _number(part: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise ValueError(f"--until {part!r} is not understood; give steps (200), loss<0.1 or accuracy>0.95") from None


def rate(step: int, options: FitOptions) -> float:
    """Share of the learning rate at a step (from 0): linear warm-up, then half a cosine down to final_rate.

    gradient-direction has a course of its own.
    """
    if step < options.warm_up:
        return (step + 1) / options.warm_up
    done = min(1.0, (step - options.warm_up) / max(1, options.steps - options.warm_up))
    return options.final_rate + (1 - options.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def run_path(out: Path) -> Path:
    """Where the run that makes out keeps options and result: t.run.json for t.pt, x.lmdb.run.json for x.lmdb."""
    return out.with_suffix(".run.json") if out.suffix == ".pt" else out.with_name(out.name + ".run.json")


def write_run(out: Path, command: str, options: Any, result: dict[str, Any] | None = None) -> None:
    """Writes command, options as they were asked for, and result beside out; --options FILE runs it again.

    A training run writes it at its start too, without a result.
    """
    from crnn.checkpoint import write_atomically

    fields = dataclasses.asdict(options)
    fields |= {name: False for name in ("resume", "overwrite") if name in fields}  # of that call, not of the next one
    content = {"command": command, "options": fields, "result": result}
    text = json.dumps(content, indent=1, default=str, ensure_ascii=False) + "\n"
    write_atomically(run_path(out), lambda file: file.write(text.encode()) and None)


def refuse_writing_over(out: Path, sources: Iterable[Path | str], flag: str = "--out") -> None:
    """ValueError where out is one of the sources, whose only copy would be replaced by a part of it."""
    for source in sources:
        if out.resolve() == Path(source).resolve():
            raise ValueError(f"{flag} {out} is what is read here; give what is written another name")


def refuse_writing_into(out: Path, sources: Iterable[Path | str], flag: str) -> None:
    """ValueError where a file would take the place of a source, or of a file in one; OSError where it cannot be there.

    For what is written after long work; see require_writable.
    """
    from data.picture_files import is_picture_name

    is_part = is_picture_name(out.name) or out.name in ("labels.tsv", "data.mdb")
    for source in sources:
        place = Path(source).resolve()
        if out.resolve() == place or (is_part and out.resolve().is_relative_to(place)):
            raise ValueError(f"{flag} {out} is, or belongs to, what is read here; give another name")
    if out.is_dir():
        raise IsADirectoryError(f"{flag} {out} is a folder; give the name of a file")
    require_writable(out, flag)


def require_writable(out: Path, flag: str) -> None:
    """OSError naming flag and out where nothing can be written beside out, whose folder is made; for before long work.

    A file is made and removed there: what permissions say is not all, on a file system that is read-only or full.
    """
    from crnn.checkpoint import is_stream

    if is_stream(out):
        return
    place = Path(os.path.realpath(out))  # a link stays one and is written through
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", suffix=".part"):
            pass
    except OSError as error:
        raise OSError(f"{flag} {out} cannot be written ({error.strerror or error}); choose another place") from error


def same_run(options: Any, sources: Iterable[Sized] = ()) -> str:
    """What a resumed run must share with the interrupted one, as JSON, one a line.

    The options, what the files hold that they name (a teacher, a start), and how many lines each of the sources has.
    """
    fields = dataclasses.asdict(options)
    files = {name: path for name, path in fields.items() if isinstance(path, Path) and path.is_file()}
    for name, path in files.items():
        if path.resolve() != options.out.resolve():  # a run may start from what it replaces
            fields[f"SHA-256 of {name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    fields |= {f"lines of training source {number}": len(lines) for number, lines in enumerate(sources, start=1)}
    for name in ("resume", "overwrite"):
        fields.pop(name)
    for name in ("workers", "threads", "device", "save_every", "log"):
        fields["fit"].pop(name)
    return json.dumps(fields, indent=1, default=str, ensure_ascii=False, sort_keys=True)


def parse_options(kind: type[Options], argv: list[str], prog: str, description: str) -> Options:
    """Command line -> options; --options RUN.json gives the defaults, what else is on the line overrides them.

    Raises ValueError where the file is no run of this command; SystemExit for --help and wrong usage.
    """
    import tyro

    argv = [part for given in argv for part in (given.split("=", 1) if given.startswith("--options=") else [given])]
    default: Any = tyro.MISSING_NONPROP
    if "--options" in argv:
        at = argv.index("--options")
        if at + 1 == len(argv):
            raise ValueError("--options needs the path of a run.json that an earlier run wrote")
        path = Path(argv[at + 1])
        del argv[at : at + 2]
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give the .run.json that an earlier run wrote")
        try:
            default = options_from_json(kind, json.loads(path.read_text(encoding="utf-8"))["options"])
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} holds no options of {prog} ({error!r}); give the .run.json of such a run"
            ) from error
    description += " With --options FILE, the .run.json of an earlier run, that run's options are the defaults."
    made: Options = tyro.cli(kind, args=argv, prog=prog, description=description, default=default)
    return made


def options_from_json(kind: Any, value: Any) -> Any:
    """JSON value -> the annotated type, for the types that options use; KeyError or TypeError where it is another."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} where options belong")
        hints = get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise KeyError(", ".join(sorted(unknown)))
        made = {}
        for name, entry in value.items():
            try:
                made[name] = options_from_json(hints[name], entry)
            except (KeyError, TypeError) as error:
                raise type(error)(f"{name}: {error.args[0]}") from error
        return kind(**made)  # type: ignore[operator]
    if get_origin(kind) in (Union, types.UnionType):
        return (
            None if value is None else options_from_json(next(a for a in get_args(kind) if a is not type(None)), value)
        )
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} where a list belongs")
        inner = get_args(kind)
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(value) != len(each):
            raise TypeError(f"{value!r} where {len(each)} values belong")
        return tuple(options_from_json(t, v) for t, v in zip(each, value, strict=True))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise KeyError(f"{value} is none of {', '.join(map(str, get_args(kind)))}")
        return value
    if kind is Path:
        return Path(value)
    fits = {bool: (bool,), int: (int,), float: (float, int), str: (str,)}.get(kind, (object,))
    if not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits and object not in fits):
        raise TypeError(f"{value!r} where {kind.__name__} belongs")
    return value
