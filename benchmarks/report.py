"""The benchmark's HTML page: one file, nothing fetched, light or dark as the reader's screen is."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2

from benchmarks.charts import CURVE_STYLE, Curve, Point, curves, scatter
from benchmarks.confidence import BINS, STEPS
from benchmarks.report_style import STYLE
from crnn.score import FEW, Pair, aligned
from data.lines import Picture

OVER_ALL = "mean of sets"
SHOWN_CONFUSIONS = 16
CURVES = 6
"""Models in the picture of confidence, for there are as many colours."""
"""For each model."""


@dataclass(frozen=True)
class Mistake:
    """One line that was read wrong."""

    set_name: str
    key: str
    picture: Picture
    label: str
    text: str
    confidence: float


def render(results: dict[str, Any], mistakes: dict[str, dict[str, list[Mistake]]]) -> str:
    """The page.

    results: what `crnn bench` writes as JSON.
    mistakes: model -> title of a group -> its lines, worst first.
    """
    sections = [
        header(results),
        section("Accuracy, size and time", accuracy_table(results) + table_notes(results)),
        section("What accuracy costs", charts(results)),
        section("How sure, and how right", confidence_part(results)),
        section("Worst mistakes", "".join(gallery(results, name, groups) for name, groups in mistakes.items())),
        section("Frequent and rare characters", frequency_table(results)),
        section("Characters taken for others", confusion_lists(results)),
        footer(results),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>pocket-crnn benchmark, {escape(results['date'])}</title>"
        f"<style>{STYLE}{CURVE_STYLE}{chart_switches(results)}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def header(results: dict[str, Any]) -> str:
    lines = sum(s["lines"] for s in results["sets"])
    threads = f"{results['threads']} thread{'s' if results['threads'] > 1 else ''}"
    facts = [
        ("models", f"{len(results['models'])}"),
        ("lines", f"{lines:,} in {counted(len(results['sets']), 'set')}"),
        ("machine", results["machine"]["cpu"]),
        ("threads", str(results["threads"])),
        ("date", results["date"]),
    ]
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    models, sets = counted(len(results["models"]), "model"), counted(len(results["sets"]), "set")
    lead = (
        f"{models} read {lines:,} labelled lines of {sets}: how often they were right, how large they are, and "
        f"how long one line takes with {threads}."
    )
    return (
        f'<header><p class="brand">pocket-crnn</p><h1>Benchmark</h1><p class="lead">{escape(lead)}</p>'
        f'<dl class="facts">{listed}</dl></header>'
    )


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def accuracy_table(results: dict[str, Any]) -> str:
    """Models down, sets across; the best exact accuracy of each set stands out."""
    sets = [s["name"] for s in results["sets"]]
    sizes = {s["name"]: s["lines"] for s in results["sets"]}
    found = {(r["model"], r["set"]): r for r in results["results"]}
    best = {name: max(found[m["name"], name]["exact"] for m in results["models"]) for name in sets}
    heads = "".join(f"<th>{escape(s)}<small>{sizes[s]:,} lines</small></th>" for s in sets)
    rows = []
    for model in results["models"]:
        name, time = model["name"], model["latency"]
        cells = "".join(accuracy_cell(found[name, s], found[name, s]["exact"] == best[s]) for s in sets)
        spent = f"{time['p50_ms']:.1f}<small>{time['p95_ms']:.1f}</small>" if time else "–"
        title = f'<i class="key {kind(model)}"></i>{breakable(name)}<small>{escape(network(model))}</small>'
        rows.append(
            f'<tr><th scope="row">{title}</th><td>{megabytes(model)}<small>{short(model["parameters"])}</small></td>'
            f"<td>{spent}</td>{cells}</tr>"
        )
    fixed = "<th>model</th><th>MB<small>parameters</small></th><th>ms a line<small>p50, p95</small></th>"
    head = f"<tr>{fixed}{heads}</tr>"
    table = f'<table class="models"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def accuracy_cell(figures: dict[str, Any], best: bool) -> str:
    low, high = figures["exact_interval"]
    margin = f"<small>{low * 100:.1f} to {high * 100:.1f}</small>"
    against = figures["difference"]
    change = ""
    if against:
        change_low, change_high = against["exact_interval"]
        sure = "" if change_low <= 0 <= change_high else (" up" if change_low > 0 else " down")
        between = f"({signed(change_low)}, {signed(change_high)})"
        change = f'<small class="change{sure}">{signed(against["exact"])} {between}</small>'
    folded = "–" if figures["acc36"] is None else f"{figures['acc36'] * 100:.1f}"
    errors = "–" if figures["cer"] is None else f"{figures['cer'] * 100:.1f}"
    uncovered = figures["uncovered_lines"]
    lost = f"<small>{uncovered} outside charset</small>" if uncovered else ""
    return (
        f'<td><span class="exact{" best" if best else ""}">{figures["exact"] * 100:.1f}</span>{margin}{change}'
        f"<small>acc36 {folded} · CER {errors}</small>{lost}</td>"
    )


def signed(share: float) -> str:
    """Points with their sign; zero has none."""
    points = round(share * 100, 1)
    return f"{points:+.1f}".replace("-", "−") if points else "0.0"


def breakable(name: str) -> str:
    """A file's name that may go on in a new line before its suffix and after each underscore."""
    return escape(name).replace(".", "<wbr>.").replace("_", "_<wbr>")


