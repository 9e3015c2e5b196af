"""Notes on earlier builds: the operators that TensorRT did not accept.

A note is a file ``KEY.json`` beside the cache's entries. It lets the next build of the same model keep those operators
in PyTorch from the start. A note is advice: a damaged one is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from linux_side.cache.store import BuildCache
from toolchain.strict_model import StrictModel


class KeptOperator(StrictModel):
    """An operator that stays in PyTorch because TensorRT did not accept it.

    Attributes:
        node: the node's name in the lowered graph.
        operator: the operator's name.
        line: the line of the model that calls it, as ``FILE:LINE``; None if unknown.
        reason: why TensorRT did not accept it.
    """

    node: str
    operator: str
    line: str | None
    reason: str


_NOTE = TypeAdapter(list[KeptOperator])


class Notes:
    """The note of one key.

    Args:
        cache: where the note is; None without a cache, where nothing is read or written.
        key: the build's key; None as for ``cache``.
    """

    def __init__(self, cache: BuildCache | None = None, key: str | None = None) -> None:
        self._cache, self._key = cache, key

    def read(self) -> list[KeptOperator]:
        """Returns the operators of the note; none if there is no readable note."""
        data = self._cache.note(self._key) if self._cache and self._key else None
        try:
            return _NOTE.validate_json(data) if data else []
        except ValidationError:
            return []

    def write(self, kept: Sequence[KeptOperator]) -> None:
        """Writes the note, or does nothing if the cache cannot be written to."""
        if self._cache and self._key:
            with suppress(OSError):
                self._cache.keep_note(self._key, _NOTE.dump_json(list(kept), indent=1) + b"\n")
