"""Writes into whole tensors, such as ``relu_`` and ``+=``, whose result replaces the tensor."""

from __future__ import annotations

import operator

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from linux_side.lowering.call_signature import PlainWayError, described, functional, is_composite, tensors_of


def written_wholly(program: ExportedProgram) -> dict[Node, list[Node]]:
    """Finds the writes of a program, and requires that each writes into a whole tensor that has no views.

    Returns:
        For each write, the nodes whose value it changes.

    Raises:
        PlainWayError: there is another kind of write, or the program does not record which values share memory.
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
        if len(memory) != 1:  # the operator returns nothing or several tensors
            raise PlainWayError
        first, *others = sharing[memory.pop()]
        if first.op == "placeholder" or not all(_is_write(other, first) for other in others):
            raise PlainWayError
        written[node] = [first, *others]
    return written


def _memory(node: Node) -> set[int]:
    return {value.untyped_storage()._cdata for value in tensors_of(node) if isinstance(value, torch.Tensor)}


def _shares_what_it_must(call: Node) -> bool:
    """Returns whether results share memory with arguments as the schema declares; in a saved program they do not."""
    if is_composite(call.target):
        return True  # it may return a copy
    pairs = zip(call.target._schema.arguments, call.args, strict=False)
    aliased = [argument for declared, argument in pairs if declared.alias_info is not None]
    return all(isinstance(argument, Node) and _memory(call) == _memory(argument) for argument in aliased)


def _is_write(node: Node, first: Node) -> bool:
    """Returns whether a call writes into the tensor of ``first``, as a whole, and into no other."""
    if node.target is operator.getitem or node.target is functional(node.target):
        return False
    arguments = node.target._schema.arguments
    writes = [argument.alias_info is not None and argument.alias_info.is_write for argument in arguments]
    value, old = node.meta["val"], first.meta["val"]
    return writes[0] and sum(writes) == 1 and isinstance(old, torch.Tensor) and described(value) == described(old)
