"""Attention where TensorRT's layer and PyTorch differ.

A causal mask is aligned at the upper left in PyTorch, and upstream aligns it at the lower right: where there are more keys
than queries that is another mask. A row that a mask shuts out entirely is zero in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {}
