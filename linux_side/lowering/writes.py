"""Writes of a program into tensors, and the calls that must be decomposed together because of them.

A write into a whole tensor, such as ``relu_`` and ``+=``, is a call like others, whose result replaces the tensor.
After a write into a part of a tensor (``mask[1:] = 1``), torch makes each view of that tensor once more when the view
is read. All calls that use such a tensor form a group.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from linux_side.lowering.call_signature import PlainWayError, described, functional, is_composite, tensors_of


@dataclass(frozen=True)
class Writes:
    """The writes of a program.

    Attributes:
        whole: for each write into a whole tensor without views, the nodes whose value it changes.
        groups: for each tensor that is written in part, the calls that use its memory, in their order.
    """

    whole: dict[Node, list[Node]] = field(default_factory=dict)
    groups: list[list[Node]] = field(default_factory=list)


def writes_of(program: ExportedProgram) -> Writes:
    """Finds the writes of a program.

    Raises:
        PlainWayError: it writes into its inputs, returns a tensor that it writes in part, or does not record which
            values share memory.
    """
    calls = [node for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    writing = [node for node in calls if node.target._schema.is_mutable]
    found = Writes()
    if not writing:
        return found
    if not all(map(_shares_what_it_must, calls)):
        raise PlainWayError
    sharing: dict[int, list[Node]] = {}
    for node in program.graph.nodes:
        for place in _memory(node) if node.op != "output" else ():
            sharing.setdefault(place, []).append(node)
    in_part: dict[int, list[Node]] = {}
    for node in writing:
        memory = _memory(node)
        if len(memory) != 1:  # the operator returns nothing or several tensors
            raise PlainWayError
        place = memory.pop()
        first, *others = sharing[place]
        if first.op == "placeholder":
            raise PlainWayError
        if all(_is_write(other, first) for other in others):
            found.whole[node] = [first, *others]
        else:
            in_part[place] = sharing[place]
    for nodes in in_part.values():
        using = _using(nodes)
        found.groups.append([call for call in calls if call in using])
    if len({node for group in found.groups for node in group}) < sum(map(len, found.groups)):
        raise PlainWayError  # a call uses the memory of two groups
    return found


def _using(sharing: list[Node]) -> set[Node]:
    """Returns the calls that use some memory, from the nodes whose value is in it."""
    using = {user for node in sharing for user in (node, *node.users)}
    if not all(isinstance(node.target, torch._ops.OpOverload) and len(tensors_of(node)) < 2 for node in using):
        raise PlainWayError  # the program returns it, or it is one of several results
    return using


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
