"""What grown charsets read: figures of benchmarks.extend_charset from readings, and its tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.intervals import bootstrap_interval
from benchmarks.markdown import NOT_RUN
from benchmarks.readings import Pairs, exact_lines, paired
from crnn.score import character_recall

TEST_SETS = ("iiit5k_test", "sroie_test")

Json = dict[str, Any]


def shares(lines: Pairs, signs: str) -> Json:
    """Of the characters in these lines, how many are read: the signs, letters and digits, and all other marks."""
    found = character_recall((text for _, text in lines), (label for label, _ in lines))
    others = [c for c in found.held if c not in signs]
    return {
        "lines": len(lines),
        "held": found.occurrences(signs),
        "signs": found.share(signs),
        "letters": found.share([c for c in others if c.isalnum()]),
        "marks": found.share([c for c in others if not c.isalnum() and c != " "]),
    }


def by_character(lines: Pairs, characters: str) -> dict[str, list[int]]:
    """Each character: how often it is in the lines, and how often it was read."""
    found = character_recall((text for _, text in lines), (label for label, _ in lines))
    return {c: [found.held[c], found.read[c]] for c in characters}


def pooled_interval(runs: Sequence[Pairs], characters: str) -> list[float]:
    """95 % interval of the share of these characters that are read, over lines; a line's value is its mean over runs.

    A line counts by how often it holds one, so that the mean over lines is the share.
    """
    values: list[float] = []
    held = [sum(label.count(c) for c in characters) for label, _ in runs[0]]
    mean_held = sum(held) / max(1, sum(h > 0 for h in held))
    for lines in zip(*runs, strict=True):
        times = sum(lines[0][0].count(c) for c in characters)
        if times:
            recalls = [character_recall([text], [label]) for label, text in lines]
            values.append(statistics.fmean(sum(r.read[c] for c in characters) for r in recalls) / mean_held)
    return list(bootstrap_interval(values, 0))


def change(runs: Sequence[Pairs], before: Pairs) -> Json:
    """Exact lines before and after (mean over runs), and the difference with its interval, paired line by line."""
    first = exact_lines(before)
    each, interval = paired([exact_lines(lines) for lines in runs], [first] * len(runs))
    share, difference = statistics.fmean(first), statistics.fmean(each)
    return {
        "lines": len(before),
        "before": share,
        "after": share + difference,
        "difference": difference,
        "interval": list(interval),
    }


def extend_table(results: Json) -> str:
    """A row for each arm, then for each real set, as Markdown; what was not run says so."""
    head = (
        "| characters added | how | new ones read % (95 %) | undegraded | drawn old lines | IIIT5K | SROIE | minutes |"
    )
    rows = [head, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in results["arms"].values():
        rows.append("| " + " | ".join([f"{row['characters']}, drawn", row["told"], *_cells(row)]) + " |")
    for name, row in results["real"].items():
        of = name.split("-")[0]
        added = f"{len(row['add'])}, half of {of}" if "add" in row else f"those of {of}"
        rows.append("| " + " | ".join([added, row["told"], *_cells(row)]) + " |")
    return "\n".join(rows) + "\n"


def trade_table(results: Json) -> str:
    """What the biases of new rows buy and cost, as Markdown: every nat, and what the command took."""
    rows = [
        "| new characters | biases moved by | cost on held-out lines | new ones read % | undegraded | drawn old lines "
        "| IIIT5K | SROIE |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, moves in results["trade"].items():
        for row in moves:
            if row["taken"] or not row["moved"] % 1:
                new = [f"{100 * row[key]:.1f}" if key in row else "" for key in (name, f"{name}-clean")]
                old = [f"{100 * row[key]:+.1f}" for key in ("old", *TEST_SETS)]
                moved = f"{row['moved']:+g}" + (" (taken)" if row["taken"] else "")
                cells = [str(len(results["added"][name])), moved, f"{100 * row['cost']:.1f}", *new, *old]
                rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else NOT_RUN


def _cells(row: Json) -> list[str]:
    """New characters read, and in undegraded lines, three differences of exact lines in points, minutes."""
    if "new" not in row:
        return ["not run", *[""] * 5]
    share = row["new_mean"] if "new_mean" in row else row["new"]
    new = f"{100 * share:.1f} ({_range(row['new_interval'])})"
    points = [f"{100 * own['difference']:+.1f} ({_range(own['interval'])})" for own in row["old"].values()]
    minutes = row["minutes"] if isinstance(row["minutes"], list) else [row["minutes"]]
    clean = f"{100 * row['new_clean']:.1f}" if row.get("new_clean") is not None else ""
    return [new, clean, *points, f"{statistics.fmean(minutes):.0f}"]


def _range(interval: Sequence[float]) -> str:
    return " to ".join(f"{100 * end:.1f}" for end in interval)
