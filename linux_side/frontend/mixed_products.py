"""Products of two precisions in a program that was cast.

``module.to(torch.float16)`` leaves alone what the model makes itself: ``torch.full([n], 2.0)`` stays fp32, and so does
what is computed from it. PyTorch refuses a matrix product or a convolution of fp32 and fp16 when it runs; torch.export
lets most of them pass, and TensorRT's builder then fails. Here such a product is computed in the precision asked for.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

# Whose factors PyTorch wants in one dtype, as they are called before decomposition.
_PRODUCTS = {
    "addmm", "addmv", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "convolution", "dot", "einsum", "linear", "matmul", "mm", "mv",
}  # fmt: skip


def unify_product_dtypes(dtype: torch.dtype, program: ExportedProgram) -> int:
    """Casts the factors of products of several precisions to one, in place, and the results back.

    Returns:
        How many products there were.
    """
    graph, count = program.graph, 0
    for node in list(graph.nodes):
        if _is_mixed_product(node):
            with graph.inserting_before(node):
                node.args = torch.fx.map_arg(node.args, lambda argument: _cast(graph, argument, dtype))
                node.kwargs = torch.fx.map_arg(node.kwargs, lambda argument: _cast(graph, argument, dtype))
            claimed = node.meta["val"]
            node.meta["val"] = claimed.to(dtype)
            users = list(node.users)
            with graph.inserting_after(node):
                result = _cast(graph, node, claimed.dtype)
            for user in users:
                user.replace_input_with(node, result)
            program.graph_signature.replace_all_uses(node.name, result.name)  # where it is an output
            count += 1
    if count:
        graph.lint()
        program.graph_module.recompile()
    return count


def _is_mixed_product(node: torch.fx.Node) -> bool:
    operator = node.target
    if not isinstance(operator, torch._ops.OpOverload) or operator.namespace != "aten":
        return False
    if operator._opname not in _PRODUCTS or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    return len({argument.meta["val"].dtype for argument in node.all_input_nodes if _is_float(argument)}) > 1


def _is_float(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _cast(graph: torch.fx.Graph, node: torch.fx.Node, dtype: torch.dtype) -> torch.fx.Node:
    if not _is_float(node) or node.meta["val"].dtype is dtype:
        return node
    cast = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    cast.meta["val"] = node.meta["val"].to(dtype)
    return cast
