"""`python -m benchmarks.documents`: tables of README.md, docs/results.md and the model card, made from docs/results/.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from benchmarks import (
    arms,
    beside_peers,
    centres,
    degradation_ablation,
    demo,
    demo_teacher,
    distillation_tables,
    extend_charset_tables,
    few_shot,
    formats,
    full_width,
    install_weight,
    known_words,
    learn_characters,
    loading_speed,
    long_tail,
    narrow_lines,
    optimiser_tables,
    own_language,
    rare_characters,
    real_pair,
    real_student,
    students,
    synthesis,
    synthetic_training,
)
from benchmarks.markdown import NOT_RUN
from benchmarks.stages import RESULTS

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    ROOT / "README.md",
    *(ROOT / f"docs/{name}.md" for name in ("results", "export", "performance", "own-language")),
    *(ROOT / f"crnn/models/{name}.md" for name in ("teacher", "default", "tiny")),
)
TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.S)

Json = dict[str, Any]


def main(check: bool = False) -> int:
    """Writes tables and pictures of the documents anew.

    Args:
        check: write nothing; exit status 1 where one is not what the results say.
    """
    stale = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        made = with_tables(text)
        if made != text and not check:
            path.write_text(made, encoding="utf-8")
        elif made != text:
            stale.append(str(path.relative_to(ROOT)))
    for path, draw in PICTURES.items():
        picture = draw()
        if picture and (not path.exists() or path.read_text(encoding="utf-8") != picture):
            if check:
                stale.append(str(path.relative_to(ROOT)))
            else:
                path.write_text(picture, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)} differ from the results; run python -m benchmarks.documents", file=sys.stderr)
    return 1 if stale else 0


def with_tables(text: str) -> str:
    """The document with every table made anew; KeyError for a table that no function makes."""
    return TABLE.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def load(name: str) -> Json | None:
    """The results of that name, or None where they were not run."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def origin(results: Json) -> str:
    """Where the figures come from."""
    machine = results["machine"]
    return f"\n`{results['command']}`, {results['date']}, {machine['cores']} cores ({machine['cpu']}).\n"


def of(name: str, make: Callable[[Json], str], stamped: bool = True) -> Callable[[], str]:
    """A function that makes a table of the results of that name, where they were run, with their origin."""

    def made() -> str:
        results = load(name)
        return NOT_RUN if results is None else make(results) + (origin(results) if stamped else "")

    return made


def drawn(name: str, draw: Callable[[Json], str]) -> Callable[[], str]:
    """A function that draws a picture of the results of that name; it gives nothing where they were not run."""

    def made() -> str:
        results = load(name)
        return "" if results is None else draw(results)

    return made


PICTURES: dict[Path, Callable[[], str]] = {
    ROOT / "docs/formats.svg": drawn("formats", formats.formats_picture),
    ROOT / "docs/optimisers.svg": drawn("optimisers", partial(optimiser_tables.optimisers_picture, colours="colour")),
    ROOT / "docs/optimisers_grey.svg": drawn(
        "optimisers", partial(optimiser_tables.optimisers_picture, colours="grey")
    ),
    **{
        ROOT / f"docs/distillation_{of}.svg": drawn("distillation", partial(distillation_tables.picture, of=of))
        for of in distillation_tables.PICTURES
    },
    ROOT / "docs/bytes.svg": drawn("beside_peers", partial(beside_peers.beside_picture, across="bytes")),
    ROOT / "docs/milliseconds.svg": drawn("beside_peers", partial(beside_peers.beside_picture, across="time")),
    ROOT / "docs/centres.svg": drawn("centres", centres.centres_picture),
}

