"""From a picture to what a recogniser takes: the single resize-and-scale for training, calibration and reading."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture

# Without a list Pillow imports every plugin it has, some of them slow.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")

ORIENTATIONS = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)
}  # fmt: skip
"""EXIF orientation -> quarters to turn counter-clockwise, and whether to mirror left and right after that."""
EXIF_MARKS = (b"Exif", b"eXIf", b"EXIF")
"""Of JPEG, PNG and WebP."""
TIFF_MARKS = (b"II*\0", b"MM\0*")

MOST_WITH_MARGINS = 100_000_000
"""Pixels of a picture with its margins: they are as high as the picture, so a strip of 1 x 20000 would need 4e9."""


@dataclass(frozen=True)
class InputSpec:
    """How pictures enter a model; travels with every model file.

    height: pixels; every line is resized to it.
    channels: 3 (RGB, in this order) or 1 (grey, ITU-R 601 weights).
    scale, offset: a byte x becomes x * scale + offset; the default is x / 127.5 - 1.
    width_multiple: the width is the multiple of this that is nearest to the natural width.
    min_width, max_width: pixels, multiples of width_multiple.
    narrow: how a line below min_width reaches it: "stretch", or "margins" in the edge colour.
    turn_above: a picture more than this many times as high as wide is also read turned by 90 degrees
        both ways, and the most confident reading wins; 0 turns nothing.
    """

    height: int = 32
    channels: Literal[1, 3] = 3
    scale: float = 1 / 127.5
    offset: float = -1.0
    width_multiple: int = 8
    min_width: int = 32
    max_width: int = 2048
    narrow: Literal["stretch", "margins"] = "stretch"
    turn_above: float = 0.0

    def __post_init__(self) -> None:
        multiple = self.width_multiple
        if self.channels not in (1, 3) or self.height < 1 or multiple < 1:
            raise ValueError(
                f"{self} is not one that a picture can be brought to; give 1 or 3 channels and sizes above 0"
            )
        if (
            self.min_width < 1
            or self.max_width < self.min_width
            or self.min_width % multiple
            or self.max_width % multiple
        ):
            raise ValueError(
                f"widths from {self.min_width} to {self.max_width} pixels do not fit; give multiples of {multiple}, "
                "the least one first"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> InputSpec:
        """ValueError where a field is unknown or has the wrong type."""
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"the input spec {fields} does not fit this version: {error}") from error


def decode_picture(encoded: bytes | memoryview, key: str) -> Picture:
    """JPEG, PNG or any format OpenCV knows -> uint8 (height, width, 3) RGB; transparency is laid on white.

    Lines to train on are of FORMATS alone, for their sizes are read from headers.
    Raises ValueError naming key where the bytes are no picture.
    """
    return unshared(decode_shared(encoded, key))


def decode_shared(encoded: bytes | memoryview, key: str, least_height: int = 0) -> Picture:
    """decode_picture for those who do not write into the picture: a grey one is one channel seen three times.

    least_height: pixels; above 0, a JPEG so tall that a half, a quarter or an eighth of its height is still as much is
        decoded at that scale, sides rounded up: 1.5 to 4 times faster, about 1 grey level from the whole one once
        brought to half of least_height.
    """
    flags = _reduced_flags(encoded, least_height) if least_height else cv2.IMREAD_UNCHANGED
    pixels = None
    if encoded:
        with contextlib.suppress(cv2.error):  # raised for headers of more pixels than OpenCV takes
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if pixels is None or pixels.size == 0:
        raise ValueError(f"{key} does not decode as a picture ({len(encoded)} bytes); replace or remove it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{key} has pixels of type {pixels.dtype}; store it with 8 or 16 bits a channel")
    return to_rgb(pixels) if pixels.ndim == 3 else _three_times(_to_bytes(pixels))


def to_rgb(pixels: NDArray[Any]) -> Picture:
    """An OpenCV picture (grey, BGR or BGRA; 8 or 16 bits) -> uint8 (height, width, 3) RGB."""
    pixels = _to_bytes(pixels)
    if pixels.ndim == 2:
        return unshared(_three_times(pixels))
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return cast(Picture, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels // 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _three_times(grey: NDArray[np.uint8]) -> Picture:
    """(height, width) as (height, width, 3) over the same bytes, read-only; resize takes one channel of it."""
    picture: Picture = np.ndarray((*grey.shape, 3), np.uint8, grey, 0, (*grey.strides, 0))
    picture.flags.writeable = False
    return picture


def unshared(picture: Picture) -> Picture:
    """The picture with three channels of its own, which may be written into; itself where it has them."""
    if picture.strides[2]:
        return picture
    return cast(Picture, cv2.cvtColor(picture[:, :, 0], cv2.COLOR_GRAY2RGB))


def _reduced_flags(encoded: bytes | memoryview, least_height: int) -> int:
    """How OpenCV should decode: JPEGs of one or three channels at the smallest scale that leaves least_height."""
    found = _jpeg_header(encoded)
    if found is None or found[2] not in (1, 3):
        return cv2.IMREAD_UNCHANGED
    for factor, grey, colour in (
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if found[0] >= factor * least_height:
            return (grey if found[2] == 1 else colour) | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.IMREAD_UNCHANGED


def _jpeg_header(encoded: bytes | memoryview) -> tuple[int, int, int] | None:
    """(height, width, channels) of a JPEG's frame header; None where there is none (ITU-T T.81, annex B)."""
    place, end = 2, len(encoded) - 10
    if end < 0 or encoded[0] != 0xFF or encoded[1] != 0xD8:
        return None
    while place <= end and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = encoded[place + 5] << 8 | encoded[place + 6]
            width = encoded[place + 7] << 8 | encoded[place + 8]
            return (height, width, encoded[place + 9]) if height and width else None
        elif marker in (0xD9, 0xDA):  # the end, or data before any frame header
            return None
        else:
            place += 2 + (encoded[place + 2] << 8 | encoded[place + 3])
    return None


