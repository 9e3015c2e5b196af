"""Replaces engine submodules by operator calls in the parent graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from linux_side.exporter.engine_module import CompiledEngine, compiled_engine
from toolchain.errors import BuildFailedError

# Makes the call of an engine: (graph module, input nodes, engine) -> the call's node, whose value is a list of tensors.
EngineCall = Callable[[torch.fx.GraphModule, Sequence[torch.fx.Node], CompiledEngine], torch.fx.Node]


def inline_engines(gm: torch.fx.GraphModule, call: EngineCall) -> list[CompiledEngine]:
    """Replaces each call of an engine submodule by an operator call that ``call`` makes.

    A single output gets a ``getitem``. Several outputs keep the partitioner's, each with the value at its index.

    Returns:
        The engines in graph order.
    """
    engines = []
    for node in list(gm.graph.nodes):
        engine = compiled_engine(gm.get_submodule(node.target)) if node.op == "call_module" else None
        if engine is not None:
            engines.append(engine)
            _inline(gm, node, engine, call)
    return engines


def _inline(gm: torch.fx.GraphModule, node: torch.fx.Node, engine: CompiledEngine, call: EngineCall) -> None:
    values = _output_values(node)
    with gm.graph.inserting_before(node):
        inputs = [_as_tensor(gm, argument) for argument in node.args]
        result = call(gm, inputs, engine)
        result.meta["val"] = values
        if len(values) == 1:
            only = gm.graph.call_function(operator.getitem, (result, 0))
            only.meta["val"] = values[0]
            node.replace_all_uses_with(only)
    node.replace_all_uses_with(result)
    for user in list(result.users):
        user.meta["val"] = values[user.args[1]]
    gm.graph.erase_node(node)


def _output_values(node: torch.fx.Node) -> list[Any]:
    """Returns the value of each of the engine's outputs; a bare tensor is one output."""
    value = node.meta.get("val")
    if value is None:
        raise BuildFailedError(
            "the compiled graph does not record what this engine returns",
            where=f"node {node.name}",
            remedy="give export() the module as torch_tensorrt.dynamo compiled it",
        )
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as_tensor(gm: torch.fx.GraphModule, argument: Any) -> Any:
    """Returns an engine's argument as a tensor: a number becomes a CPU tensor of one element (int64 or float32)."""
    value = argument.meta.get("val") if isinstance(argument, torch.fx.Node) else argument
    if isinstance(value, torch.Tensor):
        return argument
    dtype = torch.float32 if isinstance(value, (float, torch.SymFloat)) else torch.int64
    node = gm.graph.call_function(
        torch.ops.aten.full.default, ([1], argument), {"dtype": dtype, "device": torch.device("cpu")}
    )
    node.meta["val"] = _fake_mode(gm).from_tensor(torch.zeros(1, dtype=dtype))
    return node


def _fake_mode(gm: torch.fx.GraphModule) -> Any:
    from torch._guards import detect_fake_mode

    return detect_fake_mode([node.meta.get("val") for node in gm.graph.nodes if node.op == "placeholder"])
