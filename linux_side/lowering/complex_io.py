"""Complex inputs and outputs: TensorRT knows no complex numbers, so lowering made them pairs of real ones."""

from __future__ import annotations

import torch

from linux_side.fx.values import flat_outputs
from linux_side.upstream import ComplexIO


def keep_complex_outside(gm: torch.fx.GraphModule, complex_io: ComplexIO) -> None:
    """Gives the graph its complex inputs and outputs back, in place; they become pairs in PyTorch, at its border."""
    for node in gm.graph.find_nodes(op="placeholder"):
        if node.name in complex_io.inputs:
            _unpack(gm, node, complex_io.inputs[node.name])
    if complex_io.outputs:
        outputs = flat_outputs(gm)
        for index in complex_io.outputs:
            outputs[index] = _pack(gm, outputs[index])
        gm.graph.output_node().args = (tuple(outputs),)
    gm.recompile()


def _unpack(gm: torch.fx.GraphModule, placeholder: torch.fx.Node, dtype: torch.dtype) -> None:
    pairs = placeholder.meta["val"]
    users = list(placeholder.users)
    placeholder.meta["val"] = torch.view_as_complex(pairs).to(dtype)
    with gm.graph.inserting_before(next(node for node in gm.graph.nodes if node.op != "placeholder")):
        result = gm.graph.call_function(torch.ops.aten.view_as_real.default, (placeholder,))
        result.meta["val"] = torch.view_as_real(placeholder.meta["val"])
        if result.meta["val"].dtype != pairs.dtype:  # complex128: lowering truncated it
            result = _cast(gm, result, pairs.dtype)
    for user in users:
        user.replace_input_with(placeholder, result)


def _pack(gm: torch.fx.GraphModule, value: torch.fx.Node) -> torch.fx.Node:
    if value.meta["val"].is_complex():
        return value
    with gm.graph.inserting_before(gm.graph.output_node()):
        result = gm.graph.call_function(torch.ops.aten.view_as_complex.default, (value,))
    result.meta["val"] = torch.view_as_complex(value.meta["val"])
    return result


def _cast(gm: torch.fx.GraphModule, value: torch.fx.Node, dtype: torch.dtype) -> torch.fx.Node:
    result = gm.graph.call_function(torch.ops.aten._to_copy.default, (value,), {"dtype": dtype})
    result.meta["val"] = value.meta["val"].to(dtype)
    return result
