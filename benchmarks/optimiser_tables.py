"""What the runs of benchmarks.optimisers say: tables, claims and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, median, stdev
from typing import Literal

from benchmarks.charts import Curve, curves, standalone
from benchmarks.markdown import NOT_RUN, table
from benchmarks.optimisers import (
    LEAST_SEEDS,
    MARKS,
    PEERS,
    RATES,
    SEEDS,
    CifarRun,
    Json,
    best_multiples,
    steps_to,
)  # fmt: skip

COLOURS: tuple[Literal["colour", "grey"], ...] = ("colour", "grey")
"""Both forms of the published network: its text turns pictures grey, its first step fits either."""


def spread_of(values: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """Mean, and the standard deviation over seeds where there are two; "not run" without any."""
    if not values:
        return "not run"
    told = f"{scale * mean(values):.{digits}f}"
    return told + (f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else "")


def of_peer(runs: dict[str, Json], colours: Literal["colour", "grey"], peer: str, multiple: float = 1.0) -> list[Json]:
    """The runs of all seeds that are there."""
    names = [CifarRun(colours, peer, seed, multiple).name for seed in range(SEEDS)]
    return [runs[name] for name in names if name in runs]


def epochs_to(run: Json, mark: float) -> int | None:
    """The first epoch that ends at the mark or above."""
    return next((epoch for epoch, value in enumerate(run["accuracy"], 1) if value >= mark), None)


def reached(runs: Sequence[Json], mark: float) -> str:
    """Median epochs and processor seconds to a mark, and how many seeds came there."""
    there = [(epoch, run["seconds"][epoch - 1]) for run in runs if (epoch := epochs_to(run, mark))]
    if not runs:
        return "not run"
    if not there:
        return f"never (0 of {len(runs)})"
    epochs, seconds = (median(column) for column in zip(*there, strict=True))
    return f"{epochs:g} epochs, {seconds:.0f} s" + (f" ({len(there)} of {len(runs)})" if len(there) < len(runs) else "")


def optimisers_table(results: Json) -> str:
    """The published table again, as Markdown: colour, then grey, then at the rates chosen on held-out pictures."""
    runs = results.get("cifar", {}).get("runs", {})
    best = best_multiples(runs)
    header = ["CIFAR-10", "rate", "seeds", "published", "at the end", "best epoch", "to 63 %", "to 64 %"]
    rows = []
    cases: list[tuple[Literal["colour", "grey"], str, bool]] = [
        ("colour", "colour", False), ("grey", "grey", False), ("colour", "best rate of four", True),
    ]  # fmt: skip
    for colours, told, tuned in cases:
        for peer, about in PEERS.items():
            some = of_peer(runs, colours, peer, best.get(peer, math.nan) if tuned else 1.0)
            rows.append([
                f"{about.label}, {told}", f"{some[0]['rate']:.3g}" if some else "", str(len(some)),
                "" if tuned else f"{about.published:.1f}", spread_of([run["accuracy"][-1] for run in some]),
                spread_of([max(run["accuracy"]) for run in some]), *(reached(some, mark) for mark in MARKS),
            ])  # fmt: skip
    return table(header, rows)


def claims(results: Json, colours: Literal["colour", "grey"] = "colour") -> list[tuple[str, str, str]]:
    """(what is published, what was found, confirmed or not) of what can be said by now."""
    runs = results.get("cifar", {}).get("runs", {})
    found = {peer: of_peer(runs, colours, peer) for peer in PEERS}
    if not all(found.values()):
        return []
    ends = {peer: [run["accuracy"][-1] for run in some] for peer, some in found.items()}
    falls = {peer: [max(run["accuracy"]) - run["accuracy"][-1] for run in some] for peer, some in found.items()}
    ours, others = ends["gradient-direction"], [peer for peer in PEERS if peer != "gradient-direction"]
    ahead = [[a - b for a, b in zip(ours, ends[peer], strict=False)] for peer in others]
    said = [
        (
            "64.404 % at the end", f"{spread_of(ours, digits=2)} %",
            mean(ours) + (stdev(ours) if len(ours) > 1 else 0) >= 0.64404,
        ),
        (
            "ahead of all others at the end",
            ", ".join(f"{spread_of(d)} beside {PEERS[p].label}" for p, d in zip(others, ahead, strict=True)),
            all(min(difference) > 0 for difference in ahead),
        ),
        (
            "does not fall at the end, as Adam and RMSprop do",
            ", ".join(
                f"{PEERS[p].label} {spread_of(falls[p], digits=2)}" for p in ("gradient-direction", "adam", "rmsprop")
            ) + " below the best epoch",
            all(mean(falls["gradient-direction"]) < mean(falls[peer]) for peer in ("adam", "rmsprop")),
        ),
    ]  # fmt: skip
    for mark in MARKS:
        times = {PEERS[peer].label: seconds_to(some, mark) for peer, some in found.items()}
        own = times.pop(PEERS["gradient-direction"].label)
        fastest = min((label for label in times if times[label]), key=lambda label: mean(times[label]), default="")
        told = f"{spread_of(own, 1, 0)} s ({len(own)} of {len(ours)} seeds)" if own else "never reached by ours"
        told += f", {fastest} {spread_of(times[fastest], 1, 0)} s" if fastest else ", by no other"
        less = len(own) * 2 > len(ours) and (not fastest or mean(own) <= 0.7 * mean(times[fastest]))
        said.append((f"30 to 40 % less time to {mark:.0%} than the fastest other", told, less))
    return [(published, told, "confirmed" if held else "not confirmed") for published, told, held in said]


def seconds_to(runs: Sequence[Json], mark: float) -> list[float]:
    """Processor seconds of the runs that come to a mark."""
    return [run["seconds"][epoch - 1] for run in runs if (epoch := epochs_to(run, mark))]


def claims_table(results: Json) -> str:
    """Claim, finding and verdict in colour and in grey, with as many seeds as there are; few of them decide nothing."""
    sides = []
    for colours in COLOURS:
        found = claims(results, colours)
        runs = results.get("cifar", {}).get("runs", {})
        seeds = min(len(of_peer(runs, colours, peer)) for peer in PEERS)
        if seeds < LEAST_SEEDS:
            found = [(published, told, f"undecided (seeds: {seeds})") for published, told, _ in found]
        sides.append({published: [told, verdict] for published, told, verdict in found})
    missing = ["not run", ""]
    rows = [[claim, *side, *sides[1].get(claim, missing)] for claim, side in sides[0].items()]
    return table(["published", "found in colour", "", "found in grey", ""], rows) if rows else NOT_RUN


def text_table(results: Json) -> str:
    """Steps of the small recogniser to each share of validation lines."""
    about = results.get("text")
    if not about or not about["runs"]:
        return NOT_RUN
    header = ["optimiser, rate", "seeds", *(f"steps to {m:.0%}" for m in about["marks"]), "processor s", "best, %"]
    rows = []
    for optimiser, rates in RATES.items():
        for rate in rates:
            some = [row for row in about["runs"] if row["optimiser"] == optimiser and row["rate"] == rate]
            told = f"{optimiser}, {rate:g}"
            if optimiser == "gradient-direction":
                told = f"{optimiser}, {rate * about['first_step']:.3g}" + (" (computed)" if rate == 1 else "")
            steps = [[steps_to(row["accuracy"], mark) for row in some] for mark in about["marks"]]
            shown = [
                ", ".join(str(step) if step else f"not in {about['steps']}" for step in each) if each else "not run"
                for each in steps
            ]
            seconds = [row["processor_seconds"] for row in some if "processor_seconds" in row]
            best = spread_of([max(row["accuracy"].values()) for row in some])
            rows.append([told, str(len(some)), *shown, spread_of(seconds, 1, 0) if seconds else "", best])
    return table(header, rows)


def speed_table(results: Json) -> str:
    """Milliseconds of an update, beside SGD's."""
    about = results.get("speed")
    if not about:
        return NOT_RUN
    sgd = about["update"]["SGD"]["median"]
    rows = [
        [name, f"{took['median']:.2f} ({took['low']:.2f} to {took['high']:.2f})", f"{took['median'] / sgd:.2f}"]
        for name, took in about["update"].items()
    ]
    return table([f"update of {about['parameters']:,} parameters", "ms (quartiles)", "of SGD's"], rows)


def optimisers_picture(results: Json, colours: Literal["colour", "grey"] = "colour") -> str:
    """Accuracy after each epoch at the published settings, mean and range over seeds, as an SVG file's text."""
    runs = results.get("cifar", {}).get("runs", {})
    drawn = []
    for peer, about in PEERS.items():
        columns = list(zip(*(run["accuracy"] for run in of_peer(runs, colours, peer)), strict=True))
        if columns:
            lows, highs = (tuple(map(end, columns)) for end in (min, max))
            drawn.append(Curve(about.label, tuple(map(mean, columns)), lows, highs))
    return standalone(curves(drawn, "epoch", "of the test pictures, %", lowest=0.5)) if drawn else ""
