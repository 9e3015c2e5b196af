"""Rewrites scaled dot product attention where TensorRT's layer differs from PyTorch.

PyTorch aligns a causal mask at the upper left, and upstream requests one aligned at the lower right. The two differ if
there are more keys than queries. A query whose mask is False for every key gives zero in PyTorch; TensorRT's
documentation does not define that case. TensorRT-RTX has a layer for four dimensions, with keys and values of one
shape. Any other attention becomes products and a softmax.

The layer returned other numbers, or NaN, for one key (TensorRT-RTX 1.6.1 on an NVIDIA H100, docs/benchmarks/gpu.md);
the weight of an only key is 1, so its value is the result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.fx.experimental.symbolic_shapes import statically_known_true

from linux_side.fx.graph_copy import add_buffer, get_attribute

_aten = torch.ops.aten
_ATTENTION = _aten.scaled_dot_product_attention.default


def rewrite_attention(gm: torch.fx.GraphModule) -> None:
    """Rewrites, in place, each attention in a lowered graph."""
    for node in gm.graph.find_nodes(op="call_function", target=_ATTENTION):
        arguments = _arguments(node)
        has_layer = _has_layer(arguments)
        has_one_key = has_layer and statically_known_true(arguments["key"].meta["val"].shape[-2] == 1)
        if arguments["is_causal"] and not has_one_key:
            _spell_causal_mask_out(gm.graph, node, arguments, square=not has_layer)
        elif arguments["attn_mask"] is not None:
            node = _zero_shut_out_rows(gm, node, arguments["attn_mask"])
        if has_one_key:
            _take_the_only_value(gm.graph, node, arguments)
        elif not has_layer:
            _spell_out(gm.graph, node, _arguments(node))
    gm.graph.eliminate_dead_code()
    gm.graph.lint()
    gm.recompile()


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    names = [argument.name for argument in _ATTENTION._schema.arguments]
    defaults = {argument.name: argument.default_value for argument in _ATTENTION._schema.arguments}
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def _has_layer(arguments: dict[str, Any]) -> bool:
    query, key, value = (arguments[name].meta["val"].shape for name in ("query", "key", "value"))
    if len(query) != 4 or len(key) != 4 or len(value) != 4:
        return False
    same = [(key[dim], value[dim]) for dim in range(4)] + [(query[0], key[0]), (query[3], key[3])]
    if not arguments["enable_gqa"]:
        same.append((query[1], key[1]))
    return all(statically_known_true(one == other) for one, other in same)


def _take_the_only_value(graph: torch.fx.Graph, node: torch.fx.Node, arguments: dict[str, Any]) -> None:
    """Replaces attention to one key by that key's value, once for each query."""
    query, value = arguments["query"], arguments["value"]
    with graph.inserting_before(node):
        if arguments["enable_gqa"]:
            value = _for_all_heads(graph, value, query)
        queries = query.meta["val"].shape[-2]
        count = queries if isinstance(queries, int) else _call(graph, _aten.sym_size.int, query, 2)
        node.replace_all_uses_with(_call(graph, _aten.expand.default, value, [-1, -1, count, -1]))
    graph.erase_node(node)


def _spell_out(graph: torch.fx.Graph, node: torch.fx.Node, arguments: dict[str, Any]) -> None:
    """Replaces attention by products and a softmax, which is computed in fp32 as in PyTorch."""
    query, key, value, mask = (arguments[name] for name in ("query", "key", "value", "attn_mask"))
    dtype, scale = query.meta["val"].dtype, arguments["scale"]
    with graph.inserting_before(node):
        if arguments["enable_gqa"]:
            key, value = (_for_all_heads(graph, heads, query) for heads in (key, value))
        scale = query.meta["val"].shape[-1] ** -0.5 if scale is None else scale
        query = _call(graph, _aten.mul.Tensor, query, scale)
        dims = list(range(key.meta["val"].dim()))
        transposed = _call(graph, _aten.permute.default, key, [*dims[:-2], dims[-1], dims[-2]])
        scores = _call(graph, _aten.matmul.default, query, transposed)
        if mask is not None and mask.meta["val"].dtype is torch.bool:
            shut_out = _call(graph, _aten.full.default, [], float("-inf"), dtype=dtype, device=query.meta["val"].device)
            scores = _call(graph, _aten.where.self, mask, scores, shut_out)
        elif mask is not None:
            scores = _call(graph, _aten.add.Tensor, scores, mask)
        if dtype in (torch.float16, torch.bfloat16):
            scores = _call(graph, _aten._to_copy.default, scores, dtype=torch.float32)
        weights = _call(graph, _aten._softmax.default, scores, -1, False)
        if dtype in (torch.float16, torch.bfloat16):
            weights = _call(graph, _aten._to_copy.default, weights, dtype=dtype)
        node.replace_all_uses_with(_call(graph, _aten.matmul.default, weights, value))
    graph.erase_node(node)


