"""Makes transformers' sliding-window cache exportable.

Its layers store their length as a plain number, and shift the whole cache once the window is full. torch.export freezes
that branch one way or the other. Here a step of one token writes in place at its position modulo the window. Attention
does not depend on the order of keys, and the mask's offset is chosen so that a full window is attended to completely.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from linux_side.frontend.hidden_state import holders

_LAYER = ("transformers.cache_utils", "StaticSlidingWindowLayer")


@contextmanager
def ring_caches(module: torch.nn.Module) -> Iterator[None]:
    """Makes the sliding-window layers of a module's caches work as ring buffers within the block."""
    layers = [holder for holder in holders(module) if _is_sliding(type(holder))]
    kinds: list[Any] = [type(layer) for layer in layers]
    for layer, kind in zip(layers, kinds, strict=True):
        layer.__class__ = _ring(kind)
    try:
        yield
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind


def _is_sliding(kind: type) -> bool:
    return any((base.__module__, base.__qualname__) == _LAYER for base in kind.__mro__) and not hasattr(kind, "is_ring")


@cache
def _ring(kind: Any) -> Any:
    class Ring(kind):
        is_ring = True

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if key_states.shape[-2] != 1 or not self.is_initialized:
                return super().update(key_states, value_states, *args, **kwargs)
            slot = (self.cumulative_length % self.max_cache_len).reshape(1)
            self.cumulative_length.add_(1)
            self.keys.index_copy_(2, slot, key_states)
            self.values.index_copy_(2, slot, value_states)
            return self.keys, self.values

        def get_mask_sizes(self, query_length: int) -> tuple[int, Any]:
            if query_length != 1 or not self.is_initialized:
                sizes: tuple[int, Any] = super().get_mask_sizes(query_length)
                return sizes
            return self.max_cache_len, (self.cumulative_length - self.max_cache_len + 1).clamp(min=0)

        def get_seq_length(self) -> Any:
            return self.cumulative_length if self.is_initialized else 0

    return Ring
