"""Whether a recogniser is right as often as it is sure: calibration error, and what is kept at a bound on errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
STEPS = 20
"""Points of a risk-coverage curve: every twentieth of the lines."""
ERRORS = (0.01, 0.05)
"""Shares of wrong readings, up to which it is told how many lines can be kept."""


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015, Guo et al. 2017), 0..1; nan without lines.

    The mean over lines of |accuracy - mean confidence| of their bin; bins of equal width over 0..1, of which a value
    on a border belongs to the lower one.
    """
    sure, correct = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if not len(sure):
        return float("nan")
    numbers = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    apart = np.bincount(numbers, correct - sure, minlength=bins)
    return float(np.abs(apart).sum() / len(sure))


def kept_accuracy(confidences: Sequence[float], right: Sequence[bool]) -> list[float]:
    """Accuracy of the surest k lines, k = 1..N (one minus risk, against coverage); of equally sure ones all or none.

    Where k falls among equally sure lines, their mean accuracy counts for each.
    """
    sure, correct = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    values, numbers = np.unique(-sure, return_inverse=True)
    means = np.bincount(numbers, correct, minlength=len(values)) / np.bincount(numbers, minlength=len(values))
    ordered = means[np.sort(numbers)]
    return [float(share) for share in np.cumsum(ordered) / np.arange(1, len(ordered) + 1)]


def confidence_figures(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any] | None:
    """Calibration error, mean confidence, accuracy of the surest twentieths, and the share kept at some errors.

    None without lines. kept: the greatest share of lines, the surest, of which at most so many are wrong.
    """
    if not len(confidences):
        return None
    shares = kept_accuracy(confidences, right)
    kept = {}
    for errors in ERRORS:
        fine = [k for k, share in enumerate(shares, 1) if 1 - share <= errors + 1e-12]
        kept[f"{errors:g}"] = max(fine, default=0) / len(shares)
    places = [max(1, round(len(shares) * step / STEPS)) for step in range(1, STEPS + 1)]
    return {
        "calibration_error": calibration_error(confidences, right),
        "mean_confidence": float(np.mean(confidences)),
        "accuracy": shares[-1],
        "kept": kept,
        "accuracy_of_surest": [shares[place - 1] for place in places],
    }