def decode_whole(encoded: bytes | memoryview, key: str) -> Picture:
    """decode_picture that also refuses what was cut off, which some versions of OpenCV fill with grey."""
    from PIL import Image, UnidentifiedImageError  # only imports and checks look so closely

    picture = decode_picture(encoded, key)
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it was decoded above
            opened.load()
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{key} is damaged, or of none of the formats {', '.join(FORMATS)}; convert or remove it"
        ) from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{key} does not decode whole ({error}); replace or remove it") from error
    return picture


def decode_as_shown(encoded: bytes, key: str) -> Picture:
    """decode_picture, then turned and mirrored as the EXIF orientation says: a photo as viewers show it.

    The tag is Orientation of CIPA DC-008 (Exif 2.32), 4.6.4; a picture without it, or with a broken one, stays.
    """
    picture = decode_picture(encoded, key)
    if encoded[:4] in TIFF_MARKS or not any(mark in encoded for mark in EXIF_MARKS):
        return picture  # a TIFF's orientation is a tag of its own, which OpenCV applies
    from PIL import ExifTags, Image  # only for pictures that need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF data that is cut off
            exif = Image.open(io.BytesIO(encoded), formats=FORMATS).getexif()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return picture
    quarters, mirrored = ORIENTATIONS.get(exif.get(ExifTags.Base.Orientation, 1), (0, False))
    shown = np.rot90(picture, quarters)
    return np.ascontiguousarray(shown[:, ::-1] if mirrored else shown)


def picture_size(encoded: bytes | memoryview, key: str) -> tuple[int, int]:
    """(height, width) in pixels as decode_picture gives it: a TIFF's orientation is applied, that of EXIF data is not.

    A few microseconds for a JPEG, about 0.03 ms else. Raises ValueError naming key where the header is none of FORMATS.
    """
    if (jpeg := _jpeg_header(encoded)) is not None:
        return jpeg[:2]
    from PIL import Image, UnidentifiedImageError  # only stored lines ask for sizes

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decompressed here
            width, height = Image.open(io.BytesIO(encoded), formats=FORMATS).size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{key} does not begin like a picture ({len(encoded)} bytes); replace or remove it") from error
    return height, width


def natural_width(height: int, width: int, spec: InputSpec) -> int:
    """The width in pixels that a picture of this size gets: aspect kept, rounded, within the bounds."""
    multiple = spec.width_multiple
    nearest = round(width * spec.height / height / multiple) * multiple
    return int(min(max(nearest, spec.min_width), spec.max_width))


def of_one_width(sizes: Iterable[tuple[int, int]], spec: InputSpec, most: int) -> Iterator[list[int]]:
    """Indices of pictures of these sizes (height, width), at most so many of one natural width at a time; narrow first.

    Such a batch needs no padding.
    """
    by_width: dict[int, list[int]] = defaultdict(list)
    for index, (height, width) in enumerate(sizes):
        by_width[natural_width(height, width, spec)].append(index)
    for _, indices in sorted(by_width.items()):
        yield from (indices[start : start + most] for start in range(0, len(indices), most))


