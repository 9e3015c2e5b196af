"""Reads from a call's arguments whether it draws random numbers, and whether it is in training mode."""

from __future__ import annotations

from typing import Any

import torch

# The arguments that switch an operator's training mode, and those that give the probability of dropout.
_SWITCHES = ("train", "training")
_AMOUNTS = ("dropout_p", "dropout", "p")


def draws(node: torch.fx.Node) -> bool:
    """Returns whether a call draws random numbers: it has PyTorch's tag, and its arguments do not switch that off.

    For example, attention has the tag for its dropout, and draws nothing if ``dropout_p=0``.
    """
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    arguments = _arguments(node)
    return not _is_switched(arguments) or (_is_training(arguments) and _amount(arguments) != 0)


def trains(node: torch.fx.Node) -> bool:
    """Returns whether a call is in training mode: dropout that drops, or batch norm that updates its statistics.

    Batch norm without running statistics normalizes by its input's statistics in either mode, so it does not count.
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
