"""Many lines on one page of HTML: pictures inside the file, a filter, and marks that become a list of keys."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import cv2

from data.lines import Line, Picture

GREATEST_HEIGHT, GREATEST_WIDTH = 64, 1200
"""Pixels; larger pictures are shrunk."""

STYLE = """
:root { color-scheme: light dark; --paper: #f3f2ee; --card: #fff; --edge: #dbd9d2; --ink: #1c1c1c; --faint: #76736b;
  --mark: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --card: #1c2024; --edge: #31363c; --ink: #e9e7e2; --faint: #9aa3ac; --mark: #ff9a90 }
}
* { box-sizing: border-box }
body { margin: 0; padding: 24px; background: var(--paper); color: var(--ink);
  font: 15px/1.4 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif }
h1 { font-size: 22px; margin: 0 }
header { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: baseline; margin-bottom: 16px }
header span, .key, .note { color: var(--faint); font-size: 12px; overflow-wrap: anywhere }
main { display: flex; flex-wrap: wrap; gap: 10px }
label { background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: 8px; max-width: 100%;
  cursor: pointer }
label:has(:checked) { border-color: var(--mark); outline: 2px solid var(--mark) }
label[hidden] { display: none }
img { display: block; max-width: 100%; max-height: 64px; margin-bottom: 6px }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
.none { color: var(--faint) }
.key, .note { display: block }
input[type=checkbox] { float: right; margin: 0 0 0 8px }
textarea { width: 100%; height: 8em; margin-top: 16px; background: var(--card); color: var(--ink);
  border: 1px solid var(--edge); font: 13px ui-monospace, Consolas, "DejaVu Sans Mono", monospace }
"""

SCRIPT = """
const cards = [...document.querySelectorAll("main label")], keys = document.querySelector("textarea");
document.querySelector("[type=search]").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const card of cards) card.hidden = !card.innerText.toLowerCase().includes(wanted);
});
document.querySelector("main").addEventListener("change", () => {
  keys.value = cards.filter(card => card.querySelector("input").checked).map(card => card.dataset.key).join("\\n");
});
"""


def contact_page(lines: Sequence[Line], notes: Sequence[str], title: str, subtitle: str = "") -> str:
    """A whole page that needs nothing from outside; notes: one a line, shown below its key, "" for none.

    Cards can be filtered by any text on them and marked; the keys of marked ones stand in a field at the end, ready
    for `crnn data show --keys`.
    """
    cards = "\n".join(_card(line, note) for line, note in zip(lines, notes, strict=True))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style>
<header><h1>{escape(title)}</h1><span>{escape(subtitle)}</span>
<input type="search" placeholder="filter" aria-label="filter"></header>
<main>
{cards}
</main>
<textarea readonly placeholder="keys of the lines that are marked" aria-label="keys of the lines that are marked">
</textarea>
<script>{SCRIPT}</script></html>
"""


def _card(line: Line, note: str) -> str:
    text = '<span class="none">no label</span>' if line.text is None else escape(line.text)
    remark = f'<span class="note">{escape(note)}</span>' if note else ""
    return (
        f'<label data-key="{escape(line.key)}"><input type="checkbox"><img alt="" src="{_embedded(line.picture)}">'
        f'<span class="text">{text}</span><span class="key">{escape(line.key)}</span>{remark}</label>'
    )


def _embedded(picture: Picture) -> str:
    """The picture as a data URI, no larger than it can be shown."""
    height, width = picture.shape[:2]
    factor = min(GREATEST_HEIGHT / height, GREATEST_WIDTH / width, 1.0)
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype("uint8")
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
