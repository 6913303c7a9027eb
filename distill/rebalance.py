"""The story of other biases for the characters that extend-charset added: what its run found, and a model with them."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from crnn.commands import refuse_writing_over, write_run
from crnn.train import refuse_overwriting, resume_path
from distill.new_biases import Cost, allowed, found_costs, moved, with_costs

if TYPE_CHECKING:
    from distill.extend_cli import RebalanceOptions


def rebalance(options: RebalanceOptions, command: str) -> None:
    """Prints what there is to choose, or writes the model with the biases of its new classes moved."""
    if options.out is not None:
        refuse_losing(options.out, options.model, options.overwrite)
    before = load_checkpoint(options.model)
    added = before.info.provenance.get("extended", {}).get("added", "")
    if not added:
        raise ValueError(f"{options.model} was not made by crnn extend-charset; give a model that was")
    found = found_costs(before)
    if found is None:
        raise ValueError(
            f"{options.model} does not say what other biases cost: no line of old characters was held out, or an "
            "earlier version made it; make it anew with crnn extend-charset and --rehearse or --unlabelled"
        )
    costs, taken = found
    if options.out is None or options.may_lose is None:
        print(choices(costs, taken))
        return
    shift = allowed(costs, options.may_lose)
    write_run(options.out, command, options)
    by = shift - taken
    origin = {"command": command, "model": options.model.name, "date": datetime.date.today().isoformat()}
    save_checkpoint(options.out, with_costs(rebalanced(before, added, by, origin), costs, shift))
    write_run(options.out, command, options, {"biases_moved": shift, "costs": [cost._asdict() for cost in costs]})
    cost = max(next(cost.shares for cost in costs if cost.shift == shift))
    more = f", more than {options.may_lose:.2%}, and nothing lower was tried" if cost > options.may_lose + 1e-9 else ""
    print(
        f"{options.out}: biases of {len(added)} new characters moved by {shift:+g}, {taken:+g} before; "
        f"they cost {cost:.2%} of the held-out lines of old characters{more}"
    )


def refuse_losing(out: Path, model: Path, overwrite: bool) -> None:
    """An error where out is the model itself, another's result, or that of a training that was interrupted."""
    refuse_writing_over(out, [model])
    if resume_path(out).exists():
        raise FileExistsError(f"{resume_path(out)} holds an interrupted training; choose another --out")
    refuse_overwriting(out, False, overwrite)


def choices(costs: list[Cost], taken: float) -> str:
    """A line for every nat, and for what was taken."""
    rows = [
        f"{cost.shift:+15.2f}  {'-' if cost.new_read is None else f'{cost.new_read:.1%}':>19}  {max(cost.shares):17.2%}"
        + ("  (now)" if cost.shift == taken else "")
        for cost in costs
        if cost.shift == taken or not cost.shift % 1
    ]
    return "\n".join(["biases moved by  new characters read  cost of old lines", *rows])


def rebalanced(before: Checkpoint, added: str, by: float, origin: dict[str, str]) -> Checkpoint:
    """The model with the biases of the characters added moved; what it reads of validation lines is not known then."""
    numbers = [before.info.charset.characters.index(c) + 1 for c in added]
    made = before.info.provenance | {"rebalanced": origin}
    if by:
        made.pop("validation_accuracy", None)
    return moved(replace(before, info=replace(before.info, provenance=made)), numbers, by)
