"""Views caches of any layout in the layout that TensorRT can write into in place.

Its layer takes a cache of four dimensions with batch size 1, written along the third one. A write of one position along
any dimension of any cache is such a write to a view. In the view, all dimensions before the written one are merged into
the heads, and all dimensions after it into the last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from linux_side.upstream import keep_in_torch

_ATEN = torch.ops.aten
_WRITE, _VIEW = _ATEN.index_copy.default, _ATEN.view.default
_REASON = "it is a view of a cache that an engine writes into"


def view_caches(gm: torch.fx.GraphModule, writes: Sequence[torch.fx.Node]) -> None:
    """Passes the cache of each write to its engine, and returns it from there, as a view; changes the graph in place.

    Args:
        gm: the lowered graph.
        writes: the writes into state whose old value has no other reader.
    """
    for write in writes:
        if _is_one_position(write) and not _is_as_tensorrt_has_it(write):
            _view(gm, write)
    gm.recompile()


def _is_one_position(write: torch.fx.Node) -> bool:
    if write.target is not _WRITE:
        return False
    cache, dim, _, source = write.args
    sizes = (*cache.meta["val"].shape, *source.meta["val"].shape)
    contiguous = cache.meta["val"].is_contiguous()
    return contiguous and all(isinstance(size, int) for size in sizes) and source.meta["val"].shape[dim] == 1


def _is_as_tensorrt_has_it(write: torch.fx.Node) -> bool:
    shape = write.args[0].meta["val"].shape
    return len(shape) == 4 and shape[0] == 1 and write.args[1] == 2


def _view(gm: torch.fx.GraphModule, write: torch.fx.Node) -> None:
    cache, dim, index, source = write.args
    shape = list(cache.meta["val"].shape)
    sizes = [1, math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])]
    output = gm.graph.output_node()
    with gm.graph.inserting_before(write):
        seen = _call(gm, _VIEW, cache, sizes)
        keep_in_torch(seen, _REASON)
        rows = _call(gm, _ATEN._reshape_copy.default, source, [*sizes[:2], 1, sizes[3]])
        written = _call(gm, _WRITE, seen, 2, index, rows)
        written.meta.update({key: value for key, value in write.meta.items() if key not in written.meta})
        inside = _call(gm, _ATEN._reshape_copy.default, written, shape)
    with gm.graph.inserting_before(output):
        outside = _call(gm, _VIEW, written, shape)
        keep_in_torch(outside, _REASON)
    for user in list(write.users):
        user.replace_input_with(write, outside if user is output else inside)
    for node in (inside, write):
        if not node.users:
            gm.graph.erase_node(node)


def _call(gm: torch.fx.GraphModule, target: Any, *args: Any) -> torch.fx.Node:
    node = gm.graph.call_function(target, args)
    node.meta["val"] = target(*torch.fx.map_arg(args, lambda argument: argument.meta["val"]))
    return node
