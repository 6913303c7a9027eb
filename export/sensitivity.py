"""Which operators stay float when int8 costs too much accuracy: those that cost most, one by one, until it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Drop = Callable[[frozenset[str]], float]
"""Names of operators kept in float -> accuracy lost, as a share of the lines; negative where int8 reads more."""

Cost = Callable[[str], float]
"""What quantising one operator alone does to the numbers; only its order counts."""


@dataclass(frozen=True)
class Search:
    """What was kept in float, and what it bought.

    drops: accuracy lost with nothing kept in float, with the first one kept, and so on.
    costs: of each operator, the most costly first; empty where nothing had to be kept.
    """

    kept: tuple[str, ...]
    drops: tuple[float, ...]
    costs: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        return {"kept_in_float": list(self.kept), "drops": list(self.drops), "costs": [list(c) for c in self.costs]}


def search(operators: Sequence[str], drop: Drop, cost: Cost, most: float) -> Search:
    """The fewest operators kept in float, in the order of their cost, with which accuracy falls by at most `most`.

    ValueError with the numbers where even all of them do not suffice.
    """
    drops = [drop(frozenset())]
    if drops[0] <= most:
        return Search((), tuple(drops), ())
    costs = sorted(((name, cost(name)) for name in operators), key=lambda entry: -entry[1])
    kept: list[str] = []
    for name, _ in costs:
        kept.append(name)
        drops.append(drop(frozenset(kept)))
        if drops[-1] <= most:
            return Search(tuple(kept), tuple(drops), tuple(costs))
    raise ValueError(
        f"int8 loses {drops[0]:.2%} of the calibration lines, and with all {len(kept)} operators kept in float still "
        f"{drops[-1]:.2%}, where --max-drop allows {most:.2%}; allow more, calibrate on lines like those that will be "
        "read, or distil with --quantise-aware"
    )
