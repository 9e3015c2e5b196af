"""Estimates the work and the peak memory of a program's run at given sizes from its graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.fx.widened import HALVES

_PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")


@dataclass(frozen=True)
class Cost:
    """The estimated cost of one run.

    Attributes:
        work: the approximate number of multiplications, for ratios between sizes of one program.
        memory: the peak memory in bytes, without the weights.
    """

    work: int
    memory: int


def cost_of(program: ExportedProgram, sizes: Mapping[Any, int], *, in_fp32: bool = False) -> Cost:
    """Estimates the cost of one run.

    Args:
        program: the program.
        sizes: a value for each symbol. Tensors whose sizes depend on anything else, such as data, are not counted.
        in_fp32: whether tensors in halves are converted to fp32 where an operator uses them.
    """
    work = live = peak = 0
    wider = {2: 4} if in_fp32 else {}
    roots, last_uses = _lifetimes(program.graph)
    held: dict[torch.fx.Node, int] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            work += _work(node, sizes)
        if roots[node] is node and not _is_weight(node, program):
            held[node] = sum(elements * wider.get(size, size) for elements, size in _tensors(node, sizes))
            live += held[node]
        peak = max(peak, live)
        for ended in last_uses.get(node, ()):
            live -= held.pop(ended, 0)
    return Cost(work, peak + (_largest_in_fp32(program) if in_fp32 else 0))


def _largest_in_fp32(program: ExportedProgram) -> int:
    """Returns twice the bytes of the largest weight in halves, in fp32: some operators copy it in another order."""
    halves = [tensor.numel() for tensor in program.state_dict.values() if tensor.dtype in HALVES]
    return 2 * torch.float32.itemsize * max(halves, default=0)


def _lifetimes(graph: torch.fx.Graph) -> tuple[dict[torch.fx.Node, torch.fx.Node], dict[Any, list[torch.fx.Node]]]:
    """Returns the node whose memory each node shares (mostly itself), and the nodes that each node is last to use."""
    roots: dict[torch.fx.Node, torch.fx.Node] = {}
    last: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        roots[node] = roots[first] if isinstance(first, torch.fx.Node) and _shares_memory(node) else node
        for used in (node, *node.all_input_nodes):
            last[roots[used]] = node
    ends: dict[Any, list[torch.fx.Node]] = {}
    for root, node in last.items():
        if root.op == "placeholder":  # the caller keeps it alive
            continue
        ends.setdefault(node, []).append(root)
    return roots, ends


def _shares_memory(node: torch.fx.Node) -> bool:
    if isinstance(node.target, torch._ops.OpOverload):
        return bool(node.target.is_view) or node.target._schema.is_mutable
    return node.op == "call_function"  # getitem


def _is_weight(node: torch.fx.Node, program: ExportedProgram) -> bool:
    return node.op == "placeholder" and node.name not in program.graph_signature.user_inputs


def _tensors(node: torch.fx.Node, sizes: Mapping[Any, int]) -> Iterator[tuple[int, int]]:
    """Yields the number of elements of each tensor that a node returns, and the bytes of an element."""
    for value in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(value, torch.Tensor):
            yield _elements(value, sizes), value.element_size()


def _work(node: torch.fx.Node, sizes: Mapping[Any, int]) -> int:
    elements = sum(count for count, _ in _tensors(node, sizes))
    name = getattr(node.target, "_opname", "")
    given = (leaf.meta.get("val") for leaf in pytree.tree_leaves(node.args) if isinstance(leaf, torch.fx.Node))
    inputs = [value for value in given if isinstance(value, torch.Tensor)]
    if name in _PRODUCTS and inputs and inputs[-1].dim():
        return elements * _size(inputs[0].shape[-1] if inputs[0].dim() else 1, sizes)
    if "conv" in name and len(inputs) > 1:
        return elements * math.prod(_size(size, sizes) for size in inputs[1].shape[1:])
    if "attention" in name and len(inputs) > 1:
        return 2 * _elements(inputs[0], sizes) * _size(inputs[1].shape[-2], sizes)
    return elements


def _elements(value: torch.Tensor, sizes: Mapping[Any, int]) -> int:
    return math.prod(_size(size, sizes) for size in value.shape)


def _size(size: int | torch.SymInt, sizes: Mapping[Any, int]) -> int:
    """Returns a size's value; 0 if it depends on more than the given sizes."""
    if isinstance(size, int):
        return size
    value = size.node.expr.subs(sizes)
    return int(value) if value.is_number else 0
