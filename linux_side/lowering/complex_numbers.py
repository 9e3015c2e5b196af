"""Keeps complex numbers and Fourier transforms in PyTorch, because TensorRT has neither."""

from __future__ import annotations

import torch

from linux_side.fx.values import is_complex
from linux_side.upstream import keep_in_torch


def keep_complex_in_torch(gm: torch.fx.GraphModule) -> None:
    """Keeps in PyTorch the operators of a lowered graph that take or return complex numbers."""
    for node in gm.graph.nodes:
        if node.op == "call_function" and (is_complex(node) or any(map(is_complex, node.all_input_nodes))):
            keep_in_torch(node, "it computes with complex numbers")
