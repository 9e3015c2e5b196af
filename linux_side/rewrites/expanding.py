"""Marks the dimensions that an ``expand`` does not change.

Upstream's converter wrongly broadcasts a dimension if TensorRT knows its size and the requested size is computed. For
``x[:, :16]`` TensorRT knows the size 16 and the program requests ``min(16, n)``: every row would repeat the first one.
"""

from __future__ import annotations

from typing import Any

import torch

_EXPAND = torch.ops.aten.expand.default
_KEPT = -1


def keep_expanded_dimensions(gm: torch.fx.GraphModule) -> None:
    """Replaces, in place, requested sizes that the tensor has already by -1, which keeps a dimension."""
    for node in gm.graph.find_nodes(op="call_function", target=_EXPAND):
        source, asked = node.args[0], list(node.args[1])
        sizes = source.meta["val"].shape
        new = len(asked) - len(sizes)
        for dim, (size, wanted) in enumerate(zip(sizes, node.meta["val"].shape[new:], strict=True), new):
            if isinstance(asked[dim], torch.fx.Node) and _same(size, wanted):
                asked[dim] = _KEPT
        node.args = (source, asked, *node.args[2:])
    gm.graph.eliminate_dead_code()
    gm.recompile()


def _same(size: Any, wanted: Any) -> bool:
    """Returns whether both are the same symbolic expression."""
    if isinstance(size, torch.SymInt) and isinstance(wanted, torch.SymInt):
        return bool(size.node.expr == wanted.node.expr)
    return False
