"""Bounds infinities before they are cast to whole numbers, as in T5's buckets of distances: the logarithm of 0.

TensorRT does not define the cast of an infinity, although a later ``where`` may drop its result. So an infinity is
clamped to a large number of the same sign, which the whole numbers include.
"""

from __future__ import annotations

import torch

_ATEN = torch.ops.aten
_CAST = _ATEN._to_copy.default
# Operators that may turn a finite number into an infinity.
_UNBOUNDED = {
    _ATEN.log.default,
    _ATEN.log2.default,
    _ATEN.log10.default,
    _ATEN.log1p.default,
    _ATEN.exp.default,
    _ATEN.reciprocal.default,
    _ATEN.rsqrt.default,
    _ATEN.div.Tensor,
    _ATEN.pow.Tensor_Scalar,
}
_FAR = 8  # how many operators before the cast are searched
_LARGEST = {torch.int64: 2.0**62, torch.int32: 2.0**31 - 2.0**7}


def bound_casts_to_whole_numbers(gm: torch.fx.GraphModule) -> None:
    """Clamps, in place, values that may be infinite before casts to int64 or int32."""
    for node in gm.graph.find_nodes(op="call_function", target=_CAST):
        source = node.args[0]
        value, largest = source.meta["val"], _LARGEST.get(node.kwargs.get("dtype"))
        if largest is None or not value.is_floating_point() or not _may_be_infinite(source):
            continue
        largest = min(largest, torch.finfo(value.dtype).max)
        with gm.graph.inserting_before(node):
            bounded = gm.graph.call_function(_ATEN.clamp.default, (source, -largest, largest))
        bounded.meta["val"] = value.clone()
        node.replace_input_with(source, bounded)
    gm.recompile()


def _may_be_infinite(node: torch.fx.Node) -> bool:
    near = {node}
    for _ in range(_FAR):
        if any(source.target in _UNBOUNDED for source in near):
            return True
        near = {source for found in near for source in found.all_input_nodes}
    return False
