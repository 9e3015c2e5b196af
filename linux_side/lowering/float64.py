"""Converts partitions from float64 to fp32, the widest float of TensorRT, with casts at their borders."""

from __future__ import annotations

from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.utils import _pytree as pytree

from linux_side.fx.graph_copy import add_buffer, get_attribute
from linux_side.fx.values import flat_outputs

_CAST = torch.ops.aten._to_copy.default


def demote_float64(gm: torch.fx.GraphModule, call: torch.fx.Node, partition: torch.fx.GraphModule) -> None:
    """Makes a partition compute in fp32 instead of float64, in place. The graph around it keeps float64.

    Args:
        gm: the partitioned graph.
        call: the node that calls the partition.
        partition: the submodule that it calls.
    """
    if not any(_is_double(node) for node in partition.graph.nodes):
        return
    doubles = [index for index, node in enumerate(flat_outputs(partition)) if _is_double(node)]
    inputs = [_truncated_input(gm, call, index, node) for index, node in enumerate(_placeholders(partition))]
    _truncate_operators(partition)
    _Revaluation(partition, detect_fake_mode(inputs)).run(*inputs)
    _widen_outputs(gm, call, partition, doubles)
    partition.recompile()


def _is_double(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype is torch.float64


def _placeholders(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in gm.graph.nodes if node.op == "placeholder"]


def _truncated_input(
    gm: torch.fx.GraphModule, call: torch.fx.Node, index: int, placeholder: torch.fx.Node
) -> torch.Tensor:
    if _is_double(placeholder):
        with gm.graph.inserting_before(call):
            single = gm.graph.call_function(_CAST, (call.args[index],), {"dtype": torch.float32})
        single.meta["val"] = placeholder.meta["val"].float()
        call.update_arg(index, single)
        return single.meta["val"]
    return placeholder.meta["val"]


def _truncate_operators(partition: torch.fx.GraphModule) -> None:
    names: dict[str, str] = {}
    for node in partition.graph.nodes:
        if node.op == "get_attr" and get_attribute(partition, node.target).dtype is torch.float64:
            if node.target not in names:
                single = get_attribute(partition, node.target).detach().float()
                names[node.target] = add_buffer(partition, f"{node.target}_fp32", single)
            node.target = names[node.target]
        elif node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map_only(
                torch.dtype, lambda dtype: torch.float32 if dtype is torch.float64 else dtype, (node.args, node.kwargs)
            )


class _Revaluation(torch.fx.Interpreter):
    """Recomputes the value of every node with fake tensors."""

    def __init__(self, gm: torch.fx.GraphModule, mode: Any) -> None:
        super().__init__(gm)
        self._mode = mode

    def run_node(self, n: torch.fx.Node) -> Any:
        with self._mode:
            result = super().run_node(n)
        if n.op != "output":
            n.meta["val"] = result
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._mode.from_tensor(super().get_attr(target, args, kwargs), static_shapes=True)


def _widen_outputs(
    gm: torch.fx.GraphModule, call: torch.fx.Node, partition: torch.fx.GraphModule, doubles: list[int]
) -> None:
    values = [node.meta["val"] for node in flat_outputs(partition)]
    many = isinstance(partition.graph.output_node().args[0], (list, tuple))
    results = [(user, user.args[1]) for user in call.users] if many else [(call, 0)]
    for result, index in results:
        if index not in doubles:
            continue
        users = list(result.users)
        with gm.graph.inserting_after(result):
            double = gm.graph.call_function(_CAST, (result,), {"dtype": torch.float64})
        double.meta["val"] = values[index].double()
        for user in users:
            user.replace_input_with(result, double)
