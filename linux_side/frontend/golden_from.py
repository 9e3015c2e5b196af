"""Records golden I/O for an artifact that has none, by running the original model on the CPU."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.frontend.golden import record_golden
from linux_side.frontend.golden_doubts import GoldenSample
from linux_side.frontend.golden_entry import describe_golden, serialize_golden, tolerance_of
from linux_side.frontend.original import Original
from linux_side.frontend.source import export_program, original_model
from toolchain.artifact import Artifact
from toolchain.container.entry_names import SAMPLE_INPUTS_ENTRY
from toolchain.convert import GoldenData
from toolchain.errors import BuildFailedError, UsageError
from toolchain.manifest.models import Manifest, ValueSpec, allows

_SAMPLE_LIMIT = 2**30


def golden_from(artifact: Artifact, model: str, samples: int) -> tuple[GoldenData, str]:
    """Runs the original model on the artifact's own sample inputs, or on the model's example if there are none.

    Args:
        artifact: a foreign artifact, or one that was built without golden I/O.
        model: a ``.pt2`` program or ``module:factory``, as ``build`` takes it.
        samples: how many samples to record: the example and variations of it.

    Returns:
        The golden I/O, and a phrase that states where its inputs come from.

    Raises:
        UsageError: there is no such model, or its inputs and outputs do not fit the artifact.
        BuildFailedError: the model fails, or gives different outputs at each run.
    """
    found, args, kwargs = original_model(model)
    source = "the original model's example"
    if (own := _own_inputs(artifact)) is not None:
        (args, kwargs), source = own, "the file's own sample inputs"
    kwargs = _in_order(kwargs, artifact.manifest.inputs)
    if isinstance(found, ExportedProgram):
        program, original = found, Original(found.module(check_guards=False), args, kwargs, eager=False)
    else:
        original = Original(found, args, kwargs)
        program = export_program(model, found, args, kwargs)
    tolerance = tolerance_of(_precision(artifact.manifest))
    recording = record_golden(original, program, samples, [])
    if not recording.samples:
        raise BuildFailedError(
            recording.warnings[0], where=f"--golden-from {model}", remedy="convert without --golden-from"
        )
    for sample in recording.samples:
        for kind, leaves, specs in _sides(sample, artifact.manifest):
            _check(kind, leaves, specs, model)
    described = describe_golden(recording.samples, tolerance)
    data = serialize_golden(recording.samples)
    return GoldenData(data, described, recording.warnings_at(tolerance), recording.precision), source


def _own_inputs(artifact: Artifact) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Returns a foreign file's sample inputs if torch's weights-only mode reads them: tensors in plain containers."""
    entry = artifact.container.entries.get(SAMPLE_INPUTS_ENTRY)
    if entry is None or not entry.size:
        return None
    data = artifact.read_entry(SAMPLE_INPUTS_ENTRY, size_limit=_SAMPLE_LIMIT)
    try:
        args, kwargs = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception:  # noqa: BLE001 - torch may raise any class for a hostile pickle, which is then ignored
        return None
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict):
        return None
    return tuple(args), kwargs


def _in_order(kwargs: dict[str, Any], specs: Sequence[ValueSpec]) -> dict[str, Any]:
    """Returns the keyword arguments in the order of the artifact's leaves."""
    order = {name: index for index, name in reversed(list(enumerate(spec.name.partition(".")[0] for spec in specs)))}
    return dict(sorted(kwargs.items(), key=lambda item: order.get(item[0], len(order))))


def _sides(sample: GoldenSample, manifest: Manifest) -> Iterator[tuple[str, Sequence[Any], Sequence[ValueSpec]]]:
    yield "inputs", sample.inputs, manifest.inputs
    yield "outputs", sample.outputs, manifest.outputs


def _check(kind: str, leaves: Sequence[torch.Tensor | None], specs: Sequence[ValueSpec], model: str) -> None:
    wrong = None if len(leaves) == len(specs) else f"{len(leaves)} {kind} instead of {len(specs)}"
    for leaf, spec in zip(leaves, specs, strict=False):
        if wrong is None and not _fits(leaf, spec):
            found = "no tensor" if leaf is None else f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
            wrong = f"among its {kind}, {spec.name} is {found}"
    if wrong:
        raise UsageError(
            f"this is not the model that the artifact was made of: it has {wrong}",
            where=f"--golden-from {model}",
            remedy="name the original; its inputs and outputs are those that `trtcross inspect` lists",
        )


def _fits(leaf: torch.Tensor | None, spec: ValueSpec) -> bool:
    if leaf is None or spec.dtype is None:
        return leaf is None and spec.dtype is None
    shape = spec.shape or []
    return (
        str(leaf.dtype) == f"torch.{spec.dtype}"
        and leaf.dim() == len(shape)
        and all(allows(wanted, size) for wanted, size in zip(shape, leaf.shape, strict=True))
    )


def _precision(manifest: Manifest) -> str:
    """Returns the engines' precision as far as the file records it: in old releases TensorRT chose among several."""
    dtypes = {binding.dtype for engine in manifest.engines for binding in (*engine.inputs, *engine.outputs)}
    settings = manifest.settings.get("compilation_settings")
    enabled = settings.get("enabled_precisions") if isinstance(settings, dict) else None
    if "bfloat16" in dtypes:
        return "bf16"
    return "fp16" if "float16" in dtypes or (isinstance(enabled, list) and len(enabled) > 1) else "fp32"
