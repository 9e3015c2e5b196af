"""Keeps in PyTorch what Torch-TensorRT's converters would make a loop: no CUDA graph captures an engine with a loop.

The third such operator, ``cumsum``, is computed without one (:mod:`linux_side.backends.running_sums`).
"""

from __future__ import annotations

import torch

from linux_side.upstream import keep_in_torch

_aten = torch.ops.aten
_BAGS = {_aten.embedding_bag.default, _aten._embedding_bag.default}


def keep_loops_outside(gm: torch.fx.GraphModule) -> None:
    """Keeps in PyTorch bags of embeddings whose offsets are computed, and ``pdist`` of a number of rows that varies."""
    for node in gm.graph.nodes:
        if node.target in _BAGS and node.args[2].op != "get_attr":
            keep_in_torch(node, "TensorRT would sum the bags in a loop, which no CUDA graph captures")
        elif node.target is _aten._pdist_forward.default and _varies(node.args[0]):
            keep_in_torch(node, "TensorRT would count the pairs in a loop, which no CUDA graph captures")


def _varies(points: torch.fx.Node) -> bool:
    return isinstance(points.meta["val"].shape[0], torch.SymInt)
