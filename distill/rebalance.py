"""The story of other biases for the characters that extend-charset added: what its run found, and a model with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from crnn.commands import refuse_writing_over, run_path, write_run
from crnn.train import refuse_overwriting
from distill.new_biases import Cost, allowed, moved

if TYPE_CHECKING:
    from distill.extend_cli import RebalanceOptions


def rebalance(options: RebalanceOptions, command: str) -> None:
    """Prints what there is to choose, or writes the model with the biases of its new classes moved."""
    if options.out is not None:
        refuse_writing_over(options.out, [options.model])
        refuse_overwriting(options.out, False, options.overwrite)
    before = load_checkpoint(options.model)
    added = before.info.provenance.get("extended", {}).get("added", "")
    if not added:
        raise ValueError(f"{options.model} was not made by crnn extend-charset; give a model that was")
    costs, taken = found_costs(options.model)
    if options.out is None or options.may_lose is None:
        print(choices(costs, taken))
        return
    shift = allowed(costs, options.may_lose)
    save_checkpoint(options.out, with_biases(before, added, shift - taken, shift))
    result = {"biases_moved": shift, "costs": [cost._asdict() for cost in costs]}
    write_run(options.out, command, options, result)
    cost = max(next(cost.shares for cost in costs if cost.shift == shift))
    more = f", more than {options.may_lose:.2%}, and nothing lower was tried" if cost > options.may_lose + 1e-9 else ""
    print(
        f"{options.out}: biases of {len(added)} new characters moved by {shift:+g}, {taken:+g} before; "
        f"they cost {cost:.2%} of the held-out lines of old characters{more}"
    )


def found_costs(model: Path) -> tuple[list[Cost], float]:
    """What the run that made the model found, and how far it moved the biases; an error where it does not say."""
    path = run_path(model)
    if not path.exists():
        raise FileNotFoundError(f"{path}, which says what other biases cost, is not there; put it beside the model")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))["result"]
        costs = [Cost(row["shift"], tuple(row["shares"]), row.get("new_read")) for row in result["costs"]]
        taken = float(result["biases_moved"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not say what other biases cost ({error!r}); make the model anew with crnn extend-charset"
        ) from error
    if not costs:
        raise ValueError(
            f"no line of old characters was held out when {model} was made, so what other biases cost is not known; "
            "make it anew with crnn extend-charset and --rehearse or --unlabelled"
        )
    return costs, taken


def choices(costs: list[Cost], taken: float) -> str:
    """A line for every nat, and for what was taken."""
    rows = [
        f"{cost.shift:+15.2f}  {'-' if cost.new_read is None else f'{cost.new_read:.1%}':>19}  {max(cost.shares):17.2%}"
        + ("  (now)" if cost.shift == taken else "")
        for cost in costs
        if cost.shift == taken or not cost.shift % 1
    ]
    return "\n".join(["biases moved by  new characters read  cost of old lines", *rows])


def with_biases(before: Checkpoint, added: str, by: float, shift: float) -> Checkpoint:
    """The model with the biases of the characters added moved; what it reads of validation lines is not known then."""
    numbers = [before.info.charset.characters.index(c) + 1 for c in added]
    kept = {key: value for key, value in before.info.provenance.items() if key != "validation_accuracy"}
    return moved(replace(before, info=replace(before.info, provenance=kept | {"biases_moved": shift})), numbers, by)
