"""Complex numbers and Fourier transforms: TensorRT has neither, so they stay in PyTorch whole, in fp32."""

from __future__ import annotations

import torch

from linux_side.fx.values import is_complex
from linux_side.upstream import keep_in_torch


def keep_complex_in_torch(gm: torch.fx.GraphModule) -> None:
    """Marks, in a lowered graph, the operators that give or take complex numbers."""
    for node in gm.graph.nodes:
        if node.op == "call_function" and (is_complex(node) or any(map(is_complex, node.all_input_nodes))):
            keep_in_torch(node, "it computes with complex numbers")
