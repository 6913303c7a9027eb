"""What an exporter wrote, operator by operator: which weights and activations in which type, what stayed float, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorReport:
    """One operator of the file.

    name: of the value it makes, which is the module's in the network. kind: as in export/operators.py.
    weights: how they are stored, "none" where it has none: float32, float16, int8 per channel, int8 per tensor.
    activations: what it computes with: float32, uint8, int8, or what becomes of float32 inside.
    bytes: of its weights as stored, scales and biases included.
    reason: why something of it stayed float in a quantised file; empty where nothing did, or nothing was to be.
    """

    name: str
    kind: str
    weights: str
    activations: str
    bytes: int
    reason: str = ""


@dataclass(frozen=True)
class Written:
    """An exported file before it is on disk, and what is in it."""

    content: bytes
    operators: tuple[OperatorReport, ...]


def summarise(operators: Sequence[OperatorReport]) -> list[dict[str, object]]:
    """Operators of one kind that are stored and computed alike as one row, the largest first."""
    rows: dict[tuple[str, str, str, str], list[OperatorReport]] = {}
    for operator in operators:
        rows.setdefault((operator.kind, operator.weights, operator.activations, operator.reason), []).append(operator)
    found = [
        {
            "kind": kind,
            "operators": len(own),
            "weights": weights,
            "activations": activations,
            "bytes": sum(operator.bytes for operator in own),
            "reason": reason,
        }
        for (kind, weights, activations, reason), own in rows.items()
    ]
    return sorted(found, key=lambda row: -int(str(row["bytes"])))