def resize(
    picture: Picture, spec: InputSpec, width: int | None = None, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """A picture of any size -> uint8 (spec.height, width, spec.channels); width None: the natural one.

    Shrinking averages areas, enlarging is bilinear (OpenCV INTER_AREA and INTER_LINEAR).
    out: where the result is written, contiguous and of the result's shape; None for an array of its own.
    """
    height_in, width_in = picture.shape[:2]
    if width is None:
        width = natural_width(height_in, width_in, spec)
        picture = with_margins(picture, missing_margin(height_in, width_in, spec))
    if out is None:
        out = np.empty((spec.height, width, spec.channels), np.uint8)
    elif out.shape != (spec.height, width, spec.channels) or not out.flags.c_contiguous:
        shape = (spec.height, width, spec.channels)
        raise ValueError(f"an array of {out.shape} does not take the picture; give one of {shape} in one piece")
    shrinks = picture.shape[0] > spec.height or picture.shape[1] > width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    grey = picture.strides[2] == 0  # one channel seen three times: the same numbers at a third of the cost
    if grey and spec.channels == 1:
        cv2.resize(picture[:, :, 0], (width, spec.height), dst=out[:, :, 0], interpolation=how)
    elif grey:
        cv2.cvtColor(cv2.resize(picture[:, :, 0], (width, spec.height), interpolation=how), cv2.COLOR_GRAY2RGB, dst=out)
    elif spec.channels == 1:
        cv2.cvtColor(cv2.resize(picture, (width, spec.height), interpolation=how), cv2.COLOR_RGB2GRAY, dst=out[:, :, 0])
    else:
        cv2.resize(picture, (width, spec.height), dst=out, interpolation=how)
    return out


def missing_margin(height: int, width: int, spec: InputSpec) -> int:
    """Pixels of margin that a picture of this size needs to reach the least width; 0 where it is stretched instead."""
    if spec.narrow != "margins":
        return 0
    return max(0, round(spec.min_width * height / spec.height) - width)


def refuse_vast_margins(height: int, width: int, margin: int, name: str = "a picture") -> None:
    """ValueError where a picture of this size would have more than MOST_WITH_MARGINS pixels with its margin."""
    if margin and height * (width + margin) > MOST_WITH_MARGINS:
        raise ValueError(
            f"{name} ({width} x {height} pixels) is too high for a line: with the margins that this model asks for it "
            f"would have {height * (width + margin) / 1e6:,.0f} megapixels of at most {MOST_WITH_MARGINS // 10**6}; "
            "cut lines out of it, or make it smaller"
        )


def shown_columns(
    height: int, width: int, spec: InputSpec, pixels_per_column: int, extra_columns: int = 0
) -> tuple[int, int]:
    """First of the output's columns in which a picture of this size is seen, and the one after the last.

    The others show margin alone: what a model reads there is not in the picture. Of columns beyond width /
    pixels_per_column half lie before the input and half behind it (crnn.checkpoint.CrnnSizes).
    """
    prepared, margin = natural_width(height, width, spec), missing_margin(height, width, spec)
    columns = prepared // pixels_per_column + extra_columns
    if not margin:
        return 0, columns
    whole = 2 * (width + margin) * pixels_per_column
    shift = extra_columns * whole // 2
    first = (margin // 2 * 2 * prepared + shift) // whole
    end = -(-((margin // 2 + width) * 2 * prepared + shift) // whole)
    return max(0, first), min(end, columns)


def with_margins(picture: Picture, total: int) -> Picture:
    """total more pixels of width, half on each side, each side in the mean colour of its edge column.

    ValueError where that would be more than MOST_WITH_MARGINS pixels.
    """
    if not total:
        return picture
    refuse_vast_margins(picture.shape[0], picture.shape[1], total)
    left = total // 2
    sides = [
        np.broadcast_to(np.rint(picture[:, edge].mean(axis=0)).astype(np.uint8), (picture.shape[0], n, 3))
        for edge, n in ((0, left), (-1, total - left))
    ]
    return np.concatenate([sides[0], picture, sides[1]], axis=1)


def scale(resized: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """uint8 (..., height, width, channels) -> float32 (..., channels, height, width)."""
    return np.moveaxis(resized, -1, -3).astype(np.float32) * np.float32(spec.scale) + np.float32(spec.offset)


def prepare(picture: Picture, spec: InputSpec, width: int | None = None) -> NDArray[np.float32]:
    """A picture of any size -> float32 (channels, height, width), as every runtime takes it."""
    return scale(resize(picture, spec, width), spec)
