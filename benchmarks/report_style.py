"""The look of the benchmark's page: one column of sections, tables that scroll, colours for light and dark."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #fff; --ink: #1d2126; --soft: #626a73; --line: #e2dfd8; --crop: #ecebe7;
  --network: #1f5fbf; --exported: #c2571a; --peer: #5f6b76; --good: #1b7a43; --bad: #b3261e; --mark: #ffdcd6;
  --text: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  --code: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e9e7e2; --soft: #9aa3ac; --line: #31363c; --crop: #262b30;
    --network: #7fb0ff; --exported: #ffa566; --peer: #a9b4be; --good: #6fd197; --bad: #ff9a90; --mark: #6b2620;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--text) }
main { max-width: 1240px; margin: 0 auto; padding: clamp(1.2rem, 4vw, 3.5rem) }
h1 { font-size: clamp(2rem, 5vw, 3rem); line-height: 1.05; letter-spacing: -.025em; margin: 0 0 .6rem }
h2 { font-size: 1.4rem; letter-spacing: -.01em; margin: 0 0 1rem }
h3 { font-size: .95rem; margin: 1.2rem 0 .6rem }
section { margin-top: 3.2rem }
small { display: block; font-size: .78rem; font-weight: 400; color: var(--soft) }
code { font-family: var(--code) }
.brand { margin: 0 0 .3rem; color: var(--network); font-weight: 600 }
.lead { font-size: 1.15rem; max-width: 44rem; margin: 0 0 1.6rem; color: var(--soft) }
.note { font-size: .86rem; color: var(--soft); max-width: 52rem; margin: .7rem 0 0 }

.facts {
  display: flex; flex-wrap: wrap; gap: .9rem 2.4rem; margin: 0; padding: 1rem 0;
  border-block: 1px solid var(--line)
}
dt { font-size: .78rem; color: var(--soft) }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums }

.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 12px; background: var(--card) }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums }
.models { width: 100% }
.models th, .models td {
  padding: .75rem .8rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-top: 1px solid var(--line)
}
.models thead th { border-top: 0; font-size: .86rem }
.models th:first-child {
  position: sticky; left: 0; min-width: 9rem; text-align: left; white-space: normal; overflow-wrap: anywhere;
  background: var(--card)
}
.models th[scope=row] { padding-left: 2.1rem }
.models .key { position: absolute; left: .9rem; top: 1.15rem }
.models small { font-size: .74rem }
.exact { font-size: 1.25rem; font-weight: 600 }
.best { text-decoration: underline 2px; text-underline-offset: 4px }
.up { color: var(--good) }
.down { color: var(--bad) }

.key {
  display: inline-block; width: .68em; height: .68em; margin-right: .5em; border-radius: 50%;
  background: var(--network)
}
.key.exported { border-radius: 1px; transform: rotate(45deg); background: var(--exported) }
.key.peer { border-radius: 0; background: var(--peer) }
.note .key + .key { margin-left: 1.2em }

.charts > input { position: absolute; opacity: 0; pointer-events: none }
.tabs {
  display: inline-flex; flex-wrap: wrap; gap: .2rem; margin: 0 1rem .9rem 0; padding: .2rem;
  border: 1px solid var(--line); border-radius: 9px; background: var(--card)
}
.tabs label { padding: .22rem .75rem; border-radius: 6px; font-size: .88rem; cursor: pointer }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 1rem }
.pictures figure {
  display: none; margin: 0; padding: .8rem; border: 1px solid var(--line); border-radius: 12px;
  background: var(--card)
}
.chart { width: 100%; height: auto; display: block; font: 12px var(--text) }
.chart text { fill: var(--soft) }
.chart .name { fill: var(--ink); font-weight: 600 }
.chart .grid { stroke: var(--line) }
.chart .leader { stroke: var(--soft); stroke-width: .7 }
.chart .interval { stroke-width: 1.5; opacity: .55 }
.sure { max-width: 640px }
.point { fill: var(--network); stroke: var(--network) }
.point.exported { fill: var(--exported); stroke: var(--exported) }
.point.peer { fill: var(--peer); stroke: var(--peer) }
.point circle, .point path { stroke: var(--card); stroke-width: 1.5 }

details { border-top: 1px solid var(--line); padding: .8rem 0 }
summary { cursor: pointer; font-weight: 600; font-size: 1.05rem }
.alone { border-top: 1px solid var(--line); padding: .8rem 0; margin: 0 }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); grid-auto-flow: dense; gap: .8rem
}
@media (min-width: 640px) {
  .medium { grid-column: span 2 }
  .long { grid-column: span 3 }
}
.card {
  margin: 0; overflow: hidden; display: flex; flex-direction: column; border: 1px solid var(--line);
  border-radius: 10px; background: var(--card)
}
.crop {
  display: flex; align-items: center; justify-content: center; height: 76px; padding: 6px; background: var(--crop)
}
.crop img { max-width: 100%; max-height: 64px; object-fit: contain }
figcaption {
  flex: 1; display: flex; flex-direction: column; padding: .55rem .75rem .6rem; font: 15px/1.4 var(--code);
  overflow-wrap: anywhere
}
.was, .read { white-space: pre-wrap }
.was { color: var(--soft) }
.read { font-weight: 600 }
mark { background: var(--mark); color: inherit; border-radius: 3px }
.was mark { background: none; text-decoration: underline; text-underline-offset: 3px }
figcaption small {
  display: flex; justify-content: space-between; gap: .5rem; margin-top: auto; padding-top: .3rem;
  font: 12px/1.4 var(--text)
}
figcaption b { font-weight: 600; white-space: nowrap }

.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); gap: 0 2.5rem }
.confusions { width: 100%; font-size: .92rem }
.confusions td { padding: .16rem .5rem; border-top: 1px solid var(--line) }
.confusions td:nth-child(2) { color: var(--soft) }
.confusions td:nth-child(4) { text-align: right }
.confusions td:last-child { width: 45% }
.bar { display: block; height: .55rem; border-radius: 3px; background: var(--network) }

footer {
  margin-top: 3.5rem; padding-top: 1.2rem; border-top: 1px solid var(--line); font-size: .84rem; color: var(--soft)
}
pre {
  white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem 1rem; border-radius: 8px;
  background: var(--card); border: 1px solid var(--line)
}
"""