TABLES: dict[str, Callable[[], str]] = {
    "teacher": of("teacher", demo_teacher.teacher_table),
    "demo": of("demo", demo.demo_table),
    "demo-long": of("demo_long", demo.demo_table),
    "real-pair": of("real_pair", real_pair.real_table),
    "real-pair-differences": of("real_pair", real_pair.real_differences_table, stamped=False),
    "real-pair-time": of("real_pair", real_pair.real_time_table, stamped=False),
    "distillation": of("distillation", distillation_tables.arms_table),
    "distillation-rates": of("distillation", distillation_tables.rates_table, stamped=False),
    "distillation-sizes": of("distillation", distillation_tables.sizes_table, stamped=False),
    "distillation-places": of(
        "distillation",
        partial(
            distillation_tables.arms_table, names=("published", "input", "both", "w0", "scratch-columns", "scratch")
        ),
    ),
    "distillation-claims": of("distillation", distillation_tables.claims_table, stamped=False),
    "beside-peers": of("beside_peers", beside_peers.beside_table),
    "beside-differences": of("beside_peers", beside_peers.differences_table, stamped=False),
    "students": of("students", students.students_table),
    "shipped-default": of("beside_peers", partial(beside_peers.card, name="default.int8.onnx")),
    "shipped-tiny": of("beside_peers", partial(beside_peers.card, name="tiny.int8.onnx")),
    "real-student": of("real_student", real_student.real_student_table),
    "speed-ratios": of("beside_peers", beside_peers.speed_ratios, stamped=False),
    "known-words": of("known_words", known_words.rules_table),
    "known-words-confidence": of("known_words", known_words.shares_table, stamped=False),
    "calibration": of("beside_peers", beside_peers.calibration_table, stamped=False),
    "distance-at": of("distance_at", arms.arms_table),
    "narrow-lines": of("narrow_lines", narrow_lines.narrow_lines_table),
    "full-width": of("full_width", full_width.full_width_sentence),
    "formats-full": of("formats", formats.full_width_table),
    "formats-accuracy": of("formats", formats.accuracy_table),
    "quantisation-report": of("formats", formats.quantisation_tables),
    "install-weight": of("install_weight", install_weight.install_weight_table),
    "synthetic-training": of("synthetic_training", synthetic_training.synthetic_training_table),
    "synthetic-training-mixed": of("synthetic_training_mixed", synthetic_training.synthetic_training_table),
    "degradation-ablation": of("degradation_ablation", degradation_ablation.degradation_ablation_table),
    "own-language": of("own_language", own_language.own_language_table),
    "rare-characters": of("rare_characters", rare_characters.rare_characters_table),
    "long-tail": of("long_tail", long_tail.long_tail_table),
    "centres": of("centres", centres.centres_table),
    "few-shot": of("few_shot", few_shot.few_shot_table),
    "few-shot-choice": of("few_shot", few_shot.choice_table, stamped=False),
    "few-shot-descriptions": of("few_shot", few_shot.descriptions_table, stamped=False),
    "extend-charset": of("extend_charset", extend_charset_tables.extend_table),
    "extend-charset-shipped": of("extend_charset_shipped", extend_charset_tables.extend_table),
    "extend-charset-trade": of("extend_charset_shipped", extend_charset_tables.trade_table, stamped=False),
    "learn-characters": of("learn_characters", learn_characters.learn_table),
    "optimisers": of("optimisers", optimiser_tables.optimisers_table),
    "optimisers-claims": of("optimisers", optimiser_tables.claims_table, stamped=False),
    "optimisers-text": of("optimisers", optimiser_tables.text_table, stamped=False),
    "optimisers-speed": of("optimisers", optimiser_tables.speed_table, stamped=False),
    "synthesis": of("synthesis", synthesis.synthesis_table),
    "loading-speed": of("loading_speed", loading_speed.reading_table),
    "reduced-scale": of("loading_speed", loading_speed.reduced_scale_table, stamped=False),
    "waiting": of("loading_speed", loading_speed.waiting_table, stamped=False),
    "teacher-recipe": of("teacher_recipe", arms.arms_table),
}

if __name__ == "__main__":
    sys.exit(tyro.cli(main))
