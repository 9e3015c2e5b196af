"""Finds the operator of a partition that TensorRT does not take."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence

import torch

from toolchain.errors import BuildFailedError

Build = Callable[[torch.fx.GraphModule], object]

_HALVES = (torch.float16, torch.bfloat16)
_LOWERED = "trtcross_lowered"


class OperatorRefusedError(Exception):
    """TensorRT does not take a part of the model because of some of its operators.

    Attributes:
        nodes: the operators.
        reason: the message of TensorRT or of the converter.
        by_itself: whether each operator is refused whatever its neighbours are, as when a converter raises.
    """

    def __init__(self, nodes: Sequence[torch.fx.Node], reason: str, *, by_itself: bool) -> None:
        super().__init__(reason)
        self.nodes, self.reason, self.by_itself = list(nodes), reason, by_itself


def remember_names(gm: torch.fx.GraphModule) -> None:
    """Records each node's name in its metadata, so that copies of it in partitions can be traced back to this graph."""
    for node in gm.graph.nodes:
        node.meta[_LOWERED] = node.name


def lowered_name(node: torch.fx.Node) -> str | None:
    """Returns the name of a partition's node in the lowered graph; for an added node, that of its nearest neighbour."""
    waiting, seen = [node], {node}
    for current in waiting:
        if current.op == "call_function" and _LOWERED in current.meta:
            return str(current.meta[_LOWERED])
        fresh = [other for other in (*current.all_input_nodes, *current.users) if other not in seen]
        seen.update(fresh)
        waiting += fresh
    return None


def empty_operators(partition: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Returns the operators that take or return a tensor without elements."""
    return [n for n in operators_of(partition) if any(_is_empty(other) for other in (n, *n.all_input_nodes))]


def operators_of(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Returns the nodes of a graph that call a function, in graph order."""
    return [node for node in gm.graph.nodes if node.op == "call_function"]


def first_refused(partition: torch.fx.GraphModule, build: Build, deadline: float) -> torch.fx.Node:
    """Finds, by bisection, the first operator with which the builder no longer builds the partition.

    Args:
        partition: a partition that the builder does not build.
        build: builds an engine of a graph, or raises.
        deadline: when the search must end, by ``time.monotonic``.

    Raises:
        BuildFailedError: the time is over.
    """
    nodes = operators_of(partition)
    builds, fails = 0, len(nodes)
    while fails - builds > 1:
        if time.monotonic() > deadline:
            raise BuildFailedError(
                "TensorRT builds no engine of this part of the model, and there was no time to find the operator",
                where=f"{fails - builds} operators: {', '.join(sorted({str(n.target) for n in nodes[builds:fails]}))}",
                remedy="keep one of them in PyTorch with --torch-executed-op",
            )
        middle = (builds + fails) // 2
        if _builds(_first(partition, set(nodes[:middle])), build):
            builds = middle
        else:
            fails = middle
    return _not_only_getitem(nodes[fails - 1])


def refused_dtype(node: torch.fx.Node, build: Build) -> torch.dtype | None:
    """Returns the half dtype of an operator's tensors in which the builder builds nothing, not even ReLU; or None."""
    values = [value for n in (node, *node.all_input_nodes) if isinstance(value := n.meta.get("val"), torch.Tensor)]
    for value in values:
        if value.dtype in _HALVES:
            graph = torch.fx.Graph()
            source = graph.placeholder("x")
            result = graph.call_function(torch.ops.aten.relu.default, (source,))
            source.meta["val"] = result.meta["val"] = value.new_empty(4)
            graph.output((result,))
            if not _builds(torch.fx.GraphModule({}, graph), build):
                return value.dtype
    return None


def _builds(gm: torch.fx.GraphModule | None, build: Build) -> bool:
    if gm is None:
        return True
    try:
        build(gm)
    except Exception:  # noqa: BLE001 - the builder and converters may raise any class
        return False
    return True


def _first(partition: torch.fx.GraphModule, wanted: set[torch.fx.Node]) -> torch.fx.GraphModule | None:
    """Returns the part of a partition that consists of these operators; None if it returns no tensor."""
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in partition.graph.nodes:
        if node in wanted or (node.op in ("placeholder", "get_attr") and not wanted.isdisjoint(node.users)):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    results = [
        copies[node]
        for node in copies
        if node in wanted and isinstance(node.meta.get("val"), torch.Tensor) and not node.users.keys() <= wanted
    ]
    if not results:
        return None
    graph.output(tuple(results))
    return torch.fx.GraphModule(partition, graph)


def _not_only_getitem(node: torch.fx.Node) -> torch.fx.Node:
    """Returns the operator that a ``getitem`` belongs to; both must run in the same place."""
    return node.all_input_nodes[0] if node.target is operator.getitem else node


def _is_empty(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and any(isinstance(size, int) and size == 0 for size in value.shape)
