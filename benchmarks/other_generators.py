"""Other generators of synthetic lines, each in an environment of its own.

`python -m benchmarks.other_generators --out trdg.lmdb --count 20000 --given` bakes lines drawn by
TextRecognitionDataGenerator (trdg) into an LMDB, for training beside ours: with its own words and fonts, or with
--given our texts and fonts.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import tyro

from crnn.commands import write_run
from crnn.progress import with_progress
from data.lmdb_lines import Entry, write_lmdb
from data.synthesis.fonts import Font
from data.synthesis.source import SynthesisOptions, SynthesisSource

ENVIRONMENTS = Path("runs/generators")

REQUIREMENTS = {
    "trdg": ("trdg==1.8.0", "pillow<10"),
    # Its releases were written for these; newer ones have lost names that it uses.
    "synthtiger": ("synthtiger==1.2.1", "numpy<2", "pillow<10", "opencv-python-headless<4.11", "opencv-python<4.11"),
}

_START = """
import io, json, os, random, struct, sys, time
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what the generator prints is no answer
import cv2, numpy as np
cv2.setNumThreads(1)
job = json.load(sys.stdin)
random.seed(job["seed"]); np.random.seed(job["seed"]); cv2.setRNGSeed(job["seed"])
texts, fonts = job["texts"], job["fonts"]
"""

_END = """
def answer(text, picture):
    data = io.BytesIO()
    picture.save(data, "PNG")
    label = text.encode()
    answers.write(struct.pack("<II", len(label), data.tell()) + label + data.getvalue())

made = lines(job["warm_up"])
for _ in made:
    pass
cpu, wall, count = time.process_time(), time.perf_counter(), 0
for text, picture in lines(job["count"]):
    count += 1
    if not job["timed"]:
        answer(text, picture)
if job["timed"]:
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    answers.write(json.dumps({"lines": count, "cpu_seconds": cpu, "seconds": wall}).encode())
answers.flush()
"""

_TRDG = (
    _START
    + """
from pathlib import Path
import trdg
from trdg.data_generator import FakeTextDataGenerator
from trdg.string_generator import create_strings_from_dict
from trdg.utils import load_dict, load_fonts
home = Path(trdg.__file__).parent
if not fonts:
    fonts = sorted(load_fonts("en"))
if not texts:
    words = load_dict(str(home / "dicts/en.txt"))
    texts = [t for t in create_strings_from_dict(2, True, 2 * job["count"], words)
             if len(t) <= job["longest"] and t.isascii() and t.isprintable()]

def lines(wanted):
    number = made = 0
    while made < wanted:
        text, font = texts[number % len(texts)], fonts[number % len(fonts)]
        number += 1
        v = job["variety"]
        background = random.choice((0, 0, 1, 3)) if v else 0
        distortion = random.choice((0, 1, 2, 3)) if v else 1
        colour = "#%02x%02x%02x" % tuple(random.randrange(140) for _ in range(3)) if v else "#282828"
        try:
            picture = FakeTextDataGenerator.generate(
                number, text, font, None, 32, None, 3, True, 1, True, background, distortion, 0, False, 0, -1, 1,
                colour, 0, 1.0, 0, (5, 5, 5, 5), False, False, False, str(home / "images"))
        except (OSError, ValueError):
            continue
        if picture is not None:  # it gives none where text and background are alike
            made += 1
            yield text, picture.convert("RGB")
"""
    + _END
)
"""Blur and skew are random, distortion a sine along the line and the background noise, its cheapest; with `variety`
all its distortions, backgrounds and dark colours are drawn."""

_SYNTHTIGER = (
    _START
    + """
from PIL import Image
from synthtiger import components as c, layers, utils
effects = [c.TextBorder(size=(1, 12)), c.TextShadow(distance=(1, 6)), c.TextExtrusion(length=(1, 12))]
styles = c.Switch(c.Selector(effects, weights=(1, 2, 2)), prob=0.25)
shape = c.Selector([c.ElasticDistortion(alpha=(15, 30), sigma=(4, 12)),
                    c.ElasticDistortion(alpha=(0, 2), sigma=(0, 0.6))])
layout = c.Selector([c.FlowLayout(space=(-2, 5)), c.CurveLayout(curve=(20, 40), space=(-2, 5))], weights=(4, 1))
ones = ((0, 0), (0, 0))
transform = c.Selector([
    c.Perspective(percents=((0.5, 1), (1, 1)), aligns=ones), c.Perspective(percents=((1, 1), (0.5, 1)), aligns=ones),
    c.Trapezoidate(weights=(1, 0, 1, 0), percent=(0.75, 1)), c.Trapezoidate(weights=(0, 1, 0, 1), percent=(0.5, 1)),
    c.Skew(weights=(1, 0), angle=(0, 30)), c.Skew(weights=(0, 1), angle=(0, 10)), c.Rotate(angle=(0, 10))])
fit, pad, colour = c.Fit(), c.Pad(pxs=((0, 10),) * 4), c.RGB()
after = c.Iterator([c.AdditiveGaussianNoise(scale=(4, 8), per_channel=0),
                    c.Switch(c.GaussianBlur(sigma=(0, 2)), prob=0.9),
                    c.Switch(c.Resample(size=(0.4, 0.4)), prob=0.1)])