def _for_all_heads(graph: torch.fx.Graph, heads: torch.fx.Node, query: torch.fx.Node) -> torch.fx.Node:
    """Repeats each head of the keys or values for every head of the queries that shares it."""
    times = query.meta["val"].shape[-3] // heads.meta["val"].shape[-3]
    indices = [head for head in range(heads.meta["val"].shape[-3]) for _ in range(times)]
    parts = [_call(graph, _aten.slice.Tensor, heads, -3, head, head + 1) for head in indices]
    return _call(graph, _aten.cat.default, parts, -3)


def _spell_causal_mask_out(
    graph: torch.fx.Graph, node: torch.fx.Node, arguments: dict[str, Any], *, square: bool
) -> None:
    query, key = arguments["query"].meta["val"], arguments["key"].meta["val"]
    queries, keys = query.shape[-2], key.shape[-2]
    if statically_known_true(queries == keys) and not square:
        return
    with graph.inserting_before(node):
        rows = _positions(graph, arguments["query"], queries)
        columns = _positions(graph, arguments["key"], keys)
        rows = _call(graph, _aten.unsqueeze.default, rows, 1)
        mask = _call(graph, _aten.ge.Tensor, rows, columns)
    node.args = (arguments["query"], arguments["key"], arguments["value"], mask, arguments["dropout_p"], False)
    node.kwargs = {name: arguments[name] for name in ("scale", "enable_gqa")}


def _positions(graph: torch.fx.Graph, tensor: torch.fx.Node, size: Any) -> torch.fx.Node:
    count = size if isinstance(size, int) else _call(graph, _aten.sym_size.int, tensor, tensor.meta["val"].dim() - 2)
    options = {"dtype": torch.int64, "device": tensor.meta["val"].device}
    return _call(graph, _aten.arange.start_step, 0, count, **options)


def _zero_shut_out_rows(gm: torch.fx.GraphModule, node: torch.fx.Node, mask: torch.fx.Node) -> torch.fx.Node:
    """Makes the result zero for queries whose mask excludes every key; returns the attention node."""
    graph = gm.graph
    with graph.inserting_before(node.next):
        seen = _rows_of_constant(gm, mask) if mask.op == "get_attr" else _rows(graph, mask)
        if seen is None:
            return node
        zero = _call(graph, _aten.full.default, [], 0.0, dtype=node.meta["val"].dtype, device=node.meta["val"].device)
        result = _call(graph, _aten.where.self, seen, node, zero)
    node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
    return node


def _rows(graph: torch.fx.Graph, mask: torch.fx.Node) -> torch.fx.Node:
    """Returns, for each query, whether its mask includes any key."""
    allowed = mask if mask.meta["val"].dtype is torch.bool else _call(graph, _aten.ne.Scalar, mask, float("-inf"))
    return _call(graph, _aten.any.dim, allowed, -1, True)


def _rows_of_constant(gm: torch.fx.GraphModule, mask: torch.fx.Node) -> torch.fx.Node | None:
    """Does the same for a constant mask, which no converter accepts; None if every query has a key."""
    value = get_attribute(gm, str(mask.target))
    seen = (value if value.dtype is torch.bool else value != float("-inf")).any(-1, keepdim=True)
    if seen.all():
        return None
    node = gm.graph.get_attr(add_buffer(gm, f"{mask.target}_rows", seen))
    mode = detect_fake_mode([mask.meta["val"]])
    node.meta["val"] = mode.from_tensor(seen) if mode else seen
    return node


def _call(graph: torch.fx.Graph, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
    node = graph.call_function(target, args, kwargs)
    values = torch.fx.map_arg((args, kwargs), lambda argument: argument.meta["val"])
    mode = detect_fake_mode([value for value in values[0] if isinstance(value, torch.Tensor)])
    if mode is None:
        mode = detect_fake_mode([n.meta["val"] for n in graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)])
    with mode:
        node.meta["val"] = target(*values[0], **values[1])
    return node
