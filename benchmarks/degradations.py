"""The range of every degradation and look as one picture for documents: `python -m benchmarks.degradations`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import tyro
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from benchmarks.stages import RESULTS
from benchmarks.synthesis import write_small_png
from data.lines import Picture
from data.synthesis import degrade
from data.synthesis.fonts import plain_font_file
from data.synthesis.geometry import DEEPEST_CUT, bent
from data.synthesis.source import SynthesisOptions, SynthesisSource

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
NAME_WIDTH, CELL_WIDTH, CELL_HEIGHT = 190, 200, 54

RANGES: dict[str, Callable[[Picture, float, Generator], Picture]] = {
    "light": lambda p, s, r: degrade.uneven_light(p, min(1.0, s), r),
    "shadow": lambda p, s, r: degrade.shadow(p, min(0.8, 0.42 * s), r),
    "glare (off by default)": lambda p, s, r: degrade.glare(p, min(1.0, s), r),
    "contrast": lambda p, s, r: degrade.contrast(p, 0.55**s, 150),
    "cast": lambda p, s, r: degrade.colour_cast(p, s, r),
    "motion": lambda p, s, r: degrade.motion_blur(p, 1 + 2.6 * s, 0.4),
    "blur": lambda p, s, r: degrade.gaussian_blur(p, 0.2 + 1.15 * s),
    "defocus (off by default)": lambda p, s, r: degrade.defocus(p, 0.5 + 1.5 * s),
    "low_resolution": lambda p, s, r: degrade.low_resolution(p, 1.01 + 1.4 * s),
    "noise": lambda p, s, r: degrade.sensor_noise(p, 15.5 * s, r, coloured=True),
    "jpeg": lambda p, s, r: degrade.jpeg(p, int(max(10, 95 - 65 * s))),
    "warp": lambda p, s, r: degrade.warp(p, None, r, s)[0],
    "bend": lambda p, s, r: 255 - np.stack([bent(255 - p[..., c], np.random.default_rng(4), s) for c in range(3)], 2),
    "crop": lambda p, s, r: without_top(p, DEEPEST_CUT * s),
}
"""Name -> (picture, strength, generator) -> picture at its hardest; strength 0 is the picture itself."""

LOOKS = ("scene text", "document", "receipt", "1-bit scan")


@dataclass(frozen=True)
class DegradationsOptions:
    """Options of the picture.

    Attributes:
        out: the PNG.
        seed: of the lines and of what is drawn at random.
    """

    out: Path = RESULTS.parent / "synthesis.png"
    seed: int = 2


def main() -> None:
    """One row a degradation, one column a strength; below them lines of each look."""
    options = tyro.cli(DegradationsOptions, description=__doc__)
    rows = [named("strength", [label(f"{strength:g}") for strength in STRENGTHS], 30)]
    plain = word(options.seed)
    for name, change in RANGES.items():
        cells = [plain] + [change(plain, strength, np.random.default_rng(11)) for strength in STRENGTHS[1:]]
        rows.append(named(name, cells, CELL_HEIGHT))
    rows.append(named("neighbours (examples)", beside_others(options.seed), CELL_HEIGHT))
    for number, name in enumerate(LOOKS):
        rows.append(named(name, looks(number, options.seed), CELL_HEIGHT))
    write_small_png(options.out, np.concatenate(rows), 96)


def fonts() -> tuple[Path, ...]:
    """Those that are everywhere, so that the picture is the same on every machine."""
    return (plain_font_file().parent,)


def without_top(picture: Picture, share: float) -> Picture:
    """The picture from below the given share of its ink's height on."""
    ink = np.flatnonzero(picture.min(axis=(1, 2)) < 128)
    return picture[ink[0] + round(share * (ink[-1] + 1 - ink[0])) :] if share else picture


def beside_others(seed: int) -> list[Picture]:
    """Documents with bits of other lines around them: those that differ from the same item drawn without."""

    def source(factor: int) -> SynthesisSource:
        options = SynthesisOptions(
            strength=0.0, looks=(0, 1, 0, 0), shortest=7, longest=10, phrases=0, font_folders=fonts(),
            degradations=(f"neighbours:{factor}",),
        )  # fmt: skip
        return SynthesisSource(options, seed)

    alone, among = source(0), source(4)
    pairs = ((alone[i].picture, among[i].picture) for i in range(1000))
    differing = (other for plain, other in pairs if np.mean(cv2.absdiff(plain, other) > 40) > 0.03)
    return list(islice(differing, len(STRENGTHS)))


def word(seed: int) -> Picture:
    """One line of scene text without any degradation."""
    options = SynthesisOptions(strength=0.0, looks=(1, 0, 0, 0), shortest=8, longest=9, phrases=0, font_folders=fonts())
    return SynthesisSource(options, seed)[3].picture


def looks(number: int, seed: int) -> list[Picture]:
    """Lines of one look as they are drawn for training."""
    weights = tuple(float(i == number) for i in range(len(LOOKS)))
    assert len(weights) == 4
    options = SynthesisOptions(looks=weights, shortest=7, longest=10, phrases=0, font_folders=fonts())
    source = SynthesisSource(options, seed)
    return [source[i].picture for i in range(len(STRENGTHS))]


def named(name: str, cells: list[Picture], height: int) -> Picture:
    """A row: a name, then pictures side by side."""
    row = np.full((height, NAME_WIDTH + CELL_WIDTH * len(cells), 3), 255, np.uint8)
    row[:, :NAME_WIDTH] = label(name, NAME_WIDTH, height)
    for number, cell in enumerate(cells):
        factor = min((CELL_WIDTH - 8) / cell.shape[1], (height - 6) / cell.shape[0])
        size = round(cell.shape[1] * factor), round(cell.shape[0] * factor)
        left = NAME_WIDTH + CELL_WIDTH * number + 4
        fitted = cv2.resize(cell, size, interpolation=cv2.INTER_LINEAR)
        row[3 : 3 + size[1], left : left + size[0]] = fitted
    return row


def label(text: str, width: int = CELL_WIDTH, height: int = 30) -> Picture:
    """uint8 (height, width, 3): black on white."""
    image = Image.new("RGB", (width, height), "white")
    font = ImageFont.truetype(str(plain_font_file()), 15)
    ImageDraw.Draw(image).text((8, height // 2), text, "black", font, anchor="lm")
    return np.asarray(image)


if __name__ == "__main__":
    main()
