"""Measures how far an array is from golden, by numpy alone, so that every runtime is compared alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toolchain.manifest.models import Tolerance
from windows_side.verification.output_error import ErrorHistogram, OutputError

Array = np.ndarray[Any, Any]


def compare_arrays(
    got: Array, want: Array, tolerance: Tolerance, *, name: str, dtype: str, sample: int = 0
) -> OutputError:
    """Compares two arrays of the same shape in fp64.

    Values that are equal, both NaN or the same infinity have no error. Where only one of the two is finite, or both are
    different infinities, the error is infinite.

    Args:
        got: what the artifact returned.
        want: the golden output.
        name: the output's name.
        dtype: the output's dtype, as the manifest names it.
        sample: the golden sample's number.
    """
    shape = want.shape
    a, b = _doubles(got), _doubles(want)
    with np.errstate(invalid="ignore", over="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        difference = np.where(same, 0.0, np.where(finite, np.abs(a - b), math.inf))
    scale = np.where(finite, b, 0.0)
    worst = _index_of_largest(difference)
    peak, largest = _largest(difference), _largest(np.abs(scale))
    return OutputError(
        sample=sample,
        name=name,
        dtype=dtype,
        shape=tuple(shape),
        relative_l2=_ratio(_norm(difference), _norm(scale)),
        max_absolute=peak,
        max_relative=_ratio(peak, largest),
        cosine=_cosine(np.where(finite, a, 0.0), scale) if peak < math.inf else math.nan,
        worst_index=worst,
        worst_got=float(a[worst]) if a.size else 0.0,
        worst_want=float(b[worst]) if b.size else 0.0,
        tolerance=tolerance,
        histogram=_histogram(difference / (largest or 1.0)),
    )


def _histogram(errors: Array) -> ErrorHistogram:
    counted = errors[(errors > 0) & np.isfinite(errors)]
    places = (np.log10(counted) - ErrorHistogram.LOWEST) * ErrorHistogram.BINS_PER_DECADE
    bins = np.clip(np.floor(places), 0, ErrorHistogram.BINS - 1).astype(np.int64)
    counts = np.bincount(bins, minlength=ErrorHistogram.BINS).tolist()
    return ErrorHistogram(int((errors == 0).sum()), tuple(counts), int(np.isinf(errors).sum()))


def _index_of_largest(value: Array) -> tuple[int, ...]:
    return tuple(int(place) for place in np.unravel_index(int(np.argmax(value)), value.shape)) if value.size else ()


def _largest(value: Array) -> float:
    return float(value.max()) if value.size else 0.0


def _norm(value: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(value.ravel()))


def _cosine(a: Array, b: Array) -> float:
    """Returns the cosine of two arrays. Where one has length zero it is 1 if both are equal, else 0."""
    lengths = _norm(a) * _norm(b)
    return float(a.ravel() @ b.ravel()) / lengths if lengths else float(np.array_equal(a, b))


def _doubles(value: Array) -> Array:
    """Returns the value in fp64; complex numbers become pairs in a new last dimension."""
    if np.iscomplexobj(value):
        return np.stack([value.real, value.imag], axis=-1).astype(np.float64)
    return value.astype(np.float64)


def _ratio(error: float, scale: float) -> float:
    return 0.0 if error == 0 else error / scale if scale else math.inf