def megabytes(model: dict[str, Any]) -> str:
    return f"{model['bytes'] / 1e6:.2f}"


def short(number: int | None) -> str:
    if number is None:
        return "–"
    return f"{number / 1e6:.2f} M" if number >= 100_000 else f"{number / 1e3:.1f} k"


def kind(model: dict[str, Any]) -> str:
    """CSS class and mark: a network in torch, a file for another runtime, or a recogniser of others."""
    if model["target"] == "peer":
        return "peer"
    return "network" if model["file"].endswith(".pt") else "exported"


def network(model: dict[str, Any]) -> str:
    s = model["sizes"]
    if s is None:
        return str(model["network"])
    encoder = f"{s['layers']}×{s['hidden']} {'BiLSTM' if s['bidirectional'] else 'LSTM'}"
    linear = f" + linear {s['linear']}" if s["linear"] else ""
    return f"{s['backbone']} ×{s['width']:g}, {encoder}{linear}"


def table_notes(results: dict[str, Any]) -> str:
    first = results["models"][0]["name"]
    blind = "without regard to case" if results["case_blind"] else "to the letter, in the case each model writes"
    notes = [
        f"Large figures: per cent of lines read exactly ({blind}), with the 95 % interval of the bootstrap over lines. "
        "acc36: only letters and digits count, without case. CER: edits per hundred characters of the labels."
    ]
    if any(r["uncovered_lines"] for r in results["results"]):
        notes.append(
            "Outside charset: lines whose label holds a character that the model cannot write; they count as wrong."
        )
    if len(results["models"]) > 1:
        notes.append(
            f"With a sign: points above or below {first} on the same lines and the paired interval; coloured where it "
            "leaves out zero."
        )
    if time := results["models"][0]["latency"]:
        measured = "from the prepared picture to the log-probabilities"
        if time.get("ends_at") == "text":
            measured = "from the picture to the text, each model preparing pictures as it does by default"
        notes.append(
            f"Time: {counted(time['lines'], 'line')} of all sets, one at a time at their natural widths "
            f"({time['widths']['least']} to {time['widths']['most']} pixels), {counted(time['rounds'], 'round')} in "
            f"which the models take turns, after one to warm up; {measured}."
        )
    notes.append(" ".join(same_texts(results)))
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes if note)


