"""Finds the addresses that a caller's tensors keep, often enough to be worth a CUDA graph that works in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

# What a graph relies on, for each tensor: address, sizes, strides, dtype, and the two lazy bits. An address identifies
# the GPU too.
Places = tuple[tuple[Any, ...], ...]

_FIRST_THRESHOLD = 8
_MOST_COUNTED = 64


def places_of(leaves: Sequence[Any]) -> Places:
    """Returns what a graph relies on in the leaves of a call, or () where a leaf is not a tensor with memory."""
    try:
        return tuple([(t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_neg(), t.is_conj()) for t in leaves])
    except (AttributeError, RuntimeError):
        return ()


class StableAddresses:
    """Counts how often calls come with the same places.

    A caller with fixed buffers passes the same few places for ever. A caller that allocates for each call passes
    whatever the allocator gives. Capturing takes as long as hundreds of copies, so each replaced graph doubles the
    count that the next one needs: the number of captures grows with the logarithm of the number of calls.
    """

    def __init__(self) -> None:
        self._threshold = _FIRST_THRESHOLD
        self._seen: Counter[Hashable] = Counter()

    def worth_capturing(self, places: Hashable) -> bool:
        """Counts one call that found no graph for its places, and returns whether to capture one now.

        Args:
            places: identifies the places of the call's inputs and outputs.
        """
        if places not in self._seen and len(self._seen) >= _MOST_COUNTED:
            self._seen.clear()
        self._seen[places] += 1
        return self._seen[places] >= self._threshold

    def captured(self, places: Hashable, *, replaced: bool) -> None:
        """Records a capture; ``replaced`` says whether an older graph was released for it."""
        del self._seen[places]
        if replaced:
            self._wait_longer()

    def failed(self) -> None:
        """Records a capture that failed; a later one may succeed."""
        self._wait_longer()

    def _wait_longer(self) -> None:
        self._threshold *= 2
        self._seen.clear()
