"""What cameras, scanners, printers and compression do to a picture of text: pure functions of picture and generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture

Columns = NDArray[np.float32]
Grain = NDArray[np.float32]

_GRAIN_HEIGHT, _GRAIN_WIDTH = 288, 2560


@cache
def white_noise() -> Grain:
    """float32 (288, 2560): standard normal values, drawn once; pictures use windows of it."""
    return np.random.Generator(np.random.PCG64(20240229)).standard_normal((_GRAIN_HEIGHT, _GRAIN_WIDTH), np.float32)


@cache
def smooth_noise(sigma: float) -> Grain:
    """float32 (288, 2560): white noise blurred by sigma pixels, brought back to unit variance."""
    blurred = cv2.GaussianBlur(white_noise(), (0, 0), sigma)
    return np.asarray((blurred - blurred.mean()) / blurred.std(), np.float32)


def window(grain: Grain, height: int, width: int, rng: np.random.Generator) -> Grain:
    """A random (height, width) part of a grain, stretched where the picture is larger."""
    if height > grain.shape[0] or width > grain.shape[1]:
        part = window(grain, min(height, grain.shape[0]), min(width, grain.shape[1]), rng)
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    y = int(rng.integers(grain.shape[0] - height + 1))
    x = int(rng.integers(grain.shape[1] - width + 1))
    return grain[y : y + height, x : x + width]


def to_bytes(picture: NDArray[np.float32]) -> Picture:
    """Rounded and clipped to 0..255."""
    return np.asarray(cv2.convertScaleAbs(cv2.max(picture, 0.0)), np.uint8)  # type: ignore[call-overload]


def in_colour(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (height, width) -> (height, width, 3): the same in each channel, many times faster than broadcasting."""
    return np.asarray(cv2.cvtColor(field, cv2.COLOR_GRAY2RGB), np.float32)


def ramp(reach: float, size: int) -> NDArray[np.float32]:
    """float32 (size,): even steps from -reach to reach."""
    steps = np.arange(size, dtype=np.float64) * (2 * reach / max(size - 1, 1)) - reach
    return steps.astype(np.float32)


def _times(picture: Picture, gain: NDArray[np.float32]) -> Picture:
    """The picture with its light multiplied by gain, float32 (height, width), rounded and clipped."""
    return np.asarray(cv2.multiply(picture, in_colour(gain), dtype=cv2.CV_8U), np.uint8)


def gaussian_blur(picture: Picture, sigma: float) -> Picture:
    """sigma in pixels."""
    return cv2.GaussianBlur(picture, (0, 0), sigma).astype(np.uint8, copy=False)


