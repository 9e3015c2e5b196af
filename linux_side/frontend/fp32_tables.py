"""Tables that a cast model must not round.

``module.to(torch.float16)`` rounds every buffer. A table that the model reads in fp32 alone, as rotary embeddings do
(``self.inv_freq[None].float() * positions``), is meant to be exact: rounded to halves it turns the last of 4,096
positions by 0.6 radians. Such a buffer keeps its fp32 values. A complex one would lose its imaginary part: refused.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from toolchain.errors import BuildFailedError

_aten = torch.ops.aten
_VIEWS = {
    _aten.unsqueeze.default, _aten.view.default, _aten.reshape.default, _aten.expand.default, _aten.slice.Tensor,
    _aten.select.int, _aten.squeeze.dim, _aten.squeeze.default, _aten.transpose.int, _aten.permute.default,
    _aten.t.default, _aten.alias.default, _aten.detach.default,
}  # fmt: skip
_ASSERTION = _aten._assert_tensor_metadata.default
_CASTS = {_aten.to.dtype, _aten.to.device, _aten.to.dtype_layout, _aten._to_copy.default}


def refuse_complex(module: torch.nn.Module, precision: object) -> None:
    """Refuses complex parameters and buffers of a model that will be cast.

    Raises:
        BuildFailedError: with the first one's name.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_complex():
            raise BuildFailedError(
                f"{name} is complex, and casting the model to {precision} would drop its imaginary part",
                where=f"--precision {precision}",
                remedy="build without --precision, or keep its real and imaginary part in two buffers",
            )


def fp32_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of a module's fp32 buffers, before it is cast."""
    return {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.dtype is torch.float32}


def restore_tables(program: ExportedProgram, originals: dict[str, torch.Tensor]) -> list[str]:
    """Gives the buffers that a program reads in fp32 alone their fp32 values again, in place.

    Args:
        originals: from :func:`fp32_buffers`.

    Returns:
        Their names.
    """
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    restored = []
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name] if spec.kind is InputKind.BUFFER else None
        if node is None or spec.target not in originals or not node.users or not _is_read_in_fp32(node):
            continue
        values = program.state_dict if spec.target in program.state_dict else program.constants
        values[spec.target] = originals[spec.target]
        _widen(node)
        restored.append(spec.target)
    program.graph_module.recompile()
    return restored


def _is_read_in_fp32(node: torch.fx.Node) -> bool:
    """Whether a value goes into casts to fp32 and nothing else, seen in another shape or not."""
    return all(
        user.target is _ASSERTION
        or (user.target in _CASTS and user.meta["val"].dtype is torch.float32)
        or (user.target in _VIEWS and user.args[0] is node and _is_read_in_fp32(user))
        for user in node.users
    )


def _widen(node: torch.fx.Node) -> None:
    with node.meta["val"].fake_mode:
        node.meta["val"] = node.meta["val"].float()
    for user in list(node.users):
        if user.target is _ASSERTION:  # of the dtype that it had
            user.graph.erase_node(user)
        elif user.target in _VIEWS:
            _widen(user)
