"""Golden I/O on the consumer's side: reading it and comparing with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch.utils import _pytree as pytree

from toolchain.artifact import Artifact
from toolchain.errors import MalformedArtifactError
from toolchain.manifest import GOLDEN_ENTRY, Tolerance, ValueSpec


@dataclass(frozen=True)
class OutputError:
    """How far one output is from golden.

    Attributes:
        relative_l2: ``||got - want|| / ||want||``.
        max_relative: ``max |got - want| / max |want|``.
        cosine: of the two, flattened.
        worst_index: where the largest difference lies.
    """

    sample: int
    name: str
    dtype: str
    relative_l2: float
    max_absolute: float
    max_relative: float
    cosine: float
    worst_index: tuple[int, ...]
    worst_got: float
    worst_want: float
    tolerance: Tolerance

    @property
    def within(self) -> bool:
        return self.relative_l2 <= self.tolerance.relative_l2 and self.max_relative <= self.tolerance.max_relative


def read_golden(artifact: Artifact) -> list[tuple[list[Any], list[torch.Tensor | None]]]:
    """The samples: each the leaves of a call, and the outputs' leaves.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    manifest = artifact.manifest
    if manifest.golden is None:
        return []
    try:
        tensors = load_safetensors(artifact.read_entry(GOLDEN_ENTRY))
    except Exception as error:
        raise _malformed(artifact, f"it is no safetensors file: {error}") from error
    samples = []
    for number in range(manifest.golden.samples):
        inputs = [_leaf(artifact, tensors, f"{number}.input.{i}", spec) for i, spec in enumerate(manifest.inputs)]
        outputs = [_leaf(artifact, tensors, f"{number}.output.{i}", spec) for i, spec in enumerate(manifest.outputs)]
        samples.append((inputs, outputs))
    if tensors:
        raise _malformed(artifact, f"it holds {sorted(tensors)[0]!r}, which the manifest does not describe")
    return samples


def compare_golden(artifact: Artifact, model: Any) -> list[OutputError]:
    """Runs every golden sample through a loaded model."""
    errors = []
    in_spec = pytree.treespec_loads(artifact.manifest.call.in_spec)
    for number, (inputs, wanted) in enumerate(read_golden(artifact)):
        placed = [leaf.to(model.device) if isinstance(leaf, torch.Tensor) else leaf for leaf in inputs]
        args, kwargs = pytree.tree_unflatten(placed, in_spec)
        outputs = pytree.tree_leaves(model(*args, **kwargs))
        for spec, got, want in zip(artifact.manifest.outputs, outputs, wanted, strict=True):
            if want is not None:
                errors.append(_compare(artifact, number, spec, got, want))
    return errors


def _compare(artifact: Artifact, number: int, spec: ValueSpec, got: torch.Tensor, want: torch.Tensor) -> OutputError:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise _malformed(artifact, f"output {spec.name} is {got.dtype} {tuple(got.shape)}")
    golden = artifact.manifest.golden
    tolerance = golden.tolerance.get(str(spec.dtype)) if golden else None
    if tolerance is None:
        raise _malformed(artifact, f"the manifest gives no tolerance for {spec.dtype}")
    a, b = _doubles(got.detach().cpu()), _doubles(want)
    difference = (a - b).abs().nan_to_num(nan=float("inf"))
    worst = int(difference.argmax()) if difference.numel() else 0
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), difference.shape)) if a.numel() else ()
    peak = difference.max().item() if a.numel() else 0.0
    return OutputError(
        sample=number,
        name=spec.name,
        dtype=str(spec.dtype),
        relative_l2=_ratio(difference.norm().item(), b.norm().item()),
        max_absolute=peak,
        max_relative=_ratio(peak, b.abs().max().item() if b.numel() else 0.0),
        cosine=torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() if a.numel() else 1.0,
        worst_index=index,
        worst_got=a[index].item() if a.numel() else 0.0,
        worst_want=b[index].item() if b.numel() else 0.0,
        tolerance=tolerance,
    )


def _doubles(value: torch.Tensor) -> torch.Tensor:
    """The value in fp64; complex numbers as pairs."""
    return (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).double()


def _ratio(error: float, scale: float) -> float:
    return 0.0 if error == 0 else error / scale if scale else float("inf")


def _leaf(artifact: Artifact, tensors: dict[str, torch.Tensor], key: str, spec: ValueSpec) -> Any:
    if spec.dtype is None:
        return spec.value
    tensor = tensors.pop(key, None)
    if tensor is None or str(tensor.dtype) != f"torch.{spec.dtype}":
        found = "missing" if tensor is None else str(tensor.dtype)
        raise _malformed(artifact, f"{key} is {found}, the manifest says {spec.dtype}")
    return tensor


def _malformed(artifact: Artifact, problem: str) -> MalformedArtifactError:
    return MalformedArtifactError(
        f"the golden I/O is wrong: {problem}",
        where=f"{artifact.path}, entry {GOLDEN_ENTRY}",
        remedy="get the file again, or build it again",
    )
