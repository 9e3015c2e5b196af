"""How far one output is from golden, as numbers that can be printed, drawn and kept. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from toolchain.manifest.models import Tolerance


@dataclass(frozen=True)
class ErrorHistogram:
    """An output's elements by their error ``|got - want| / max |want|``.

    Attributes:
        equal: elements without an error.
        counts: elements in each of :data:`BINS` bins, half a decade wide from 1e-10 on; the first bin also holds what
            is smaller, the last what is larger.
        not_finite: elements that are NaN or infinite on one side alone, or infinities of different sign.
    """

    equal: int
    counts: tuple[int, ...]
    not_finite: int

    LOWEST = -10  # the first bin's left edge, as a power of ten
    BINS_PER_DECADE = 2
    BINS = 22

    @classmethod
    def edge(cls, index: int) -> float:
        """The left edge of a bin."""
        return float(10 ** (cls.LOWEST + index / cls.BINS_PER_DECADE))

    @classmethod
    def position(cls, error: float) -> float:
        """Where an error lies, in bins from the first one's left edge."""
        if error <= 0:
            return 0.0
        place = (math.log10(error) - cls.LOWEST) * cls.BINS_PER_DECADE if math.isfinite(error) else math.inf
        return min(max(place, 0.0), float(cls.BINS))


@dataclass(frozen=True)
class OutputError:
    """How far one output is from golden.

    Attributes:
        relative_l2: ``||got - want|| / ||want||``.
        max_relative: ``max |got - want| / max |want|``.
        cosine: of the two, flattened.
        worst_index: where the largest difference lies; of a complex output the last number is 0 (real) or 1.
    """

    sample: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    relative_l2: float
    max_absolute: float
    max_relative: float
    cosine: float
    worst_index: tuple[int, ...]
    worst_got: float
    worst_want: float
    tolerance: Tolerance
    histogram: ErrorHistogram

    @property
    def within(self) -> bool:
        return self.relative_l2 <= self.tolerance.relative_l2 and self.max_relative <= self.tolerance.max_relative

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, which knows no infinity and no NaN: they become null."""
        document = {**asdict(self), "tolerance": self.tolerance.model_dump(), "within": self.within}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in document.items()
        }