def motion_blur(picture: Picture, length: float, angle: float) -> Picture:
    """A blur along one direction; length in pixels, angle in radians."""
    size = int(np.ceil(length)) | 1
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    dx, dy = np.cos(angle) * (length - 1) / 2, np.sin(angle) * (length - 1) / 2
    ends = [(round(16 * (middle + s * dx)), round(16 * (middle + s * dy))) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    return cv2.filter2D(picture, -1, kernel / max(float(kernel.sum()), 1e-6)).astype(np.uint8, copy=False)


def defocus(picture: Picture, radius: float) -> Picture:
    """The even disc that a lens out of focus makes of a point; radius in pixels."""
    middle = int(np.ceil(radius))
    steps = np.arange(-middle, middle + 1, dtype=np.float32)
    distance = np.sqrt(steps[None, :] ** 2 + steps[:, None] ** 2)
    kernel = np.clip(np.float32(radius + 0.5) - distance, 0, 1)
    return cv2.filter2D(picture, -1, kernel / kernel.sum()).astype(np.uint8, copy=False)


def low_resolution(picture: Picture, factor: float, sharp: bool = False) -> Picture:
    """Shrunk by factor (> 1) and enlarged again; sharp: without interpolation on the way back."""
    height, width = picture.shape[:2]
    small = (max(4, round(width / factor)), max(4, round(height / factor)))
    shrunk = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    back = cv2.INTER_NEAREST if sharp else cv2.INTER_LINEAR
    return cv2.resize(shrunk, (width, height), interpolation=back).astype(np.uint8, copy=False)


def sensor_noise(picture: Picture, sigma: float, rng: np.random.Generator, coloured: bool = False) -> Picture:
    """Normal noise of sigma grey levels; coloured: drawn for each channel."""
    height, width = picture.shape[:2]
    noise = window(white_noise(), height, width * 3 if coloured and width * 3 <= _GRAIN_WIDTH else width, rng)
    scaled = noise * np.float32(sigma)
    shaped = scaled.reshape(height, width, 3) if noise.shape[1] != width else in_colour(scaled)
    return to_bytes(shaped + picture)


def jpeg(picture: Picture, quality: int) -> Picture:
    """Through JPEG; quality 1 to 100."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Degradations:
    """How hard each degradation is, as a factor on its share of pictures and on its strength; 0 turns it off.

    Those of layout come first: warp (turned, slanted, foreshortened), bend (on an arc), crop (a little is cut off),
    neighbours (bits of other lines and rules; the factor says how often). low_resolution is shrinking and enlarging,
    grey the loss of colour. glare and defocus are 0 unless asked for: the models that are published were trained
    without them.
    """

    warp: float = 1.0
    bend: float = 1.0
    crop: float = 1.0
    neighbours: float = 1.0
    light: float = 1.0
    shadow: float = 1.0
    glare: float = 0.0
    contrast: float = 1.0
    cast: float = 1.0
    motion: float = 1.0
    blur: float = 1.0
    defocus: float = 0.0
    low_resolution: float = 1.0
    noise: float = 1.0
    jpeg: float = 1.0
    grey: float = 1.0

    @classmethod
    def of(cls, given: Sequence[str]) -> Degradations:
        """("glare:1", "jpeg:0") -> the defaults with these changed; ValueError for what it does not know."""
        changed: dict[str, float] = {}
        names = [field.name for field in fields(cls)]
        for text in given:
            name, _, number = text.partition(":")
            if name not in names:
                raise ValueError(f"there is no degradation named {name!r}; known are {', '.join(names)}")
            try:
                factor = float(number)
            except ValueError:
                factor = -1.0
            if not 0 <= factor <= 4:
                raise ValueError(f"the degradation {text!r} has no factor from 0 to 4; write it as {name}:0.5")
            changed[name] = factor
        return cls(**changed)


USUAL = Degradations()


def uneven_light(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """A brightness ramp in any direction, or soft patches of light; strength 1 changes by up to +-50 %."""
    height, width = picture.shape[:2]
    if rng.random() < 0.6:
        across, down = rng.uniform(-1, 1, 2)
        x, y = ramp(across, width), ramp(down, height)
        field = (x[None, :] + y[:, None]) * np.float32(0.5)
    else:
        field = window(smooth_noise(24.0), height, width, rng) * np.float32(0.4)
    return _times(picture, 1 + np.float32(0.5 * strength) * field)


def shadow(picture: Picture, depth: float, rng: np.random.Generator) -> Picture:
    """A shadow with a straight soft edge over one side; depth 0 to 1."""
    height, width = picture.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(width, dtype=np.float32) - np.float32(rng.uniform(0.15, 0.85) * width)
    y = np.arange(height, dtype=np.float32) - np.float32(height / 2)
    distance = np.float32(np.cos(angle)) * x[None, :] + np.float32(np.sin(angle)) * y[:, None]
    soft = np.clip(distance / np.float32(rng.uniform(1, 8)) + 0.5, 0, 1).astype(np.float32, copy=False)
    return _times(picture, 1 - np.float32(depth) * soft)


def glare(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """A soft bright patch, as of a lamp on gloss; strength 1 takes its middle to white."""
    height, width = picture.shape[:2]
    angle, long = rng.uniform(0, np.pi), height * rng.uniform(0.5, 2.5)
    short = long * rng.uniform(0.25, 0.8)
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(rng.uniform(0, width))
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(rng.uniform(0, height))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (x * cos + y * sin) / np.float32(long), (y * cos - x * sin) / np.float32(short)
    light = np.exp(-(along * along + across * across)) * np.float32(220 * strength)
    return to_bytes(in_colour(light) + picture)


def contrast(picture: Picture, gain: float, middle: float) -> Picture:
    """Grey levels drawn towards middle by gain (< 1 loses contrast)."""
    return cv2.convertScaleAbs(picture, alpha=gain, beta=middle * (1 - gain)).astype(np.uint8, copy=False)


def colour_cast(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Each channel with its own gain of 1 +- 0.25 * strength."""
    gains = (1 + rng.uniform(-0.25, 0.25, 3) * strength).astype(np.float32)
    levels = to_bytes(np.arange(256, dtype=np.float32)[:, None] * gains)
    return cv2.LUT(picture, levels[:, None, :]).astype(np.uint8, copy=False)


def saturation(picture: Picture, amount: float) -> Picture:
    """0 makes grey, 1 changes nothing."""
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(picture, amount, grey, 1 - amount, 0).astype(np.uint8, copy=False)


def warp(
    picture: Picture, columns: Columns | None, rng: np.random.Generator, strength: float
) -> tuple[Picture, Columns | None]:
    """A small change of perspective about the picture's corners; columns (fractions) follow. The size stays."""
    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    reach = np.array([min(0.04 * width, 0.25 * height), 0.07 * height], np.float32) * np.float32(strength)
    moved = corners + rng.uniform(-1, 1, (4, 2)).astype(np.float32) * reach
    matrix = np.asarray(cv2.getPerspectiveTransform(corners, moved), np.float64)
    out = cv2.warpPerspective(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if columns is not None:
        columns = moved_columns(columns * width, matrix, height / 2, width)
    return out.astype(np.uint8, copy=False), columns


def moved_columns(pixels: Columns, matrix: NDArray[np.float64], row: float, width: int) -> Columns:
    """Column edges in pixels at one row, through a homography, as fractions of the new width within 0 and 1."""
    # OpenCV's homographies speak of pixel centres, edges lie half a pixel before them.
    x, y = pixels.astype(np.float64) - 0.5, row - 0.5
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    moved = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / depth + 0.5
    return np.asarray(np.clip(moved / width, 0, 1), np.float32)


def photometric(picture: Picture, rng: np.random.Generator, strength: float = 1.0, of: Degradations = USUAL) -> Picture:
    """Light, lens, sensor and compression in the order in which they happen; strength 0 changes nothing."""
    if strength <= 0:
        return picture
    height = picture.shape[0]
    unit = height / 32
    chance = rng.random(12)
    if chance[0] < 0.22 * (light := strength * of.light):
        picture = uneven_light(picture, min(1.0, light * rng.uniform(0.3, 1.0)), rng)
    if chance[1] < 0.05 * strength * of.shadow:
        picture = shadow(picture, min(0.8, rng.uniform(0.15, 0.42) * max(1.0, of.shadow)), rng)
    if of.glare and rng.random() < 0.05 * (gloss := strength * of.glare):
        picture = glare(picture, min(1.0, gloss * rng.uniform(0.2, 1.0)), rng)
    if chance[2] < 0.14 * strength * of.contrast:
        picture = contrast(picture, rng.uniform(0.55, 0.9) ** max(1.0, of.contrast), rng.uniform(20, 235))
    if chance[3] < 0.12 * (cast := strength * of.cast):
        picture = colour_cast(picture, cast, rng)
    if chance[4] < 0.12 * (motion := strength * of.motion):
        picture = motion_blur(picture, 1 + unit * motion * rng.uniform(0.8, 2.6), rng.uniform(0, np.pi))
    elif of.blur and chance[4] < 0.60:
        picture = gaussian_blur(picture, 0.2 + unit * strength * of.blur * 1.15 * rng.random() ** 1.6)
    if of.defocus and rng.random() < 0.08 * (unsharp := strength * of.defocus):
        picture = defocus(picture, 0.5 + unit * unsharp * 1.5 * rng.random())
    if chance[5] < 0.33 * (coarse := strength * of.low_resolution):
        # Never below about eleven rows, the least in which letters can be told apart.
        picture = low_resolution(picture, min(1 + 1.4 * coarse * rng.random() ** 1.2, max(height / 11, 1.01)))
    if chance[6] < 0.5 * (noisy := strength * of.noise):
        picture = sensor_noise(picture, noisy * (1.5 + 14 * rng.random() ** 2), rng, bool(chance[7] < 0.5))
        if chance[8] < 0.25:
            picture = gaussian_blur(picture, 0.6)
    if of.jpeg and chance[9] < 0.45:
        loss = strength * of.jpeg
        picture = jpeg(picture, int(95 - 65 * loss * rng.random()) if loss <= 1 else int(rng.integers(20, 90)))
    if chance[10] < 0.06 * strength * of.grey:
        picture = saturation(picture, rng.uniform(0, 0.7))
    return picture


def degrade(
    picture: Picture, columns: Columns | None, rng: np.random.Generator, strength: float = 1.0
) -> tuple[Picture, Columns | None]:
    """A small warp, then photometric changes, then now and then the negative; columns (fractions) follow the warp."""
    if strength <= 0:
        return picture, columns
    if rng.random() < 0.6:
        picture, columns = warp(picture, columns, rng, min(strength, 1.5))
    picture = photometric(picture, rng, strength)
    if rng.random() < 0.03 * strength:
        picture = 255 - picture
    return picture, columns


def augment(picture: Picture, rng: np.random.Generator) -> Picture:
    """A gentle degradation for real lines, which bring their own: four in five are changed a little."""
    if rng.random() < 0.2:
        return picture
    return degrade(picture, None, rng, 0.5)[0]
