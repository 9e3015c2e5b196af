"""Rewrites ``uint8``, the dtype of camera images. TensorRT has it for bindings only, and Torch-TensorRT not even there.

Operators that move or compare bytes move or compare floats instead, which represent a byte exactly. The casts between
bytes and floats stay in PyTorch, because Torch-TensorRT refuses to load an engine with a uint8 binding
(``trt_util.cpp``: unknown data type, observed on a GPU). Arithmetic on bytes, which wraps around at 256, stays there
too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._guards import detect_fake_mode

from linux_side.upstream import keep_in_torch

_aten = torch.ops.aten
_CAST = _aten._to_copy.default
_WHY = "Torch-TensorRT's runtime binds no uint8"
_ROUNDED = "trtcross_bytes"  # metadata of a float node: whether its values are whole numbers from 0 to 255
_MOVES = (
    _aten._reshape_copy.default, _aten.alias.default, _aten.cat.default, _aten.clone.default, _aten.expand.default,
    _aten.flip.default, _aten.index.Tensor, _aten.index_select.default, _aten.permute.default, _aten.reshape.default,
    _aten.select.int, _aten.slice.Tensor, _aten.squeeze.dim, _aten.squeeze.dims, _aten.transpose.int,
    _aten.unsqueeze.default, _aten.view.default,
)  # fmt: skip
_COMPARISONS = (
    _aten.eq.Scalar, _aten.eq.Tensor, _aten.ge.Scalar, _aten.ge.Tensor, _aten.gt.Scalar, _aten.gt.Tensor,
    _aten.le.Scalar, _aten.le.Tensor, _aten.lt.Scalar, _aten.lt.Tensor, _aten.ne.Scalar, _aten.ne.Tensor,
)  # fmt: skip


def move_bytes_as_floats(gm: torch.fx.GraphModule) -> None:
    """Replaces, in place, bytes by floats wherever a lowered graph moves or compares them."""
    mode = detect_fake_mode([n.meta["val"] for n in gm.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)])
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and any(map(_is_bytes, (node, *node.all_input_nodes))):
            _Rewrite(gm.graph, mode).node(node)
    gm.graph.eliminate_dead_code()
    gm.graph.lint()
    gm.recompile()


def _is_bytes(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.uint8


class _Rewrite:
    def __init__(self, graph: torch.fx.Graph, mode: Any) -> None:
        self.graph, self.mode = graph, mode

    def node(self, node: torch.fx.Node) -> None:
        takes_bytes = any(map(_is_bytes, node.all_input_nodes))
        if node.target in _MOVES and _is_bytes(node):
            node.meta[_ROUNDED] = self._take_floats(node, rounded=False)
            with self.graph.inserting_after(node):
                result = self._cast(node, torch.uint8)
            node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
        elif (node.target is _CAST or node.target in _COMPARISONS) and takes_bytes and not _is_bytes(node):
            self._take_floats(node, rounded=True)
        elif node.target is _CAST and _is_bytes(node):
            keep_in_torch(node, _WHY)
        else:
            keep_in_torch(node, "TensorRT computes with no uint8")

    def _take_floats(self, node: torch.fx.Node, *, rounded: bool) -> bool:
        """Replaces a node's inputs of bytes by floats.

        Args:
            node: the node.
            rounded: whether the floats must have the values of bytes; always so for comparisons.

        Returns:
            Whether the floats are known to have the values of bytes.
        """
        found = []
        for source in filter(_is_bytes, node.all_input_nodes):
            floats = self._as_floats(source, node, rounded)
            node.replace_input_with(source, floats)
            found.append(bool(floats.meta.get(_ROUNDED)))
        self._refresh(node)
        return all(found)

    def _as_floats(self, source: torch.fx.Node, user: torch.fx.Node, rounded: bool) -> torch.fx.Node:
        made_of: Any = source.args[0] if source.target is _CAST else None
        of_floats = isinstance(made_of, torch.fx.Node) and made_of.meta["val"].dtype is torch.float32
        if of_floats and (made_of.meta.get(_ROUNDED) or not rounded):  # skip a cast to bytes and back
            return made_of
        with self.graph.inserting_before(user):
            floats = self._cast(source, torch.float32)
        floats.meta[_ROUNDED] = True
        return floats

    def _cast(self, source: torch.fx.Node, dtype: torch.dtype) -> torch.fx.Node:
        node = self.graph.call_function(_CAST, (source,), {"dtype": dtype})
        self._refresh(node)
        keep_in_torch(node, _WHY)
        return node

    def _refresh(self, node: torch.fx.Node) -> None:
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda argument: argument.meta["val"])
        with self.mode:
            node.meta["val"] = node.target(*args, **kwargs)
