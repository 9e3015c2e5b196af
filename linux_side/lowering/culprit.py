"""Which operator of a partition it is that TensorRT does not take."""

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
    """TensorRT does not take a part of the model, because of some of its operators.

    Attributes:
        nodes: the operators.
        reason: in TensorRT's or the converter's own words.
        by_itself: whether each operator is refused whatever stands beside it, as where a converter raises.
    """

    def __init__(self, nodes: Sequence[torch.fx.Node], reason: str, *, by_itself: bool) -> None:
        super().__init__(reason)
        self.nodes, self.reason, self.by_itself = list(nodes), reason, by_itself


def remember_names(gm: torch.fx.GraphModule) -> None:
    """Lets the nodes of partitions, which are copied and rewritten, be found in this graph again."""
    for node in gm.graph.nodes:
        node.meta[_LOWERED] = node.name


def lowered_name(node: torch.fx.Node) -> str | None:
    """The name that a partition's node has in the lowered graph; that of its nearest source, where it was put in."""
    waiting, seen = [node], {node}
    for current in waiting:
        if current.op == "call_function" and _LOWERED in current.meta:
            return str(current.meta[_LOWERED])
        fresh = [other for other in (*current.all_input_nodes, *current.users) if other not in seen]
        seen.update(fresh)
        waiting += fresh
    return None


def empty_operators(partition: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """The operators that take or give a tensor with no elements."""
    return [n for n in operators_of(partition) if any(_is_empty(other) for other in (n, *n.all_input_nodes))]


def operators_of(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """The nodes of a graph that call an operator, in its order."""
    return [node for node in gm.graph.nodes if node.op == "call_function"]


def first_refused(partition: torch.fx.GraphModule, build: Build, deadline: float) -> torch.fx.Node:
    """Finds the operator up to which the builder builds a partition, and no further.

    Args:
        build: raises where it builds no engine of a graph.
        deadline: of ``time.monotonic``.

    Raises:
        BuildFailedError: there is no time left.
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
    """The dtype of an operator's tensors of which the builder takes nothing at all, not even ReLU; or None."""
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
    except Exception:  # noqa: BLE001 - of the builder or a converter: they raise whatever their parts raise
        return False
    return True


def _first(partition: torch.fx.GraphModule, wanted: set[torch.fx.Node]) -> torch.fx.GraphModule | None:
    """The part of a partition that consists of these operators, or None where it gives no tensor."""
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
    """What gives the tensors of which one is taken: they go the same way."""
    return node.all_input_nodes[0] if node.target is operator.getitem else node


def _is_empty(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and any(isinstance(size, int) and size == 0 for size in value.shape)
