"""Recogniser: pictures of any size in, readings out."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from crnn.charset import Charset
from crnn.checkpoint import ModelInfo
from crnn.ctc import Lexicon, LogProbs, Reading, beam_search_batch, blank_outside, greedy_batch, tempered
from crnn.runtimes import Runtime, open_runtime
from crnn.words import KnownWords, english_words, read_words
from data.lines import Picture
from data.picture import (
    InputSpec,
    missing_margin,
    natural_width,
    of_one_width,
    prepare,
    refuse_vast_margins,
    shown_columns,
)

MODELS = Path(str(importlib.resources.files("crnn"))) / "models"
"""Where the models lie that come with the package, each with a card: checkpoints, and students as PACKAGED."""
PACKAGED = ".int8.onnx"
DEFAULT = "default"
"""Name of the student that reads where no model is named."""

Decoder = Callable[[LogProbs, Charset], list[Reading]]
"""Log-probabilities (N, T, K) of lines of one width -> N readings."""


class Recogniser:
    """A runtime with what stands before and behind it: preparing pictures and decoding."""

    def __init__(self, runtime: Runtime, decoder: Decoder = greedy_batch) -> None:
        self.runtime, self.decoder = runtime, decoder

    @property
    def info(self) -> ModelInfo:
        return self.runtime.info

    def read(self, pictures: Sequence[Picture], batch: int = 32) -> list[Reading]:
        """One reading a picture, in their order.

        pictures: uint8 (height, width, 3) RGB, of any sizes. Those of one natural width share a batch of at most
        batch; nothing is padded, so a line reads the same alone and in any company. Where the input spec says so,
        a picture much higher than wide is also read turned, both ways, and the most confident reading wins.
        ValueError where a picture is not of this kind or far too high for its margins, or the model gives NaN.
        """
        if batch < 1:
            raise ValueError(f"batch is {batch}; give at least 1")
        spec = self.info.input_spec
        attitudes = [a for index, picture in enumerate(pictures) for a in _attitudes(index, picture, spec)]
        sizes = [pictures[index].shape[:2][:: -1 if degrees else 1] for index, degrees in attitudes]
        found: dict[int, Reading] = {}
        for positions in of_one_width(sizes, spec, batch):
            part = [attitudes[position] for position in positions]
            readings = self._read_batch([turned(pictures[index], degrees) for index, degrees in part])
            for (index, degrees), reading in zip(part, readings, strict=True):
                candidate = replace(reading, turned=degrees) if degrees else reading
                if index not in found or _surer(candidate, found[index]):
                    found[index] = candidate
        return [found[index] for index in range(len(pictures))]

    def _read_batch(self, pictures: list[Picture]) -> list[Reading]:
        """Pictures of one natural width -> readings."""
        prepared = np.stack([prepare(picture, self.info.input_spec) for picture in pictures])  # (N, C, H, W)
        log_probs = self.runtime(prepared)  # (N, T, K)
        if np.isnan(log_probs).any():
            raise ValueError(f"{self.runtime.path} gives values that are not numbers (NaN); make the file anew")
        shown = [(picture.shape[0], picture.shape[1]) for picture in pictures]
        sure = tempered(log_probs, self.info.temperature)
        return self.decoder(without_margins(sure, shown, self.info), self.info.charset)


def without_margins(log_probs: LogProbs, sizes: Sequence[tuple[int, int]], info: ModelInfo) -> LogProbs:
    """(N, T, K) with the blank wherever a line shows margin alone. sizes: (height, width) of the N pictures."""
    if info.input_spec.narrow != "margins":
        return log_probs
    columns = [
        shown_columns(height, width, info.input_spec, info.pixels_per_column, info.sizes.extra_columns)
        for height, width in sizes
    ]
    return np.stack([blank_outside(line, *own) for line, own in zip(log_probs, columns, strict=True)])


def _attitudes(index: int, picture: Picture, spec: InputSpec) -> list[tuple[int, int]]:
    """(index, degrees) of every way in which the picture is to be read."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(
            f"picture {index} is {picture.dtype} {picture.shape}; a picture is uint8 (height, width, 3) in RGB, "
            "as data.picture.decode_picture gives it"
        )
    height, width = picture.shape[:2]
    refuse_vast_margins(height, width, missing_margin(height, width, spec), f"picture {index}")
    upright = spec.turn_above and height > spec.turn_above * width
    return [(index, degrees) for degrees in ((0, 90, 270) if upright else (0,))]


def _surer(one: Reading, other: Reading) -> bool:
    """Any text before none, for a model is often very sure that it sees nothing; then the higher confidence."""
    return (bool(one.text), one.confidence) > (bool(other.text), other.confidence)


def turned(picture: Picture, degrees: int) -> Picture:
    """The picture turned counter-clockwise by a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(picture, degrees // 90))


def pixel_spans(reading: Reading, size: tuple[int, int], info: ModelInfo) -> list[tuple[float, float]]:
    """Left and right edge of every character's span in pixels of the picture, turned as it was read.

    size: (height, width) of the picture as it was given. The columns of a span are where the model shows a
    character, near its middle; they are often narrower than the ink.
    """
    height, width = size[::-1] if reading.turned in (90, 270) else size
    spec = info.input_spec
    prepared = natural_width(height, width, spec)
    margins = missing_margin(height, width, spec)
    scale = info.pixels_per_column * (width + margins) / prepared

    shift = info.sizes.extra_columns / 2  # a column more begins half a column before the picture

    def pixel(column: int) -> float:
        return min(max((column - shift) * scale - margins // 2, 0.0), float(width))

    return [(pixel(span.start), pixel(span.end)) for span in reading.spans]


def beam_decoder(beam: int = 16, lexicon: Lexicon | None = None, top: int | None = None) -> Decoder:
    """Prefix beam search as a recogniser's decoder; see crnn.ctc.prefix_beams."""
    return partial(beam_search_batch, beam=beam, lexicon=lexicon, top=top)


def words_decoder(known: KnownWords | None = None) -> Decoder:
    """Best path with known words before unknown ones; see crnn.words. None: the English list of the package."""
    return partial(read_words, known=known or KnownWords(english_words()))


def load(
    path: Path | str | None = None, threads: int | None = None, device: str = "cpu", decoder: Decoder | None = None
) -> Recogniser:
    """The recogniser of a model file (.pt, .onnx, .tflite); None: the default student that comes with the package.

    decoder: where none is given, words_decoder() for the default student, which reads English, and best path for any
        other file, whose language is not known.
    Errors as in open_runtime.
    """
    runtime = open_runtime(packaged_model() if path is None else Path(path), threads, device)
    return Recogniser(runtime, decoder or (words_decoder() if path is None else greedy_batch))


def packaged_model(name: str = DEFAULT) -> Path:
    """A student inside the package, "default" or "tiny"; FileNotFoundError where there is none of that name."""
    path = MODELS / f"{name}{PACKAGED}"
    if not path.is_file():
        named = "no model was given" if name == DEFAULT else f"there is no packaged model {name!r}"
        raise FileNotFoundError(f"{named}: {path} is not there; give a model file, in commands with --model")
    return path
