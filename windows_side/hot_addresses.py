"""Which inputs come back at the same addresses often enough to be worth a CUDA graph that reads them there."""

from __future__ import annotations

from collections import Counter

Addresses = tuple[int, ...]

_FIRST_THRESHOLD = 8
_MOST_COUNTED = 64


class HotAddresses:
    """Counts the addresses that a set of inputs comes at.

    A caller with buffers of its own passes the same few for ever; one who allocates anew gets whatever the allocator
    has. Capturing takes as long as hundreds of copies, so each replacement of a graph doubles what the next one needs:
    over any number of calls their count grows as a logarithm.
    """

    def __init__(self) -> None:
        self._threshold = _FIRST_THRESHOLD
        self._seen: Counter[Addresses] = Counter()

    def worth_capturing(self, addresses: Addresses) -> bool:
        """Counts one call that found no graph for its addresses, and says whether to capture one now."""
        if addresses not in self._seen and len(self._seen) >= _MOST_COUNTED:
            self._seen.clear()
        self._seen[addresses] += 1
        return self._seen[addresses] >= self._threshold

    def captured(self, addresses: Addresses, *, replaced: bool) -> None:
        """Notes a capture; ``replaced`` says whether another graph had to go for it."""
        del self._seen[addresses]
        if replaced:
            self._threshold *= 2
            self._seen.clear()
