"""`crnn info`: what a model file tells of itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crnn.checkpoint import CHARACTER_FORMAT, FEW_SHOT_FORMAT, has_format, load_tensors
from crnn.recogniser import DEFAULT, MODELS, PACKAGED
from crnn.runtimes import Runtime, open_runtime


@dataclass(frozen=True)
class InfoOptions:
    """What `crnn info` takes."""

    model: tyro.conf.Positional[Path | None] = None
    """A checkpoint (.pt) of lines or of characters, or an exported file (.onnx, .tflite); left out: the models that
    come with the package are listed."""
    json: bool = False
    """Print JSON instead of tables."""


def main(argv: list[str]) -> int:
    options = tyro.cli(
        InfoOptions, args=argv, prog="crnn info", description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    if options.model is None:
        list_packaged(options.json)
        return 0
    facts = character_description(options.model) or description(open_runtime(options.model, threads=1))
    if options.json:
        print(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        print_tables(facts, Console())
    return 0


def list_packaged(as_json: bool) -> None:
    """Path, bytes and whether it is the default, of every model inside the package."""
    default = MODELS / f"{DEFAULT}{PACKAGED}"
    found = [path for path in sorted(MODELS.iterdir()) if path.suffix in (".pt", ".onnx")]
    facts = [{"path": str(path), "bytes": path.stat().st_size, "default": path == default} for path in found]
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    for path, entry in zip(found, facts, strict=True):
        print(f"{path}\t{path.stat().st_size / 1e6:.2f} MB" + ("\tread with by default" if entry["default"] else ""))
    print(f"{MODELS / 'pictures'}\tpictures to try them with")


def character_description(path: Path) -> dict[str, Any] | None:
    """What a model of characters tells of itself; None for any other file."""
    if path.suffix != ".pt":
        return None
    from crnn.characters import checkpoint as characters

    content = load_tensors(path)
    if has_format(content, FEW_SHOT_FORMAT):
        from crnn.characters import few_shot

        return few_shot.description(few_shot.few_shot_model(content, path), path)
    if not has_format(content, CHARACTER_FORMAT):
        return None
    return characters.description(characters.from_content(content, path), path)


def description(runtime: Runtime) -> dict[str, Any]:
    """The file's own account, as JSON values; the file was opened, so it can be read with."""
    info = runtime.info
    return {
        "path": str(runtime.path),
        "target": info.target,
        "one_line_at_a_time": info.one_line_at_a_time,
        "bytes": runtime.path.stat().st_size,
        "parameters": runtime.parameters,
        "charset": asdict(info.charset) | {"classes": info.charset.classes},
        "sizes": asdict(info.sizes),
        "input_spec": info.input_spec.to_json(),
        "pixels_per_column": info.pixels_per_column,
        "temperature": info.temperature,
        "provenance": info.provenance,
        "parity": info.parity,
    }


def print_tables(facts: dict[str, Any], console: Console) -> None:
    """One table for each part of the description."""
    console.print(Text(facts["path"], style="bold"))
    single = {
        "format": facts["target"] or "checkpoint",
        "size": f"{facts['bytes'] / 1e6:.2f} MB",
        "parameters": f"{facts['parameters']:,}",
    }
    kinds = {"classes": character_parts, "matching": few_shot_parts}
    parts = next((kind for key, kind in kinds.items() if key in facts), line_parts)
    for title, entries in parts(facts).items():
        entries = single | entries if title == "file" else entries
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2), min_width=40)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in entries.items() or [("", "not recorded")]:
            table.add_row(Text(name.replace("_", " ")), Text(readable(value)))
        console.print(table)


def line_parts(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Title -> entries, of a recogniser of lines; how often each character was learnt from is in the JSON alone."""
    made = dict(facts["provenance"])
    if "new_biases" in made:
        made["new_biases"] = f"moved by {made['new_biases']['moved']:+g}; crnn rebalance tells what others would cost"
    if "characters" in made:
        made["characters"] = f"counted in {made['characters']['lines']:,} lines, see --json"
    return {
        "file": {"pixels per column": facts["pixels_per_column"], "temperature": facts["temperature"]},
        "charset": facts["charset"] | {"characters": facts["charset"]["characters"].replace(" ", "␣")},
        "network": facts["sizes"],
        "input": facts["input_spec"],
        "how it was made": made,
        "parity with torch": facts["parity"],
    }


def few_shot_parts(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Title -> entries, of a few-shot model."""
    return {
        "file": {"classes": "none; a support names them"},
        "network": {"width": facts["width"], "regions": facts["regions"]} | facts["matching"],
        "input": facts["input_spec"],
        "how it was made": facts["provenance"],
    }


def character_parts(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Title -> entries, of a model of single characters."""
    counts = facts["counts"]
    classes = {
        "number": len(facts["classes"]),
        "labels": facts["classes"],
        "training crops of one": f"{min(counts)} to {max(counts)}",
        "learnt later": facts["learnt_later"] or "none",
        **({"bias of these": facts["bias"]} if facts["learnt_later"] else {}),
        "memory": f"{facts['memory']} crops" if facts["memory"] else "none",
        "centres": "stored" if facts["centres"] else "not yet: training has not ended",
    }
    losses = {name: [weight, facts["loss_options"].get(name, {})] for name, weight in facts["losses"].items()}
    return {
        "file": {},
        "classes": classes,
        "network": facts["sizes"],
        "losses (weight, options)": losses,
        "input": facts["input_spec"],
        "how it was made": facts["provenance"],
    }


def readable(value: Any) -> str:
    """Text as it is, numbers to six places, what is nested as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)
