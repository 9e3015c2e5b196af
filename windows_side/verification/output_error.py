"""The error of one output, as numbers that can be printed, drawn and kept. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from toolchain.manifest.models import Tolerance
from windows_side.kernel_choice import KINDS, KernelChoice

# fp32 sums in a different order may differ by this much, so a smaller error of the precision is counted as this one.
ROUNDING = 1e-5
# An output's error above this many times the precision's own error gives a warning.
MOST_ADDED = 4.0


def doubts_of_added(errors: Sequence[OutputError]) -> list[str]:
    """Returns a warning for each output whose error is much larger than its precision explains."""
    return [
        f"{error.title} of sample {error.sample} is off by {error.relative_l2:.1e}, {error.added:.0f} times what its "
        f"precision alone costs ({error.precision_error:.1e}): TensorRT adds that"
        for error in errors
        if error.added is not None and error.added > MOST_ADDED
    ]


@dataclass(frozen=True)
class ErrorHistogram:
    """An output's elements by their error ``|got - want| / max |want|``.

    Attributes:
        equal: the number of elements without an error.
        counts: the number of elements in each of :data:`BINS` bins, half a decade wide from 1e-10 on. The first bin
            also has smaller errors, and the last one larger errors.
        not_finite: the number of elements that are NaN or infinite on one side alone, or infinities of different sign.
    """

    equal: int
    counts: tuple[int, ...]
    not_finite: int

    LOWEST = -10  # the first bin's left edge, as a power of ten
    BINS_PER_DECADE = 2
    BINS = 22

    @classmethod
    def edge(cls, index: int) -> float:
        """Returns the left edge of a bin."""
        return float(10 ** (cls.LOWEST + index / cls.BINS_PER_DECADE))

    @classmethod
    def position(cls, error: float) -> float:
        """Returns the position of an error, in bins from the first one's left edge."""
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
        cosine: the cosine of the two outputs, flattened.
        precision_error: the relative L2 error that the artifact's precision alone costs, which the build measured on
            the CPU; None where it is not known.
        kernels: which kernels computed it where sizes vary, of :mod:`windows_side.kernel_choice`; None where they are
            the same ones.
        worst_index: the index of the largest difference. For a complex output a last number is added: 0 for the real
            part, 1 for the imaginary part.
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
    kernels: KernelChoice | None = None

    @property
    def added(self) -> float | None:
        """The whole error divided by the precision's own error; what exceeds about 1 was added by TensorRT."""
        if self.precision_error is None:
            return None
        return self.relative_l2 / max(self.precision_error, ROUNDING)

    @property
    def title(self) -> str:
        """The output's name, and the kernels that computed it."""
        return f"{self.name} ({KINDS[self.kernels]})" if self.kernels else self.name

    @property
    def within(self) -> bool:
        return self.relative_l2 <= self.tolerance.relative_l2 and self.max_relative <= self.tolerance.max_relative

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON. It has neither infinity nor NaN, so both become null."""
        document = {
            **asdict(self),
            "tolerance": self.tolerance.model_dump(),
            "within": self.within,
            "added": self.added,
            "title": self.title,
        }
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in document.items()
        }
