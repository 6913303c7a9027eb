"""docs/phone.md and its test vectors: our own code meets them, and so does what the document says, written anew.

The second half of this module is that second implementation. It knows the document alone: no OpenCV, none of ours.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.ctc import greedy, tempered
from crnn.recogniser import turned
from data.picture import InputSpec, decode_picture, missing_margin, natural_width, resize, scale, shown_columns
from export.phone_vectors import main, picture_vectors, reading_vectors

Json = dict[str, Any]
Table = Callable[[int, int], NDArray[np.float64]]
FOLDER = Path(__file__).resolve().parent.parent / "docs" / "phone"
PICTURES: Json = json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8"))
READINGS: Json = json.loads((FOLDER / "readings.json").read_text(encoding="utf-8"))


def named(case: Json) -> str:
    return str(case["name"]).replace(" ", "_")


every_picture = pytest.mark.parametrize("case", PICTURES["pictures"], ids=named)
every_reading = pytest.mark.parametrize("case", READINGS["readings"], ids=named)


def assert_levels(given: NDArray[np.uint8], expected: NDArray[np.uint8], levels: int) -> None:
    assert given.shape == expected.shape
    assert np.abs(given.astype(int) - expected.astype(int)).max() <= levels


def assert_values(tensor: NDArray[np.float32], expected: Json, spec: Json) -> None:
    """tensor: (C, H, W)."""
    assert list(tensor.shape) == expected["shape"]
    for channel, row, column, value in expected["values"]:
        assert tensor[channel, row, column] == pytest.approx(value, abs=PICTURES["grey_levels"] * spec["scale"] + 1e-5)


def assert_reading(given: Json, expected: Json) -> None:
    tolerance = READINGS["confidence_tolerance"]
    assert given["text"] == expected["text"]
    assert given["spans"] == expected["spans"]
    assert given["confidence"] == pytest.approx(expected["confidence"], abs=tolerance)
    assert given["character_confidences"] == pytest.approx(expected["character_confidences"], abs=tolerance)


# Our own code.


@every_picture
def test_our_code_makes_of_every_picture_the_tensor_of_the_vectors(case: Json) -> None:
    spec = InputSpec.from_json(case["input_spec"])
    picture = decode_picture(base64.b64decode(case["png"]), case["name"])
    for expected in case["tensors"]:
        resized = resize(turned(picture, expected["turned"]), spec)
        assert_levels(resized, unpacked(expected["resized_png"]), PICTURES["grey_levels"])
        assert_values(scale(resized, spec), expected, case["input_spec"])


def test_our_code_gives_every_size_the_width_and_the_margin_of_the_vectors() -> None:
    for case in PICTURES["widths"]:
        size, spec = (case["height"], case["width"]), InputSpec.from_json(case["input_spec"])
        assert (natural_width(*size, spec), missing_margin(*size, spec)) == (case["natural_width"], case["margin"])
        assert list(shown_columns(*size, spec, 4)) == case["shown_columns"]
        assert list(shown_columns(*size, spec, 4, 1)) == case["shown_columns_with_one_extra"]
        assert list(shown_columns(*size, spec, 4, -1)) == case["shown_columns_with_one_less"]


@every_reading
def test_our_code_reads_every_line_as_the_vectors_say(case: Json) -> None:
    charset = Charset.of(case["characters"])
    log_probs = np.array(case["log_probs"], np.float32).reshape(-1, charset.classes)
    reading = greedy(tempered(log_probs, case["temperature"]), charset)
    given = {
        "text": reading.text,
        "confidence": reading.confidence,
        "character_confidences": list(reading.character_confidences),
        "spans": [[span.start, span.end] for span in reading.spans],
    }
    assert_reading(given, case)


def test_the_committed_vectors_are_those_that_the_generator_writes() -> None:
    assert json.loads(json.dumps(reading_vectors())) == READINGS
    written = picture_vectors()
    assert json.loads(json.dumps(written["widths"])) == PICTURES["widths"]
    for given, expected in zip(written["pictures"], PICTURES["pictures"], strict=True):
        assert given["name"] == expected["name"]
        # not the bytes: what compresses them may change
        assert np.array_equal(decode(base64.b64decode(given["png"])), decode(base64.b64decode(expected["png"])))


def test_the_vectors_are_written_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "one")]) == main(["--out", str(tmp_path / "two")]) == 0
    for name in ("pictures.json", "readings.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert capsys.readouterr().out.count(" kB\n") == 4


def test_the_vectors_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 300_000


# What the document says.


@every_picture
def test_the_document_suffices_to_decode_every_picture(case: Json) -> None:
    rgb = decode(base64.b64decode(case["png"]))
    assert rgb.shape[2] == 3
    if "rgb_png" in case:
        assert np.array_equal(rgb, unpacked(case["rgb_png"]))


@every_picture
def test_the_document_suffices_to_make_every_tensor(case: Json) -> None:
    spec, picture = case["input_spec"], decode(base64.b64decode(case["png"]))
    attitudes = [0, 90, 270] if is_tall(picture, spec) else [0]
    assert [tensor["turned"] for tensor in case["tensors"]] == attitudes
    for expected in case["tensors"]:
        resized = resized_as_written(turned_as_written(picture, expected["turned"]), spec)
        assert_levels(resized, unpacked(expected["resized_png"]), PICTURES["grey_levels"])
        scaled = resized.astype(np.float32) * np.float32(spec["scale"]) + np.float32(spec["offset"])
        assert_values(scaled.transpose(2, 0, 1), expected, spec)


def test_the_document_suffices_to_find_every_width_and_margin() -> None:
    for case in PICTURES["widths"]:
        given = widths_as_written(case["height"], case["width"], case["input_spec"])
        assert given == (case["natural_width"], case["margin"])
        assert columns_as_written(case["width"], *given, 0) == case["shown_columns"]
        assert columns_as_written(case["width"], *given, 1) == case["shown_columns_with_one_extra"]
        assert columns_as_written(case["width"], *given, -1) == case["shown_columns_with_one_less"]


@every_reading
def test_the_document_suffices_to_read_every_line(case: Json) -> None:
    assert_reading(read_as_written(case["log_probs"], case["characters"], case["temperature"]), case)


@pytest.mark.parametrize("case", READINGS["turned"], ids=named)
def test_the_document_suffices_to_choose_among_attitudes(case: Json) -> None:
    readings = [
        read_as_written(attitude["log_probs"], case["characters"]) | {"turned": attitude["turned"]}
        for attitude in case["attitudes"]  # 0 is the narrowest, then 90 and 270
    ]
    chosen = readings[0]
    for reading in readings[1:]:
        if (reading["text"] != "", reading["confidence"]) > (chosen["text"] != "", chosen["confidence"]):
            chosen = reading
    assert chosen["turned"] == case["chosen"]["turned"]
    assert_reading(chosen, case["chosen"])


@pytest.mark.parametrize("case", READINGS["pixel_spans"], ids=named)
def test_the_document_suffices_to_place_every_span(case: Json) -> None:
    height, width = (case["width"], case["height"]) if case["turned"] else (case["height"], case["width"])
    natural, total = widths_as_written(height, width, case["input_spec"])
    for span, edges in zip(case["spans"], case["pixels"], strict=True):
        for column, edge in zip(span, edges, strict=True):
            pixel = column * case["pixels_per_column"] * (width + total) / natural - total // 2
            assert min(max(pixel, 0), width) == pytest.approx(edge, abs=1e-6)


def test_the_documents_resize_is_ours_within_a_grey_level_for_random_pictures_of_random_sizes() -> None:
    generator = np.random.default_rng(8)
    for _ in range(150):
        height, width = (int(v) for v in generator.integers(1, (120, 200)))
        noise = generator.integers(0, 2, (height, width, 3), np.uint8) * np.uint8(255)  # as far apart as bytes can be
        spec = InputSpec(min_width=int(generator.integers(4, 12)) * 8, max_width=int(generator.integers(12, 20)) * 8)
        assert_levels(resized_as_written(noise, spec.to_json()), resize(noise, spec), 1)


def test_the_vectors_tell_half_even_from_other_roundings() -> None:
    exact = [
        (case["width"] * case["input_spec"]["height"] / case["height"] / case["input_spec"]["width_multiple"], case)
        for case in PICTURES["widths"]
    ]
    halves = [(value, case) for value, case in exact if value % 1 == 0.5]
    taken = {
        case["natural_width"] // case["input_spec"]["width_multiple"] - math.floor(value) for value, case in halves
    }
    assert taken == {0, 1}


def test_the_vectors_need_all_three_tables_of_weights() -> None:
    kinds = set()
    for case in PICTURES["pictures"]:
        picture, spec = decode(base64.b64decode(case["png"])), case["input_spec"]
        natural, total = widths_as_written(picture.shape[0], picture.shape[1], spec)
        kinds.add(table_of(picture.shape[0], picture.shape[1] + total, spec["height"], natural))
    assert kinds == {linear, area, between}


def test_the_vectors_need_the_exact_order_of_operations_between_growing_and_shrinking() -> None:
    (case,) = (case for case in PICTURES["pictures"] if case["name"] == "shrunk in height, enlarged at uneven steps")
    width, natural = decode(base64.b64decode(case["png"])).shape[1], case["tensors"][0]["shape"][2]
    weights = between(width, natural)
    first = [int(np.flatnonzero(weights[d])[0]) for d in range(natural)]
    assert first != [d * width // natural for d in range(natural)]


# The second implementation.


def unpacked(text: str) -> NDArray[np.uint8]:
    """A PNG in base64 -> (height, width, 3), or (height, width, 1) where it is grey."""
    pixels = stored_pixels(base64.b64decode(text))
    assert pixels.dtype == np.uint8
    return pixels.astype(np.uint8)


def stored_pixels(encoded: bytes) -> NDArray[Any]:
    """A PNG without interlacing or palette -> (height, width, channels) as it is stored."""
    assert encoded[:8] == b"\x89PNG\r\n\x1a\n"
    place, data = 8, b""
    width = height = depth = colour = 0
    while place < len(encoded):
        length, kind = struct.unpack(">I4s", encoded[place : place + 8])
        content = encoded[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content)
            assert not interlaced
        if kind == b"IDAT":
            data += content
        place += length + 12
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    step = channels * depth // 8
    rows, before, raw = [], bytearray(width * step), zlib.decompress(data)
    for start in range(0, len(raw), width * step + 1):
        row = bytearray(raw[start + 1 : start + 1 + width * step])
        for i in range(len(row)):
            left, up = (row[i - step] if i >= step else 0), before[i]
            corner = before[i - step] if i >= step else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda v: abs(guess - v))
            row[i] = (row[i] + (0, left, up, (left + up) // 2, paeth)[raw[start]]) % 256
        rows.append(bytes(row))
        before = row
    stored, number = (">u2", np.uint16) if depth == 16 else ("u1", np.uint8)
    return np.frombuffer(b"".join(rows), stored).reshape(height, width, channels).astype(number)


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Section 2."""
    stored = stored_pixels(encoded)
    pixels = stored.astype(int) // 257 if stored.dtype == np.uint16 else stored.astype(int)
    if pixels.shape[2] in (2, 4):
        alpha = pixels[:, :, -1:]
        pixels = (pixels[:, :, :-1] * alpha + 255 * (255 - alpha) + 127) // 255
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return pixels.astype(np.uint8)


