"""What the claims' runs say, as tables and pictures; see benchmarks.distillation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.charts import Curve, curves, standalone
from benchmarks.distillation import ARMS, RATES, READ, SHOWN_RATES, SIZES, Json, arm_runs, by_run, tried_rates
from benchmarks.markdown import signed_with_interval, table, with_spread

LEVEL = 0.01
"""What still counts as level in a claim."""
LOWEST = 0.4
"""Share of lines from which the pictures of arms that lie close together start."""

PICTURES = {
    "places": {
        "published": "method 1", "both": "before and after", "input": "before alone", "ctc-only": "CTC, frozen encoder",
        "scratch": "scratch", "scratch-columns": "scratch, columns",
    },
    "distances": {
        "published": "L2 (method 1)", "l1": "L1", "l1-l2": "L1 + L2", "cosine": "cosine", "kl": "KL of features",
        "kl-classes": "KL of classes", "kl-characters": "KL, no blanks",
    },
    "weights": {
        "published": "w = 0.1 (method 1)", "w0": "w = 0", "w0.01": "w = 0.01", "w1": "w = 1",
        "train-encoder": "encoder trained", "train-classifier": "classifier trained",
    },
}  # fmt: skip
"""Picture -> its arms, by names short enough; every arm is in one, method 1 in all."""


def arms_table(results: Json, names: Sequence[str] = tuple(ARMS)) -> str:
    """These arms at the main size."""
    runs = by_run(results)
    taught = [with_spread(percent([results["teacher"]["exact"]], name)) for name in READ]
    rows = [["the teacher", *taught, "", "", "", "", ""]]
    for name in names:
        arm, own = ARMS[name], arm_runs(runs, name)
        if not own:
            rows.append([arm.what, *["not run"] * 2, "", "", "", "", "0"])
            continue
        sets = [with_spread(percent([run["exact"] for run in own], read_set)) for read_set in READ]
        rows.append(
            [arm.what, *sets, with_spread([100 * run["spikes_agree"] for run in own]),
             f"{own[0]['rate']:g}", f"{statistics.fmean(run['lines'] for run in own):,.0f}",
             f"{statistics.fmean(run['minutes'] for run in own):.1f}", str(len(own))]
        )  # fmt: skip
    header = [
        "exact %",
        "unseen lines",
        "iiit5k_test",
        "spikes as the teacher's, %",
        "rate",
        "lines seen",
        "minutes",
        "seeds",
    ]
    return table(header, rows)


def percent(exact: Sequence[dict[str, float]], name: str) -> list[float]:
    """Of one set; nothing where it was not there."""
    return [100 * found[name] for found in exact if name in found]


def rates_table(results: Json) -> str:
    """Held-out lines of the training set, read by the first seed at each rate that was tried."""
    rates = sorted({rate for tried in (*RATES.values(), *SHOWN_RATES.values()) for rate in tried})
    runs = by_run(results)
    tried = {name: tried_rates(runs, name, shown=True) for name in ARMS}
    rows = [
        [arm.what, *(f"{100 * tried[name][rate]:.1f}" if rate in tried[name] else "" for rate in rates)]
        for name, arm in ARMS.items() if tried[name]
    ]  # fmt: skip
    return table(["exact % of held-out training lines at the rate", *(f"{rate:g}" for rate in rates)], rows)


def sizes_table(results: Json) -> str:
    """Exact accuracy on unseen lines by training lines."""
    rows, runs = [], by_run(results)
    for name, arm in ARMS.items():
        if len(arm.sizes) > 1:
            own = [arm_runs(runs, name, size) for size in SIZES]
            rows.append([arm.what, *(with_spread([100 * run["exact"]["unseen"] for run in some]) for some in own)])
    return table(["exact % of unseen lines", *(f"{size:,} training lines" for size in SIZES)], rows)


CLAIMS = (
    ("the student is within a point of its teacher", "published", "teacher", -LEVEL),
    ("it reads more than the same network from scratch, plain CTC", "published", "scratch", 0.0),
    ("and than one from scratch with the column-aligned loss", "published", "scratch-columns", 0.0),
    ("the distance adds to CTC through the frozen encoder", "published", "ctc-only", 0.0),
    ("freezing the encoder is better than training it on", "published", "train-encoder", 0.0),
    ("L2 suits recognition better than KL of outputs, each at weight 1", "published", "kl-classes", 0.0),
    ("and than KL of outputs without blanks", "published", "kl-characters", 0.0),
    ("L1 suits recognition better than KL of outputs", "l1", "kl-classes", 0.0),
    ("a smaller w does not reach the accuracy: 0.1 beside 0.01", "published", "w0.01", 0.0),
    ("a larger w costs: 0.1 beside 1", "published", "w1", 0.0),
)
"""(claim, first, second, least difference)."""


def claims_table(results: Json) -> str:
    """Each claim with the difference it is judged by: confirmed or refuted where the interval is on one side."""
    found = {(row["first"], row["second"]): row for row in results["differences"]}
    rows = []
    for claim, first, second, least in CLAIMS:
        row = found.get((first, second))
        if row is None:
            rows.append([claim, "not run", ""])
            continue
        low, high = row["interval"]
        verdict = "confirmed" if low > least else "refuted" if high < least else "undecided"
        if not all((one > least) == (row["difference"] > least) for one in row["each"]):
            verdict = "undecided"  # the interval is over lines; seeds must agree besides
        told = signed_with_interval(row["difference"], row["interval"])
        rows.append([claim, told, verdict if len(row["seeds"]) > 1 else f"{verdict} (one seed)"])
    rows += [["training is faster than from scratch", *faster(results)]]
    return table(["claim", "points found (95 %)", ""], rows)


def faster(results: Json) -> tuple[str, str]:
    """Lines and minutes in which method 1 comes to where the better twin ends, and what that twin took to get there."""
    known = by_run(results)
    runs = {name: {run["seed"]: run for run in arm_runs(known, name)} for name in ARMS}
    told, fewer = [], []
    for seed, taught in runs["published"].items():
        twins = [runs[name][seed] for name, arm in ARMS.items() if arm.scratch and seed in runs[name]]
        if len(twins) < sum(arm.scratch for arm in ARMS.values()):
            continue
        twin = max(twins, key=lambda run: float(run["curve"][-1]["accuracy"]))
        mark = twin["curve"][-1]["accuracy"]
        at = next(row for row in twin["curve"] if row["accuracy"] >= mark)
        own = next((row for row in taught["curve"] if row["accuracy"] >= mark), None)
        fewer.append(own is not None and own["seconds"] < at["seconds"])
        reached = f"{own['lines']:,} lines, {own['seconds'] / 60:.1f} min" if own else "never"
        told.append(f"{reached} (twin {at['lines']:,}, {at['seconds'] / 60:.1f} min)")
    if not told:
        return "not run", ""
    verdict = "confirmed" if all(fewer) else "refuted" if not any(fewer) else "undecided"
    return "; ".join(told), verdict if len(told) > 1 else f"{verdict} (one seed)"


def picture(results: Json, of: str) -> str:
    """Accuracy on held-out lines by lines learnt from, mean over seeds and their range; empty where none was run."""
    drawn, runs = [], by_run(results)
    for name, shown in PICTURES[of].items():
        own = arm_runs(runs, name)
        if own:
            columns = list(zip(*([row["accuracy"] for row in run["curve"]] for run in own), strict=False))
            means, lows, highs = ([f(c) for c in columns] for f in (statistics.fmean, min, max))
            every = statistics.fmean(run["lines"] / len(run["curve"]) for run in own)
            drawn.append(Curve(shown, tuple(means), tuple(lows), tuple(highs), every))
    lowest = 0.0 if of == "places" else LOWEST
    return standalone(curves(drawn, "training lines", "exact %, held-out lines", lowest)) if drawn else ""
