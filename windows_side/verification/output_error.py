"""How far one output is from golden, as numbers that can be printed, drawn and kept. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from toolchain.manifest.models import Tolerance

# What fp32 sums in another order may differ by: less than that is no error to compare with.
ROUNDING = 1e-5
# More than this many times the precision's own error is a warning.
MOST_ADDED = 4.0


def doubts_of_added(errors: Sequence[OutputError]) -> list[str]:
    """Outputs whose error is much more than their precision explains."""
    return [
        f"{error.name} of sample {error.sample} is off by {error.relative_l2:.1e}, {error.added:.0f} times what its "
        f"precision alone costs ({error.precision_error:.1e}): TensorRT adds that"
        for error in errors
        if error.added is not None and error.added > MOST_ADDED
    ]


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
        """Where an error is, in bins from the first one's left edge."""
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
        precision_error: what the artifact's precision alone costs, as the build measured it on the CPU (relative L2);
            None where it is not known.
        worst_index: where the largest difference is; of a complex output the last number is 0 (real) or 1.
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
    precision_error: float | None = None

    @property
    def added(self) -> float | None:
        """How many times the precision's own error the whole error is: more than about 1 is what TensorRT adds."""
        if self.precision_error is None:
            return None
        return self.relative_l2 / max(self.precision_error, ROUNDING)

    @property
    def within(self) -> bool:
        return self.relative_l2 <= self.tolerance.relative_l2 and self.max_relative <= self.tolerance.max_relative

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, which knows no infinity and no NaN: they become null."""
        document = {
            **asdict(self),
            "tolerance": self.tolerance.model_dump(),
            "within": self.within,
            "added": self.added,
        }
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in document.items()
        }
