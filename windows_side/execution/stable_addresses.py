"""Which places a call's tensors keep coming back to, often enough to be worth a CUDA graph that works right there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

# Of each tensor what a graph takes for granted: address, sizes, strides, dtype, and the two lazy bits. An address tells
# the GPU too.
Places = tuple[tuple[Any, ...], ...]

_FIRST_THRESHOLD = 8
_MOST_COUNTED = 64


def places_of(leaves: Sequence[Any]) -> Places:
    """Where the leaves of a call lie, or nothing where one is no tensor with memory of its own."""
    try:
        return tuple([(t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_neg(), t.is_conj()) for t in leaves])
    except (AttributeError, RuntimeError):
        return ()


class StableAddresses:
    """Counts the places that calls come with.

    A caller with buffers of its own passes the same few for ever; one who allocates anew gets whatever the allocator
    has. Capturing takes as long as hundreds of copies, so each replacement of a graph doubles what the next one needs:
    over any number of calls their count grows as a logarithm.
    """

    def __init__(self) -> None:
        self._threshold = _FIRST_THRESHOLD
        self._seen: Counter[Hashable] = Counter()

    def worth_capturing(self, places: Hashable) -> bool:
        """Counts one call that found no graph for its places, and says whether to capture one now.

        Args:
            places: those of its inputs and outputs, in any form that tells them apart.
        """
        if places not in self._seen and len(self._seen) >= _MOST_COUNTED:
            self._seen.clear()
        self._seen[places] += 1
        return self._seen[places] >= self._threshold

    def captured(self, places: Hashable, *, replaced: bool) -> None:
        """Notes a capture; ``replaced`` says whether another graph had to go for it."""
        del self._seen[places]
        if replaced:
            self._wait_longer()

    def failed(self) -> None:
        """Notes a capture that did not succeed: another try may."""
        self._wait_longer()

    def _wait_longer(self) -> None:
        self._threshold *= 2
        self._seen.clear()
