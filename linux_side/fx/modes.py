"""What the arguments of a call switch on: random numbers, or what only training does."""

from __future__ import annotations

from typing import Any

import torch

# The arguments by which an operator of training is switched, and those that say how much of it there is.
_SWITCHES = ("train", "training")
_AMOUNTS = ("dropout_p", "dropout", "p")


def draws(node: torch.fx.Node) -> bool:
    """Whether a call takes new random numbers each time: by PyTorch's own tag, unless its arguments switch that off.

    Attention is tagged for its dropout, and draws nothing at ``dropout_p=0``.
    """
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    arguments = _arguments(node)
    return not _is_switched(arguments) or (_is_training(arguments) and _amount(arguments) != 0)


def trains(node: torch.fx.Node) -> bool:
    """Whether a call is an operator's training form: dropout that drops, batch norm that changes its statistics.

    Batch norm without statistics of its own normalizes by its input's in either mode.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    arguments = _arguments(node)
    if "batch_norm" in node.target._opname:
        in_training = "with_update" in node.target._opname or arguments.get("training") is True
        return in_training and arguments.get("running_mean") is not None
    return _is_switched(arguments) and draws(node)


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    schema = node.target._schema.arguments
    values = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    values.update(zip((argument.name for argument in schema), node.args, strict=False))
    return {**values, **node.kwargs}


def _is_switched(arguments: dict[str, Any]) -> bool:
    return any(name in arguments for name in (*_SWITCHES, "dropout_p"))


def _is_training(arguments: dict[str, Any]) -> bool:
    return all(arguments.get(name) is not False for name in _SWITCHES)


def _amount(arguments: dict[str, Any]) -> Any:
    return next((arguments[name] for name in _AMOUNTS if name in arguments), None)
