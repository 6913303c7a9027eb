"""From a picture to what a recogniser takes: the single resize-and-scale for training, calibration and reading."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture

# Without a list Pillow imports every plugin it has, some of them slow.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")


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


def decode_picture(encoded: bytes, key: str) -> Picture:
    """JPEG, PNG or any format OpenCV knows -> uint8 (height, width, 3) RGB; transparency is laid on white.

    Raises ValueError naming key where the bytes are no picture.
    """
    pixels = None
    if encoded:
        with contextlib.suppress(cv2.error):  # raised for headers of more pixels than OpenCV takes
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.size == 0:
        raise ValueError(f"{key} does not decode as a picture ({len(encoded)} bytes); replace or remove it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{key} has pixels of type {pixels.dtype}; store it with 8 or 16 bits a channel")
    return to_rgb(pixels)


def to_rgb(pixels: NDArray[Any]) -> Picture:
    """An OpenCV picture (grey, BGR or BGRA; 8 or 16 bits) -> uint8 (height, width, 3) RGB."""
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.ndim == 2:
        return np.ascontiguousarray(np.repeat(pixels[:, :, None], 3, axis=2), dtype=np.uint8)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(pixels[:, :, ::-1], dtype=np.uint8)


def picture_size(encoded: bytes | memoryview, key: str) -> tuple[int, int]:
    """(height, width) in pixels as stored, which is what decode_picture gives: EXIF rotation is not applied.

    About 0.03 ms a picture. Raises ValueError naming key where the header is none of FORMATS.
    """
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


def resize(picture: Picture, spec: InputSpec, width: int | None = None) -> NDArray[np.uint8]:
    """A picture of any size -> uint8 (spec.height, width, spec.channels); width None: the natural one.

    Shrinking averages areas, enlarging is bilinear (OpenCV INTER_AREA and INTER_LINEAR).
    """
    height_in, width_in = picture.shape[:2]
    if width is None:
        width = natural_width(height_in, width_in, spec)
        picture = with_margins(picture, missing_margin(height_in, width_in, spec))
    shrinks = picture.shape[0] > spec.height or picture.shape[1] > width
    out = cv2.resize(picture, (width, spec.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if spec.channels == 1:
        out = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[:, :, None]
    return np.ascontiguousarray(out, dtype=np.uint8)


def missing_margin(height: int, width: int, spec: InputSpec) -> int:
    """Pixels of margin that a picture of this size needs to reach the least width; 0 where it is stretched instead."""
    if spec.narrow != "margins":
        return 0
    return max(0, round(spec.min_width * height / spec.height) - width)


def with_margins(picture: Picture, total: int) -> Picture:
    """total more pixels of width, half on each side, each side in the mean colour of its edge column."""
    if not total:
        return picture
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