def same_texts(results: dict[str, Any]) -> list[str]:
    """A sentence for every two models of one network: on how many lines they give the same text."""
    sentences = []
    for second, model in enumerate(results["models"]):
        for other in results["models"][:second]:
            if model["sizes"] and model["sizes"] == other["sizes"] and kind(model) != kind(other):
                own = [r for r in results["results"] if r["model"] == model["name"]]
                same, lines = sum(r["same_text"][other["name"]] for r in own), sum(r["lines"] for r in own)
                sentences.append(
                    f"{model['name']} gives the same text as {other['name']} on {same:,} of {lines:,} lines."
                )
    return sentences


def copy_of(results: dict[str, Any], name: str) -> str | None:
    """The first model before this one that reads every line with the same text."""
    own = [r for r in results["results"] if r["model"] == name]
    before = [m["name"] for m in results["models"]]
    return next((b for b in before[: before.index(name)] if all(r["same_text"][b] == r["lines"] for r in own)), None)


def charts(results: dict[str, Any]) -> str:
    """Both pictures for every set and their mean, exact and acc36, switched without a script."""
    views = chart_views(results)
    timed = all(model["latency"] for model in results["models"])
    switches = "".join(
        f'<input type="radio" name="view" id="view{i}"{" checked" if i == 0 else ""}>' for i in range(len(views))
    )
    labels = "".join(f'<label for="view{i}">{escape(name)}</label>' for i, (name, _) in enumerate(views))
    metrics = '<input type="radio" name="metric" id="exact" checked><input type="radio" name="metric" id="acc36">'
    metric_labels = '<label for="exact">exact</label><label for="acc36">acc36</label>'
    figures = []
    for i, (name, sets) in enumerate(views):
        for metric in ("exact", "acc36"):
            axes = [("size of the file, MB", lambda m: m["bytes"] / 1e6)]
            if timed:
                axes.append(("one line, ms (p50)", lambda m: m["latency"]["p50_ms"]))
            for title, across in axes:
                points = chart_points(results, sets, metric, across)
                if points:
                    picture = scatter(points, title, f"{metric}, % ({name})")
                    figures.append(f'<figure class="view{i} {metric}">{picture}</figure>')
    tabs = f'<div class="tabs views">{labels}</div><div class="tabs metrics">{metric_labels}</div>'
    of_others = any(kind(model) == "peer" for model in results["models"])
    peers = '<i class="key peer"></i>recogniser of others' if of_others else ""
    key = (
        '<p class="note"><i class="key network"></i>network in torch<i class="key exported"></i>exported file'
        f"{peers}. "
        "Bars: 95 % intervals; for the mean of sets, the mean of theirs.</p>"
    )
    return f'<div class="charts">{switches}{metrics}{tabs}<div class="pictures">{"".join(figures)}</div></div>{key}'


