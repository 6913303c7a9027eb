"""`crnn export`: from a checkpoint to files for other runtimes, each proven against the network before it is kept."""

from __future__ import annotations

import datetime
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tyro

from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint, write_atomically
from crnn.commands import sentence
from crnn.quantisation import Range
from crnn.runtimes import Runtime, open_runtime
from data.lines import Line
from data.picture import InputSpec
from export.calibration import Quantisation, calibrate, gridded_values, with_pooled
from export.operators import Conv, Graph, Linear, Lstm
from export.parity import Expected, Parity, compare, expect, reads_enough, require, require_same, widened
from export.report import OperatorReport, Written, summarise
from export.sensitivity import Search, search
from export.targets import NOT_IN_ALL, TARGETS, Target, TargetName
from export.temperature import Temperature, fit_temperature

if TYPE_CHECKING:
    from crnn.runtimes.torch_runtime import TorchRuntime
    from export.lines import ExportLines

FIXED_WIDTH = 320
COST_LINES = 50
"""Calibration lines on which the cost of quantising one operator alone is measured."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a recogniser in other formats. A file is kept only if it reads as the network does."""

    model: Path
    """Checkpoint (.pt) of crnn train or distill."""
    to: tuple[TargetName | Literal["all"], ...] = ("onnx",)
    """Formats to write; "all" are those that need no further package, so neither ncnn nor mnn."""
    out: Path | None = None
    """File for one format, folder for several; without it the files go beside the checkpoint."""
    data: tuple[str, ...] = ()
    """Lines for calibration and check, SOURCE[:weight]: LMDBs, folders or zips, or synth; without it what the model
    learnt from where that is still there, else synth."""
    lines: int = 200
    """Lines that the check reads."""
    calibration_lines: int = 200
    """Other lines, on which the ranges of activations and the accuracy of int8 are measured."""
    validation: str = ""
    """Labelled lines that the model never saw, on which a temperature is fitted for its confidences: a source, or
    synth; without it what was held out in training, where that is still there."""
    validation_lines: int = 1000
    """At most so many; 0 fits no temperature."""
    max_drop: float = 0.01
    """Share of the calibration lines that int8 may lose, of those without labels by other texts where the network is
    sure; beyond it operators are kept in float, one by one."""
    fixed_width: int | None = None
    """Pixels, of formats with a fixed width; left out: 320, or the model's own where it takes one width alone."""
    seed: int = 0
    """Of what is drawn."""
    json: bool = False
    """Print what was written and measured as JSON."""

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("no format was named; give --to onnx")
        for flag, value, least in (
            ("--lines", self.lines, 1),
            ("--calibration-lines", self.calibration_lines, 1),
            ("--validation-lines", self.validation_lines, 0),
        ):
            if value < least:
                raise ValueError(f"{flag} is {value}; give at least {least}")
        if not 0 <= self.max_drop <= 1:
            raise ValueError(f"--max-drop is {self.max_drop}; give a share from 0 to 1, such as 0.01")

    def targets(self) -> list[TargetName]:
        """The formats asked for, each once, in the order given."""
        every = [name for name in get_args(TargetName) if name not in NOT_IN_ALL]
        return list(dict.fromkeys(each for name in self.to for each in (every if name == "all" else (name,))))


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(ExportOptions, args=argv, prog="crnn export")
    reports = []
    for report in export(options, f"crnn export {shlex.join(argv)}", go_on=True):
        reports.append(report)
        if not options.json:
            print(summary(report), flush=True)
    if options.json:
        print(json.dumps(reports, ensure_ascii=False, indent=1))
    return 0 if len(reports) == len(options.targets()) else 1


