"""Graph rewrites that avoid seven known defects of TensorRT-RTX 1.6, before an engine is built.

- A bias before ReLU or GELU is dropped if an elementwise product follows.
- Powers with whole exponents give NaN for some negative values.
- Two resizing layers that read one tensor, or two average pools that differ only in whether padding counts, are merged:
  the second one computes what the first one would, at its own size.
- In halves, the kernels for any size compute other values for a product or sum of a convolution's input and its
  activated result if the input is the first operand and another convolution follows. The rewrite swaps the operands
  (:mod:`linux_side.backends.operand_order`).
- The kernels for a single size compute some networks of convolutions and batch norms wrongly. The rewrite folds the
  batch norms (:mod:`linux_side.backends.batch_norm_folding`).
- Those kernels also mistake grouped convolutions of as many channels for each other. The rewrite gives them kernels of
  one size (:mod:`linux_side.backends.grouped_kernels`).
- The builder accepts no transposed convolution in bf16. The rewrite computes it in fp32, which is at least as accurate.

The builder also ends the process with a segmentation fault if a network has attention and a loop along a size that
varies, even if neither reads the other. Running sums, which would be loops, are computed without them
(:mod:`linux_side.backends.running_sums`).

The builder itself shows the last defect and that of loops. The others were observed with 1.6.1.120 on NVIDIA GPUs of
sm_90, which is not on its list of supported GPUs, in networks whose layers were correct. It was not tested whether
listed GPUs are affected. docs/benchmarks/gpu.md has the tables, and ``benchmarks/gpu/rtx_defects.py`` the cases. The
rewritten networks give bit-identical results, except for the sign of zero, for the last bits of powers (at most three,
for exponents up to 8), and for weights that are folded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import torch

from linux_side.backends.batch_norm_folding import fold_batch_norms
from linux_side.backends.elementwise import VIEWS, behind_views, call, is_floating
from linux_side.backends.grouped_kernels import unify_grouped_kernels
from linux_side.backends.operand_order import put_convolutions_first
from linux_side.fx.graph_copy import add_buffer, get_attribute

_aten = torch.ops.aten

_LAYERS = {
    _aten.linear.default, _aten.addmm.default, _aten.mm.default, _aten.bmm.default, _aten.matmul.default,
    _aten.baddbmm.default,
}  # fmt: skip
_ACTIVATIONS = {_aten.relu.default, _aten.gelu.default}
_PARTS_OF_GELU = {_aten.erf.default, _aten.tanh.default}
_PRODUCTS = {_aten.mul.Tensor, _aten.mul.Scalar, _aten.addcmul.default}
_POINTWISE = VIEWS | _PRODUCTS | _PARTS_OF_GELU | {
    _aten.add.Tensor, _aten.add.Scalar, _aten.sub.Tensor, _aten.sub.Scalar, _aten.rsub.Scalar, _aten.div.Tensor,
    _aten.div.Scalar, _aten.pow.Tensor_Scalar, _aten.neg.default,
}  # fmt: skip
_LARGEST_POWER = 8
# The index of the flag `transposed` among the arguments of aten.convolution.
_TRANSPOSED = 6
# Each set has layers of one kind; two of them on one tensor may be merged.
_WINDOWS = (
    {
        _aten.upsample_nearest1d.vec, _aten.upsample_nearest2d.vec, _aten.upsample_nearest3d.vec,
        _aten.upsample_nearest1d.default, _aten.upsample_nearest2d.default, _aten.upsample_nearest3d.default,
        _aten._upsample_nearest_exact1d.vec, _aten._upsample_nearest_exact2d.vec, _aten._upsample_nearest_exact3d.vec,
        _aten.upsample_linear1d.vec, _aten.upsample_bilinear2d.vec, _aten.upsample_trilinear3d.vec,
        _aten.upsample_linear1d.default, _aten.upsample_bilinear2d.default, _aten.upsample_trilinear3d.default,
        _aten.upsample_bicubic2d.vec, _aten.upsample_bicubic2d.default,
    },
    {
        _aten.avg_pool1d.default, _aten.avg_pool2d.default, _aten.avg_pool3d.default,
        _aten._adaptive_avg_pool2d.default, _aten._adaptive_avg_pool3d.default, _aten.adaptive_avg_pool1d.default,
    },
)  # fmt: skip


def avoid_defects(partition: torch.fx.GraphModule) -> None:
    """Rewrites a partition, in place, so that TensorRT-RTX's defects do not affect it."""
    fold_batch_norms(partition)
    unify_grouped_kernels(partition)
    _multiply_powers_out(partition.graph)
    put_convolutions_first(partition.graph)
    _part_activations_from_products(partition.graph)
    _part_windows_of_one_tensor(partition.graph)
    _keep_transposed_convolutions_out_of_bf16(partition)
    partition.graph.lint()
    partition.recompile()


def _part_activations_from_products(graph: torch.fx.Graph) -> None:
    """Adds zero between an activation and an elementwise product.

    If a matrix product with a bias goes through ReLU or GELU (also a decomposed GELU) into an elementwise product, the
    engine drops the bias. With three dimensions, one of them dynamic, the engine cannot run at all.
    """
    layers, parts_of_gelu = _made_from(graph, _LAYERS), _made_from(graph, _PARTS_OF_GELU)
    for node in list(graph.nodes):
        if _is_activation(node, layers, parts_of_gelu) and is_floating(node) and any(_products_of(node)):
            users = list(node.users)
            with graph.inserting_after(node):
                parted = call(graph, _aten.add.Tensor, node, 0.0)
            for user in users:
                user.replace_input_with(node, parted)
            for made in (layers, parts_of_gelu):
                if node in made:
                    made.add(parted)


