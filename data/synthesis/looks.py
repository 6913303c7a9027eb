"""What pictures of text look like: scene text, documents, receipts and 1-bit scans, painted from a mask."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture
from data.synthesis.backgrounds import Backgrounds
from data.synthesis.degrade import in_colour, jpeg, ramp, smooth_noise, to_bytes, white_noise, window
from data.synthesis.geometry import Alpha, Frame
from data.synthesis.render import EM, Mask

Colour = NDArray[np.float32]
Ground = NDArray[np.float32]
"""float32 (height, width, 3), or 1 for the last where the picture is grey; 0 to 255, not yet clipped."""


def _colour(rng: np.random.Generator) -> Colour:
    """A colour of signs and print: white, black, grey, or any hue."""
    draw_kind = rng.random()
    if draw_kind < 0.22:
        return np.float32(rng.uniform(220, 255)) - rng.uniform(0, 18, 3).astype(np.float32)
    if draw_kind < 0.42:
        return np.float32(rng.uniform(0, 45)) + rng.uniform(0, 18, 3).astype(np.float32)
    if draw_kind < 0.55:
        return np.float32(rng.uniform(40, 220)) + rng.uniform(-10, 10, 3).astype(np.float32)
    hue, saturation, value = rng.random(3).tolist()
    saturation = 0.25 + 0.75 * saturation
    value = 0.2 + 0.8 * value
    sixth = hue * 6
    offsets = np.array([5.0, 3.0, 1.0]) + sixth
    k = offsets % 6
    rgb = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.asarray(rgb * 255, np.float32)


_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def _colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """(background, text) that can be told apart by luminance: mostly by 55 levels, now and then by 32."""
    floor = 32 if rng.random() < 0.08 else 55
    ground = _colour(rng)
    return ground, _ink(float(ground @ _LUMINANCE), floor, rng)


def _ink(level: float, floor: float, rng: np.random.Generator) -> Colour:
    """A colour that differs from a luminance by at least floor."""
    for _ in range(12):
        ink = _colour(rng)
        if abs(float(ink @ _LUMINANCE) - level) >= floor:
            return ink
    return np.full(3, 245 if level < 128 else 12, np.float32)


def _ground(height: int, width: int, colour: Colour, rng: np.random.Generator) -> Ground:
    """float32 (height, width, 3): one of several surfaces about one colour."""
    ground = np.empty((height, width, 3), np.float32)
    flat = ground.reshape(height, -1)
    flat[:] = np.tile(colour, width)
    kind = rng.random()
    if kind < 0.30:
        return ground
    if kind < 0.48:
        across, down = rng.uniform(-35, 35, 2)
        slope = ramp(across, width)[None, :] + ramp(down, height)[:, None]
        flat += _tinted(slope, rng.uniform(0.3, 1, 3).astype(np.float32))
    elif kind < 0.74:
        sigma = (1.5, 4.0, 10.0)[int(rng.integers(3))]
        grain = window(smooth_noise(sigma), height, width, rng)
        flat += _tinted(grain, (rng.uniform(3, 16) * rng.uniform(0.5, 1, 3)).astype(np.float32))
    elif kind < 0.82:
        grain = window(white_noise(), height, width, rng)
        ground += in_colour(grain * np.float32(rng.uniform(3, 14)))
    elif kind < 0.90:
        period, angle = rng.uniform(4, 30), rng.uniform(0, np.pi)
        x = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle))
        y = np.arange(height, dtype=np.float32) * np.float32(np.sin(angle))
        wander = window(smooth_noise(10.0), height, width, rng) * np.float32(rng.uniform(0, 1.5))
        wave = np.sin((x[None, :] + y[:, None]) * np.float32(2 * np.pi / period) + wander)
        ground += in_colour(wave * np.float32(rng.uniform(4, 16)))
    else:
        for _ in range(int(rng.integers(1, 4))):
            shade = (colour + rng.uniform(-38, 38, 3)).tolist()
            x0, x1 = rng.integers(-width // 2, width + width // 2, 2).tolist()
            y0, y1 = rng.integers(-height, 2 * height, 2).tolist()
            if rng.random() < 0.5:
                cv2.rectangle(ground, (x0, y0), (x1, y1), shade, -1)
            elif rng.random() < 0.5:
                cv2.line(ground, (x0, y0), (x1, y1), shade, int(rng.integers(1, 6)), cv2.LINE_AA)
            else:
                cv2.circle(ground, (x0, y0), int(rng.integers(4, 60)), shade, -1, cv2.LINE_AA)
    return ground


def _blend(ground: Ground, alpha: Alpha, ink: NDArray[np.float32]) -> None:
    """Lays ink (a colour or a picture) over the ground, in place."""
    height, width, channels = ground.shape
    # As rows of width x channels numbers: numpy is slow where the last axis has three.
    flat = ground.reshape(height, -1)
    over = np.tile(ink, width) if ink.ndim == 1 else np.broadcast_to(ink, ground.shape).reshape(height, -1)
    change = over - flat
    change *= alpha if channels == 1 else in_colour(alpha).reshape(height, -1)
    flat += change


def _tinted(field: NDArray[np.float32], tint: Colour) -> NDArray[np.float32]:
    """float32 (height, width) times each of three -> (height, width * 3)."""
    height, width = field.shape
    return in_colour(field).reshape(height, -1) * np.tile(tint, width)


def _surroundings(
    ground: Ground, mask: Mask, frame: Frame, ink: Colour, share: float, rng: np.random.Generator
) -> None:
    """Now and then parts of neighbouring words and lines, or a rule, at the edges; never over the text."""
    if rng.random() >= share:
        return
    height, width = mask.shape
    kind = rng.random()
    if kind < 0.35:
        down = (height + rng.uniform(0.12, 0.4) * EM) * (1 if rng.random() < 0.5 else -1)
        _blend(ground, frame.place(mask, rng.uniform(-0.5, 0.5) * width, down), ink)
    elif kind < 0.65:
        right = (width + rng.uniform(0.2, 0.4) * EM) * (1 if rng.random() < 0.5 else -1)
        _blend(ground, frame.place(mask, right, 0.0), ink)
    else:
        rule = np.full((max(2, int(rng.integers(2, 5))), width + 2 * EM), 255, np.uint8)
        down = height + rng.uniform(0.06, 0.2) * EM if rng.random() < 0.7 else -rng.uniform(0.1, 0.25) * EM - 4
        _blend(ground, frame.place(rule, -EM, down), ink)


def scene(
    alpha: Alpha,
    mask: Mask,
    frame: Frame,
    around: float,
    rng: np.random.Generator,
    backgrounds: Backgrounds | None = None,
) -> Picture:
    """Signs, covers, packages: any colours, both polarities, outlines, shadows, gradients.

    With backgrounds, half of the grounds are parts of these.
    """
    if backgrounds is not None and rng.random() < 0.5:
        ground: Ground = backgrounds.part(frame.height, frame.width, rng)
        ink = _ink(float((ground @ _LUMINANCE).mean()), 70, rng)
    else:
        colour, ink = _colours(rng)
        ground = _ground(frame.height, frame.width, colour, rng)
    _surroundings(ground, mask, frame, ink, 0.16 * around, rng)
    effect = rng.random()
    unit = frame.height / 32
    if effect < 0.14:
        reach = 1 if rng.random() < 0.7 else 2
        dx, dy = rng.uniform(-2.2, 2.2, 2) * unit
        moved = cv2.warpAffine(alpha, np.array([[1, 0, dx], [0, 1, dy]], np.float32), (frame.width, frame.height))
        dark = np.float32(rng.uniform(0.35, 0.9)) * cv2.GaussianBlur(moved, (0, 0), 0.4 + reach * rng.random())
        shade = np.zeros(3, np.float32) if ink @ _LUMINANCE > 90 or rng.random() < 0.5 else np.full(3, 255, np.float32)
        _blend(ground, dark.astype(np.float32), shade)
    elif effect < 0.25:
        size = 3 if rng.random() < 0.75 else 5
        thick = cv2.dilate(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
        level = float(ink @ _LUMINANCE)
        edge = _colour(rng)
        if abs(float(edge @ _LUMINANCE) - level) < 50:
            edge = np.full(3, 12 if level > 128 else 243, np.float32)
        _blend(ground, thick.astype(np.float32), edge)
    fill: NDArray[np.float32] = ink
    finish = rng.random()
    if finish < 0.12:
        fade = ramp(1.0, frame.height)[:, None, None] * np.float32(rng.uniform(-30, 30))
        fill = ink[None, None, :] + fade
    elif finish < 0.22:
        grain = window(smooth_noise(1.5), frame.height, frame.width, rng)
        fill = in_colour(grain * np.float32(rng.uniform(4, 16))) + ink[None, None, :]
    if rng.random() < 0.1:
        worn = window(smooth_noise(1.5), frame.height, frame.width, rng)
        alpha = alpha * np.clip(np.float32(rng.uniform(0.9, 1.6)) + np.float32(0.35) * worn, 0.25, 1)
    _blend(ground, alpha, fill)
    return to_bytes(ground)


def document(alpha: Alpha, mask: Mask, frame: Frame, around: float, rng: np.random.Generator) -> Picture:
    """Print on paper: dark on light, even, a little grain."""
    paper = np.full((frame.height, frame.width, 3), rng.uniform(215, 255), np.float32)
    paper.reshape(frame.height, -1)[:] -= np.tile(rng.uniform(0, 14, 3).astype(np.float32), frame.width)
    ink = np.float32(rng.uniform(0, 80)) + rng.uniform(0, 14, 3).astype(np.float32)
    if rng.random() < 0.4:
        grain = window(smooth_noise(1.5 if rng.random() < 0.5 else 10.0), frame.height, frame.width, rng)
        paper += in_colour(grain * np.float32(rng.uniform(1, 6)))
    if around:
        _surroundings(paper, mask, frame, ink, 0.2 * around, rng)
    if rng.random() < 0.25:
        alpha = alpha ** np.float32(rng.uniform(0.6, 1.7))
    _blend(paper, alpha, ink)
    return to_bytes(paper)


def receipt(alpha: Alpha, mask: Mask, frame: Frame, around: float, rng: np.random.Generator) -> Picture:
    """Thermal and dot-matrix print: grey, faint, patchy, on white or grey paper."""
    level = rng.uniform(195, 255)
    ink = np.float32(max(0.0, min(rng.uniform(0, 180), level - 60)))
    height, width = alpha.shape
    kind = rng.random()
    if kind < 0.12:
        period = rng.uniform(1.8, 2.6)
        y = np.sin(np.arange(height, dtype=np.float32) * np.float32(2 * np.pi / period))
        x = np.sin(np.arange(width, dtype=np.float32) * np.float32(2 * np.pi / period))
        alpha = np.clip(alpha * (1 + np.float32(0.35) * (y[:, None] + x[None, :])), 0, 1)
    elif kind < 0.4:
        patchy = window(smooth_noise(1.5), height, width, rng)
        alpha = alpha * np.clip(np.float32(rng.uniform(0.8, 1.3)) + np.float32(0.3) * patchy, 0.2, 1)
    elif kind < 0.5:
        bands = window(smooth_noise(4.0), 1, width, rng)
        alpha = alpha * np.clip(np.float32(0.9) + np.float32(0.3) * bands, 0.3, 1)
    if rng.random() < 0.3:
        alpha = np.minimum(alpha * np.float32(rng.uniform(1.1, 2.0)), 1)
    paper = np.full((height, width, 1), level, np.float32)
    if rng.random() < 0.6:
        paper += window(white_noise(), height, width, rng)[:, :, None] * np.float32(rng.uniform(1, 10))
    _surroundings(paper, mask, frame, np.array([ink], np.float32), 0.15 * around, rng)
    _blend(paper, alpha, np.array([ink], np.float32))
    picture: Picture = cv2.cvtColor(to_bytes(paper).reshape(height, width), cv2.COLOR_GRAY2RGB).astype(
        np.uint8, copy=False
    )
    if rng.random() < 0.15:
        picture = jpeg(picture, int(rng.integers(30, 80)))
    return picture


def scan(alpha: Alpha, mask: Mask, frame: Frame, around: float, rng: np.random.Generator) -> Picture:
    """Black and white only, with the ragged edges of a threshold."""
    height, width = alpha.shape
    paper = np.zeros((height, width, 1), np.float32)
    _surroundings(paper, mask, frame, np.array([1.0], np.float32), 0.25 * around, rng)
    level = np.maximum(alpha, paper[:, :, 0])
    level += window(smooth_noise(1.5), height, width, rng) * np.float32(rng.uniform(0, 0.16))
    black = level > np.float32(rng.uniform(0.3, 0.62))
    picture = np.where(black, np.uint8(0), np.uint8(255))
    if rng.random() < 0.1:
        specks = window(white_noise(), height, width, rng) > np.float32(3.0)
        picture = np.where(specks, 255 - picture, picture)
    return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
