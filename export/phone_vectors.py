"""Test vectors for docs/phone.md: what our own code makes of drawn pictures and of planted log-probabilities.

`python -m export.phone_vectors` writes docs/phone/pictures.json and docs/phone/readings.json, the same ones every time.
Pictures travel as PNG in base64, before and after the resize, so that whoever reads pictures can read the vectors.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from crnn.backbones import PIXELS_PER_COLUMN
from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, ModelInfo, write_atomically
from crnn.ctc import Reading, greedy, tempered
from crnn.recogniser import Recogniser, pixel_spans, turned
from data.lines import Picture
from data.picture import InputSpec, decode_picture, missing_margin, natural_width, resize, scale, shown_columns

GREY_LEVELS = 1
"""By how much a resized byte may differ: OpenCV computes in fixed point, docs/phone.md in real numbers."""

CONFIDENCE_TOLERANCE = 1e-6

FIXED = InputSpec(min_width=160, max_width=160, narrow="margins")
"""As in the files of a fixed width."""


@dataclass(frozen=True)
class VectorOptions:
    """Write the test vectors of docs/phone.md."""

    out: Path = Path("docs/phone")
    """Folder of pictures.json and readings.json."""


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(VectorOptions, args=argv, prog="python -m export.phone_vectors")
    for name, content in (("pictures.json", picture_vectors()), ("readings.json", reading_vectors())):
        write_json(options.out / name, content)
        print(f"{options.out / name}  {(options.out / name).stat().st_size / 1000:.0f} kB")
    return 0


def write_json(path: Path, content: dict[str, Any]) -> None:
    """One entry of a list a line, so that a change shows as one."""
    parts = []
    for key, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    encoded = ("{\n" + ",\n".join(parts) + "\n}\n").encode()
    write_atomically(path, lambda file: file.write(encoded))


def picture_vectors() -> dict[str, Any]:
    """Picture bytes -> tensors, and sizes -> widths and margins."""
    return {
        "grey_levels": GREY_LEVELS,
        "pictures": [picture_case(name, pixels, spec) for name, pixels, spec in drawn_pictures()],
        "widths": [
            {
                "height": height,
                "width": width,
                "input_spec": spec.to_json(),
                "natural_width": natural_width(height, width, spec),
                "margin": missing_margin(height, width, spec),
                "shown_columns": list(shown_columns(height, width, spec, PIXELS_PER_COLUMN)),
                "shown_columns_with_one_extra": list(shown_columns(height, width, spec, PIXELS_PER_COLUMN, 1)),
                "shown_columns_with_one_less": list(shown_columns(height, width, spec, PIXELS_PER_COLUMN, -1)),
            }
            for height, width, spec in picture_sizes()
        ],
    }


def picture_case(name: str, pixels: NDArray[Any], spec: InputSpec) -> dict[str, Any]:
    """pixels: as OpenCV writes them (grey, BGR or BGRA; 8 or 16 bits)."""
    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    picture = decode_picture(encoded, name)
    case: dict[str, Any] = {"name": name, "input_spec": spec.to_json(), "png": base64.b64encode(encoded).decode()}
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        case["rgb_png"] = png(picture)
    upright = spec.turn_above and picture.shape[0] > spec.turn_above * picture.shape[1]
    case["tensors"] = [tensor_case(turned(picture, d), spec, d) for d in ((0, 90, 270) if upright else (0,))]
    return case


def tensor_case(picture: Picture, spec: InputSpec, degrees: int) -> dict[str, Any]:
    resized = resize(picture, spec)  # (height, width, channels)
    tensor = scale(resized, spec)  # (channels, height, width)
    channels, height, width = tensor.shape
    places = [(0, 0, 0), (channels - 1, height - 1, width - 1), (0, height // 2, width // 2), (channels - 1, 5, 9)]
    return {
        "turned": degrees,
        "shape": list(tensor.shape),
        "resized_png": png(resized),
        "values": [[*place, float(tensor[place])] for place in places],
    }


def png(pixels: NDArray[np.uint8]) -> str:
    """uint8 (height, width, 3) RGB or (height, width, 1) grey -> PNG in base64."""
    written = pixels if pixels.shape[2] == 1 else pixels[:, :, ::-1]
    return base64.b64encode(cv2.imencode(".png", written, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()).decode()


def drawn_pictures() -> list[tuple[str, NDArray[Any], InputSpec]]:
    """(name, pixels as OpenCV has them, input spec); every way a picture can take to its tensor."""
    usual = InputSpec()
    see_through = np.dstack([drawn(30, 70, 1), np.tile(np.linspace(0, 255, 70).astype(np.uint8), (30, 1))])
    below = np.arange(90, dtype=np.uint16)[None, :, None] * 37 % 256  # what 16 bits add to 8
    deep = drawn(40, 90, 2).astype(np.uint16) * 256 + below
    deep_alpha = np.full((40, 90, 1), 40000, np.uint16)
    return [
        ("unchanged", drawn(32, 64, 3), usual),
        ("enlarged", drawn(21, 60, 4), usual),
        ("enlarged in width alone", drawn(32, 61, 5), usual),
        ("shrunk in both directions", drawn(75, 161, 6), usual),
        ("shrunk to half", drawn(64, 128, 7), usual),
        ("shrunk to a third", drawn(96, 192, 8), usual),
        ("shrunk in height alone", drawn(50, 64, 9), InputSpec(min_width=64)),
        ("shrunk in height, enlarged in width", drawn(45, 50, 10), InputSpec(min_width=64)),
        ("shrunk in height, enlarged to a multiple", drawn(34, 80, 11), InputSpec(min_width=96)),
        # 56 / 72 falls a hair below the whole number at 7 columns
        ("shrunk in height, enlarged at uneven steps", drawn(40, 56, 27), InputSpec(min_width=72)),
        ("enlarged in height, shrunk in width", drawn(20, 300, 12), InputSpec(max_width=128)),
        ("as high, shrunk in width", drawn(32, 210, 13), InputSpec(max_width=128)),
        ("very narrow, stretched", drawn(60, 9, 14), usual),
        ("very narrow, with margins", drawn(60, 9, 14), InputSpec(narrow="margins")),
        ("narrow and low, with margins", drawn(13, 6, 15), InputSpec(narrow="margins")),
        ("very long", drawn(36, 700, 16), InputSpec(max_width=256)),
        ("one pixel", drawn(1, 1, 17), usual),
        ("one pixel, with margins", drawn(1, 1, 17), InputSpec(narrow="margins")),
        ("one row", drawn(1, 40, 18), InputSpec(max_width=128)),
        ("one column", drawn(70, 1, 19), usual),
        ("grey model", drawn(48, 100, 20), InputSpec(channels=1)),
        ("grey picture", drawn(40, 77, 21)[:, :, 1], usual),
        ("transparent", see_through, usual),
        ("16 bits", deep, usual),
        ("16 bits, transparent", np.dstack([deep, deep_alpha]), usual),
        ("other size and scale", drawn(40, 83, 22), InputSpec(height=24, width_multiple=4, scale=1 / 64, offset=-1.75)),
        ("turned", drawn(90, 28, 23), InputSpec(turn_above=1.5)),
        ("too low to be turned", drawn(45, 30, 24), InputSpec(turn_above=1.5)),
        ("fixed width, short", drawn(40, 70, 25), FIXED),
        ("fixed width, long", drawn(40, 320, 26), FIXED),
    ]


def drawn(height: int, width: int, seed: int) -> Picture:
    """Strokes and specks of several colours on paper under changing light: uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    left, right = (int(v) for v in generator.integers(-30, 30, 2))
    light = np.linspace(left, right, width)[None, :, None]
    picture = generator.integers(120, 226, 3) + light + np.zeros((height, 1, 1))
    for _ in range(width // 6 + 1):
        top, left = (int(v) for v in generator.integers(0, (height, width)))
        tall, wide = (int(v) for v in generator.integers(1, (height + 1, 4)))
        picture[top : top + tall, left : left + wide] = generator.integers(0, 256, 3)
    specks = generator.random((height, width)) < 0.04
    picture[specks] = generator.integers(0, 256, (int(specks.sum()), 3))
    found: Picture = picture.astype(np.uint8)
    return found


def picture_sizes() -> list[tuple[int, int, InputSpec]]:
    """(height, width, input spec): half-way cases, both bounds, margins."""
    usual, margins = InputSpec(), InputSpec(narrow="margins")
    sizes = [
        (32, 36),
        (32, 44),
        (32, 52),
        (32, 60),
        (64, 72),
        (64, 88),
        (48, 100),
        (7, 3),
        (100, 10),
        (1, 5000),
        (3, 1),
    ]
    cases = [(height, width, spec) for height, width in sizes for spec in (usual, margins)]
    cases += [(40, 10, margins), (40, 45, margins), (33, 10, FIXED), (33, 165, FIXED), (33, 166, FIXED)]
    # a margin that is half-way between two numbers: 40 * 45 / 16 = 112.5, 40 * 47 / 16 = 117.5
    half = InputSpec(height=16, min_width=40, width_multiple=4, narrow="margins")
    return [*cases, (45, 20, half), (47, 20, half)]


def reading_vectors() -> dict[str, Any]:
    """Log-probabilities -> readings; readings of a picture in three attitudes -> one; spans -> pixels."""
    return {
        "confidence_tolerance": CONFIDENCE_TOLERANCE,
        "readings": [reading_case(*case) for case in planted_lines()] + tempered_cases(),
        "turned": [turned_case(*case) for case in planted_attitudes()],
        "pixel_spans": [pixel_case(*case) for case in planted_spans()],
    }


Numbers = list[list[float]]
"""Log-probabilities (T, K) as JSON has them."""


def reading_case(name: str, characters: str, log_probs: Numbers, temperature: float = 1.0) -> dict[str, Any]:
    charset = Charset.of(characters)
    reading = greedy(tempered(columns(log_probs, charset), temperature), charset)
    given = {"name": name, "characters": charset.characters, "log_probs": log_probs, "temperature": temperature}
    return given | described(reading)


def tempered_cases() -> list[dict[str, Any]]:
    """Two of the planted lines at temperatures above and below 1."""
    lines = {name: (characters, log_probs) for name, characters, log_probs in planted_lines()}
    return [
        reading_case(f"{name}, temperature {temperature}", *lines[name], temperature)
        for name, temperature in (("drawn at random", 1.7), ("repeats and blanks", 0.8), ("nothing but blanks", 1.7))
    ]


def described(reading: Reading) -> dict[str, Any]:
    return {
        "text": reading.text,
        # the last digits of an exponential differ from machine to machine
        "confidence": round(reading.confidence, 9),
        "character_confidences": [round(confidence, 9) for confidence in reading.character_confidences],
        "spans": [[span.start, span.end] for span in reading.spans],
    }


def columns(log_probs: Numbers, charset: Charset) -> NDArray[np.float32]:
    return np.array(log_probs, np.float32).reshape(-1, charset.classes)  # (T, K)


def planted_lines() -> list[tuple[str, str, Numbers]]:
    """(name, characters, log-probabilities); in paths, `_` is the blank."""
    digits = "0123456789"
    drawn_scores = np.random.default_rng(1).normal(0, 2.5, (40, len(digits) + 1))
    drawn_log_probs = drawn_scores - np.log(np.exp(drawn_scores).sum(axis=1, keepdims=True))
    even = [[-1.0986, -1.0986, -1.0986]]
    return [
        ("repeats and blanks", "ehlo", path("ehlo", "_hh_ell_lo_", [0.9, 0.7, 0.8, 0.9, 0.95, 0.6, 0.85, 0.5, 0.9])),
        ("a repeat without a blank is one character", "ab", path("ab", "aab", [0.6, 0.9, 0.8])),
        ("nothing but blanks", "ab", path("ab", "____", [0.9, 0.7, 0.99])),
        ("the space is the last class", "ab ", path("ab ", "a__ _b", [0.9, 0.8])),
        ("spaces merge as any character does", "ab ", path("ab ", "a  b", [0.9, 0.8])),
        ("spaces at both ends stay", "ab ", path("ab ", " a_ ", [0.9])),
        ("one character over every column", "ab", path("ab", "bbbbb", [0.5, 0.6, 0.55])),
        ("of equal classes the first wins", "ab", [[-2.0, -0.6931, -0.6931], [-0.6931, -2.0, -0.6931]]),
        ("of equal classes the blank is the first", "ab", even),
        ("rounding above zero is held at one", "ab", [[-9.0, 0.0004, -9.0]]),
        ("classes follow the code points", "zA9é ~", path("9A~zé ", "zé9 A~", [0.8])),
        ("characters of more than 16 bits", "a漢𝄞", path("a漢𝄞", "𝄞_漢a", [0.8, 0.9])),
        ("no columns", "ab", []),
        ("drawn at random", digits, np.round(drawn_log_probs, 4).tolist()),
    ]


def path(ordered: str, shown: str, sure: Sequence[float]) -> Numbers:
    """Log-probabilities whose best path is shown; column t is sure by sure[t % len(sure)].

    ordered: the charset's characters in the order of their classes.
    """
    rows = []
    for column, character in enumerate(shown):
        probability = sure[column % len(sure)]
        row = np.full(len(ordered) + 1, (1 - probability) / len(ordered))
        row[0 if character == "_" else ordered.index(character) + 1] = probability
        rows.append(np.round(np.log(row), 4).tolist())
    return rows


def planted_attitudes() -> list[tuple[str, str, dict[int, Numbers]]]:
    """(name, characters, degrees -> log-probabilities)."""
    upright, left, right = path("ab", "__", [0.9]), path("ab", "a_b", [0.8, 0.9]), path("ab", "b_a", [0.7, 0.9])
    return [
        ("the surer one wins", "ab", {0: path("ab", "a", [0.6]), 90: right, 270: left}),
        ("any text wins over none", "ab", {0: path("ab", "_", [0.999]), 90: path("ab", "a_", [0.4]), 270: upright}),
        ("of equals the first", "ab", {0: path("ab", "b", [0.5]), 90: left, 270: left}),
        ("upright where it is as sure", "ab", {0: path("ab", "a", [0.8]), 90: left, 270: right}),
        ("nothing in any", "ab", {0: path("ab", "_", [0.7]), 90: upright, 270: path("ab", "__", [0.8])}),
    ]


def turned_case(name: str, characters: str, attitudes: dict[int, Numbers]) -> dict[str, Any]:
    charset = Charset.of(characters)
    info = described_model(charset, InputSpec(turn_above=1.5))
    told = {degrees: columns(numbers, charset) for degrees, numbers in attitudes.items()}
    (reading,) = Recogniser(_Told(info, told)).read([np.zeros((100, 20, 3), np.uint8)])
    given = [{"turned": degrees, "log_probs": numbers} for degrees, numbers in attitudes.items()]
    chosen = {"turned": reading.turned} | described(reading)
    return {"name": name, "characters": charset.characters, "attitudes": given, "chosen": chosen}


class _Told:
    """A Runtime that says what it was told: first of the upright picture, then of both turned ones."""

    path, threads, parameters = Path("told"), 1, 0

    def __init__(self, info: ModelInfo, answers: dict[int, NDArray[np.float32]]) -> None:
        self.info, self._answers = info, answers

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        return np.stack([self._answers[d] for d in ((0,) if len(pictures) == 1 else (90, 270))])


def planted_spans() -> list[tuple[str, tuple[int, int], InputSpec, int, Numbers]]:
    """(name, (height, width) of the picture, input spec, degrees turned, log-probabilities)."""
    spelt = path("ab", "_aa__b__", [0.9])
    return [
        ("natural width", (40, 81), InputSpec(), 0, [*spelt, *path("ab", "_______b", [0.9])]),
        ("stretched", (64, 20), InputSpec(), 0, spelt),
        ("margins", (64, 21), InputSpec(narrow="margins"), 0, path("ab", "aa____bb", [0.9])),
        ("turned", (90, 28), InputSpec(turn_above=1.5), 90, spelt),
    ]


def pixel_case(name: str, size: tuple[int, int], spec: InputSpec, degrees: int, numbers: Numbers) -> dict[str, Any]:
    charset = Charset.of("ab")
    info = described_model(charset, spec)
    found = greedy(columns(numbers, charset), charset)
    reading = Reading(found.text, found.confidence, found.spans, found.character_confidences, degrees)
    return {
        "name": name,
        "height": size[0],
        "width": size[1],
        "turned": degrees,
        "input_spec": spec.to_json(),
        "pixels_per_column": info.pixels_per_column,
        "spans": [[span.start, span.end] for span in reading.spans],
        "pixels": [list(edges) for edges in pixel_spans(reading, size, info)],
    }


def described_model(charset: Charset, spec: InputSpec) -> ModelInfo:
    """A model that is never run."""
    return ModelInfo(charset, spec, CrnnSizes("resnet18", 0.25, 8, 8, 1, True, 0, charset.classes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
