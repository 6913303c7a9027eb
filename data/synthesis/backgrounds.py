"""A folder of pictures as backgrounds of synthetic scene text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture
from data.picture import decode_picture

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_LONGEST = 800
"""Pixels of the longer side that are kept of a picture: a line shows a small part of it."""
_KEPT = 64
_SPREAD = 36.0
"""Greatest standard deviation of luminance behind a text, so that it can be read everywhere."""


class Backgrounds:
    """Parts of the pictures of a folder and its subfolders.

    Pictures are opened when they are first used, and the last 64 kept. The same folder gives the same parts on every
    machine. Raises FileNotFoundError where the folder is missing or holds no picture; part raises ValueError naming a
    picture that cannot be decoded.
    """

    def __init__(self, folder: Path) -> None:
        files = [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES]
        # By their names below the folder, so that their order does not depend on where it lies.
        self.files = tuple(sorted(map(str, files), key=lambda name: Path(name).relative_to(folder).as_posix()))
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no picture; give --backgrounds a folder of JPEG or PNG files")

    def part(self, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """float32 (height, width, 3), 0 to 255: a window of one picture, mirrored now and then."""
        picture = _opened(self.files[int(rng.integers(len(self.files)))])
        tall = min(height * rng.uniform(0.7, 4.0), picture.shape[0], picture.shape[1] * height / width)
        rows, columns = max(2, int(tall)), max(2, min(picture.shape[1], int(tall * width / height)))
        y = int(rng.integers(picture.shape[0] - rows + 1))
        x = int(rng.integers(picture.shape[1] - columns + 1))
        window = picture[y : y + rows, x : x + columns]
        if rng.random() < 0.5:
            window = window[:, ::-1]
        window = np.ascontiguousarray(window)
        fit = cv2.INTER_AREA if rows > height else cv2.INTER_LINEAR
        part = cv2.resize(window, (width, height), interpolation=fit).astype(np.float32)
        spread = float(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).std())
        if spread > _SPREAD:
            middle = part.mean(axis=(0, 1))
            part = (part - middle) * np.float32(_SPREAD / spread) + middle
        return part


@lru_cache(_KEPT)
def _opened(file: str) -> Picture:
    picture = decode_picture(Path(file).read_bytes(), file)
    shrink = _LONGEST / max(picture.shape[:2])
    if shrink < 1:
        size = max(2, round(picture.shape[1] * shrink)), max(2, round(picture.shape[0] * shrink))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if min(picture.shape[:2]) < 2:
        raise ValueError(f"the background {file} is {picture.shape[1]} x {picture.shape[0]} pixels; remove it")
    return picture
