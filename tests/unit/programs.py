"""Compares two flat programs."""

from __future__ import annotations

from typing import Any

import torch

from windows_side.execution.flat_program import FlatProgram
from windows_side.loader.flat import attribute_of


def assert_same_program(ours: FlatProgram, theirs: FlatProgram) -> None:
    """Checks that two programs are equal: every node with its arguments, every tensor, and which tensors share memory.

    Args:
        ours: read by our own reader.
        theirs: read by torch.export.
    """
    assert _described(ours.module) == _described(theirs.module)
    assert (ours.in_spec, ours.out_spec) == (theirs.in_spec, theirs.out_spec)
    assert (ours.state, ours.changed_inputs) == (theirs.state, theirs.changed_inputs)
    assert len(ours.engines) == len(theirs.engines)
    names = [str(node.target) for node in ours.module.graph.nodes if node.op == "get_attr"]
    for name in names:
        a, b = attribute_of(ours.module, name), attribute_of(theirs.module, name)
        assert (type(a), a.dtype, a.shape, a.stride()) == (type(b), b.dtype, b.shape, b.stride())
        assert a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes() if _in_numpy(a) else torch.equal(a, b)
    assert _shared(ours.module, names) == _shared(theirs.module, names)


def _in_numpy(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.float64, torch.complex64, torch.int64, torch.bool)


def _shared(module: torch.nn.Module, names: list[str]) -> list[int]:
    """Returns for each attribute the index of the first one with the same memory."""
    found = [attribute_of(module, name).untyped_storage().data_ptr() for name in names]
    return [found.index(pointer) for pointer in found]


def _described(module: torch.fx.GraphModule) -> list[Any]:
    """Returns a graph's nodes, with references by index instead of by name."""
    places = {node: f"node {index}" for index, node in enumerate(module.graph.nodes)}

    def described(value: Any) -> Any:
        return torch.fx.node.map_arg(value, lambda node: places[node])

    return [
        (
            node.op,
            node.target if node.op in ("call_function", "get_attr") else None,
            repr(described(node.args)),
            repr(described(node.kwargs)),
        )
        for node in module.graph.nodes
    ]
