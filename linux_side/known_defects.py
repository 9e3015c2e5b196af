"""Patterns that TensorRT-RTX itself was seen to compute wrongly, so that whoever builds one is told.

Seen with TensorRT-RTX 1.6.1.120 on an NVIDIA H200 (sm_90, not on its list), in fp32, with and without TF32, and in
fp16, and just so with an engine that Torch-TensorRT built on that GPU: a linear layer with a bias, then ReLU or GELU,
then a product with a constant. The bias is left out. Sigmoid in ReLU's place, a sum in the product's, or a convolution
in the linear layer's gave right numbers; docs/benchmarks/gpu.md has the table. Nobody saw whether listed GPUs do so
too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

_ACTIVATIONS = {torch.ops.aten.relu.default, torch.ops.aten.gelu.default}
_PRODUCTS = {torch.ops.aten.mul.Tensor, torch.ops.aten.mul.Scalar, torch.ops.aten.div.Tensor, torch.ops.aten.div.Scalar}


def doubts(partition: torch.fx.GraphModule) -> list[str]:
    """A warning for each place of a partition that an engine may compute wrongly."""
    return [
        f"TensorRT-RTX 1.6 was seen to leave out a bias where a linear layer ({linear.name}) is followed by "
        f"{activation.name} and by a product with a constant ({product.name}): compare numbers on your GPU with "
        f"`trtcross verify`, or keep the product in PyTorch with --torch-executed-op {product.target}"
        for linear, activation, product in _scaled_activations(partition)
    ]


def _scaled_activations(
    partition: torch.fx.GraphModule,
) -> Iterator[tuple[torch.fx.Node, torch.fx.Node, torch.fx.Node]]:
    for activation in partition.graph.nodes:
        if activation.target not in _ACTIVATIONS or not _is_biased_linear(activation.args[0]):
            continue
        for product in activation.users:
            if product.target in _PRODUCTS and any(_is_constant(argument) for argument in product.args):
                yield activation.args[0], activation, product


def _is_biased_linear(node: Any) -> bool:
    if not isinstance(node, torch.fx.Node):
        return False
    linear = node.target is torch.ops.aten.linear.default and len(node.args) > 2 and node.args[2] is not None
    return linear or node.target is torch.ops.aten.addmm.default


def _is_constant(argument: Any) -> bool:
    return isinstance(argument, (int, float)) or (isinstance(argument, torch.fx.Node) and argument.op == "get_attr")
