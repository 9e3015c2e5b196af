"""Reads inputs and golden samples from files of tensors, and writes outputs, for torch and numpy alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import malformed_golden
from toolchain.container.entry_names import GOLDEN_ENTRY
from toolchain.errors import UsageError
from toolchain.io.atomic import write_bytes, writing
from toolchain.manifest.models import Manifest, ValueSpec

T = TypeVar("T")


def named_inputs(manifest: Manifest, tensors: Mapping[str, T], source: Path) -> dict[str, T]:
    """Returns the inputs of a call from a file's tensors, by name and in the manifest's order.

    Args:
        tensors: the file's tensors by name; others than the inputs are ignored.
        source: the file's path, for errors.

    Raises:
        UsageError: an input is missing.
    """
    names = [spec.name for spec in manifest.inputs if spec.dtype]
    if missing := [name for name in names if name not in tensors]:
        raise UsageError(
            f"the file lacks the input {', '.join(missing)}",
            where=str(source),
            remedy="name each tensor as `trtcross inspect` names the input",
        )
    return {name: tensors[name] for name in names}


def unreadable_inputs(error: Exception, source: Path) -> UsageError:
    """Returns the error for a file of inputs that cannot be read."""
    return UsageError(f"the inputs cannot be read: {error}", where=str(source), remedy="write them with safetensors")


def write_outputs(data: bytes, out: Path) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises:
        UsageError: the file cannot be written; what was there before is unchanged.
    """
    remedy = "name a file in a folder that exists and can be written to, and look at the free disk space"
    with writing("the outputs", out, remedy=remedy):
        write_bytes(out, data)


def golden_samples(
    artifact: Artifact, load: Callable[[bytes], dict[str, T]], dtype_of: Callable[[T], str]
) -> list[tuple[list[Any], list[T | None]]]:
    """Returns the golden samples: for each, the leaves of a call and the leaves of its outputs.

    Args:
        load: returns the tensors of a safetensors file, by name.
        dtype_of: returns a tensor's dtype, as the manifest names it.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    manifest = artifact.manifest
    if manifest.golden is None:
        return []
    try:
        tensors = load(artifact.read_entry(GOLDEN_ENTRY))
    except Exception as error:
        raise malformed_golden(artifact, f"it is no safetensors file: {error}") from error

    def leaf(key: str, spec: ValueSpec) -> Any:
        if spec.dtype is None:
            return spec.value
        tensor = tensors.pop(key, None)
        found = "missing" if tensor is None else dtype_of(tensor)
        if found != spec.dtype:
            raise malformed_golden(artifact, f"{key} is {found}, the manifest says {spec.dtype}")
        return tensor

    samples = []
    for number in range(manifest.golden.samples):
        inputs = [leaf(f"{number}.input.{index}", spec) for index, spec in enumerate(manifest.inputs)]
        outputs = [leaf(f"{number}.output.{index}", spec) for index, spec in enumerate(manifest.outputs)]
        samples.append((inputs, outputs))
    if tensors:
        raise malformed_golden(artifact, f"it holds {sorted(tensors)[0]!r}, which the manifest does not describe")
    return samples
