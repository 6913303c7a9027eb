"""CIFAR-10 as it is stored for the benchmarks: mosaics of 50 x 50 pictures, JPEG at 37 dB beside the originals."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

SIDE, ACROSS = 32, 50
"""Pixels of a picture's side, and pictures of a mosaic's."""


def read_cifar10(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(N, 32, 32, 3) in RGB and (N,), 0 to 9, of a zip with mosaic_000.jpg and so on and labels.txt.

    FileNotFoundError where it is not there; ValueError where pictures and labels are not as many.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the folder of the data sets with --data")
    with zipfile.ZipFile(path) as archive:
        labels = np.array(archive.read("labels.txt").split(), dtype=np.int64)
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        files = [np.frombuffer(archive.read(name), np.uint8) for name in names]
    tiles = []
    for name, file in zip(names, files, strict=True):
        mosaic = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
        if mosaic is None:
            raise ValueError(f"{path}: {name} is no picture; fetch the file again")
        tiles.append(mosaic.reshape(ACROSS, SIDE, ACROSS, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3))
    pictures = np.concatenate(tiles).astype(np.uint8)
    if len(pictures) != len(labels):
        raise ValueError(f"{path} holds {len(pictures)} pictures and {len(labels)} labels; fetch it again")
    return pictures, labels
