"""Markdown that tables of results are written in, and how figures are written there."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

NOT_RUN = "Not run yet.\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns after the first aligned right."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def percent(share: float | None) -> str:
    """With one decimal; empty where there is no figure."""
    return "" if share is None else f"{100 * share:.1f}"


def megabytes(count: int) -> str:
    """Of so many bytes."""
    return f"{count / 1e6:.2f}"


def with_interval(share: float, interval: Sequence[float], places: int = 1) -> str:
    """Percent, and in brackets the ends of its interval."""
    low, high = interval
    return f"{100 * share:.{places}f} ({100 * low:.{places}f} to {100 * high:.{places}f})"


def signed_with_interval(difference: float, interval: Sequence[float]) -> str:
    """Points, and in brackets the ends of their interval, all with their sign."""
    low, high = interval
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def with_spread(values: Sequence[float]) -> str:
    """Mean and, of several, their standard deviation."""
    if not values:
        return "not run"
    shown = f"{statistics.fmean(values):.1f}"
    return shown + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
