"""What cameras, scanners, printers and compression do to a picture of text: pure functions of picture and generator."""

from __future__ import annotations

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


def to_bytes(picture: NDArray[np.floating]) -> Picture:
    """Rounded and clipped to 0..255."""
    return np.asarray(cv2.convertScaleAbs(np.maximum(picture, 0)), np.uint8)


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
    shaped = noise.reshape(height, width, 3) if noise.shape[1] != width else noise[:, :, None]
    return to_bytes(picture + shaped * np.float32(sigma))


def jpeg(picture: Picture, quality: int) -> Picture:
    """Through JPEG; quality 1 to 100."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


def uneven_light(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """A brightness ramp in any direction, or soft patches of light; strength 1 changes by up to +-50 %."""
    height, width = picture.shape[:2]
    if rng.random() < 0.6:
        across, down = rng.uniform(-1, 1, 2)
        x = np.linspace(-across, across, width, dtype=np.float32)
        y = np.linspace(-down, down, height, dtype=np.float32)
        field = (x[None, :] + y[:, None]) * np.float32(0.5)
    else:
        field = window(smooth_noise(24.0), height, width, rng) * np.float32(0.4)
    return to_bytes(picture * (1 + np.float32(0.5 * strength) * field)[:, :, None])


def shadow(picture: Picture, depth: float, rng: np.random.Generator) -> Picture:
    """A shadow with a straight soft edge over one side; depth 0 to 1."""
    height, width = picture.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(width, dtype=np.float32) - np.float32(rng.uniform(0.15, 0.85) * width)
    y = np.arange(height, dtype=np.float32) - np.float32(height / 2)
    distance = np.float32(np.cos(angle)) * x[None, :] + np.float32(np.sin(angle)) * y[:, None]
    soft = np.clip(distance / np.float32(rng.uniform(1, 8)) + 0.5, 0, 1)
    return to_bytes(picture * (1 - np.float32(depth) * soft)[:, :, None])


def contrast(picture: Picture, gain: float, middle: float) -> Picture:
    """Grey levels drawn towards middle by gain (< 1 loses contrast)."""
    return cv2.convertScaleAbs(picture, alpha=gain, beta=middle * (1 - gain)).astype(np.uint8, copy=False)


def colour_cast(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Each channel with its own gain of 1 +- 0.25 * strength."""
    gains = (1 + rng.uniform(-0.25, 0.25, 3) * strength).astype(np.float32)
    return to_bytes(picture * gains)


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


def photometric(picture: Picture, rng: np.random.Generator, strength: float = 1.0) -> Picture:
    """Light, lens, sensor and compression in the order in which they happen; strength 0 changes nothing."""
    if strength <= 0:
        return picture
    height = picture.shape[0]
    unit = height / 32
    chance = rng.random(12)
    if chance[0] < 0.22 * strength:
        picture = uneven_light(picture, min(1.0, strength * rng.uniform(0.3, 1.0)), rng)
    if chance[1] < 0.05 * strength:
        picture = shadow(picture, rng.uniform(0.15, 0.42), rng)
    if chance[2] < 0.14 * strength:
        picture = contrast(picture, rng.uniform(0.55, 0.9), rng.uniform(20, 235))
    if chance[3] < 0.12 * strength:
        picture = colour_cast(picture, strength, rng)
    if chance[4] < 0.12 * strength:
        picture = motion_blur(picture, 1 + unit * strength * rng.uniform(0.8, 2.6), rng.uniform(0, np.pi))
    elif chance[4] < 0.60:
        picture = gaussian_blur(picture, 0.2 + unit * strength * 1.15 * rng.random() ** 1.6)
    if chance[5] < 0.33 * strength:
        # Never below about eleven rows, the least in which letters can be told apart.
        picture = low_resolution(picture, min(1 + 1.4 * strength * rng.random() ** 1.2, max(height / 11, 1.01)))
    if chance[6] < 0.5 * strength:
        picture = sensor_noise(picture, strength * (1.5 + 14 * rng.random() ** 2), rng, bool(chance[7] < 0.5))
        if chance[8] < 0.25:
            picture = gaussian_blur(picture, 0.6)
    if chance[9] < 0.45:
        picture = jpeg(picture, int(95 - 65 * strength * rng.random()) if strength <= 1 else int(rng.integers(20, 90)))
    if chance[10] < 0.06 * strength:
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