def draw(text, font):
    size = np.random.randint(40, 81)
    bold = np.random.rand() < 0.5
    parts = [layers.TextLayer(one, path=font, size=size, bold=bold) for one in utils.split_text(text, reorder=True)]
    shape.apply(parts)
    layout.apply(parts)
    line = layers.Group(parts).merge()
    colour.apply([line])
    styles.apply([line])
    transform.apply([line])
    fit.apply([line])
    pad.apply([line])
    front = line.output()
    ground = layers.RectLayer(front.shape[1::-1])
    colour.apply([ground])
    whole = layers.Layer(utils.blend_image(front, ground.output(), mode="normal"))
    after.apply([whole])
    return Image.fromarray(whole.output()[..., :3].astype(np.uint8))

def lines(wanted):
    number = made = 0
    while made < wanted:
        text, font = texts[number % len(texts)], fonts[number % len(fonts)]
        number += 1
        try:
            picture = draw(text, font)
        except (OSError, ValueError, RuntimeError):
            continue
        made += 1
        yield text, picture
"""
    + _END
)
"""Its parts in the order and with the sizes of its published example for horizontal text; solid grounds, for the
textures of the example are no part of the package, and no search for a visible blend, which makes it faster."""

SCRIPTS = {"trdg": _TRDG, "synthtiger": _SYNTHTIGER}


@dataclass(frozen=True)
class BakeOptions:
    """Options of the set that trdg draws.

    Attributes:
        out: the LMDB to write.
        count: lines.
        seed: of its generators, and of our texts.
        given: with our texts and fonts instead of its own.
        environments: where the generator is installed.
        synth: our texts and fonts.
    """

    out: Path
    count: int = 20_000
    seed: int = 1
    given: bool = False
    environments: Path = ENVIRONMENTS
    synth: SynthesisOptions = field(default_factory=SynthesisOptions)


def main() -> None:
    """Bakes the set, with a run file beside it."""
    options = tyro.cli(BakeOptions, description=__doc__)
    python = environment("trdg", options.environments)
    source = SynthesisSource(options.synth, options.seed, options.count)
    given = job(source, options.count, options.seed) if options.given else job(None, options.count, options.seed)
    given |= {"variety": True, "longest": options.synth.longest}
    entries = drawn(python, "trdg", given)
    lines = write_lmdb(options.out, with_progress(entries, "drawing", options.count))
    write_run(options.out, "python -m benchmarks.other_generators", options, {"lines": lines})
    print(f"{options.out}: {lines} lines of trdg")


def job(source: SynthesisSource | None, count: int, seed: int) -> dict[str, Any]:
    """What a script is told. With a source, its texts and its fonts, design by design, else the generator's own."""
    texts = [source.text(i) for i in range(min(count, len(source)))] if source else []
    fonts = one_of_each_design(source.fonts) if source else []
    return {
        "texts": texts, "fonts": fonts, "count": count, "seed": seed, "timed": False, "warm_up": 0, "variety": False,
        "longest": 25,
    }  # fmt: skip


def one_of_each_design(fonts: Sequence[Font]) -> list[str]:
    """Files of the first face of each design that has all of printable ASCII, in formats that Pillow opens."""
    found: dict[str, str] = {}
    for font in fonts:
        if (
            font.index == 0
            and font.path.endswith((".ttf", ".otf"))
            and set(map(chr, range(33, 127))) <= set(font.characters)
        ):
            found.setdefault(font.design, font.path)
    return list(found.values())


def environment(name: str, folder: Path) -> Path:
    """The Python of an environment with one generator, made where it is missing; OSError where pip fails."""
    place = folder.absolute() / name
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (place / "whole").exists():
        venv.create(place, clear=True, with_pip=True)
        # One at a time: what a generator declares may contradict what it runs with.
        for requirements in (REQUIREMENTS[name][:1], REQUIREMENTS[name][1:]):
            done = subprocess.run(
                [python, "-m", "pip", "install", "-q", *requirements], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise OSError(f"{name} could not be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        (place / "whole").touch()
    return python


def timed(python: Path, name: str, given: dict[str, Any]) -> dict[str, float]:
    """Lines, CPU seconds and seconds of a generator after its warm-up; OSError where it fails."""
    with _running(python, name, given | {"timed": True}) as stdout:
        answer = stdout.read()
    if not answer:
        raise OSError(f"{name} gave no figures; its message is above")
    content: dict[str, float] = json.loads(answer)
    return content


def drawn(python: Path, name: str, given: dict[str, Any]) -> Iterator[Entry]:
    """The lines of a generator; OSError where it fails."""
    number = 0
    with _running(python, name, given) as stdout:
        while head := stdout.read(8):
            label, picture = struct.unpack("<II", head)
            text = stdout.read(label).decode()
            yield Entry(stdout.read(picture), text, f"{name} seed {given['seed']} item {number}")
            number += 1
    if number != given["count"]:
        raise OSError(f"{name} drew {number} of {given['count']} lines; its message is above")


def _running(python: Path, name: str, given: dict[str, Any]) -> IO[bytes]:
    """What a script writes, one thread each."""
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    process = subprocess.Popen(
        [python, "-c", SCRIPTS[name]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone, stderr=None
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(given).encode())
    process.stdin.close()
    return process.stdout


if __name__ == "__main__":
    main()
