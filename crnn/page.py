"""Tells a picture of a page from a picture of one line, so that a page is named and not misread."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture

MIN_HEIGHT = 200
"""Pixels: a lower picture is taken for a line whatever it shows; crops of lines are rarely higher."""
MAX_ASPECT = 2.5
"""Width over height: a wider picture is taken for a line."""
MIN_BANDS = 3
WORKING_HEIGHT = 480
"""Pixels the profile is taken at, so that its thresholds need no scale of their own."""
MIN_BAND_HEIGHT = 5
"""Pixels at WORKING_HEIGHT."""


def is_page(picture: Picture) -> bool:
    """Whether the picture, uint8 (height, width, 3), plainly shows several lines of text one below the other."""
    height, width = picture.shape[:2]
    return height > MIN_HEIGHT and width < MAX_ASPECT * height and text_bands(picture) >= MIN_BANDS


def text_bands(picture: Picture) -> int:
    """How many separated horizontal bands of ink look like lines of text.

    A band looks like text where it is low against its width, crossed by many strokes, and parted from its
    neighbours by rows that are nearly empty; so rules, stripes and the strokes of one large letter do not count.
    """
    ink = ink_of(picture)  # (rows, columns)
    amount = np.convolve(ink.sum(axis=1), np.ones(3) / 3, mode="same")  # (rows,)
    rows = amount > 0.15 * np.percentile(amount, 90)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
    return sum(_looks_like_text(ink[top:bottom]) for top, bottom in edges.reshape(-1, 2))


def ink_of(picture: Picture) -> NDArray[np.bool_]:
    """Where the picture, at WORKING_HEIGHT, is darker or lighter than its surroundings: (rows, columns)."""
    height, width = picture.shape[:2]
    size = (max(8, round(width * WORKING_HEIGHT / height)), WORKING_HEIGHT)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if height > WORKING_HEIGHT else cv2.INTER_LINEAR)
    background = cv2.medianBlur(grey, 241)  # wider than the strokes of letters as high as the picture
    contrast = cv2.absdiff(grey, background)
    threshold, ink = cv2.threshold(contrast, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(ink, dtype=np.bool_) if threshold >= 12 else np.zeros(grey.shape, dtype=np.bool_)


def _looks_like_text(band: NDArray[np.bool_]) -> bool:
    taken = np.flatnonzero(band.any(axis=0))
    if len(band) < MIN_BAND_HEIGHT or not len(taken):
        return False
    extent = int(taken[-1] - taken[0]) + 1
    strokes = (band[:, 1:] & ~band[:, :-1]).sum(axis=1)  # (rows,) how often ink begins
    return bool(extent >= 3 * len(band) and np.median(strokes) >= max(4, 0.5 * extent / len(band)))
