"""Which inputs come back at the same place often enough to be worth a CUDA graph that reads them there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

# Of each input what a graph takes for granted: address, sizes, strides, dtype, and the two lazy bits. An address tells
# the GPU too.
Places = tuple[tuple[Any, ...], ...]

_FIRST_THRESHOLD = 8
_MOST_COUNTED = 64


def places_of(leaves: Sequence[Any]) -> Places | None:
    """Where the leaves of a call lie, or None where one is no tensor with memory of its own."""
    try:
        return tuple([(t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_neg(), t.is_conj()) for t in leaves])
    except (AttributeError, RuntimeError):
        return None


class HotInputs:
    """Counts the places that inputs come at.

    A caller with buffers of its own passes the same few for ever; one who allocates anew gets whatever the allocator
    has. Capturing takes as long as hundreds of copies, so each replacement of a graph doubles what the next one needs:
    over any number of calls their count grows as a logarithm.
    """

    def __init__(self) -> None:
        self._threshold = _FIRST_THRESHOLD
        self._seen: Counter[Places] = Counter()

    def worth_capturing(self, places: Places) -> bool:
        """Counts one call that found no graph for its places, and says whether to capture one now."""
        if places not in self._seen and len(self._seen) >= _MOST_COUNTED:
            self._seen.clear()
        self._seen[places] += 1
        return self._seen[places] >= self._threshold

    def captured(self, places: Places, *, replaced: bool) -> None:
        """Notes a capture; ``replaced`` says whether another graph had to go for it."""
        del self._seen[places]
        if replaced:
            self._threshold *= 2
            self._seen.clear()