def export(options: ExportOptions, command: str = "", go_on: bool = False) -> Iterator[dict[str, Any]]:
    """Writes one format after the other and gives what its JSON holds; see ExportJob.write.

    go_on: after a format that is refused, with its sentence on stderr, write the others; else the error ends it all.
    """
    if options.model.suffix in {Path(f"model{target.suffix}").suffix for target in TARGETS.values()}:
        raise ValueError(f"{options.model} is an exported file; give the checkpoint (.pt) that it was made from")
    targets = options.targets()
    if options.fixed_width is not None and not any(TARGETS[name].fixed_width for name in targets):
        raise ValueError(f"--fixed-width has no part in {', '.join(targets)}; leave it out")
    outs = out_paths(options.model, targets, options.out)
    job = ExportJob(options, command)
    for name in targets:  # what is wrong with --fixed-width, --data or --validation is said before the work
        job.spec_of(TARGETS[name])
    _ = job.lines, job.held_out
    for name, out in zip(targets, outs, strict=True):
        try:
            report = job.write(name, out)
        except (ValueError, OSError) as error:
            if not go_on:
                raise
            print(f"crnn export: {sentence(error)}", file=sys.stderr)
            continue
        yield report


class ExportJob:
    """One checkpoint on its way to several formats: what they share is made once, when the first one asks for it."""

    def __init__(self, options: ExportOptions, command: str) -> None:
        self.options, self.command = options, command
        self.checkpoint: Checkpoint = load_checkpoint(options.model)
        self.info: ModelInfo = self.checkpoint.info
        self._expected: dict[InputSpec, tuple[Expected, ...]] = {}

    @cached_property
    def network(self) -> TorchRuntime:
        """In float32 on the CPU."""
        from crnn.model import Crnn  # torch is not imported before the flags are read
        from crnn.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(Crnn.from_checkpoint(self.checkpoint), self.info, self.options.model)

    @cached_property
    def graph(self) -> Graph:
        from crnn.model import Crnn
        from export.graph import read_graph

        return read_graph(Crnn.from_checkpoint(self.checkpoint))

    @cached_property
    def lines(self) -> ExportLines:
        from export.lines import choose_sources, draw_lines

        options = self.options
        sources = choose_sources(options.data, self.info, options.model)
        return draw_lines(sources, self.info, options.calibration_lines, options.lines, options.seed)

    @cached_property
    def held_out(self) -> list[Line]:
        """Labelled lines that the model did not learn from; none where they are not to be had."""
        from export.lines import held_out_lines

        options = self.options
        return held_out_lines(options.validation, self.info, options.model, options.validation_lines)

    @cached_property
    def calibration(self) -> tuple[Expected, ...]:
        """The calibration lines as the network reads them."""
        return self._expect(self.lines.calibration, self.info.input_spec)

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """Of activations: those that quantisation-aware training settled on, else those of the calibration lines."""
        pictures = [one.picture for one in self.calibration]
        if not self.info.ranges:
            return calibrate(self.graph, pictures)
        missing = set(gridded_values(self.graph)) - set(self.info.ranges)
        if missing:
            raise ValueError(
                f"{self.options.model} holds no range for {sorted(missing)[0]}, though it was trained with simulated "
                "int8; it was made by another version, so train it anew"
            )
        return with_pooled(self.graph, {name: Range(low, high) for name, (low, high) in self.info.ranges.items()})

    def expected(self, spec: InputSpec) -> tuple[Expected, ...]:
        """The lines of the check as the network reads them under a spec."""
        if spec not in self._expected:
            self._expected[spec] = self._expect(self.lines.check, spec)
        return self._expected[spec]

    def _expect(self, lines: Sequence[Line], spec: InputSpec) -> tuple[Expected, ...]:
        info = self.info
        return expect(self.network, lines, info.charset, spec, info.pixels_per_column, info.sizes.extra_columns)

    def rounding(self, expected: Sequence[Expected]) -> float:
        """The largest difference of the network in float32 from itself in float64: what float32 leaves open."""
        import torch

        from crnn.model import Crnn

        exact = Crnn.from_checkpoint(self.checkpoint).double()
        apart = 0.0
        with torch.inference_mode():
            for one in expected:
                features = exact.backbone(torch.from_numpy(one.picture).double())
                log_probs = exact.classifier(exact.encoder(features)).log_softmax(-1)
                apart = max(apart, float(abs(log_probs.numpy() - one.log_probs).max()))
        return apart

    def write(self, name: TargetName, out: Path) -> dict[str, Any]:
        """Writes one format, and what its check measured as JSON beside it; returns the JSON's content.

        The file is written under another name, read by its own runtime beside the network, and only then moved to
        out: what was there before stays until then. ValueError with the numbers where the file reads differently.
        """
        target = TARGETS[name]
        info = replace(
            self.info,
            target=name,
            one_line_at_a_time=target.one_line_at_a_time,
            input_spec=self.spec_of(target),
            ranges={},
        )
        with hidden_folder(out) as folder:
            unproven = folder / f"unproven{target.suffix}"
            found = self.keep_in_float(target, info, unproven) if target.int8 else None
            kept = frozenset(found.kept) if found else frozenset()
            written, runtime = self.trial(target, info, kept, unproven)
            company = not target.one_line_at_a_time
            expected = self.expected(info.input_spec)
            parity = compare(runtime, expected, info.charset, target.gate, company)
            if target.gate.measure == "largest" and parity.difference > target.gate.tolerance:
                parity = widened(parity, self.rounding(expected))
            require(parity, str(out))
            temperature = fit_temperature(runtime, info, self.held_out)
            report = self.describe(name, out, parity, written, found, temperature)
            info = replace(info, parity=report["parity"], temperature=temperature.value)
            final = target.write(self.graph, info, self.quantisation(target, kept))
            kept_file = folder / f"kept{target.suffix}"  # a runtime may still look into the other one
            kept_file.write_bytes(final.content)
            require_same(open_runtime(kept_file, threads=1), runtime, expected[0], str(out))
            report["bytes"] = len(final.content)
            write_atomically(out, lambda file: file.write(final.content))
        if found and (share := float_share(written.operators)) > 0.5:
            print(
                f"crnn export: {out} keeps {share:.0%} of its weights in float, for quantised it would lose "
                f"{found.drops[0]:.1%} of {len(self.lines.calibration)} calibration lines where --max-drop allows "
                f"{self.options.max_drop:.1%}; allow more, or calibrate on more lines or labelled ones",
                file=sys.stderr,
            )
        text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
        write_atomically(report_path(out), lambda file: file.write(text.encode()))
        return report

    def spec_of(self, target: Target) -> InputSpec:
        """The input spec of a format; one of fixed width shrinks longer lines and gives shorter ones margins."""
        spec, width = self.info.input_spec, self.options.fixed_width
        only = spec.min_width if spec.min_width == spec.max_width else None
        if not target.fixed_width or (only and width in (None, only)):
            return spec
        if only:
            raise ValueError(
                f"--fixed-width is {width}, and {self.options.model} takes {only} pixels alone; leave it out"
            )
        width = FIXED_WIDTH if width is None else width
        if width < 1 or width % spec.width_multiple:
            raise ValueError(f"--fixed-width is {width}; give a multiple of {spec.width_multiple} pixels")
        return replace(spec, min_width=width, max_width=width, narrow="margins")

    def quantisation(self, target: Target, keep_float: frozenset[str]) -> Quantisation:
        return Quantisation(self.ranges if target.calibrated else {}, keep_float)

    def trial(self, target: Target, info: ModelInfo, keep_float: frozenset[str], path: Path) -> tuple[Written, Runtime]:
        """The file as it would be, at path, and its runtime."""
        written = target.write(self.graph, info, self.quantisation(target, keep_float))
        path.write_bytes(written.content)
        return written, open_runtime(path, threads=1)

    def keep_in_float(self, target: Target, info: ModelInfo, path: Path) -> Search | None:
        """The operators that must stay float for the accuracy asked for; None where the network itself reads little."""
        operators = [o.output for o in self.graph.operators if isinstance(o, Conv | Lstm | Linear)]

        def parity(keep_float: frozenset[str], lines: Sequence[Expected]) -> Parity:
            _, runtime = self.trial(target, info, keep_float, path)
            return compare(runtime, lines, info.charset, target.gate, company=False)

        def drop(keep_float: frozenset[str]) -> float:
            return parity(keep_float, self.calibration).lost

        def cost(name: str) -> float:
            return parity(frozenset(operators) - {name}, self.calibration[:COST_LINES]).relative

        if not reads_enough(self.calibration):
            return None
        try:
            return search(operators, drop, cost, self.options.max_drop)
        except ValueError as error:
            raise ValueError(f"{self.options.model} is not written as {info.target}: {error}") from error

    def describe(
        self, name: TargetName, out: Path, parity: Parity, written: Written, found: Search | None,
        temperature: Temperature,
    ) -> dict[str, Any]:  # fmt: skip
        """What goes into the JSON beside the file; its "parity" travels in the file too."""
        versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime", "ai-edge-litert")}
        measured = parity.to_json() | {"against": "the network in float32 on the CPU", "versions": versions}
        target = TARGETS[name]
        report = {
            "command": self.command,
            "date": datetime.date.today().isoformat(),
            "model": str(self.options.model),
            "target": name,
            "file": str(out),
            "one_line_at_a_time": target.one_line_at_a_time,
            "data": list(self.lines.sources),
            "seed": self.options.seed,
            "left_out": self.lines.left_out,
            "parity": measured,
            "temperature": temperature.to_json(),
            "summary": summarise(written.operators),
            "operators": [asdict(operator) for operator in written.operators],
        }
        if target.fixed_width:  # what the format itself costs, whoever reads it
            natural = [one for one in self.expected(self.info.input_spec) if one.compared]
            report["right_at_natural_widths"] = sum(one.text == one.label for one in natural)
        if target.calibrated:
            trained = "quantisation-aware training"
            report["ranges_from"] = trained if self.info.ranges else f"{len(self.lines.calibration)} calibration lines"
        if target.int8:
            report["max_drop"] = self.options.max_drop
            report["search"] = found.to_json() if found else "none: the network reads under half of the lines"
        return report


