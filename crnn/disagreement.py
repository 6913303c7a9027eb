"""Where a recogniser is sure of another text than the label: wrong labels, and lines that lie on their side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import editdistance
import numpy as np

from crnn.charset import BLANK, Charset
from crnn.ctc import LogProbs, align
from crnn.recogniser import Recogniser, turned
from data.lines import Picture
from data.picture import prepare

TURNS = (90, 180, 270)
FAR, NEAR = 0.5, 0.34
"""Edits per character: a reading so far from the label is tried turned, and a turned one so near settles it."""


@dataclass(frozen=True)
class Disagreement:
    """text: what the model reads, turned counter-clockwise by so many degrees. nats: see disagreements.

    lies: the text is the label, or near it, and the picture is what is wrong: it has to be turned.
    """

    text: str
    nats: float
    turned: int = 0
    lies: bool = False


def disagreements(
    recogniser: Recogniser, pictures: Sequence[Picture], labels: Sequence[str], odds: float
) -> list[Disagreement | None]:
    """For each line what the model reads instead of the label, where it is sure; None where it agrees or is unsure.

    Texts are compared without case and spaces. The measure is by how much the best path is more probable to the model
    than the best path that reads the label, in nats (natural logarithms of probabilities) for each edit between both
    texts; at least log(odds) is sure. The label is taken in the case in which it is most probable, for many sets are
    labelled in one case. A label that the charset cannot write, or that has no room on the picture, is not compared.
    """
    charset = recogniser.info.charset
    found: list[Disagreement | None] = []
    for picture, label, reading in zip(pictures, labels, recogniser.read(pictures), strict=True):
        edits = editdistance.eval(folded(label), folded(reading.text))
        if not edits or charset.missing(label):
            found.append(None)
            continue
        if len(folded(label)) >= 3 and edits >= FAR * len(folded(label)):
            lying = turned_reading(recogniser, picture, label)
            if lying is not None:
                found.append(lying)
                continue
        log_probs = recogniser.runtime(prepare(turned(picture, reading.turned), recogniser.info.input_spec)[None])[0]
        best = float(log_probs.max(axis=-1).sum(dtype=np.float64))
        written = max(path_log_prob(log_probs, case, charset) for case in cases(label, charset))
        nats = (best - written) / editdistance.eval(label.casefold(), reading.text.casefold())
        sure = np.isfinite(nats) and nats >= log(odds)
        found.append(Disagreement(reading.text, nats, reading.turned) if sure else None)
    return found


def turned_reading(recogniser: Recogniser, picture: Picture, label: str) -> Disagreement | None:
    """How the model reads the label once the picture is turned; None where it does not come near it."""
    readings = recogniser.read([turned(picture, degrees) for degrees in TURNS])
    edits = [editdistance.eval(folded(label), folded(reading.text)) for reading in readings]
    best = int(np.argmin(edits))
    degrees = (TURNS[best] + readings[best].turned) % 360
    return Disagreement(readings[best].text, 0.0, degrees, True) if edits[best] <= NEAR * len(folded(label)) else None


def path_log_prob(log_probs: LogProbs, text: str, charset: Charset) -> float:
    """Log-probability of the most probable path that reads text: (T, K) -> nats; -inf where there is none."""
    classes = charset.encode(text)
    try:
        spans = align(log_probs, classes)
    except ValueError:
        return -np.inf
    emitted = log_probs[:, BLANK].astype(np.float64)  # (T,)
    for number, span in zip(classes, spans, strict=True):
        emitted[span.start : span.end] = log_probs[span.start : span.end, number]
    return float(emitted.sum())


def cases(label: str, charset: Charset) -> list[str]:
    """The label as it stands, in lower and upper case and as a title, as far as the charset can write it."""
    forms = dict.fromkeys(charset.normalise(form) for form in (label, label.lower(), label.upper(), label.title()))
    return [form for form in forms if not charset.missing(form)]


def folded(text: str) -> str:
    """Without case and spaces."""
    return "".join(text.split()).casefold()