def _part_windows_of_one_tensor(graph: torch.fx.Graph) -> None:
    """Gives each resizing layer and each average pool an input of its own, by adding zeros to the shared tensor.

    The builder would merge equal sums, so the n-th layer adds zero n times, counted from 0.
    """
    for kind in _WINDOWS:
        seen: Counter[torch.fx.Node] = Counter()
        for window in [node for node in graph.nodes if node.target in kind and is_floating(node)]:
            shared = behind_views(window.args[0])
            with graph.inserting_before(window):
                own = window.args[0]
                for _ in range(seen[shared]):
                    own = call(graph, _aten.add.Tensor, own, 0.0)
            window.args = (own, *window.args[1:])
            seen[shared] += 1


def _keep_transposed_convolutions_out_of_bf16(partition: torch.fx.GraphModule) -> None:
    graph = partition.graph
    for node in graph.find_nodes(op="call_function", target=_aten.convolution.default):
        if node.args[_TRANSPOSED] and node.meta["val"].dtype is torch.bfloat16:
            value = node.meta["val"]
            with graph.inserting_before(node):
                operands = [_in_fp32(partition, operand) for operand in node.args[:3]]
            node.args = (*operands, *node.args[3:])
            node.meta = {**node.meta, "val": value.float()}
            with graph.inserting_after(node):
                rounded = graph.call_function(_aten._to_copy.default, (node,), {"dtype": torch.bfloat16})
            rounded.meta = {**node.meta, "val": value}
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, own=rounded: user is not own)


def _in_fp32(partition: torch.fx.GraphModule, operand: torch.fx.Node | None) -> torch.fx.Node | None:
    """Returns an operand in fp32. A weight is copied as a constant, because the converter needs constants."""
    if operand is None:
        return None
    value = operand.meta["val"].float()
    if operand.op == "get_attr":
        weight = get_attribute(partition, str(operand.target))
        cast = partition.graph.get_attr(add_buffer(partition, f"{operand.target}_fp32", weight.detach().float()))
    else:
        cast = partition.graph.call_function(_aten._to_copy.default, (operand,), {"dtype": torch.float32})
    cast.meta = {**operand.meta, "val": value}
    return cast


def _products_of(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """Yields the elementwise products that take a node's value, directly or through views."""
    for user in node.users:
        if user.target in _PRODUCTS:
            yield user
        elif user.target in VIEWS:
            yield from _products_of(user)


def _is_activation(
    node: torch.fx.Node, layers: Collection[torch.fx.Node], parts_of_gelu: Collection[torch.fx.Node]
) -> bool:
    """Returns whether a node is ReLU or GELU after a matrix product.

    A product counts as a decomposed GELU if both factors come from a matrix product, and one of them from erf or tanh.

    Args:
        node: the node.
        layers: the values that come from matrix products.
        parts_of_gelu: the values that come from erf or tanh.
    """
    if node.target in _ACTIVATIONS:
        return _comes_from(node, layers)
    if node.target is not _aten.mul.Tensor or not all(isinstance(factor, torch.fx.Node) for factor in node.args):
        return False
    factors = node.all_input_nodes
    return all(_comes_from(factor, layers) for factor in factors) and any(
        _comes_from(factor, parts_of_gelu) for factor in factors
    )


def _comes_from(node: torch.fx.Node, made: Collection[torch.fx.Node]) -> bool:
    """Returns whether a value, or an input of its operator, is one of these."""
    return node in made or any(source in made for source in node.all_input_nodes)


def _made_from(graph: torch.fx.Graph, operators: Collection[Any]) -> set[torch.fx.Node]:
    """Returns the results of these operators, and the values that are computed elementwise from them."""
    made = set[torch.fx.Node]()
    for node in graph.nodes:
        if node.target in operators or (node.target in _POINTWISE and _comes_from(node, made)):
            made.add(node)
    return made


def _multiply_powers_out(graph: torch.fx.Graph) -> None:
    """Replaces powers with whole exponents from 2 to ``_LARGEST_POWER`` by products.

    In two networks with two static dimensions, powers of negative values became NaN.
    """
    for node in list(graph.nodes):
        if node.target is _aten.pow.Tensor_Scalar and is_floating(node.args[0]) and _is_small_whole(node.args[1]):
            with graph.inserting_before(node):
                power = _power(graph, node.args[0], int(node.args[1]))
            node.replace_all_uses_with(power)
            graph.erase_node(node)


def _power(graph: torch.fx.Graph, base: torch.fx.Node, exponent: int) -> torch.fx.Node:
    if exponent == 1:
        return base
    half = _power(graph, base, exponent // 2)
    square = call(graph, _aten.mul.Tensor, half, half)
    return call(graph, _aten.mul.Tensor, square, base) if exponent % 2 else square


def _is_small_whole(exponent: Any) -> bool:
    return isinstance(exponent, (int, float)) and exponent in range(2, _LARGEST_POWER + 1)
