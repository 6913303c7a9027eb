"""Where a drawn text lies in its picture: bends, warps, margins, and the picture's size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import required_columns
from data.picture import InputSpec
from data.synthesis.degrade import USUAL, Degradations
from data.synthesis.render import Drawn, Mask

Alpha = NDArray[np.float32]

_PIXELS_PER_COLUMN = 4
_WIDEST = 2500
_SAME_SHAPES = frozenset("cCkKoO0pPsSuUvVwWxXzZ .,'-\"*:;_~")
"""Characters of which one case is the other at another size, and marks that say nothing about size."""


DEEPEST_CUT = 0.07
"""Share of the text's height that a crop takes away at most; times the factor of crop."""


@dataclass(frozen=True)
class Looseness:
    """How freely a kind of picture is laid out; every figure grows with the strength of the degradations.

    stretch: standard deviation of the logarithm of the width's stretch.
    warped: share of pictures whose text is turned, slanted or foreshortened.
    turn: standard deviation of the rotation, radians.
    slant: standard deviation of the slant, as a share of the height.
    foreshortened: share of the warped pictures whose ends differ in height.
    line_box: share of pictures cut by the line's height and not by the ink.
    margin: largest margin, as a share of the text's height.
    """

    stretch: float
    warped: float
    turn: float
    slant: float
    foreshortened: float
    line_box: float
    margin: float


@dataclass(frozen=True)
class Frame:
    """How a mask is laid into a picture: homography from mask pixels to picture pixels, and the picture's size."""

    matrix: NDArray[np.float64]
    height: int
    width: int

    def place(self, mask: Mask, right: float = 0.0, down: float = 0.0) -> Alpha:
        """float32 (height, width), 0 to 1: the mask, moved by so many mask pixels, in the picture."""
        matrix = self.matrix
        if right or down:
            matrix = matrix @ np.array([[1, 0, right], [0, 1, down], [0, 0, 1]], np.float64)
        placed = cv2.warpPerspective(mask, matrix, (self.width, self.height), flags=cv2.INTER_LINEAR)
        return placed.astype(np.float32) * np.float32(1 / 255)


def bent(mask: Mask, rng: np.random.Generator, factor: float = 1.0) -> Mask:
    """The mask on an arc: columns moved up or down along a parabola, by factor times the usual rise."""
    height, width = mask.shape
    rise = min(0.5 * height, 0.12 * width) * rng.uniform(0.3, 1.0) * factor
    room = int(np.ceil(rise))
    x = np.arange(width, dtype=np.float32)
    curve = np.float32(rise) * (2 * x / width - 1) ** 2
    if rng.random() < 0.3:
        curve = np.float32(rise) - curve
    rows = np.arange(height + room, dtype=np.float32)[:, None] - curve[None, :]
    places = np.broadcast_to(x, rows.shape).astype(np.float32)
    return cv2.remap(mask, places, rows.astype(np.float32), cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def frame_around(
    text: str,
    drawn: Drawn,
    mask: Mask,
    looseness: Looseness,
    strength: float,
    rng: np.random.Generator,
    of: Degradations = USUAL,
) -> Frame:
    """The box of the text is warped, margins are laid around it, and all is scaled to the picture's height.

    mask: drawn.mask, or what has become of it. The picture has at least one column more than CTC needs for the text,
    at the natural width of the default InputSpec.
    """
    ink_height, ink_width = mask.shape
    top, bottom = 0.0, float(ink_height)
    line_height = drawn.line_bottom - drawn.line_top
    # Documents are cut by lines, scene words by their ink; a lone hyphen or full stop keeps its place in the line.
    # So does a text whose case shows by its height alone.
    if ink_height < 0.42 * line_height or _SAME_SHAPES.issuperset(text) or rng.random() < looseness.line_box:
        top, bottom = min(top, drawn.line_top), max(bottom, drawn.line_bottom)
    height, width = bottom - top, float(ink_width)
    stretch = float(np.exp(rng.normal(0, looseness.stretch) * min(1.0, strength)))
    matrix = np.array([[stretch, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
    width *= stretch
    corners = np.array([[0, top], [width, top], [width, bottom], [0, bottom]], np.float64)
    if strength > 0 and rng.random() < looseness.warped * of.warp:
        strength *= of.warp
        moved = corners.copy()
        middle = corners.mean(axis=0)
        angle = rng.normal(0, looseness.turn) * strength
        limit = 0.45 * height / max(width, height)
        angle = float(np.clip(angle, -limit, limit))
        moved[:, 0] += looseness.slant * strength * rng.normal() * 0.6 * (middle[1] - corners[:, 1])
        if looseness.foreshortened and rng.random() < looseness.foreshortened:
            squeeze = rng.uniform(-0.16, 0.16) * strength
            moved[1:3, 1] += (middle[1] - corners[1:3, 1]) * squeeze * 2
            moved[:, :] += rng.normal(0, 0.03 * height * strength, (4, 2))
        cos, sin = np.cos(angle), np.sin(angle)
        moved = (moved - middle) @ np.array([[cos, sin], [-sin, cos]])
        warped = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
        matrix = warped @ matrix
        corners = moved
    low, high = corners.min(axis=0), corners.max(axis=0)
    extent = high - low
    above, below, left, right = rng.random(4) ** 1.5 * looseness.margin
    if rng.random() < 0.12 * of.crop:
        cut = DEEPEST_CUT * of.crop
        above, below = (above, -cut * rng.random()) if rng.random() < 0.5 else (-cut * rng.random(), below)
    left, right = left * 1.2, right * 1.2
    low = low - np.array([left, above]) * extent[1]
    high = high + np.array([right, below]) * extent[1]
    extent = high - low
    tall = 32 if rng.random() < 0.6 else int(rng.integers(24, 49))
    spec = InputSpec()
    least = max(_PIXELS_PER_COLUMN * (required_columns(text) + 1) + spec.width_multiple // 2, 5.5 * len(text))
    wide = extent[0] / extent[1] * tall
    wide = max(wide, least * tall / spec.height, 4.0)
    if wide > _WIDEST:
        tall, wide = max(16, int(tall * _WIDEST / wide)), _WIDEST
    pixels = round(wide) + 1
    across, down = pixels / extent[0], tall / extent[1]
    scale = np.array([[across, 0, -low[0] * across], [0, down, -low[1] * down], [0, 0, 1]])
    return Frame(scale @ matrix, tall, pixels)