def float_share(operators: Sequence[OperatorReport]) -> float:
    """Share of the weights, by number, that an int8 file holds in float32."""
    weighted = [(o.bytes / (1 if o.weights.startswith("int8") else 4), o) for o in operators if o.weights != "none"]
    return sum(n for n, o in weighted if not o.weights.startswith("int8")) / max(sum(n for n, _ in weighted), 1)


@contextmanager
def hidden_folder(out: Path) -> Iterator[Path]:
    """A folder beside out for what is not yet proven; gone at the end. OSError naming out where there can be none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def out_paths(model: Path, targets: Sequence[TargetName], out: Path | None) -> list[Path]:
    """Where each format goes. ValueError where --out names one file for several formats, or ends otherwise."""
    names = [model.stem + TARGETS[name].suffix for name in targets]
    if out is None:
        return [model.parent / name for name in names]
    if len(names) > 1 or out.is_dir():
        if out.is_file():
            raise ValueError(f"--out {out} is a file, but {len(names)} formats are to be written; give a folder")
        return [out / name for name in names]
    suffix = TARGETS[targets[0]].suffix
    if not suffix.endswith(".zip"):  # of the others the last part tells the runtime
        suffix = "." + suffix.rpartition(".")[2]
    if not out.name.endswith(suffix):
        raise ValueError(f"--out {out} does not end in {suffix}, by which its runtime is chosen; give a name that does")
    return [out]


def report_path(out: Path) -> Path:
    """The JSON beside an exported file."""
    return out.with_name(out.name + ".json")


def summary(report: dict[str, Any]) -> str:
    """Size, likeness and accuracy in one line, and where something stayed float, what."""
    parity = report["parity"]
    told = [f"{report['file']}  {report['bytes'] / 1e6:.2f} MB"]
    if parity["judged_by"] == "numbers alone":
        told.append("the network reads under half of the lines, so numbers alone were compared")
    else:
        told.append(f"{parity['same_texts']} of {parity['lines']} texts as the network reads them")
    if parity["labelled"]:
        natural = report.get("right_at_natural_widths")
        beside = "" if natural is None else f"; {natural} at natural widths"
        told.append(f"right {parity['right_file']} of {parity['labelled']} (network {parity['right_network']}{beside})")
    told.append(f"log-probabilities within {parity['difference']:.1e}")
    temperature = report["temperature"]
    if not temperature["why_not"]:
        told.append(f"confidences at temperature {temperature['value']:.2f} ({temperature['lines']} held-out lines)")
    kept = report.get("search", {})["kept_in_float"] if isinstance(report.get("search"), dict) else []
    if kept:
        told.append(f"kept in float: {', '.join(kept)}")
    return "; ".join(told)
