from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import crnn
from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, ModelInfo
from crnn.ctc import Lexicon, Reading, Span, greedy_batch
from crnn.model import Crnn
from crnn.recogniser import Recogniser, beam_decoder, load, packaged_model, pixel_spans
from crnn.runtimes.torch_runtime import TorchRuntime
from data.lines import Picture
from data.picture import InputSpec, prepare

Paint = Callable[[str], Picture]


class Recording:
    """A runtime that keeps the shapes it was called with; every column shows the blank."""

    path, threads, parameters = Path("recording"), 1, 0

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        self.shapes.append(pictures.shape)
        log_probs = np.full((len(pictures), pictures.shape[3] // 4, self.info.charset.classes), -20, np.float32)
        log_probs[..., 0] = 0
        return log_probs


def info_of(spec: InputSpec) -> ModelInfo:
    return ModelInfo(Charset.of("abc"), spec, CrnnSizes("resnet18", 0.125, 32, 16, 1, True, 0, classes=4))


def blank_picture(height: int, width: int) -> Picture:
    return np.zeros((height, width, 3), np.uint8)


def test_readings_come_in_the_order_of_the_pictures_whatever_their_widths(colour_reader: Path, paint: Paint) -> None:
    texts = ["abca", "cabcab", "bacb", "a.a.a", "cba..", "abcabc"]
    readings = load(colour_reader).read([paint(text) for text in texts], batch=2)
    assert [reading.text for reading in readings] == [text.replace(".", "") for text in texts]
    assert readings[0].spans == (Span(0, 2), Span(2, 4), Span(4, 6), Span(6, 8))


def test_only_pictures_of_one_natural_width_share_a_batch() -> None:
    runtime = Recording(info_of(InputSpec()))
    sizes = [(32, 64), (64, 128), (32, 65), (32, 100), (16, 32), (10, 1)]
    readings = Recogniser(runtime).read([blank_picture(*size) for size in sizes], batch=3)
    assert sorted(runtime.shapes) == [(1, 3, 32, 32), (1, 3, 32, 64), (1, 3, 32, 96), (3, 3, 32, 64)]
    assert len(readings) == len(sizes)


def test_a_line_reads_the_same_alone_and_in_any_batch(draw_word: Callable[[str], Picture]) -> None:
    torch.manual_seed(1)
    info = info_of(InputSpec())
    kept: list[NDArray[np.float32]] = []

    class Keeping(TorchRuntime):
        def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
            kept.extend(super().__call__(pictures))
            return np.stack(kept[-len(pictures) :])

    recogniser = Recogniser(Keeping(Crnn(info.sizes), info, Path("in-memory")))
    pictures = [draw_word(text) for text in ("brown", "crown", "brawn", "a much longer one", "drown")]
    together = recogniser.read(pictures)
    by_shape: dict[tuple[int, ...], list[NDArray[np.float32]]] = {}
    for log_probs in kept:
        by_shape.setdefault(log_probs.shape, []).append(log_probs)
    kept.clear()
    alone = [recogniser.read([picture])[0] for picture in pictures]
    assert [reading.text for reading in alone] == [reading.text for reading in together]
    for log_probs in kept:
        nearest = min(np.abs(log_probs - other).max() for other in by_shape[log_probs.shape])
        assert nearest < 1e-5


@pytest.mark.parametrize(
    ("lies", "turned"), [(None, 0), (cv2.ROTATE_90_CLOCKWISE, 90), (cv2.ROTATE_90_COUNTERCLOCKWISE, 270)]
)
def test_a_picture_on_its_side_is_read_both_ways_and_the_surer_wins(lies: int | None, turned: int) -> None:
    class SureWhereTheTopIsBright(Recording):
        def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
            log_probs = super().__call__(pictures)
            for picture, line in zip(pictures, log_probs, strict=True):
                line[3] = np.log([0.1, 0.8, 0.05, 0.05] if picture[:, 2].min() > 0.9 else [0.3, 0.5, 0.1, 0.1])
            return log_probs

    picture = blank_picture(32, 96)
    picture[:8] = 255
    if lies is not None:
        picture = cv2.rotate(picture, lies).astype(np.uint8)
    reading = Recogniser(SureWhereTheTopIsBright(info_of(InputSpec(turn_above=1.5)))).read([picture])[0]
    assert (reading.text, reading.turned) == ("a", turned)
    assert reading.confidence == pytest.approx(0.8)


def test_nothing_is_turned_where_the_input_spec_does_not_say_so(colour_reader: Path) -> None:
    runtime = Recording(info_of(InputSpec(turn_above=0)))
    Recogniser(runtime).read([blank_picture(90, 30)])
    assert runtime.shapes == [(1, 3, 32, 32)]


def test_an_upright_picture_costs_three_readings_two_of_them_at_their_own_width() -> None:
    runtime = Recording(info_of(InputSpec(turn_above=1.5)))
    Recogniser(runtime).read([blank_picture(90, 30), blank_picture(30, 90), blank_picture(45, 30)])
    assert sorted(runtime.shapes) == [(2, 3, 32, 32), (3, 3, 32, 96)]


def test_any_text_wins_over_a_model_that_is_sure_to_see_nothing() -> None:
    class SeesTextOnlyWhenTurned(Recording):
        def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
            log_probs = super().__call__(pictures)
            if pictures.shape[3] > 32:
                log_probs[:, 2] = np.log([0.2, 0.1, 0.6, 0.1])
            return log_probs

    reading = Recogniser(SeesTextOnlyWhenTurned(info_of(InputSpec(turn_above=1.5)))).read([blank_picture(90, 30)])[0]
    assert (reading.text, reading.turned) == ("b", 90)
    assert reading.confidence == pytest.approx(0.6)


def test_the_decoder_is_a_choice(colour_reader: Path, paint: Paint) -> None:
    recogniser = load(colour_reader, decoder=beam_decoder(beam=4))
    assert recogniser.read([paint("abc.")])[0].text == "abc"
    recogniser.decoder = beam_decoder(beam=4, lexicon=Lexicon(["ab"], recogniser.info.charset))
    assert recogniser.read([paint("abc.")])[0].text == "ab"


def test_the_default_student_knows_english_words_and_other_files_know_none(colour_reader: Path) -> None:
    characters = load().info.charset
    log_probs = np.full((1, 10, characters.classes), np.log(1e-9))
    log_probs[0, 1::2, 0] = np.log(0.9)
    for column, character in enumerate("hcuse"):
        log_probs[0, 2 * column, characters.characters.index(character) + 1] = np.log(0.9)
    log_probs[0, 2, characters.characters.index("o") + 1] = np.log(0.3)
    assert load().decoder(log_probs, characters)[0].text == "house"
    assert load(packaged_model()).decoder(log_probs, characters)[0].text == "hcuse"
    assert load(decoder=greedy_batch).decoder(log_probs, characters)[0].text == "hcuse"


def test_what_is_no_picture_is_refused_by_its_number(colour_reader: Path, paint: Paint) -> None:
    recogniser = load(colour_reader)
    wrong = [np.zeros((32, 64), np.uint8), np.zeros((32, 64, 3), np.float32), np.zeros((0, 64, 3), np.uint8)]
    for picture in wrong:
        with pytest.raises(ValueError, match=r"picture 1 is .*; a picture is uint8 \(height, width, 3\) in RGB"):
            recogniser.read([paint("abca"), picture])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="batch is 0"):
        recogniser.read([paint("abca")], batch=0)
    assert recogniser.read([]) == []


def test_a_model_that_gives_nan_is_named_and_not_decoded() -> None:
    class Broken(Recording):
        def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
            return super().__call__(pictures) * np.float32("nan")

    with pytest.raises(ValueError, match="recording gives values that are not numbers"):
        Recogniser(Broken(info_of(InputSpec()))).read([blank_picture(32, 64)])


def test_spans_in_pixels_lie_where_the_characters_were_painted(colour_reader: Path, paint: Paint) -> None:
    recogniser = load(colour_reader)
    picture = paint("ab.cab")
    large = np.ascontiguousarray(picture.repeat(3, axis=0).repeat(3, axis=1))
    reading = recogniser.read([large])[0]
    spans = pixel_spans(reading, (96, 144), recogniser.info)
    assert [(round(a), round(b)) for a, b in spans] == [(0, 24), (24, 48), (72, 96), (96, 120), (120, 144)]


def test_spans_in_pixels_leave_out_the_margins_of_a_narrow_line() -> None:
    spec = InputSpec(min_width=64, narrow="margins")
    picture = blank_picture(32, 32)
    picture[:] = 255
    prepared = prepare(picture, spec)
    assert prepared.shape == (3, 32, 64)
    reading = Reading("abc", 1.0, (Span(0, 3), Span(4, 8), Span(10, 16)), (1.0,) * 3)
    assert pixel_spans(reading, (32, 32), info_of(spec)) == [(0.0, 0.0), (0.0, 16.0), (24.0, 32.0)]


def test_spans_of_a_turned_picture_run_along_the_turned_one() -> None:
    reading = Reading("a", 1.0, (Span(0, 12),), (1.0,))
    assert pixel_spans(reading, (96, 32), info_of(InputSpec())) == [(0.0, 32.0)]
    assert pixel_spans(replace(reading, turned=90), (96, 32), info_of(InputSpec())) == [(0.0, 48.0)]


def test_without_a_path_the_packaged_default_is_meant() -> None:
    assert load(threads=1).runtime.path == packaged_model() == packaged_model("default")


def test_a_packaged_model_that_does_not_exist_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no packaged model 'huge': .*huge\.int8\.onnx is not there"):
        packaged_model("huge")


def test_the_package_gives_its_names_when_they_are_first_asked_for() -> None:
    assert crnn.Charset is Charset
    assert crnn.Recogniser is Recogniser
    assert crnn.load is load
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = crnn.unknown
    program = "import sys, crnn; print([name for name in ('numpy', 'cv2', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_model_reads_in_a_margin_is_not_in_the_picture(
    colour_reader: Path, paint: Callable[[str], Picture]
) -> None:
    """Margins have the colour of their edge, which this model takes for one more letter."""
    recogniser = load(colour_reader, threads=1)
    wide = replace(recogniser.info, input_spec=InputSpec(min_width=160, max_width=160, narrow="margins"))
    recogniser.runtime.info = wide  # type: ignore[misc]
    (reading,) = recogniser.read([paint("a.b.")])
    assert reading.text == "ab"
    assert reading.spans == (Span(16, 18), Span(20, 22))
    (edge,) = recogniser.read([paint(".ab")])
    assert edge.spans[-1].end == 23  # the blue of the margin begins where the picture ends