def chart_views(results: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(title, sets it averages)."""
    names = [s["name"] for s in results["sets"]]
    every = [(OVER_ALL, names)] if len(names) > 1 else []
    return every + [(name, [name]) for name in names]


def chart_switches(results: dict[str, Any]) -> str:
    """CSS that shows the figures of the chosen view and metric, and marks the chosen tabs."""
    rules = []
    for i in range(len(chart_views(results))):
        rules.append(f"#view{i}:checked~.views label[for=view{i}]")
    marked = ",".join([*rules, "#exact:checked~.metrics label[for=exact]", "#acc36:checked~.metrics label[for=acc36]"])
    shown = ",".join(
        f"#view{i}:checked~#{metric}:checked~.pictures .view{i}.{metric}"
        for i in range(len(chart_views(results)))
        for metric in ("exact", "acc36")
    )
    return f"{marked}{{background:var(--ink);color:var(--paper)}}{shown}{{display:block}}"


def chart_points(results: dict[str, Any], sets: list[str], metric: str, across: Any) -> list[Point]:
    points = []
    counting = [r for r in results["results"] if r["set"] in sets and r[metric] is not None]
    for model in results["models"]:
        own = [r for r in counting if r["model"] == model["name"]]
        if own:
            low, high = (sum(r[f"{metric}_interval"][end] for r in own) / len(own) for end in (0, 1))
            mean = sum(r[metric] for r in own) / len(own)
            points.append(Point(model["name"], across(model), mean, low, high, kind(model)))
    return points


def gallery(results: dict[str, Any], name: str, groups: dict[str, list[Mistake]]) -> str:
    """One model's mistakes, folded away but for the first model's."""
    if not groups:
        return f'<p class="alone"><b>{escape(name)}</b> read every line right.</p>'
    if same := copy_of(results, name):
        return f'<p class="alone"><b>{escape(name)}</b> reads every line as {escape(same)} does.</p>'
    parts = []
    for title, mistakes in groups.items():
        cards = "".join(card(mistake) for mistake in mistakes)
        parts.append(f'<h3>{escape(title)}</h3><div class="cards">{cards}</div>')
    opened = " open" if name == results["models"][0]["name"] else ""
    return f"<details{opened}><summary>{escape(name)}</summary>{''.join(parts)}</details>"


def card(mistake: Mistake) -> str:
    label, text = marked(mistake.label, mistake.text)
    picture = f'<img alt="{escape(mistake.label)}" src="{picture_source(mistake.picture)}">'
    origin = f"<small>{escape(mistake.set_name)}<b>{mistake.confidence * 100:.0f} % sure</b></small>"
    longest = max(len(mistake.label), len(mistake.text))
    room = " long" if longest > 32 else " medium" if longest > 15 else ""
    return (
        f'<figure class="card{room}" title="{escape(mistake.key)}"><div class="crop">{picture}</div><figcaption>'
        f'<span class="was">{label}</span><span class="read">{text}</span>{origin}</figcaption></figure>'
    )


def marked(label: str, text: str) -> tuple[str, str]:
    """Both texts as HTML with what differs marked."""
    pairs = aligned(label, text)
    return (
        "".join(_marked(p.label, p) for p in pairs) or "<i>empty</i>",
        "".join(_marked(p.read, p) for p in pairs) or "<i>nothing</i>",
    )


def _marked(character: str, pair: Pair) -> str:
    if pair.label == pair.read:
        return escape(character)
    return f"<mark>{escape(character)}</mark>" if character else ""


def picture_source(picture: Picture, height: int = 64) -> str:
    """The picture as a PNG in a data URL, at most so high."""
    if picture.shape[0] > height:
        width = max(1, round(picture.shape[1] * height / picture.shape[0]))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    encoded = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"


def frequency_table(results: dict[str, Any]) -> str:
    """Models down, groups of characters across, over all sets."""
    groups = results["frequency"]
    names = ("many", "medium", "few")
    heads = "".join(f"<th>{name}<small>{counted(len(groups[name]), 'character')}</small></th>" for name in names)
    rows = []
    for model in results["models"]:
        own = results["characters"][model["name"]]
        cells = "".join(frequency_cell(own[name]) for name in names)
        macro = "–" if own["macro"] is None else f"{own['macro'] * 100:.1f}"
        title = f'<i class="key {kind(model)}"></i>{breakable(model["name"])}'
        rows.append(f'<tr><th scope="row">{title}</th>{cells}<td>{macro}</td></tr>')
    head = f"<tr><th>model</th>{heads}<th>macro<small>mean of characters</small></th></tr>"
    table = f'<table class="models"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    rare = "".join(sorted(groups["few"]))
    note = (
        f"Per cent of the labels' characters, over all sets, that were read in their place, with the 95 % interval of "
        f"the bootstrap over lines. {frequency_sentence(groups)} Few: {rare or 'none'}"
    )
    return f'<div class="scroll">{table}</div><p class="note">{escape(note)}</p>'


def frequency_cell(figures: dict[str, Any]) -> str:
    if figures["read"] is None:
        return "<td>–</td>"
    low, high = figures["interval"]
    between = f"<small>{low * 100:.1f} to {high * 100:.1f}</small>"
    return f"<td>{figures['read'] * 100:.1f}{between}<small>of {figures['held']:,}</small></td>"


def frequency_sentence(groups: dict[str, Any]) -> str:
    """Whose counts the groups are, and what they mean."""
    whose = f"the training lines of {groups['counts_of']}" if groups["counts_of"] else "the labels of these sets"
    return (
        f"Characters are grouped by how often {whose} hold them: many, at least as often as if all were equally "
        f"frequent; few, under {FEW:.0%} of that."
    )


def confidence_part(results: dict[str, Any]) -> str:
    """A curve of what is right among the surest, and a table of the same; nothing where no line was read."""
    found = {name: figures for name, figures in results["confidence"].items() if figures}
    if not found:
        return ""
    shares = {name: tuple(f["accuracy_of_surest"]) for name, f in list(found.items())[:CURVES]}
    drawn = [Curve(name, own, own, own) for name, own in shares.items()]
    picture = curves(drawn, "lines kept, the surest first, %", "of them exactly right, %", unit=100 // STEPS)
    heads = "".join(f"<th>kept at {float(errors):.0%} wrong</th>" for errors in next(iter(found.values()))["kept"])
    rows = "".join(
        f'<tr><th scope="row">{breakable(name)}</th><td>{f["mean_confidence"] * 100:.1f}</td>'
        f"<td>{f['accuracy'] * 100:.1f}</td><td>{f['calibration_error'] * 100:.1f}</td>"
        + "".join(f"<td>{share * 100:.1f}</td>" for share in f["kept"].values())
        + "</tr>"
        for name, f in found.items()
    )
    head = f"<tr><th>model</th><th>mean confidence</th><th>exact</th><th>calibration error</th>{heads}</tr>"
    table = f'<table class="models"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    note = (
        "Per cent, over all sets. Calibration error: the gap between how sure a model is and how often it is right, "
        f"the mean over {BINS} bins of confidence. Kept: how many lines remain where the least sure are left out until "
        "so many of the rest are wrong; choose --min-confidence of crnn read on lines of your own."
        + (f" The picture has the first {CURVES} models." if len(found) > CURVES else "")
    )
    return f'<div class="sure">{picture}</div><div class="scroll">{table}</div><p class="note">{escape(note)}</p>'


def confusion_lists(results: dict[str, Any]) -> str:
    parts = []
    for name, found in results["confusions"].items():
        if not found or copy_of(results, name):
            continue
        most = found[0]["count"]
        rows = "".join(
            f"<tr><td>{visible(c['label'])}</td><td>→</td><td>{visible(c['read'])}</td><td>{c['count']}</td>"
            f'<td><span class="bar" style="width:{c["count"] / most * 100:.0f}%"></span></td></tr>'
            for c in found[:SHOWN_CONFUSIONS]
        )
        parts.append(f'<div><h3>{escape(name)}</h3><table class="confusions"><tbody>{rows}</tbody></table></div>')
    if not parts:
        return ""
    note = (
        "Label → reading, over all sets, aligned by the fewest edits. Lines with more edits than half their length "
        "are left out: what stands side by side in them is chance."
    )
    return f'<p class="note">{note}</p><div class="columns">{"".join(parts)}</div>'


def visible(character: str) -> str:
    names = {"": "<i>nothing</i>", " ": "<i>space</i>"}
    return names.get(character, f"<code>{escape(character)}</code>")


def footer(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    load = "" if machine["load"] is None else f"; load before the start {machine['load']:g}"
    text = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; "
        f"Python {machine['python']}, {versions}{load}; seed {results['seed']}."
    )
    return f"<footer><pre><code>{escape(results['command'])}</code></pre><p>{escape(text)}</p></footer>"
