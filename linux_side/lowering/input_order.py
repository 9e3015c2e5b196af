"""The order of a program's inputs after torch has decomposed it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export.graph_signature import InputKind, InputSpec

from linux_side.fx.graph_copy import set_attribute

_HELD = (InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def order_of(specs: Sequence[InputSpec]) -> list[int]:
    """Returns the index of each input of the decomposed program among the inputs of the original.

    Torch makes a module of the program, with constants as buffers. The decomposed program has the parameters of that
    module, then its buffers, then the user's inputs.

    Args:
        specs: the inputs of the original.
    """
    held = {spec.target: index for index, spec in enumerate(specs) if spec.target is not None}
    module = torch.nn.Module()
    for name in held:
        set_attribute(module, name, torch.empty(0), persistent=True)
    names = [held[name] for name, _ in module.named_buffers()]
    parameters = [index for index in names if specs[index].kind is InputKind.PARAMETER]
    buffers = [index for index in names if specs[index].kind in _HELD]
    return parameters + buffers + [index for index, spec in enumerate(specs) if spec.target is None]
