"""How much memory a build takes: estimated from the model's weights, learned from builds that were."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from linux_side.driver.room import GUESS, thought_to_take
from linux_side.matrix.spec.cells import Cell, folder_weights
from toolchain.io.atomic import read_json, write_json

# What is kept free for what a past run did not show.
MARGIN = 1.1
# A build that was killed needed more than it had.
KILLED = 1.5


@dataclass
class Memory:
    """What is known of models and cells; kept in the run folder.

    Attributes:
        peaks: the peak of a cell's last build, in bytes.
        weights: of a model (as ``trtcross build`` is given it), in bytes.
    """

    peaks: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Memory:
        """What was kept; nothing, where it cannot be read: it can be learned again."""
        document = read_json(path) or {}
        return cls(_numbers(document.get("peaks")), _numbers(document.get("weights")))

    def save(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # a full disk costs us the estimate, not the run
            write_json(path, {"peaks": self.peaks, "weights": self.weights})

    def learn(self, cell: Cell, peak: int, *, killed: bool = False) -> None:
        self.peaks[cell.id] = max(int(peak * KILLED), self.peaks.get(cell.id, 0)) if killed else peak

    def estimate(self, cell: Cell) -> tuple[int, str]:
        """Bytes at a build's peak, and where the number comes from."""
        if cell.id in self.peaks:
            return int(self.peaks[cell.id] * MARGIN), "its last build"
        if weights := self.weights_of(cell):
            return thought_to_take(weights, cell.options()), "its weights"
        return GUESS, "a guess"

    def weights_of(self, cell: Cell) -> int | None:
        if cell.program:
            return cell.program.stat().st_size
        if files := folder_weights(cell.base / cell.model):
            return sum(file.stat().st_size for file in files)
        return self.weights.get(cell.model)


def _numbers(value: object) -> dict[str, int]:
    entries = value.items() if isinstance(value, Mapping) else ()
    return {str(name): number for name, number in entries if type(number) is int and number > 0}