def is_tall(picture: NDArray[np.uint8], spec: Json) -> bool:
    """Section 3."""
    return bool(spec["turn_above"] > 0 and picture.shape[0] > spec["turn_above"] * picture.shape[1])


def turned_as_written(picture: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Section 3, pixel by pixel."""
    if not degrees:
        return picture
    height, width = picture.shape[:2]
    out = np.empty((width, height, 3), np.uint8)
    for y in range(width):
        for x in range(height):
            out[y, x] = picture[x, width - 1 - y] if degrees == 90 else picture[height - 1 - x, y]
    return out


def rint(value: float) -> int:
    low = math.floor(value)
    if value - low != 0.5:
        return math.floor(value + 0.5)
    return low if low % 2 == 0 else low + 1


def widths_as_written(height: int, width: int, spec: Json) -> tuple[int, int]:
    """Section 4: (natural width, total margin)."""
    nearest = rint(width * spec["height"] / height / spec["width_multiple"]) * spec["width_multiple"]
    natural = min(max(nearest, spec["min_width"]), spec["max_width"])
    if spec["narrow"] != "margins":
        return natural, 0
    return natural, max(0, rint(spec["min_width"] * height / spec["height"]) - width)


def columns_as_written(width: int, natural: int, total: int, extra: int) -> list[int]:
    """Section 9: first and end of the columns that are read, 4 pixels a column."""
    if not total:
        return [0, natural // 4 + extra]
    whole, shift, left = 2 * (width + total) * 4, extra * (width + total) * 4, total // 2
    end = math.ceil(Fraction(2 * (left + width) * natural + shift, whole))
    return [max(0, (2 * left * natural + shift) // whole), min(end, natural // 4 + extra)]


def resized_as_written(picture: NDArray[np.uint8], spec: Json) -> NDArray[np.uint8]:
    """Sections 4 to 6: any size -> (height, natural width, channels)."""
    natural, total = widths_as_written(picture.shape[0], picture.shape[1], spec)
    sides = []
    for edge, number in ((0, total // 2), (-1, total - total // 2)):
        colour = [rint(sum(int(v) for v in picture[:, edge, c]) / picture.shape[0]) for c in range(3)]
        sides.append(np.full((picture.shape[0], number, 3), colour, np.uint8))
    wide = np.concatenate([sides[0], picture, sides[1]], axis=1)
    table = table_of(wide.shape[0], wide.shape[1], spec["height"], natural)
    rows, columns = table(wide.shape[0], spec["height"]), table(wide.shape[1], natural)
    out = np.rint(np.einsum("yi,xj,ijc->yxc", rows, columns, wide.astype(np.float64), optimize=True))
    if spec["channels"] == 1:
        red, green, blue = (out[:, :, c].astype(int) for c in range(3))
        out = ((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15)[:, :, None]
    found: NDArray[np.uint8] = out.astype(np.uint8)
    return found


def table_of(height: int, width: int, new_height: int, new_width: int) -> Table:
    """Section 5: which of the three."""
    if height <= new_height and width <= new_width:
        return linear
    return area if height >= new_height and width >= new_width else between


def linear(n: int, m: int) -> NDArray[np.float64]:
    weights = np.zeros((m, n))
    for d in range(m):
        c = (d + 0.5) * n / m - 0.5
        put_pair(weights[d], math.floor(c), c - math.floor(c))
    return weights


def area(n: int, m: int) -> NDArray[np.float64]:
    weights = np.zeros((m, n))
    for d in range(m):
        a, b = d * n / m, (d + 1) * n / m
        for i in range(n):
            weights[d, i] = max(0.0, min(i + 1, b) - max(i, a)) / (b - a)
    return weights


def between(n: int, m: int) -> NDArray[np.float64]:
    weights = np.zeros((m, n))
    inverse = m / n
    step = 1 / inverse
    for d in range(m):
        i = math.floor(d * step)
        t = float(np.float32((d + 1) - (i + 1) * inverse))
        put_pair(weights[d], i, 0 if t <= 0 else t - math.floor(t))
    return weights


def put_pair(weights: NDArray[np.float64], i: int, t: float) -> None:
    last = len(weights) - 1
    if i < 0 or i >= last:
        weights[min(max(i, 0), last)] = 1
    else:
        weights[i], weights[i + 1] = 1 - t, t


def read_as_written(log_probs: list[list[float]], characters: str, temperature: float = 1.0) -> Json:
    """Section 9."""
    rows = [[struct.unpack("f", struct.pack("f", value))[0] for value in row] for row in log_probs]
    if temperature != 1:
        shares = [math.log(sum(math.exp(value / temperature) for value in row)) for row in rows]
        rows = [[v / temperature - share for v in row] for row, share in zip(rows, shares, strict=True)]
    shown = [row.index(max(row)) for row in rows]
    text, sure, spans, start = "", [], [], 0
    for column in range(1, len(rows) + 1):
        if column < len(rows) and shown[column] == shown[start]:
            continue
        number = shown[start]
        if number:
            text += characters[number - 1]
            sure.append(math.exp(min(max(rows[t][number] for t in range(start, column)), 0)))
            spans.append([start, column])
        start = column
    confidence = min(sure) if sure else min((math.exp(min(row[0], 0)) for row in rows), default=0.0)
    return {"text": text, "confidence": confidence, "character_confidences": sure, "spans": spans}
