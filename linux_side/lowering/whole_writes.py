"""Writes into whole tensors, as of ``relu_`` and ``+=``: calls like others, whose result stands for the tensor."""

from __future__ import annotations

import operator

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from linux_side.lowering.call_signature import PlainWayError, described, functional, is_composite, tensors_of


def written_wholly(program: ExportedProgram) -> dict[Node, list[Node]]:
    """The writes into a whole tensor of which there is no view, as of ``relu_``: for each the nodes that it changes.

    Raises:
        PlainWayError: the program writes otherwise too, or does not tell which values share memory.
    """
    calls = [node for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    writes = [node for node in calls if node.target._schema.is_mutable]
    if not writes:
        return {}
    if not all(map(_shares_what_it_must, calls)):
        raise PlainWayError
    sharing: dict[int, list[Node]] = {}
    for node in program.graph.nodes:
        for place in _memory(node) if node.op != "output" else ():
            sharing.setdefault(place, []).append(node)
    written: dict[Node, list[Node]] = {}
    for node in writes:
        memory = _memory(node)
        if len(memory) != 1:  # of an operator that gives nothing, or several tensors
            raise PlainWayError
        first, *others = sharing[memory.pop()]
        if first.op == "placeholder" or not all(_is_write(other, first) for other in others):
            raise PlainWayError
        written[node] = [first, *others]
    return written


def _memory(node: Node) -> set[int]:
    return {value.untyped_storage()._cdata for value in tensors_of(node) if isinstance(value, torch.Tensor)}


def _shares_what_it_must(call: Node) -> bool:
    """Whether a call's result is in its argument's memory where the operator says so: in a saved program none is."""
    if is_composite(call.target):
        return True  # it may copy
    pairs = zip(call.target._schema.arguments, call.args, strict=False)
    aliased = [argument for declared, argument in pairs if declared.alias_info is not None]
    return all(isinstance(argument, Node) and _memory(call) == _memory(argument) for argument in aliased)


def _is_write(node: Node, first: Node) -> bool:
    """Whether a call writes into a tensor that is ``first``, and into no other."""
    if node.target is operator.getitem or node.target is functional(node.target):
        return False
    arguments = node.target._schema.arguments
    writes = [argument.alias_info is not None and argument.alias_info.is_write for argument in arguments]
    value, old = node.meta["val"], first.meta["val"]
    return writes[0] and sum(writes) == 1 and isinstance(old, torch.Tensor) and described(value) == described(old)
