"""Synthetic lines as entries of an LMDB, drawn by several processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import cv2
import numpy as np

from data.lines import Line, LineSource, Picture
from data.lmdb_lines import Entry

CHUNK = 64


def baked(source: LineSource, count: int, quality: int | None, workers: int, first: int = 0) -> Iterator[Entry]:
    """So many items of the source, from the first on, in order, the same for any number of workers.

    quality: of a JPEG, 1 to 100; None for a PNG.
    workers: processes; with 1 or less everything happens in this one.
    """
    if workers <= 1:
        yield from (_entry(source[index], quality) for index in range(first, first + count))
        return
    # Spawned, not forked: FreeType and OpenCV may hold threads here.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(source, quality)
    )
    try:
        waiting: deque[Future[list[Entry]]] = deque()
        for start in range(first, first + count, CHUNK):
            waiting.append(pool.submit(_chunk, range(start, min(start + CHUNK, first + count))))
            if len(waiting) > 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[LineSource, int | None] | None = None


def _start_worker(source: LineSource, quality: int | None) -> None:
    global _worker
    _worker = source, quality
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers


def _chunk(indices: range) -> list[Entry]:
    assert _worker is not None
    source, quality = _worker
    return [_entry(source[index], quality) for index in indices]


def _entry(line: Line, quality: int | None) -> Entry:
    return Entry(encode_picture(line.picture, quality), line.text, line.key, line.columns)


def encode_picture(picture: Picture, quality: int | None = None) -> bytes:
    """uint8 (height, width, 3) RGB -> a PNG, or a JPEG of this quality; with one channel where all three are equal."""
    grey = bool((picture == picture[:, :, :1]).all())
    pixels = np.ascontiguousarray(picture[:, :, 0] if grey else picture[:, :, ::-1])
    if quality is None:
        return cv2.imencode(".png", pixels)[1].tobytes()
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
