"""Golden I/O: inputs, and what the original model makes of them in fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch.utils import _pytree as pytree

from linux_side.frontend.casting import changed_inputs
from toolchain.errors import BuildFailedError
from toolchain.manifest.models import Golden, Tolerance

# About ten times the unit roundoff of a factor (2**-11 in TF32 and fp16, 2**-8 in bf16), and about twice the worst that
# was measured: 2.3e-3, 4.2e-3 and 3.2e-2 on an NVIDIA H200 (docs/benchmarks/gpu.md).
_TOLERANCES = {
    "fp32": Tolerance(relative_l2=5e-3, max_relative=1e-2),
    "fp16": Tolerance(relative_l2=1e-2, max_relative=2e-2),
    "bf16": Tolerance(relative_l2=5e-2, max_relative=1e-1),
}
EXACT = Tolerance(relative_l2=0.0, max_relative=0.0)


@dataclass(frozen=True)
class GoldenSample:
    """One call's leaves: tensors in, tensors out; None where a leaf is no tensor.

    Attributes:
        changed: the inputs that the model changed in place; :func:`.casting.changed_inputs` names them.
    """

    inputs: list[torch.Tensor | None]
    outputs: list[torch.Tensor | None]
    changed: frozenset[str] = frozenset()


def golden_doubts(samples: Sequence[GoldenSample]) -> list[str]:
    """Warnings for outputs that prove nothing: torchvision's fresh ViT, say, has a head of zeros."""
    outputs = zip(*(sample.outputs for sample in samples), strict=True)
    return [
        f"the golden output {index} is zero everywhere, so it cannot show wrong numbers: give the model trained or "
        "random weights"
        for index, values in enumerate(outputs)
        if all(value is not None and value.numel() and not value.any() for value in values)
    ]


def record_golden(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], samples: int
) -> list[GoldenSample]:
    """Runs the original model on its example and on variations of it.

    The first sample is the example itself. Others have its shapes and dtypes: floats of its mean and spread, other
    values shuffled, so that they stay in range. State goes on from sample to sample, as it will in the artifact, and
    is put back at the end.

    Raises:
        BuildFailedError: the model itself fails.
    """
    recorded = []
    buffers = list(model.buffers()) if isinstance(model, torch.nn.Module) else []
    state = [buffer.clone() for buffer in buffers]
    leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
    for index in range(samples):
        generator = torch.Generator().manual_seed(index)
        inputs = [leaf if index == 0 else _vary(leaf, generator) for leaf in leaves]
        arguments, keywords = pytree.tree_unflatten(pytree.tree_map(_copied, inputs), spec)
        try:
            with torch.no_grad():
                result = model(*arguments, **keywords)
        except Exception as error:
            raise BuildFailedError(
                f"the model raised {type(error).__name__} on its own example: {str(error).strip()[:200]}",
                where="golden outputs",
                remedy="check the example inputs; --golden 0 builds without",
            ) from error
        outputs = [_tensor(leaf) for leaf in pytree.tree_leaves(result)]
        changed = frozenset(changed_inputs(arguments, keywords))
        recorded.append(GoldenSample([_tensor(leaf) for leaf in inputs], outputs, changed))
    for buffer, value in zip(buffers, state, strict=True):
        if not torch.equal(buffer, value):
            buffer.copy_(value)
    return recorded


def serialize_golden(samples: Sequence[GoldenSample]) -> bytes:
    """The samples as safetensors, named ``SAMPLE.input.LEAF`` and ``SAMPLE.output.LEAF``."""
    tensors = {}
    for number, sample in enumerate(samples):
        for kind, leaves in (("input", sample.inputs), ("output", sample.outputs)):
            for index, leaf in enumerate(leaves):
                if leaf is not None:
                    tensors[f"{number}.{kind}.{index}"] = leaf.detach().clone().contiguous()
    return bytes(save(tensors))


def describe_golden(samples: Sequence[GoldenSample], precision: str) -> Golden:
    """The manifest's record, with a tolerance for each dtype among the outputs."""
    dtypes = {leaf.dtype for sample in samples for leaf in sample.outputs if leaf is not None}
    tolerance = {
        str(dtype).removeprefix("torch."): _TOLERANCES[precision]
        if dtype.is_floating_point or dtype.is_complex
        else EXACT
        for dtype in sorted(dtypes, key=str)
    }
    return Golden(samples=len(samples), tolerance=tolerance)


def _vary(leaf: Any, generator: torch.Generator) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.is_floating_point():
        spread = leaf.float().std().nan_to_num(1.0).item() or 1.0 if leaf.numel() > 1 else 1.0
        return (torch.randn(leaf.shape, generator=generator) * spread + leaf.float().mean()).to(leaf.dtype)
    order = torch.randperm(leaf.numel(), generator=generator)
    return leaf.flatten()[order].reshape(leaf.shape)


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf  # a model may write into its inputs


def _tensor(leaf: Any) -> torch.Tensor | None:
    return leaf if isinstance(leaf, torch.Tensor) else None
