"""What a build found out of a model beside its artifact: which operators TensorRT does not take.

A note stands beside the cache's entries, as ``KEY.json``, so that the next build of the same thing need not fail first.
It is advice: one that is damaged is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from linux_side.cache.store import BuildCache
from toolchain.strict_model import StrictModel


class KeptOperator(StrictModel):
    """An operator that stays in PyTorch because TensorRT did not take it.

    Attributes:
        node: its name in the lowered graph.
        line: of the model, as ``FILE:LINE``.
    """

    node: str
    operator: str
    line: str | None
    reason: str


_NOTE = TypeAdapter(list[KeptOperator])


class Notes:
    """The note of one key.

    Args:
        cache: None where builds are not kept.
    """

    def __init__(self, cache: BuildCache | None = None, key: str | None = None) -> None:
        self._cache, self._key = cache, key

    def read(self) -> list[KeptOperator]:
        data = self._cache.note(self._key) if self._cache and self._key else None
        try:
            return _NOTE.validate_json(data) if data else []
        except ValidationError:
            return []

    def write(self, kept: Sequence[KeptOperator]) -> None:
        """Writes the note, if the cache can be written to: a build does not fail for its sake."""
        if self._cache and self._key:
            with suppress(OSError):
                self._cache.keep_note(self._key, _NOTE.dump_json(list(kept), indent=1) + b"\n")
