"""Makes a recorded network without rounding, which computes what its engine would if halves were fp32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.integration.network.control import structured
from tests.integration.network.interpreter import Network
from tests.integration.network.layers import Compute
from tests.integration.network.steps import Slot, Step

_HALVES = (torch.float16, torch.bfloat16)


def exact(network: Network) -> Network:
    """Returns the same network with fp32 instead of halves, for its inputs too. Weights keep their rounded values."""
    slots = tuple(_widened_slot(slot) for slot in network.slots)
    layers = tuple(_exact_step(step, network.slots) for step in network.layers)
    return Network(slots, network.inputs, network.outputs, layers, structured(layers))


def _widened_slot(slot: Slot) -> Slot:
    return replace(slot, dtype=torch.float32) if slot.dtype in _HALVES else slot


def _exact_step(step: Step, slots: tuple[Slot, ...]) -> Step:
    if step.kind in ("CAST", "IDENTITY") and slots[step.outputs[0]].dtype in _HALVES:
        return replace(step, compute=lambda x: x.float())
    return replace(step, compute=_widening(step.compute)) if step.boundary is None else step


def _widening(compute: Compute) -> Compute:
    def widened(*values: Any) -> Any:
        results = compute(*values)
        if isinstance(results, torch.Tensor):
            return _widen(results)
        return [_widen(result) for result in results]

    return widened


def _widen(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.dtype in _HALVES else value
