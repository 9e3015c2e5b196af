"""Estimates the memory of a build from its last build or from the model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from linux_side.driver.room import GUESS, expected_memory
from linux_side.matrix.spec.cells import Cell, folder_weights
from toolchain.io.atomic import read_json, write_json

# The estimate from a past build is its peak times this factor.
MARGIN = 1.1
# A killed build needed more than its peak; it is recorded with its peak times this factor.
KILLED = 1.5


@dataclass
class Memory:
    """The known memory figures of cells and models, which are stored in the run folder.

    Attributes:
        peaks: the peak of each cell's last build, in bytes.
        weights: the weights of each model (named as for ``trtcross build``), in bytes.
    """

    peaks: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Memory:
        """Reads the stored figures; an unreadable file gives none, because they can be learned again."""
        document = read_json(path) or {}
        return cls(_numbers(document.get("peaks")), _numbers(document.get("weights")))

    def save(self, path: Path) -> None:
        """Stores the figures, if the file can be written."""
        with contextlib.suppress(OSError):  # a full disk may cost the estimates but not the run
            write_json(path, {"peaks": self.peaks, "weights": self.weights})

    def learn(self, cell: Cell, peak: int, *, killed: bool = False) -> None:
        """Records the peak of a build, in bytes.

        Args:
            cell: the cell that was built.
            peak: the peak memory of its build.
            killed: whether the build was killed, so that it needed more than its peak.
        """
        self.peaks[cell.id] = max(int(peak * KILLED), self.peaks.get(cell.id, 0)) if killed else peak

    def estimate(self, cell: Cell) -> tuple[int, str]:
        """Returns the expected peak memory of a build in bytes, and a phrase for the source of the number."""
        if cell.id in self.peaks:
            return int(self.peaks[cell.id] * MARGIN), "its last build"
        if weights := self.weights_of(cell):
            return expected_memory(weights, cell.options()), "its weights"
        return GUESS, "a guess"

    def weights_of(self, cell: Cell) -> int | None:
        """Returns the bytes of a model's weights, from its files or from the stored figures; None if unknown."""
        if cell.program:
            return cell.program.stat().st_size
        if files := folder_weights(cell.base / cell.model):
            return sum(file.stat().st_size for file in files)
        return self.weights.get(cell.model)


def _numbers(value: object) -> dict[str, int]:
    entries = value.items() if isinstance(value, Mapping) else ()
    return {str(name): number for name, number in entries if type(number) is int and number > 0}
