"""Random weights that depend on names alone, and with which a network computes numbers of a usual size.

A matrix keeps the variance of what it multiplies. Batch norms get the statistics of the example, as training gives
them. So the outputs are neither constant nor huge, and they differ between inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.models.weights import drawn

_CALLS, _LEAST_SHARE = 8, 0.1
# Part of the name of every class of norms, whoever wrote it.
_NORM = "norm"
# Least and greatest standard deviation of an output, and how much of it must change with the input.
LEAST, MOST, CHANGE = 1e-4, 1e4, 1e-3


def settle(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Fills a model's weights in place, and puts it into eval mode.

    Args:
        model: the model.
        args: the positional arguments of a call, from which batch norms get their statistics.
        kwargs: the keyword arguments of that call.
    """
    model.eval()
    with torch.no_grad():
        for prefix, module in model.named_modules():
            norm = _NORM in type(module).__name__.lower()
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(_values(f"{prefix}.{name}", name, parameter, norm, type(module).__name__))
        _calibrate(model, args, kwargs)


def _values(path: str, name: str, parameter: Tensor, norm: bool, kind: str) -> Tensor:
    values = drawn(path, parameter.shape).to(parameter.dtype)
    if parameter.dim() < 2 or parameter.shape[0] == parameter.numel():
        return 1 + 0.1 * values if norm and name in ("weight", "scale", "gamma") else 0.1 * values
    if "Embedding" in kind:
        return values * 0.5
    fan = parameter[0].numel()
    if "Transpose" in kind:  # its shape is (in, out, ...), and each output sums over the inputs
        fan = parameter.shape[0]
    return values * fan**-0.5


def _calibrate(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Gives batch norms the statistics of their inputs over some calls; each call uses those of the calls before."""

    def take(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().float()
        over = [dim for dim in range(x.dim()) if dim != 1]
        mean, square = x.mean(over), x.square().mean(over)
        count = seen[norm] = seen.get(norm, 0) + 1
        # Mean and square are averages over all calls so far.
        before = norm.running_var + norm.running_mean.square() if count > 1 else square
        norm.running_mean.lerp_(mean, 1 / count)
        # A few pixels may be almost equal; dividing by their small variance would make the next outputs huge.
        norm.running_var.copy_(before.lerp(square, 1 / count) - norm.running_mean.square())
        norm.running_var.clamp_(min=_LEAST_SHARE * square.mean().item() + 1e-6)

    seen: dict[Any, int] = {}
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        for seed in range(_CALLS if norms else 0):
            model(*_other(args, seed), **_other(kwargs, seed))
    finally:
        for handle in handles:
            handle.remove()


def doubts(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Returns why comparing this model's outputs would prove little; an empty list means that it proves something."""
    with torch.no_grad():
        first, second = _floats(model(*args, **kwargs)), _floats(model(*_other(args), **_other(kwargs)))
    found = [] if first else ["no output is a float"]
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        spread = a.std().item() if a.numel() > 1 else a.abs().max().item()
        if not a.isfinite().all():
            found.append(f"output {index} is not finite")
        elif not LEAST < spread < MOST:
            found.append(f"output {index} has a standard deviation of {spread:.1e}")
        elif a.shape == b.shape and (a - b).norm() < CHANGE * a.norm():
            found.append(f"output {index} hardly depends on the input")
    return found


def _floats(result: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(result)
    return [leaf.float() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]


def _other(values: Any, seed: int = 0) -> Any:
    """Returns the same arguments with different numbers."""
    generator = torch.Generator().manual_seed(seed)

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_floating_point():
            return leaf + leaf.std(unbiased=False) * torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
        return leaf.flatten()[torch.randperm(leaf.numel(), generator=generator)].view(leaf.shape)

    return pytree.tree_map(change, values)
