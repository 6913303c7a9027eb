"""Lines that show the same picture are found by their hashes, whatever was done to it, and others are not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from data.duplicates import (
    HASH_BYTES,
    OTHER_LABEL_BITS,
    SAME_LABEL_BITS,
    STRETCH,
    Pair,
    Prints,
    correlation,
    difference_hash,
)
from data.lines import Picture

WORDS = ["Total", "Trial", "2.50", "2.30", "Milk", "Mild", "Invoice", "Involve", "CASH", "CART"]


def again(picture: Picture, quality: int = 80, scale: float = 1.5) -> Picture:
    """The picture enlarged and stored as JPEG."""
    larger = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    encoded = cv2.imencode(".jpg", larger, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def pairs_of(lines: list[tuple[Picture | None, str | None]], others: int = 0) -> list[tuple[int, int, bool]]:
    prints = Prints()
    for picture, label in lines:
        prints.add(picture, label)
    assert len(prints) == len(lines)
    return [(pair.first, pair.second, pair.same_label) for pair in prints.pairs(others)]


def test_a_copy_in_another_size_and_compression_is_found(draw_word: Callable[[str], Picture]) -> None:
    lines = [(draw_word(word), word) for word in WORDS]
    copies = [(again(draw_word(word)), word) for word in WORDS]
    same = [pair for pair in pairs_of([*lines, *copies]) if pair[2]]
    assert same == [(i, 10 + i, True) for i in range(10)]


def test_labels_are_compared_without_case_and_spaces(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Total")
    assert pairs_of([(picture, "Total"), (picture, "TO TAL"), (picture, "Tota1")]) == [(0, 1, True), (0, 2, False)]


def test_of_many_copies_each_is_paired_with_the_first(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Total")
    assert pairs_of([(picture, "a")] * 4) == [(0, 1, True), (0, 2, True), (0, 3, True)]


def test_plain_and_broken_pictures_are_in_no_pair() -> None:
    grey = np.full((32, 90, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(-2, 3, grey.shape)
    assert difference_hash((grey + noise).astype(np.uint8)) == bytes(HASH_BYTES)
    assert pairs_of([(grey, "a"), (grey, "a"), (None, "a"), (None, "a")]) == []


def test_lines_of_the_other_set_are_not_paired_among_themselves(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Total")
    lines: list[tuple[Picture | None, str | None]] = [(picture, "a"), (picture, "a"), (picture, "a"), (picture, "a")]
    assert pairs_of(lines, others=2) == [(0, 2, True), (0, 3, True), (2, 3, True)]


def test_pictures_of_other_aspect_are_in_no_pair(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Total")
    wider = cv2.resize(picture, None, fx=STRETCH * 1.1, fy=1)
    assert pairs_of([(picture, "a"), (np.asarray(wider, np.uint8), "a")]) == []


def test_every_planted_pair_among_random_hashes_is_found_and_no_other() -> None:
    generator = np.random.default_rng(3)
    hashes = generator.integers(0, 256, (4000, HASH_BYTES), np.uint8)
    expected = []
    for pair in range(200):
        bits = int(generator.integers(0, OTHER_LABEL_BITS + 1)) if pair % 2 else SAME_LABEL_BITS
        flipped = np.zeros(8 * HASH_BYTES, np.uint8)
        flipped[generator.choice(8 * HASH_BYTES, bits, replace=False)] = 1
        hashes[2000 + pair] = hashes[pair] ^ np.packbits(flipped)
        expected.append(Pair(pair, 2000 + pair, bits, pair % 2 == 0))
    prints = Prints()
    prints._hashes = bytearray(hashes.tobytes())
    prints._aspects.extend([3.0] * 4000)
    prints._labels.extend(range(2000))
    prints._labels.extend(i if i < 200 and i % 2 == 0 else 5000 + i for i in range(2000))
    assert prints.pairs() == expected


def test_correlation_is_that_of_grey_pixels_and_blind_to_exposure() -> None:
    generator = np.random.default_rng(1)
    grey = generator.integers(0, 120, (32, 64), np.uint8)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    other = np.repeat(generator.integers(0, 255, (32, 64, 1), np.uint8), 3, axis=2)
    assert correlation(picture, (picture * 2 + 5).astype(np.uint8)) == pytest.approx(1, abs=1e-6)
    expected = np.corrcoef(picture[:, :, 0].ravel(), other[:, :, 0].ravel())[0, 1]
    assert correlation(picture, other) == pytest.approx(expected, abs=1e-6)
    assert correlation(picture, (255 - picture).astype(np.uint8)) == pytest.approx(-1, abs=1e-6)
    assert correlation(np.zeros_like(picture), picture) == 0
