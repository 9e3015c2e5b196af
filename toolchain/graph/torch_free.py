"""Which operators of a graph need PyTorch: all but engines and whole numbers that are computed of sizes."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

from toolchain.graph.document import is_placeholder, nodes

SIZE = "torch.ops.aten.sym_size.int"
# Of whole numbers, by what nodes call.
ARITHMETIC: dict[str, Callable[..., int]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "torch.sym_max": max,
    "torch.sym_min": min,
}


def operators_for_torch(document: dict[str, Any]) -> Counter[str]:
    """The operators of a parsed graph that only PyTorch runs, and how often each is there."""
    others = (str(node.get("target")) for node in nodes(document) if not is_placeholder(node))
    return Counter(name.removeprefix("torch.ops.") for name in others if name != SIZE and name not in ARITHMETIC)


def listed(operators: Counter[str]) -> str:
    """Operators as people read them."""
    return ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in sorted(operators.items()))
