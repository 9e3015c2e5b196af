"""Rewrites products of complex numbers, such as those of rotary embeddings, as products of real numbers.

TensorRT has no complex numbers. A part of the graph is rewritten if it turns pairs of real numbers into complex ones,
multiplies them and returns to pairs. Every other complex operator stays in PyTorch (``lowering/complex_numbers.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from linux_side.fx.graph_copy import add_buffer, get_attribute
from linux_side.fx.values import is_complex

_ATEN = torch.ops.aten
_PAIRS_TO_COMPLEX, _COMPLEX_TO_PAIRS = _ATEN.view_as_complex.default, _ATEN.view_as_real.default
_PRODUCT = _ATEN.mul.Tensor
# Operators that act on the real and the imaginary part alike.
_VIEWS = {
    _ATEN.view.default,
    _ATEN.reshape.default,
    _ATEN._reshape_copy.default,
    _ATEN._unsafe_view.default,
    _ATEN.unsqueeze.default,
    _ATEN.squeeze.dim,
    _ATEN.squeeze.dims,
    _ATEN.expand.default,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.slice.Tensor,
    _ATEN.select.int,
    _ATEN.clone.default,
}
_PARTS, _POLAR = _ATEN.complex.default, _ATEN.polar.default
_OPERATORS = {_PAIRS_TO_COMPLEX, _COMPLEX_TO_PAIRS, _PARTS, _POLAR, _PRODUCT, *_VIEWS}

Pair = tuple[torch.fx.Node, torch.fx.Node]


def rewrite_complex_products(gm: torch.fx.GraphModule) -> None:
    """Rewrites, in place, each connected part of complex numbers that consists of products between pairs."""
    for part in _parts(gm):
        if all(_is_known(node) for node in part):
            _Rewriter(gm).rewrite(part)
    gm.recompile()


def _parts(gm: torch.fx.GraphModule) -> Iterator[list[torch.fx.Node]]:
    """Yields the groups of nodes that are connected by complex values, each in graph order."""
    part_of: dict[torch.fx.Node, set[torch.fx.Node]] = {}
    for node in gm.graph.nodes:
        sources = [source for source in node.all_input_nodes if is_complex(source)]
        if not sources and not is_complex(node):
            continue
        merged = {node}.union(*(part_of[source] for source in sources))
        for member in merged:
            part_of[member] = merged
    order = {node: index for index, node in enumerate(gm.graph.nodes)}
    for part in {id(part): part for part in part_of.values()}.values():
        yield sorted(part, key=order.__getitem__)


def _is_known(node: torch.fx.Node) -> bool:
    if node.op == "get_attr":
        return bool(node.meta["val"].dtype is torch.complex64)
    if node.op != "call_function" or node.target not in _OPERATORS:
        return False
    return not is_complex(node) or node.meta["val"].dtype is torch.complex64


class _Rewriter:
    def __init__(self, gm: torch.fx.GraphModule) -> None:
        self._gm = gm
        self._pairs: dict[torch.fx.Node, Pair] = {}
        self._names: dict[str, str] = {}

    def rewrite(self, part: list[torch.fx.Node]) -> None:
        for node in part:
            with self._gm.graph.inserting_before(node):
                if node.target is _COMPLEX_TO_PAIRS:
                    node.replace_all_uses_with(self._interleaved(self._pairs[node.args[0]]))
                else:
                    self._pairs[node] = self._pair(node)
        for node in reversed(part):
            self._gm.graph.erase_node(node)

    def _pair(self, node: torch.fx.Node) -> Pair:
        """Returns the real and the imaginary part of a node's value."""
        if node.op == "get_attr":
            value = get_attribute(self._gm, node.target).detach()
            return self._constant(node, "real", value.real), self._constant(node, "imag", value.imag)
        if node.target is _PAIRS_TO_COMPLEX:
            pairs = node.args[0]
            return self._call(_ATEN.select.int, pairs, -1, 0), self._call(_ATEN.select.int, pairs, -1, 1)
        if node.target is _PARTS:
            return node.args[0], node.args[1]
        if node.target is _POLAR:
            length, angle = node.args
            parts = (self._call(function, angle) for function in (_ATEN.cos.default, _ATEN.sin.default))
            real, imaginary = (self._call(_PRODUCT, length, part) for part in parts)
            return real, imaginary
        if node.target is _PRODUCT:
            return self._product(*node.args)
        real, imaginary = self._pairs[node.args[0]]
        return self._call(node.target, real, *node.args[1:], **node.kwargs), self._call(
            node.target, imaginary, *node.args[1:], **node.kwargs
        )

    def _product(self, one: Any, other: Any) -> Pair:
        if one not in self._pairs:
            one, other = other, one
        real, imaginary = self._pairs[one]
        if other not in self._pairs and not isinstance(other, complex):
            return self._call(_PRODUCT, real, other), self._call(_PRODUCT, imaginary, other)
        by_real, by_imaginary = (other.real, other.imag) if isinstance(other, complex) else self._pairs[other]
        terms = [self._call(_PRODUCT, a, b) for a in (real, imaginary) for b in (by_real, by_imaginary)]
        return self._call(_ATEN.sub.Tensor, terms[0], terms[3]), self._call(_ATEN.add.Tensor, terms[1], terms[2])

    def _interleaved(self, pair: Pair) -> torch.fx.Node:
        return self._call(_ATEN.cat.default, [self._call(_ATEN.unsqueeze.default, part, -1) for part in pair], -1)

    def _constant(self, node: torch.fx.Node, part: str, value: torch.Tensor) -> torch.fx.Node:
        name = f"{node.target}_{part}"
        if name not in self._names:
            copy = value.clone(memory_format=torch.contiguous_format)
            self._names[name] = add_buffer(self._gm, name, copy)
        result = self._gm.graph.get_attr(self._names[name])
        result.meta["val"] = node.meta["val"].real.clone(memory_format=torch.contiguous_format)
        return result

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = self._gm.graph.call_function(target, args, kwargs)
        values = torch.fx.map_arg((args, kwargs), lambda argument: argument.meta["val"])
        node.meta["val"] = target(*values[0], **values[1])
        return node
