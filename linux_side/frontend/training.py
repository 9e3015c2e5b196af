"""Refuses models in training mode, and programs that call operators in training mode."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.export import ExportedProgram

from linux_side.fx.modes import draws, trains
from linux_side.fx.source_line import located
from toolchain.errors import BuildFailedError

_NAMED = 5


def require_eval(module: torch.nn.Module, *, where: str) -> None:
    """Refuses a model with any part in training mode, even a part that computes the same in both modes.

    Args:
        module: the model.
        where: its name, for errors.

    Raises:
        BuildFailedError: the message names those parts.
    """
    training = list(_training(module, ""))
    if training:
        names = ", ".join(training[:_NAMED])
        more = f" and {len(training) - _NAMED} more" if len(training) > _NAMED else ""
        raise BuildFailedError(
            f"a part of the model is in training mode: {names}{more}",
            where=where,
            remedy="call model.eval() at the end of the factory, before it returns the model",
        )


def check_operators_of_training(program: ExportedProgram) -> None:
    """Refuses a program whose dropout drops or whose batch norm updates its statistics.

    Raises:
        BuildFailedError: the message names the operator and the line of the model that calls it.
    """
    for node in (
        n for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule) for n in m.graph.nodes
    ):
        if node.op == "call_function" and trains(node):
            effect = "draws new random numbers" if draws(node) else "changes the statistics of batch norm"
            raise BuildFailedError(
                f"the model calls {node.target} in its training form, which {effect} at every call",
                where=located(node),
                remedy="call model.eval() before torch.export.export; pass training=self.training to functions of "
                "torch.nn.functional, and dropout_p=0.0 to scaled_dot_product_attention",
            )


def _training(module: torch.nn.Module, path: str) -> Iterator[str]:
    """Yields the modules in training mode, innermost first."""
    if "train" in vars(module):  # an exported program's module has no mode to change; its operators are checked instead
        return
    for name, child in module.named_children():
        yield from _training(child, f"{path}.{name}" if path else name)
    if module.training:
        yield f"{path} ({type(module).__name__})" if path else f"the model itself ({type(module).__name__})"
