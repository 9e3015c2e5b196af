"""The order of a program's inputs after torch has decomposed it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.export.graph_signature import InputKind, InputSpec

_HELD = (InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def order_of(specs: Sequence[InputSpec]) -> list[int]:
    """Returns the index of each input of the decomposed program among the inputs of the original.

    Torch makes a module of the program, with constants as buffers. The decomposed program has the parameters of that
    module, then its buffers, then the user's inputs.

    Args:
        specs: the inputs of the original.
    """
    tree = torch.nn.Module()
    held = {spec.target: index for index, spec in enumerate(specs) if spec.target is not None}
    for name in held:
        owner = tree
        *path, leaf = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, torch.nn.Module())
            owner = owner.get_submodule(part)
        owner.register_buffer(leaf, None)
    names = [held[name] for name in _names(tree)]
    parameters = [index for index in names if specs[index].kind is InputKind.PARAMETER]
    buffers = [index for index in names if specs[index].kind in _HELD]
    return parameters + buffers + [index for index, spec in enumerate(specs) if spec.target is None]


def _names(module: torch.nn.Module, prefix: str = "") -> Iterator[str]:
    yield from (prefix + leaf for leaf in module._buffers)
    for name, child in module.named_children():
        yield from _names(child, f"{prefix}{name}.")
